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

/// How often the request that ends the transaction left this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sends {
    Once,
    /// The broker may find another copy of it later, and take it for the end of the *next* transaction of the same producer
    /// epoch: the producer has to be replaced.
    Several,
}
