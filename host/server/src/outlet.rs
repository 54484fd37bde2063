//! Where a worker's records leave: its producer, made again after every epoch that did not end cleanly, and which of the producer's
//! topics a sink or a changelog is.
//!
//! Invariant: a producer that comes out of [`Outlet::open`] has its transactional.id, and nothing that the seat's earlier producers
//! left open is open any more.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use millstream_engine::pipeline::{Guarantee, MapId, Pipeline, SinkId, Target};
use millstream_engine::record::{Headers, Record};
use millstream_engine::state::changelog;
use millstream_engine::state::overlay::Change;
use millstream_engine::task::run::Output;

use crate::cluster::{Cluster, InitError, Producer};
use crate::fault;
use crate::insist::{Stopping, insist};
use crate::topics::Topics;

/// How often a producer is asked whether it is initialised until another is made in its place, first and at most, and how long it is
/// waited for each time.
const TRIES_FIRST: u32 = 10;
const TRIES_MOST: u32 = 40;
const TRY: Duration = Duration::from_millis(500);

/// Everything that a worker's producer is made of.
#[derive(Clone, Debug)]
pub struct Outlet<C> {
    pub cluster: C,
    pub worker: u32,
    /// The producer's topics: those of the topic sinks, then the changelogs.
    topics: Vec<String>,
    /// By sink, for those that write a topic: its index in `topics`, and of a stream's topic the number of partitions.
    sinks: Vec<Option<(usize, Option<u32>)>>,
    /// By map, for those that the pipeline writes: the index in `topics` of its changelog.
    changelogs: Vec<Option<usize>>,
    /// The smallest and the largest `max.message.bytes` of the topics.
    record_bytes: (usize, usize),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Stopping(#[from] Stopping),
    #[error("the producer can't be initialised: {0}")]
    Refused(String),
}

impl<C: Cluster> Outlet<C> {
    pub fn new(cluster: &C, worker: u32, pipeline: &Pipeline, used: &Topics) -> Self {
        let mut topics = Vec::new();
        let mut add = |topic: String| {
            topics.push(topic);
            topics.len() - 1
        };
        let sinks = pipeline.sinks.iter().map(|sink| match &sink.target {
            Target::Topic(topic) => Some((add(topic.clone()), None)),
            Target::Stream(topic) => Some((add(topic.clone()), Some(used.map_partitions))),
            Target::Map(_) => None,
        });
        let sinks = sinks.collect();
        let maps = pipeline.maps.iter().enumerate();
        let changelogs = maps.map(|(id, map)| {
            let own = map.kept.is_own();
            own.then(|| add(pipeline.changelog(MapId(id))))
        });
        let changelogs: Vec<Option<usize>> = changelogs.collect();
        let sunk = used.limits.iter().map(|limit| limit.record_bytes_max);
        let kept = changelogs.iter().zip(&used.maps);
        let kept = kept.filter_map(|(own, facts)| own.is_some().then_some(facts.record_bytes_max));
        let bytes = sunk.chain(kept);
        let record_bytes = (bytes.clone().min().unwrap_or(0), bytes.max().unwrap_or(0));
        Self {
            cluster: cluster.clone(),
            worker,
            topics,
            sinks,
            changelogs,
            record_bytes,
        }
    }

    /// The same for another seat of this process.
    pub fn of(&self, worker: u32) -> Self {
        Self {
            worker,
            ..self.clone()
        }
    }

    /// A producer in its seat. Tries until there is one; `between` is called now and then meanwhile. The seat's last producer must be
    /// gone: it might still send what it was asked to. One whose request was lost waits for its answer for long, and is made anew, with
    /// ever more time.
    pub fn open(&self, stop: &AtomicBool, between: &dyn Fn()) -> Result<C::Producer, OpenError> {
        let mut tries = TRIES_FIRST;
        let opened = insist(stop, "initialising the producer", between, || {
            let seat = self.cluster.seat(self.worker);
            let producer = self
                .cluster
                .producer(&seat, &self.topics, self.record_bytes)?;
            let initialised = self.init(&producer, tries, between);
            tries = (tries * 2).min(TRIES_MOST);
            match initialised {
                Ok(()) => Ok(Ok(producer)),
                Err(InitError::Refused(why)) => Ok(Err(why)),
                Err(InitError::Again(why) | InitError::Ending(why) | InitError::Failed(why)) => {
                    Err(why)
                }
            }
        })?;
        opened.map_err(OpenError::Refused)
    }

    fn init(
        &self,
        producer: &C::Producer,
        tries: u32,
        between: &dyn Fn(),
    ) -> Result<(), InitError> {
        if self.cluster.guarantee() == Guarantee::AtLeastOnce {
            return Ok(());
        }
        let mut result = Ok(());
        for _ in 0..tries {
            result = producer.init(TRY);
            match &result {
                Err(InitError::Again(_) | InitError::Ending(_)) => between(),
                _ => return result,
            }
        }
        result
    }

    pub fn send_change(
        &self,
        producer: &mut C::Producer,
        change: &Change<'_>,
    ) -> Result<(), String> {
        let none = Headers::default();
        let record = Record {
            key: Some(change.key),
            value: change.value,
            timestamp: change.timestamp,
            headers: none.of(0),
        };
        let changelog = self.changelogs[change.map.0];
        let topic = changelog.expect("only maps that the pipeline writes are changed");
        fault::reach("epoch-change-sending");
        fault::stamped(&record, |record| {
            producer.send(topic, Some(change.partition), record)
        })
    }
}

/// Where topic sinks' records go.
#[derive(Debug)]
pub struct Sending<'a, C: Cluster> {
    pub producer: &'a mut C::Producer,
    pub outlet: &'a Outlet<C>,
}

impl<C: Cluster> Output for Sending<'_, C> {
    fn send(&mut self, sink: SinkId, record: &Record<'_>) -> Result<(), String> {
        let target = self.outlet.sinks[sink.0];
        let (topic, keyed) = target.expect("the engine sends only what goes to topics");
        let partition = keyed.map(|partitions| {
            let key = record
                .key
                .expect("the engine lets no null key into a stream");
            changelog::partition(key, partitions)
        });
        fault::reach("epoch-output-sending");
        fault::stamped(record, |record| {
            self.producer.send(topic, partition, record)
        })
    }
}
