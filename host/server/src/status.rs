//! What a worker says of itself, for queries.

use std::sync::{Arc, Mutex};

use millstream_engine::tally::Tally;
use millstream_engine::task::TopicPartition;
use millstream_engine::task::failure::Stopped;

#[derive(Clone, Debug)]
pub struct WorkerStatus {
    pub phase: Phase,
    /// Partitions held, with the committed offset of each.
    pub held: Vec<(TopicPartition, i64)>,
    pub stopped: Vec<Stopped>,
    pub retrying: Option<Retrying>,
    pub tally: Tally,
}

/// Epochs that failed since the last one that was committed, and why the last of them did.
#[derive(Clone, Debug, Default)]
pub struct Retrying {
    pub epochs: u32,
    /// How many epochs had been committed before.
    pub after: u64,
    pub reason: String,
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

pub fn shared(tally: Tally) -> SharedStatus {
    let status = WorkerStatus {
        phase: Phase::Joining,
        held: Vec::new(),
        stopped: Vec::new(),
        retrying: None,
        tally,
    };
    Arc::new(Mutex::new(status))
}
