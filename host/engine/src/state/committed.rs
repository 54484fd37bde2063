//! The committed contents of one map partition: the fold of its changelog, with its indexes.
//!
//! Invariant: the table has the slot of every entry under its key, the indexes have it under its value, and both have nothing else.
//! Nothing uncommitted ever gets in: who calls [`Committed::put`] read the change committed.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::entries::{Entries, SLOTS_MAX};
use super::index::Index;
use crate::json::{Pointer, find};

/// What a change may add to the indexes: nodes and sets that are split or made anew.
const INDEX_GROWTH: usize = 16 << 10;

#[derive(Debug)]
pub struct Committed {
    /// Slots by key.
    table: HashTable<u32>,
    entries: Entries,
    /// Of the indexes, in their order.
    pointers: Arc<[Pointer]>,
    indexes: Vec<Index>,
    hasher: FixedState,
}

impl Committed {
    /// With an index for each pointer. `seed` keeps people who choose keys from choosing ones that collide; it changes nothing
    /// that can be seen.
    pub fn new(seed: u64, pointers: Arc<[Pointer]>) -> Self {
        Self {
            table: HashTable::new(),
            entries: Entries::default(),
            indexes: pointers.iter().cloned().map(Index::new).collect(),
            pointers,
            hasher: FixedState::with_seed(seed),
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let same = |&slot: &u32| self.entries.key(slot) == key;
        let slot = *self.table.find(self.hasher.hash_one(key), same)?;
        self.entries.get(slot).map(|(_, value)| value)
    }

    /// Sets or, with no value, removes a key.
    pub fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        let hash = self.hasher.hash_one(key);
        let (entries, hasher) = (&mut self.entries, &self.hasher);
        let found = self.table.entry(
            hash,
            |&slot| entries.key(slot) == key,
            |&slot| hasher.hash_one(entries.key(slot)),
        );
        match (found, value) {
            (Entry::Occupied(found), Some(new)) => {
                let slot = *found.get();
                let (_, old) = entries
                    .get(slot)
                    .expect("the table knows slots in use only");
                reindex(
                    &mut self.indexes,
                    &self.pointers,
                    slot,
                    Some(old),
                    Some(new),
                );
                entries.replace(slot, new);
            }
            (Entry::Occupied(found), None) => {
                let (slot, _) = found.remove();
                let old = entries.get(slot).map(|(_, value)| value);
                reindex(&mut self.indexes, &self.pointers, slot, old, None);
                entries.remove(slot);
            }
            (Entry::Vacant(place), Some(value)) => {
                let slot = entries.insert(key, value);
                place.insert(slot);
                reindex(&mut self.indexes, &self.pointers, slot, None, Some(value));
            }
            (Entry::Vacant(_), None) => {}
        }
    }

    /// Makes room in the table for so many more, so that it does not grow step by step, which takes most of the time of a fill.
    pub fn reserve(&mut self, more: usize) {
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.table
            .reserve(more, |&slot| hasher.hash_one(entries.key(slot)));
    }

    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    pub fn indexes(&self) -> &[Index] {
        &self.indexes
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.entries.bytes()
    }

    /// What entries and table take in memory, keys and values included.
    pub fn footprint(&self) -> usize {
        self.entries.footprint() + self.table.allocation_size()
    }

    /// What an index takes in memory.
    pub fn index_footprint(&self, index: &Index) -> usize {
        index.footprint(self.entries.end())
    }

    /// What all of it takes in memory once a change is made, at most, and while it is made. None if there is no slot for it.
    pub fn footprint_with(&self, key: &[u8], value: Option<&[u8]>) -> Option<usize> {
        let indexes = self
            .indexes
            .iter()
            .map(|index| self.index_footprint(index) + INDEX_GROWTH);
        let now = self.footprint() + indexes.sum::<usize>();
        let Some(value) = value else { return Some(now) };
        if self.entries.is_full() {
            return None;
        }
        // A table that grows is there twice for a moment, the second time with twice the room.
        let grows = self.table.len() == self.table.capacity();
        let table = if grows {
            2 * self.table.allocation_size() + 64
        } else {
            0
        };
        Some(now + Entries::footprint_of(key, value) + table)
    }

    /// The same for several new entries, together; `bytes` is what each of them takes, added up. None also where there are indexes:
    /// nobody knows before what they will take.
    pub fn footprint_with_all(&self, entries: usize, bytes: usize) -> Option<usize> {
        let slots = u32::try_from(entries).ok()?.checked_add(self.entries.end());
        slots.filter(|&slots| slots < SLOTS_MAX && self.indexes.is_empty())?;
        let all = self.table.len() + entries;
        let table = if all > self.table.capacity() {
            table_footprint(all)
        } else {
            0
        };
        Some(self.footprint() + bytes + Entries::footprint_of_slots(entries) + table)
    }

    /// What it would take with room in the table for so many more entries, while that is made.
    pub fn footprint_reserved(&self, more: usize) -> usize {
        self.footprint() + table_footprint(self.table.len() + more)
    }
}

/// What a table with room for so many takes at most: an eighth stays free, and buckets are a power of two.
fn table_footprint(entries: usize) -> usize {
    let buckets = (entries / 7 * 8 + 16).next_power_of_two();
    buckets * (size_of::<u32>() + 1) + 64
}

/// A change of an entry's value, told to the indexes.
fn reindex(
    indexes: &mut [Index],
    pointers: &[Pointer],
    slot: u32,
    old: Option<&[u8]>,
    new: Option<&[u8]>,
) {
    if indexes.is_empty() || old == new {
        return;
    }
    let old = old.and_then(|value| find(value, pointers));
    let new = new.and_then(|value| find(value, pointers));
    for (at, index) in indexes.iter_mut().enumerate() {
        let old = old.as_ref().and_then(|found| found[at].as_ref());
        let new = new.as_ref().and_then(|found| found[at].as_ref());
        if old == new {
            continue;
        }
        if let Some(old) = old {
            index.remove(old, slot);
        }
        if let Some(new) = new {
            index.insert(new, slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_changes() {
        let mut map = Committed::new(7, Arc::default());
        let check =
            |map: &Committed, key: &str, value: Option<&str>, entries: usize, bytes: usize| {
                assert_eq!(map.get(key.as_bytes()), value.map(str::as_bytes));
                assert_eq!((map.len(), map.bytes()), (entries, bytes));
            };
        map.put(b"a", None);
        check(&map, "a", None, 0, 0);
        map.put(b"a", Some(b"one"));
        check(&map, "a", Some("one"), 1, 4);
        map.put(b"a", Some(b"two"));
        check(&map, "a", Some("two"), 1, 4);
        map.put(b"a", Some(b""));
        check(&map, "a", Some(""), 1, 1);
        map.put(b"", Some(b"the empty key"));
        check(&map, "", Some("the empty key"), 2, 14);
        map.put(b"a", None);
        check(&map, "a", None, 1, 13);
    }
}
