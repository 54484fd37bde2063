//! Trying until it succeeds: for what must be done before anything else can go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Pauses between tries.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// How often there is a look around meanwhile.
const LOOK: Duration = Duration::from_millis(500);

/// How long things are still tried once the process was asked to end.
const STOPPING_MAX: Duration = Duration::from_secs(10);

/// The process was asked to end, and what was tried did not succeed in the time left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the process was asked to end")]
pub struct Stopping;

/// Tries until it succeeds, saying so; once the process is to end, for a short while only. `between` is called every now and then
/// between two tries.
pub fn insist<T>(
    stop: &AtomicBool,
    what: &str,
    between: &dyn Fn(),
    mut attempt: impl FnMut() -> Result<T, String>,
) -> Result<T, Stopping> {
    let mut back_off = BACK_OFF_MIN;
    let mut stopping: Option<Instant> = None;
    loop {
        let why = match attempt() {
            Ok(done) => return Ok(done),
            Err(why) => why,
        };
        if stop.load(Ordering::Relaxed) {
            let since = *stopping.get_or_insert_with(Instant::now);
            if since.elapsed() > STOPPING_MAX {
                tracing::warn!("{what} did not succeed before the end: {why}");
                return Err(Stopping);
            }
        }
        tracing::warn!("{what}: {why}; trying again in {back_off:?}");
        let until = Instant::now() + back_off;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            std::thread::sleep(left.min(LOOK));
            between();
        }
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}
