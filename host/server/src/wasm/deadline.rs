//! Deadlines of plugin calls, in ticks of a clock that one thread of the process advances. This is the only file that knows
//! wasmtime's name for them, epochs: in Millstream an epoch is a worker's work between two commits.
//!
//! Invariant: a call ends at most one tick after its deadline, whatever the plugin does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::{Config, Engine, Store, Trap};

/// How long the clock takes from one tick to the next: the precision of deadlines.
const TICK: Duration = Duration::from_millis(10);

/// What a call may take at least, however often its batch was halved.
const CALL_MIN: Duration = Duration::from_millis(10);

/// Lets deadlines interrupt what is compiled with this configuration.
pub fn enable(config: &mut Config) {
    config.epoch_interruption(true);
}

/// Sets the deadline of the next call: what one for a whole batch may take, half of that each for the halves of a batch that failed, and
/// so on.
pub fn set<T>(store: &mut Store<T>, whole: Duration, halvings: u32) {
    let allowed = allowed(whole, halvings);
    // One more, because the current tick is partly over.
    let ticks = allowed.as_millis().div_ceil(TICK.as_millis()) + 1;
    store.set_epoch_deadline(u64::try_from(ticks).expect("seconds are few ticks"));
}

/// What a call may take whose batch was halved so often.
pub fn allowed(whole: Duration, halvings: u32) -> Duration {
    (whole / 2_u32.saturating_pow(halvings)).max(CALL_MIN)
}

/// Whether a call failed because its deadline passed.
pub fn is_missed(error: &wasmtime::Error) -> bool {
    error.downcast_ref::<Trap>() == Some(&Trap::Interrupt)
}

/// The thread that advances the clock, until this is dropped.
#[derive(Debug)]
pub struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub fn start(engine: Engine) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let tick = move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                engine.increment_epoch();
            }
        };
        let thread = std::thread::Builder::new()
            .name("deadlines".into())
            .spawn(tick)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It can't have panicked: it only sleeps and counts.
            let _ = thread.join();
        }
    }
}
