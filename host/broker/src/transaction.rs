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

#[derive(Debug)]
pub(crate) struct Transactional {
    producer_id: i64,
    epoch: i16,
    timeout_ms: i64,
    state: State,
    /// What the open transaction wrote to.
    pub partitions: BTreeSet<(String, u32)>,
    pub groups: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Empty,
    Ongoing { until: i64 },
    Ended(Outcome),
}

impl Transactional {
    /// The markers carry the next epoch, so that partitions refuse what the old producer may still send.
    fn abort_and_fence(&mut self, topics: &mut Topics, groups: &mut Groups) {
        self.epoch += 1;
        self.end(Outcome::Abort, topics, groups);
    }

    fn end(&mut self, outcome: Outcome, topics: &mut Topics, groups: &mut Groups) {
        self.state = State::Ended(outcome);
        for (topic, partition) in std::mem::take(&mut self.partitions) {
            if let Ok((_, log)) = log_mut(topics, (&topic, partition)) {
                log.mark(self.producer_id, self.epoch, outcome);
            }
        }
        for group in std::mem::take(&mut self.groups) {
            if let Some(group) = groups.get_mut(&group) {
                group.offsets.end(self.producer_id, outcome);
            }
        }
    }
}

/// What the producer's transactional.id has, if it is still the producer's.
fn find<'a>(all: &'a mut Transactions, producer: &Producer) -> Answer<&'a mut Transactional> {
    let name = producer.transactional_id.as_deref().unwrap_or_default();
    let found = all.get_mut(name).ok_or(Error::InvalidProducerIdMapping)?;
    if producer.id != found.producer_id {
        return Err(Error::InvalidProducerIdMapping);
    }
    if producer.epoch != found.epoch {
        return Err(Error::InvalidProducerEpoch);
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
    ) -> Answer<Producer> {
        if transactional_id.is_some() && !(1..=TIMEOUT_MAX).contains(&timeout_ms) {
            return Err(Error::InvalidTransactionTimeout);
        }
        let mut found = transactional_id.and_then(|name| self.transactional.get_mut(name));
        if let Some(found) = &mut found
            && let State::Ongoing { .. } = found.state
        {
            found.abort_and_fence(&mut self.topics, &mut self.groups);
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
                partitions: BTreeSet::new(),
                groups: BTreeSet::new(),
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
    /// Errors: `INVALID_TXN_STATE` where there was none, or it had the other outcome; `INVALID_PRODUCER_ID_MAPPING`,
    /// `INVALID_PRODUCER_EPOCH`.
    pub fn end_transaction(&mut self, producer: &Producer, outcome: Outcome) -> Answer<()> {
        let found = find(&mut self.transactional, producer)?;
        match found.state {
            State::Ongoing { .. } => found.end(outcome, &mut self.topics, &mut self.groups),
            State::Ended(before) if before == outcome => {}
            State::Ended(_) | State::Empty => return Err(Error::InvalidTxnState),
        }
        Ok(())
    }

    /// The transaction of that producer, begun if none is open.
    pub(crate) fn join_transaction(
        &mut self,
        now: i64,
        producer: &Producer,
    ) -> Answer<&mut Transactional> {
        let found = find(&mut self.transactional, producer)?;
        if !matches!(found.state, State::Ongoing { .. }) {
            let until = now + found.timeout_ms;
            found.state = State::Ongoing { until };
        }
        Ok(found)
    }

    pub(crate) fn abort_timed_out(&mut self, now: i64) {
        for found in self.transactional.values_mut() {
            if let State::Ongoing { until } = found.state
                && until < now
            {
                found.abort_and_fence(&mut self.topics, &mut self.groups);
            }
        }
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
