//! Log lines for records that were left out or stopped a task: with topic, partition and offset, but not thousands a second.

use std::time::{Duration, Instant};

use millstream_engine::pipeline::OnError;
use millstream_engine::task::failure::RecordFailure;

/// Skipped records that are logged one by one in a second; the others are counted.
const LINES_MAX: u32 = 20;

#[derive(Debug)]
pub struct FailureLog {
    second: Instant,
    lines: u32,
    silent: u64,
}

impl FailureLog {
    pub fn new() -> Self {
        Self {
            second: Instant::now(),
            lines: 0,
            silent: 0,
        }
    }

    pub fn log(&mut self, topic: &str, partition: u32, failure: &RecordFailure) {
        self.turn();
        let RecordFailure {
            at,
            offset,
            reason,
            on_error,
            ..
        } = failure;
        if *on_error == OnError::Fail {
            tracing::error!(
                topic,
                partition,
                offset,
                "{at} failed, and its task stops here: {reason}"
            );
        } else if self.lines < LINES_MAX {
            self.lines += 1;
            let did = match on_error {
                OnError::DeadLetter => "set a record aside as a dead letter",
                _ => "skipped a record",
            };
            tracing::warn!(topic, partition, offset, "{at} {did}: {reason}");
        } else {
            self.silent += 1;
        }
    }

    /// To be called now and then: says what was left out once the second is over.
    pub fn turn(&mut self) {
        if self.second.elapsed() >= Duration::from_secs(1) {
            if self.silent > 0 {
                tracing::warn!(
                    "{} more records were skipped or set aside; /v1/status counts them all",
                    self.silent
                );
            }
            *self = Self::new();
        }
    }
}
