//! What an attempt to commit came to. The server maps Kafka's errors to these five; nothing else decides what happens next.

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Committed(Sends),
    /// Nothing of the epoch took effect, or will.
    Aborted(String),
    /// The slot's name belongs to another process now.
    Fenced(String),
    /// The request may or may not have been carried out.
    InDoubt(String),
    /// Waiting, retrying and replacing don't help.
    Fatal(String),
}

/// How often the requests that close a transaction, the one that adds its offsets and the one that ends it, left this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sends {
    Once,
    /// The broker may find another copy of one later, and take it for the *next* transaction's of the same producer epoch: it would
    /// end that one too early, or set its offsets back. The producer has to be replaced.
    Several,
}
