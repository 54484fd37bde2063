//! The map changes of the open epoch, the last one of each key, until they are produced when the epoch closes.
//!
//! Never read by queries. Invariant: at most one change for each map and key; they come out in the order in which the keys were
//! first written, so that two runs over the same input produce the same changelog.

use std::ops::Range;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher as _;

use crate::pipeline::MapId;
use crate::state::changelog;

/// The epoch is closed early when its changes take this many bytes.
pub const OVERLAY_BYTES_MAX: usize = 64 << 20;

/// One map change, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    pub map: MapId,
    /// Of the changelog.
    pub partition: u32,
    pub key: &'a [u8],
    /// None removes the key.
    pub value: Option<&'a [u8]>,
    /// Of the record that brought it: milliseconds since 1970-01-01 UTC, -1 for none.
    pub timestamp: i64,
}

#[derive(Debug)]
pub struct Overlay {
    /// Positions in `entries`, by map and key.
    index: HashTable<u32>,
    entries: Vec<Entry>,
    /// Keys and values. A value that was replaced stays here until the epoch ends: copying is dearer than the bytes.
    bytes: Vec<u8>,
    hasher: FixedState,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    map: MapId,
    partition: u32,
    key: Range<usize>,
    value: Option<Range<usize>>,
    timestamp: i64,
}

impl Overlay {
    /// `seed` keeps people who choose keys from choosing ones that collide; it changes nothing that can be seen.
    pub fn new(seed: u64) -> Self {
        Self {
            index: HashTable::new(),
            entries: Vec::new(),
            bytes: Vec::new(),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// Sets or, with no value, removes a key of a map that has `partitions` partitions.
    pub fn put(
        &mut self,
        map: MapId,
        partitions: u32,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: i64,
    ) {
        let hash = self.hasher.hash_one(key);
        let (entries, bytes) = (&self.entries, &self.bytes);
        let same = |&at: &u32| {
            let entry = &entries[at as usize];
            entry.hash == hash && entry.map == map && bytes[entry.key.clone()] == *key
        };
        if let Some(&at) = self.index.find(hash, same) {
            let value = value.map(|value| append(&mut self.bytes, value));
            let entry = &mut self.entries[at as usize];
            entry.value = value;
            entry.timestamp = timestamp;
            return;
        }
        let at =
            u32::try_from(self.entries.len()).expect("an entry takes bytes, and those are limited");
        let entry = Entry {
            hash,
            map,
            partition: changelog::partition(key, partitions),
            key: append(&mut self.bytes, key),
            value: value.map(|value| append(&mut self.bytes, value)),
            timestamp,
        };
        self.entries.push(entry);
        let entries = &self.entries;
        self.index
            .insert_unique(hash, at, |&at| entries[at as usize].hash);
    }

    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.entries.iter().map(|entry| Change {
            map: entry.map,
            partition: entry.partition,
            key: &self.bytes[entry.key.clone()],
            value: entry.value.clone().map(|value| &self.bytes[value]),
            timestamp: entry.timestamp,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the epoch should be closed for the sake of memory.
    pub fn is_full(&self) -> bool {
        self.bytes.len() + self.entries.len() * size_of::<Entry>() >= OVERLAY_BYTES_MAX
    }

    pub fn clear(&mut self) {
        self.index.clear();
        self.entries.clear();
        self.bytes.clear();
    }
}

fn append(bytes: &mut Vec<u8>, string: &[u8]) -> Range<usize> {
    let from = bytes.len();
    bytes.extend_from_slice(string);
    from..bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_change_of_a_key_stands_where_its_first_did() {
        let mut overlay = Overlay::new(1);
        overlay.put(MapId(0), 4, b"a", Some(b"1"), 1);
        overlay.put(MapId(0), 4, b"b", Some(b"2"), 2);
        overlay.put(MapId(1), 4, b"a", Some(b"other map"), 3);
        overlay.put(MapId(0), 4, b"a", None, 4);
        overlay.put(MapId(0), 4, b"b", Some(b""), 5);
        let changes: Vec<_> = overlay
            .changes()
            .map(|c| (c.map.0, c.key, c.value, c.timestamp))
            .collect();
        assert_eq!(
            changes,
            [
                (0, &b"a"[..], None, 4),
                (0, &b"b"[..], Some(&b""[..]), 5),
                (1, &b"a"[..], Some(&b"other map"[..]), 3),
            ]
        );
        overlay.clear();
        assert!(overlay.is_empty() && overlay.changes().next().is_none());
    }
}
