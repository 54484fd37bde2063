//! The offsets of a group: committed ones, and those that wait for the end of a transaction.
//!
//! Invariant: of two commits of one partition the later one counts, even if the earlier one was in a transaction that ended after
//! it.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::group::{Group, Membership};
use crate::log::Outcome;
use crate::{Broker, Producer, log, transaction};

/// `offset.metadata.max.bytes`.
const METADATA_BYTES_MAX: usize = 4096;

/// An offset to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionOffset<'a> {
    pub topic: &'a str,
    pub partition: u32,
    /// Of the next record to process.
    pub offset: i64,
    pub metadata: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: i64,
    pub metadata: String,
    /// Its place among all commits.
    number: u64,
}

type Places = BTreeMap<(String, u32), CommittedOffset>;

#[derive(Debug, Default)]
pub(crate) struct Offsets {
    committed: Places,
    /// By the producer's id.
    pending: BTreeMap<i64, Places>,
}

impl Offsets {
    pub fn forget_topic(&mut self, topic: &str) {
        for places in self.pending.values_mut().chain([&mut self.committed]) {
            places.retain(|(name, _), _| name != topic);
        }
    }

    pub fn end(&mut self, producer_id: i64, outcome: Outcome) {
        let pending = self.pending.remove(&producer_id).unwrap_or_default();
        if outcome == Outcome::Abort {
            return;
        }
        for (place, offset) in pending {
            let before = self.committed.get(&place).map(|found| found.number);
            if before.is_none_or(|before| before < offset.number) {
                self.committed.insert(place, offset);
            }
        }
    }

    fn fetch(
        &self,
        topic: &str,
        partition: u32,
        require_stable: bool,
    ) -> Result<Option<&CommittedOffset>, Error> {
        let place = (topic.to_owned(), partition);
        let pending = |places: &Places| places.contains_key(&place);
        if require_stable && self.pending.values().any(pending) {
            return Err(Error::UnstableOffsetCommit);
        }
        Ok(self.committed.get(&place))
    }
}

impl Broker {
    /// OffsetCommit: all of them, or none and the first error.
    ///
    /// Errors: `UNKNOWN_MEMBER_ID`, `FENCED_INSTANCE_ID`, `ILLEGAL_GENERATION`, `UNKNOWN_TOPIC_OR_PARTITION`,
    /// `OFFSET_METADATA_TOO_LARGE`. [`Membership::NONE`] may commit as long as the group has no members.
    pub fn commit_offsets(
        &mut self,
        group: &str,
        member: &Membership<'_>,
        offsets: &[PartitionOffset<'_>],
    ) -> Result<(), Error> {
        self.check_commit(group, member)?;
        if !member.is_given() && self.groups.get(group).is_some_and(Group::has_members) {
            return Err(Error::UnknownMemberId);
        }
        let numbered = self.number(offsets)?;
        self.group_mut(group).offsets.committed.extend(numbered);
        Ok(())
    }

    /// TxnOffsetCommit: the offsets take effect with the producer's transaction, which is begun where none is open.
    ///
    /// Errors: as above, and `INVALID_PRODUCER_ID_MAPPING`, `INVALID_PRODUCER_EPOCH`. [`Membership::NONE`] is not checked, whatever
    /// members the group has (KIP-447). A transaction that was begun stays so.
    pub fn commit_offsets_in_transaction(
        &mut self,
        now: i64,
        producer: &Producer,
        group: &str,
        member: &Membership<'_>,
        offsets: &[PartitionOffset<'_>],
    ) -> Result<(), Error> {
        let id = producer.transactional_id.as_deref().unwrap_or_default();
        transaction::join(&mut self.transactional, id, producer, now)?.add_group(group);
        self.check_commit(group, member)?;
        let numbered = self.number(offsets)?;
        let pending = &mut self.group_mut(group).offsets.pending;
        pending.entry(producer.id).or_default().extend(numbered);
        Ok(())
    }

    /// OffsetFetch of one partition; None where nothing is committed. With `require_stable` (what a read_committed consumer asks
    /// for) an open transaction's offset is waited for:
    ///
    /// Errors: `UNSTABLE_OFFSET_COMMIT`.
    pub fn fetch_offset(
        &self,
        group: &str,
        topic: &str,
        partition: u32,
        require_stable: bool,
    ) -> Result<Option<&CommittedOffset>, Error> {
        let found = self.groups.get(group);
        found.map_or(Ok(None), |group| {
            group.offsets.fetch(topic, partition, require_stable)
        })
    }

    fn check_commit(&self, group: &str, member: &Membership<'_>) -> Result<(), Error> {
        if !member.is_given() {
            return Ok(());
        }
        let found = self.groups.get(group).ok_or(Error::IllegalGeneration)?;
        found.check(member)
    }

    fn number(&mut self, offsets: &[PartitionOffset<'_>]) -> Result<Places, Error> {
        let mut numbered = Places::new();
        for at in offsets {
            log(&self.topics, at.topic, at.partition)?;
            if at.metadata.len() > METADATA_BYTES_MAX {
                return Err(Error::OffsetMetadataTooLarge);
            }
            self.commits += 1;
            let offset = CommittedOffset {
                offset: at.offset,
                metadata: at.metadata.into(),
                number: self.commits,
            };
            numbered.insert((at.topic.into(), at.partition), offset);
        }
        Ok(numbered)
    }
}
