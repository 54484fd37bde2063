//! The plugin boundary: components are loaded, instantiated and called here and nowhere else.
//!
//! Never gives a plugin anything but the interfaces of the contract, clocks and randomness, and what the pipeline file allows: no file and no
//! socket in any case. Invariant: nothing of wasmtime leaves this folder.

mod bindings;
mod code_cache;
mod compiler;
mod deadline;
mod grants;
mod instance;
mod limits;
mod log_budget;
mod lookups;
mod plugin;
mod plugin_log;
mod state;
mod steps;
mod wasi;

pub use compiler::{VERB as COMPILE, main as compile_component};
pub use deadline::Ticker;
pub use grants::Grants;
pub use instance::Wiring;
pub use log_budget::LogBudget;
pub use plugin::{LoadError, Needs, Plugin, Runtime, hexadecimal};
pub use steps::{StepPlugin, Steps};
