//! The loss of what a worker held or was offered, from when it is seen until the worker has answered.
//!
//! Invariant: with the answer the loss is over. Nothing of it is taken for one of the next assignment.

use std::cell::Cell;

#[derive(Debug, Default)]
pub struct Loss {
    /// Everything was given up outside of a poll; the group's request to do so is still to come.
    abandoned: Cell<bool>,
    /// It was another client's, which is gone: no request comes.
    orphaned: Cell<bool>,
}

impl Loss {
    /// Whether the worker has still to be told, or to answer.
    pub fn is_open(&self) -> bool {
        self.abandoned.get() || self.orphaned.get()
    }

    pub fn is_abandoned(&self) -> bool {
        self.abandoned.get()
    }

    /// All was given up, or `false`: that failed.
    pub fn abandon(&self, succeeded: bool) {
        self.abandoned.set(succeeded);
    }

    /// The client was replaced. Whether the worker held something of it, or was offered it.
    pub fn replace_client(&self, held: bool) {
        self.abandoned.set(false);
        self.orphaned.set(held || self.orphaned.get());
    }

    /// The worker is to be told without a request of the group's.
    pub fn is_orphaned(&self) -> bool {
        self.orphaned.get()
    }

    /// The group's request to give everything up is there. Whether that is because it was lost.
    pub fn take_request(&self) -> bool {
        self.abandoned.take()
    }

    /// The worker has answered. Whether there is a client to be told so: not where it was another one's.
    pub fn answer(&self) -> bool {
        // A look may have found the same loss again since the worker was told of it.
        self.abandoned.set(false);
        !self.orphaned.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_told_once_and_over_with_the_answer() {
        let loss = Loss::default();
        assert!(!loss.is_open());
        loss.abandon(true);
        assert!(loss.is_open() && loss.take_request());
        // The next look finds that the partitions are lost, as they still are.
        loss.abandon(true);
        assert!(loss.is_open());
        assert!(loss.answer(), "the client is to give everything up");
        assert!(!loss.is_open() && !loss.take_request());
    }

    #[test]
    fn what_another_client_held_is_not_given_up_by_this_one() {
        let loss = Loss::default();
        loss.abandon(true);
        loss.replace_client(true);
        assert!(loss.is_orphaned() && !loss.is_abandoned());
        loss.replace_client(false);
        assert!(loss.is_open(), "nobody has told the worker yet");
        assert!(!loss.answer());
        assert!(!loss.is_open() && loss.answer());
    }
}
