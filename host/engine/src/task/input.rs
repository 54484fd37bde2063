//! What waits at a task for one of its topic partitions, and how far that partition has been processed and committed.
//!
//! Invariants: the queue holds at most one batch; `committed <= processed`; queued offsets are at or past `processed` and ascend.

use super::stride::Stride;
use crate::record::Columns;

/// A batch, and so the queue, ends with this many records: measured, more bring nothing.
pub const BATCH_RECORDS_MAX: usize = 1024;

/// A batch ends with the record that takes it to this many bytes of keys, values and headers; a record larger than that is a batch
/// of its own.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

#[derive(Debug)]
pub struct Input {
    queue: Columns,
    /// Offset of the next record to process: the last processed one + 1, or where this input was taken up.
    processed: i64,
    /// As of the last checkpoint.
    committed: i64,
    /// Whether a record has come since this input was taken up or rewound. Before that the consumer's position means nothing: it
    /// may still be the one from before a seek.
    fresh: bool,
    stride: Stride,
}

impl Input {
    pub fn new(position: i64) -> Self {
        Self {
            queue: Columns::default(),
            processed: position,
            committed: position,
            fresh: false,
            stride: Stride::default(),
        }
    }

    /// Whether nothing more fits before the queue is run.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= self.stride.records_max() || self.queue.bytes() >= BATCH_BYTES_MAX
    }

    /// How many records a batch may have.
    pub fn stride(&self) -> Stride {
        self.stride
    }

    pub fn stride_mut(&mut self) -> &mut Stride {
        &mut self.stride
    }

    pub fn queue(&self) -> &Columns {
        &self.queue
    }

    pub fn push<'h>(
        &mut self,
        offset: i64,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h [u8], Option<&'h [u8]>)>,
    ) {
        let last = self
            .queue
            .offsets
            .last()
            .map_or(self.processed, |last| last + 1);
        assert!(
            offset >= last,
            "offset {offset} came after {last}: a partition's records come in order"
        );
        self.queue.push(offset, timestamp, key, value, headers);
        self.fresh = true;
    }

    /// The first `records` queued records were processed; the rest is forgotten. (They are all, unless the task stops.)
    pub fn processed(&mut self, records: usize) {
        if let Some(last) = records.checked_sub(1) {
            self.processed = self.queue.offsets[last] + 1;
        }
        self.queue.clear();
    }

    /// The offset to commit, given the consumer's position: where nothing is queued that stands past the last processed record by
    /// the transaction markers that follow it.
    pub fn to_commit(&self, position: Option<i64>) -> i64 {
        match position {
            Some(position) if self.fresh && self.queue.is_empty() => self.processed.max(position),
            _ => self.processed,
        }
    }

    /// Offset of the next record to process.
    pub fn processed_offset(&self) -> i64 {
        self.processed
    }

    /// The consumer's position means nothing until the next record.
    pub fn unsettle(&mut self) {
        self.fresh = false;
    }

    pub fn committed(&self) -> i64 {
        self.committed
    }

    pub fn commit(&mut self, offset: i64) {
        assert!(
            offset >= self.committed,
            "committed offsets only grow: {offset} after {}",
            self.committed
        );
        self.committed = offset;
        self.processed = self.processed.max(offset);
    }

    /// Back to a committed offset: what is queued comes again.
    pub fn rewind(&mut self, offset: i64) {
        self.queue.clear();
        self.processed = offset;
        self.committed = offset;
        self.fresh = false;
    }
}
