//! The rules around the machine, each of which can be taken away, one at a time.

/// What a worker, or Kafka on its behalf, doesn't do any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A producer whose transaction was ended by several requests is replaced.
    ReplaceAfterSeveralSends,
    /// A producer whose offsets were asked to be added by several requests is replaced.
    ReplaceAfterSeveralOffsets,
    /// A producer whose transaction was aborted is replaced before the epoch is run again.
    ReplaceAfterAbort,
    /// A producer whose commit is in doubt is replaced before it begins another transaction.
    ReplaceInDoubt,
    /// A commit in doubt is no abort.
    DoubtIsNoAbort,
    /// A commit in doubt is no commit.
    DoubtIsNoCommit,
    /// The transaction is closed before partitions are given up.
    CloseBeforeGivingUp,
    /// Offsets are taken from members of the present generation only.
    CheckGeneration,
    /// A seat started again initialises its producer before anything else.
    InitialiseAtStart,
    /// Offsets are read once none of them is pending.
    ReadStableOffsets,
    /// Changelogs are read up to the high watermark, not to the last stable offset.
    RestoreToHighWatermark,
}
