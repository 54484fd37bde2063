//! The map changes of the open epoch, the last one of each key, until they are produced when the epoch closes.
//!
//! Never read by queries. Invariant: at most one change for each map, partition and key; they come out in the order in which the
//! keys were first written, so that two runs over the same input produce the same changelog.

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
    /// What the changes of known keys replaced since [`Overlay::settle`], the last one last.
    replaced: Vec<Replaced>,
    hasher: FixedState,
}

#[derive(Debug)]
struct Replaced {
    at: u32,
    value: Option<Range<usize>>,
    timestamp: i64,
}

/// A moment in the overlay to which it can be rolled back, until it is settled.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    entries: usize,
    bytes: usize,
    replaced: usize,
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
            replaced: Vec::new(),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// The change of a key, if there is one: its new value, or none where it is removed.
    pub fn get(&self, (map, partition): (MapId, u32), key: &[u8]) -> Option<Option<&[u8]>> {
        if self.entries.is_empty() {
            return None;
        }
        let at = self.find(self.hasher.hash_one(key), (map, partition), key)?;
        let value = self.entries[at as usize].value.clone();
        Some(value.map(|value| &self.bytes[value]))
    }

    fn find(&self, hash: u64, (map, partition): (MapId, u32), key: &[u8]) -> Option<u32> {
        let same = |&at: &u32| {
            let entry = &self.entries[at as usize];
            let place = (entry.map, entry.partition);
            entry.hash == hash && place == (map, partition) && self.bytes[entry.key.clone()] == *key
        };
        self.index.find(hash, same).copied()
    }

    /// Sets or, with no value, removes a key in the partition, of those of a map, that it hashes to.
    pub fn put_hashed(
        &mut self,
        (map, partitions): (MapId, u32),
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: i64,
    ) {
        let partition = changelog::partition(key, partitions);
        self.put((map, partition), key, value, timestamp);
    }

    /// Sets or, with no value, removes a key in a map's partition.
    pub fn put(
        &mut self,
        (map, partition): (MapId, u32),
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: i64,
    ) {
        let hash = self.hasher.hash_one(key);
        if let Some(at) = self.find(hash, (map, partition), key) {
            let value = value.map(|value| append(&mut self.bytes, value));
            let entry = &mut self.entries[at as usize];
            self.replaced.push(Replaced {
                at,
                value: std::mem::replace(&mut entry.value, value),
                timestamp: std::mem::replace(&mut entry.timestamp, timestamp),
            });
            return;
        }
        let at =
            u32::try_from(self.entries.len()).expect("an entry takes bytes, and those are limited");
        let entry = Entry {
            hash,
            map,
            partition,
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

    /// What can be rolled back to, until the changes are settled.
    pub fn mark(&self) -> Mark {
        Mark {
            entries: self.entries.len(),
            bytes: self.bytes.len(),
            replaced: self.replaced.len(),
        }
    }

    /// Undoes every change since `mark`, which no later mark outlives.
    pub fn roll_back(&mut self, mark: Mark) {
        for replaced in self.replaced.drain(mark.replaced..).rev() {
            let entry = &mut self.entries[replaced.at as usize];
            entry.value = replaced.value;
            entry.timestamp = replaced.timestamp;
        }
        for (at, entry) in self.entries.iter().enumerate().skip(mark.entries) {
            let found = self
                .index
                .find_entry(entry.hash, |&other| other as usize == at);
            found.expect("every entry is in the index").remove();
        }
        self.entries.truncate(mark.entries);
        self.bytes.truncate(mark.bytes);
    }

    /// Nothing that was changed so far will be rolled back on its own. No mark is of use any more.
    pub fn settle(&mut self) {
        self.replaced.clear();
    }

    /// What the changes take, those that were replaced too.
    pub fn footprint(&self) -> usize {
        self.bytes.len()
            + self.entries.len() * size_of::<Entry>()
            + self.replaced.len() * size_of::<Replaced>()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the epoch should be closed for the sake of memory.
    pub fn is_full(&self) -> bool {
        self.footprint() >= OVERLAY_BYTES_MAX
    }

    pub fn clear(&mut self) {
        self.index.clear();
        self.entries.clear();
        self.bytes.clear();
        self.replaced.clear();
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
        overlay.put_hashed((MapId(0), 4), b"a", Some(b"1"), 1);
        overlay.put_hashed((MapId(0), 4), b"b", Some(b"2"), 2);
        overlay.put_hashed((MapId(1), 4), b"a", Some(b"other map"), 3);
        overlay.put_hashed((MapId(0), 4), b"a", None, 4);
        overlay.put_hashed((MapId(0), 4), b"b", Some(b""), 5);
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

    fn contents(overlay: &Overlay) -> Vec<(u32, String, Option<String>, i64)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let changes = overlay.changes();
        changes
            .map(|c| (c.partition, text(c.key), c.value.map(text), c.timestamp))
            .collect()
    }

    #[test]
    fn a_key_stands_once_in_each_partition() {
        let mut overlay = Overlay::new(1);
        overlay.put((MapId(0), 0), b"a", Some(b"0"), 1);
        overlay.put((MapId(0), 1), b"a", Some(b"1"), 2);
        overlay.put((MapId(0), 0), b"a", None, 3);
        let expected = [
            (0, "a".into(), None, 3),
            (1, "a".into(), Some("1".into()), 2),
        ];
        assert_eq!(contents(&overlay), expected);
        assert_eq!(overlay.get((MapId(0), 0), b"a"), Some(None));
        assert_eq!(overlay.get((MapId(0), 1), b"a"), Some(Some(&b"1"[..])));
        assert_eq!(overlay.get((MapId(0), 2), b"a"), None);
        assert_eq!(overlay.get((MapId(1), 0), b"a"), None);
    }

    /// Against a model: an overlay that never had what was rolled back.
    #[test]
    fn what_is_rolled_back_was_never_there() {
        let mut random = 12_345_u64;
        let mut draw = |below: u8| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33).to_le_bytes()[0] % below
        };
        for _ in 0..200 {
            let (mut overlay, mut kept) = (Overlay::new(draw(9).into()), Overlay::new(0));
            for round in 0..20 {
                let (mark, stays) = (overlay.mark(), draw(2) == 0);
                for _ in 0..draw(8) {
                    let inner = overlay.mark();
                    let (key, value) = ([b'a' + draw(6)], [b'0' + draw(10)]);
                    let value = (draw(4) > 0).then_some(&value[..]);
                    let place = (MapId(0), draw(2).into());
                    overlay.put(place, &key, value, round);
                    if draw(4) == 0 {
                        overlay.roll_back(inner);
                    } else if stays {
                        kept.put(place, &key, value, round);
                    }
                }
                if !stays {
                    overlay.roll_back(mark);
                }
                overlay.settle();
                assert_eq!(contents(&overlay), contents(&kept));
            }
        }
    }
}
