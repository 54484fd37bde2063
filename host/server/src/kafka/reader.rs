//! Reads partitions outside of any group, with two clients: the one that reads committed records is told no further end than the
//! last stable offset, so another one is asked for the high watermark.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka_sys::RDKafkaErrorCode as Code;

use super::client::Clients;
use super::native::{ErrorRef, NativeConsumer, Polled, list};
use crate::cluster::{self, Consumable as _, Read, ReadPlace};

#[derive(Debug)]
pub struct Reader {
    committed: NativeConsumer,
    uncommitted: NativeConsumer,
    /// Topics of which `committed` has been told who leads them. By itself it would ask once a second.
    known: BTreeSet<String>,
}

impl Reader {
    pub fn new(clients: &Clients) -> Result<Self, String> {
        let mut committed = clients.reader_config("read_committed");
        committed.set("enable.partition.eof", "true");
        let uncommitted = clients.reader_config("read_uncommitted");
        Ok(Self {
            committed: NativeConsumer::new(&committed)?,
            uncommitted: NativeConsumer::new(&uncommitted)?,
            known: BTreeSet::new(),
        })
    }

    /// No further than to the first that nobody answers for.
    fn know<'t>(&mut self, mut topics: impl Iterator<Item = &'t str>) {
        topics.all(|topic| {
            self.known.contains(topic)
                || (self.committed.refresh(topic) && self.known.insert(topic.to_owned()))
        });
    }
}

impl cluster::Reader for Reader {
    fn assign(&mut self, places: &[(&str, u32, i64)]) -> Result<(), String> {
        self.know(places.iter().map(|place| place.0));
        let places = places
            .iter()
            .map(|&(topic, partition, offset)| (topic, partition, Some(offset)));
        self.committed
            .assign(&list(places))
            .map_err(|code| code.to_string())
    }

    fn bounds(&self, topic: &str, partition: u32) -> Result<(i64, i64), String> {
        let marks = self.uncommitted.watermarks(topic, partition);
        marks.map_err(|code| {
            self.uncommitted.refresh(topic);
            format!("{topic} partition {partition}: {code}")
        })
    }

    fn stable_end(&self, topic: &str, partition: u32) -> Result<i64, String> {
        let marks = self.committed.watermarks(topic, partition);
        marks.map(|(_, end)| end).map_err(|code| {
            self.committed.refresh(topic);
            format!("{topic} partition {partition}: {code}")
        })
    }

    fn topic_id(&self, topic: &str) -> Result<Option<u128>, String> {
        self.uncommitted.topic_id(topic)
    }

    fn poll(&mut self, mut each: impl FnMut(ReadPlace<'_>, Read<'_>)) {
        let number = |partition| u32::try_from(partition).unwrap_or(u32::MAX);
        self.committed.poll(Duration::ZERO, |polled| match polled {
            Polled::Record(record) => {
                let read = Read::Record {
                    offset: record.offset(),
                    key: record.key(),
                    value: record.value(),
                };
                each((record.topic(), number(record.partition())), read);
            }
            Polled::End {
                topic,
                partition,
                offset,
            } => each((topic, number(partition)), Read::End(offset)),
            Polled::Error(ErrorRef {
                code, text, place, ..
            }) => {
                tracing::warn!(target: "millstream::kafka", "reader: {text} ({code:?})");
                let unreadable = matches!(
                    code,
                    Code::AutoOffsetReset
                        | Code::OffsetOutOfRange
                        | Code::BadMessage
                        | Code::BadCompression
                );
                if let Some((topic, partition)) = place.filter(|_| unreadable) {
                    each((topic, number(partition)), Read::Unreadable);
                }
            }
        });
    }
}
