//! The offsets of a group: committed ones, and those that wait for the end of a transaction.
//!
//! Invariant: of two commits of one partition the later one counts, even if the earlier one was in a transaction that ended after
//! it.

use std::collections::BTreeMap;

use crate::error::{Answer, Error};
use crate::group::{Group, Membership};
use crate::log::Outcome;
use crate::{Broker, Marker, Place, Producer, log};

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

/// By topic and partition.
type ByPlace = BTreeMap<(String, u32), CommittedOffset>;

#[derive(Debug, Default)]
pub(crate) struct Offsets {
    committed: ByPlace,
    /// Of open transactions, by the producer's id.
    pending: BTreeMap<i64, ByPlace>,
}

impl Offsets {
    pub fn forget_topic(&mut self, topic: &str) {
        for offsets in self.pending.values_mut().chain([&mut self.committed]) {
            offsets.retain(|(name, _), _| name != topic);
        }
    }

    /// What is committed once everything is that these producers have pending.
    pub fn with(
        &self,
        producer_ids: impl Iterator<Item = i64>,
    ) -> BTreeMap<Place<'_>, &CommittedOffset> {
        let pending = producer_ids.filter_map(|id| self.pending.get(&id));
        let mut all: BTreeMap<Place<'_>, &CommittedOffset> = BTreeMap::new();
        for ((topic, partition), offset) in pending.chain([&self.committed]).flatten() {
            let found = all.entry((topic, *partition)).or_insert(offset);
            if found.number < offset.number {
                *found = offset;
            }
        }
        all
    }

    pub fn end(&mut self, producer_id: i64, outcome: Outcome) {
        let pending = self.pending.remove(&producer_id).unwrap_or_default();
        if outcome == Outcome::Abort {
            return;
        }
        for (place, offset) in pending {
            let before = self.committed.get(&place).map(|found| found.number);
            if before < Some(offset.number) {
                self.committed.insert(place, offset);
            }
        }
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
    ) -> Answer<()> {
        let is_inhabited = self.groups.get(group).is_some_and(Group::has_members);
        if is_inhabited || *member != Membership::NONE {
            self.check_commit(group, member)?;
        }
        let numbered = self.number(offsets)?;
        let found = self.groups.entry(group.into()).or_default();
        found.offsets.committed.extend(numbered);
        Ok(())
    }

    /// TxnOffsetCommit: the offsets take effect with the producer's transaction, which is begun where none is open.
    ///
    /// Errors: as above, and `INVALID_PRODUCER_ID_MAPPING`, `INVALID_PRODUCER_EPOCH`, `CONCURRENT_TRANSACTIONS`. [`Membership::NONE`] is not checked, whatever
    /// members the group has (KIP-447). A transaction that was begun stays so.
    pub fn commit_offsets_in_transaction(
        &mut self,
        now: i64,
        producer: &Producer,
        group: &str,
        member: &Membership<'_>,
        offsets: &[PartitionOffset<'_>],
    ) -> Answer<()> {
        let transaction = self.join_transaction(now, producer)?;
        transaction.touched.insert(Marker::Group(group.into()));
        if *member != Membership::NONE {
            self.check_commit(group, member)?;
        }
        let numbered = self.number(offsets)?;
        let found = self.groups.entry(group.into()).or_default();
        let pending = found.offsets.pending.entry(producer.id);
        pending.or_default().extend(numbered);
        Ok(())
    }

    /// OffsetFetch of one partition; None where nothing is committed. With `require_stable` (what a read_committed consumer asks
    /// for) an open transaction's offset is waited for:
    ///
    /// Errors: `UNSTABLE_OFFSET_COMMIT`.
    pub fn fetch_offset(
        &self,
        group: &str,
        (topic, partition): Place<'_>,
        require_stable: bool,
    ) -> Answer<Option<&CommittedOffset>> {
        let Some(Group { offsets, .. }) = self.groups.get(group) else {
            return Ok(None);
        };
        let place = (topic.to_owned(), partition);
        let mut pending = offsets.pending.values();
        if require_stable && pending.any(|offsets| offsets.contains_key(&place)) {
            return Err(Error::UnstableOffsetCommit);
        }
        Ok(offsets.committed.get(&place))
    }

    fn check_commit(&self, group: &str, member: &Membership<'_>) -> Answer<()> {
        let found = self.groups.get(group).ok_or(Error::IllegalGeneration)?;
        found.check(member)
    }

    fn number(&mut self, offsets: &[PartitionOffset<'_>]) -> Answer<ByPlace> {
        let mut numbered = ByPlace::new();
        for at in offsets {
            log(&self.topics, (at.topic, at.partition))?;
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
