//! A real Kafka, asked by scripts, in its own protocol. (A client library would hide what is asked here: it repeats requests, never
//! sends one late or twice on purpose, and has its own words for errors.) Requests are of the versions that librdkafka 2.12 sends,
//! so that a broker treats them as it would treat librdkafka's: no KIP-890.
//!
//! What says "not now" (a coordinator that loads, a transaction whose markers are being written) is asked again. While a producer's
//! markers are held back, CONCURRENT_TRANSACTIONS is its answer.

mod batch;
mod cleaner;
mod codec;
mod connection;
mod group;
mod markers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use millstream_broker::{
    Answer, Error, Isolation, Join, Marker, Membership, Outcome, PartitionOffset, Place, Producer,
    Records, Settings, Spec,
};

use crate::subject::{Joined, Seen, Subject};
use cleaner::Cleaner;
use codec::{Fields, Form, Request};
use connection::Connection;
use group::Seats;
pub use markers::Markers;

const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

/// COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER,
/// NOT_ENOUGH_REPLICAS, CONCURRENT_TRANSACTIONS.
const NOT_NOW: [i16; 7] = [14, 15, 16, 5, 6, 19, 51];

const FETCH_BYTES: i32 = 1 << 20;
const ANSWER_WITHIN_MS: i32 = 30_000;

/// The topic of groups' offsets.
const OFFSETS: &str = "__consumer_offsets";

const KEY_GROUP: i8 = 0;
const KEY_TRANSACTION: i8 = 1;

pub struct Wire {
    bootstrap: String,
    connection: Connection,
    seats: Seats,
    markers: Markers,
    cleaner: Cleaner,
    /// The producer ids of transactional.ids.
    ids: BTreeMap<String, i64>,
    /// Whose coordinator is known to be there.
    found: BTreeSet<(i8, String)>,
    restart: Box<dyn FnMut()>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("bootstrap", &self.bootstrap)
            .finish_non_exhaustive()
    }
}

/// A code of the protocol as an answer.
fn check(code: i16) -> Answer<()> {
    if code == 0 {
        return Ok(());
    }
    let known = Error::ALL.iter().find(|error| error.code() == code);
    Err(*known.unwrap_or_else(|| panic!("Kafka answered the error {code}, unknown to the model")))
}

impl Wire {
    /// A client of the broker at `bootstrap` with that data folder, which `restart` kills and starts again, and whose markers go by
    /// that proxy.
    #[must_use]
    pub fn new(
        bootstrap: &str,
        data: PathBuf,
        markers: Markers,
        restart: Box<dyn FnMut()>,
    ) -> Self {
        markers.release_all();
        Self {
            bootstrap: bootstrap.into(),
            connection: Connection::open(bootstrap, "scripts"),
            seats: Seats::default(),
            markers,
            cleaner: Cleaner::new(data),
            ids: BTreeMap::new(),
            found: BTreeSet::new(),
            restart,
        }
    }

    /// Asks until the answer is something else than "not now". `read` gives the error code, and what else there is.
    fn ask<T>(&mut self, request: &Request, read: impl Fn(&mut Fields) -> (i16, T)) -> Answer<T> {
        self.ask_as(None, request, read)
    }

    /// The same by a producer, if its id is known.
    fn ask_as<T>(
        &mut self,
        producer_id: Option<i64>,
        request: &Request,
        read: impl Fn(&mut Fields) -> (i16, T),
    ) -> Answer<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (code, answer) = read(&mut self.connection.call(request));
            let waits = code == Error::ConcurrentTransactions.code()
                && producer_id.is_some_and(|id| self.markers.hold_back(id));
            if waits || !NOT_NOW.contains(&code) {
                return check(code).map(|()| answer);
            }
            assert!(Instant::now() < deadline, "{request:?}: still {code}");
            thread::sleep(PAUSE);
        }
    }

    /// Waits for what the broker does by itself: what the controller told it, what the coordinator of transactions has still to do.
    fn until(&mut self, what: &str, done: impl Fn(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what} neither comes nor goes");
            thread::sleep(PAUSE);
        }
    }

    fn has(&mut self, at: Place<'_>) -> bool {
        self.list_offset(at, Spec::Earliest).is_ok()
    }

    /// Asking for a coordinator creates its topic where that is missing.
    fn find_coordinator(&mut self, kind: i8, key: &str) {
        if !self.found.insert((kind, key.into())) {
            return;
        }
        let mut request = Request::new(10, 2, Form::Plain);
        request.string(key).i8(kind);
        let found = self.ask(&request, |answer| {
            answer.i32();
            (answer.i16(), ())
        });
        found.expect("a coordinator is found sooner or later");
        if kind == KEY_GROUP {
            // Found, it may still be loading.
            let described = self.ask(&group::describe(key), |answer| {
                answer.array();
                (answer.i16(), ())
            });
            described.expect("any group can be described");
        }
    }

    /// The number of partitions, all of them with a leader.
    fn metadata(&mut self, topic: &str) -> Answer<u32> {
        let mut request = Request::new(3, 4, Form::Plain);
        request.array(1).string(topic).bool(false);
        self.ask(&request, |answer| {
            answer.i32();
            for _ in 0..answer.array() {
                answer.i32();
                answer.string();
                answer.i32();
                answer.string();
            }
            answer.string();
            answer.i32();
            answer.array();
            let mut code = answer.i16();
            answer.string();
            answer.bool();
            let partitions = answer.array();
            for _ in 0..partitions {
                code = code.max(answer.i16());
                for _ in 0..2 {
                    answer.i32();
                }
                for _ in 0..2 {
                    for _ in 0..answer.array() {
                        answer.i32();
                    }
                }
            }
            let partitions = u32::try_from(partitions).expect("a topic has few partitions");
            (code, partitions)
        })
    }

    /// The markers of a group's offsets stand in a partition of the topic that keeps them.
    fn marker_place(&mut self, at: &Marker) -> (String, u32) {
        match at {
            Marker::Partition(topic, partition) => (topic.clone(), *partition),
            Marker::Group(group) => {
                self.find_coordinator(KEY_GROUP, group);
                let partitions = self.metadata(OFFSETS);
                let partitions = partitions.expect("a group's coordinator has the topic");
                (OFFSETS.into(), hash(group).unsigned_abs() % partitions)
            }
        }
    }

    fn add_to_transaction(&mut self, producer: &Producer, at: Place<'_>) -> Answer<()> {
        let mut request = Request::new(24, 0, Form::Plain);
        identity(&mut request, producer);
        request.array(1).string(at.0).array(1).partition(at.1);
        self.ask_as(Some(producer.id), &request, |answer| {
            answer.i32();
            (answer.partition_error(), ())
        })
    }

    fn txn_offset_commit(
        &mut self,
        producer: &Producer,
        group: &str,
        member: &Membership<'_>,
        offsets: &[PartitionOffset<'_>],
    ) -> Answer<()> {
        let mut add = Request::new(25, 0, Form::Plain);
        identity(&mut add, producer);
        add.string(group);
        self.ask_as(Some(producer.id), &add, |answer| {
            answer.i32();
            (answer.i16(), ())
        })?;
        let mut request = Request::new(28, 3, Form::Compact);
        let id = producer.transactional_id.as_deref();
        request.nullable(id).string(group);
        request.i64(producer.id).i16(producer.epoch);
        request.i32(member.generation).string(member.member_id);
        request.nullable(member.instance_id);
        offsets_of(&mut request, offsets);
        request.tags();
        self.ask(&request, worst)
    }
}

/// Java's `String.hashCode`, by which groups are spread over partitions (`GroupMetadataManager.partitionFor`).
fn hash(group: &str) -> i32 {
    let units = group.encode_utf16();
    units.fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

fn identity(request: &mut Request, producer: &Producer) {
    let id = producer.transactional_id.as_deref();
    request.nullable(id).i64(producer.id).i16(producer.epoch);
}

fn offsets_of(request: &mut Request, offsets: &[PartitionOffset<'_>]) {
    request.array(offsets.len());
    for at in offsets {
        request.string(at.topic).array(1).partition(at.partition);
        request.i64(at.offset).i32(-1).string(at.metadata);
        request.tags().tags();
    }
}

/// The first error of an answer about several partitions.
fn worst(answer: &mut Fields) -> (i16, ()) {
    answer.i32();
    let mut code = 0;
    for _ in 0..answer.array() {
        answer.string();
        for _ in 0..answer.array() {
            answer.i32();
            let found = answer.i16();
            code = if code == 0 { found } else { code };
            answer.tags();
        }
        answer.tags();
    }
    (code, ())
}

fn isolation_level(isolation: Isolation) -> i8 {
    match isolation {
        Isolation::ReadUncommitted => 0,
        Isolation::ReadCommitted => 1,
    }
}

impl Subject for Wire {
    fn create_topic(&mut self, name: &str, partitions: u32, settings: &Settings) -> Answer<()> {
        let mut request = Request::new(19, 4, Form::Plain);
        request.array(1).string(name).partition(partitions).i16(-1);
        let configs = cleaner::configs(settings);
        request.array(0).array(configs.len());
        for (key, value) in configs {
            request.string(key).string(&value);
        }
        request.i32(ANSWER_WITHIN_MS).bool(false);
        self.ask(&request, |answer| {
            answer.i32();
            answer.array();
            answer.string();
            (answer.i16(), ())
        })?;
        // The controller has it; the broker follows.
        self.until(name, |wire| wire.metadata(name).is_ok());
        self.until(name, |wire| {
            (0..partitions).all(|each| wire.has((name, each)))
        });
        Ok(())
    }

    fn delete_topic(&mut self, name: &str) -> Answer<()> {
        let partitions = self.metadata(name).unwrap_or(0);
        let mut request = Request::new(20, 3, Form::Plain);
        request.array(1).string(name).i32(ANSWER_WITHIN_MS);
        self.ask(&request, |answer| {
            answer.i32();
            answer.array();
            answer.string();
            (answer.i16(), ())
        })?;
        // The broker's metadata is without it before its logs are gone: `ListOffsets` looks at the logs alone.
        self.until(name, |wire| wire.metadata(name).is_err());
        self.until(name, |wire| {
            (0..partitions).all(|each| !wire.has((name, each)))
        });
        self.markers.forget(name);
        Ok(())
    }

    fn partitions(&mut self, name: &str) -> Answer<u32> {
        self.metadata(name)
    }

    fn delete_records(&mut self, at: Place<'_>, before: i64) -> Answer<()> {
        let mut request = Request::new(21, 1, Form::Plain);
        request.array(1).string(at.0).array(1).partition(at.1);
        request.i64(before).i32(ANSWER_WITHIN_MS);
        self.ask(&request, |answer| {
            answer.i32();
            answer.array();
            answer.string();
            answer.array();
            answer.i32();
            answer.i64();
            (answer.i16(), ())
        })
    }

    fn compact(&mut self, at: Place<'_>) -> Answer<()> {
        let end = self.list_offset(at, Spec::Latest(Isolation::ReadUncommitted))?;
        let stable = self.list_offset(at, Spec::Latest(Isolation::ReadCommitted))?;
        let to = stable.min(end - 1);
        self.until(at.0, |wire| wire.cleaner.offset(at) >= Some(to));
        Ok(())
    }

    fn init_producer_id(&mut self, id: Option<&str>, timeout_ms: i64) -> Answer<Producer> {
        if let Some(id) = id {
            self.find_coordinator(KEY_TRANSACTION, id);
        }
        let mut request = Request::new(22, 4, Form::Compact);
        let timeout_ms = i32::try_from(timeout_ms).expect("scripts wait for seconds, not weeks");
        request.nullable(id).i32(timeout_ms).i64(-1).i16(-1).tags();
        let before = id.and_then(|id| self.ids.get(id)).copied();
        let producer = self.ask_as(before, &request, |answer| {
            answer.i32();
            let code = answer.i16();
            let producer = Producer {
                transactional_id: id.map(str::to_owned),
                id: answer.i64(),
                epoch: answer.i16(),
            };
            (code, producer)
        })?;
        if let Some(id) = id {
            self.ids.insert(id.into(), producer.id);
        }
        Ok(producer)
    }

    fn produce(
        &mut self,
        producer: Option<&Producer>,
        at: Place<'_>,
        sequence: i32,
        records: Records,
    ) -> Answer<i64> {
        let id = producer.and_then(|producer| producer.transactional_id.as_deref());
        if let (Some(_), Some(producer)) = (id, producer) {
            self.add_to_transaction(producer, at)?;
        }
        let mut request = Request::new(0, 7, Form::Plain);
        request.nullable(id).i16(-1).i32(ANSWER_WITHIN_MS);
        request.array(1).string(at.0).array(1).partition(at.1);
        request.bytes(&batch::encode(producer, sequence, &records));
        self.ask(&request, |answer| {
            let code = answer.partition_error();
            (code, answer.i64())
        })
    }

    fn end_transaction(&mut self, producer: &Producer, outcome: Outcome) -> Answer<()> {
        let mut request = Request::new(26, 1, Form::Plain);
        identity(&mut request, producer);
        request.bool(outcome == Outcome::Commit);
        let read = |answer: &mut Fields| {
            answer.i32();
            (answer.i16(), ())
        };
        self.ask_as(Some(producer.id), &request, read)?;
        // Asked once more, it says whether the markers are written: until then it is "not now".
        match self.ask_as(Some(producer.id), &request, read) {
            Err(Error::ConcurrentTransactions) => Ok(()),
            answer => answer,
        }
    }

    fn fetch(
        &mut self,
        at: Place<'_>,
        from: i64,
        isolation: Isolation,
    ) -> Answer<(Vec<Seen>, i64)> {
        let (mut seen, mut position) = (Vec::new(), from);
        loop {
            let mut request = Request::new(1, 4, Form::Plain);
            request.i32(-1).i32(0).i32(0).i32(FETCH_BYTES);
            request.i8(isolation_level(isolation));
            request.array(1).string(at.0).array(1).partition(at.1);
            request.i64(position).i32(FETCH_BYTES);
            let (aborted, bytes) = self.ask(&request, |answer| {
                answer.i32();
                let code = answer.partition_error();
                answer.i64();
                answer.i64();
                let aborted = (0..answer.array()).map(|_| (answer.i64(), answer.i64()));
                let aborted: Vec<_> = aborted.collect();
                (code, (aborted, answer.blob()))
            })?;
            let next = batch::decode(&bytes, &aborted, position, &mut seen);
            if next == position {
                return Ok((seen, position));
            }
            position = next;
        }
    }

    fn list_offset(&mut self, at: Place<'_>, spec: Spec) -> Answer<i64> {
        const EARLIEST: i64 = -2;
        const LATEST: i64 = -1;
        let (isolation, time) = match spec {
            Spec::Earliest => (Isolation::ReadUncommitted, EARLIEST),
            Spec::Latest(isolation) => (isolation, LATEST),
        };
        let mut request = Request::new(2, 2, Form::Plain);
        request.i32(-1).i8(isolation_level(isolation));
        request.array(1).string(at.0).array(1).partition(at.1);
        request.i64(time);
        self.ask(&request, |answer| {
            answer.i32();
            let code = answer.partition_error();
            answer.i64();
            (code, answer.i64())
        })
    }

    fn commit_offsets(
        &mut self,
        producer: Option<&Producer>,
        group: &str,
        member: &Membership<'_>,
        offsets: &[PartitionOffset<'_>],
    ) -> Answer<()> {
        self.find_coordinator(KEY_GROUP, group);
        if let Some(producer) = producer {
            return self.txn_offset_commit(producer, group, member, offsets);
        }
        let mut request = Request::new(8, 7, Form::Plain);
        request.string(group).i32(member.generation);
        request
            .string(member.member_id)
            .nullable(member.instance_id);
        offsets_of(&mut request, offsets);
        self.ask(&request, worst)
    }

    fn fetch_offset(
        &mut self,
        group: &str,
        at: Place<'_>,
        require_stable: bool,
    ) -> Answer<Option<(i64, String)>> {
        self.find_coordinator(KEY_GROUP, group);
        let mut request = Request::new(9, 7, Form::Compact);
        request.string(group).array(1).string(at.0);
        request.array(1).partition(at.1).tags();
        request.bool(require_stable).tags();
        let (offset, metadata) = self.ask(&request, |answer| {
            answer.i32();
            answer.array();
            answer.string();
            answer.array();
            answer.i32();
            let offset = answer.i64();
            answer.i32();
            let metadata = answer.string();
            (answer.i16(), (offset, metadata))
        })?;
        Ok((offset >= 0).then_some((offset, metadata)))
    }

    fn join_group(&mut self, name: &str, group: &str, join: &Join<'_>) {
        self.find_coordinator(KEY_GROUP, group);
        let (connection, bootstrap) = (&mut self.connection, &self.bootstrap);
        self.seats.join(connection, bootstrap, (name, group), join);
    }

    fn joined(&mut self, names: &[&str]) -> Vec<Answer<Joined>> {
        let mut seats = std::mem::take(&mut self.seats);
        let answers = seats.joined(names, |topic| self.metadata(topic).unwrap_or(0));
        self.seats = seats;
        answers
    }

    fn heartbeat(&mut self, group: &str, member: &Membership<'_>) -> Answer<()> {
        let mut request = Request::new(12, 3, Form::Plain);
        request.string(group).i32(member.generation);
        request
            .string(member.member_id)
            .nullable(member.instance_id);
        self.ask(&request, |answer| {
            answer.i32();
            (answer.i16(), ())
        })
    }

    fn leave_group(&mut self, group: &str, member: &Membership<'_>) -> Answer<()> {
        let mut request = Request::new(13, 3, Form::Plain);
        request.string(group).array(1);
        request
            .string(member.member_id)
            .nullable(member.instance_id);
        self.ask(&request, |answer| {
            answer.i32();
            let code = answer.i16();
            answer.array();
            answer.string();
            answer.string();
            (if code == 0 { answer.i16() } else { code }, ())
        })
    }

    fn hold_marker(&mut self, at: &Marker) {
        let place = self.marker_place(at);
        self.markers.hold(place);
    }

    fn release_marker(&mut self, at: &Marker) {
        let place = self.marker_place(at);
        self.markers.release(&place);
        let name = format!("the marker in {place:?}");
        self.until(&name, |wire| !wire.markers.are_missing(&place));
    }

    fn wait(&mut self, ms: u32) {
        thread::sleep(Duration::from_millis(ms.into()));
    }

    fn restart(&mut self) {
        let waiting = self.markers.waiting();
        (self.restart)();
        self.connection = Connection::open(&self.bootstrap, "scripts");
        self.seats = Seats::default();
        self.found.clear();
        // The coordinator asks for all markers of what it finds decided.
        for producer_id in waiting {
            self.until("what was decided", |wire| {
                wire.markers.hold_back(producer_id)
            });
        }
    }
}
