//! A worker's producer on the broker in memory: batches records by partition, in a transaction.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use millstream_broker::{self as broker, Error, Membership, Outcome, PartitionOffset, Records};
use millstream_engine::commit::verdict::{Sends, Verdict};
use millstream_engine::record::Record;
use millstream_engine::state::changelog;

use super::{Commit, Shared};
use crate::cluster::{self, InitError};
use crate::wall_clock::now;

/// A batch is sent once it is so large.
const BATCH_BYTES: usize = 64 << 10;

/// How long a transaction may be open, in milliseconds: nobody else's time-out has to be waited for here.
pub const TRANSACTION_MAX: i64 = 900_000;

#[derive(Debug)]
pub struct Producer {
    shared: Arc<Shared>,
    transactional_id: String,
    /// None without transactions.
    identity: OnceCell<broker::Producer>,
    topics: Vec<Topic>,
    /// Records without a key go to one partition after the other.
    next: u32,
    failed: Option<String>,
}

#[derive(Debug)]
struct Topic {
    name: String,
    partitions: Vec<Partition>,
}

#[derive(Debug, Default)]
struct Partition {
    waiting: Records,
    sequence: i32,
}

impl Producer {
    pub fn new(
        shared: Arc<Shared>,
        transactional_id: String,
        topics: &[String],
    ) -> Result<Self, Error> {
        let topic = |name: &String| {
            let partitions = shared.ask(|broker| broker.partitions(name))?;
            Ok(Topic {
                name: name.clone(),
                partitions: (0..partitions).map(|_| Partition::default()).collect(),
            })
        };
        Ok(Self {
            transactional_id,
            identity: OnceCell::new(),
            topics: topics.iter().map(topic).collect::<Result<_, Error>>()?,
            next: 0,
            failed: None,
            shared,
        })
    }

    fn produce(&mut self, topic: usize, partition: usize) -> Result<(), String> {
        let Topic { name, partitions } = &mut self.topics[topic];
        let number = u32::try_from(partition).expect("a topic has fewer than 2^32 partitions");
        let place = &mut partitions[partition];
        if place.waiting.is_empty() {
            return Ok(());
        }
        let records = std::mem::take(&mut place.waiting);
        let count = i32::try_from(records.len()).expect("a batch is small");
        let identity = self.identity.get();
        let produced = self.shared.tell(|broker, now| {
            broker.produce(now, identity, (name, number), place.sequence, records)
        });
        place.sequence = place.sequence.wrapping_add(count) & i32::MAX;
        if let Err(error) = produced {
            let why = format!("records for {name} were not taken: {error}");
            self.failed.get_or_insert(why.clone());
            return Err(why);
        }
        Ok(())
    }

    fn try_commit(&self, commit: &Commit) -> Result<(), Error> {
        let identity = self.identity.get().ok_or(Error::InvalidProducerIdMapping)?;
        let member = Membership {
            member_id: &commit.member_id,
            instance_id: Some(&commit.seat),
            generation: commit.generation,
        };
        let offsets = commit
            .offsets
            .iter()
            .map(|(topic, partition, offset)| PartitionOffset {
                topic,
                partition: *partition,
                offset: *offset,
                metadata: &commit.metadata,
            });
        let offsets: Vec<_> = offsets.collect();
        self.shared.tell(|broker, now| {
            broker.commit_offsets_in_transaction(
                now,
                identity,
                &commit.group,
                &member,
                &offsets,
            )?;
            broker.end_transaction(identity, Outcome::Commit)
        })
    }
}

impl cluster::Producer for Producer {
    type Commit = Commit;

    fn init(&self, _: Duration) -> Result<(), InitError> {
        let id = Some(self.transactional_id.as_str());
        let given = self
            .shared
            .tell(|broker, _| broker.init_producer_id(id, TRANSACTION_MAX));
        let identity = given.map_err(|error| InitError::Failed(error.to_string()))?;
        self.identity
            .set(identity)
            .map_err(|_| InitError::Failed("it is initialised already".into()))
    }

    fn begin(&self) -> Result<(), String> {
        // The first request of a transaction begins it.
        Ok(())
    }

    fn send(
        &mut self,
        topic: usize,
        partition: Option<u32>,
        record: &Record<'_>,
    ) -> Result<(), String> {
        let partitions = &mut self.topics[topic].partitions;
        let count =
            u32::try_from(partitions.len()).expect("a topic has fewer than 2^32 partitions");
        let partition = partition.unwrap_or_else(|| match record.key {
            Some(key) => changelog::partition(key, count),
            None => {
                self.next = self.next.wrapping_add(1);
                self.next % count
            }
        });
        let partition = partition as usize;
        let waiting = &mut partitions[partition].waiting;
        // As librdkafka does with what has no time.
        let timestamp = if record.timestamp > 0 {
            record.timestamp
        } else {
            now()
        };
        waiting.push(timestamp, record.key, record.value, record.headers.iter());
        if waiting.size() >= BATCH_BYTES {
            self.produce(topic, partition)?;
        }
        Ok(())
    }

    fn poll(&self) -> Result<(), String> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn flush(&mut self, _: &dyn Fn() -> bool) -> Result<(), String> {
        for topic in 0..self.topics.len() {
            for partition in 0..self.topics[topic].partitions.len() {
                self.produce(topic, partition)?;
            }
        }
        self.poll()
    }

    fn commit(&mut self, commit: &Commit, _: &dyn Fn() -> bool) -> Verdict {
        match self.try_commit(commit) {
            Ok(()) => Verdict::Committed(Sends::Once),
            Err(error) => Verdict::Aborted(error.to_string()),
        }
    }

    fn refusal(&self) -> Option<String> {
        None
    }
}
