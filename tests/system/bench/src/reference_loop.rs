//! Job J1 as a hand-written, single-threaded loop on the rdkafka crate: parse, filter, upper-case the name, write all eight fields,
//! exactly once. It has the client settings, the structs and the allocator of the Millstream pipeline it is measured against, and
//! what somebody who measured would do (no second of fetch back-off, a flush that doesn't wait in vain). It handles no rebalance,
//! no abort and no failure but a malformed record, which it skips.
//!
//! Usage: reference-loop BOOTSTRAP GROUP IN OUT INTERVAL_MS. Ends on SIGTERM, without ceremony.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PATIENCE: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_millis(5);

/// The same fields as in examples/01-materialize-users.
#[derive(Deserialize, Serialize)]
struct Event<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    age: u32,
    #[serde(borrow)]
    country: Cow<'a, str>,
    ts: u64,
    #[serde(borrow)]
    email: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    plan: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<bool>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, group, input, output, interval] = &arguments[..] else {
        bail!("usage: reference-loop BOOTSTRAP GROUP IN OUT INTERVAL_MS");
    };
    let interval = Duration::from_millis(interval.parse().context("INTERVAL_MS")?);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("check.crcs", "true")
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.wait.max.ms", "100")
        .create()?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", group)
        .set("delivery.report.only.error", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "500000")
        .set("queue.buffering.max.kbytes", "262144")
        .set("batch.size", "1000000")
        .create()?;
    producer.init_transactions(PATIENCE)?;
    consumer.subscribe(&[input])?;
    Loop {
        consumer,
        producer,
        input,
        output,
        interval,
        offsets: HashMap::new(),
        opened: None,
        body: Vec::new(),
    }
    .run()
}

struct Loop<'a> {
    consumer: BaseConsumer,
    producer: BaseProducer,
    input: &'a str,
    output: &'a str,
    interval: Duration,
    /// Next offset of each partition that moved in the open transaction.
    offsets: HashMap<i32, i64>,
    opened: Option<Instant>,
    body: Vec<u8>,
}

impl Loop<'_> {
    fn run(&mut self) -> Result<()> {
        let mut records = 0_u32;
        loop {
            let idle = self.step()?;
            records = records.wrapping_add(1);
            // A look at the clock for every record would cost more than it brings.
            let look = idle || records.is_multiple_of(1024);
            if look && self.opened.is_some_and(|at| at.elapsed() >= self.interval) {
                self.commit()?;
            }
        }
    }

    /// One record, if one comes. Returns whether none did.
    fn step(&mut self) -> Result<bool> {
        let Some(message) = self.consumer.poll(IDLE) else {
            return Ok(true);
        };
        let message = message?;
        if self.opened.is_none() {
            self.producer.begin_transaction()?;
            self.opened = Some(Instant::now());
        }
        self.offsets
            .insert(message.partition(), message.offset() + 1);
        let Ok(mut event) =
            serde_json::from_slice::<Event<'_>>(message.payload().unwrap_or_default())
        else {
            return Ok(false);
        };
        if event.age < 18 {
            return Ok(false);
        }
        event.name = uppercase(event.name).into();
        self.body.clear();
        serde_json::to_writer(&mut self.body, &event)?;
        let timestamp = message.timestamp().to_millis().unwrap_or(0);
        let mut record = BaseRecord::to(self.output)
            .key(event.id.as_ref())
            .payload(&self.body)
            .timestamp(timestamp);
        if let Some(headers) = message.headers() {
            record = record.headers(headers.detach());
        }
        while let Err((error, back)) = self.producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            self.producer.poll(Duration::from_millis(5));
            record = back;
        }
        Ok(false)
    }

    fn commit(&mut self) -> Result<()> {
        // The crate's own flush sleeps in slices of 100 ms when only errors are reported.
        #[expect(
            unsafe_code,
            reason = "the crate has no flush that returns when it is done"
        )]
        // SAFETY: the client is alive.
        unsafe {
            rdkafka_sys::rd_kafka_flush(self.producer.client().native_ptr(), 30_000);
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in self.offsets.drain() {
            offsets.add_partition_offset(self.input, partition, Offset::Offset(offset))?;
        }
        let group = self
            .consumer
            .group_metadata()
            .context("no member of the group")?;
        self.producer
            .send_offsets_to_transaction(&offsets, &group, PATIENCE)?;
        self.producer.commit_transaction(PATIENCE)?;
        self.opened = None;
        Ok(())
    }
}

fn uppercase(name: Cow<'_, str>) -> String {
    if name.is_ascii() {
        let mut name = name.into_owned();
        name.make_ascii_uppercase();
        name
    } else {
        name.to_uppercase()
    }
}
