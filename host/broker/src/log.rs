//! The log of one partition: batches, markers, and what each producer has sent.
//!
//! Invariants: offsets ascend and are never given twice; a marker takes one. The last stable offset is that of the first record of
//! the first open transaction, or the end. There is one replica, so the high watermark is the end.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::error::{Answer, Error};
use crate::record::{Record, Records};
use crate::transaction::Producer;

/// How many of a producer's last batches are known again when they come twice (`ProducerStateEntry.NUM_BATCHES_TO_RETAIN`).
const BATCHES_REMEMBERED: usize = 5;

/// Sequence numbers go from 0 to `i32::MAX` and begin again.
const SEQUENCES: i64 = 1 << 31;

/// How long tombstones and markers stay after the compaction that first met them: Kafka's default for `delete.retention.ms`.
const DELETE_RETENTION_MS: i64 = 86_400_000;

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

/// What a fetch came to. The batches are shared with the log, not copied.
#[derive(Clone, Debug)]
pub struct Fetched {
    offset: i64,
    batches: Vec<Arc<Records>>,
    /// Where to fetch next: past what is here, and past markers and aborted batches.
    pub next_offset: i64,
    pub last_stable_offset: i64,
}

impl Fetched {
    /// The records from the wanted offset on.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let all = self.batches.iter().flat_map(|batch| batch.iter());
        all.filter(|record| record.offset >= self.offset)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    pub start: i64,
    end: i64,
    batches: VecDeque<Batch>,
    /// By their ids.
    producers: BTreeMap<i64, ProducerState>,
}

/// What was appended at once, or what compaction left of it: at least one record. Only a marker has none.
#[derive(Debug)]
struct Batch {
    /// Offset of its last record when it was appended, or of the marker.
    last: i64,
    /// Id and epoch of the producer in whose transaction the records are.
    transactional: Option<(i64, i16)>,
    aborted: bool,
    records: Arc<Records>,
    /// From when on compaction may drop its tombstones, or the marker (KIP-534).
    delete_horizon: Option<i64>,
}

#[derive(Debug, Default)]
struct ProducerState {
    /// None where the log knows nothing of the producer.
    epoch: Option<i16>,
    /// First and last sequence number, and offset of the first record, of its last batches in this epoch; the last one first.
    batches: VecDeque<((i32, i32), i64)>,
    /// First offset of its open transaction.
    open: Option<i64>,
    /// While it has not written anything in its transaction: the highest epoch that came, and its lowest sequence number.
    lowest: Option<(Reverse<i16>, i32)>,
}

impl ProducerState {
    /// Kafka's `ProducerAppendInfo`: notes a batch that is to be appended at `offset`, and answers that, or where it is if it came
    /// before.
    fn append(&mut self, producer: &Producer, sequences: (i32, i32), offset: i64) -> Answer<i64> {
        let first = sequences.0;
        let is_transactional = producer.transactional_id.is_some();
        let mut lowest = first;
        // `VerificationStateEntry`: the first batch of a transaction must be the lowest that came for it, be it a late copy.
        if is_transactional && self.open.is_none() {
            let came = (Reverse(producer.epoch), first);
            let known = self.lowest.get_or_insert(came);
            *known = came.min(*known);
            lowest = known.1;
        }
        let expected = match self.epoch {
            // It may begin anywhere: what it sent before may be deleted.
            None => first,
            Some(epoch) if producer.epoch < epoch => return Err(Error::InvalidProducerEpoch),
            Some(epoch) if producer.epoch > epoch => 0,
            Some(_) => {
                let mut batches = self.batches.iter();
                if let Some((_, before)) = batches.find(|(same, _)| *same == sequences) {
                    return Ok(*before);
                }
                let last = self.batches.front();
                last.map_or(0, |((_, last), _)| advance(*last, 1))
            }
        };
        if first != expected || first > lowest {
            return Err(Error::OutOfOrderSequenceNumber);
        }
        self.enter(producer.epoch);
        self.batches.push_front((sequences, offset));
        self.batches.truncate(BATCHES_REMEMBERED);
        if is_transactional {
            self.open.get_or_insert(offset);
        }
        Ok(offset)
    }

    /// Sequence numbers begin again with an epoch.
    fn enter(&mut self, epoch: i16) {
        if self.epoch < Some(epoch) {
            self.epoch = Some(epoch);
            self.batches.clear();
        }
    }
}

impl Log {
    /// Where a consumer's view ends: the last stable offset, or the high watermark.
    pub fn latest(&self, isolation: Isolation) -> i64 {
        let open = self.producers.values().filter_map(|state| state.open);
        match isolation {
            Isolation::ReadUncommitted => self.end,
            Isolation::ReadCommitted => open.min().unwrap_or(self.end),
        }
    }

    /// Appends a batch of at least one record. Answers the offset of its first one; a batch that came before is not appended again.
    pub fn append(
        &mut self,
        producer: Option<&Producer>,
        sequence: i32,
        mut records: Records,
    ) -> Answer<i64> {
        let base = self.end;
        if let Some(producer) = producer {
            let state = self.producers.entry(producer.id).or_default();
            let sequences = (sequence, advance(sequence, records.end() - 1));
            let offset = state.append(producer, sequences, base)?;
            if offset < base {
                return Ok(offset);
            }
        }
        records.shift(base);
        let transactional = producer.filter(|producer| producer.transactional_id.is_some());
        let transactional = transactional.map(|producer| (producer.id, producer.epoch));
        self.push(records.end() - 1, transactional, records);
        Ok(base)
    }

    /// Ends the producer's transaction in this partition. The marker's epoch fences what older ones may still send.
    pub fn mark(&mut self, producer_id: i64, epoch: i16, outcome: Outcome) {
        let state = self.producers.entry(producer_id).or_default();
        state.enter(epoch);
        state.lowest = None;
        if let Some(first) = state.open.take()
            && outcome == Outcome::Abort
        {
            let from = self.batches.partition_point(|batch| batch.last < first);
            for batch in self.batches.range_mut(from..) {
                batch.aborted |= batch.transactional.is_some_and(|(id, _)| id == producer_id);
            }
        }
        self.push(self.end, None, Records::default());
    }

    fn push(&mut self, last: i64, transactional: Option<(i64, i16)>, records: Records) {
        self.end = last + 1;
        self.batches.push_back(Batch {
            last,
            transactional,
            aborted: false,
            records: Arc::new(records),
            delete_horizon: None,
        });
    }

    /// Batches from `offset` on until they are `bytes` large; the first one always fits.
    pub fn fetch(&self, offset: i64, isolation: Isolation, bytes: usize) -> Answer<Fetched> {
        if !(self.start..=self.end).contains(&offset) {
            return Err(Error::OffsetOutOfRange);
        }
        let stop = self.latest(isolation);
        let mut fetched = Fetched {
            offset,
            batches: Vec::new(),
            next_offset: offset,
            last_stable_offset: self.latest(Isolation::ReadCommitted),
        };
        let from = self.batches.partition_point(|batch| batch.last < offset);
        let mut size = 0;
        for batch in self.batches.range(from..) {
            if batch.last >= stop || size >= bytes {
                break;
            }
            fetched.next_offset = batch.last + 1;
            let hidden = isolation == Isolation::ReadCommitted && batch.aborted;
            if !batch.records.is_empty() && !hidden {
                size += batch.records.size();
                fetched.batches.push(Arc::clone(&batch.records));
            }
        }
        // What compaction took away at the end of the readable part is passed as well.
        if size < bytes {
            fetched.next_offset = fetched.next_offset.max(stop);
        }
        Ok(fetched)
    }

    /// Every record from `offset` on, with id and epoch of the producer in whose transaction it is.
    pub fn written(&self, offset: i64) -> impl Iterator<Item = (Option<(i64, i16)>, Record<'_>)> {
        let from = self.batches.partition_point(|batch| batch.last < offset);
        let batches = self.batches.range(from..);
        let all = batches.flat_map(|batch| {
            let records = batch.records.iter();
            records.map(|record| (batch.transactional, record))
        });
        all.filter(move |(_, record)| record.offset >= offset)
    }

    /// Forgets what lies before `offset`, as retention does.
    pub fn delete_before(&mut self, offset: i64) -> Answer<()> {
        if !(0..=self.end).contains(&offset) {
            return Err(Error::OffsetOutOfRange);
        }
        self.start = self.start.max(offset);
        let gone = self.batches.partition_point(|batch| batch.last < offset);
        self.batches.drain(..gone);
        Ok(())
    }

    /// Compacts what lies before the last stable offset. See [`crate::Broker::compact`].
    pub fn compact(&mut self, now: i64) {
        let stop = self.latest(Isolation::ReadCommitted);
        let stable = self.batches.partition_point(|batch| batch.last < stop);
        let mut stable: Vec<Batch> = self.batches.drain(..stable).collect();
        stable.retain(|batch| !batch.aborted);
        let records = stable.iter().flat_map(|batch| batch.records.iter());
        let keyed = records.filter_map(|record| Some((record.key?, record.offset)));
        let mut latest: BTreeMap<&[u8], i64> = BTreeMap::new();
        latest.extend(keyed);
        let compacted = stable.iter().filter_map(|batch| {
            let over = batch.delete_horizon.is_some_and(|horizon| horizon < now);
            let is_marker = batch.records.is_empty();
            let records = batch.records.filtered(|record| {
                let is_latest = record.key.and_then(|key| latest.get(key)) == Some(&record.offset);
                is_latest && (record.value.is_some() || !over)
            });
            let goes = if is_marker { over } else { records.is_empty() };
            let ages = is_marker || records.iter().any(|record| record.value.is_none());
            let horizon = ages.then_some(now.saturating_add(DELETE_RETENTION_MS));
            (!goes).then_some(Batch {
                records: Arc::new(records),
                delete_horizon: batch.delete_horizon.or(horizon),
                ..*batch
            })
        });
        let later = std::mem::take(&mut self.batches);
        self.batches = compacted.chain(later).collect();
    }
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
            log.append(None, -1, records(&values)).unwrap();
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
        assert_eq!((log.start, log.batches.len()), (3, 2));
        check(&log, 3, usize::MAX, &[3, 4, 5], 6);
    }

    #[test]
    fn sequence_numbers_begin_again_after_the_largest() {
        let mut log = Log::default();
        let producer = Producer {
            transactional_id: None,
            id: 1,
            epoch: 0,
        };
        let mut send = |sequence| log.append(Some(&producer), sequence, records(&["a", "b", "c"]));
        assert_eq!(send(i32::MAX - 1), Ok(0));
        assert_eq!(send(1), Ok(3));
        assert_eq!(send(i32::MAX - 1), Ok(0));
        assert_eq!(send(2), Err(Error::OutOfOrderSequenceNumber));
        assert_eq!(send(4), Ok(6));
    }
}
