//! The commit protocol: an epoch's life as a table of states and events.

pub mod ledger;
pub mod machine;
pub mod token;
pub mod verdict;
