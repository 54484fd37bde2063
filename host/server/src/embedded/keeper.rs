//! Keeps the broker in memory from growing for ever: transactions and sessions time out, changelogs are compacted, and of other topics
//! only so much is kept as somebody may still look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use millstream_broker::{Broker, Error, Isolation, Place, Spec};

use super::{Shared, out_group};

const TICK: Duration = Duration::from_millis(200);

/// How many ticks go by between two looks at the logs.
const LOOK_TICKS: u32 = 25;

/// How many records a partition keeps beyond those that the group has still to read.
const RECORDS_KEPT: i64 = 100_000;

/// A thread that ends with the value.
#[derive(Debug)]
pub struct Keeper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// For the broker on which this pipeline runs.
    pub fn start(shared: Arc<Shared>, pipeline: &str) -> std::io::Result<Self> {
        let groups = [pipeline.to_owned(), out_group(pipeline)];
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let keep = move || {
            let mut ticks = 0;
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                shared.tell(|broker, now| broker.tick(now));
                ticks = (ticks + 1) % LOOK_TICKS;
                if ticks == 0 {
                    clean(&shared, &groups);
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("broker".into())
            .spawn(keep)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a panic ends the process");
        }
    }
}

/// One partition at a time, so that nobody waits for long.
fn clean(shared: &Shared, groups: &[String]) {
    let topics: Vec<(String, u32, bool)> = shared.ask(|broker| {
        let topics = broker.topics();
        topics
            .map(|(name, partitions, settings)| (name.to_owned(), partitions, settings.compact))
            .collect()
    });
    for (topic, partitions, compact) in topics {
        for partition in 0..partitions {
            let at = (topic.as_str(), partition);
            let cleaned = shared.tell(|broker, now| {
                if compact {
                    broker.compact(now, at)
                } else {
                    trim(broker, groups, at)
                }
            });
            if let Err(error) = cleaned {
                tracing::warn!(
                    topic,
                    partition,
                    "the broker in memory can't be cleaned: {error}"
                );
            }
        }
    }
}

fn trim(broker: &mut Broker, groups: &[String], at: Place<'_>) -> Result<(), Error> {
    let end = broker.list_offset(at, Spec::Latest(Isolation::ReadCommitted))?;
    let start = broker.list_offset(at, Spec::Earliest)?;
    let mut before = end - RECORDS_KEPT;
    for group in groups {
        // Who has committed nothing there doesn't read it.
        if let Some(read) = broker.fetch_offset(group, at, false)? {
            before = before.min(read.offset);
        }
    }
    if before > start {
        broker.delete_records(at, before)?;
    }
    Ok(())
}
