//! What can happen in a world, one thing at a time, in words that a counterexample is read in.

use std::fmt::{Display, Formatter, Result};

use crate::kafka::Place;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Worker(usize, Step),
    Coordinator(usize, Decision),
    /// A marker of a seat's decided transaction lands.
    Land(usize, Place),
    /// The group begins a new generation for a reason of its own.
    Rebalance,
    /// All members have joined: the new generation is there, with these owners.
    Generation([Option<u8>; 2]),
    /// The session of a seat is over.
    Expire(usize),
}

/// What a worker does, or what befalls its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Runs the next record of a partition, in a transaction that begins with it if none is open.
    Run(usize),
    Close,
    /// Writes the changes, and knows that outputs and changes are delivered.
    Flush,
    AddOffsets,
    /// The same, and more than one copy of the request left: one is still under way.
    AddOffsetsAgain,
    /// Sends another request to commit: no answer came in time.
    SendAgain,
    /// Gives up waiting for an answer.
    GiveUp,
    /// Reads that its commit succeeded.
    HearSuccess,
    /// Learns that what it asks for is refused.
    HearRefusal,
    /// Can't go on with the open epoch: a record was not delivered, for one.
    Break,
    /// Has its producer initialised, as far as that goes: what is open is aborted first.
    Initialise,
    /// Initialises a producer in the other's seat.
    Succeed,
    ReadOffsets,
    Restore,
    /// Hears that the group asks partitions back.
    Revoked,
    /// Hears that its partitions are others' already.
    Lost,
    Join,
    /// Hears which partitions it owns.
    Assigned,
    Die,
    Start,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A request to commit arrives.
    End,
    /// A late copy of a request to add offsets arrives.
    LateOffsets,
    /// The transaction has been open for too long.
    TimeOut,
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Worker(seat, step) => write!(f, "worker {seat} {step}"),
            Self::Coordinator(seat, Decision::End) => {
                write!(
                    f,
                    "coordinator: a request to commit arrives for seat {seat}"
                )
            }
            Self::Coordinator(seat, Decision::LateOffsets) => {
                write!(
                    f,
                    "group: a late request to add offsets arrives from seat {seat}"
                )
            }
            Self::Coordinator(seat, Decision::TimeOut) => {
                write!(f, "coordinator: the transaction of seat {seat} times out")
            }
            Self::Land(seat, Place::Changes(partition)) => {
                write!(
                    f,
                    "marker of seat {seat} lands in the changelog of {partition}"
                )
            }
            Self::Land(seat, Place::Offsets) => {
                write!(f, "marker of seat {seat} lands in the offsets")
            }
            Self::Rebalance => write!(f, "group: a rebalance begins"),
            Self::Generation(owners) => {
                write!(f, "group: a new generation, owners")?;
                for (partition, owner) in owners.iter().enumerate() {
                    match owner {
                        Some(seat) => write!(f, " {partition}: {seat}")?,
                        None => write!(f, " {partition}: nobody")?,
                    }
                }
                Ok(())
            }
            Self::Expire(seat) => write!(f, "group: the session of seat {seat} is over"),
        }
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Run(partition) => return write!(f, "runs the next record of {partition}"),
            Self::Close => "closes the epoch",
            Self::Flush => "has its changes written, and everything delivered",
            Self::AddOffsets => "has its offsets added, and asks for the commit",
            Self::AddOffsetsAgain => {
                "has its offsets added at the second try, and asks for the commit"
            }
            Self::SendAgain => "sends its request to commit again",
            Self::GiveUp => "gives up waiting for an answer",
            Self::HearSuccess => "hears that its commit succeeded",
            Self::HearRefusal => "hears that it is refused",
            Self::Break => "finds that the open epoch can't be committed",
            Self::Initialise => "has its producer initialised",
            Self::Succeed => "initialises a producer in the other's seat",
            Self::ReadOffsets => "reads the committed offsets",
            Self::Restore => "restores its state",
            Self::Revoked => "is asked for its partitions",
            Self::Lost => "hears that it lost its partitions",
            Self::Join => "joins the group",
            Self::Assigned => "hears which partitions it owns",
            Self::Die => "dies",
            Self::Start => "is started again",
        }
        .fmt(f)
    }
}
