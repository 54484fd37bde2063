//! A real Kafka, through librdkafka: the clients that `cluster` wants.
//!
//! Nothing outside this folder names rdkafka. Invariants: a transaction's offsets are read and committed on the thread that polls
//! the group; a time-out is never taken for an answer.

mod admin;
#[expect(unsafe_code, reason = "called by a C library")]
mod callbacks;
mod client;
mod consumer;
#[expect(unsafe_code, reason = "calls a C library")]
mod group;
#[expect(unsafe_code, reason = "calls a C library")]
mod identity;
mod loss;
#[expect(unsafe_code, reason = "calls a C library")]
mod membership;
#[expect(unsafe_code, reason = "calls a C library")]
mod metadata;
#[expect(unsafe_code, reason = "calls a C library")]
mod native;
#[expect(unsafe_code, reason = "calls a C library")]
mod producer;
mod reader;
mod remains;
mod replay;
mod seat;
mod stretch;
mod unread;
#[expect(unsafe_code, reason = "takes over a C library's error objects")]
mod verdict;

pub use client::{Clients, Properties};
pub use remains::Remains;
pub use replay::{Replay, original};
pub use stretch::{Kept, Stretch};
