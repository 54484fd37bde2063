//! A worker's seat in the consumer group: records in, positions and offsets out, and what the group wants.
//!
//! Invariant: a rebalance is answered by the worker, with `assign` or `unassign`, after its transaction is closed; until then the
//! partitions are still ours.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use millstream_engine::pipeline::TopicId;
use millstream_engine::task::TopicPartition;
use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka_sys::RDKafkaErrorCode as Code;

use super::client::Clients;
use super::native::{
    ErrorRef, GroupMetadata, NativeConsumer, Noted, Polled, RecordRef, TopicHandle, list,
};

#[derive(Debug)]
pub struct GroupConsumer {
    native: NativeConsumer,
    /// By `TopicId`.
    topics: Vec<String>,
    /// Topics that records came from.
    seen: Vec<(TopicHandle, TopicId)>,
    /// Everything was given up outside of a poll, because it was lost; the group's request to do so is still to come.
    abandoned: Cell<bool>,
}

/// What the group wants of us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    Assigned(Vec<TopicPartition>),
    /// All partitions are asked back; they are ours until `unassign`.
    Revoked,
    /// All partitions are somebody else's already.
    Lost,
}

/// What a poll hands out.
#[derive(Clone, Copy, Debug)]
pub enum Consumed<'a> {
    Record(RecordRef<'a>),
    /// Something went wrong there and will be tried again. Until the next record the position may be one too far: librdkafka counts
    /// the error as if it were the record that it stands for.
    Unsettled,
    /// The records at the position can't be had: retention took them, the topic was made anew, or they are damaged.
    Unreadable(&'a str),
}

/// Why consuming can't go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    #[error("another process took the seat: {0}")]
    Fenced(String),
    #[error("{0}")]
    Fatal(String),
}

/// A stable committed offset, with its metadata; none where there is none.
pub type Committed = (TopicPartition, Option<i64>, String);

impl GroupConsumer {
    /// Joins the group in the seat of a worker.
    pub fn join(clients: &Clients, worker: u32, topics: &[String]) -> Result<Self, String> {
        let native = NativeConsumer::new(&clients.member(worker))?;
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        native.subscribe(&names).map_err(|code| code.to_string())?;
        Ok(Self {
            native,
            topics: topics.to_vec(),
            seen: Vec::new(),
            abandoned: Cell::new(false),
        })
    }

    /// Hands out what is there, waiting for the first record at most `timeout`. Returns how many came.
    pub fn poll(
        &mut self,
        timeout: Duration,
        mut each: impl FnMut(TopicPartition, Consumed<'_>),
    ) -> Result<usize, ConsumeError> {
        let (topics, seen) = (&self.topics, &mut self.seen);
        let mut result = Ok(());
        let count = self.native.poll(timeout, |polled| match polled {
            Polled::Record(record) => {
                let handle = record.topic_handle();
                let known = seen.iter().find(|(known, _)| *known == handle);
                let topic = known.map(|(_, topic)| *topic).or_else(|| {
                    let topic = find(topics, record.topic())?;
                    seen.push((handle, topic));
                    Some(topic)
                });
                let topic = topic.expect("records come from topics that were subscribed to");
                let partition = number(record.partition());
                each(
                    TopicPartition { topic, partition },
                    Consumed::Record(record),
                );
            }
            Polled::End { .. } => {}
            Polled::Error(error) => {
                let place = error.place.and_then(|(topic, partition)| {
                    Some(TopicPartition {
                        topic: find(topics, topic)?,
                        partition: number(partition),
                    })
                });
                match (judge(&error), place) {
                    (Ok(consumed), Some(place)) => each(place, consumed),
                    (Ok(_), None) => {}
                    (Err(error), _) => result = Err(error),
                }
            }
        });
        result.map(|()| count)
    }

    /// What the group wanted since the last call, in order.
    pub fn rebalances(&self) -> Vec<Rebalance> {
        let noted = self
            .native
            .take_noted()
            .into_iter()
            .map(|noted| match noted {
                Noted::Assign(list) => Rebalance::Assigned(self.places(&list)),
                Noted::Revoke if self.abandoned.take() || self.native.is_assignment_lost() => {
                    Rebalance::Lost
                }
                Noted::Revoke => Rebalance::Revoked,
            });
        noted.collect()
    }

    fn places(&self, list: &[(String, i32)]) -> Vec<TopicPartition> {
        let places = list.iter().filter_map(|(name, partition)| {
            let topic = TopicId(self.topics.iter().position(|topic| topic == name)?);
            Some(TopicPartition {
                topic,
                partition: number(*partition),
            })
        });
        places.collect()
    }

    fn name(&self, at: TopicPartition) -> (&str, u32) {
        (&self.topics[at.topic.0], at.partition)
    }

    fn list(
        &self,
        places: impl IntoIterator<Item = (TopicPartition, Option<i64>)>,
    ) -> TopicPartitionList {
        list(places.into_iter().map(|(at, offset)| {
            let (topic, partition) = self.name(at);
            (topic, partition, offset)
        }))
    }

    /// The list that a commit takes: offsets, each with the metadata.
    pub fn offsets(&self, offsets: &[(TopicPartition, i64)], metadata: &str) -> TopicPartitionList {
        let list = self.list(offsets.iter().map(|&(at, offset)| (at, Some(offset))));
        for mut element in list.elements() {
            element.set_metadata(metadata);
        }
        list
    }

    /// Answers an assignment: reads these partitions from these offsets on, whether or not they were paused in an earlier one.
    pub fn assign(&self, offsets: &[(TopicPartition, i64)]) -> Result<(), String> {
        let list = self.list(offsets.iter().map(|&(at, offset)| (at, Some(offset))));
        self.native.assign(&list).map_err(|code| code.to_string())?;
        self.native.resume(&list).map_err(|code| code.to_string())
    }

    /// Answers a revocation: gives all partitions up.
    pub fn unassign(&self) -> Result<(), String> {
        self.native.unassign().map_err(|code| code.to_string())
    }

    /// Whether what was assigned is others' by now, or this client can't be used any more.
    pub fn is_lost(&self) -> bool {
        self.abandoned.get()
            || self.native.is_assignment_lost()
            || self.native.fatal_error().is_some()
    }

    /// Why the seat is another process's, if that is known.
    pub fn fenced(&self) -> Option<String> {
        (self.native.fatal_error() == Some(Code::FencedInstanceId))
            .then(|| "another process has joined the group in this seat".into())
    }

    /// To be called twice a second by whoever can't poll. Where the session timed out meanwhile, everything is given up at once:
    /// librdkafka then joins anew, instead of going on under a name that the group takes for an impostor's. Returns whether that was
    /// so; nothing may be committed then.
    pub fn look_after_seat(&self) -> bool {
        if !self.abandoned.get() && self.native.is_assignment_lost() {
            tracing::warn!(target: "millstream::kafka", "the partitions were lost");
            self.abandoned.set(self.unassign().is_ok());
        }
        self.abandoned.get()
    }

    /// Goes back to these offsets. What was fetched before does not come any more; what was paused is read again.
    pub fn seek(&self, offsets: &[(TopicPartition, i64)]) -> Result<(), String> {
        if offsets.is_empty() {
            return Ok(());
        }
        let list = self.list(offsets.iter().map(|&(at, offset)| (at, Some(offset))));
        self.native.pause(&list).map_err(|code| code.to_string())?;
        self.native.seek(&list)?;
        self.native.resume(&list).map_err(|code| code.to_string())
    }

    pub fn pause(&self, places: &[TopicPartition]) -> Result<(), String> {
        let list = self.list(places.iter().map(|&at| (at, None)));
        self.native.pause(&list).map_err(|code| code.to_string())
    }

    /// The stable committed offsets. Fails, to be asked again, while a transaction has offsets pending.
    pub fn committed(&self, places: &[TopicPartition]) -> Result<Vec<Committed>, String> {
        let list = self.list(places.iter().map(|&at| (at, None)));
        self.native.committed(&list)?;
        let committed = list
            .elements()
            .into_iter()
            .zip(places)
            .map(|(element, &at)| {
                let offset = match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                };
                (at, offset, element.metadata().to_owned())
            });
        Ok(committed.collect())
    }

    /// Commits outside of any transaction.
    pub fn commit(&self, offsets: &TopicPartitionList) -> Result<(), Code> {
        self.native.commit(offsets)
    }

    /// Offsets of the next records to be handed out, past transaction markers too; partitions of which nothing was handed out are
    /// left out.
    pub fn positions(&self, places: &[TopicPartition]) -> BTreeMap<TopicPartition, i64> {
        let list = self.list(places.iter().map(|&at| (at, None)));
        if let Err(code) = self.native.position(&list) {
            tracing::warn!(target: "millstream::kafka", "no positions: {code}");
            return BTreeMap::new();
        }
        let positions = list
            .elements()
            .into_iter()
            .zip(places)
            .filter_map(|(element, &at)| match element.offset() {
                Offset::Offset(offset) => Some((at, offset)),
                _ => None,
            });
        positions.collect()
    }

    /// The first offset that a partition still has.
    pub fn first_offset(&self, at: TopicPartition) -> Result<i64, String> {
        let (topic, partition) = self.name(at);
        self.native
            .watermarks(topic, partition)
            .map(|(low, _)| low)
            .map_err(|code| code.to_string())
    }

    /// Our name in the group; none where the group does not count us in.
    pub fn group(&self) -> Option<GroupMetadata> {
        self.native.group_metadata()
    }
}

fn number(partition: i32) -> u32 {
    u32::try_from(partition).expect("Kafka's partitions are not negative")
}

fn find(topics: &[String], name: &str) -> Option<TopicId> {
    topics.iter().position(|topic| topic == name).map(TopicId)
}

/// Errors that pass are logged and leave the place unsettled; what does not pass is returned.
fn judge<'a>(error: &ErrorRef<'a>) -> Result<Consumed<'a>, ConsumeError> {
    let ErrorRef { code, text, .. } = *error;
    match code {
        Code::FencedInstanceId => Err(ConsumeError::Fenced(text.into())),
        _ if error.fatal => Err(ConsumeError::Fatal(format!("{text} ({code:?})"))),
        Code::AutoOffsetReset
        | Code::OffsetOutOfRange
        | Code::BadMessage
        | Code::BadCompression
        | Code::NotImplemented => Ok(Consumed::Unreadable(text)),
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::InconsistentGroupProtocol
        | Code::InvalidSessionTimeout
        | Code::InvalidGroupId => Err(ConsumeError::Fatal(format!("{text} ({code:?})"))),
        _ => {
            tracing::warn!(target: "millstream::kafka", "{text} ({code:?})");
            Ok(Consumed::Unsettled)
        }
    }
}
