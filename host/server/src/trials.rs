//! A new version of a pipeline's plugins, tried by all workers of the process at once: all take it, or none does.
//!
//! A worker that hears of a trial commits what it has, changes to the new plugins, and runs records in an epoch that it doesn't commit. It
//! votes, and holds that epoch until all have voted. Whoever has nothing to run says so, and holds what comes later. A version for which
//! nobody has records stays in trial until somebody does.
//!
//! Invariant: an outcome, once it is there, is the same for everybody and for good; a version in trial is nobody's current one; and none is
//! taken that no record went through.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many outcomes are remembered: more than there can be trials that a worker hasn't heard the end of.
const REMEMBERED: usize = 100;

/// What became of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Taken,
    /// With why.
    Rejected(String),
}

/// What a worker says of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    /// Records went through it.
    Passed,
    /// There have been none.
    Idle,
}

/// A version in trial, or in force.
pub struct Version<V> {
    /// Versions of a life of the process are counted from 1.
    pub number: u64,
    pub what: Arc<V>,
}

impl<V> Clone for Version<V> {
    fn clone(&self) -> Self {
        Self {
            number: self.number,
            what: Arc::clone(&self.what),
        }
    }
}

impl<V> fmt::Debug for Version<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Version")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

struct Trial<V> {
    version: Version<V>,
    /// By worker.
    votes: Vec<Option<Vote>>,
}

struct Inner<V> {
    current: Version<V>,
    trial: Option<Trial<V>>,
    outcomes: BTreeMap<u64, Outcome>,
}

pub struct Trials<V> {
    inner: Mutex<Inner<V>>,
    /// Somebody may wait for an outcome.
    decided: Condvar,
    /// The number of the last version that was put to trial: workers look at it all the time.
    newest: AtomicU64,
    workers: usize,
}

impl<V> fmt::Debug for Trials<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trials")
            .field("newest", &self.newest)
            .finish_non_exhaustive()
    }
}

impl<V> Trials<V> {
    /// So many workers vote. This version is in force.
    pub fn new(what: Arc<V>, workers: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                current: Version { number: 1, what },
                trial: None,
                outcomes: BTreeMap::new(),
            }),
            decided: Condvar::new(),
            newest: AtomicU64::new(1),
            workers,
        }
    }

    /// The version in force.
    pub fn current(&self) -> Version<V> {
        self.inner().current.clone()
    }

    /// Has all workers try a version. Returns its number. One that is in trial still is rejected.
    pub fn begin(&self, what: Arc<V>) -> u64 {
        let mut inner = self.inner();
        if let Some(trial) = &inner.trial {
            let why = "another version came before it was decided".to_owned();
            let number = trial.version.number;
            inner.decide(number, Outcome::Rejected(why));
        }
        let number = self.newest.load(Ordering::Relaxed) + 1;
        let version = Version { number, what };
        inner.trial = Some(Trial {
            version,
            votes: vec![None; self.workers],
        });
        self.newest.store(number, Ordering::Release);
        number
    }

    /// What has become of a version, after so long at most.
    pub fn wait(&self, number: u64, within: Duration) -> Option<Outcome> {
        let inner = self.inner();
        let is_open = |inner: &mut Inner<V>| !inner.outcomes.contains_key(&number);
        let waited = self.decided.wait_timeout_while(inner, within, is_open);
        let (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        inner.outcomes.get(&number).cloned()
    }

    /// The workers that have not said anything of a version in trial.
    pub fn silent(&self, number: u64) -> Vec<usize> {
        let inner = self.inner();
        let trial = inner.trial.as_ref();
        let trial = trial.filter(|trial| trial.version.number == number);
        let votes = trial.iter().flat_map(|trial| trial.votes.iter());
        let silent = votes.enumerate().filter(|(_, vote)| vote.is_none());
        silent.map(|(worker, _)| worker).collect()
    }

    /// A version in trial that is newer than the last one that a worker heard of.
    pub fn newer(&self, heard: u64) -> Option<Version<V>> {
        if self.newest.load(Ordering::Acquire) <= heard {
            return None;
        }
        let inner = self.inner();
        let trial = inner.trial.as_ref();
        trial.map(|trial| trial.version.clone())
    }

    /// What became of that version, once that is known.
    pub fn outcome(&self, number: u64) -> Option<Outcome> {
        self.inner().outcomes.get(&number).cloned()
    }

    /// Notes what a worker says of the version, if it is in trial still.
    pub fn vote(&self, number: u64, worker: u32, vote: Vote) {
        let mut inner = self.inner();
        let trial = inner.trial.as_mut();
        let Some(trial) = trial.filter(|trial| trial.version.number == number) else {
            return;
        };
        trial.votes[worker as usize] = Some(vote);
        let is_complete = trial.votes.iter().all(Option::is_some);
        if is_complete && trial.votes.contains(&Some(Vote::Passed)) {
            inner.decide(number, Outcome::Taken);
            self.decided.notify_all();
        }
    }

    /// A worker can't have the version, if that isn't decided yet.
    pub fn reject(&self, number: u64, why: String) {
        let mut inner = self.inner();
        let trial = inner.trial.as_ref();
        if trial.is_some_and(|trial| trial.version.number == number) {
            inner.decide(number, Outcome::Rejected(why));
            self.decided.notify_all();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner<V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Inner<V> {
    fn decide(&mut self, number: u64, outcome: Outcome) {
        if let (Some(trial), Outcome::Taken) = (self.trial.take(), &outcome) {
            self.current = trial.version;
        }
        self.outcomes.insert(number, outcome);
        while self.outcomes.len() > REMEMBERED {
            self.outcomes.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn trials(workers: usize) -> Trials<&'static str> {
        Trials::new(Arc::new("old"), workers)
    }

    #[test]
    fn all_votes_take_a_version() {
        let trials = trials(2);
        let number = trials.begin(Arc::new("new"));
        assert_eq!(trials.newer(1).map(|version| version.number), Some(2));
        trials.vote(number, 1, Vote::Idle);
        assert_eq!(trials.silent(number), [0]);
        trials.vote(number, 0, Vote::Idle);
        assert_eq!(
            trials.wait(number, Duration::ZERO),
            None,
            "nothing was tried"
        );
        assert_eq!(*trials.current().what, "old");
        // It had something to run after all.
        let outcome = std::thread::scope(|scope| {
            let waits = scope.spawn(|| trials.wait(number, SOON));
            trials.vote(number, 1, Vote::Passed);
            waits.join().expect("it waits for the votes")
        });
        assert_eq!(outcome, Some(Outcome::Taken));
        assert!(trials.newer(number).is_none());
        assert_eq!(
            (trials.current().number, *trials.current().what),
            (2, "new")
        );
    }

    #[test]
    fn one_rejection_is_enough_and_final() {
        let trials = trials(2);
        let number = trials.begin(Arc::new("new"));
        trials.vote(number, 0, Vote::Passed);
        trials.reject(number, "it traps".into());
        trials.vote(number, 1, Vote::Passed);
        trials.reject(number, "too late".into());
        let rejected = Outcome::Rejected("it traps".into());
        assert_eq!(trials.outcome(number), Some(rejected));
        assert_eq!(
            (trials.current().number, *trials.current().what),
            (1, "old")
        );
    }

    #[test]
    fn a_newer_version_ends_the_trial_of_an_older_one() {
        let trials = trials(1);
        let older = trials.begin(Arc::new("older"));
        let newer = trials.begin(Arc::new("newer"));
        assert!(matches!(trials.outcome(older), Some(Outcome::Rejected(_))));
        trials.vote(older, 0, Vote::Passed);
        assert_eq!(trials.outcome(newer), None);
        trials.vote(newer, 0, Vote::Passed);
        assert_eq!(*trials.current().what, "newer");
    }
}
