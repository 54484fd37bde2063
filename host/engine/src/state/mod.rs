//! Keyed data: the writes of the open epoch, committed contents with their indexes, and the changelog that joins them.

pub mod budget;
pub mod changelog;
pub mod committed;
pub mod entries;
pub mod freshness;
pub mod index;
pub mod overlay;
pub mod restore;
pub mod search;
pub mod snapshot;
mod sorted;
