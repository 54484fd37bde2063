//! Deletes what keyed streams have behind them: records that this process has consumed, in a committed checkpoint.
//!
//! Invariant: nothing is deleted past a committed offset. What fails is tried again, and costs nothing but room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millstream_engine::pipeline::Pipeline;
use millstream_engine::task::TopicPartition;

use crate::cluster::{Admin as _, Cluster};
use crate::fault;
use crate::status::SharedStatus;
use crate::threads;

/// How often it is done, and how often it is looked whether the process ends.
const INTERVAL: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// Starts a thread that purges until `stop`, if the pipeline has streams.
pub fn start<C: Cluster>(
    cluster: &C,
    pipeline: &Arc<Pipeline>,
    workers: &[SharedStatus],
    stop: &Arc<AtomicBool>,
) -> std::io::Result<()> {
    if !pipeline.has_streams() {
        return Ok(());
    }
    let mut purge = Purge {
        pipeline: Arc::clone(pipeline),
        workers: workers.to_vec(),
        purged: BTreeMap::new(),
        said: String::new(),
    };
    let (cluster, stop) = (cluster.clone(), Arc::clone(stop));
    let run = move || {
        let mut due = Instant::now() + INTERVAL;
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
            if Instant::now() >= due {
                purge.run(&cluster);
                due = Instant::now() + INTERVAL;
            }
        }
    };
    threads::start("purge", run)?;
    Ok(())
}

struct Purge {
    pipeline: Arc<Pipeline>,
    workers: Vec<SharedStatus>,
    /// Up to where each was purged.
    purged: BTreeMap<TopicPartition, i64>,
    /// The last reason for a failure.
    said: String,
}

impl Purge {
    fn run(&mut self, cluster: &impl Cluster) {
        let consumed = self.consumed();
        if consumed.is_empty() {
            return;
        }
        let topic = |at: &TopicPartition| self.pipeline.topics[at.topic.0].topic.as_str();
        let before: Vec<(&str, u32, i64)> = consumed
            .iter()
            .map(|(at, offset)| (topic(at), at.partition, *offset))
            .collect();
        // One that has been idle for long is cut off by the brokers: it is made anew each time.
        fault::reach("purge-asking");
        let admin = cluster.admin();
        match admin.and_then(|admin| admin.delete_records(&before)) {
            Ok(()) => {
                fault::reach("purge-done");
                self.said.clear();
                self.purged.extend(consumed);
            }
            Err(error) => {
                let why = error.to_string();
                if why != self.said {
                    tracing::warn!("streams can't be purged of what was consumed: {why}");
                    self.said = why;
                }
            }
        }
    }

    /// Partitions of streams that have moved on since they were purged, with their committed offsets.
    fn consumed(&self) -> Vec<(TopicPartition, i64)> {
        let mut consumed = Vec::new();
        for worker in &self.workers {
            let status = worker.lock().expect("nobody panics with it held");
            let streams = status.held.iter();
            consumed.extend(streams.filter(|(at, offset)| {
                let before = self.purged.get(at).copied().unwrap_or(0);
                self.pipeline.is_stream(at.topic) && *offset > before
            }));
        }
        consumed
    }
}
