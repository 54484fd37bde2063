//! A worker's seat in the consumer group.
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
use crate::cluster::{Committed, ConsumeError, Consumed, Member, Rebalance};

/// Offsets to commit, and who we are in the group.
#[derive(Debug)]
pub struct Commit {
    pub offsets: TopicPartitionList,
    pub group: GroupMetadata,
}

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

impl GroupConsumer {
    /// Joins the group in the seat of a worker.
    pub fn join(clients: &Clients, worker: u32, topics: &[String]) -> Result<Self, String> {
        let native = NativeConsumer::new(&clients.member_config(worker))?;
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        native.subscribe(&names).map_err(|code| code.to_string())?;
        Ok(Self {
            native,
            topics: topics.to_vec(),
            seen: Vec::new(),
            abandoned: Cell::new(false),
        })
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
    fn offsets(&self, offsets: &[(TopicPartition, i64)], metadata: &str) -> TopicPartitionList {
        let list = self.list(offsets.iter().map(|&(at, offset)| (at, Some(offset))));
        for mut element in list.elements() {
            element.set_metadata(metadata);
        }
        list
    }
}

impl Member for GroupConsumer {
    type Record<'a> = RecordRef<'a>;
    type Commit = Commit;

    fn poll(
        &mut self,
        timeout: Duration,
        mut each: impl FnMut(TopicPartition, Consumed<'_, RecordRef<'_>>),
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

    fn rebalances(&mut self) -> Vec<Rebalance> {
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

    fn assign(&mut self, offsets: &[(TopicPartition, i64)]) -> Result<(), String> {
        let list = self.list(offsets.iter().map(|&(at, offset)| (at, Some(offset))));
        self.native.assign(&list).map_err(|code| code.to_string())?;
        self.native.resume(&list).map_err(|code| code.to_string())
    }

    fn unassign(&mut self) -> Result<(), String> {
        self.native.unassign().map_err(|code| code.to_string())
    }

    fn is_lost(&self) -> bool {
        self.abandoned.get()
            || self.native.is_assignment_lost()
            || self.native.fatal_error().is_some()
    }

    fn fenced(&self) -> Option<String> {
        (self.native.fatal_error() == Some(Code::FencedInstanceId))
            .then(|| "another process has joined the group in this seat".into())
    }

    fn look_after_seat(&self) -> bool {
        if !self.abandoned.get() && self.native.is_assignment_lost() {
            tracing::warn!(target: "millstream::kafka", "the partitions were lost");
            self.abandoned.set(self.native.unassign().is_ok());
        }
        self.abandoned.get()
    }

    fn seek(&self, offsets: &[(TopicPartition, i64)]) -> Result<(), String> {
        if offsets.is_empty() {
            return Ok(());
        }
        let list = self.list(offsets.iter().map(|&(at, offset)| (at, Some(offset))));
        self.native.pause(&list).map_err(|code| code.to_string())?;
        self.native.seek(&list)?;
        self.native.resume(&list).map_err(|code| code.to_string())
    }

    fn pause(&mut self, places: &[TopicPartition]) -> Result<(), String> {
        let list = self.list(places.iter().map(|&at| (at, None)));
        self.native.pause(&list).map_err(|code| code.to_string())
    }

    fn committed(&self, places: &[TopicPartition]) -> Result<Vec<Committed>, String> {
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

    fn positions(&self, places: &[TopicPartition]) -> BTreeMap<TopicPartition, i64> {
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

    fn ends(&self, places: &[TopicPartition]) -> BTreeMap<TopicPartition, i64> {
        let end = |&at: &TopicPartition| {
            let (topic, partition) = self.name(at);
            Some((at, self.native.known_end(topic, partition)?))
        };
        places.iter().filter_map(end).collect()
    }

    fn first_offset(&self, at: TopicPartition) -> Result<i64, String> {
        let (topic, partition) = self.name(at);
        self.native
            .watermarks(topic, partition)
            .map(|(low, _)| low)
            .map_err(|code| code.to_string())
    }

    fn commit_of(
        &self,
        offsets: &[(TopicPartition, i64)],
        metadata: &str,
    ) -> Result<Commit, String> {
        let group = self.native.group_metadata();
        Ok(Commit {
            offsets: self.offsets(offsets, metadata),
            group: group.ok_or("the group does not count this worker in")?,
        })
    }

    fn commit(&self, offsets: &[(TopicPartition, i64)], metadata: &str) -> Result<(), String> {
        let offsets = self.offsets(offsets, metadata);
        self.native
            .commit(&offsets)
            .map_err(|code| code.to_string())
    }
}

fn number(partition: i32) -> u32 {
    u32::try_from(partition).expect("Kafka's partitions are not negative")
}

fn find(topics: &[String], name: &str) -> Option<TopicId> {
    topics.iter().position(|topic| topic == name).map(TopicId)
}

/// Errors that pass are logged and leave the place unsettled; what does not pass is returned.
fn judge<'a>(error: &ErrorRef<'a>) -> Result<Consumed<'a, RecordRef<'a>>, ConsumeError> {
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
