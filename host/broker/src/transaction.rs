//! The transaction coordinator: producer ids, epochs, and the one transaction that a transactional.id has at a time.
//!
//! ```text
//!            produce, offsets            end, time-out, initialised again           the last marker
//!   Empty ────────────────────▶ Ongoing ─────────────────────────────────▶ Ending ────────────────▶ Ended(outcome)
//!                                  ▲                                                                      │
//!                                  └──────────────────────────────────────────────────────────────────────┘ produce, offsets
//! ```
//!
//! Initialising leads to `Empty` from anywhere but `Ending`, where everything has to wait. Markers are written at once, and `Ending` is
//! not seen, unless they are held back ([`Broker::hold_markers`]).
//!
//! Invariant: an epoch is fenced for good once a higher one of the same transactional.id is there. Within one epoch nothing tells a
//! late request from one of the next transaction (what KIP-890 is for).

use std::collections::BTreeSet;

use crate::error::{Answer, Error};
use crate::log::Outcome;
use crate::{Broker, Groups, Topics, Transactions, log_mut};

/// `transaction.max.timeout.ms`.
const TIMEOUT_MAX: i64 = 900_000;

/// Past this epoch a transactional.id gets a new producer id.
const EPOCH_MAX: i16 = i16::MAX - 1;

/// As whom a client produces: what InitProducerId answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// None for a producer that is idempotent only.
    pub transactional_id: Option<String>,
    pub id: i64,
    pub epoch: i16,
}

/// Where a marker is to be written, of a transaction whose end is decided.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Marker {
    /// A topic's name and a partition of it.
    Partition(String, u32),
    /// In the offsets of that group.
    Group(String),
}

#[derive(Debug)]
pub(crate) struct Transactional {
    producer_id: i64,
    epoch: i16,
    timeout_ms: i64,
    state: State,
    /// Where markers are to be written when the open transaction ends, or were when the last one did.
    pub touched: BTreeSet<Marker>,
    /// Those that are still to be written; none but while it is `Ending`.
    missing: BTreeSet<Marker>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Empty,
    Ongoing {
        until: i64,
    },
    /// Decided. Markers are missing.
    Ending(Outcome),
    Ended(Outcome),
}

/// When the markers of a decided transaction are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Markers {
    #[default]
    AtOnce,
    /// When [`Broker::write_marker`] is called for each.
    Held,
}

impl Transactional {
    /// Whether it is still this producer's.
    fn check(&self, producer: &Producer) -> Answer<()> {
        if producer.id != self.producer_id {
            return Err(Error::InvalidProducerIdMapping);
        }
        let is_current = producer.epoch == self.epoch;
        is_current.then_some(()).ok_or(Error::InvalidProducerEpoch)
    }

    /// The markers carry the next epoch, so that partitions refuse what the old producer may still send.
    fn abort_and_fence(&mut self, markers: Markers, topics: &mut Topics, groups: &mut Groups) {
        self.epoch += 1;
        self.end(Outcome::Abort, markers, topics, groups);
    }

    fn end(
        &mut self,
        outcome: Outcome,
        markers: Markers,
        topics: &mut Topics,
        groups: &mut Groups,
    ) {
        self.state = State::Ending(outcome);
        self.missing = self.touched.clone();
        if markers == Markers::AtOnce {
            while !self.missing.is_empty() {
                self.write_marker(0, topics, groups);
            }
        }
        self.settle();
    }

    /// Writes one of the missing markers.
    fn write_marker(&mut self, which: usize, topics: &mut Topics, groups: &mut Groups) {
        let marker = self.missing.iter().nth(which).cloned();
        let (State::Ending(outcome), Some(marker)) = (self.state, marker) else {
            return;
        };
        self.missing.remove(&marker);
        match marker {
            Marker::Partition(topic, partition) => {
                if let Ok((_, log)) = log_mut(topics, (&topic, partition)) {
                    log.mark(self.producer_id, self.epoch, outcome);
                }
            }
            Marker::Group(name) => {
                if let Some(group) = groups.get_mut(&name) {
                    group.offsets.end(self.producer_id, outcome);
                }
            }
        }
        self.settle();
    }

    /// Nothing is to be written there any more.
    pub fn forget_topic(&mut self, name: &str) {
        let stays = |at: &Marker| !matches!(at, Marker::Partition(topic, _) if topic == name);
        self.touched.retain(stays);
        self.missing.retain(stays);
        self.settle();
    }

    /// A coordinator that comes up knows what is decided, but not which markers are written: it writes all of them, again too.
    pub fn restart(&mut self) {
        if let State::Ending(_) = self.state {
            self.missing = self.touched.clone();
        }
    }

    fn settle(&mut self) {
        if let State::Ending(outcome) = self.state
            && self.missing.is_empty()
        {
            self.state = State::Ended(outcome);
        }
    }

    pub fn view(&self) -> Transaction {
        Transaction {
            producer_id: self.producer_id,
            epoch: self.epoch,
            standing: match self.state {
                State::Empty => Standing::Empty,
                State::Ongoing { .. } => Standing::Ongoing,
                State::Ending(outcome) => Standing::Decided(outcome),
                State::Ended(outcome) => Standing::Complete(outcome),
            },
        }
    }
}

/// What DescribeTransactions says of a transactional.id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub producer_id: i64,
    pub epoch: i16,
    pub standing: Standing,
}

/// How far a transaction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There was none since the producer was initialised.
    Empty,
    Ongoing,
    /// Its end can't be changed any more, and markers are missing.
    Decided(Outcome),
    Complete(Outcome),
}

/// What the producer's transactional.id has, whoever's that is by now.
fn find<'a>(all: &'a mut Transactions, producer: &Producer) -> Answer<&'a mut Transactional> {
    let name = producer.transactional_id.as_deref().unwrap_or_default();
    all.get_mut(name).ok_or(Error::InvalidProducerIdMapping)
}

impl Broker {
    /// InitProducerId. With a transactional.id the epoch goes up, which fences producers of older ones, and a transaction they left
    /// open is aborted. `timeout_ms` is how long a transaction may take (`transaction.timeout.ms`).
    ///
    /// Errors: `INVALID_TRANSACTION_TIMEOUT`; `CONCURRENT_TRANSACTIONS` while markers are missing, those of that abort too.
    pub fn init_producer_id(
        &mut self,
        transactional_id: Option<&str>,
        timeout_ms: i64,
    ) -> Answer<Producer> {
        if transactional_id.is_some() && !(1..=TIMEOUT_MAX).contains(&timeout_ms) {
            return Err(Error::InvalidTransactionTimeout);
        }
        let mut found = transactional_id.and_then(|name| self.transactional.get_mut(name));
        if let Some(found) = &mut found {
            if let State::Ongoing { .. } = found.state {
                found.abort_and_fence(self.markers, &mut self.topics, &mut self.groups);
            }
            if let State::Ending(_) = found.state {
                return Err(Error::ConcurrentTransactions);
            }
        }
        let (id, epoch) = match found {
            Some(found) if found.epoch < EPOCH_MAX => (found.producer_id, found.epoch + 1),
            _ => {
                self.producers += 1;
                (self.producers - 1, 0)
            }
        };
        if let Some(name) = transactional_id {
            let fresh = Transactional {
                producer_id: id,
                epoch,
                timeout_ms,
                state: State::Empty,
                touched: BTreeSet::new(),
                missing: BTreeSet::new(),
            };
            self.transactional.insert(name.into(), fresh);
        }
        Ok(Producer {
            transactional_id: transactional_id.map(str::to_owned),
            id,
            epoch,
        })
    }

    /// EndTxn: whatever transaction the producer has open, ends. Where none is, the outcome of the last one is confirmed.
    ///
    /// Errors: `INVALID_PRODUCER_ID_MAPPING`, `INVALID_PRODUCER_EPOCH`; `CONCURRENT_TRANSACTIONS` while its markers are missing, whatever
    /// its outcome; `INVALID_TXN_STATE` where there was none, or it had the other outcome.
    pub fn end_transaction(&mut self, producer: &Producer, outcome: Outcome) -> Answer<()> {
        let found = find(&mut self.transactional, producer)?;
        found.check(producer)?;
        match found.state {
            State::Ongoing { .. } => {
                found.end(outcome, self.markers, &mut self.topics, &mut self.groups);
            }
            State::Ending(_) => return Err(Error::ConcurrentTransactions),
            State::Ended(before) if before == outcome => {}
            State::Ended(_) | State::Empty => return Err(Error::InvalidTxnState),
        }
        Ok(())
    }

    /// The transaction of that producer, begun if none is open. As long as markers are missing Kafka doesn't look who asks: a fenced
    /// producer too is told to ask again.
    pub(crate) fn join_transaction(
        &mut self,
        now: i64,
        producer: &Producer,
    ) -> Answer<&mut Transactional> {
        let found = find(&mut self.transactional, producer)?;
        if let State::Ending(_) = found.state {
            return Err(Error::ConcurrentTransactions);
        }
        found.check(producer)?;
        if !matches!(found.state, State::Ongoing { .. }) {
            let until = now + found.timeout_ms;
            found.state = State::Ongoing { until };
            found.touched.clear();
        }
        Ok(found)
    }

    /// From now on the end of a transaction is decided when it is asked for, and takes effect in each partition, and in a group's
    /// offsets, when [`Self::write_marker`] is called for it. Until then the last stable offset stands still there, offsets are
    /// pending, and the producer is told `CONCURRENT_TRANSACTIONS`.
    pub fn hold_markers(&mut self) {
        self.markers = Markers::Held;
    }

    /// Writes what markers are missing, and has them written at once again.
    pub fn write_markers(&mut self) {
        while self.outstanding_markers() > 0 {
            self.write_marker(0);
        }
        self.markers = Markers::AtOnce;
    }

    pub fn outstanding_markers(&self) -> usize {
        self.missing_markers().count()
    }

    /// In the order of transactional.ids; in a transaction those of partitions come first.
    pub fn missing_markers(&self) -> impl Iterator<Item = &Marker> {
        let all = self.transactional.values();
        all.flat_map(|found| &found.missing)
    }

    /// Writes one of the missing markers, counted in their order. A number past the last one does nothing.
    pub fn write_marker(&mut self, mut which: usize) {
        for found in self.transactional.values_mut() {
            let here = found.missing.len();
            if which < here {
                return found.write_marker(which, &mut self.topics, &mut self.groups);
            }
            which -= here;
        }
    }

    pub(crate) fn abort_timed_out(&mut self, now: i64) {
        for found in self.transactional.values_mut() {
            if let State::Ongoing { until } = found.state
                && until < now
            {
                found.abort_and_fence(self.markers, &mut self.topics, &mut self.groups);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isolation, Membership, PartitionOffset, Records, Settings, Spec};

    #[test]
    fn epochs_that_run_out_bring_a_new_producer_id() {
        let mut broker = Broker::default();
        let first = broker.init_producer_id(Some("x"), 1).unwrap();
        let mut last = first.clone();
        while last.id == first.id {
            let next = broker.init_producer_id(Some("x"), 1).unwrap();
            assert!(next.epoch == last.epoch + 1 || (next.id, next.epoch) == (first.id + 1, 0));
            last = next;
        }
        let ended = broker.end_transaction(&first, Outcome::Commit);
        assert_eq!(ended, Err(Error::InvalidProducerIdMapping));
    }

    /// What a transaction of one record and one offset shows: the last stable offset, the offset, and what the producer is told.
    fn check(broker: &mut Broker, producer: &Producer, expected: (i64, Answer<i64>, Answer<()>)) {
        let stable = Spec::Latest(Isolation::ReadCommitted);
        let stable = broker.list_offset(("t", 0), stable).unwrap();
        let offset = broker.fetch_offset("g", ("t", 0), true);
        let offset = offset.map(|found| found.map_or(-1, |found| found.offset));
        let told = broker.join_transaction(0, producer).map(|_| ());
        assert_eq!((stable, offset, told), expected);
    }

    #[test]
    fn markers_that_are_held_back_hold_back_what_waits_for_them() {
        let mut broker = Broker::default();
        broker.create_topic("t", 1, Settings::default()).unwrap();
        broker.hold_markers();
        let producer = broker.init_producer_id(Some("x"), 10).unwrap();
        let write = |broker: &mut Broker, producer: &Producer, sequence| {
            let mut records = Records::default();
            records.push(0, None, None, std::iter::empty());
            let sent = broker.produce(0, Some(producer), ("t", 0), sequence, records);
            sent.unwrap();
            let offset = PartitionOffset {
                topic: "t",
                partition: 0,
                offset: 7 + i64::from(sequence),
                metadata: "",
            };
            let none = Membership::NONE;
            let added = broker.commit_offsets_in_transaction(0, producer, "g", &none, &[offset]);
            added.unwrap();
        };
        write(&mut broker, &producer, 0);
        let (commit, abort) = (Outcome::Commit, Outcome::Abort);
        assert_eq!(broker.end_transaction(&producer, commit), Ok(()));
        let wait = Err(Error::ConcurrentTransactions);
        let unstable = Err(Error::UnstableOffsetCommit);
        check(&mut broker, &producer, (0, unstable, wait));
        assert_eq!(broker.end_transaction(&producer, commit), wait);
        assert_eq!(broker.end_transaction(&producer, abort), wait);
        let again = broker.init_producer_id(Some("x"), 10).map(|_| ());
        assert_eq!((again, broker.outstanding_markers()), (wait, 2));
        // The partition's comes first.
        broker.write_marker(0);
        check(&mut broker, &producer, (2, unstable, wait));
        broker.write_marker(0);
        assert_eq!(broker.outstanding_markers(), 0);
        check(&mut broker, &producer, (2, Ok(7), Ok(())));
        // A transaction that runs out is fenced when that is decided, and its end is confirmed to nobody.
        write(&mut broker, &producer, 1);
        broker.tick(11);
        let late = broker.end_transaction(&producer, abort);
        assert_eq!(late, Err(Error::InvalidProducerEpoch));
        broker.write_markers();
        let next = broker.init_producer_id(Some("x"), 10).unwrap();
        assert_eq!(next.epoch, producer.epoch + 2);
        check(&mut broker, &next, (4, Ok(7), Ok(())));
    }

    #[test]
    fn an_idempotent_producer_has_no_transaction_to_end() {
        let mut broker = Broker::default();
        let producer = broker.init_producer_id(None, 0).unwrap();
        let ended = broker.end_transaction(&producer, Outcome::Commit);
        assert_eq!(ended, Err(Error::InvalidProducerIdMapping));
    }
}
