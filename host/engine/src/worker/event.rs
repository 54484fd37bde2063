//! What a worker is told, and what it has done.

use std::time::Duration;

use crate::commit::machine::Reason;
use crate::commit::verdict::Verdict;
use crate::task::TopicPartition;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time went by. `now` counts from any fixed point and never goes back.
    Tick { now: Duration },
    /// Close the epoch, if one is open.
    Close,
    /// There is something to run and no transaction open.
    Work { now: Duration },
    /// The group gave us these partitions; we had none.
    Assigned(Vec<TopicPartition>),
    /// Answers [`Effect::ReadOffsets`].
    Offsets(Vec<CommittedOffset>),
    /// The group asks all partitions back; until [`Effect::Unassign`] they are ours.
    Revoked,
    /// All partitions are somebody else's already.
    Lost,
    /// The open epoch can't be committed.
    Broken(String),
    /// Answers [`Effect::Commit`], and [`Effect::Replace`] where that failed for good.
    Verdict(Verdict),
    /// Answers [`Effect::Replace`].
    Replaced,
    /// All tables that steps read have reached the end that they had when the partitions were assigned.
    TablesLive,
    /// One of them hasn't any more: it is folded anew.
    TablesRestoring,
    /// Commit what is open, then end.
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Begin,
    /// Produce [`super::Worker::changes`], then commit them with [`super::Worker::offsets_to_commit`]. Answered by a verdict.
    Commit,
    /// [`super::Worker::changes`] took effect: those of steps' state belong into the committed contents now. Only where steps have state.
    Merge,
    /// Drop the producer, initialise another of the same transactional.id. Answered by `Replaced`.
    Replace,
    /// Wait for stable committed offsets. Answered by `Offsets`.
    ReadOffsets(Vec<TopicPartition>),
    /// Consume these from these offsets on.
    Assign(Vec<(TopicPartition, i64)>),
    Unassign,
    /// Consume nothing of these for now.
    Pause(Vec<TopicPartition>),
    /// Go back to these offsets, and consume where consumption was paused.
    Seek(Vec<(TopicPartition, i64)>),
    End(End),
}

/// Why the loop ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Stopped,
    Failed(Reason),
}

/// A stable committed offset; where the group has none, the one to begin at, with empty metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    pub partition: TopicPartition,
    pub offset: i64,
    pub metadata: String,
}
