//! For how long a fold may be read on. A compacted topic tells of a removed key for its `delete.retention.ms` only: who reads on later,
//! having slept or been cut off, keeps what is long gone.
//!
//! Invariant: a fold counts as fresh at a time only where it has everything that its topic had then.

use std::time::Duration;

use crate::state::snapshot::age_max;

/// Parts of the age at which a fold can't be read on any more: from the first one on it is to be proven fresh again, and until the second
/// one it may stand in a snapshot, whose own age comes on top.
const UNPROVEN: u32 = 8;
const SHELVED: u32 = 4;

#[derive(Clone, Copy, Debug, Default)]
pub struct Freshness {
    /// When the fold last had everything, or was begun from the topic's start; in milliseconds since 1970-01-01 UTC.
    at: i64,
    /// None where the fold can be read on for ever.
    age_max: Option<Duration>,
}

impl Freshness {
    /// `retention` is the topic's `delete.retention.ms`; none where removals stay for as long as what they remove.
    pub fn new(at: i64, retention: Option<Duration>) -> Self {
        Self {
            at,
            age_max: retention.map(age_max),
        }
    }

    /// Everything that its topic had then has been read.
    pub fn prove(&mut self, at: i64) {
        self.at = self.at.max(at);
    }

    /// So many milliseconds were spent reading on.
    pub fn spare(&mut self, millis: i64) {
        self.at = self.at.saturating_add(millis.max(0));
    }

    /// A clock that was set back had proven too much.
    pub fn not_after(&mut self, now: i64) {
        self.at = self.at.min(now);
    }

    /// What it was filled with had everything that its topic had then.
    pub fn set(&mut self, at: i64) {
        self.at = at;
    }

    /// Whether what was removed meanwhile may be missing from the topic: it is to be folded anew.
    pub fn is_over(&self, now: i64) -> bool {
        self.is_older(now, 1)
    }

    /// Whether that is so for whoever has read nothing for so long, in milliseconds, how much ever was read before.
    pub fn ends_within(&self, millis: i64) -> bool {
        Self { at: 0, ..*self }.is_over(millis)
    }

    /// Whether it is time to look whether the fold has everything.
    pub fn is_unproven(&self, now: i64) -> bool {
        self.is_older(now, UNPROVEN)
    }

    /// Whether a snapshot of it is as good as its own age says.
    pub fn can_be_kept(&self, now: i64) -> bool {
        !self.is_older(now, SHELVED)
    }

    fn is_older(&self, now: i64, part: u32) -> bool {
        let age = u64::try_from(now.saturating_sub(self.at)).unwrap_or(0);
        let most = self.age_max.map(|most| most / part);
        most.is_some_and(|most| Duration::from_millis(age) >= most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn ages_with_what_the_topic_forgets() {
        let day = Duration::from_secs(24 * 3600);
        let mut fold = Freshness::new(HOUR, Some(day));
        let at = |fold: &Freshness, hours: i64| {
            let now = hours * HOUR;
            (
                fold.is_unproven(now),
                fold.can_be_kept(now),
                fold.is_over(now),
            )
        };
        assert_eq!(at(&fold, 0), (false, true, false), "the clock was set back");
        assert_eq!(at(&fold, 3), (false, true, false));
        assert_eq!(at(&fold, 4), (true, true, false));
        assert_eq!(at(&fold, 6), (true, false, false));
        assert_eq!(at(&fold, 18), (true, false, false));
        assert_eq!(at(&fold, 19), (true, false, true));
        fold.prove(10 * HOUR);
        fold.prove(5 * HOUR);
        assert_eq!(at(&fold, 19), (true, false, false));
        assert_eq!(at(&fold, 28), (true, false, true));
        assert!(fold.ends_within(18 * HOUR) && !fold.ends_within(17 * HOUR));
        fold.not_after(40 * HOUR);
        assert_eq!(at(&fold, 28), (true, false, true));
        fold.not_after(8 * HOUR);
        assert_eq!(at(&fold, 26), (true, false, true));
        fold.set(HOUR);
        fold.spare(2 * HOUR);
        assert_eq!(at(&fold, 21), (true, false, true));
        let endless = Freshness::new(0, None);
        assert_eq!(at(&endless, 10_000), (false, true, false));
    }
}
