//! A worker's last word about itself, kept up to date for whoever asks.

use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use millstream_engine::task::TopicPartition;
use millstream_engine::worker::Worker;

use crate::cluster::Member;
use crate::status::{Commits, Phase, Retrying, SharedStatus, StepMeter, WorkerStatus};

/// How often a worker's status is made known.
const INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Reporter {
    status: SharedStatus,
    due: Instant,
    /// See [`Reporter::retrying`].
    failed: Retrying,
    pub commits: Commits,
}

impl Reporter {
    pub fn new(status: SharedStatus) -> Self {
        Self {
            status,
            due: Instant::now(),
            failed: Retrying::default(),
            commits: Commits::default(),
        }
    }

    fn status(&self) -> MutexGuard<'_, WorkerStatus> {
        self.status.lock().expect("nobody panics with it held")
    }

    /// Something has changed that is to be known at once.
    pub fn hurry(&mut self) {
        self.due = Instant::now();
    }

    pub fn set_phase(&mut self, phase: Phase) {
        self.status().phase = phase;
        self.hurry();
    }

    /// An epoch failed, and is run again.
    pub fn failed(&mut self, engine: &Worker, why: &str) {
        if self.retrying(engine).is_none() {
            self.failed = Retrying {
                after: engine.tally().committed,
                ..Retrying::default()
            };
        }
        self.failed.epochs += 1;
        why.clone_into(&mut self.failed.reason);
        self.status().retrying = Some(self.failed.clone());
    }

    /// What has failed, if nothing was committed since.
    pub fn retrying(&self, engine: &Worker) -> Option<&Retrying> {
        let failed = self.failed.epochs > 0;
        (failed && self.failed.after == engine.tally().committed).then_some(&self.failed)
    }

    /// Makes it all known, if it is time.
    pub fn publish(&mut self, engine: &Worker, member: &impl Member, steps: &[StepMeter]) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        self.due = now + INTERVAL;
        let held: Vec<(TopicPartition, i64)> = engine.held().collect();
        let places: Vec<TopicPartition> = held.iter().map(|(at, _)| *at).collect();
        let ends = member.ends(&places);
        let retrying = self.retrying(engine).cloned();
        let mut status = self.status();
        status.held = held;
        status.ends = ends;
        status.stopped = engine.stopped().cloned().collect();
        status.tally.clone_from(engine.tally());
        status.retrying = retrying;
        status.steps.clear();
        status.steps.extend_from_slice(steps);
        status.commits = self.commits;
    }
}
