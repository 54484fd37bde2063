//! The folder that snapshots of maps are kept in, and `millstream state snapshots`, which shows and verifies them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{duration, read, runtime};
use crate::config::Overrides;
use crate::snapshots::{self, State, report};
use crate::supervisor::Failure;

/// Where snapshots stand, and how often they are written.
#[derive(Debug, Args)]
pub struct Kept {
    #[command(flatten)]
    place: Place,
    /// How long after a snapshot of a map partition the next one may be written.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    snapshot_interval: Duration,
}

#[derive(Debug, Args)]
pub struct Place {
    /// Folder for snapshots of maps. By default `millstream` in `$XDG_STATE_HOME`, else in `~/.local/state`, else in the folder for
    /// temporary files.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl Kept {
    /// Makes the folder. One that was named must be usable; without the default one there are no snapshots.
    pub fn open(&self) -> Result<Option<State>, Failure> {
        let folder = self.place.folder();
        if let Err(why) = snapshots::check_folder(&folder) {
            let why = format!(
                "snapshots of maps can't be kept in {}: {why}",
                folder.display()
            );
            if self.place.state_dir.is_some() {
                return Err(Failure::CommandLine(format!("--state-dir: {why}")));
            }
            tracing::warn!(
                "{why}. Maps are restored from their changelogs alone; name another folder with --state-dir"
            );
            return Ok(None);
        }
        Ok(Some(State {
            folder,
            interval: self.snapshot_interval,
        }))
    }
}

impl Place {
    pub fn folder(&self) -> PathBuf {
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let default = || match (named("XDG_STATE_HOME"), named("HOME")) {
            (Some(state), _) => PathBuf::from(state).join("millstream"),
            (None, Some(home)) => Path::new(&home).join(".local/state/millstream"),
            (None, None) => {
                std::env::temp_dir().join(format!("millstream-state-{}", snapshots::user()))
            }
        };
        self.state_dir.clone().unwrap_or_else(default)
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the snapshots of a pipeline's maps, and verify them. No broker is asked.
    Snapshots(Arguments),
}

#[derive(Debug, Args)]
pub struct Arguments {
    /// The pipeline file.
    pipeline: PathBuf,
    #[command(flatten)]
    place: Place,
}

pub fn main(command: Command) -> Result<(), Failure> {
    let Command::Snapshots(arguments) = command;
    let overrides = Overrides {
        bootstrap: None,
        embedded: false,
    };
    let config = read(&arguments.pipeline, &overrides, &runtime()?)?;
    let folder = arguments.place.folder();
    if arguments.place.state_dir.is_some() && !folder.is_dir() {
        return Err(Failure::CommandLine(format!(
            "--state-dir: {} is no folder",
            folder.display()
        )));
    }
    let found = report::look(&folder, &config.pipeline.name);
    let found = found.map_err(|source| Failure::System {
        what: folder.display().to_string(),
        source,
    })?;
    if found.is_empty() {
        println!(
            "there are no snapshots of pipeline \"{}\" in {}",
            config.pipeline.name,
            folder.display()
        );
    }
    for line in &found {
        println!("{line}");
    }
    match found.iter().filter(|one| one.is_damaged()).count() {
        0 => Ok(()),
        damaged => Err(Failure::Damaged(damaged)),
    }
}
