//! Faults that tests ask for, in a build of their own: the package `millstream-faulty` compiles this server with the feature `faults`, which
//! the package `millstream` has not on. Cargo would unify a feature of a shared library over the one build of the workspace, and the
//! product would have the faults in it (ADR 0008); one of the package's own it doesn't.
//!
//! Invariant: without the feature every function here does what would stand in its place, which is mostly nothing, and is that once compiled.

#[cfg(feature = "faults")]
mod injected;
#[cfg(not(feature = "faults"))]
mod none;

/// What is asked of the disk for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// A file is made.
    Create,
    Write,
    /// What was written of a file is to be on the disk.
    Sync,
    Rename,
    /// A file's name is to be on the disk.
    SyncFolder,
    List,
    /// A file is opened, or more of it is read.
    Read,
}

#[cfg(feature = "faults")]
pub use injected::*;
#[cfg(not(feature = "faults"))]
pub use none::*;
