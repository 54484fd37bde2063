//! What a worker says of itself, for queries.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_engine::pipeline::Pipeline;
use millstream_engine::tally::Tally;
use millstream_engine::task::TopicPartition;
use millstream_engine::task::failure::Stopped;

use crate::plugin_limits::{Hits, PluginLimits};

#[derive(Clone, Debug)]
pub struct WorkerStatus {
    pub phase: Phase,
    /// Partitions held, with the committed offset of each.
    pub held: Vec<(TopicPartition, i64)>,
    /// The ends of these partitions, as far as the consumer has heard of them.
    pub ends: BTreeMap<TopicPartition, i64>,
    pub stopped: Vec<Stopped>,
    pub retrying: Option<Retrying>,
    pub tally: Tally,
    /// In the pipeline's order.
    pub steps: Vec<StepMeter>,
    pub commits: Commits,
}

/// Epochs that failed since the last one that was committed, and why the last of them did.
#[derive(Clone, Debug, Default)]
pub struct Retrying {
    pub epochs: u32,
    /// How many epochs had been committed before.
    pub after: u64,
    pub reason: String,
}

/// What the calls of a step's plugin took in one worker, replays included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepMeter {
    pub calls: u64,
    pub failed_calls: u64,
    pub time: Duration,
    pub records_in: u64,
    pub bytes_in: u64,
    pub records_out: u64,
    /// Of what the plugin wrote itself: what records inherit is not counted.
    pub bytes_out: u64,
    /// Of the living instance, in bytes.
    pub memory: u64,
    /// Of all calls the longest, and what the largest answers had.
    pub longest: Duration,
    pub most_records: u64,
    pub most_bytes: u64,
    /// Instances that were replaced for their memory.
    pub replaced: u64,
    /// Lines of the plugin in the log, and those beyond what it may write.
    pub log_lines: u64,
    pub log_lines_left_out: u64,
    pub limits: PluginLimits,
    pub hits: Hits,
}

/// How long commits took that succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Commits {
    /// One for each of [`BOUNDS`], and one for what took longer.
    counts: [u64; BOUNDS.len() + 1],
    total: Duration,
}

/// In seconds.
const BOUNDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

impl Commits {
    pub fn note(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound);
        self.counts[bucket.unwrap_or(BOUNDS.len())] += 1;
        self.total += took;
    }

    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// Upper bounds in seconds, and how many lie between each and the one before.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        bounds.zip(self.counts)
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn seconds(&self) -> f64 {
        self.total.as_secs_f64()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not yet given anything by the group, or between two assignments.
    Joining,
    Running,
    Ended,
}

/// A worker's last word, for others to read.
pub type SharedStatus = Arc<Mutex<WorkerStatus>>;

/// One for each worker that is to be started.
pub fn of_workers(workers: u32, pipeline: &Pipeline) -> Vec<SharedStatus> {
    (0..workers).map(|_| shared(Tally::new(pipeline))).collect()
}

fn shared(tally: Tally) -> SharedStatus {
    let status = WorkerStatus {
        phase: Phase::Joining,
        held: Vec::new(),
        ends: BTreeMap::new(),
        stopped: Vec::new(),
        retrying: None,
        tally,
        steps: Vec::new(),
        commits: Commits::default(),
    };
    Arc::new(Mutex::new(status))
}
