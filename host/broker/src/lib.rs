//! A model of Kafka in memory: as much of one broker as a transactional client and a member of a group can see of it.
//!
//! Callers ask what Kafka's requests ask and get what they answer. The model has no I/O, clock, thread or randomness: calls that
//! depend on the time take `now`, in milliseconds since 1970-01-01 UTC, and what happens by time-outs happens in [`Broker::tick`].
//! So the same calls always give the same answers. Its facts are held against a real Kafka by `tests/conformance`.
//!
//! Folded into one call are requests that a client always sends together: Produce adds its partition to the transaction
//! (AddPartitionsToTxn), TxnOffsetCommit its group (AddOffsetsToTxn), JoinGroup asks for a member id (KIP-394), and SyncGroup waits
//! for JoinGroup's answer. The broker does the group leader's work, by the range rule.
//!
//! **Absent on purpose.** Replicas, so the high watermark is always the end of the log; transactions by KIP-890 (librdkafka has
//! none), so that a request to end a transaction ends the next one of the same epoch if it comes late; quotas, permissions, retention by
//! itself. A transaction's markers are written at once, unless whoever asks wants to say when ([`Broker::hold_markers`]).

#![forbid(unsafe_code)]

mod error;
mod group;
mod inspect;
mod log;
mod offsets;
mod record;
mod transaction;

use std::collections::BTreeMap;

pub use error::{Answer, Error};
pub use group::{Assignment, Join, Membership};
pub use inspect::Written;
pub use log::{Fetched, Isolation, Outcome};
pub use offsets::{CommittedOffset, PartitionOffset};
pub use record::{Headers, Record, Records};
pub use transaction::{Marker, Producer, Standing, Transaction};

use group::Group;
use log::Log;
use transaction::{Markers, Transactional};

/// What a topic's settings do here, with Kafka's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `cleanup.policy` has `compact`: records need keys. Compacting is asked for with [`Broker::compact`].
    pub compact: bool,
    /// `max.message.bytes`: of a batch, held against [`Records::size`].
    pub max_message_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            compact: false,
            max_message_bytes: 1_048_588,
        }
    }
}

/// A topic's name and a partition of it.
pub type Place<'a> = (&'a str, u32);

/// Which offset ListOffsets asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spec {
    Earliest,
    /// The high watermark, or the last stable offset for `ReadCommitted`.
    Latest(Isolation),
}

#[derive(Debug)]
struct Topic {
    settings: Settings,
    logs: Vec<Log>,
}

type Topics = BTreeMap<String, Topic>;
type Transactions = BTreeMap<String, Transactional>;
type Groups = BTreeMap<String, Group>;

#[derive(Debug, Default)]
pub struct Broker {
    topics: Topics,
    transactional: Transactions,
    groups: Groups,
    /// How many producer ids were given.
    producers: i64,
    /// How many member ids were given.
    members: u64,
    /// How many offsets were committed, in transactions that are open still as well.
    commits: u64,
    markers: Markers,
}

impl Broker {
    /// Errors: `TOPIC_ALREADY_EXISTS`, `INVALID_PARTITIONS` for none.
    pub fn create_topic(&mut self, name: &str, partitions: u32, settings: Settings) -> Answer<()> {
        if self.topics.contains_key(name) {
            return Err(Error::TopicAlreadyExists);
        }
        if partitions == 0 {
            return Err(Error::InvalidPartitions);
        }
        let logs = (0..partitions).map(|_| Log::default()).collect();
        self.topics.insert(name.into(), Topic { settings, logs });
        Ok(())
    }

    /// Its records and committed offsets go with it. Errors: `UNKNOWN_TOPIC_OR_PARTITION`.
    pub fn delete_topic(&mut self, name: &str) -> Answer<()> {
        let removed = self.topics.remove(name);
        removed.ok_or(Error::UnknownTopicOrPartition)?;
        for transactional in self.transactional.values_mut() {
            transactional.forget_topic(name);
        }
        for group in self.groups.values_mut() {
            group.offsets.forget_topic(name);
        }
        Ok(())
    }

    /// Every topic in the order of names, with its number of partitions and its settings.
    pub fn topics(&self) -> impl Iterator<Item = (&str, u32, &Settings)> {
        let topics = self.topics.iter();
        topics.map(|(name, topic)| (name.as_str(), topic.partitions(), &topic.settings))
    }

    /// The number of partitions. Errors: `UNKNOWN_TOPIC_OR_PARTITION`.
    pub fn partitions(&self, topic: &str) -> Answer<u32> {
        let topic = self.topics.get(topic);
        Ok(topic.ok_or(Error::UnknownTopicOrPartition)?.partitions())
    }

    /// Appends a batch, in the producer's transaction if it has a transactional.id, which is begun where none is open. Answers the
    /// offset of its first record. `sequence` is the batch's first sequence number: they are counted by producer epoch and
    /// partition, from 0, one a record. One of the last five batches, sent again, is answered as the first time and not appended.
    ///
    /// Errors: `UNKNOWN_TOPIC_OR_PARTITION`, `MESSAGE_TOO_LARGE`, `INVALID_RECORD`, `INVALID_PRODUCER_ID_MAPPING`,
    /// `INVALID_PRODUCER_EPOCH`, `OUT_OF_ORDER_SEQUENCE_NUMBER`, `CONCURRENT_TRANSACTIONS`. A transaction that was begun stays so.
    pub fn produce(
        &mut self,
        now: i64,
        producer: Option<&Producer>,
        at: Place<'_>,
        sequence: i32,
        records: Records,
    ) -> Answer<i64> {
        // What has nowhere to go begins no transaction.
        log(&self.topics, at)?;
        if let Some(producer) = producer.filter(|producer| producer.transactional_id.is_some()) {
            let transaction = self.join_transaction(now, producer)?;
            let marker = Marker::Partition(at.0.into(), at.1);
            transaction.touched.insert(marker);
        }
        let (settings, log) = log_mut(&mut self.topics, at)?;
        if records.size() > settings.max_message_bytes {
            return Err(Error::MessageTooLarge);
        }
        let lacks_key = || records.iter().any(|record| record.key.is_none());
        if records.is_empty() || (settings.compact && lacks_key()) {
            return Err(Error::InvalidRecord);
        }
        log.append(producer, sequence, records)
    }

    /// Batches from `offset` on until they are `bytes` large, the first one at any size; none at the end.
    ///
    /// Errors: `UNKNOWN_TOPIC_OR_PARTITION`, `OFFSET_OUT_OF_RANGE`.
    pub fn fetch(
        &self,
        at: Place<'_>,
        offset: i64,
        isolation: Isolation,
        bytes: usize,
    ) -> Answer<Fetched> {
        log(&self.topics, at)?.fetch(offset, isolation, bytes)
    }

    /// Errors: `UNKNOWN_TOPIC_OR_PARTITION`.
    pub fn list_offset(&self, at: Place<'_>, spec: Spec) -> Answer<i64> {
        let log = log(&self.topics, at)?;
        Ok(match spec {
            Spec::Earliest => log.start,
            Spec::Latest(isolation) => log.latest(isolation),
        })
    }

    /// Deletes the records before `offset`, as DeleteRecords and retention do.
    ///
    /// Errors: `UNKNOWN_TOPIC_OR_PARTITION`, `OFFSET_OUT_OF_RANGE`.
    pub fn delete_records(&mut self, at: Place<'_>, offset: i64) -> Answer<()> {
        let (_, log) = log_mut(&mut self.topics, at)?;
        log.delete_before(offset)
    }

    /// Keeps, of what lies before the last stable offset, the last committed record of each key. Offsets never change. The first
    /// compaction to meet a tombstone or a marker keeps it; one that comes more than `delete.retention.ms`, a day, later drops it
    /// (KIP-534). Kafka does the same, but never to the newest segment, and when it likes.
    ///
    /// Errors: `UNKNOWN_TOPIC_OR_PARTITION`.
    pub fn compact(&mut self, now: i64, at: Place<'_>) -> Answer<()> {
        let (_, log) = log_mut(&mut self.topics, at)?;
        log.compact(now);
        Ok(())
    }

    /// What time brings: transactions and sessions that ran out, rebalances that waited long enough. Call it often.
    pub fn tick(&mut self, now: i64) {
        self.abort_timed_out(now);
        for group in self.groups.values_mut() {
            group.tick(now, &self.topics);
        }
    }

    /// The broker goes down and comes up again. It had written everything to disk but requests to join that wait for an answer, and which
    /// markers of a decided transaction are written; the sessions of members begin anew.
    pub fn restart(&mut self, now: i64) {
        for transactional in self.transactional.values_mut() {
            transactional.restart();
        }
        for group in self.groups.values_mut() {
            group.restart(now);
        }
    }
}

impl Topic {
    fn partitions(&self) -> u32 {
        u32::try_from(self.logs.len()).expect("as many logs were made as a u32 said")
    }
}

fn log<'a>(topics: &'a Topics, (topic, partition): Place<'_>) -> Answer<&'a Log> {
    let logs = topics.get(topic).map(|topic| &topic.logs);
    logs.and_then(|logs| logs.get(partition as usize))
        .ok_or(Error::UnknownTopicOrPartition)
}

fn log_mut<'a>(
    topics: &'a mut Topics,
    (topic, partition): Place<'_>,
) -> Answer<(&'a Settings, &'a mut Log)> {
    let topic = topics.get_mut(topic);
    let Topic { settings, logs } = topic.ok_or(Error::UnknownTopicOrPartition)?;
    let log = logs.get_mut(partition as usize);
    Ok((settings, log.ok_or(Error::UnknownTopicOrPartition)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A day, `delete.retention.ms`.
    const RETENTION: i64 = 86_400_000;

    #[derive(Debug)]
    struct Bench {
        broker: Broker,
        sequences: BTreeMap<i64, i32>,
    }

    impl Bench {
        fn new() -> Self {
            let mut broker = Broker::default();
            let settings = Settings {
                compact: true,
                ..Settings::default()
            };
            broker.create_topic("t", 1, settings).unwrap();
            Self {
                broker,
                sequences: BTreeMap::new(),
            }
        }

        fn producer(&mut self, id: &str) -> Producer {
            self.broker.init_producer_id(Some(id), 60_000).unwrap()
        }

        /// Records such as `a=1`, or `a` to remove it.
        fn send(&mut self, producer: Option<&Producer>, pairs: &str) {
            let mut records = Records::default();
            for pair in pairs.split(' ') {
                let (key, value) = pair
                    .split_once('=')
                    .map_or((pair, None), |(k, v)| (k, Some(v)));
                let value = value.map(str::as_bytes);
                records.push(0, Some(key.as_bytes()), value, std::iter::empty());
            }
            let next = self
                .sequences
                .entry(producer.map_or(-1, |p| p.id))
                .or_default();
            let (sequence, count) = (*next, i32::try_from(records.len()).unwrap());
            *next += count;
            let sent = self
                .broker
                .produce(0, producer, ("t", 0), sequence, records);
            sent.unwrap();
        }

        fn end(&mut self, producer: &Producer, outcome: Outcome) {
            self.broker.end_transaction(producer, outcome).unwrap();
        }

        fn compact(&mut self, now: i64) {
            self.broker.compact(now, ("t", 0)).unwrap();
        }

        fn check(&self, isolation: Isolation, expected: &str) {
            let fetched = self
                .broker
                .fetch(("t", 0), 0, isolation, usize::MAX)
                .unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let shown = fetched.records().map(|record| {
                let value = record
                    .value
                    .map_or(String::new(), |v| format!("={}", text(v)));
                format!("{}:{}{value}", record.offset, text(record.key.unwrap()))
            });
            let shown = shown.collect::<Vec<_>>().join(" ");
            assert_eq!(format!("{shown} next {}", fetched.next_offset), expected);
        }
    }

    #[test]
    fn compaction_keeps_the_last_record_of_each_key_where_it_was() {
        let mut bench = Bench::new();
        bench.send(None, "a=1 b=2 a=3");
        bench.send(None, "c=4 b=5");
        bench.compact(0);
        bench.check(Isolation::ReadUncommitted, "2:a=3 3:c=4 4:b=5 next 5");
        bench.send(None, "c=6");
        bench.compact(0);
        bench.check(Isolation::ReadCommitted, "2:a=3 4:b=5 5:c=6 next 6");
    }

    #[test]
    fn compaction_counts_what_is_committed_and_drops_what_was_aborted() {
        let mut bench = Bench::new();
        let (one, two) = (bench.producer("x"), bench.producer("y"));
        bench.send(None, "a=0 b=0");
        bench.send(Some(&one), "a=1");
        bench.end(&one, Outcome::Commit);
        bench.send(Some(&one), "b=2");
        bench.end(&one, Outcome::Abort);
        bench.compact(0);
        bench.check(Isolation::ReadUncommitted, "1:b=0 2:a=1 next 6");
        // What comes after the first open transaction stays as it is.
        bench.send(None, "a=3");
        bench.send(Some(&two), "a=4");
        bench.send(None, "a=5 a=6");
        bench.send(Some(&one), "b=7");
        bench.end(&one, Outcome::Abort);
        bench.compact(0);
        bench.check(Isolation::ReadCommitted, "1:b=0 6:a=3 next 7");
        bench.check(
            Isolation::ReadUncommitted,
            "1:b=0 6:a=3 7:a=4 8:a=5 9:a=6 10:b=7 next 12",
        );
        bench.end(&two, Outcome::Commit);
        bench.compact(0);
        bench.check(Isolation::ReadUncommitted, "1:b=0 9:a=6 next 13");
        bench.check(Isolation::ReadCommitted, "1:b=0 9:a=6 next 13");
    }

    #[test]
    fn tombstones_and_markers_stay_for_a_while_after_their_first_compaction() {
        let mut bench = Bench::new();
        let one = bench.producer("x");
        bench.send(Some(&one), "a=1 b=2 a");
        bench.end(&one, Outcome::Commit);
        let batches = |bench: &Bench| log(&bench.broker.topics, ("t", 0)).unwrap().batches();
        bench.compact(RETENTION);
        bench.check(Isolation::ReadCommitted, "1:b=2 2:a next 4");
        bench.compact(2 * RETENTION);
        bench.check(Isolation::ReadCommitted, "1:b=2 2:a next 4");
        assert_eq!(batches(&bench), 2);
        bench.compact(2 * RETENTION + 1);
        bench.check(Isolation::ReadCommitted, "1:b=2 next 4");
        assert_eq!(batches(&bench), 1);
        bench.send(None, "c=3");
        bench.check(Isolation::ReadUncommitted, "1:b=2 4:c=3 next 5");
    }
}
