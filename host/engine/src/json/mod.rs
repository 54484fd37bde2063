//! What indexes and queries read of JSON values: the scalar that stands at a pointer, and its order among others.
//!
//! Invariant: who keeps an index and who tests a value ask [`find`]; so they never disagree on what a value holds.

mod pointer;
mod read;
mod scalar;

pub use pointer::{Pointer, TOKENS_MAX};
pub use read::{POINTERS_MAX, find, is_json};
pub use scalar::{Number, Scalar};
