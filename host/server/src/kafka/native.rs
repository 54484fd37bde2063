//! A consumer on librdkafka's own functions, for the group consumer and the changelog reader: the safe crate hands out one record
//! at a time, with an allocation for each, and answers a rebalance inside the poll, where a worker can't commit.
//!
//! Here a rebalance is only noted; librdkafka waits for `assign` or `unassign` to answer it, and the group with it. Invariant:
//! everything is called by one thread.

use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use rdkafka_sys::{self as sys, RDKafkaErrorCode as Code};

use super::callbacks::{millis, on_error, on_log};
use super::client::REQUEST_MAX;
use super::membership::GroupMetadata;
use super::verdict::TransactionError;
use crate::cluster::Consumable;

/// How many records one call takes out of librdkafka's queue.
const FETCH_MAX: usize = 1024;

#[derive(Debug)]
pub struct NativeConsumer {
    native: *mut sys::rd_kafka_t,
    queue: *mut sys::rd_kafka_queue_t,
    /// Shared with librdkafka until `native` is destroyed.
    shared: Box<Shared>,
    messages: Vec<*mut sys::rd_kafka_message_t>,
}

#[derive(Debug, Default)]
struct Shared {
    noted: Mutex<Vec<Noted>>,
    /// The client is being closed: give everything up at once.
    closing: AtomicBool,
}

/// What the group wants.
#[derive(Clone, Debug)]
pub enum Noted {
    /// Topics and partitions.
    Assign(Vec<(String, i32)>),
    Revoke,
}

/// What a poll brought.
#[derive(Clone, Copy, Debug)]
pub enum Polled<'a> {
    Record(RecordRef<'a>),
    /// A partition has been read up to this offset, which is its end for now (where the reader asked to be told).
    End {
        topic: &'a str,
        partition: i32,
        offset: i64,
    },
    Error(ErrorRef<'a>),
}

/// An error that came in place of a record.
#[derive(Clone, Copy, Debug)]
pub struct ErrorRef<'a> {
    pub code: Code,
    pub text: &'a str,
    /// What it is about, if anything in particular.
    pub place: Option<(&'a str, i32)>,
    /// The client can't be used any more.
    pub fatal: bool,
}

/// A consumed record, lent during a poll.
#[derive(Clone, Copy)]
pub struct RecordRef<'a> {
    message: &'a sys::rd_kafka_message_t,
}

/// Tells topics apart without looking at their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicHandle(*mut sys::rd_kafka_topic_t);

impl<'a> RecordRef<'a> {
    pub fn topic_handle(&self) -> TopicHandle {
        TopicHandle(self.message.rkt)
    }

    pub fn topic(&self) -> &'a str {
        // SAFETY: a record names its topic, a C string that lives as long as the client.
        let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.message.rkt)) };
        name.to_str().expect("Kafka's topic names are ASCII")
    }

    pub fn partition(&self) -> i32 {
        self.message.partition
    }
}

impl Consumable for RecordRef<'_> {
    fn offset(&self) -> i64 {
        self.message.offset
    }

    fn timestamp(&self) -> i64 {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive, `kind` is ours.
        unsafe { sys::rd_kafka_message_timestamp(self.message, &raw mut kind) }
    }

    fn key(&self) -> Option<&[u8]> {
        // SAFETY: the message owns `key_len` bytes there, or the pointer is null.
        unsafe { bytes(self.message.key, self.message.key_len) }
    }

    fn value(&self) -> Option<&[u8]> {
        // SAFETY: the message owns `len` bytes there, or the pointer is null.
        unsafe { bytes(self.message.payload, self.message.len) }
    }

    fn headers(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive; the headers stay its own. On an error (no headers) nothing is written.
        let code = unsafe { sys::rd_kafka_message_headers(self.message, &raw mut headers) };
        let count = if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            usize::MAX
        } else {
            0
        };
        (0..count).map_while(move |index| {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            // SAFETY: the headers live as long as the message; past the last one an error is returned.
            unsafe {
                let code = sys::rd_kafka_header_get_all(
                    headers,
                    index,
                    &raw mut name,
                    &raw mut value,
                    &raw mut size,
                );
                let found = code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
                found.then(|| (CStr::from_ptr(name).to_bytes(), bytes(value, size)))
            }
        })
    }
}

impl std::fmt::Debug for RecordRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}[{}]@{}",
            self.topic(),
            self.partition(),
            self.offset()
        )
    }
}

/// # Safety
///
/// `start` is null or points at `size` bytes that live for `'a`.
unsafe fn bytes<'a>(start: *const c_void, size: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller vouches for it.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast(), size) })
}

impl NativeConsumer {
    /// # Errors
    ///
    /// What librdkafka says of the settings.
    pub fn new(config: &ClientConfig) -> Result<Self, String> {
        let mut shared = Box::<Shared>::default();
        let config = config
            .create_native_config()
            .map_err(|error| error.to_string())?;
        let opaque: *mut Shared = &raw mut *shared;
        let mut said = [0 as c_char; 512];
        // SAFETY: the configuration is alive and, once the client exists, belongs to it (hence no drop in that case); `opaque`
        // outlives the client, which `drop` destroys first.
        let (native, queue) = unsafe {
            let conf = config.ptr();
            sys::rd_kafka_conf_set_opaque(conf, opaque.cast());
            sys::rd_kafka_conf_set_rebalance_cb(conf, Some(on_rebalance));
            sys::rd_kafka_conf_set_log_cb(conf, Some(on_log));
            sys::rd_kafka_conf_set_error_cb(conf, Some(on_error));
            let ty = sys::rd_kafka_type_t::RD_KAFKA_CONSUMER;
            let native = sys::rd_kafka_new(ty, conf, said.as_mut_ptr(), said.len());
            if native.is_null() {
                return Err(CStr::from_ptr(said.as_ptr()).to_string_lossy().into_owned());
            }
            let _ = ManuallyDrop::new(config);
            sys::rd_kafka_poll_set_consumer(native);
            (native, sys::rd_kafka_queue_get_consumer(native))
        };
        Ok(Self {
            native,
            queue,
            shared,
            messages: Vec::with_capacity(FETCH_MAX),
        })
    }

    pub fn subscribe(&self, topics: &[&str]) -> Result<(), Code> {
        let mut list = TopicPartitionList::new();
        for topic in topics {
            list.add_topic_unassigned(topic);
        }
        // SAFETY: client and list are alive; the list is copied.
        check(unsafe { sys::rd_kafka_subscribe(self.native, list.ptr()) })
    }

    /// Wants nothing of the group any more. It asks for what is assigned, and once that is given up it is left, whether or not the member
    /// has a seat: a client that is merely closed keeps that.
    pub fn unsubscribe(&self) -> Result<(), Code> {
        // SAFETY: the client is alive.
        check(unsafe { sys::rd_kafka_unsubscribe(self.native) })
    }

    /// Takes what is there, and waits for the first record at most `timeout`. Returns how many records came.
    pub fn poll(&mut self, timeout: Duration, each: impl FnMut(Polled<'_>)) -> usize {
        self.poll_some(timeout, FETCH_MAX, each)
    }

    /// The same, for so many records at most; there is a bound to them in any case.
    pub fn poll_some(
        &mut self,
        timeout: Duration,
        most: usize,
        mut each: impl FnMut(Polled<'_>),
    ) -> usize {
        let fetched = if timeout.is_zero() {
            0
        } else {
            self.fetch(timeout, 1)
        };
        // A timed fetch waits until it has all that it asks for, or its time is over.
        let fetched = if fetched > 0 || timeout.is_zero() {
            fetched + self.fetch(Duration::ZERO, most.min(FETCH_MAX) - fetched)
        } else {
            0
        };
        for &message in &self.messages {
            // SAFETY: librdkafka gave us these; they are ours until we destroy them, after their last use.
            unsafe {
                each(self.read(&*message));
                sys::rd_kafka_message_destroy(message);
            }
        }
        self.messages.clear();
        fetched
    }

    fn read<'a>(&self, message: &'a sys::rd_kafka_message_t) -> Polled<'a> {
        if message.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Polled::Record(RecordRef { message });
        }
        // SAFETY: an error message's text is a C string that lives as long as the message; its topic may be null.
        let (text, topic) = unsafe {
            let text = CStr::from_ptr(sys::rd_kafka_message_errstr(message))
                .to_str()
                .unwrap_or("?");
            let topic = (!message.rkt.is_null()).then(|| RecordRef { message }.topic());
            (text, topic)
        };
        let partition = message.partition;
        let place = topic.map(|topic| (topic, partition));
        match (Code::from(message.err), topic) {
            (Code::PartitionEOF, Some(topic)) => Polled::End {
                topic,
                partition,
                offset: message.offset,
            },
            (Code::Fatal, _) => {
                let code = self.fatal_error().unwrap_or(Code::Fatal);
                Polled::Error(ErrorRef {
                    code,
                    text,
                    place: None,
                    fatal: true,
                })
            }
            (code, _) => Polled::Error(ErrorRef {
                code,
                text,
                place,
                fatal: false,
            }),
        }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_t {
        self.native
    }

    /// What made the client unusable, if it is.
    pub fn fatal_error(&self) -> Option<Code> {
        // SAFETY: the client is alive; no text is asked for.
        let code = unsafe { sys::rd_kafka_fatal_error(self.native, ptr::null_mut(), 0) };
        check(code).err()
    }

    /// Appends up to `most` messages.
    fn fetch(&mut self, timeout: Duration, most: usize) -> usize {
        let spare = &mut self.messages.spare_capacity_mut()[..most];
        // SAFETY: the queue is alive; at most `most` pointers are written, and as many as are returned.
        unsafe {
            let start = spare.as_mut_ptr().cast();
            let count = sys::rd_kafka_consume_batch_queue(self.queue, millis(timeout), start, most);
            let count = usize::try_from(count).unwrap_or(0);
            self.messages.set_len(self.messages.len() + count);
            count
        }
    }

    /// What the group wanted since the last call, in order.
    pub fn take_noted(&self) -> Vec<Noted> {
        std::mem::take(
            &mut *self
                .shared
                .noted
                .lock()
                .expect("nobody panics with it held"),
        )
    }

    /// Whether the partitions were given to others without asking us.
    pub fn is_assignment_lost(&self) -> bool {
        // SAFETY: the client is alive.
        unsafe { sys::rd_kafka_assignment_lost(self.native) != 0 }
    }

    /// Reads these from their offsets on, and nothing else. An empty list is an assignment too: it is how a member says that
    /// it knows it has nothing.
    pub fn assign(&self, list: &TopicPartitionList) -> Result<(), Code> {
        self.settle();
        // SAFETY: the client is alive; the list is copied.
        check(unsafe { sys::rd_kafka_assign(self.native, list.ptr()) })
    }

    /// Gives up all that is assigned.
    pub fn unassign(&self) -> Result<(), Code> {
        self.settle();
        // SAFETY: the client is alive; null stands for nothing.
        check(unsafe { sys::rd_kafka_assign(self.native, ptr::null()) })
    }

    /// Waits until librdkafka's own thread has done all that it was asked to before, and what followed from that; and has looked at
    /// its session since.
    ///
    /// An assignment that comes while the end of the one before is on its way stops the same partitions twice, and librdkafka
    /// aborts the process for it (its issue 5573). What it does about an assignment it asks itself to do, by its own queue: the first
    /// answer here comes after it has stopped the partitions, the second after it has taken note of that.
    pub fn settle(&self) {
        for _ in 0..2 {
            let mut list = ptr::null_mut();
            // SAFETY: the client is alive; the list is ours to destroy.
            unsafe {
                sys::rd_kafka_assignment(self.native, &raw mut list);
                if !list.is_null() {
                    sys::rd_kafka_topic_partition_list_destroy(list);
                }
            }
        }
    }

    pub fn pause(&self, list: &TopicPartitionList) -> Result<(), Code> {
        // SAFETY: client and list are alive.
        check(unsafe { sys::rd_kafka_pause_partitions(self.native, list.ptr()) })
    }

    pub fn resume(&self, list: &TopicPartitionList) -> Result<(), Code> {
        // SAFETY: client and list are alive.
        check(unsafe { sys::rd_kafka_resume_partitions(self.native, list.ptr()) })
    }

    /// Moves to the list's offsets. What was fetched before is not handed out any more. Returns the topics and partitions that are not
    /// read any more, since there was nothing at their offsets.
    pub fn seek(&self, list: &TopicPartitionList) -> Result<Vec<(String, i32)>, String> {
        // SAFETY: client and list are alive; the error object is taken over.
        let sought = unsafe {
            TransactionError::check(sys::rd_kafka_seek_partitions(
                self.native,
                list.ptr(),
                millis(REQUEST_MAX),
            ))
        };
        sought.map_err(|error| error.to_string())?;
        let mut stopped = Vec::new();
        for at in list.elements() {
            let place = (at.topic().to_owned(), at.partition());
            match at.error() {
                Ok(()) => {}
                Err(KafkaError::OffsetFetch(Code::State)) => stopped.push(place),
                Err(error) => return Err(format!("{}[{}]: {error}", place.0, place.1)),
            }
        }
        Ok(stopped)
    }

    /// Fills in the stable committed offsets with their metadata. Waits while a transaction has offsets pending.
    pub fn committed(&self, list: &TopicPartitionList) -> Result<(), String> {
        // SAFETY: client and list are alive.
        let code = unsafe { sys::rd_kafka_committed(self.native, list.ptr(), millis(REQUEST_MAX)) };
        check(code).map_err(|code| code.to_string())?;
        match list.elements().iter().find_map(|at| at.error().err()) {
            Some(error) => Err(error.to_string()),
            None => Ok(()),
        }
    }

    /// Commits offsets outside of any transaction.
    pub fn commit(&self, list: &TopicPartitionList) -> Result<(), Code> {
        // SAFETY: client and list are alive.
        check(unsafe { sys::rd_kafka_commit(self.native, list.ptr(), 0) })
    }

    /// Fills in the offsets of the next records to be handed out; `Offset::Invalid` where none was yet.
    pub fn position(&self, list: &TopicPartitionList) -> Result<(), Code> {
        // SAFETY: client and list are alive.
        check(unsafe { sys::rd_kafka_position(self.native, list.ptr()) })
    }

    /// First and next offset of a partition, as this client's isolation level sees them.
    pub fn watermarks(&self, topic: &str, partition: u32) -> Result<(i64, i64), Code> {
        let name = CString::new(topic).expect("Kafka's topic names hold no zero byte");
        let partition = i32::try_from(partition).expect("Kafka numbers partitions in 31 bits");
        let (mut low, mut high) = (0, 0);
        // SAFETY: the client is alive, the name is copied, two numbers are written.
        check(unsafe {
            sys::rd_kafka_query_watermark_offsets(
                self.native,
                name.as_ptr(),
                partition,
                &raw mut low,
                &raw mut high,
                millis(REQUEST_MAX),
            )
        })?;
        Ok((low, high))
    }

    /// The end of a partition that the last fetch told of. Nobody is asked.
    pub fn known_end(&self, topic: &str, partition: u32) -> Option<i64> {
        let name = CString::new(topic).ok()?;
        let partition = i32::try_from(partition).ok()?;
        let (mut low, mut high) = (0, 0);
        // SAFETY: the client is alive, the name is copied, two numbers are written.
        let code = unsafe {
            let (low, high) = (&raw mut low, &raw mut high);
            sys::rd_kafka_get_watermark_offsets(self.native, name.as_ptr(), partition, low, high)
        };
        check(code).ok().map(|()| high).filter(|&high| high >= 0)
    }

    /// Who we are in the group, right now; none where we are no member.
    pub fn group_metadata(&self) -> Option<GroupMetadata> {
        // SAFETY: the client is alive.
        unsafe { GroupMetadata::of_member(self.native) }
    }
}

impl Drop for NativeConsumer {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        if let Err(code) = self.unassign() {
            tracing::debug!(target: "millstream::kafka", "closing: {code}");
        }
        // SAFETY: the client is alive until destroy; `shared` is freed after this, when nobody is left to write it.
        unsafe {
            sys::rd_kafka_queue_destroy(self.queue);
            sys::rd_kafka_consumer_close(self.native);
            sys::rd_kafka_destroy(self.native);
        }
    }
}

// SAFETY: a librdkafka client may be used from any thread, and `&mut self` or ownership goes along with it.
unsafe impl Send for NativeConsumer {}

/// A list for one of the calls above.
pub fn list<'a>(
    places: impl IntoIterator<Item = (&'a str, u32, Option<i64>)>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in places {
        let partition = i32::try_from(partition).expect("Kafka numbers partitions in 31 bits");
        let offset = offset.map_or(Offset::Invalid, Offset::Offset);
        list.add_partition_offset(topic, partition, offset)
            .expect("offsets from Kafka are in range");
    }
    list
}

fn check(code: sys::rd_kafka_resp_err_t) -> Result<(), Code> {
    match code {
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(Code::from(code)),
    }
}

extern "C" fn on_rebalance(
    native: *mut sys::rd_kafka_t,
    code: sys::rd_kafka_resp_err_t,
    list: *mut sys::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    // SAFETY: the pointer is `new`'s, to what lives longer than the client.
    let shared = unsafe { &*opaque.cast::<Shared>() };
    if shared.closing.load(Ordering::SeqCst) {
        // SAFETY: the client is alive during its own callback.
        unsafe { sys::rd_kafka_assign(native, ptr::null()) };
        return;
    }
    let noted = if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
        // SAFETY: the list, of `cnt` elements with names that are C strings, is lent during the callback and copied here.
        let list = unsafe {
            let count = usize::try_from((*list).cnt).unwrap_or(0);
            let elements = if count == 0 {
                &[]
            } else {
                std::slice::from_raw_parts((*list).elems, count)
            };
            let name = |at: &sys::rd_kafka_topic_partition_t| {
                CStr::from_ptr(at.topic).to_string_lossy().into_owned()
            };
            elements.iter().map(|at| (name(at), at.partition)).collect()
        };
        Noted::Assign(list)
    } else {
        Noted::Revoke
    };
    shared
        .noted
        .lock()
        .expect("nobody panics with it held")
        .push(noted);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Until it has joined, librdkafka says -1 and no name, and brokers look at neither.
    #[test]
    fn who_is_not_in_the_group_has_nothing_to_commit_with() {
        let mut config = ClientConfig::new();
        config.set("group.id", "g");
        let consumer = NativeConsumer::new(&config).unwrap();
        assert!(consumer.group_metadata().is_none());
    }

    /// With librdkafka's own mock of a broker: it is enough to fetch from. Without [`NativeConsumer::settle`] this aborts the process,
    /// within the first hundreds of turns. The topic has to be known: else each assignment has partitions of its own.
    #[test]
    fn assignments_that_follow_one_another_at_once_do_not_stop_a_partition_twice() {
        let mut config = ClientConfig::new();
        config
            .set("test.mock.num.brokers", "1")
            .set("group.id", "g")
            .set("allow.auto.create.topics", "true")
            .set("enable.auto.commit", "false");
        let consumer = NativeConsumer::new(&config).unwrap();
        let is_known = || consumer.refresh("t") && consumer.watermarks("t", 0).is_ok();
        assert!((0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            is_known()
        }));
        for turn in 0..5_000 {
            let all = (0..4).map(|partition| ("t", partition, Some(0)));
            let wanted = all.filter(|(_, partition, _)| (turn + partition) % 3 > 0);
            consumer.assign(&list(wanted)).unwrap();
        }
    }
}
