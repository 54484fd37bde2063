//! How much memory the maps of a process may take, all together. Partitions ask before they grow; one that is refused must not grow.
//!
//! Invariant: what all shares hold is never more than the limit, whoever asks at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Shares grow and shrink by this much, so that not every change asks.
const STEP: usize = 16 << 10;
/// What a share keeps for growing again.
const SPARE: usize = 256 << 10;

#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    /// By map.
    maps: Vec<AtomicUsize>,
}

/// Of one map partition. What it holds goes back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    map: usize,
    held: usize,
}

/// There is no room for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// What the map would take in this process, in bytes.
    pub map: usize,
    /// What all maps would take.
    pub all: usize,
    pub limit: usize,
}

impl Budget {
    pub fn new(limit: usize, maps: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
            maps: (0..maps).map(|_| AtomicUsize::new(0)).collect(),
        })
    }

    /// For a partition of a map, by its number in the pipeline.
    pub fn share(self: &Arc<Self>, map: usize) -> Share {
        Share {
            budget: Arc::clone(self),
            map,
            held: 0,
        }
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Share {
    /// Makes sure that so many bytes are held, in all.
    pub fn hold(&mut self, bytes: usize) -> Result<(), Full> {
        if bytes > self.held {
            return self.grow(bytes.next_multiple_of(STEP) - self.held);
        }
        if self.held - bytes > SPARE {
            self.shrink(self.held - bytes.next_multiple_of(STEP));
        }
        Ok(())
    }

    fn grow(&mut self, more: usize) -> Result<(), Full> {
        let budget = &self.budget;
        let all = budget.used.fetch_add(more, Ordering::Relaxed) + more;
        if all > budget.limit {
            budget.used.fetch_sub(more, Ordering::Relaxed);
            return Err(Full {
                map: budget.maps[self.map].load(Ordering::Relaxed) + more,
                all,
                limit: budget.limit,
            });
        }
        budget.maps[self.map].fetch_add(more, Ordering::Relaxed);
        self.held += more;
        Ok(())
    }

    fn shrink(&mut self, less: usize) {
        self.budget.used.fetch_sub(less, Ordering::Relaxed);
        self.budget.maps[self.map].fetch_sub(less, Ordering::Relaxed);
        self.held -= less;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_hold_more_than_the_limit() {
        let budget = Budget::new(100 * STEP, 2);
        let (mut first, mut second) = (budget.share(0), budget.share(1));
        assert_eq!(first.hold(60 * STEP - 5), Ok(()));
        assert_eq!(budget.used(), 60 * STEP);
        let full = Full {
            map: 41 * STEP,
            all: 101 * STEP,
            limit: 100 * STEP,
        };
        assert_eq!(second.hold(40 * STEP + 1), Err(full));
        assert_eq!(second.hold(40 * STEP), Ok(()));
        assert_eq!(first.hold(60 * STEP), Ok(()));
        assert!(first.hold(60 * STEP + 1).is_err());
        assert_eq!(first.hold(STEP), Ok(()));
        assert_eq!(budget.used(), 41 * STEP);
        drop(first);
        assert_eq!(
            (budget.used(), second.hold(100 * STEP)),
            (40 * STEP, Ok(()))
        );
    }
}
