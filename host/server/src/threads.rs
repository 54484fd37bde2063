//! Threads of a pipeline: each logs as whoever starts it does, so that lines tell one pipeline of a process from another.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts one.
///
/// # Errors
///
/// The system has no more threads.
pub fn start<T: Send + 'static>(
    name: impl Into<String>,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let context = tracing::Span::current();
    let builder = Builder::new().name(name.into());
    builder.spawn(move || context.in_scope(run))
}
