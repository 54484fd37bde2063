//! The trials of a process' plugins (`millstream_engine::trials`), shared by its workers and whoever waits for what becomes of them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millstream_engine::trials;
pub use millstream_engine::trials::{Outcome, Version, Vote};

pub struct Trials<V> {
    inner: Mutex<trials::Trials<V>>,
    /// Somebody may wait for an outcome.
    decided: Condvar,
    /// The number of the last version that was put to trial: workers look at it all the time.
    newest: AtomicU64,
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
        let inner = trials::Trials::new(what, workers);
        Self {
            newest: AtomicU64::new(inner.current().number),
            inner: Mutex::new(inner),
            decided: Condvar::new(),
        }
    }

    /// The version in force.
    pub fn current(&self) -> Version<V> {
        self.inner().current().clone()
    }

    /// Has all workers try a version. Returns its number. One that is in trial still is rejected.
    pub fn begin(&self, what: Arc<V>) -> u64 {
        let mut inner = self.inner();
        let number = inner.begin(what);
        self.newest.store(number, Ordering::Release);
        self.decided.notify_all();
        number
    }

    /// What has become of a version, after so long at most.
    pub fn wait(&self, number: u64, within: Duration) -> Option<Outcome> {
        let inner = self.inner();
        let is_open = |inner: &mut trials::Trials<V>| inner.outcome(number).is_none();
        let waited = self.decided.wait_timeout_while(inner, within, is_open);
        let (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        inner.outcome(number).cloned()
    }

    /// The workers that have not said anything of a version in trial.
    pub fn silent(&self, number: u64) -> Vec<usize> {
        self.inner().silent(number)
    }

    /// A version in trial that is newer than the last one that a worker heard of.
    pub fn newer(&self, heard: u64) -> Option<Version<V>> {
        if self.newest.load(Ordering::Acquire) <= heard {
            return None;
        }
        self.inner().newer(heard).cloned()
    }

    /// What became of that version, once that is known.
    pub fn outcome(&self, number: u64) -> Option<Outcome> {
        self.inner().outcome(number).cloned()
    }

    /// Notes what a worker says of the version, if it is in trial still.
    pub fn vote(&self, number: u64, worker: u32, vote: Vote) {
        self.inner().vote(number, worker, vote);
        self.decided.notify_all();
    }

    /// A worker can't have the version, if that isn't decided yet.
    pub fn reject(&self, number: u64, why: String) {
        self.inner().reject(number, why);
        self.decided.notify_all();
    }

    fn inner(&self) -> MutexGuard<'_, trials::Trials<V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn who_waits_hears_of_the_outcome() {
        let trials = Trials::new(Arc::new("old"), 1);
        let number = trials.begin(Arc::new("new"));
        assert_eq!(trials.wait(number, Duration::ZERO), None);
        let outcome = std::thread::scope(|scope| {
            let waits = scope.spawn(|| trials.wait(number, SOON));
            trials.vote(number, 0, Vote::Passed);
            waits.join().expect("it waits for the vote")
        });
        assert_eq!(outcome, Some(Outcome::Taken));
        assert!(trials.newer(number).is_none());
    }
}
