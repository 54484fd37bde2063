//! A worker's producer, on librdkafka's own functions: the safe crate has no hook for counting the requests that end a transaction,
//! takes 100 ms to flush when only errors are reported, and stalls in an abort.
//!
//! Invariants: a producer that was in any abort, in a commit that failed, or in one whose end was sent more than once is never used
//! again (the engine says so; the worker drops it and makes another); everything here is called by one thread, bar the two calls that
//! may not come back, which are made `apart` while that one waits.

use std::borrow::Cow;
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use millstream_engine::commit::verdict::{Sends, Verdict};
use millstream_engine::record::Record;
use rdkafka::config::ClientConfig;
use rdkafka_sys::{self as sys, RDKafkaErrorCode as Code};

use super::callbacks::{millis, on_error, on_log};
use super::client::PROPAGATION_MAX;
use super::consumer::Commit;
use super::metadata;
use super::verdict::{self, Stage, TransactionError};
use crate::cluster::{self, InitError};
use crate::fault;

mod apart;
#[cfg(feature = "faults")]
mod keeping;
#[cfg(test)]
mod tests;

use apart::{Asked, HUNG_WORDS, insist};

/// How long one call may take before we look around and make it again: a session that times out meanwhile has to be noticed before
/// the brokers are back.
const SLICE: Duration = Duration::from_millis(500);

/// How soon an initialisation that was not answered with success is asked for anew, first; then ever later. By itself librdkafka asks again after
/// half a second, of which a start takes all where the coordinator is just ending what the seat left open.
const INIT_SLICE: Duration = Duration::from_millis(10);

/// How long a commit is tried before it is in doubt, or, where its end was never sent, given up.
const COMMIT_MAX: Duration = Duration::from_secs(15);

/// How long a send waits for room in the producer's queue, and a flush for deliveries.
const ROOM_MAX: Duration = Duration::from_secs(30);

/// How long a client that is dropped waits for what it gives up; purged, that takes milliseconds.
const PURGE_MAX: Duration = Duration::from_secs(2);
const PURGE_TRIES: u32 = 5;

/// The Kafka protocol's keys of the requests that end a transaction, and add offsets to it.
const END_TXN: i16 = 26;
const TXN_OFFSET_COMMIT: i16 = 28;
/// And of others that only a test waits for.
const INIT_PRODUCER_ID: i16 = 22;
const ADD_PARTITIONS_TO_TXN: i16 = 24;

/// librdkafka's word for "the one that the key hashes to".
const ANY_PARTITION: i32 = -1;

/// A record without a header takes this many arguments: topic, partition, key, value, time, flags.
const PLAIN_ARGUMENTS: usize = 6;

pub struct Producer {
    native: *mut sys::rd_kafka_t,
    /// By the caller's index.
    topics: Vec<*mut sys::rd_kafka_topic_t>,
    /// Shared with librdkafka's threads until `native` is destroyed.
    shared: Box<Shared>,
    /// A call into the client has not come back: it can't be ended, and is left behind.
    hung: Cell<bool>,
    arguments: Vec<sys::rd_kafka_vu_t>,
    names: Vec<CString>,
}

/// What librdkafka's callbacks write.
#[derive(Debug, Default)]
struct Shared {
    /// In the open transaction.
    offsets_sent: AtomicU32,
    ends_sent: AtomicU32,
    /// The first delivery that failed since the producer was made.
    failed: Mutex<Option<Failed>>,
}

#[derive(Clone, Debug)]
struct Failed {
    why: String,
    /// Trying again would not help.
    refused: bool,
}

impl Producer {
    /// # Errors
    ///
    /// What librdkafka says of the settings.
    pub fn new(config: &ClientConfig, topics: &[String]) -> Result<Self, String> {
        let mut shared = Box::<Shared>::default();
        let native = create(config, &mut shared)?;
        let mut producer = Self {
            native,
            topics: Vec::new(),
            shared,
            hung: Cell::new(false),
            arguments: Vec::new(),
            names: Vec::new(),
        };
        for topic in topics {
            let name = CString::new(topic.as_str())
                .map_err(|_| format!("topic {topic:?} holds a zero byte"))?;
            // SAFETY: the client is alive, the name is copied, and null stands for the default settings.
            let topic = unsafe { sys::rd_kafka_topic_new(native, name.as_ptr(), ptr::null_mut()) };
            if topic.is_null() {
                return Err(format!("topic {name:?} can't be written: {}", last_error()));
            }
            producer.topics.push(topic);
        }
        Ok(producer)
    }

    fn fill_arguments(&mut self, topic: usize, partition: Option<u32>, record: &Record<'_>) {
        use sys::rd_kafka_vtype_t as ty;
        let partition = partition.map_or(ANY_PARTITION, |partition| {
            i32::try_from(partition).expect("Kafka numbers partitions in 31 bits")
        });
        self.arguments.clear();
        self.names.clear();
        self.arguments
            .reserve(PLAIN_ARGUMENTS + record.headers.len());
        let mut push = |vtype, u| self.arguments.push(sys::rd_kafka_vu_t { vtype, u });
        type Argument = sys::rd_kafka_vu_s__bindgen_ty_1;
        let rkt = self.topics[topic];
        push(ty::RD_KAFKA_VTYPE_RKT, Argument { rkt });
        push(ty::RD_KAFKA_VTYPE_PARTITION, Argument { i32_: partition });
        push(
            ty::RD_KAFKA_VTYPE_KEY,
            Argument {
                mem: memory(record.key),
            },
        );
        push(
            ty::RD_KAFKA_VTYPE_VALUE,
            Argument {
                mem: memory(record.value),
            },
        );
        // librdkafka stamps what has no time, and has no way to say 1970-01-01 00:00:00.000 itself.
        push(
            ty::RD_KAFKA_VTYPE_TIMESTAMP,
            Argument {
                i64_: record.timestamp.max(0),
            },
        );
        let i = sys::RD_KAFKA_MSG_F_COPY;
        push(ty::RD_KAFKA_VTYPE_MSGFLAGS, Argument { i });
        for (name, value) in record.headers.iter() {
            let name = CString::new(name)
                .expect("header names hold no zero byte: checked where they come in");
            let (val, size) = match value {
                Some(value) => (value.as_ptr().cast(), value.len().cast_signed()),
                None => (ptr::null(), 0),
            };
            let header = sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_2 {
                name: name.as_ptr(),
                val,
                size,
            };
            push(ty::RD_KAFKA_VTYPE_HEADER, Argument { header });
            // The pointer goes on to be good: moving a CString does not move its bytes.
            self.names.push(name);
        }
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, Option<Failed>> {
        self.shared
            .failed
            .lock()
            .expect("nobody panics with it held")
    }

    /// A topic of ours that the brokers say they don't know. They are not waited for.
    fn missing(&self) -> Option<Cow<'_, str>> {
        for &topic in &self.topics {
            // SAFETY: client and topic are alive.
            let exists = unsafe { metadata::knows(self.native, topic, SLICE)? };
            if !exists {
                // SAFETY: a topic's name lives as long as the topic.
                let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(topic)) };
                return Some(name.to_string_lossy());
            }
        }
        None
    }

    fn sends(&self) -> Sends {
        let counted = [&self.shared.offsets_sent, &self.shared.ends_sent];
        let several = counted.iter().any(|sent| sent.load(Ordering::SeqCst) > 1);
        if several { Sends::Several } else { Sends::Once }
    }

    fn begin_transaction(&self) -> Result<(), TransactionError> {
        // SAFETY: the client is alive; the error object is taken over.
        unsafe { TransactionError::check(sys::rd_kafka_begin_transaction(self.native)) }
    }

    /// Serves librdkafka's callbacks.
    ///
    /// # Errors
    ///
    /// The first delivery that failed.
    fn serve(&self, timeout: Duration) -> Result<(), String> {
        // SAFETY: the client is alive.
        unsafe { sys::rd_kafka_poll(self.native, millis(timeout)) };
        match &*self.failed() {
            Some(failed) => Err(failed.why.clone()),
            None => Ok(()),
        }
    }
}

impl cluster::Producer for Producer {
    type Commit = Commit;

    fn init(&self, timeout: Duration) -> Result<(), InitError> {
        // Where no connection is up, librdkafka looks for the coordinator in half a second, not now.
        // SAFETY: the client is alive.
        let _ = unsafe { metadata::reach(self.native, timeout) };
        let until = Instant::now() + timeout;
        let mut slice = INIT_SLICE;
        loop {
            slice = (slice * 2).min(SLICE);
            // SAFETY: the client is alive; the error object is taken over.
            let result = unsafe {
                let error = sys::rd_kafka_init_transactions(self.native, millis(slice));
                TransactionError::check(error)
            };
            let Err(error) = result else { return Ok(()) };
            let why = error.to_string();
            return Err(match error.code {
                _ if error.is_refused() => InitError::Refused(why),
                _ if !error.retriable => InitError::Failed(why),
                _ if Instant::now() < until => continue,
                Code::ConcurrentTransactions => InitError::Ending(why),
                _ => InitError::Again(why),
            });
        }
    }

    fn begin(&self) -> Result<(), String> {
        for sent in [&self.shared.offsets_sent, &self.shared.ends_sent] {
            sent.store(0, Ordering::SeqCst);
        }
        self.begin_transaction().map_err(|error| error.to_string())
    }

    fn send(
        &mut self,
        topic: usize,
        partition: Option<u32>,
        record: &Record<'_>,
    ) -> Result<(), String> {
        self.fill_arguments(topic, partition, record);
        let give_up = Instant::now() + ROOM_MAX;
        loop {
            // SAFETY: the client is alive; every argument points at something that outlives the call, which copies it.
            let sent = unsafe {
                let error = sys::rd_kafka_produceva(
                    self.native,
                    self.arguments.as_ptr(),
                    self.arguments.len(),
                );
                TransactionError::check(error)
            };
            match sent {
                Ok(()) => return Ok(()),
                Err(error) if error.code == Code::QueueFull && Instant::now() < give_up => {
                    self.serve(Duration::from_millis(5))?;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn poll(&self) -> Result<(), String> {
        self.serve(Duration::ZERO)
    }

    fn flush(&mut self, look: &dyn Fn() -> bool) -> Result<(), String> {
        let began = Instant::now();
        loop {
            // SAFETY: the client is alive.
            let code = unsafe { sys::rd_kafka_flush(self.native, millis(SLICE)) };
            self.poll()?;
            match code {
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => return Ok(()),
                _ if look() => return Err("the partitions were lost".into()),
                _ if began.elapsed() > PROPAGATION_MAX
                    && let Some(topic) = self.missing() =>
                {
                    return Err(format!(
                        "what is for topic \"{topic}\" can't be delivered: the topic does not exist any more"
                    ));
                }
                _ if began.elapsed() < ROOM_MAX => {}
                code => {
                    return Err(format!(
                        "the records could not be delivered: {}",
                        Code::from(code)
                    ));
                }
            }
        }
    }

    fn commit(&mut self, commit: &Commit, look: &dyn Fn() -> bool) -> Verdict {
        let give_up = Instant::now() + COMMIT_MAX;
        if commit.offsets.count() > 0 {
            let asked = Asked {
                native: self.native,
                offsets: commit.offsets.ptr(),
                group: commit.group.as_ptr(),
            };
            let added = insist(
                || Instant::now() > give_up || look(),
                || self.apart(asked, Asked::add_offsets, look),
            );
            match added {
                Some(Ok(())) => {}
                Some(Err(error)) => return verdict::judge(&error, Stage::Offsets),
                None => return Verdict::Aborted(HUNG_WORDS.into()),
            }
        }
        let asked = Asked {
            native: self.native,
            offsets: ptr::null(),
            group: ptr::null(),
        };
        fault::reach("epoch-offsets-added");
        let ended = insist(
            || {
                look();
                Instant::now() > give_up
            },
            || self.apart(asked, Asked::commit, look),
        );
        match ended {
            Some(Ok(())) => {
                fault::reach("epoch-answered");
                Verdict::Committed(self.sends())
            }
            Some(Err(error)) => verdict::judge(&error, Stage::End),
            None => Verdict::InDoubt(HUNG_WORDS.into()),
        }
    }

    fn refusal(&self) -> Option<String> {
        if let Some(failed) = self.failed().as_ref().filter(|failed| failed.refused) {
            return Some(failed.why.clone());
        }
        // Where a partition could not be added to the transaction, its records are just purged. What was wrong is told to
        // whoever asks for something that needs another state; this changes nothing.
        match self.begin_transaction() {
            Err(error) if error.is_refused() => Some(error.to_string()),
            _ => None,
        }
    }

    #[cfg(feature = "faults")]
    fn keep(&mut self) -> bool {
        self.end_and_keep()
    }
}

impl Producer {
    /// Lets go of the open transaction and of what is in it, so that the client can be destroyed: returns whether it can.
    fn settle(&self) -> bool {
        self.stop_adding();
        (0..PURGE_TRIES).any(|_| self.purge())
    }

    /// Has librdkafka add no partition to the open transaction any more.
    ///
    /// Its main thread counts that request only after it has handed it to a broker's thread. Where the client is destroyed in between, that
    /// thread fails the request, finds it uncounted, and ends the process (`txn_req_cnt` in librdkafka 2.12). An abort begins, on the
    /// main thread, with dropping what is to be added; it gets no time for more, as the end of the transaction is left to the next
    /// producer. What is asked of that thread next is answered after it.
    fn stop_adding(&self) {
        // SAFETY: the client is alive; the error object is taken over.
        let begun = unsafe {
            let error = sys::rd_kafka_abort_transaction(self.native, millis(Duration::ZERO));
            TransactionError::check(error)
        };
        // Both say that it is the wrong time for them, or that there are no transactions: nothing is to be done about it.
        let _ = (begun, self.begin_transaction());
    }

    /// Gives up what has not been delivered, and waits until nothing is: returns whether that came about.
    ///
    /// A client that is destroyed while the answer to a fenced producer's records is handled frees a text twice (in librdkafka up to 2.15, `txn_errstr`
    /// of `rd_kafka_txns_term` and `rd_kafka_txn_set_fatal_error`). What was purged has no answer any more, and a record counts until
    /// its answer was handled.
    fn purge(&self) -> bool {
        let all = sys::RD_KAFKA_PURGE_F_QUEUE
            | sys::RD_KAFKA_PURGE_F_INFLIGHT
            | sys::RD_KAFKA_PURGE_F_NON_BLOCKING;
        // SAFETY: the client is alive.
        let flushed = unsafe {
            sys::rd_kafka_purge(self.native, all);
            sys::rd_kafka_flush(self.native, millis(PURGE_MAX))
        };
        flushed == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if self.hung.get() || !self.settle() {
            // Its threads, and the one that waits for it, go on using it. What it may still send is fenced by the next producer of its
            // transactional.id, if it has one.
            Box::leak(std::mem::take(&mut self.shared));
            return;
        }
        // SAFETY: the client is alive until destroy; topics are given back before it; `shared` is freed after this, when none of
        // librdkafka's threads is left to write it.
        unsafe {
            for &topic in &self.topics {
                sys::rd_kafka_topic_destroy(topic);
            }
            sys::rd_kafka_destroy(self.native);
        }
    }
}

// SAFETY: a librdkafka client may be used from any thread, and `&mut self` or ownership goes along with it.
unsafe impl Send for Producer {}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

fn create(config: &ClientConfig, shared: &mut Shared) -> Result<*mut sys::rd_kafka_t, String> {
    let config = config
        .create_native_config()
        .map_err(|error| error.to_string())?;
    let opaque: *mut Shared = shared;
    let mut said = [0 as c_char; 512];
    // Once the client exists, it is that one's. Where it can't be made, its interceptors may be gone already, and would go twice (before
    // librdkafka 2.13, its issue 4142): a few kilobytes are left behind.
    let config = ManuallyDrop::new(config);
    // SAFETY: the configuration is alive; `opaque` outlives the client, as `Producer::drop` destroys that first; the names are C strings.
    unsafe {
        let conf = config.ptr();
        sys::rd_kafka_conf_set_opaque(conf, opaque.cast());
        sys::rd_kafka_conf_set_dr_msg_cb(conf, Some(on_delivery));
        sys::rd_kafka_conf_set_log_cb(conf, Some(on_log));
        sys::rd_kafka_conf_set_error_cb(conf, Some(on_error));
        sys::rd_kafka_conf_interceptor_add_on_new(
            conf,
            c"millstream".as_ptr(),
            Some(on_new),
            opaque.cast(),
        );
        let ty = sys::rd_kafka_type_t::RD_KAFKA_PRODUCER;
        let native = sys::rd_kafka_new(ty, conf, said.as_mut_ptr(), said.len());
        if native.is_null() {
            return Err(CStr::from_ptr(said.as_ptr()).to_string_lossy().into_owned());
        }
        Ok(native)
    }
}

fn memory(bytes: Option<&[u8]>) -> sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
    let (start, size) = bytes.map_or((ptr::null_mut(), 0), |bytes| {
        (bytes.as_ptr().cast_mut().cast(), bytes.len())
    });
    sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr: start, size }
}

fn last_error() -> Code {
    // SAFETY: reads a value of this thread.
    Code::from(unsafe { sys::rd_kafka_last_error() })
}

extern "C" fn on_new(
    native: *mut sys::rd_kafka_t,
    _: *const sys::rd_kafka_conf_t,
    opaque: *mut c_void,
    _: *mut c_char,
    _: usize,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: librdkafka calls this with a client under construction; the opaque pointer is `create`'s.
    unsafe {
        sys::rd_kafka_interceptor_add_on_request_sent(
            native,
            c"millstream".as_ptr(),
            Some(on_request_sent),
            opaque,
        )
    }
}

extern "C" fn on_request_sent(
    _: *mut sys::rd_kafka_t,
    _: c_int,
    _: *const c_char,
    _: i32,
    api_key: i16,
    _: i16,
    _: i32,
    _: usize,
    opaque: *mut c_void,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: the pointer is `create`'s, to what lives longer than the client.
    let shared = unsafe { &*opaque.cast::<Shared>() };
    match api_key {
        END_TXN => {
            shared.ends_sent.fetch_add(1, Ordering::SeqCst);
            fault::reach("epoch-end-sent");
        }
        TXN_OFFSET_COMMIT => {
            shared.offsets_sent.fetch_add(1, Ordering::SeqCst);
            fault::reach("epoch-offsets-sent");
        }
        ADD_PARTITIONS_TO_TXN => fault::reach("epoch-partitions-sent"),
        INIT_PRODUCER_ID => fault::reach("replace-sent"),
        _ => {}
    }
    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

extern "C" fn on_delivery(
    _: *mut sys::rd_kafka_t,
    message: *const sys::rd_kafka_message_t,
    opaque: *mut c_void,
) {
    // SAFETY: librdkafka lends a whole message during the callback; the opaque pointer is `create`'s.
    let (message, shared) = unsafe { (&*message, &*opaque.cast::<Shared>()) };
    if message.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return;
    }
    // SAFETY: a delivered message names its topic, a C string that lives as long as the message.
    let topic = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(message.rkt)) }.to_string_lossy();
    let code = Code::from(message.err);
    let refused = matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    );
    let mut failed = shared.failed.lock().expect("nobody panics with it held");
    failed.get_or_insert_with(|| {
        let why = format!(
            "a record of {} bytes for {topic} was not delivered: {code}",
            message.len
        );
        Failed { why, refused }
    });
}
