//! Reads a stretch of topics for people: committed records, from somewhere to where the topics end now, and nothing is waited for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::client::Clients;
use super::native::{NativeConsumer, Polled, RecordRef, list};
use crate::cluster::{AdminError, Consumable as _};

const POLL: Duration = Duration::from_millis(100);
/// How long a record, or the end, is waited for.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A record, copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub topic: String,
    pub partition: u32,
    pub offset: i64,
    /// Milliseconds since 1970-01-01 UTC; -1 for none.
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// In their order.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Topic and partition.
type Place = (String, u32);

#[derive(Debug)]
pub struct Stretch {
    consumer: NativeConsumer,
}

impl Stretch {
    /// # Errors
    ///
    /// librdkafka makes no client.
    pub fn new(clients: &Clients) -> Result<Self, AdminError> {
        let mut config = clients.reader_config("read_committed");
        config.set("enable.partition.eof", "true");
        let consumer = NativeConsumer::new(&config).map_err(AdminError::Refused)?;
        Ok(Self { consumer })
    }

    /// First offset of a partition, and the last stable one.
    ///
    /// # Errors
    ///
    /// The brokers don't say.
    pub fn bounds(&self, topic: &str, partition: u32) -> Result<(i64, i64), AdminError> {
        self.consumer.refresh(topic);
        let marks = self.consumer.watermarks(topic, partition);
        marks.map_err(|code| AdminError::Unanswered(format!("{topic}[{partition}]: {code}")))
    }

    /// Hands out the records of these places, each from an offset on and before another one, in the order of offsets.
    ///
    /// # Errors
    ///
    /// The brokers stop answering, or have not got what is asked for.
    pub fn read(
        &mut self,
        places: &[(&str, u32, i64, i64)],
        mut each: impl FnMut(Kept),
    ) -> Result<(), AdminError> {
        let some = places.iter().filter(|(.., from, to)| from < to);
        let mut left: BTreeMap<Place, i64> = some
            .clone()
            .map(|&(topic, partition, _, to)| ((topic.to_owned(), partition), to))
            .collect();
        let assigned =
            list(some.map(|&(topic, partition, from, _)| (topic, partition, Some(from))));
        let refused = |why: String| AdminError::Refused(format!("letters can't be read: {why}"));
        self.consumer
            .assign(&assigned)
            .map_err(|code| refused(code.to_string()))?;
        let (mut heard, mut result) = (Instant::now(), Ok(()));
        while !left.is_empty() && result.is_ok() {
            if heard.elapsed() > SILENCE_MAX {
                let why = format!("the brokers have sent nothing for {SILENCE_MAX:?}");
                return Err(AdminError::Unanswered(why));
            }
            self.consumer.poll(POLL, |polled| match polled {
                Polled::Record(record) => {
                    heard = Instant::now();
                    let kept = copy(&record);
                    let place = (kept.topic.clone(), kept.partition);
                    let Some(&to) = left.get(&place) else { return };
                    if kept.offset + 1 >= to {
                        left.remove(&place);
                    }
                    if kept.offset < to {
                        each(kept);
                    }
                }
                Polled::End {
                    topic, partition, ..
                } => {
                    heard = Instant::now();
                    left.remove(&(topic.to_owned(), number(partition)));
                }
                Polled::Error(error) if error.place.is_some() => {
                    result = Err(refused(error.text.to_string()));
                }
                Polled::Error(error) => {
                    tracing::warn!(target: "millstream::kafka", "{}", error.text);
                }
            });
        }
        result
    }
}

fn number(partition: i32) -> u32 {
    u32::try_from(partition).unwrap_or(u32::MAX)
}

fn copy(record: &RecordRef<'_>) -> Kept {
    let headers = record.headers();
    let headers = headers.map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)));
    Kept {
        topic: record.topic().to_owned(),
        partition: number(record.partition()),
        offset: record.offset(),
        timestamp: record.timestamp(),
        key: record.key().map(<[u8]>::to_vec),
        value: record.value().map(<[u8]>::to_vec),
        headers: headers.collect(),
    }
}
