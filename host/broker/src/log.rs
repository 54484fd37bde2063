//! The log of one partition: batches, markers, what each producer has sent, and which transactions are open or were aborted.
//!
//! Invariants: offsets ascend and are never given twice; a marker takes one. The last stable offset is that of the first record of
//! the first open transaction, or the end. There is one replica, so the high watermark is the end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::error::Error;
use crate::record::{Record, Records};

/// How many of a producer's last batches are known again when they come twice (`ProducerStateEntry.NUM_BATCHES_TO_RETAIN`).
const BATCHES_REMEMBERED: usize = 5;

/// Sequence numbers go from 0 to `i32::MAX` and begin again.
const SEQUENCES: i64 = 1 << 31;

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Commit,
    Abort,
}

/// What a consumer may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Everything up to the high watermark.
    ReadUncommitted,
    /// Nothing at or past the last stable offset, and nothing that was aborted.
    ReadCommitted,
}

/// Who sent a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub producer_id: i64,
    pub epoch: i16,
    /// Of the batch's first record.
    pub sequence: i32,
    pub transactional: bool,
}

/// What was appended at once, or what compaction left of it.
#[derive(Debug)]
pub struct Batch {
    base: i64,
    last: i64,
    stamp: Option<Stamp>,
    marker: Option<Outcome>,
    records: Records,
    /// From when on compaction may drop its tombstones, or the marker (KIP-534).
    delete_horizon: Option<i64>,
}

impl Batch {
    /// Offset of its first record when it was appended.
    pub fn base_offset(&self) -> i64 {
        self.base
    }

    /// Offset of its last record when it was appended.
    pub fn last_offset(&self) -> i64 {
        self.last
    }

    /// None for a producer without idempotence.
    pub fn stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    pub fn records(&self) -> impl DoubleEndedIterator<Item = Record<'_>> + Clone {
        self.records.iter(self.base)
    }
}

/// What a fetch came to. The batches are shared with the log, not copied.
#[derive(Clone, Debug)]
pub struct Fetched {
    offset: i64,
    batches: Vec<Arc<Batch>>,
    /// Where to fetch next: past what is here, and past markers and aborted batches.
    pub next_offset: i64,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
}

impl Fetched {
    /// The records from the wanted offset on.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.batches.iter().flat_map(|batch| {
            let skipped = batch.records.before(self.offset - batch.base);
            (skipped..batch.records.len()).map(|at| batch.records.record(batch.base, at))
        })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    start: i64,
    end: i64,
    batches: VecDeque<Arc<Batch>>,
    producers: BTreeMap<i64, ProducerState>,
    /// Of producers that have not written anything in their transaction yet: epoch and lowest sequence number that came.
    verified: BTreeMap<i64, (i16, i32)>,
    /// First offsets of the open transactions.
    open: BTreeSet<i64>,
    /// Producer id and first offset of what was aborted, and its marker's offset.
    aborted: BTreeMap<(i64, i64), i64>,
}

#[derive(Debug)]
struct ProducerState {
    epoch: i16,
    /// First and last sequence number, and offset of the first record, of its last batches.
    batches: VecDeque<(i32, i32, i64)>,
    /// First offset of its open transaction.
    open: Option<i64>,
}

impl ProducerState {
    fn new(epoch: i16) -> Self {
        Self {
            epoch,
            batches: VecDeque::new(),
            open: None,
        }
    }

    /// Kafka's `ProducerAppendInfo`: the offset of the same batch where it came before, or an error where one is missing.
    fn check(&self, epoch: i16, first: i32, last: i32) -> Result<Option<i64>, Error> {
        if epoch < self.epoch {
            return Err(Error::InvalidProducerEpoch);
        }
        if epoch > self.epoch {
            let begins = first == 0;
            return begins
                .then_some(None)
                .ok_or(Error::OutOfOrderSequenceNumber);
        }
        let same = |batch: &&(i32, i32, i64)| (batch.0, batch.1) == (first, last);
        if let Some((_, _, offset)) = self.batches.iter().find(same) {
            return Ok(Some(*offset));
        }
        let next = self
            .batches
            .back()
            .map_or(0, |&(_, last, _)| advance(last, 1));
        (first == next)
            .then_some(None)
            .ok_or(Error::OutOfOrderSequenceNumber)
    }

    fn appended(&mut self, stamp: Stamp, last: i32, offset: i64) {
        if stamp.epoch > self.epoch {
            *self = Self {
                open: self.open,
                ..Self::new(stamp.epoch)
            };
        }
        if self.batches.len() == BATCHES_REMEMBERED {
            self.batches.pop_front();
        }
        self.batches.push_back((stamp.sequence, last, offset));
    }
}

impl Log {
    pub fn start(&self) -> i64 {
        self.start
    }

    pub fn end(&self) -> i64 {
        self.end
    }

    pub fn last_stable(&self) -> i64 {
        self.open.first().copied().unwrap_or(self.end)
    }

    /// Appends a batch of at least one record. Answers the offset of its first one; a batch that came before is not appended again.
    pub fn append(&mut self, stamp: Option<Stamp>, records: Records) -> Result<i64, Error> {
        let base = self.end;
        let last = base + count(&records) - 1;
        if let Some(stamp) = stamp {
            let last_sequence = advance(stamp.sequence, count(&records) - 1);
            let lowest = self.verify(stamp);
            // A producer that the partition knows nothing of may begin anywhere: what it sent before may be deleted.
            if let Some(state) = self.producers.get(&stamp.producer_id)
                && let Some(before) = state.check(stamp.epoch, stamp.sequence, last_sequence)?
            {
                return Ok(before);
            }
            if stamp.sequence > lowest {
                return Err(Error::OutOfOrderSequenceNumber);
            }
            let state = self
                .producers
                .entry(stamp.producer_id)
                .or_insert_with(|| ProducerState::new(stamp.epoch));
            state.appended(stamp, last_sequence, base);
            if stamp.transactional && state.open.is_none() {
                state.open = Some(base);
                self.open.insert(base);
            }
        }
        self.push(Batch {
            base,
            last,
            stamp,
            marker: None,
            records,
            delete_horizon: None,
        });
        Ok(base)
    }

    /// Kafka's `VerificationStateEntry`: the first batch of a transaction must be the lowest that came for it, be it a late copy.
    fn verify(&mut self, stamp: Stamp) -> i32 {
        let state = self.producers.get(&stamp.producer_id);
        if !stamp.transactional || state.is_some_and(|state| state.open.is_some()) {
            return i32::MAX;
        }
        let came = self.verified.entry(stamp.producer_id);
        let (epoch, lowest) = came.or_insert((stamp.epoch, stamp.sequence));
        if stamp.epoch > *epoch {
            (*epoch, *lowest) = (stamp.epoch, stamp.sequence);
        } else if stamp.epoch == *epoch {
            *lowest = stamp.sequence.min(*lowest);
        }
        *lowest
    }

    /// Ends the producer's transaction in this partition. The marker's epoch fences what older ones may still send.
    pub fn mark(&mut self, producer_id: i64, epoch: i16, outcome: Outcome) {
        let state = self
            .producers
            .entry(producer_id)
            .or_insert_with(|| ProducerState::new(epoch));
        if epoch > state.epoch {
            state.epoch = epoch;
            state.batches.clear();
        }
        self.verified.remove(&producer_id);
        if let Some(first) = state.open.take() {
            self.open.remove(&first);
            if outcome == Outcome::Abort {
                self.aborted.insert((producer_id, first), self.end);
            }
        }
        self.push(Batch {
            base: self.end,
            last: self.end,
            stamp: Some(Stamp {
                producer_id,
                epoch,
                sequence: -1,
                transactional: true,
            }),
            marker: Some(outcome),
            records: Records::default(),
            delete_horizon: None,
        });
    }

    fn push(&mut self, batch: Batch) {
        self.end = batch.last + 1;
        self.batches.push_back(Arc::new(batch));
    }

    /// Batches from `offset` on until they are `bytes` large; the first one always fits.
    pub fn fetch(&self, offset: i64, isolation: Isolation, bytes: usize) -> Result<Fetched, Error> {
        if !(self.start..=self.end).contains(&offset) {
            return Err(Error::OffsetOutOfRange);
        }
        let stop = match isolation {
            Isolation::ReadUncommitted => self.end,
            Isolation::ReadCommitted => self.last_stable(),
        };
        let mut fetched = Fetched {
            offset,
            batches: Vec::new(),
            next_offset: offset,
            high_watermark: self.end,
            last_stable_offset: self.last_stable(),
            log_start_offset: self.start,
        };
        let from = self.batches.partition_point(|batch| batch.last < offset);
        let mut size = 0;
        for batch in self.batches.range(from..) {
            if batch.base >= stop || size >= bytes {
                break;
            }
            fetched.next_offset = batch.last + 1;
            let hidden = isolation == Isolation::ReadCommitted && self.is_aborted(batch);
            if batch.marker.is_none() && !hidden {
                size += batch.records.size();
                fetched.batches.push(Arc::clone(batch));
            }
        }
        // What compaction took away at the end of the readable part is passed as well.
        if size < bytes {
            fetched.next_offset = fetched.next_offset.max(stop);
        }
        Ok(fetched)
    }

    fn is_aborted(&self, batch: &Batch) -> bool {
        let Some(stamp) = batch.stamp.filter(|stamp| stamp.transactional) else {
            return false;
        };
        let id = stamp.producer_id;
        let mut begun = self.aborted.range((id, 0)..=(id, batch.base));
        begun
            .next_back()
            .is_some_and(|(_, &marker)| batch.base <= marker)
    }

    /// Forgets what lies before `offset`, as retention does.
    pub fn delete_before(&mut self, offset: i64) -> Result<(), Error> {
        if !(0..=self.end).contains(&offset) {
            return Err(Error::OffsetOutOfRange);
        }
        self.start = self.start.max(offset);
        while self
            .batches
            .front()
            .is_some_and(|batch| batch.last < offset)
        {
            self.batches.pop_front();
        }
        self.aborted.retain(|_, &mut marker| marker >= offset);
        Ok(())
    }

    /// Compacts what lies before the last stable offset. See [`crate::Broker::compact`].
    pub fn compact(&mut self, now: i64, delete_retention_ms: i64) {
        let stop = self.last_stable();
        let mut latest: BTreeMap<&[u8], i64> = BTreeMap::new();
        let stable = self.batches.partition_point(|batch| batch.base < stop);
        for batch in self.batches.range(..stable) {
            if !self.is_aborted(batch) {
                let keyed = batch.records();
                latest.extend(keyed.filter_map(|record| Some((record.key?, record.offset))));
            }
        }
        let mut kept = VecDeque::new();
        for batch in self.batches.range(..stable) {
            let over = batch.delete_horizon.is_some_and(|horizon| horizon < now);
            let aborted = batch.marker.is_none() && self.is_aborted(batch);
            if aborted || (batch.marker.is_some() && over) {
                continue;
            }
            let keep = |record: &Record<'_>| {
                let is_latest = record.key.and_then(|key| latest.get(key)) == Some(&record.offset);
                is_latest && !(record.value.is_none() && over)
            };
            let records = batch.records.filtered(batch.base, keep);
            let ages = batch.marker.is_some() || records.iter(0).any(|r| r.value.is_none());
            let horizon = ages.then_some(now.saturating_add(delete_retention_ms));
            if batch.marker.is_some() || !records.is_empty() {
                kept.push_back(Arc::new(Batch {
                    records,
                    delete_horizon: batch.delete_horizon.or(horizon),
                    ..**batch
                }));
            }
        }
        drop(latest);
        kept.extend(self.batches.drain(stable..));
        self.batches = kept;
        self.aborted.retain(|_, &mut marker| marker >= stop);
    }
}

fn count(records: &Records) -> i64 {
    i64::try_from(records.len()).expect("a batch has fewer than 2^32 records")
}

/// The sequence number `by` records later.
fn advance(sequence: i32, by: i64) -> i32 {
    i32::try_from((i64::from(sequence) + by) % SEQUENCES).expect("below 2^31")
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Log {
        pub fn batches(&self) -> usize {
            self.batches.len()
        }
    }

    fn records(values: &[&str]) -> Records {
        let mut records = Records::default();
        for value in values {
            let value = value.as_bytes();
            records.push(0, Some(value), Some(value), std::iter::empty());
        }
        records
    }

    fn filled() -> Log {
        let mut log = Log::default();
        for values in [["a", "b"], ["c", "d"], ["e", "f"]] {
            log.append(None, records(&values)).unwrap();
        }
        log
    }

    fn check(log: &Log, offset: i64, bytes: usize, expected: &[i64], next: i64) {
        let fetched = log.fetch(offset, Isolation::ReadCommitted, bytes).unwrap();
        let found: Vec<i64> = fetched.records().map(|record| record.offset).collect();
        assert_eq!((found.as_slice(), fetched.next_offset), (expected, next));
    }

    #[test]
    fn fetches_are_limited_by_batches_and_begin_within_them() {
        let log = filled();
        let batch = records(&["a", "b"]).size();
        check(&log, 0, 0, &[], 0);
        check(&log, 0, 1, &[0, 1], 2);
        check(&log, 1, batch, &[1], 2);
        check(&log, 1, batch + 1, &[1, 2, 3], 4);
        check(&log, 3, usize::MAX, &[3, 4, 5], 6);
        check(&log, 6, usize::MAX, &[], 6);
    }

    #[test]
    fn deleting_within_a_batch_keeps_the_rest_of_it() {
        let mut log = filled();
        log.delete_before(3).unwrap();
        assert_eq!((log.start(), log.batches.len()), (3, 2));
        check(&log, 3, usize::MAX, &[3, 4, 5], 6);
    }

    #[test]
    fn sequence_numbers_begin_again_after_the_largest() {
        let mut log = Log::default();
        let mut send = |sequence| {
            let stamp = Stamp {
                producer_id: 1,
                epoch: 0,
                sequence,
                transactional: false,
            };
            log.append(Some(stamp), records(&["a", "b", "c"]))
        };
        assert_eq!(send(i32::MAX - 1), Ok(0));
        assert_eq!(send(1), Ok(3));
        assert_eq!(send(i32::MAX - 1), Ok(0));
        assert_eq!(send(2), Err(Error::OutOfOrderSequenceNumber));
        assert_eq!(send(4), Ok(6));
    }
}
