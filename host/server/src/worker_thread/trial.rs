//! A worker's part in a trial of new plugins. Part of the loop.
//!
//! Invariant: what was run with a version in trial is not committed before all workers have taken it, and is rolled back where they don't.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use millstream_engine::worker::Event;

use super::{Halt, Loop};
use crate::cluster::{Cluster, Member as _};
use crate::trials::{Outcome, Version, Vote};
use crate::wasm::StepPlugin;

/// How long records to try it with are waited for.
const RECORDS_WITHIN: Duration = Duration::from_millis(100);

/// How often a worker that holds its epoch looks for the outcome.
const LOOK: Duration = Duration::from_millis(1);

/// Fewer say nothing of a version, unless there were no others: a stream may have bad records.
const FAILED_MIN: u64 = 5;

/// What counts against a version, as counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failings {
    /// Calls that failed as a whole, or ran into a limit.
    pub calls: u64,
    /// Records that were run, and those of them that failed.
    pub run: u64,
    pub failed: u64,
}

/// A version that this worker tries.
#[derive(Debug)]
pub struct OnTrial {
    version: Version<Vec<StepPlugin>>,
    began: Instant,
    before: Failings,
    vote: Option<Vote>,
    /// Since when its epoch has been held.
    held: Option<Instant>,
}

impl<C: Cluster> Loop<C> {
    /// Begins a trial that there is, and ends one that is decided.
    pub(super) fn look_at_trials(&mut self) -> Result<(), Halt> {
        let Some(trial) = &self.trial else {
            return match self.seat.trials.newer(self.heard) {
                Some(version) => self.begin_trial(version),
                None => Ok(()),
            };
        };
        match self.seat.trials.outcome(trial.version.number) {
            Some(outcome) => self.end_trial(outcome),
            None => {
                self.vote_idle();
                Ok(())
            }
        }
    }

    fn begin_trial(&mut self, version: Version<Vec<StepPlugin>>) -> Result<(), Halt> {
        self.happened(Event::Close)?;
        self.heard = version.number;
        self.running.steps.change(&version.what);
        self.trial = Some(OnTrial {
            version,
            began: Instant::now(),
            before: self.running.failings(),
            vote: None,
            held: None,
        });
        Ok(())
    }

    fn end_trial(&mut self, outcome: Outcome) -> Result<(), Halt> {
        let held = self.trial.take().and_then(|trial| trial.held);
        if let Some(since) = held {
            tracing::debug!("an epoch was held for {:.1?}", since.elapsed());
        }
        if let Outcome::Rejected(why) = outcome {
            // Before anything is run again.
            let current = self.seat.trials.current();
            self.running.steps.change(&current.what);
            if self.engine.is_open() {
                self.happened(Event::Broken(why))?;
            }
        }
        self.reporter.hurry();
        Ok(())
    }

    /// Whether an epoch waits for what others say. Nothing is run or committed meanwhile.
    pub(super) fn holds(&self) -> bool {
        self.trial.is_some() && self.engine.is_open()
    }

    /// Votes, where records went through the version. Returns whether their epoch is held.
    pub(super) fn judge_trial(&mut self) -> bool {
        let worker = self.seat.setup.worker;
        if !self.holds() {
            return false;
        }
        let Some(trial) = &mut self.trial else {
            return false;
        };
        trial.held.get_or_insert_with(Instant::now);
        if trial.vote != Some(Vote::Passed) {
            trial.vote = Some(Vote::Passed);
            let number = trial.version.number;
            let most = self.seat.max_failures.load(Ordering::Relaxed);
            match self.running.failings().blame(trial.before, most) {
                Some(why) => {
                    let why = format!("worker {worker}: {why}");
                    self.seat.trials.reject(number, why);
                }
                None => self.seat.trials.vote(number, worker, Vote::Passed),
            }
        }
        true
    }

    fn vote_idle(&mut self) {
        let Some(trial) = &mut self.trial else { return };
        if trial.vote.is_none() && trial.began.elapsed() > RECORDS_WITHIN {
            trial.vote = Some(Vote::Idle);
            let worker = self.seat.setup.worker;
            self.seat
                .trials
                .vote(trial.version.number, worker, Vote::Idle);
        }
    }

    /// Something else comes first: unless it is decided already, the version is rejected, and what was run with it rolled back.
    pub(super) fn cut_trial_short(&mut self, why: &str) -> Result<(), Halt> {
        let Some(trial) = &self.trial else {
            return Ok(());
        };
        let (number, worker) = (trial.version.number, self.seat.setup.worker);
        self.seat
            .trials
            .reject(number, format!("worker {worker}: {why}"));
        self.look_at_trials()
    }

    /// Waits a little for what others say, and does what can't wait.
    pub(super) fn hold(&mut self) -> Result<(), Halt> {
        self.look_after_seat();
        if self.consumer.is_lost() {
            return self.cut_trial_short("the partitions were lost");
        }
        std::thread::sleep(LOOK);
        self.keep_up()
    }
}

impl Failings {
    /// Why a version is not taken that began when so much had been counted, and may fail on so many of a million records.
    fn blame(self, before: Self, most: u32) -> Option<String> {
        let calls = self.calls - before.calls;
        let (run, failed) = (self.run - before.run, self.failed - before.failed);
        if calls > 0 {
            return Some(format!("{calls} calls failed, or ran into a limit"));
        }
        let is_sure = failed >= FAILED_MIN || failed == run;
        let is_much = is_sure && failed * 1_000_000 > run * u64::from(most);
        is_much.then(|| format!("{failed} of {run} records failed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_blamed_for_what_it_did_itself() {
        let before = Failings {
            calls: 7,
            run: 1000,
            failed: 100,
        };
        let check = |calls, run, failed, expected: Option<&str>| {
            let after = Failings {
                calls: before.calls + calls,
                run: before.run + run,
                failed: before.failed + failed,
            };
            assert_eq!(after.blame(before, 40_000).as_deref(), expected);
        };
        check(0, 50, 0, None);
        check(0, 50, 2, None);
        check(0, 50, 4, None);
        check(0, 50, 5, Some("5 of 50 records failed"));
        check(0, 2, 2, Some("2 of 2 records failed"));
        check(1, 50, 0, Some("1 calls failed, or ran into a limit"));
    }
}
