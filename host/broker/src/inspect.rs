//! The broker from within, for who judges what clients did to it: what stands in its logs whoever may see it, and what has been decided
//! though nobody may see it yet. Kafka's own tools show the same (`kafka-dump-log`, DescribeTransactions).
//!
//! Nothing here changes anything.

use std::collections::BTreeMap;

use crate::error::Answer;
use crate::log::Outcome;
use crate::transaction::{Standing, Transaction, Transactional};
use crate::{Broker, CommittedOffset, Place, Record, log};

/// A record as it stands in a log.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// Id and epoch of the producer in whose transaction it is, however that ended or will.
    pub transactional: Option<(i64, i16)>,
    pub record: Record<'a>,
}

impl Broker {
    /// Every record of a partition from `offset` on, aborted ones and those of open transactions too.
    ///
    /// Errors: `UNKNOWN_TOPIC_OR_PARTITION`.
    pub fn written(&self, at: Place<'_>, offset: i64) -> Answer<impl Iterator<Item = Written<'_>>> {
        let written = log(&self.topics, at)?.written(offset);
        Ok(written.map(|(transactional, record)| Written {
            transactional,
            record,
        }))
    }

    /// By transactional.id.
    pub fn transactions(&self) -> impl Iterator<Item = (&str, Transaction)> {
        let all = self.transactional.iter();
        all.map(|(id, found)| (id.as_str(), found.view()))
    }

    /// A group's offsets, those of transactions too whose commit is decided and not written yet.
    pub fn decided_offsets(&self, group: &str) -> BTreeMap<Place<'_>, &CommittedOffset> {
        let Some(group) = self.groups.get(group) else {
            return BTreeMap::new();
        };
        let views = self.transactional.values().map(Transactional::view);
        let decided = views.filter(|view| view.standing == Standing::Decided(Outcome::Commit));
        group.offsets.with(decided.map(|view| view.producer_id))
    }
}
