//! The settings of our Kafka clients: the user's properties, and on top of them those on which exactly-once rests.

use std::time::Duration;

use millstream_engine::pipeline::Guarantee;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _};

use super::admin::Admin;
use super::consumer::{Commit, GroupConsumer};
use super::group;
use super::native::{NativeConsumer, list};
use super::producer::Producer;
use super::reader::Reader;
use crate::cluster::{AdminError, Cluster, Group, GroupMember};
use crate::scope;

/// How long one request to the cluster may take before it is tried again.
pub const REQUEST_MAX: Duration = Duration::from_secs(5);

/// How long the group waits for a silent member before it gives its partitions to others.
pub const SESSION: Duration = Duration::from_secs(8);
/// How late a member may hear that another has come or gone.
const HEARTBEAT: Duration = Duration::from_millis(300);

/// How long a topic may be unknown to the brokers before what is sent to it fails. Topics are there when a worker starts: one that is
/// not has been deleted, or was made a moment ago.
pub const PROPAGATION_MAX: Duration = Duration::from_secs(5);

/// How long the broker lets a transaction be open: this many intervals, within these bounds. The longer one is the most that a broker
/// allows by default (`transaction.max.timeout.ms`), and three times the longest interval.
const TRANSACTION_INTERVALS: u32 = 4;
const TRANSACTION_MIN: Duration = Duration::from_secs(60);
const TRANSACTION_MAX: Duration = Duration::from_secs(900);

/// How much later the brokers may see that a transaction has timed out: they look every 10 s.
const TIMED_OUT_SEEN: Duration = Duration::from_secs(60);

/// What every client of a pipeline is made of.
#[derive(Clone)]
pub struct Clients {
    pub pipeline: String,
    pub instance: String,
    pub guarantee: Guarantee,
    pub interval: Duration,
    pub properties: Properties,
    /// Where this process answers queries, as its members say to the group.
    pub address: Option<String>,
}

/// The user's librdkafka properties.
#[derive(Clone)]
pub struct Properties {
    pub consumer: Vec<(String, String)>,
    pub producer: Vec<(String, String)>,
}

/// A property of the pipeline file that librdkafka refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownProperty {
    pub name: String,
    pub why: String,
}

impl Properties {
    /// Properties that librdkafka does not know, or whose values it refuses.
    pub fn refused(&self) -> Vec<UnknownProperty> {
        let all = self.consumer.iter().chain(&self.producer);
        let mut refused: Vec<UnknownProperty> = Vec::new();
        for (name, value) in all {
            let mut config = ClientConfig::new();
            config.set(name, value);
            if let Err(KafkaError::ClientConfig(_, why, name, _)) = config.create_native_config()
                && !refused.iter().any(|known| known.name == name)
            {
                // The value may be a secret.
                let why = why.replace(value.as_str(), "…");
                refused.push(UnknownProperty { name, why });
            }
        }
        refused
    }

    /// Why librdkafka can't make a client of these properties, though it knows each of them; no broker is asked.
    pub fn unusable(&self) -> Option<String> {
        let made = base(&self.producer).create::<BaseProducer>();
        made.err().map(|error| error.to_string())
    }
}

impl Clients {
    /// The brokers to start from.
    pub fn bootstrap(&self) -> &str {
        let named = |(name, _): &&(String, String)| {
            name == "bootstrap.servers" || name == "metadata.broker.list"
        };
        self.properties
            .producer
            .iter()
            .find(named)
            .map_or("", |(_, servers)| servers)
    }

    /// For a member of the group.
    pub fn member_config(&self, worker: u32) -> ClientConfig {
        let mut config = self.reader_config("read_committed");
        config
            .set("group.instance.id", self.seat(worker))
            .set(
                "client.id",
                GroupMember::client_id(&self.seat(worker), self.address.as_deref(), scope::own()),
            )
            .set("partition.assignment.strategy", "range");
        // How late it is noticed that a source has more partitions than it had.
        default(&mut config, "topic.metadata.refresh.interval.ms", "30000");
        default(
            &mut config,
            "session.timeout.ms",
            &SESSION.as_millis().to_string(),
        );
        default(
            &mut config,
            "heartbeat.interval.ms",
            &HEARTBEAT.as_millis().to_string(),
        );
        config
    }

    /// For a reader outside the group, which assigns itself what it reads. (librdkafka wants a group's name all the same; it is
    /// never joined and nothing is committed to it.)
    pub fn reader_config(&self, isolation: &str) -> ClientConfig {
        let mut config = base(&self.properties.consumer);
        config
            .set("group.id", &self.pipeline)
            .set("group.protocol", "classic")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", isolation)
            .set("check.crcs", "true")
            .set("enable.partition.eof", "false");
        default(&mut config, "fetch.queue.backoff.ms", "5");
        default(&mut config, "fetch.wait.max.ms", "100");
        config
    }

    /// For a worker's producer. `batch_bytes_max` keeps its requests within what the smallest of its topics takes,
    /// `record_bytes_max` is what the largest does.
    pub(super) fn producer_config(
        &self,
        seat: &str,
        batch_bytes_max: usize,
        record_bytes_max: usize,
    ) -> ClientConfig {
        let mut config = base(&self.properties.producer);
        config
            .set("client.id", seat)
            .set("enable.idempotence", "true")
            .set("delivery.report.only.error", "true")
            .set("partitioner", "murmur2_random");
        if self.guarantee == Guarantee::ExactlyOnce {
            let timeout = self.transaction_timeout().as_millis().to_string();
            config
                .set("transactional.id", seat)
                .set("transaction.timeout.ms", timeout);
        }
        default(&mut config, "linger.ms", "5");
        default(
            &mut config,
            "topic.metadata.propagation.max.ms",
            &PROPAGATION_MAX.as_millis().to_string(),
        );
        default(&mut config, "queue.buffering.max.messages", "500000");
        default(&mut config, "queue.buffering.max.kbytes", "262144");
        let record = record_bytes_max.clamp(1000, 1_000_000_000);
        default(&mut config, "message.max.bytes", &record.to_string());
        default(
            &mut config,
            "batch.size",
            &batch_bytes_max.clamp(1, 1_000_000).min(record).to_string(),
        );
        config
    }

    fn transaction_timeout(&self) -> Duration {
        (self.interval * TRANSACTION_INTERVALS).clamp(TRANSACTION_MIN, TRANSACTION_MAX)
    }

    /// For questions to the cluster.
    pub fn admin_config(&self) -> ClientConfig {
        base(&self.properties.producer)
    }
}

impl Cluster for Clients {
    type Admin = Admin;
    type Member = GroupConsumer;
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

    fn answering_at(&self, address: &str) -> Self {
        Self {
            address: Some(address.to_owned()),
            ..self.clone()
        }
    }

    fn group(&self) -> Result<Group, String> {
        let client: BaseProducer = self
            .admin_config()
            .create()
            .map_err(|error| error.to_string())?;
        group::describe(client.client(), &self.pipeline)
    }

    fn session(&self) -> Duration {
        let config = self.member_config(0);
        let millis = config.get("session.timeout.ms");
        let millis = millis.and_then(|millis| millis.parse().ok());
        millis.map_or(SESSION, Duration::from_millis)
    }

    fn pending_max(&self) -> Duration {
        self.transaction_timeout() + TIMED_OUT_SEEN
    }

    fn last_metadata(&self, places: &[(&str, u32)]) -> Result<Vec<String>, String> {
        let client = NativeConsumer::new(&self.reader_config("read_uncommitted"))?;
        let places = places.iter();
        let offsets = list(places.map(|&(topic, partition)| (topic, partition, None)));
        client.committed(&offsets)?;
        let elements = offsets.elements();
        let told = elements.iter().map(|at| at.metadata().to_owned());
        Ok(told.collect())
    }

    fn admin(&self) -> Result<Admin, AdminError> {
        Admin::new(self)
    }

    fn join(&self, worker: u32, topics: &[String]) -> Result<GroupConsumer, String> {
        GroupConsumer::join(self, worker, topics)
    }

    fn producer(
        &self,
        seat: &str,
        topics: &[String],
        (smallest, largest): (usize, usize),
    ) -> Result<Producer, String> {
        Producer::new(&self.producer_config(seat, smallest, largest), topics)
    }

    fn reader(&self) -> Result<Reader, String> {
        Reader::new(self)
    }
}

fn base(properties: &[(String, String)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in properties {
        config.set(name, value);
    }
    // librdkafka would wait for up to 10 s before it tries a broker again that was away.
    default(&mut config, "reconnect.backoff.max.ms", "1000");
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

/// Sets what the user did not.
fn default(config: &mut ClientConfig, name: &str, value: &str) {
    if config.get(name).is_none() {
        config.set(name, value);
    }
}

impl std::fmt::Debug for Clients {
    /// Without the properties: some are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients")
            .field("pipeline", &self.pipeline)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}
