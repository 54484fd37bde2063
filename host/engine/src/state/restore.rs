//! One partition of a map: its committed contents and how far they have been folded.
//!
//! ```text
//!   Restoring { end } ── folded up to the end that the changelog had at assignment ──▶ Live
//! ```
//!
//! Invariants: while `Restoring`, nobody is given an answer: a key that seems absent may stand in the part not yet read. The position
//! never passes a change that the contents don't have.

use std::collections::{BTreeMap, BTreeSet};

use crate::state::budget::{Full, Share};
use crate::state::committed::Committed;
use crate::state::entries::Entries;
use crate::state::freshness::Freshness;
use crate::state::snapshot::Block;

/// Of a partition without entries, roughly: what lies around the contents.
const OVERHEAD: usize = 1024;

#[derive(Debug)]
pub struct MapPartition {
    contents: Committed,
    share: Share,
    /// No two partitions that were ever made have the same. Slots mean something within a life only.
    life: u64,
    /// Changelog offset up to which `contents` is the fold, or ahead of it: that of the next record to read, unless some are in doubt.
    position: i64,
    /// Everything before this offset was read.
    read: i64,
    doubtful: Doubtful,
    phase: Phase,
    live_from: LiveFrom,
    freshness: Freshness,
}

/// Where the changes of a live partition come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveFrom {
    /// Its changelog: sinks of any task, here or elsewhere, write it.
    Changelog,
    /// The task that owns it, and is the only one to change it: changes are merged as they are committed. What is read back is in the
    /// contents already, and only moves the position.
    ///
    /// Unless the task is somebody else's by now, and nobody has noticed yet: a process that was frozen reads what its successor changed,
    /// and should the task come back, is to read it again.
    Task,
}

/// What was read back and is not what the contents have: an own change with a later one behind it, or one that somebody else made.
#[derive(Debug, Default)]
struct Doubtful {
    /// Offset of the first such change of each key.
    keys: BTreeMap<Box<[u8]>, i64>,
    offsets: BTreeSet<i64>,
}

impl Doubtful {
    fn note(&mut self, key: &[u8], offset: i64) {
        if !self.keys.contains_key(key) {
            self.keys.insert(key.into(), offset);
            self.offsets.insert(offset);
        }
    }

    fn settle(&mut self, key: &[u8]) {
        if let Some(offset) = self.keys.remove(key) {
            self.offsets.remove(&offset);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Until the position reaches `end`, the high watermark that the changelog had when the partition was taken.
    Restoring {
        end: i64,
    },
    Live,
}

impl MapPartition {
    /// One without contents yet, to be folded from `start` on.
    pub fn new(
        contents: Committed,
        share: Share,
        life: u64,
        (start, end): (i64, i64),
        live_from: LiveFrom,
    ) -> Self {
        let mut partition = Self {
            contents,
            share,
            life,
            position: start,
            read: start,
            doubtful: Doubtful::default(),
            phase: Phase::Restoring { end },
            live_from,
            freshness: Freshness::default(),
        };
        partition.advance(start);
        partition
    }

    /// The same, for as long as its topic tells of what is removed from now on.
    pub fn with_freshness(mut self, freshness: Freshness) -> Self {
        self.freshness = freshness;
        self
    }

    /// Takes a partition up again that was given away for a while: only what came since has to be folded.
    pub fn resume(&mut self, end: i64) {
        self.phase = Phase::Restoring { end };
        self.doubtful = Doubtful::default();
        self.read = self.position;
        self.advance(self.position);
    }

    /// Folds a committed change. Changes come in the order of their offsets, each once. Nothing is folded where the budget has no
    /// room for it.
    pub fn fold(&mut self, offset: i64, key: &[u8], value: Option<&[u8]>) -> Result<(), Full> {
        assert!(
            offset >= self.position,
            "changelog offset {offset} was folded already: position {}",
            self.position
        );
        if (self.live_from, self.phase) != (LiveFrom::Task, Phase::Live) {
            self.put(key, value)?;
        } else if self.contents.get(key) == value {
            self.doubtful.settle(key);
        } else {
            self.doubtful.note(key, offset);
        }
        self.advance(offset + 1);
        Ok(())
    }

    /// Takes in a change of the task's own that was committed. The position follows once it is read back; until then it lies behind
    /// the contents, and to fold from there once more comes to the same contents.
    pub fn merge(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Full> {
        assert_eq!(
            (self.live_from, self.phase),
            (LiveFrom::Task, Phase::Live),
            "a task changes its own state, and that once it is restored"
        );
        self.put(key, value)
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Full> {
        let needed = self.contents.footprint_with(key, value);
        self.share
            .hold(needed.map_or(usize::MAX / 2, |needed| needed + OVERHEAD))?;
        self.contents.put(key, value);
        Ok(())
    }

    /// Makes room for about so many entries, if there is room. Filling goes well without, only slower.
    pub fn reserve(&mut self, entries: usize) {
        let needed = self.contents.footprint_reserved(entries);
        if self.share.hold(needed + OVERHEAD).is_ok() {
            self.contents.reserve(entries);
        }
    }

    /// Takes in entries of a snapshot. They are no fold yet: the position stays where it is until [`MapPartition::loaded`].
    pub fn load(&mut self, block: &Block<'_>) -> Result<(), Full> {
        let bytes = block
            .iter()
            .map(|(key, value)| Entries::bytes_of(key, value));
        let needed = self.contents.footprint_with_all(block.len(), bytes.sum());
        // Asked for all at once, which is quick, or, where that is too much or not known, for each.
        let all = needed.is_some_and(|needed| self.share.hold(needed + OVERHEAD).is_ok());
        for (key, value) in block.iter() {
            if all {
                self.contents.put(key, Some(value));
            } else {
                self.put(key, Some(value))?;
            }
        }
        Ok(())
    }

    /// All of a snapshot was taken in that was `begun` then, in milliseconds since 1970-01-01 UTC: with everything from `from` on folded on
    /// top, up to `end` at least, it is the fold.
    pub fn loaded(&mut self, from: i64, begun: i64) {
        self.freshness.set(begun);
        self.advance(from);
    }

    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    pub fn freshness_mut(&mut self) -> &mut Freshness {
        &mut self.freshness
    }

    /// Everything before this offset was read, changes in doubt too.
    pub fn read_to(&self) -> i64 {
        self.read
    }

    /// Everything before `position` has been read, transaction markers included.
    pub fn advance(&mut self, position: i64) {
        self.read = self.read.max(position);
        let first = self.doubtful.offsets.first();
        self.position = first.copied().unwrap_or(self.read);
        if let Phase::Restoring { end } = self.phase
            && self.position >= end
        {
            self.phase = Phase::Live;
        }
    }

    pub fn contents(&self) -> &Committed {
        &self.contents
    }

    pub fn life(&self) -> u64 {
        self.life
    }

    pub fn position(&self) -> i64 {
        self.position
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::budget::Budget;

    fn over(limit: usize, start: i64, end: i64) -> MapPartition {
        let contents = Committed::new(1, Arc::default());
        let share = Budget::new(limit, 1).share(0);
        MapPartition::new(contents, share, 1, (start, end), LiveFrom::Changelog)
    }

    #[test]
    fn a_tasks_own_changes_are_taken_in_once() {
        let share = Budget::new(usize::MAX, 1).share(0);
        let contents = Committed::new(1, Arc::default());
        let mut partition = MapPartition::new(contents, share, 1, (0, 1), LiveFrom::Task);
        let check = |partition: &MapPartition, value: &str, position: i64| {
            let found = partition.contents().get(b"a");
            assert_eq!(found, Some(value.as_bytes()));
            assert_eq!(partition.position(), position);
        };
        partition.fold(0, b"a", Some(b"1")).unwrap();
        partition.merge(b"a", Some(b"2")).unwrap();
        partition.merge(b"a", Some(b"3")).unwrap();
        // Read back: the older of the two changes nothing any more, and the position waits for the other one.
        partition.fold(2, b"a", Some(b"2")).unwrap();
        check(&partition, "3", 2);
        partition.fold(3, b"a", Some(b"3")).unwrap();
        check(&partition, "3", 4);
        // Given away and taken up again: what others did, and what was not read back, is folded.
        partition.resume(6);
        partition.fold(4, b"a", Some(b"3")).unwrap();
        partition.fold(5, b"a", Some(b"4")).unwrap();
        check(&partition, "4", 6);
        // Lost, and not noticed yet: what somebody else changes is not in the contents, and is read again should they come back.
        partition.fold(7, b"a", Some(b"5")).unwrap();
        partition.fold(8, b"b", None).unwrap();
        partition.advance(10);
        check(&partition, "4", 7);
        partition.resume(10);
        assert_eq!(partition.phase(), Phase::Restoring { end: 10 });
        partition.fold(7, b"a", Some(b"5")).unwrap();
        partition.advance(10);
        check(&partition, "5", 10);
    }

    #[test]
    fn is_live_once_the_end_is_reached() {
        let mut partition = over(usize::MAX, 3, 6);
        partition.fold(3, b"a", Some(b"1")).unwrap();
        assert_eq!(partition.phase(), Phase::Restoring { end: 6 });
        // Offset 5 is a transaction marker: no record of that offset ever comes.
        partition.fold(4, b"b", Some(b"2")).unwrap();
        assert_eq!(partition.phase(), Phase::Restoring { end: 6 });
        partition.advance(6);
        assert_eq!((partition.phase(), partition.position()), (Phase::Live, 6));
        partition.resume(6);
        assert_eq!(partition.phase(), Phase::Live);
        partition.resume(9);
        assert_eq!(partition.phase(), Phase::Restoring { end: 9 });
        assert_eq!(over(0, 0, 0).phase(), Phase::Live);
    }

    #[test]
    fn what_does_not_fit_is_not_folded() {
        let mut partition = over(1 << 20, 0, 1000);
        let value = [0; 10_000];
        let fits = (0..).take_while(|at: &i64| {
            let fold = partition.fold(*at, &at.to_le_bytes(), Some(&value));
            fold.is_ok()
        });
        let fits = fits.count();
        assert!((90..105).contains(&fits), "{fits}");
        assert_eq!(partition.contents().len(), fits);
        assert!(partition.contents().footprint() <= 1 << 20);
        let position = partition.position();
        assert_eq!(usize::try_from(position), Ok(fits));
        partition
            .fold(position, &0_i64.to_le_bytes(), None)
            .unwrap();
        partition.fold(position + 1, b"small", Some(b"")).unwrap();
    }
}
