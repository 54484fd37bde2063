//! What a worker has done, counted. An epoch's counts join the total when it is committed, so that a replay counts nothing twice.

use std::collections::BTreeMap;

use crate::pipeline::Pipeline;
use crate::record::Columns;
use crate::task::failure::Kind;
use crate::task::run::{Ran, Sent};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records consumed and dealt with.
    pub records: u64,
    /// Bytes of their keys, values and headers.
    pub bytes: u64,
    /// By sink, in the pipeline's order.
    pub sent: Vec<Sent>,
    /// Records left out or stopped at, by step or sink.
    pub failures: BTreeMap<(String, Kind), u64>,
    /// Epochs that took effect, and such as did not, for whatever reason.
    pub committed: u64,
    pub aborted: u64,
    /// Commits that first were in doubt; their epochs count as committed or aborted too.
    pub in_doubt: u64,
}

impl Tally {
    pub fn new(pipeline: &Pipeline) -> Self {
        Self {
            sent: vec![Sent::default(); pipeline.sinks.len()],
            ..Self::default()
        }
    }

    /// Counts a batch.
    pub fn count(&mut self, ran: &Ran, batch: &Columns, pipeline: &Pipeline) {
        assert_eq!(ran.sent.len(), pipeline.sinks.len());
        self.records += ran.records as u64;
        self.bytes += bytes(batch, ran.records);
        for (total, sent) in self.sent.iter_mut().zip(&ran.sent) {
            total.records += sent.records;
            total.bytes += sent.bytes;
        }
        for failure in &ran.failures {
            let place = (failure.at.clone(), failure.kind);
            *self.failures.entry(place).or_default() += 1;
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        for (total, sent) in self.sent.iter_mut().zip(&other.sent) {
            total.records += sent.records;
            total.bytes += sent.bytes;
        }
        for (place, count) in &other.failures {
            *self.failures.entry(place.clone()).or_default() += count;
        }
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.in_doubt += other.in_doubt;
    }

    /// The failures of each step or sink, of whatever kind.
    pub fn failures_by_place(&self) -> BTreeMap<&str, u64> {
        let mut sums = BTreeMap::new();
        for ((at, _), count) in &self.failures {
            *sums.entry(at.as_str()).or_default() += count;
        }
        sums
    }

    pub fn clear(&mut self) {
        let sinks = self.sent.len();
        *self = Self {
            sent: vec![Sent::default(); sinks],
            ..Self::default()
        };
    }
}

/// Of the first `records` of a batch: nearly always all of them.
fn bytes(batch: &Columns, records: usize) -> u64 {
    if records == batch.len() {
        return batch.bytes() as u64;
    }
    (0..records)
        .map(|record| batch.record(record).bytes() as u64)
        .sum()
}
