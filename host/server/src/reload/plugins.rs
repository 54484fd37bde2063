//! The plugins of a pipeline: those that run, those that ran before them, and what became of others.
//!
//! Invariant: what can be gone back to has been taken by all workers once, or is what the process started with.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::requests::{Action, By, Requests, Verdict};
use crate::config::Config;
use crate::trials::Trials;
use crate::wall_clock;
use crate::wasm::StepPlugin;

/// How many reloads and rollbacks are remembered.
const REMEMBERED: usize = 50;
/// How many versions before the one that runs are kept, compiled as they are. Older ones can't be gone back to.
const EARLIER_KEPT: usize = 5;

/// A version of configuration and plugins.
#[derive(Clone, Debug)]
pub struct Version {
    pub config: Config,
    /// By the pipeline's order.
    pub steps: Arc<Vec<StepPlugin>>,
}

/// What tells versions apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Names pipeline file and plugins; empty where no step has a plugin.
    pub revision: String,
    /// By the plugin's name in the pipeline file: SHA-256 of the component.
    pub digests: Vec<(String, String)>,
}

impl Fingerprint {
    pub fn of(steps: &[StepPlugin]) -> Self {
        let mut digests: Vec<(String, String)> = Vec::new();
        for step in steps {
            if !digests.iter().any(|(name, _)| *name == step.plugin_name) {
                digests.push((step.plugin_name.clone(), step.plugin.digest().into()));
            }
        }
        let first = steps.first();
        Self {
            revision: first.map_or_else(String::new, |step| step.revision.to_string()),
            digests,
        }
    }

    /// Of the plugin of that name, if the version has it.
    pub fn digest(&self, plugin: &str) -> Option<&str> {
        let mut digests = self.digests.iter();
        let found = digests.find(|(name, _)| name == plugin);
        found.map(|(_, digest)| digest.as_str())
    }
}

/// A reload or a rollback, as it is remembered.
#[derive(Clone, Debug)]
pub struct Reload {
    /// Milliseconds since 1970-01-01 UTC.
    pub at: i64,
    pub action: Action,
    pub by: By,
    /// Of the version in question; none where it could not be loaded.
    pub version: Option<Fingerprint>,
    pub verdict: Verdict,
}

#[derive(Debug)]
pub struct Plugins {
    pub trials: Arc<Trials<Vec<StepPlugin>>>,
    /// Of a million records, how many a version that is tried may fail on.
    pub max_failures: Arc<AtomicU32>,
    /// What is asked for over HTTP.
    pub requests: Requests,
    past: Mutex<Past>,
}

#[derive(Debug)]
struct Past {
    /// When the version that runs was taken: milliseconds since 1970-01-01 UTC.
    since: i64,
    /// The last one is what ran before what runs now.
    earlier: VecDeque<Version>,
    history: VecDeque<Reload>,
}

impl Plugins {
    pub fn new(steps: Arc<Vec<StepPlugin>>, max_failures: u32, workers: u32) -> Self {
        Self {
            max_failures: Arc::new(AtomicU32::new(max_failures)),
            trials: Arc::new(Trials::new(steps, workers as usize)),
            requests: Requests::default(),
            past: Mutex::new(Past {
                since: wall_clock::now(),
                earlier: VecDeque::new(),
                history: VecDeque::new(),
            }),
        }
    }

    /// By the pipeline's order.
    pub fn current(&self) -> Arc<Vec<StepPlugin>> {
        self.trials.current().what
    }

    /// Names pipeline file and plugins; empty where no step has a plugin.
    pub fn revision(&self) -> String {
        Fingerprint::of(&self.current()).revision
    }

    /// When the version that runs was taken, or the process loaded it: milliseconds since 1970-01-01 UTC.
    pub fn since(&self) -> i64 {
        self.past().since
    }

    /// The last reloads and rollbacks, in their order.
    pub fn history(&self) -> Vec<Reload> {
        self.past().history.iter().cloned().collect()
    }

    /// What a rollback would go back to.
    pub fn earlier(&self) -> Option<Version> {
        self.past().earlier.back().cloned()
    }

    /// A reload was taken, and this ran before.
    pub fn replaced(&self, version: Version) {
        let mut past = self.past();
        past.since = wall_clock::now();
        past.earlier.push_back(version);
        while past.earlier.len() > EARLIER_KEPT {
            past.earlier.pop_front();
        }
    }

    /// A rollback was taken: what could be gone back to runs.
    pub fn went_back(&self) {
        let mut past = self.past();
        past.since = wall_clock::now();
        past.earlier.pop_back();
    }

    pub fn note(&self, reload: Reload) {
        let mut past = self.past();
        past.history.push_back(reload);
        while past.history.len() > REMEMBERED {
            past.history.pop_front();
        }
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Said where there is nothing to go back to.
pub fn nothing_earlier() -> String {
    format!(
        "there is no version to go back to: the process keeps the {EARLIER_KEPT} that it ran last, and none is before this one. Put the files \
         that are wanted in place, and reload"
    )
}
