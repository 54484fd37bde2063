//! What is asked of the cluster before any record flows: which topics there are and how they are set, the changelogs made where they
//! are missing, and where a group begins that has never committed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka_sys::RDKafkaErrorCode as Code;

use millstream_engine::pipeline::Start;

use super::client::{Clients, REQUEST_MAX};
use super::native::{NativeConsumer, list};
use crate::cluster::{self, AdminError, Cluster as _, CommittedAt, StartPlace, TopicFacts, Upkeep};

/// How long one try to reach the cluster takes: connecting goes on behind it.
const CONNECT_TRY: Duration = Duration::from_secs(1);

/// A topic's `delete.retention.ms` where nobody set it.
const DELETE_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// No limit, as a topic's settings have it.
const UNLIMITED: &str = "-1";

/// The longest pause between two tries to reach the cluster.
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

pub struct Admin {
    bootstrap: String,
    group: String,
    pub(super) client: AdminClient<DefaultClientContext>,
    pub(super) reader: NativeConsumer,
    pub(super) runtime: tokio::runtime::Runtime,
}

impl Admin {
    pub fn new(clients: &Clients) -> Result<Self, AdminError> {
        let client = clients
            .admin_config()
            .create()
            .map_err(|error: KafkaError| refused(&error))?;
        let reader = NativeConsumer::new(&clients.reader_config("read_committed"))
            .map_err(AdminError::Refused)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| AdminError::Refused(error.to_string()))?;
        Ok(Self {
            bootstrap: clients.bootstrap().to_owned(),
            group: clients.pipeline().to_owned(),
            client,
            reader,
            runtime,
        })
    }

    fn settings(&self, name: &str) -> Result<TopicFacts, AdminError> {
        let (resource, options) = (ResourceSpecifier::Topic(name), options());
        let asked = self.client.describe_configs([&resource], &options);
        let answers = self
            .runtime
            .block_on(asked)
            .map_err(|error| refused(&error))?;
        let mut facts = TopicFacts {
            partitions: 0,
            record_bytes_max: 1_048_588,
            cleanup_policy: "delete".into(),
            delete_retention: DELETE_RETENTION,
            retention: Vec::new(),
        };
        for answer in answers {
            let resource =
                answer.map_err(|code| judged(Some(code), format!("topic {name}: {code}")))?;
            assert_eq!(
                resource.specifier,
                OwnedResourceSpecifier::Topic(name.into())
            );
            for entry in resource.entries {
                match (entry.name.as_str(), entry.value) {
                    ("max.message.bytes", Some(value)) => {
                        facts.record_bytes_max = value.parse().unwrap_or(facts.record_bytes_max);
                    }
                    ("cleanup.policy", Some(value)) => facts.cleanup_policy = value,
                    (name @ ("retention.ms" | "retention.bytes"), Some(value))
                        if value != UNLIMITED =>
                    {
                        facts.retention.push(format!("{name}={value}"));
                    }
                    ("delete.retention.ms", Some(value)) => {
                        let millis = value.parse().map(Duration::from_millis);
                        facts.delete_retention = millis.unwrap_or(DELETE_RETENTION);
                    }
                    _ => {}
                }
            }
        }
        Ok(facts)
    }

    /// The stable offsets that the group has committed of these topics.
    fn committed(&self, places: &[StartPlace<'_>]) -> Result<Vec<CommittedAt>, AdminError> {
        let places = places.iter();
        let offsets = list(places.map(|&(topic, partition, _)| (topic, partition, None)));
        self.reader
            .committed(&offsets)
            .map_err(AdminError::Unanswered)?;
        let elements = offsets.elements();
        let committed = elements.iter().filter_map(|at| {
            let Offset::Offset(offset) = at.offset() else {
                return None;
            };
            Some(CommittedAt {
                topic: at.topic().to_owned(),
                partition: u32::try_from(at.partition()).ok()?,
                offset,
                metadata: at.metadata().to_owned(),
            })
        });
        Ok(committed.collect())
    }

    /// The first of these topics that has records.
    fn with_records<'t>(&self, topics: &'t [(String, u32)]) -> Result<Option<&'t str>, AdminError> {
        for (topic, partitions) in topics {
            for partition in 0..*partitions {
                let (start, end) = self.watermarks(topic, partition)?;
                if start < end {
                    return Ok(Some(topic));
                }
            }
        }
        Ok(None)
    }

    pub(super) fn watermarks(&self, topic: &str, partition: u32) -> Result<(i64, i64), AdminError> {
        let marks = self.reader.watermarks(topic, partition);
        marks.map_err(|code| AdminError::Unanswered(code.to_string()))
    }
}

impl cluster::Admin for Admin {
    fn connect(
        &self,
        patience: Option<Duration>,
        stopping: impl Fn() -> bool,
    ) -> Result<(), AdminError> {
        let bootstrap = &self.bootstrap;
        let began = Instant::now();
        let mut back_off = Duration::from_millis(250);
        loop {
            let asked = self.client.inner().fetch_metadata(None, CONNECT_TRY);
            let Err(error) = asked else { return Ok(()) };
            let why = error.to_string();
            if patience.is_some_and(|patience| began.elapsed() >= patience) {
                return Err(AdminError::Unreachable {
                    bootstrap: bootstrap.clone(),
                    why,
                });
            }
            tracing::warn!("{bootstrap} can't be reached ({why}); trying again in {back_off:?}");
            let left = patience.map_or(back_off, |patience| {
                patience.saturating_sub(began.elapsed())
            });
            let until = Instant::now() + back_off.min(left);
            while Instant::now() < until {
                if stopping() {
                    return Err(AdminError::Stopped);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }

    fn topics<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<BTreeMap<String, TopicFacts>, AdminError> {
        let metadata = self
            .client
            .inner()
            .fetch_metadata(None, REQUEST_MAX)
            .map_err(|error| refused(&error))?;
        let mut facts = BTreeMap::new();
        for name in names {
            let topic = metadata.topics().iter().find(|topic| topic.name() == name);
            let Some(topic) = topic.filter(|topic| !topic.partitions().is_empty()) else {
                continue;
            };
            let partitions = u32::try_from(topic.partitions().len())
                .expect("Kafka numbers partitions in 31 bits");
            facts.insert(
                name.to_owned(),
                TopicFacts {
                    partitions,
                    ..self.settings(name)?
                },
            );
        }
        Ok(facts)
    }

    fn cluster_id(&self) -> Option<String> {
        self.reader.cluster_id()
    }

    fn topic_id(&self, name: &str) -> Result<Option<u128>, String> {
        self.reader.topic_id(name)
    }

    fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        upkeep: Upkeep,
    ) -> Result<TopicFacts, AdminError> {
        let partitions = i32::try_from(partitions).expect("Kafka numbers partitions in 31 bits");
        // -1: as many replicas as the cluster's default.
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        let topic = match upkeep {
            Upkeep::Compacted => topic.set("cleanup.policy", "compact"),
            Upkeep::Purged => topic
                .set("cleanup.policy", "delete")
                .set("retention.ms", UNLIMITED)
                .set("retention.bytes", UNLIMITED),
        };
        let made = self
            .runtime
            .block_on(self.client.create_topics([&topic], &options()));
        for result in made.map_err(|error| refused(&error))? {
            match result {
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    let why = format!("topic {name} can't be made: {code}");
                    return Err(judged(Some(code), why));
                }
            }
        }
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(facts) = self.topics([name])?.remove(name) {
                return Ok(facts);
            }
            if Instant::now() > give_up {
                return Err(AdminError::Refused(format!(
                    "topic {name} was made, but does not appear"
                )));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn delete_records(&self, before: &[(&str, u32, i64)]) -> Result<(), AdminError> {
        let places = before.iter();
        let places =
            list(places.map(|&(topic, partition, offset)| (topic, partition, Some(offset))));
        let deleted = self
            .runtime
            .block_on(self.client.delete_records(&places, &options()));
        let deleted = deleted.map_err(|error| refused(&error))?;
        let failed = deleted.elements().into_iter().find_map(|at| {
            let error = at.error().err()?;
            Some(format!("{}[{}]: {error}", at.topic(), at.partition()))
        });
        failed.map_or(Ok(()), |why| Err(AdminError::Refused(why)))
    }

    fn resolve_starts(
        &self,
        places: &[StartPlace<'_>],
        changelogs: &[(String, u32)],
    ) -> Result<Vec<CommittedAt>, AdminError> {
        let mut committed = self.committed(places)?;
        if committed.is_empty()
            && let Some(changelog) = self.with_records(changelogs)?
        {
            // Another instance may have begun since: starts are settled before anything is written.
            committed = self.committed(places)?;
            if committed.is_empty() {
                return Err(AdminError::OffsetsLost {
                    group: self.group.clone(),
                    changelog: changelog.to_owned(),
                });
            }
        }
        let known: BTreeSet<&str> = committed.iter().map(|at| at.topic.as_str()).collect();
        let unknown = places.iter().filter(|(topic, ..)| !known.contains(topic));
        let mut starts = Vec::new();
        for &(topic, partition, start) in unknown {
            let (first, end) = self.watermarks(topic, partition)?;
            let offset = if start == Start::Latest { end } else { first };
            starts.push((topic, partition, Some(offset)));
        }
        if !starts.is_empty() {
            // Refused where the group has members. One of them has settled it, as the next look shows; or none of them reads it.
            let unsettled = starts[0].0;
            let refused = |code| match code {
                Code::UnknownMemberId => format!(
                    "where topic {unsettled} begins can't be settled while processes run that don't read it. If they are of an older pipeline \
                     file, end all of them, and start them with this one"
                ),
                code => code.to_string(),
            };
            let settled = self.reader.commit(&list(starts));
            settled.map_err(|code| AdminError::Unanswered(refused(code)))?;
        }
        Ok(committed)
    }
}

pub(super) fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST_MAX))
        .operation_timeout(Some(REQUEST_MAX))
}

pub(super) fn refused(error: &KafkaError) -> AdminError {
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    };
    judged(code, error.to_string())
}

fn judged(code: Option<Code>, why: String) -> AdminError {
    if code.is_some_and(is_passing) {
        AdminError::Unanswered(why)
    } else {
        AdminError::Refused(why)
    }
}

/// Whether it goes by itself: brokers are away, or don't know yet who of them does what.
fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::NetworkException
            | Code::NotController
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
    )
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}
