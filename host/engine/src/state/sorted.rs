//! An ordered map from scalars to four bytes, in little memory: leaves of a few hundred keys in a row, and a list of the leaves.
//!
//! A B-tree of the standard library has room for eleven keys in a node and leaves a third of it empty; this takes the keys' own bytes
//! and little more. Invariants: keys ascend, within a leaf and from leaf to leaf; no leaf is empty.

use std::ops::Bound;

/// A leaf that has more keys than this, or more bytes of them, is halved.
const KEYS_MAX: usize = 256;
const BYTES_MAX: usize = 8192;

/// Room is made for so many more keys at once: doubling would leave a quarter of all of it empty.
const ROOM: usize = 32;

/// Keys in a row.
pub trait Keys: Default {
    type Key: Ord + ?Sized;

    fn len(&self) -> usize;
    fn key(&self, at: usize) -> &Self::Key;
    fn insert(&mut self, at: usize, key: &Self::Key);
    fn remove(&mut self, at: usize);
    /// Those from `at` on.
    fn split_off(&mut self, at: usize) -> Self;
    /// Bytes of the keys.
    fn bytes(&self) -> usize;
    /// Bytes of what is allocated.
    fn footprint(&self) -> usize;
}

#[derive(Debug, Default)]
pub struct Sorted<K> {
    leaves: Vec<Leaf<K>>,
    len: usize,
    /// What the leaves have allocated.
    allocated: usize,
}

#[derive(Debug, Default)]
struct Leaf<K> {
    keys: K,
    values: Vec<u32>,
}

impl<K: Keys> Sorted<K> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn get_mut(&mut self, key: &K::Key) -> Option<&mut u32> {
        let (leaf, at) = self.find(key);
        let leaf = self.leaves.get_mut(leaf)?;
        let found = at < leaf.keys.len() && leaf.keys.key(at) == key;
        found.then(|| &mut leaf.values[at])
    }

    /// Adds a key that is not there.
    pub fn insert(&mut self, key: &K::Key, value: u32) {
        let (at_leaf, at) = self.find(key);
        if self.leaves.is_empty() {
            self.leaves.push(Leaf::default());
        }
        self.len += 1;
        let leaf = &mut self.leaves[at_leaf];
        self.allocated -= leaf.footprint();
        leaf.keys.insert(at, key);
        make_room(&mut leaf.values);
        leaf.values.insert(at, value);
        let upper = leaf.is_too_large().then(|| leaf.halve(at));
        self.allocated += leaf.footprint();
        if let Some(upper) = upper {
            self.allocated += upper.footprint();
            self.leaves.insert(at_leaf + 1, upper);
        }
    }

    /// Takes out a key that is there.
    pub fn remove(&mut self, key: &K::Key) {
        let (at_leaf, at) = self.find(key);
        let leaf = &mut self.leaves[at_leaf];
        assert!(leaf.keys.key(at) == key, "what is removed was inserted");
        self.len -= 1;
        self.allocated -= leaf.footprint();
        leaf.keys.remove(at);
        leaf.values.remove(at);
        if leaf.values.is_empty() {
            self.leaves.remove(at_leaf);
        } else {
            self.allocated += leaf.footprint();
        }
    }

    /// Values of the keys between two bounds, in the order of the keys.
    pub fn range<'s>(
        &'s self,
        from: Bound<&K::Key>,
        to: Bound<&'s K::Key>,
    ) -> impl Iterator<Item = u32> + 's {
        let (leaf, mut at) = match from {
            Bound::Unbounded => (0, 0),
            Bound::Included(key) | Bound::Excluded(key) => self.find(key),
        };
        if let (Bound::Excluded(key), Some(leaf)) = (from, self.leaves.get(leaf))
            && at < leaf.keys.len()
            && leaf.keys.key(at) == key
        {
            at += 1;
        }
        let rest = self.leaves.iter().skip(leaf).flat_map(move |leaf| {
            let first = std::mem::take(&mut at);
            (first..leaf.values.len()).map(move |at| (leaf.keys.key(at), leaf.values[at]))
        });
        let within = move |(key, _): &(&K::Key, u32)| match to {
            Bound::Unbounded => true,
            Bound::Included(to) => *key <= to,
            Bound::Excluded(to) => *key < to,
        };
        rest.take_while(within).map(|(_, value)| value)
    }

    /// What it takes in memory.
    pub fn footprint(&self) -> usize {
        self.allocated + self.leaves.capacity() * size_of::<Leaf<K>>()
    }

    /// The leaf and the place in it where a key is, or would be.
    fn find(&self, key: &K::Key) -> (usize, usize) {
        let after = self.leaves.partition_point(|leaf| leaf.keys.key(0) <= key);
        let at_leaf = after.saturating_sub(1);
        let Some(leaf) = self.leaves.get(at_leaf) else {
            return (0, 0);
        };
        let (mut from, mut to) = (0, leaf.keys.len());
        while from < to {
            let middle = usize::midpoint(from, to);
            if leaf.keys.key(middle) < key {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        (at_leaf, from)
    }
}

impl<K: Keys> Leaf<K> {
    fn is_too_large(&self) -> bool {
        let keys = self.keys.len();
        keys > KEYS_MAX || (self.keys.bytes() > BYTES_MAX && keys > 1)
    }

    /// Gives away its upper half, or, where the last key was the last to come, that one alone: what only ever grows at its end fills
    /// its leaves.
    fn halve(&mut self, came: usize) -> Self {
        let keys = self.keys.len();
        let half = if came + 1 == keys { came } else { keys / 2 };
        let upper = Self {
            keys: self.keys.split_off(half),
            values: self.values.split_off(half),
        };
        self.values.shrink_to_fit();
        upper
    }

    fn footprint(&self) -> usize {
        self.keys.footprint() + self.values.capacity() * size_of::<u32>()
    }
}

impl Keys for Vec<u64> {
    type Key = u64;

    fn len(&self) -> usize {
        self.len()
    }

    fn key(&self, at: usize) -> &u64 {
        &self[at]
    }

    fn insert(&mut self, at: usize, key: &u64) {
        make_room(self);
        self.insert(at, *key);
    }

    fn remove(&mut self, at: usize) {
        self.remove(at);
    }

    fn split_off(&mut self, at: usize) -> Self {
        let upper = self.split_off(at);
        self.shrink_to_fit();
        upper
    }

    fn bytes(&self) -> usize {
        size_of_val(self.as_slice())
    }

    fn footprint(&self) -> usize {
        self.capacity() * size_of::<u64>()
    }
}

/// Texts as bytes, one behind the other.
#[derive(Debug, Default)]
pub struct Texts {
    text: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<u16>,
}

impl Texts {
    fn start(&self, at: usize) -> usize {
        at.checked_sub(1)
            .map_or(0, |before| usize::from(self.ends[before]))
    }

    fn end(&self, at: usize) -> usize {
        usize::from(self.ends[at])
    }
}

/// The end of a text in a leaf.
fn short(end: usize) -> u16 {
    u16::try_from(end).expect("a leaf has 8 KiB and a text, and texts are cut at 256 bytes")
}

impl Keys for Texts {
    type Key = [u8];

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn key(&self, at: usize) -> &[u8] {
        &self.text[self.start(at)..self.end(at)]
    }

    fn insert(&mut self, at: usize, key: &[u8]) {
        let start = self.start(at);
        let wanted = self.text.len() + key.len();
        if wanted > self.text.capacity() {
            self.text
                .reserve_exact(wanted + wanted / 8 - self.text.len());
        }
        self.text.splice(start..start, key.iter().copied());
        make_room(&mut self.ends);
        self.ends.insert(at, short(start));
        for end in &mut self.ends[at..] {
            *end = short(usize::from(*end) + key.len());
        }
    }

    fn remove(&mut self, at: usize) {
        let range = self.start(at)..self.end(at);
        let length = range.len();
        self.text.drain(range);
        self.ends.remove(at);
        for end in &mut self.ends[at..] {
            *end = short(usize::from(*end) - length);
        }
    }

    fn split_off(&mut self, at: usize) -> Self {
        let start = self.start(at);
        let mut ends = self.ends.split_off(at);
        for end in &mut ends {
            *end = short(usize::from(*end) - start);
        }
        let text = self.text.split_off(start);
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
        Self { text, ends }
    }

    fn bytes(&self) -> usize {
        self.text.len()
    }

    fn footprint(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<u16>()
    }
}

fn make_room<T>(row: &mut Vec<T>) {
    if row.len() == row.capacity() {
        row.reserve_exact(ROOM);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Does the same to a B-tree, and compares. Keys come from `key`, so many different ones.
    fn check<K: Keys>(different: u64, key: impl Fn(u64) -> Box<K::Key>)
    where
        Box<K::Key>: Ord,
        K::Key: std::fmt::Debug,
    {
        let (mut sorted, mut model) = (Sorted::<K>::default(), BTreeMap::new());
        let mut random: u64 = 1;
        for turn in 0..40_000_u32 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let drawn = key((random >> 33) % different);
            // It grows, shrinks to nothing, and grows again.
            let grows = turn % 20_000 < 12_000;
            match (sorted.get_mut(&drawn), grows) {
                (Some(value), true) => *value = turn,
                (None, true) => sorted.insert(&drawn, turn),
                (Some(_), false) => sorted.remove(&drawn),
                (None, false) => {}
            }
            if grows {
                model.insert(drawn, turn);
            } else {
                model.remove(&drawn);
            }
            assert_eq!(sorted.len(), model.len());
            if turn.is_multiple_of(997) {
                compare(&sorted, &model, &key(different / 3), &key(different / 2));
            }
        }
        while let Some((key, _)) = model.pop_first() {
            sorted.remove(&key);
        }
        assert_eq!((sorted.len(), sorted.allocated), (0, 0));
    }

    fn compare<K: Keys>(
        sorted: &Sorted<K>,
        model: &BTreeMap<Box<K::Key>, u32>,
        one: &K::Key,
        other: &K::Key,
    ) where
        Box<K::Key>: Ord,
        K::Key: std::fmt::Debug,
    {
        let allocated: usize = sorted.leaves.iter().map(Leaf::footprint).sum();
        assert_eq!(sorted.allocated, allocated);
        let (low, high) = (one.min(other), one.max(other));
        let bounds = [
            (Bound::Unbounded, Bound::Unbounded),
            (Bound::Included(low), Bound::Included(high)),
            (Bound::Excluded(low), Bound::Excluded(high)),
            (Bound::Unbounded, Bound::Included(low)),
            (Bound::Excluded(high), Bound::Unbounded),
        ];
        for (from, to) in bounds {
            let found: Vec<u32> = sorted.range(from, to).collect();
            let inside = |key: &K::Key| {
                (match from {
                    Bound::Unbounded => true,
                    Bound::Included(from) => key >= from,
                    Bound::Excluded(from) => key > from,
                }) && (match to {
                    Bound::Unbounded => true,
                    Bound::Included(to) => key <= to,
                    Bound::Excluded(to) => key < to,
                })
            };
            let expected = model.iter().filter(|(key, _)| inside(key));
            let expected: Vec<u32> = expected.map(|(_, value)| *value).collect();
            assert_eq!(found, expected, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn numbers_are_as_in_a_b_tree() {
        check::<Vec<u64>>(5_000, |drawn| Box::new(drawn * 3));
        check::<Vec<u64>>(100, Box::new);
    }

    fn bytes(text: String) -> Box<[u8]> {
        text.into_bytes().into()
    }

    #[test]
    fn texts_are_as_in_a_b_tree() {
        check::<Texts>(5_000, |drawn| bytes(format!("user-{drawn}")));
        check::<Texts>(3_000, |drawn| {
            let length = usize::try_from(drawn % 250).expect("it is small");
            bytes(format!("{}{drawn}ü", "x".repeat(length)))
        });
        check::<Texts>(2, |drawn| {
            bytes(["", "only"][usize::from(drawn > 0)].into())
        });
    }

    #[test]
    fn what_grows_at_its_end_fills_its_leaves() {
        let mut sorted = Sorted::<Vec<u64>>::default();
        (0..10_000).for_each(|key| sorted.insert(&key, 0));
        assert_eq!(sorted.leaves.len(), 10_000_usize.div_ceil(KEYS_MAX));
        assert!(sorted.footprint() < 10_000 * 14, "{}", sorted.footprint());
    }
}
