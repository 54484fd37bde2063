//! One partition of a map: its committed contents and how far they have been folded.
//!
//! ```text
//!   Restoring { end } ── folded up to the end that the changelog had at assignment ──▶ Live
//! ```
//!
//! Invariant: while `Restoring`, nobody is given an answer: a key that seems absent may stand in the part not yet read.

use crate::state::committed::Committed;

#[derive(Debug)]
pub struct MapPartition {
    contents: Committed,
    /// Changelog offset up to which `contents` is the fold: that of the next record to read.
    position: i64,
    phase: Phase,
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
    /// An empty one, to be folded from `start` on.
    pub fn new(seed: u64, start: i64, end: i64) -> Self {
        let mut partition = Self {
            contents: Committed::new(seed),
            position: start,
            phase: Phase::Restoring { end },
        };
        partition.advance(start);
        partition
    }

    /// Takes a partition up again that was given away for a while: only what came since has to be folded.
    pub fn resume(&mut self, end: i64) {
        self.phase = Phase::Restoring { end };
        self.advance(self.position);
    }

    /// Folds a committed change. Changes come in the order of their offsets, each once.
    pub fn fold(&mut self, offset: i64, key: &[u8], value: Option<&[u8]>) {
        assert!(
            offset >= self.position,
            "changelog offset {offset} was folded already: position {}",
            self.position
        );
        self.contents.put(key, value);
        self.advance(offset + 1);
    }

    /// Everything before `position` has been read, transaction markers included.
    pub fn advance(&mut self, position: i64) {
        self.position = self.position.max(position);
        if let Phase::Restoring { end } = self.phase
            && self.position >= end
        {
            self.phase = Phase::Live;
        }
    }

    pub fn contents(&self) -> &Committed {
        &self.contents
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
    use super::*;

    #[test]
    fn is_live_once_the_end_is_reached() {
        let mut partition = MapPartition::new(1, 3, 6);
        partition.fold(3, b"a", Some(b"1"));
        assert_eq!(partition.phase(), Phase::Restoring { end: 6 });
        // Offset 5 is a transaction marker: no record of that offset ever comes.
        partition.fold(4, b"b", Some(b"2"));
        partition.advance(6);
        assert_eq!((partition.phase(), partition.position()), (Phase::Live, 6));
        partition.resume(6);
        assert_eq!(partition.phase(), Phase::Live);
        partition.resume(9);
        assert_eq!(partition.phase(), Phase::Restoring { end: 9 });
        assert_eq!(MapPartition::new(1, 0, 0).phase(), Phase::Live);
    }
}
