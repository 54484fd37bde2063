//! What the `millstream` binary consists of: acts on what the engine decides. Adapters (`kafka`, `wasm`, `query`, `config`) don't know each
//! other; `load`, `topics`, `worker_thread`, `supervisor` and `cli` join them.
//!
//! It is a library for the sake of its binary, and of the fuzz targets in `tests/fuzz`. It promises nothing to anybody else, and shows
//! nothing but the way in.

mod awaited;
mod changelogs;
mod cli;
mod cluster;
mod config;
mod directory;
mod embedded;
mod failure_log;
mod fault;
mod feed;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod insist;
mod kafka;
mod lines;
mod load;
mod map_memory;
mod outlet;
mod own_topics;
mod plugin_allow;
mod plugin_limits;
mod purge;
mod query;
mod reload;
mod replicated;
mod reporter;
mod restoring;
mod running;
mod scope;
mod seat_lock;
mod snapshots;
mod standby;
mod starts;
mod status;
mod succession;
mod supervisor;
mod tables;
mod telemetry;
mod threads;
mod topic_watch;
mod topics;
mod trials;
mod twin;
mod wall_clock;
mod wasm;
mod worker_thread;

/// The whole program.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
