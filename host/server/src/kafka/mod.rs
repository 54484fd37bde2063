//! Kafka: the group consumer, the transactional producer, the changelog reader, and what is asked of the cluster at start.
//!
//! Nothing outside this folder names rdkafka. Invariants: a transaction's offsets are read and committed on the thread that polls
//! the group; a time-out is never taken for an answer.

mod admin;
#[expect(unsafe_code, reason = "called by a C library")]
mod callbacks;
mod changelog;
mod client;
mod consumer;
#[expect(unsafe_code, reason = "calls a C library")]
mod native;
#[expect(unsafe_code, reason = "calls a C library")]
mod producer;
#[expect(unsafe_code, reason = "takes over a C library's error objects")]
mod verdict;

pub use admin::{Admin, AdminError, StartPlace, TopicFacts};
pub use changelog::ChangelogReader;
pub use client::{Clients, Properties};
pub use consumer::{ConsumeError, Consumed, GroupConsumer, Rebalance};
pub use producer::{Commit, Producer};
pub use verdict::TransactionError;
