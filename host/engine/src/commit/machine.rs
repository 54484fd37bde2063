//! The life of epochs, one after another: a table of states and events and nothing else. It knows no records, tasks or Kafka.
//!
//! ```text
//!            begin              close               committed, sent once
//!   Ready ──────────▶ Open ──────────▶ Committing ───────────────────────▶ Ready
//!     ▲                │ broken            │ │ └─ committed, sent several times: merge ─┐
//!     │                ▼                   │ └─── in doubt ──▶ Resolving                │
//!     │         Replacing(rewind) ◀────────┘ aborted           │ replaced: read offsets │
//!     │                │ replaced: rewind                      │ found: merge           ▼
//!     └────────────────┴───────────────────────────────────────┘ absent: rewind   Replacing(keep)
//!                                                                                       │
//!     Ready ◀───────────────────────────────────────────────────────────── replaced ────┘
//! ```
//!
//! A fenced or fatal verdict leads from any state to `Ended`.
//!
//! Invariants: an epoch is merged or dropped exactly once; a producer is used for another transaction only after a commit that
//! succeeded and was sent once; nothing is decided on a time-out.

use crate::commit::verdict::{Sends, Verdict};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No transaction is open and the producer may begin one.
    Ready,
    Open,
    Committing,
    /// The commit is in doubt: the producer is being initialised again, or the offsets are being read back.
    Resolving,
    Replacing(Then),
    Ended,
}

/// What follows once the producer is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Then {
    Keep,
    Rewind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is work.
    Begin,
    /// The interval is over, memory is short, partitions are asked back, or the process is to end.
    Close,
    /// The open epoch can't be committed: something could not be sent, or its partitions are lost.
    Broken(String),
    Verdict(Verdict),
    /// The producer was initialised again under the same transactional.id.
    Replaced,
    /// What the stable committed offsets say of the transaction in doubt.
    Resolved(Resolution),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Its token stands at a partition: it was committed.
    Found,
    /// Its token stands at none: it was aborted.
    Absent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Begin,
    Commit,
    /// Drop the producer and initialise one of the same transactional.id, which ends what the old one left open.
    Replace,
    /// Read the stable committed offsets, with their metadata.
    ReadOffsets,
    /// The epoch took effect.
    Merge,
    /// The epoch did not take effect: drop its changes, go back to the committed offsets.
    Rewind,
    End(Reason),
}

/// Why a worker ends for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    Fenced(String),
    Fatal(String),
}

/// The successor of `state`, and what is to be done, in order.
///
/// # Panics
///
/// On an event that can't come in that state: a bug of the caller.
pub fn on(state: State, event: Event) -> (State, Vec<Action>) {
    match (state, event) {
        (State::Ready, Event::Begin) => (State::Open, vec![Action::Begin]),
        (State::Open, Event::Close) => (State::Committing, vec![Action::Commit]),
        (State::Open, Event::Broken(_)) => (State::Replacing(Then::Rewind), vec![Action::Replace]),
        (State::Committing, Event::Verdict(verdict)) => judge(verdict),
        (State::Resolving, Event::Replaced) => (State::Resolving, vec![Action::ReadOffsets]),
        (State::Resolving, Event::Resolved(Resolution::Found)) => {
            (State::Ready, vec![Action::Merge])
        }
        (State::Resolving, Event::Resolved(Resolution::Absent)) => {
            (State::Ready, vec![Action::Rewind])
        }
        (State::Replacing(Then::Keep), Event::Replaced) => (State::Ready, vec![]),
        (State::Replacing(Then::Rewind), Event::Replaced) => (State::Ready, vec![Action::Rewind]),
        (_, Event::Verdict(Verdict::Fenced(why))) => {
            (State::Ended, vec![Action::End(Reason::Fenced(why))])
        }
        (_, Event::Verdict(Verdict::Fatal(why))) => {
            (State::Ended, vec![Action::End(Reason::Fatal(why))])
        }
        (state, event) => panic!("{event:?} can't come in state {state:?}"),
    }
}

fn judge(verdict: Verdict) -> (State, Vec<Action>) {
    match verdict {
        Verdict::Committed(Sends::Once) => (State::Ready, vec![Action::Merge]),
        Verdict::Committed(Sends::Several) => (
            State::Replacing(Then::Keep),
            vec![Action::Merge, Action::Replace],
        ),
        Verdict::Aborted(_) => (State::Replacing(Then::Rewind), vec![Action::Replace]),
        Verdict::InDoubt(_) => (State::Resolving, vec![Action::Replace]),
        Verdict::Fenced(why) => (State::Ended, vec![Action::End(Reason::Fenced(why))]),
        Verdict::Fatal(why) => (State::Ended, vec![Action::End(Reason::Fatal(why))]),
    }
}
