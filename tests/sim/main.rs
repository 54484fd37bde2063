//! The engine without Kafka, WASM or a clock: golden scripts that read like lab notebooks, and a walk over the commit protocol.
//!
//! Each file in `protocol/` and `graph/` is a scenario: commands (see `command.rs`), then what they came to. A new scenario is a
//! new file. `UPDATE_GOLDENFILES=1 cargo test -p millstream-sim` writes what the engine did into the scripts; it is right only
//! once somebody has read it and agrees.

#![forbid(unsafe_code)]

mod command;
mod draft;
mod machine;
mod notebook;
mod plugin;
mod show;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use notebook::Notebook;

#[test]
fn protocol() {
    check("protocol");
}

#[test]
fn graph() {
    check("graph");
}

/// Runs every script of a folder, each with a worker of its own, and names those whose outcome differs.
fn check(folder: &str) {
    let scripts = scripts(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    assert!(!scripts.is_empty(), "{folder} holds scripts");
    let differing: Vec<&PathBuf> = scripts.iter().filter(|script| !passes(script)).collect();
    assert!(differing.is_empty(), "scripts that differ: {differing:#?}");
}

fn passes(script: &Path) -> bool {
    match catch_unwind(AssertUnwindSafe(|| {
        goldenscript::run(&mut Notebook::default(), script)
    })) {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            eprintln!("{}: {error}", script.display());
            false
        }
        // goldenfile printed the difference.
        Err(_) => false,
    }
}

fn scripts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder stands beside this file");
    let mut scripts: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    scripts.sort();
    scripts
}
