//! A worker as the server runs it: one thread that does one thing after another, told by `commit::machine` what becomes of its epochs.
//!
//! Invariant: no arrow of an epoch's life is drawn here. A worker hands events to the machine and carries out what that answers.

use millstream_engine::commit::machine::{self, Action, Event, State};

use crate::kafka::{PARTITIONS, RECORDS_MAX};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Worker {
    pub is_alive: bool,
    pub state: State,
    pub doing: Doing,
    pub membership: Membership,
    /// Partitions are to be given up once no transaction is open.
    pub leaving: bool,
    /// By partition.
    pub inputs: [Option<Input>; 2],
}

/// What the worker's thread is at. While that is something, it doesn't poll, and hears nothing of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doing {
    /// It polls.
    Nothing,
    /// Initialising its first producer, before it joins the group.
    Starting,
    /// Waiting for the stable offsets of partitions that it was given.
    Taking([bool; 2]),
    /// Folding the changelogs of what it took.
    Restoring,
    /// Writing the epoch's changes.
    Flushing,
    AddingOffsets,
    Ending(Ending),
    Replacing,
    /// Waiting for the stable offsets, to see what became of a commit.
    ReadingBack,
}

/// The commit was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ending {
    /// More than one request left.
    pub several: bool,
    /// A success is on its way here.
    pub answered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Membership {
    Out,
    /// Waits for the next generation.
    Joining,
    /// Of the present generation.
    In,
    /// It takes itself for a member, and the group has gone on without it.
    Stale,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Input {
    /// Up to where records took effect, as far as the worker knows.
    pub committed: u8,
    /// Up to where records were run.
    pub processed: u8,
    pub state: Fold,
}

/// A partition's state in memory: which records it has taken in, and each how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fold([u8; RECORDS_MAX as usize]);

impl Fold {
    /// Of each record before `end`, once.
    pub fn up_to(end: u8) -> Self {
        let mut fold = Self::default();
        (0..end).for_each(|record| fold.take(record));
        fold
    }

    pub fn take(&mut self, record: u8) {
        let times = &mut self.0[usize::from(record)];
        // More than twice is as wrong as twice.
        *times = (*times + 1).min(2);
    }

    /// Whether everything in this one is in the other.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(own, all)| own <= all)
    }
}

/// What the machine wants done beyond memory: one thing at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Nothing,
    Begin,
    Commit,
    Replace(State),
    ReadOffsets,
}

impl Worker {
    pub fn dead() -> Self {
        Self {
            is_alive: false,
            state: State::Ready,
            doing: Doing::Nothing,
            membership: Membership::Out,
            leaving: false,
            inputs: [None; 2],
        }
    }

    /// In the group from the beginning, with both partitions.
    pub fn first() -> Self {
        Self {
            is_alive: true,
            membership: Membership::In,
            inputs: [Some(Input::default()); 2],
            ..Self::dead()
        }
    }

    pub fn holds_nothing(&self) -> bool {
        self.inputs.iter().all(Option::is_none)
    }

    /// Whether there is a producer that can be fenced.
    pub fn has_producer(&self) -> bool {
        self.is_alive && !matches!(self.doing, Doing::Starting | Doing::Replacing)
    }

    /// Partitions that moved in the open epoch, each with the records run in it: from, and before which.
    pub fn moved(&self) -> impl Iterator<Item = (usize, u8, u8)> + use<> {
        let inputs = self.inputs;
        PARTITIONS.into_iter().filter_map(move |partition| {
            let input = inputs[partition]?;
            let moved = input.processed > input.committed;
            moved.then_some((partition, input.committed, input.processed))
        })
    }

    /// Tells the machine what happened to the epoch, draws the consequences in memory, and returns what it wants done.
    pub fn on(&mut self, event: Event) -> Wanted {
        let (state, actions) = machine::on(self.state, event);
        self.state = state;
        self.doing = Doing::Nothing;
        let mut wanted = Wanted::Nothing;
        let mut want = |next| {
            assert_eq!(wanted, Wanted::Nothing, "{next:?} is wanted too");
            wanted = next;
        };
        for action in actions {
            match action {
                Action::Merge => self.merge(),
                Action::Rewind => self.rewind(),
                Action::Begin => want(Wanted::Begin),
                Action::Commit => want(Wanted::Commit),
                Action::Replace => want(Wanted::Replace(state)),
                Action::ReadOffsets => want(Wanted::ReadOffsets),
                Action::End(_) => {
                    unreachable!("no seat is taken by another, and no answer is fatal")
                }
            }
        }
        wanted
    }

    fn merge(&mut self) {
        for input in self.inputs.iter_mut().flatten() {
            for record in input.committed..input.processed {
                input.state.take(record);
            }
            input.committed = input.processed;
        }
    }

    fn rewind(&mut self) {
        for input in self.inputs.iter_mut().flatten() {
            input.processed = input.committed;
        }
    }
}
