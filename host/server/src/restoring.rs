//! Says how far the maps are restored: with a bar where somebody looks, in log lines otherwise.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use millstream_engine::state::restore::Phase;

use crate::directory::Directory;
use crate::telemetry;

const LOOK: Duration = Duration::from_millis(200);

/// How often it is logged where nobody looks.
const LINE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Restoring {
    looked: Instant,
    said: Instant,
    began: Option<Instant>,
    /// The most that was seen to be left.
    total: u64,
    bar: Option<ProgressBar>,
}

impl Restoring {
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            looked: now,
            said: now,
            began: None,
            total: 0,
            bar: None,
        }
    }

    /// To be called all the time.
    pub fn look(&mut self, directory: &Directory) {
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        let (mut partitions, mut left) = (0, 0);
        for (_, partition) in directory.all() {
            let partition = partition.read().expect("nobody panics with it held");
            if let Phase::Restoring { end } = partition.phase() {
                partitions += 1;
                // A partition whose changelog can't be read just now knows no end.
                let offsets = if end == i64::MAX {
                    0
                } else {
                    end - partition.position()
                };
                left += u64::try_from(offsets).unwrap_or(0);
            }
        }
        if partitions > 0 {
            self.going_on(partitions, left);
        } else if let Some(began) = self.began.take() {
            self.total = 0;
            if let Some(bar) = self.bar.take() {
                bar.finish_and_clear();
            }
            tracing::info!("the maps are restored, in {:.1?}", began.elapsed());
        }
    }

    fn going_on(&mut self, partitions: usize, left: u64) {
        if self.began.is_none() {
            self.began = Some(Instant::now());
            self.said = Instant::now();
            self.bar = telemetry::bar(style());
        }
        self.total = self.total.max(left);
        if let Some(bar) = &self.bar {
            bar.set_length(self.total);
            bar.set_position(self.total - left);
        } else if self.said.elapsed() > LINE {
            self.said = Instant::now();
            let percent = 100 * (self.total - left) / self.total.max(1);
            tracing::info!(
                "restoring maps: {percent} %, {left} changelog offsets left in {partitions} partitions"
            );
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "restoring maps {bar:40} {percent} %, {human_pos} of {human_len}, {eta} left",
    )
    .expect("the template is sound")
}
