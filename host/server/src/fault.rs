//! Faults that tests ask for, in a build of their own: the package `millstream-faulty` compiles this server with the feature `faults`, which
//! the package `millstream` has not on. Cargo would unify a feature of a shared library over the one build of the workspace, and the
//! product would have the faults in it (ADR 0008); one of the package's own it doesn't.
//!
//! Invariant: without the feature every function here does nothing, and is nothing once compiled.

#[cfg(feature = "faults")]
mod injected;
#[cfg(not(feature = "faults"))]
mod none;

#[cfg(feature = "faults")]
pub use injected::*;
#[cfg(not(feature = "faults"))]
pub use none::*;
