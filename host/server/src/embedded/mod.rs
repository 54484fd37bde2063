//! A Kafka within the process: the clients that `cluster` wants, on the broker in memory. For trying a pipeline without a Kafka, and
//! for tests; what it holds is gone with the process.
//!
//! Invariant: the broker's lock is held for one request, and nothing is waited for with it held.

mod admin;
mod keeper;
mod member;
mod producer;
mod reader;

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use millstream_broker::{Broker, Error, Fetched, Isolation, Place, Settings};
use millstream_engine::pipeline::{Guarantee, Kept, Pipeline, Target};

use crate::cluster::{AdminError, Cluster, Group};
use crate::wall_clock::now;

pub use admin::Admin;
pub use keeper::Keeper;
pub use member::{Commit, Member};
pub use producer::Producer;
pub use reader::Reader;

/// How many partitions the pipeline's topics have.
pub const PARTITIONS: u32 = 4;

/// What a fetch takes out of one partition, in bytes; the first batch at any size.
const FETCH_BYTES: usize = 256 << 10;

/// The broker, and word of what changes in it.
#[derive(Debug, Default)]
pub struct Shared {
    broker: Mutex<Broker>,
    changed: Condvar,
}

impl Shared {
    /// One request that only reads.
    pub fn ask<T>(&self, request: impl FnOnce(&Broker) -> T) -> T {
        request(&self.lock())
    }

    /// One request that may change something; `now` is its time.
    pub fn tell<T>(&self, request: impl FnOnce(&mut Broker, i64) -> T) -> T {
        let answer = request(&mut self.lock(), now());
        self.changed.notify_all();
        answer
    }

    /// What is committed from an offset on, about `bytes` of it.
    pub fn fetch(&self, at: Place<'_>, offset: i64, bytes: usize) -> Result<Fetched, Error> {
        self.ask(|broker| broker.fetch(at, offset, Isolation::ReadCommitted, bytes))
    }

    /// Waits until something has changed, at most `timeout`.
    fn wait(&self, timeout: Duration) {
        let waited = self.changed.wait_timeout(self.lock(), timeout);
        drop(waited.expect(UNPOISONED));
    }

    fn lock(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().expect(UNPOISONED)
    }
}

const UNPOISONED: &str = "a panic ends the process";

/// As whom it is noted how far a pipeline's outputs were written out. No pipeline has a blank in its name.
pub fn out_group(pipeline: &str) -> String {
    format!("{pipeline} --out")
}

/// The clients of one pipeline's instance.
#[derive(Clone, Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    pipeline: String,
    instance: String,
    guarantee: Guarantee,
}

impl Embedded {
    /// A new broker, with the pipeline's topics.
    pub fn new(pipeline: &Pipeline, instance: &str) -> Self {
        let embedded = Self {
            shared: Arc::default(),
            pipeline: pipeline.name.clone(),
            instance: instance.into(),
            guarantee: pipeline.guarantee,
        };
        let sources = pipeline.topics.iter().map(|topic| topic.topic.as_str());
        let sinks = pipeline.sinks.iter().filter_map(|sink| match &sink.target {
            Target::Topic(topic) => Some(topic.as_str()),
            Target::Map(_) | Target::Stream(_) => None,
        });
        // Streams are among the sources.
        // What is written or consumed record by record can't be compacted: a topic is made as it is named first.
        let records = sources.chain(sinks).map(|topic| (topic, false));
        let tables = pipeline.maps.iter().filter_map(|map| match &map.kept {
            Kept::Topic(topic) => Some((topic.as_str(), true)),
            Kept::Changelog | Kept::State => None,
        });
        for (topic, compact) in records.chain(tables) {
            let settings = Settings {
                compact,
                ..Settings::default()
            };
            embedded.shared.tell(|broker, _| {
                match broker.create_topic(topic, PARTITIONS, settings) {
                    Ok(()) | Err(Error::TopicAlreadyExists) => {}
                    Err(error) => panic!("topic {topic} can't be made: {error}"),
                }
            });
        }
        embedded
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Cluster for Embedded {
    type Admin = Admin;
    type Member = Member;
    type Producer = Producer;
    type Reader = Reader;
    type Commit = Commit;

    fn guarantee(&self) -> Guarantee {
        self.guarantee
    }

    fn pipeline(&self) -> &str {
        &self.pipeline
    }

    fn instance(&self) -> &str {
        &self.instance
    }

    /// Nobody else asks.
    fn answering_at(&self, _: &str) -> Self {
        self.clone()
    }

    fn session(&self) -> Duration {
        member::SESSION
    }

    fn pending_max(&self) -> Duration {
        Duration::from_millis(producer::TRANSACTION_MAX.unsigned_abs())
    }

    fn last_metadata(&self, places: &[(&str, u32)]) -> Result<Vec<String>, String> {
        let told = self.shared.ask(|broker| {
            let places = places.iter();
            let offsets = places.map(|&place| broker.fetch_offset(&self.pipeline, place, false));
            offsets
                .map(|found| Ok(found?.map_or_else(String::new, |found| found.metadata.clone())))
                .collect::<Result<_, Error>>()
        });
        told.map_err(|error| error.to_string())
    }

    /// Nobody but this process can reach the broker, and it knows what it has.
    fn group(&self) -> Result<Group, String> {
        Ok(Group::default())
    }

    fn admin(&self) -> Result<Admin, AdminError> {
        Ok(Admin::new(Arc::clone(&self.shared), &self.pipeline))
    }

    fn join(&self, worker: u32, topics: &[String]) -> Result<Member, String> {
        let shared = Arc::clone(&self.shared);
        Member::join(shared, &self.pipeline, self.seat(worker), topics)
            .map_err(|error| error.to_string())
    }

    fn producer(
        &self,
        seat: &str,
        topics: &[String],
        _: (usize, usize),
    ) -> Result<Producer, String> {
        let shared = Arc::clone(&self.shared);
        Producer::new(shared, seat.to_owned(), topics).map_err(|error| error.to_string())
    }

    fn reader(&self) -> Result<Reader, String> {
        Ok(Reader::new(Arc::clone(&self.shared)))
    }
}
