//! The commit protocol, checked exhaustively: two workers, two partitions, three records, and every interleaving of what workers, brokers
//! and the network do, with as many faults as one likes.
//!
//! What becomes of a worker's epochs is asked of `commit::machine`, the server's own table, and stated nowhere here. Around it stand
//! the rules by which the server carries its actions out (`worker`), and what Kafka does (`kafka`). One rule can be taken away
//! ([`rule::Rule`]): the checker must find what it is good for.
//!
//! Invariant: a world is finite without counting faults. Whatever can happen once can happen again, since nothing that is over is
//! remembered: aborted records vanish from the logs, transactions have no number, and of epochs only the last of a seat is known.

#![forbid(unsafe_code)]

pub mod action;
pub mod check;

pub mod healing;
pub mod kafka;
pub mod properties;
pub mod rule;
pub mod worker;
pub mod world;

pub use check::Protocol;
