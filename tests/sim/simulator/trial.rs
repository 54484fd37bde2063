//! A worker's part in a trial of new plugins, as `host/server/src/worker_thread/trial.rs`.

use std::sync::Arc;

use millstream_engine::trials::{Outcome, Trials, Version, Vote};
use millstream_engine::worker::Event;

use super::course::Course;
use super::driver::{Halt, Loop};
use super::pipeline::Code;

/// How long records to try it with are waited for.
const RECORDS_WITHIN: i64 = 20;

/// A version that this worker tries.
#[derive(Debug)]
pub struct OnTrial {
    version: Version<Code>,
    began: i64,
    failed_before: u64,
    vote: Option<Vote>,
}

impl Loop {
    fn trials<T>(&self, ask: impl FnOnce(&mut Trials<Code>) -> T) -> T {
        let life = &mut self.world.lives.borrow_mut()[self.life];
        ask(life.trials.as_mut().expect("every process has some"))
    }

    pub async fn look_at_trials(&mut self) -> Result<(), Halt> {
        let Some(trial) = &self.trial else {
            let heard = self.heard;
            return match self.trials(|trials| trials.newer(heard).cloned()) {
                Some(version) => self.begin_trial(version).await,
                None => Ok(()),
            };
        };
        let number = trial.version.number;
        match self.trials(|trials| trials.outcome(number).cloned()) {
            Some(outcome) => self.end_trial(outcome).await,
            None => {
                self.vote_idle();
                Ok(())
            }
        }
    }

    async fn begin_trial(&mut self, version: Version<Code>) -> Result<(), Halt> {
        self.happened(Event::Close).await?;
        self.heard = version.number;
        self.steps.change(*version.what, self.number);
        self.trial = Some(OnTrial {
            version,
            began: self.world.now(),
            failed_before: self.steps.failed_calls,
            vote: None,
        });
        Ok(())
    }

    async fn end_trial(&mut self, outcome: Outcome) -> Result<(), Halt> {
        self.trial = None;
        self.note(|| format!("trial: {outcome:?}"));
        let Outcome::Rejected(why) = outcome else {
            self.world.count(Course::ReloadTaken);
            return Ok(());
        };
        self.world.count(Course::ReloadRejected);
        let current = self.trials(|trials| Arc::clone(&trials.current().what));
        self.steps.change(*current, self.number);
        if self.engine.is_open() {
            self.world.count(Course::ReloadUndone);
            self.happened(Event::Broken(why)).await?;
        }
        Ok(())
    }

    /// Whether an epoch waits for what others say.
    pub fn holds(&self) -> bool {
        self.trial.is_some() && self.engine.is_open()
    }

    /// Votes, where records went through the version. Returns whether their epoch is held.
    pub fn judge_trial(&mut self) -> bool {
        if !self.holds() {
            return false;
        }
        let Some(trial) = &mut self.trial else {
            return false;
        };
        if trial.vote != Some(Vote::Passed) {
            trial.vote = Some(Vote::Passed);
            let (number, before) = (trial.version.number, trial.failed_before);
            self.world.count(Course::ReloadHeld);
            self.say(number, Vote::Passed, self.steps.failed_calls > before);
        }
        true
    }

    fn vote_idle(&mut self) {
        let now = self.world.now();
        let Some(trial) = &mut self.trial else { return };
        if trial.vote.is_none() && now - trial.began > RECORDS_WITHIN {
            trial.vote = Some(Vote::Idle);
            let number = trial.version.number;
            self.say(number, Vote::Idle, false);
        }
    }

    /// A version that is bad is known to be, records or not: what is taken must be sound here, since the judge knows nothing of versions.
    fn say(&self, number: u64, vote: Vote, has_failed: bool) {
        let (worker, is_bad) = (self.number, self.steps.is_bad() || has_failed);
        self.trials(|trials| match is_bad {
            true => trials.reject(number, format!("worker {worker}: it is bad")),
            false => trials.vote(number, worker, vote),
        });
    }

    /// Something else comes first: unless it is decided already, the version is rejected.
    pub async fn cut_trial_short(&mut self, why: &str) -> Result<(), Halt> {
        let Some(trial) = &self.trial else {
            return Ok(());
        };
        let (number, why) = (trial.version.number, why.to_owned());
        self.trials(|trials| trials.reject(number, why));
        self.look_at_trials().await
    }

    pub async fn hold(&mut self) -> Result<(), Halt> {
        self.look_after_seat();
        if self.member.is_lost() {
            return self.cut_trial_short("the partitions were lost").await;
        }
        self.world.sleep(1).await;
        self.keep_up().await;
        Ok(())
    }
}
