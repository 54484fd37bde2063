//! The two calls of a commit that may not come back: made on a thread of their own, and left behind where they don't.
//!
//! Invariant: the thread that waits for them goes on looking after its seat meanwhile.

use std::time::{Duration, Instant};

use rdkafka_sys as sys;

use super::super::callbacks::millis;
use super::super::verdict::TransactionError;
use super::{Producer, SLICE};
use crate::{fault, threads};

/// How long a commit takes before that is said, and between sayings.
const LONG: Duration = Duration::from_secs(2);

/// How many slices a call that takes one may take before it is taken not to come back: librdkafka's issues 5456 and 5511, seen here when
/// the coordinator's connection broke while offsets were added. Not by the clock: a process that stood still did not wait.
const HUNG: u32 = 20;

pub const HUNG_WORDS: &str =
    "librdkafka does not come back from a call; its client is left behind, and replaced";

/// What a call said; none where it does not come back.
pub type Answer = Option<Result<(), TransactionError>>;

/// What the two calls of a commit are given.
#[derive(Clone, Copy)]
pub struct Asked {
    pub native: *mut sys::rd_kafka_t,
    pub offsets: *const sys::rd_kafka_topic_partition_list_t,
    pub group: *const sys::rd_kafka_consumer_group_metadata_t,
}

// SAFETY: a librdkafka client may be used from any thread; list and group metadata are read before the call begins to wait, while the
// caller has them.
unsafe impl Send for Asked {}

impl Asked {
    pub fn add_offsets(self) -> Result<(), TransactionError> {
        fault::hang("offsets");
        // SAFETY: the client is alive, or left behind for good; the call copies list and group metadata before it waits.
        unsafe {
            let (offsets, group) = (self.offsets, self.group);
            let wait = millis(SLICE);
            let error =
                sys::rd_kafka_send_offsets_to_transaction(self.native, offsets, group, wait);
            TransactionError::check(error)
        }
    }

    pub fn commit(self) -> Result<(), TransactionError> {
        fault::hang("commit");
        // SAFETY: the client is alive, or left behind for good; the error object is taken over.
        let ended = unsafe {
            let error = sys::rd_kafka_commit_transaction(self.native, millis(SLICE));
            TransactionError::check(error)
        };
        if ended.is_ok() {
            fault::hang("committed");
        }
        ended
    }
}

impl Producer {
    /// Makes a call on a thread of its own, and waits for it as long as it may come back.
    pub fn apart(
        &self,
        asked: Asked,
        call: fn(Asked) -> Result<(), TransactionError>,
        look: &dyn Fn() -> bool,
    ) -> Answer {
        let (say, heard) = std::sync::mpsc::sync_channel(1);
        let ask = move || {
            // Nobody listens where it was given up.
            let _ = say.send(call(asked));
        };
        if let Err(why) = threads::start("commit", ask) {
            tracing::error!("no thread can be made to commit: {why}");
            return None;
        }
        for _ in 0..HUNG {
            if let Ok(answer) = heard.recv_timeout(SLICE) {
                return Some(answer);
            }
            look();
        }
        self.hung.set(true);
        None
    }
}

/// Makes a call again, as long as librdkafka says that it may be and nobody gives up.
pub fn insist(give_up: impl Fn() -> bool, mut call: impl FnMut() -> Answer) -> Answer {
    let mut said = Instant::now();
    loop {
        match call() {
            Some(Err(error)) if error.retriable && !give_up() => {
                if said.elapsed() > LONG {
                    said = Instant::now();
                    tracing::info!(target: "millstream::kafka", "the commit takes long: {error}");
                }
            }
            result => return result,
        }
    }
}
