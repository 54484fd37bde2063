//! One index of a map partition: the scalars that stand at a pointer in the values, in their order, each with the slots of the
//! entries that have it.
//!
//! An index proposes, the value decides: long texts are cut and close numbers share a code, so who takes slots from here tests their
//! values again. Invariant: a slot stands under its value's code and nowhere else; a value without a scalar there stands nowhere.

use std::ops::Bound;

use roaring::RoaringBitmap;

use super::entries::SLOTS_MAX;
use super::sorted::{Keys, Sorted, Texts};
use crate::json::{Number, Pointer, Scalar};

/// Bytes of a text that an index keeps.
const TEXT_BYTES_MAX: usize = 256;

/// Sets of more slots than this are compressed; once they have half of it, they aren't any more.
const PLAIN_MAX: usize = 256;

#[derive(Debug)]
pub struct Index {
    pointer: Pointer,
    /// Postings of null, false, true and numbers, by [`code`].
    plain: Sorted<Vec<u64>>,
    texts: Sorted<Texts>,
    sets: Sets,
    slots: usize,
}

/// The slots of one scalar in four bytes: a slot, or with the last bit set the number of a set. Most of the scalars of a map with
/// many have one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Postings(u32);

const SET: u32 = SLOTS_MAX;

#[derive(Debug, Default)]
struct Sets {
    sets: Vec<Set>,
    free: Vec<u32>,
    /// In plain and in compressed sets, for the accounts.
    plain_slots: usize,
    compressed_slots: usize,
    compressed: usize,
}

#[derive(Debug)]
enum Set {
    /// Ascending.
    Plain(Vec<u32>),
    Compressed(RoaringBitmap),
}

/// Scalars between two bounds, of one kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Range {
    Plain(u64, u64),
    Texts(Bound<Box<[u8]>>, Bound<Box<[u8]>>),
}

/// Slots that an index proposes, ascending.
#[derive(Debug, PartialEq, Eq)]
pub struct Proposed {
    pub slots: Vec<u32>,
    /// There are more above the last one.
    pub more: bool,
}

impl Index {
    pub fn new(pointer: Pointer) -> Self {
        Self {
            pointer,
            plain: Sorted::default(),
            texts: Sorted::default(),
            sets: Sets::default(),
            slots: 0,
        }
    }

    pub fn pointer(&self) -> &Pointer {
        &self.pointer
    }

    /// How many different scalars it holds.
    pub fn scalars(&self) -> usize {
        self.plain.len() + self.texts.len()
    }

    /// How many entries have a scalar at the pointer.
    pub fn entries(&self) -> usize {
        self.slots
    }

    pub fn insert(&mut self, scalar: &Scalar<'_>, slot: u32) {
        self.slots += 1;
        if let Scalar::Text(text) = scalar {
            insert(&mut self.texts, &mut self.sets, cut(text), slot);
        } else {
            insert(&mut self.plain, &mut self.sets, &code(scalar), slot);
        }
    }

    /// Takes out a slot that was inserted under this scalar.
    pub fn remove(&mut self, scalar: &Scalar<'_>, slot: u32) {
        self.slots -= 1;
        if let Scalar::Text(text) = scalar {
            remove(&mut self.texts, &mut self.sets, cut(text), slot);
        } else {
            remove(&mut self.plain, &mut self.sets, &code(scalar), slot);
        }
    }

    /// How many slots stand in a range; none if that are more than `scalars_max` scalars.
    pub fn count(&self, range: &Range, scalars_max: usize) -> Option<usize> {
        let mut count = 0;
        for (at, postings) in self.postings(range).enumerate() {
            if at == scalars_max {
                return None;
            }
            count += self.sets.len(postings);
        }
        Some(count)
    }

    /// The first `wanted` slots of a range from a slot on. None if more than `gathered_max` had to be gathered for that.
    pub fn propose(
        &self,
        range: &Range,
        from: u32,
        wanted: usize,
        gathered_max: usize,
    ) -> Option<Proposed> {
        let mut slots = Vec::new();
        let mut more = false;
        for postings in self.postings(range) {
            // What a set has beyond its first `wanted` can't be among the first `wanted` of all.
            more |= self.sets.first(postings, from, wanted, &mut slots);
            if slots.len() > gathered_max {
                return None;
            }
        }
        if slots.len() > wanted {
            slots.select_nth_unstable(wanted);
            slots.truncate(wanted);
            more = true;
        }
        slots.sort_unstable();
        Some(Proposed { slots, more })
    }

    fn postings<'s>(&'s self, range: &'s Range) -> Box<dyn Iterator<Item = Postings> + 's> {
        match range {
            Range::Plain(from, to) => {
                let found = self.plain.range(Bound::Included(from), Bound::Included(to));
                Box::new(found.map(Postings))
            }
            Range::Texts(from, to) => {
                let bound = |bound: &'s Bound<Box<[u8]>>| bound.as_ref().map(|text| &**text);
                Box::new(self.texts.range(bound(from), bound(to)).map(Postings))
            }
        }
    }

    /// What it takes in memory: an estimate from counts, kept honest by the measure of `cargo xtask bench-maps`.
    ///
    /// `end`: one past the last slot of the partition.
    pub fn footprint(&self, end: u32) -> usize {
        self.plain.footprint() + self.texts.footprint() + self.sets.footprint(end)
    }
}

impl Range {
    /// All that equal it.
    pub fn equal(scalar: &Scalar<'_>) -> Self {
        match scalar {
            Scalar::Text(text) => {
                let text = cut(text);
                Self::Texts(Bound::Included(text.into()), Bound::Included(text.into()))
            }
            _ => Self::Plain(code(scalar), code(scalar)),
        }
    }

    /// All of its kind that are not above it; none for kinds without an order.
    pub fn up_to(scalar: &Scalar<'_>) -> Option<Self> {
        match scalar {
            Scalar::Text(text) => Some(Self::Texts(
                Bound::Unbounded,
                Bound::Included(cut(text).into()),
            )),
            Scalar::Number(number) => Some(Self::Plain(Number::LEAST, number.code())),
            Scalar::Null | Scalar::Bool(_) => None,
        }
    }

    /// All of its kind that are not below it; none for kinds without an order.
    pub fn down_to(scalar: &Scalar<'_>) -> Option<Self> {
        match scalar {
            Scalar::Text(text) => Some(Self::Texts(
                Bound::Included(cut(text).into()),
                Bound::Unbounded,
            )),
            Scalar::Number(number) => Some(Self::Plain(number.code(), u64::MAX)),
            Scalar::Null | Scalar::Bool(_) => None,
        }
    }

    /// What is in both.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Plain(from, to), Self::Plain(other_from, other_to)) => {
                Self::Plain(from.max(other_from), to.min(other_to))
            }
            (Self::Texts(from, to), Self::Texts(other_from, other_to)) => Self::Texts(
                tighter(from, other_from, true),
                tighter(to, other_to, false),
            ),
            // A scalar is of one kind.
            (Self::Plain(..), Self::Texts(..)) | (Self::Texts(..), Self::Plain(..)) => {
                Self::Plain(1, 0)
            }
        }
    }
}

fn tighter(this: Bound<Box<[u8]>>, other: Bound<Box<[u8]>>, greater: bool) -> Bound<Box<[u8]>> {
    match (this, other) {
        (Bound::Unbounded, only) | (only, Bound::Unbounded) => only,
        (Bound::Included(this), Bound::Included(other) | Bound::Excluded(other))
        | (Bound::Excluded(this), Bound::Included(other) | Bound::Excluded(other)) => {
            Bound::Included(if (this > other) == greater {
                this
            } else {
                other
            })
        }
    }
}

fn insert<K: Keys>(scalars: &mut Sorted<K>, sets: &mut Sets, scalar: &K::Key, slot: u32) {
    match scalars.get_mut(scalar) {
        Some(postings) => *postings = sets.insert(Postings(*postings), slot).0,
        None => scalars.insert(scalar, slot),
    }
}

fn remove<K: Keys>(scalars: &mut Sorted<K>, sets: &mut Sets, scalar: &K::Key, slot: u32) {
    let postings = scalars.get_mut(scalar);
    let postings = postings.expect("what is removed was inserted");
    match sets.remove(Postings(*postings), slot) {
        Some(left) => *postings = left.0,
        None => scalars.remove(scalar),
    }
}

/// Null, false and true come before all numbers.
fn code(scalar: &Scalar<'_>) -> u64 {
    match scalar {
        Scalar::Null => 0,
        Scalar::Bool(truth) => 1 + u64::from(*truth),
        Scalar::Number(number) => number.code(),
        Scalar::Text(_) => unreachable!("callers keep texts apart"),
    }
}

/// The order of what is cut is that of the texts, or they are equal: so it must be at the same length for all, be it within a letter.
fn cut(text: &str) -> &[u8] {
    &text.as_bytes()[..text.len().min(TEXT_BYTES_MAX)]
}

impl Sets {
    fn insert(&mut self, postings: Postings, slot: u32) -> Postings {
        let Some(at) = postings.set() else {
            let (low, high) = (postings.0.min(slot), postings.0.max(slot));
            return self.add(Set::Plain(vec![low, high]));
        };
        match &mut self.sets[at] {
            Set::Plain(slots) => {
                let place = slots.partition_point(|&other| other < slot);
                slots.insert(place, slot);
                self.plain_slots += 1;
                if slots.len() > PLAIN_MAX {
                    let set = RoaringBitmap::from_sorted_iter(slots.iter().copied());
                    let set = set.expect("a plain set ascends");
                    self.plain_slots -= slots.len();
                    self.compressed_slots += slots.len();
                    self.compressed += 1;
                    self.sets[at] = Set::Compressed(set);
                }
            }
            Set::Compressed(slots) => {
                slots.insert(slot);
                self.compressed_slots += 1;
            }
        }
        postings
    }

    /// What is left.
    fn remove(&mut self, postings: Postings, slot: u32) -> Option<Postings> {
        let at = postings.set()?;
        match &mut self.sets[at] {
            Set::Plain(slots) => {
                let place = slots.binary_search(&slot);
                slots.remove(place.expect("what is removed was inserted"));
                self.plain_slots -= 1;
                if let [last] = slots[..] {
                    self.plain_slots -= 1;
                    self.sets[at] = Set::Plain(Vec::new());
                    self.free.push(postings.0 & !SET);
                    return Some(Postings(last));
                }
            }
            Set::Compressed(slots) => {
                slots.remove(slot);
                self.compressed_slots -= 1;
                if self.len(postings) <= PLAIN_MAX / 2 {
                    let Set::Compressed(slots) = &self.sets[at] else {
                        unreachable!("it was one a line ago");
                    };
                    let slots: Vec<u32> = slots.iter().collect();
                    self.compressed_slots -= slots.len();
                    self.plain_slots += slots.len();
                    self.compressed -= 1;
                    self.sets[at] = Set::Plain(slots);
                }
            }
        }
        Some(postings)
    }

    fn add(&mut self, set: Set) -> Postings {
        self.plain_slots += 2;
        if let Some(at) = self.free.pop() {
            self.sets[at as usize] = set;
            return Postings(at | SET);
        }
        let at = u32::try_from(self.sets.len()).expect("a set has two slots or more");
        self.sets.push(set);
        Postings(at | SET)
    }

    fn len(&self, postings: Postings) -> usize {
        match postings.set().map(|at| &self.sets[at]) {
            None => 1,
            Some(Set::Plain(slots)) => slots.len(),
            Some(Set::Compressed(slots)) => {
                usize::try_from(slots.len()).expect("there are fewer slots than 2^32")
            }
        }
    }

    /// Adds the first `wanted` slots from `from` on; says whether there are more.
    fn first(&self, postings: Postings, from: u32, wanted: usize, gathered: &mut Vec<u32>) -> bool {
        match postings.set().map(|at| &self.sets[at]) {
            None => {
                if postings.0 >= from {
                    gathered.push(postings.0);
                }
                false
            }
            Some(Set::Plain(slots)) => {
                let rest = &slots[slots.partition_point(|&slot| slot < from)..];
                gathered.extend_from_slice(&rest[..rest.len().min(wanted)]);
                rest.len() > wanted
            }
            Some(Set::Compressed(slots)) => {
                let mut rest = slots.iter();
                rest.advance_to(from);
                gathered.extend(rest.by_ref().take(wanted));
                rest.next().is_some()
            }
        }
    }

    /// A compressed set has a container for each 65,536 slots in which it has any: up to 8 KiB of bits, or two bytes a slot in a
    /// vector with room to grow.
    fn footprint(&self, end: u32) -> usize {
        let containers = self.compressed * (1 + end as usize / 65_536);
        let compressed = (3 * self.compressed_slots).min(containers * 8192) + containers * 48;
        self.sets.capacity() * size_of::<Set>()
            + self.free.capacity() * size_of::<u32>()
            + 8 * self.plain_slots
            + compressed
    }
}

impl Postings {
    /// The number of its set, where it is one.
    fn set(self) -> Option<usize> {
        (self.0 & SET != 0).then_some((self.0 & !SET) as usize)
    }
}
