//! A new version of a pipeline's plugins, tried by all workers of a process at once: all take it, or none does.
//!
//! A worker that hears of a trial commits what it has, changes to the new plugins, and runs records in an epoch that it doesn't commit. It
//! votes, and holds that epoch until all have voted. Whoever has nothing to run says so, and holds what comes later. A version for which
//! nobody has records stays in trial until somebody does.
//!
//! Invariant: an outcome, once it is there, is the same for everybody and for good; a version in trial is nobody's current one; and none is
//! taken that no record went through.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

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

#[derive(Debug)]
struct Trial<V> {
    version: Version<V>,
    /// By worker.
    votes: Vec<Option<Vote>>,
}

#[derive(Debug)]
pub struct Trials<V> {
    current: Version<V>,
    trial: Option<Trial<V>>,
    outcomes: BTreeMap<u64, Outcome>,
    /// The number of the last version that was put to trial.
    newest: u64,
    workers: usize,
}

impl<V> Trials<V> {
    /// So many workers vote. This version is in force.
    pub fn new(what: Arc<V>, workers: usize) -> Self {
        Self {
            current: Version { number: 1, what },
            trial: None,
            outcomes: BTreeMap::new(),
            newest: 1,
            workers,
        }
    }

    /// The version in force.
    pub fn current(&self) -> &Version<V> {
        &self.current
    }

    /// Has all workers try a version. Returns its number. One that is in trial still is rejected.
    pub fn begin(&mut self, what: Arc<V>) -> u64 {
        if let Some(trial) = &self.trial {
            let why = "another version came before it was decided".to_owned();
            self.decide(trial.version.number, Outcome::Rejected(why));
        }
        self.newest += 1;
        let number = self.newest;
        self.trial = Some(Trial {
            version: Version { number, what },
            votes: vec![None; self.workers],
        });
        number
    }

    /// The workers that have not said anything of a version in trial.
    pub fn silent(&self, number: u64) -> Vec<usize> {
        let trial = self.trial.as_ref();
        let trial = trial.filter(|trial| trial.version.number == number);
        let votes = trial.iter().flat_map(|trial| trial.votes.iter());
        let silent = votes.enumerate().filter(|(_, vote)| vote.is_none());
        silent.map(|(worker, _)| worker).collect()
    }

    /// A version in trial that is newer than the last one that a worker heard of.
    pub fn newer(&self, heard: u64) -> Option<&Version<V>> {
        let version = self.trial.as_ref().map(|trial| &trial.version);
        version.filter(|version| version.number > heard)
    }

    /// What became of that version, once that is known.
    pub fn outcome(&self, number: u64) -> Option<&Outcome> {
        self.outcomes.get(&number)
    }

    /// Notes what a worker says of the version, if it is in trial still.
    pub fn vote(&mut self, number: u64, worker: u32, vote: Vote) {
        let trial = self.trial.as_mut();
        let Some(trial) = trial.filter(|trial| trial.version.number == number) else {
            return;
        };
        trial.votes[worker as usize] = Some(vote);
        let is_complete = trial.votes.iter().all(Option::is_some);
        if is_complete && trial.votes.contains(&Some(Vote::Passed)) {
            self.decide(number, Outcome::Taken);
        }
    }

    /// A worker can't have the version, if that isn't decided yet.
    pub fn reject(&mut self, number: u64, why: String) {
        let trial = self.trial.as_ref();
        if trial.is_some_and(|trial| trial.version.number == number) {
            self.decide(number, Outcome::Rejected(why));
        }
    }

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

    fn trials(workers: usize) -> Trials<&'static str> {
        Trials::new(Arc::new("old"), workers)
    }

    fn in_force(trials: &Trials<&'static str>) -> (u64, &'static str) {
        (trials.current().number, *trials.current().what)
    }

    #[test]
    fn all_votes_take_a_version() {
        let mut trials = trials(2);
        let number = trials.begin(Arc::new("new"));
        assert_eq!(trials.newer(1).map(|version| version.number), Some(2));
        trials.vote(number, 1, Vote::Idle);
        assert_eq!(trials.silent(number), [0]);
        trials.vote(number, 0, Vote::Idle);
        assert_eq!(trials.outcome(number), None, "nothing was tried");
        assert_eq!(in_force(&trials), (1, "old"));
        // It had something to run after all.
        trials.vote(number, 1, Vote::Passed);
        assert_eq!(trials.outcome(number), Some(&Outcome::Taken));
        assert!(trials.newer(1).is_none());
        assert_eq!(in_force(&trials), (2, "new"));
    }

    #[test]
    fn one_rejection_is_enough_and_final() {
        let mut trials = trials(2);
        let number = trials.begin(Arc::new("new"));
        trials.vote(number, 0, Vote::Passed);
        trials.reject(number, "it traps".into());
        trials.vote(number, 1, Vote::Passed);
        trials.reject(number, "too late".into());
        let rejected = Outcome::Rejected("it traps".into());
        assert_eq!(trials.outcome(number), Some(&rejected));
        assert_eq!(in_force(&trials), (1, "old"));
    }

    #[test]
    fn a_newer_version_ends_the_trial_of_an_older_one() {
        let mut trials = trials(1);
        let older = trials.begin(Arc::new("older"));
        let newer = trials.begin(Arc::new("newer"));
        assert!(matches!(trials.outcome(older), Some(Outcome::Rejected(_))));
        trials.vote(older, 0, Vote::Passed);
        assert_eq!(trials.outcome(newer), None);
        trials.vote(newer, 0, Vote::Passed);
        assert_eq!(in_force(&trials), (3, "newer"));
    }
}
