//! Which map partitions this process holds right now: who folds them puts them in and takes them out, steps and queries look them
//! up.
//!
//! Invariants: a partition is in the directory only while somebody here folds its topic; a query is answered from one only while its
//! worker has made sure, a moment ago, that the group still counts it as its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use millstream_engine::pipeline::MapId;
use millstream_engine::state::restore::MapPartition;

/// A map partition that queries may read while it is folded.
pub type SharedPartition = Arc<RwLock<MapPartition>>;

/// Which partition of which map.
pub type MapPlace = (MapId, u32);

/// How long a worker may not have looked after its seat before nothing is answered from its partitions: the process may have been
/// frozen, and the group have given them to others. Brokers allow no shorter session (`group.min.session.timeout.ms`, 6 s); a worker
/// looks twice a second at least, unless a plugin is in the middle of a call.
const LOOK_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub struct Directory {
    held: RwLock<BTreeMap<MapPlace, Held>>,
}

#[derive(Clone, Debug)]
struct Held {
    partition: SharedPartition,
    /// None where nobody else can be given it.
    pulse: Option<Arc<Pulse>>,
}

/// When a worker last knew that its partitions are its own.
#[derive(Debug)]
struct Pulse {
    began: Instant,
    /// Milliseconds since then.
    last: AtomicU64,
}

impl Pulse {
    fn age(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(last)
    }

    fn beat(&self) {
        let since = u64::try_from(self.began.elapsed().as_millis());
        let since = since.expect("processes live for less than 500 million years");
        self.last.store(since, Ordering::Relaxed);
    }
}

impl Directory {
    /// Puts in what no group gives to anybody.
    pub fn add<'a>(&self, held: impl IntoIterator<Item = (&'a MapPlace, &'a SharedPartition)>) {
        self.put(held, None);
    }

    fn put<'a>(
        &self,
        held: impl IntoIterator<Item = (&'a MapPlace, &'a SharedPartition)>,
        pulse: Option<&Arc<Pulse>>,
    ) {
        let held = held.into_iter().map(|(place, partition)| {
            let partition = Arc::clone(partition);
            let pulse = pulse.cloned();
            (*place, Held { partition, pulse })
        });
        self.held
            .write()
            .expect("nobody panics with it held")
            .extend(held);
    }

    /// Takes these out, where nobody has put in another of the same place since.
    pub fn remove<'a>(&self, gone: impl IntoIterator<Item = (&'a MapPlace, &'a SharedPartition)>) {
        let mut held = self.held.write().expect("nobody panics with it held");
        for (place, partition) in gone {
            if held
                .get(place)
                .is_some_and(|known| Arc::ptr_eq(&known.partition, partition))
            {
                held.remove(place);
            }
        }
    }

    /// For steps: whose worker it is runs them.
    pub fn get(&self, place: MapPlace) -> Option<SharedPartition> {
        Some(self.find(place)?.partition)
    }

    /// For queries: none where it may be another process's by now.
    pub fn answering(&self, place: MapPlace) -> Option<SharedPartition> {
        let held = self.find(place)?;
        let is_fresh = held.pulse.is_none_or(|pulse| pulse.age() < LOOK_MAX);
        is_fresh.then_some(held.partition)
    }

    fn find(&self, place: MapPlace) -> Option<Held> {
        let held = self.held.read().expect("nobody panics with it held");
        held.get(&place).cloned()
    }

    /// Everything held, by map and partition.
    pub fn all(&self) -> Vec<(MapPlace, SharedPartition)> {
        let held = self.held.read().expect("nobody panics with it held");
        held.iter()
            .map(|(place, held)| (*place, Arc::clone(&held.partition)))
            .collect()
    }
}

/// A worker's part in the directory.
#[derive(Debug)]
pub struct Holder {
    directory: Arc<Directory>,
    pulse: Arc<Pulse>,
}

impl Holder {
    pub fn new(directory: &Arc<Directory>) -> Self {
        let began = Instant::now();
        Self {
            directory: Arc::clone(directory),
            pulse: Arc::new(Pulse {
                began,
                last: AtomicU64::new(0),
            }),
        }
    }

    pub fn add<'a>(&self, held: impl IntoIterator<Item = (&'a MapPlace, &'a SharedPartition)>) {
        self.directory.put(held, Some(&self.pulse));
    }

    pub fn remove<'a>(&self, gone: impl IntoIterator<Item = (&'a MapPlace, &'a SharedPartition)>) {
        self.directory.remove(gone);
    }

    /// What is held is the worker's own now.
    pub fn beat(&self) {
        self.pulse.beat();
    }

    /// How long ago that was known last.
    pub fn age(&self) -> Duration {
        self.pulse.age()
    }
}

#[cfg(test)]
mod tests {
    use millstream_engine::state::budget::Budget;
    use millstream_engine::state::committed::Committed;
    use millstream_engine::state::restore::LiveFrom;

    use super::*;

    #[test]
    fn what_nobody_has_looked_after_answers_no_query() {
        let share = Budget::new(usize::MAX, 1).share(0);
        let contents = Committed::new(1, Arc::default());
        let partition = MapPartition::new(contents, share, 1, (0, 0), LiveFrom::Changelog);
        let partition = Arc::new(RwLock::new(partition));
        let place = (MapId(0), 0);
        let directory = Arc::new(Directory::default());
        let began = Instant::now().checked_sub(LOOK_MAX);
        let began = began.expect("the machine has been up for some seconds");
        let last = AtomicU64::new(0);
        let holder = Holder {
            directory: Arc::clone(&directory),
            pulse: Arc::new(Pulse { began, last }),
        };
        holder.add([(&place, &partition)]);
        assert!(directory.get(place).is_some());
        assert!(directory.answering(place).is_none());
        holder.beat();
        assert!(directory.answering(place).is_some());
    }
}
