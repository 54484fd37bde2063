//! Whether `millstream-broker` answers as Kafka does: scripts that are run against both, and must come to the same.
//!
//! Each file in `scripts/` tells one fact: commands (see `command.rs`), then what Kafka answered. A new fact is a new file.
//! `UPDATE_GOLDENFILES=1 cargo test -p millstream-conformance --test kafka` writes a real Kafka's answers into the scripts; where
//! the model differs then, the model is wrong.

#![forbid(unsafe_code)]

mod command;
mod imitation;
mod notebook;
mod subject;
pub mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

pub use imitation::Imitation;
pub use subject::Subject;

use notebook::Notebook;

/// Runs every script, each with names of its own so that they can share a broker, and names those whose outcome differs.
/// `CONFORMANCE=word` runs only those whose names contain the word.
pub fn check<S: Subject>(mut subject: impl FnMut() -> S) {
    let only = std::env::var("CONFORMANCE").unwrap_or_default();
    let scripts: Vec<PathBuf> = scripts()
        .into_iter()
        .filter(|script| name(script).contains(&only))
        .collect();
    assert!(!scripts.is_empty(), "there are scripts");
    let passes = |script: &&PathBuf| !passes(script, subject());
    let differing: Vec<&PathBuf> = scripts.iter().filter(passes).collect();
    assert!(differing.is_empty(), "scripts that differ: {differing:#?}");
}

fn passes(script: &Path, subject: impl Subject) -> bool {
    let mut notebook = Notebook::new(name(script), subject);
    let run = AssertUnwindSafe(|| goldenscript::run(&mut notebook, script));
    match catch_unwind(run) {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            eprintln!("{}: {error}", script.display());
            false
        }
        // goldenfile printed the difference.
        Err(_) => false,
    }
}

fn name(script: &Path) -> &str {
    let name = script.file_name().and_then(|name| name.to_str());
    name.expect("a script has a name in UTF-8")
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let entries = std::fs::read_dir(folder).expect("the folder stands beside this file");
    let mut scripts: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    scripts.sort();
    scripts
}
