//! Which map partitions this process holds right now: who folds them puts them in and takes them out, steps and queries look them
//! up.
//!
//! Invariant: a partition is in the directory only while somebody here folds its topic.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use millstream_engine::pipeline::MapId;
use millstream_engine::state::restore::MapPartition;

/// A map partition that queries may read while it is folded.
pub type SharedPartition = Arc<RwLock<MapPartition>>;

/// Which partition of which map.
pub type MapPlace = (MapId, u32);

#[derive(Debug, Default)]
pub struct Directory {
    held: RwLock<BTreeMap<MapPlace, SharedPartition>>,
}

impl Directory {
    pub fn add<'a>(&self, held: impl IntoIterator<Item = (&'a MapPlace, &'a SharedPartition)>) {
        let held = held
            .into_iter()
            .map(|(place, partition)| (*place, Arc::clone(partition)));
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
                .is_some_and(|known| Arc::ptr_eq(known, partition))
            {
                held.remove(place);
            }
        }
    }

    pub fn get(&self, place: MapPlace) -> Option<SharedPartition> {
        self.held
            .read()
            .expect("nobody panics with it held")
            .get(&place)
            .cloned()
    }

    /// Everything held, by map and partition.
    pub fn all(&self) -> Vec<(MapPlace, SharedPartition)> {
        let held = self.held.read().expect("nobody panics with it held");
        held.iter()
            .map(|(place, partition)| (*place, Arc::clone(partition)))
            .collect()
    }
}
