//! Keyed data: the writes of the open epoch, committed contents, and the changelog that joins them.

pub mod changelog;
pub mod committed;
pub mod overlay;
pub mod restore;
