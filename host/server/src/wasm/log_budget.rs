//! How many lines a step's plugin may log: beyond that they are counted, not written.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Of a step in one worker; outlives its instances.
#[derive(Debug)]
pub struct LogBudget {
    step: String,
    /// In a second.
    most: AtomicU32,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
    left_out: u64,
    total: LogCounts,
}

/// Since the worker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    pub written: u64,
    pub left_out: u64,
}

impl LogBudget {
    pub fn new(step: &str, most: u32) -> Self {
        Self {
            step: step.into(),
            most: AtomicU32::new(most),
            window: Mutex::new(Window {
                began: Instant::now(),
                lines: 0,
                left_out: 0,
                total: LogCounts::default(),
            }),
        }
    }

    /// Has another limit from now on.
    pub fn allow(&self, most: u32) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Whether another line may be written now.
    pub fn admit(&self) -> bool {
        self.turn();
        let mut window = self.window.lock().expect("nobody panics with it held");
        let fits = window.lines < self.most.load(Ordering::Relaxed);
        if fits {
            window.lines += 1;
            window.total.written += 1;
        } else {
            window.left_out += 1;
            window.total.left_out += 1;
        }
        fits
    }

    /// To be called now and then: says what was left out once the second is over.
    pub fn turn(&self) {
        let mut window = self.window.lock().expect("nobody panics with it held");
        if window.began.elapsed() < SECOND {
            return;
        }
        let left_out = std::mem::take(&mut window.left_out);
        window.began = Instant::now();
        window.lines = 0;
        drop(window);
        self.tell(left_out);
    }

    fn tell(&self, left_out: u64) {
        if left_out > 0 {
            let (step, most) = (&self.step, self.most.load(Ordering::Relaxed));
            tracing::warn!(
                step,
                limit = "log-lines",
                "{left_out} lines of the plugin were left out: it may log {most} a second"
            );
        }
    }

    pub fn counts(&self) -> LogCounts {
        self.window
            .lock()
            .expect("nobody panics with it held")
            .total
    }
}

/// What the last second left out is told too.
impl Drop for LogBudget {
    fn drop(&mut self) {
        if let Ok(window) = self.window.lock() {
            self.tell(window.left_out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted() {
        let budget = LogBudget::new("parse", 2);
        let admitted = (0..5).filter(|_| budget.admit()).count();
        // A slow machine may have come into the next second meanwhile.
        assert!(admitted == 2 || admitted == 4);
        let LogCounts { written, left_out } = budget.counts();
        assert_eq!((written, written + left_out), (admitted as u64, 5));
        assert!(!LogBudget::new("parse", 0).admit());
    }
}
