//! The committed contents of one map partition: the fold of its changelog.
//!
//! Invariant: one allocation an entry, holding key and value; beside it the table keeps 16 bytes for the pointer and one for the
//! hash. Nothing uncommitted ever gets in: who calls [`Committed::put`] read the change committed.

use std::hash::BuildHasher as _;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Where the key ends in an entry's bytes: it starts after a little-endian length.
const KEY: usize = 4;

#[derive(Debug)]
pub struct Committed {
    table: HashTable<Box<[u8]>>,
    /// Of all keys and values.
    bytes: usize,
    hasher: FixedState,
}

impl Committed {
    /// `seed` keeps people who choose keys from choosing ones that collide; it changes nothing that can be seen.
    pub fn new(seed: u64) -> Self {
        Self {
            table: HashTable::new(),
            bytes: 0,
            hasher: FixedState::with_seed(seed),
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let entry = self
            .table
            .find(self.hasher.hash_one(key), |entry| self::key(entry) == key)?;
        Some(value(entry))
    }

    /// Sets or, with no value, removes a key.
    pub fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        let hash = self.hasher.hash_one(key);
        let hasher = &self.hasher;
        let found = self.table.entry(
            hash,
            |entry| self::key(entry) == key,
            |entry| hasher.hash_one(self::key(entry)),
        );
        match (found, value) {
            (Entry::Occupied(mut found), Some(new)) => {
                let entry = found.get_mut();
                let at = KEY + key.len();
                self.bytes = self.bytes + new.len() - (entry.len() - at);
                if entry.len() == at + new.len() {
                    entry[at..].copy_from_slice(new);
                } else {
                    *entry = join(key, new);
                }
            }
            (Entry::Occupied(found), None) => {
                let (entry, _) = found.remove();
                self.bytes -= entry.len() - KEY;
            }
            (Entry::Vacant(place), Some(value)) => {
                place.insert(join(key, value));
                self.bytes += key.len() + value.len();
            }
            (Entry::Vacant(_), None) => {}
        }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn join(key: &[u8], value: &[u8]) -> Box<[u8]> {
    let length = u32::try_from(key.len())
        .expect("Kafka's records, and so their keys, are shorter than 2 GiB");
    let mut entry = Vec::with_capacity(KEY + key.len() + value.len());
    entry.extend_from_slice(&length.to_le_bytes());
    entry.extend_from_slice(key);
    entry.extend_from_slice(value);
    entry.into_boxed_slice()
}

fn split(entry: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = entry
        .split_first_chunk::<KEY>()
        .expect("join() put a length first");
    rest.split_at(u32::from_le_bytes(*length) as usize)
}

fn key(entry: &[u8]) -> &[u8] {
    split(entry).0
}

fn value(entry: &[u8]) -> &[u8] {
    split(entry).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_changes() {
        let mut map = Committed::new(7);
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
