//! How many records a batch may have: fewer after an epoch that failed calls took too long for, more again as batches pass.
//!
//! A plugin that fails on every record costs two calls a record, each up to a deadline. A transaction has a time-out; an epoch that passes it is
//! aborted and comes again, and would pass it again. Invariant: from any course of failures there is a way to a batch of one record, which
//! is run to its end however long it takes.

use super::input::BATCH_RECORDS_MAX;

/// What a batch is divided by that took too long.
const SHRINK: usize = 8;

/// What it is multiplied by once one passed without a failed call.
const GROW: usize = 2;

#[derive(Clone, Copy, Debug)]
pub struct Stride(usize);

impl Default for Stride {
    fn default() -> Self {
        Self(BATCH_RECORDS_MAX)
    }
}

impl Stride {
    /// Records that a batch may have: one at least.
    pub fn records_max(self) -> usize {
        self.0
    }

    /// Failed calls took too long.
    pub fn shrink(&mut self) {
        self.0 = (self.0 / SHRINK).max(1);
    }

    /// A batch has passed, and no call failed.
    pub fn grow(&mut self) {
        self.0 = (self.0 * GROW).min(BATCH_RECORDS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shrinks_to_one_record_and_grows_back() {
        let mut stride = Stride::default();
        let mut shrunk = Vec::new();
        for _ in 0..5 {
            stride.shrink();
            shrunk.push(stride.records_max());
        }
        assert_eq!(shrunk, [128, 16, 2, 1, 1]);
        (0..20).for_each(|_| stride.grow());
        assert_eq!(stride.records_max(), BATCH_RECORDS_MAX);
    }
}
