//! What must not be: a producer that goes on after an abort. Only in the build with faults, for the test that shows what comes of it.

use std::time::{Duration, Instant};

use rdkafka_sys::{self as sys, RDKafkaErrorCode as Code};

use super::super::callbacks::millis;
use super::super::verdict::TransactionError;
use super::Producer;

/// Between two looks at what was delivered: librdkafka's abort waits for somebody to have taken note of that.
const SLICE: Duration = Duration::from_millis(100);
const ABORT_MAX: Duration = Duration::from_secs(10);

impl Producer {
    /// Aborts what is open, and says whether there could be another transaction now.
    pub fn end_and_keep(&mut self) -> bool {
        let give_up = Instant::now() + ABORT_MAX;
        let ended = loop {
            // SAFETY: the client is alive; the error object is taken over.
            let aborted = unsafe {
                TransactionError::check(sys::rd_kafka_abort_transaction(self.native, millis(SLICE)))
            };
            // Deliveries that fail now fail since they are not wanted any more.
            let _ = self.serve(Duration::ZERO);
            match aborted {
                Ok(()) => break true,
                Err(error) if error.retriable && Instant::now() < give_up => {}
                // There was nothing open: an empty transaction shows whether there could be one.
                Err(error) if error.code == Code::State && self.begin_transaction().is_ok() => {}
                Err(_) => break false,
            }
        };
        *self.failed() = None;
        tracing::info!(target: "millstream::kafka", "the producer is kept: {ended}");
        ended
    }
}
