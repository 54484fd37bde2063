//! The part of Millstream that decides. It has no I/O, clock, thread or randomness: control comes in as events and leaves as
//! effects, records come and go by plain calls. Modules import only modules listed above them, bar those of one folder.

#![forbid(unsafe_code)]

pub mod json;

pub mod record;

pub mod pipeline;

pub mod state;

pub mod step;

pub mod task;

pub mod tally;

pub mod commit;

pub mod worker;

pub mod trials;
