//! Reads partitions of the broker outside of any group.

use std::sync::Arc;

use millstream_broker::{Error, Isolation, Spec};

use super::{FETCH_BYTES, Shared};
use crate::cluster::{self, Read, ReadPlace};

#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    topic: String,
    partition: u32,
    /// Of the next record to be handed out.
    offset: i64,
    /// It has been said that this is the end.
    ended: bool,
}

impl Reader {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            places: Vec::new(),
        }
    }
}

impl cluster::Reader for Reader {
    fn assign(&mut self, places: &[(&str, u32, i64)]) -> Result<(), String> {
        let places = places.iter().map(|&(topic, partition, offset)| Place {
            topic: topic.into(),
            partition,
            offset,
            ended: false,
        });
        self.places = places.collect();
        Ok(())
    }

    fn bounds(&self, topic: &str, partition: u32) -> Result<(i64, i64), String> {
        let bounds = self.shared.ask(|broker| {
            let offset = |spec| broker.list_offset((topic, partition), spec);
            let high_watermark = Spec::Latest(Isolation::ReadUncommitted);
            Ok((offset(Spec::Earliest)?, offset(high_watermark)?))
        });
        bounds.map_err(|error: Error| format!("{topic} partition {partition}: {error}"))
    }

    fn stable_end(&self, topic: &str, partition: u32) -> Result<i64, String> {
        let end = Spec::Latest(Isolation::ReadCommitted);
        let asked = self
            .shared
            .ask(|broker| broker.list_offset((topic, partition), end));
        asked.map_err(|error: Error| format!("{topic} partition {partition}: {error}"))
    }

    fn topic_id(&self, _: &str) -> Result<Option<u128>, String> {
        Ok(None)
    }

    fn poll(&mut self, mut each: impl FnMut(ReadPlace<'_>, Read<'_>)) {
        for place in &mut self.places {
            let at = (place.topic.as_str(), place.partition);
            let fetched = self.shared.fetch(at, place.offset, FETCH_BYTES);
            let Ok(fetched) = fetched else {
                each(at, Read::Unreadable);
                continue;
            };
            for record in fetched.records() {
                let read = Read::Record {
                    offset: record.offset,
                    key: record.key,
                    value: record.value,
                };
                each(at, read);
            }
            let moved = fetched.next_offset > place.offset;
            place.offset = fetched.next_offset;
            place.ended &= !moved;
            if !place.ended && fetched.next_offset >= fetched.last_stable_offset {
                place.ended = true;
                each(at, Read::End(place.offset));
            }
        }
    }
}
