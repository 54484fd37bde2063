//! Lines for the operator's log; the host marks them with pipeline and step. Outside WASM they go
//! to standard error, and are kept for tests. A call into the host costs more than a record: log
//! what is rare.

use std::fmt::Display;

pub use crate::bindings::millstream::plugin::log::Level;

/// Finest detail.
pub fn trace(message: impl Display) {
    write(Level::Trace, &message.to_string());
}

/// For whoever writes the plugin.
pub fn debug(message: impl Display) {
    write(Level::Debug, &message.to_string());
}

/// Good to know.
pub fn info(message: impl Display) {
    write(Level::Info, &message.to_string());
}

/// Somebody should look at this.
pub fn warn(message: impl Display) {
    write(Level::Warn, &message.to_string());
}

/// Something is broken.
pub fn error(message: impl Display) {
    write(Level::Error, &message.to_string());
}

#[cfg(target_family = "wasm")]
fn write(level: Level, message: &str) {
    crate::bindings::millstream::plugin::log::log(level, message);
}

#[cfg(not(target_family = "wasm"))]
fn write(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
    LINES.with_borrow_mut(|lines| lines.push((level, message.to_owned())));
}

#[cfg(not(target_family = "wasm"))]
thread_local! {
    static LINES: std::cell::RefCell<Vec<(Level, String)>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// What this thread has logged since the last call.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn take_lines() -> Vec<(Level, String)> {
    LINES.take()
}
