//! The transaction coordinator: producer ids, epochs, and the one transaction that a transactional.id has at a time.
//!
//! ```text
//!            produce, offsets            end, time-out, initialised again
//!   Empty ────────────────────▶ Ongoing ───────────────────────────────────▶ Ended(outcome)
//!                                  ▲                                               │
//!                                  └───────────────────────────────────────────────┘ produce, offsets
//! ```
//!
//! Initialising leads to `Empty` from anywhere.
//!
//! Invariant: an epoch is fenced for good once a higher one of the same transactional.id is there. Within one epoch nothing tells a
//! late request from one of the next transaction (what KIP-890 is for).

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Error;
use crate::log::Outcome;
use crate::{Broker, log_mut};

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

#[derive(Debug)]
pub(crate) struct Transactional {
    producer_id: i64,
    epoch: i16,
    timeout_ms: i64,
    state: State,
    /// What the open transaction wrote to, by topic.
    partitions: BTreeMap<String, BTreeSet<u32>>,
    groups: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Empty,
    Ongoing { since: i64 },
    Ended(Outcome),
}

impl Transactional {
    pub fn add_partition(&mut self, topic: &str, partition: u32) {
        if let Some(partitions) = self.partitions.get_mut(topic) {
            partitions.insert(partition);
        } else {
            self.partitions
                .insert(topic.into(), BTreeSet::from([partition]));
        }
    }

    pub fn add_group(&mut self, group: &str) {
        if !self.groups.contains(group) {
            self.groups.insert(group.into());
        }
    }

    pub fn forget_topic(&mut self, topic: &str) {
        self.partitions.remove(topic);
    }

    fn check(&self, producer: &Producer) -> Result<(), Error> {
        if producer.id != self.producer_id {
            return Err(Error::InvalidProducerIdMapping);
        }
        if producer.epoch != self.epoch {
            return Err(Error::InvalidProducerEpoch);
        }
        Ok(())
    }
}

/// The transaction of that producer, begun if none is open.
pub(crate) fn join<'a>(
    all: &'a mut BTreeMap<String, Transactional>,
    id: &str,
    producer: &Producer,
    now: i64,
) -> Result<&'a mut Transactional, Error> {
    let found = all.get_mut(id).ok_or(Error::InvalidProducerIdMapping)?;
    found.check(producer)?;
    if !matches!(found.state, State::Ongoing { .. }) {
        found.state = State::Ongoing { since: now };
    }
    Ok(found)
}

impl Broker {
    /// InitProducerId. With a transactional.id the epoch goes up, which fences producers of older ones, and a transaction they left
    /// open is aborted. `timeout_ms` is how long a transaction may take (`transaction.timeout.ms`).
    ///
    /// Errors: `INVALID_TRANSACTION_TIMEOUT`.
    pub fn init_producer_id(
        &mut self,
        transactional_id: Option<&str>,
        timeout_ms: i64,
    ) -> Result<Producer, Error> {
        let Some(name) = transactional_id else {
            return Ok(Producer {
                transactional_id: None,
                id: self.next_producer_id(),
                epoch: 0,
            });
        };
        if !(1..=TIMEOUT_MAX).contains(&timeout_ms) {
            return Err(Error::InvalidTransactionTimeout);
        }
        let state = self.transactional.get(name).map(|found| found.state);
        if let Some(State::Ongoing { .. }) = state {
            self.abort_and_fence(name);
        }
        let next = self.transactional.get(name).and_then(|found| {
            (found.epoch < EPOCH_MAX).then_some((found.producer_id, found.epoch + 1))
        });
        let (producer_id, epoch) = next.unwrap_or_else(|| (self.next_producer_id(), 0));
        let fresh = Transactional {
            producer_id,
            epoch,
            timeout_ms,
            state: State::Empty,
            partitions: BTreeMap::new(),
            groups: BTreeSet::new(),
        };
        self.transactional.insert(name.into(), fresh);
        Ok(Producer {
            transactional_id: Some(name.into()),
            id: producer_id,
            epoch,
        })
    }

    /// EndTxn: whatever transaction the producer has open, ends. Where none is, the outcome of the last one is confirmed.
    ///
    /// Errors: `INVALID_TXN_STATE` where there was none, or it had the other outcome; `INVALID_PRODUCER_ID_MAPPING`,
    /// `INVALID_PRODUCER_EPOCH`.
    pub fn end_transaction(&mut self, producer: &Producer, outcome: Outcome) -> Result<(), Error> {
        let name = producer.transactional_id.as_deref().unwrap_or_default();
        let found = self.transactional.get(name);
        let found = found.ok_or(Error::InvalidProducerIdMapping)?;
        found.check(producer)?;
        match found.state {
            State::Ongoing { .. } => {
                self.end(name, outcome);
                Ok(())
            }
            State::Ended(before) if before == outcome => Ok(()),
            State::Ended(_) | State::Empty => Err(Error::InvalidTxnState),
        }
    }

    pub(crate) fn abort_timed_out(&mut self, now: i64) {
        let over = |found: &Transactional| match found.state {
            State::Ongoing { since } => since + found.timeout_ms < now,
            State::Empty | State::Ended(_) => false,
        };
        let all = self.transactional.iter();
        let names: Vec<String> = all
            .filter(|(_, found)| over(found))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            self.abort_and_fence(&name);
        }
    }

    /// The markers carry the next epoch, so that partitions refuse what the old producer may still send.
    fn abort_and_fence(&mut self, name: &str) {
        if let Some(found) = self.transactional.get_mut(name) {
            found.epoch += 1;
        }
        self.end(name, Outcome::Abort);
    }

    fn end(&mut self, name: &str, outcome: Outcome) {
        let Some(found) = self.transactional.get_mut(name) else {
            return;
        };
        found.state = State::Ended(outcome);
        let (id, epoch) = (found.producer_id, found.epoch);
        for (topic, partitions) in std::mem::take(&mut found.partitions) {
            for partition in partitions {
                if let Ok(log) = log_mut(&mut self.topics, &topic, partition) {
                    log.mark(id, epoch, outcome);
                }
            }
        }
        for group in std::mem::take(&mut found.groups) {
            if let Some(group) = self.groups.get_mut(&group) {
                group.offsets.end(id, outcome);
            }
        }
    }

    fn next_producer_id(&mut self) -> i64 {
        self.producers += 1;
        self.producers - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn an_idempotent_producer_has_no_transaction_to_end() {
        let mut broker = Broker::default();
        let producer = broker.init_producer_id(None, 0).unwrap();
        let ended = broker.end_transaction(&producer, Outcome::Commit);
        assert_eq!(ended, Err(Error::InvalidProducerIdMapping));
    }
}
