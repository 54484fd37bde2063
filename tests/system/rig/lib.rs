//! The rig of the system tests: a real Kafka, a judge that shares no code with Millstream, a proxy
//! that knows which request passes, and the `millstream` binary as a child process. It must never
//! reach into Millstream itself: what it knows, it knows from Kafka, HTTP, logs and exit codes, as
//! an operator would.
//!
//! Everything listens on 127.0.0.1 and ends when its value is dropped. What can't be done panics,
//! with the output at hand.

#![forbid(unsafe_code)]

pub mod folder;
pub mod http;
pub mod judge;
pub mod kafka;
pub mod millstream;
pub mod ports;
pub mod process;
pub mod proxy;

use std::path::{Path, PathBuf};

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let system = Path::new(env!("CARGO_MANIFEST_DIR"));
    system
        .ancestors()
        .nth(2)
        .expect("the package is tests/system in the repository")
        .to_path_buf()
}
