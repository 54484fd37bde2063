//! Questions to the broker at start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millstream_broker::{Broker, Error, Isolation, Membership, PartitionOffset, Settings, Spec};
use millstream_engine::pipeline::Start;

use super::Shared;
use crate::cluster::{self, AdminError, CommittedAt, StartPlace, TopicFacts, Upkeep};

#[derive(Debug)]
pub struct Admin {
    shared: Arc<Shared>,
    group: String,
}

impl Admin {
    pub fn new(shared: Arc<Shared>, group: &str) -> Self {
        Self {
            shared,
            group: group.into(),
        }
    }
}

impl cluster::Admin for Admin {
    fn connect(&self, _: Option<Duration>, _: impl Fn() -> bool) -> Result<(), AdminError> {
        Ok(())
    }

    fn topics<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<BTreeMap<String, TopicFacts>, AdminError> {
        let wanted: BTreeSet<&str> = names.into_iter().collect();
        let facts = |partitions, settings: &Settings| TopicFacts {
            partitions,
            record_bytes_max: settings.max_message_bytes,
            cleanup_policy: if settings.compact {
                "compact"
            } else {
                "delete"
            }
            .into(),
            delete_retention: Duration::ZERO,
            retention: Vec::new(),
        };
        Ok(self.shared.ask(|broker| {
            let known = broker.topics().filter(|(name, ..)| wanted.contains(name));
            known
                .map(|(name, partitions, settings)| (name.to_owned(), facts(partitions, settings)))
                .collect()
        }))
    }

    fn cluster_id(&self) -> Option<String> {
        None
    }

    fn topic_id(&self, _: &str) -> Result<Option<u128>, String> {
        Ok(None)
    }

    fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        upkeep: Upkeep,
    ) -> Result<TopicFacts, AdminError> {
        let settings = Settings {
            compact: upkeep == Upkeep::Compacted,
            ..Settings::default()
        };
        let made = self
            .shared
            .tell(|broker, _| broker.create_topic(name, partitions, settings));
        match made {
            Ok(()) | Err(Error::TopicAlreadyExists) => {
                let made = self.topics([name])?.remove(name);
                Ok(made.expect("a topic that was made is there"))
            }
            Err(error) => Err(AdminError::Refused(error.to_string())),
        }
    }

    /// Nothing is to be done: the keeper deletes what the group has read.
    fn delete_records(&self, _: &[(&str, u32, i64)]) -> Result<(), AdminError> {
        Ok(())
    }

    fn resolve_starts(
        &self,
        places: &[StartPlace<'_>],
        _: &[(String, u32)],
    ) -> Result<Vec<CommittedAt>, AdminError> {
        let settled = self
            .shared
            .tell(|broker, _| settle(broker, &self.group, places));
        settled.map_err(|error| AdminError::Refused(error.to_string()))
    }
}

fn settle(
    broker: &mut Broker,
    group: &str,
    places: &[StartPlace<'_>],
) -> Result<Vec<CommittedAt>, Error> {
    let mut before = Vec::new();
    for &(topic, partition, _) in places {
        let committed = broker.fetch_offset(group, (topic, partition), true)?;
        before.extend(committed.map(|committed| CommittedAt {
            topic: topic.to_owned(),
            partition,
            offset: committed.offset,
            metadata: committed.metadata.clone(),
        }));
    }
    let known: BTreeSet<&str> = before.iter().map(|at| at.topic.as_str()).collect();
    let mut offsets = Vec::new();
    for &(topic, partition, start) in places.iter().filter(|(topic, ..)| !known.contains(topic)) {
        let spec = match start {
            Start::Earliest => Spec::Earliest,
            Start::Latest => Spec::Latest(Isolation::ReadCommitted),
        };
        offsets.push(PartitionOffset {
            topic,
            partition,
            offset: broker.list_offset((topic, partition), spec)?,
            metadata: "",
        });
    }
    broker.commit_offsets(group, &Membership::NONE, &offsets)?;
    Ok(before)
}
