//! Writes events of the input topic to it again, at a rate, with as little CPU as librdkafka takes: it runs beside what is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::{INPUT, PARTITIONS};

/// Events that are written over and over.
const EVENTS: usize = 200_000;
const TURN: Duration = Duration::from_millis(10);
const FLUSH_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Writer {
    thread: JoinHandle<Result<u64>>,
    end: Arc<AtomicBool>,
}

impl Writer {
    /// Begins to write `rate` events a second. It ends by itself after a while, should nobody end it: `seconds` is how long a
    /// measure takes.
    pub fn start(bootstrap: &str, rate: u64, seconds: u64) -> Result<Self> {
        let events = read(bootstrap)?;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        config.set("partitioner", "murmur2_random");
        config
            .set("linger.ms", "50")
            .set("enable.idempotence", "true");
        config.set("queue.buffering.max.messages", "1000000");
        let producer: BaseProducer = config.create()?;
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let longest = Duration::from_secs(10 * seconds + 60);
        let thread = std::thread::spawn(move || {
            let began = Instant::now();
            let mut written = 0;
            let mut next = events.iter().cycle();
            while !ended.load(Ordering::Relaxed) && began.elapsed() < longest {
                let due = began.elapsed().as_millis() * u128::from(rate) / 1000;
                while u128::from(written) < due {
                    let event = next.next().context("there are events")?;
                    let mut record = BaseRecord::<[u8], [u8]>::to(INPUT);
                    record.key = event.key();
                    record.payload = event.payload();
                    let sent = producer.send(record);
                    sent.map_err(|(error, _)| error).context("writing events")?;
                    written += 1;
                }
                producer.poll(Duration::ZERO);
                std::thread::sleep(TURN);
            }
            producer.flush(FLUSH_MAX)?;
            Ok(written)
        });
        Ok(Self { thread, end })
    }

    /// How many it wrote.
    pub fn end(self) -> Result<u64> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer does not panic")
    }
}

/// The first events of the topic.
fn read(bootstrap: &str) -> Result<Vec<OwnedMessage>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "replay");
    let consumer: BaseConsumer = config.create()?;
    let mut places = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        places.add_partition_offset(INPUT, i32::try_from(partition)?, Offset::Beginning)?;
    }
    consumer.assign(&places)?;
    let mut events = Vec::with_capacity(EVENTS);
    while events.len() < EVENTS {
        let event = consumer
            .poll(FLUSH_MAX)
            .context("there are too few events")?;
        events.push(event?.detach());
    }
    ensure!(
        events.iter().all(|event| event.key().is_some()),
        "events have keys"
    );
    Ok(events)
}
