//! Kafka's log cleaner, which compacts when it likes, and never the segment that is written to. No request says how far it has come;
//! what it writes to disk after each round does.

use std::fs;
use std::path::PathBuf;

use millstream_broker::Settings;

/// In the data folder: a version, the number of lines, then topic, partition, and the offset up to which it is compacted.
const CHECKPOINT: &str = "cleaner-offset-checkpoint";

#[derive(Debug)]
pub struct Cleaner {
    data: PathBuf,
}

impl Cleaner {
    /// Of the broker with that data folder.
    pub fn new(data: PathBuf) -> Self {
        Self { data }
    }

    /// Up to where a partition has been compacted. None where that has never been.
    pub fn offset(&self, (topic, partition): (&str, u32)) -> Option<i64> {
        // While it is replaced, and before the first round, there is none.
        let lines = fs::read_to_string(self.data.join(CHECKPOINT)).unwrap_or_default();
        let head = format!("{topic} {partition} ");
        let offset = lines.lines().find_map(|line| line.strip_prefix(&head))?;
        offset.parse().ok()
    }
}

/// What a topic is created with. One that is compacted is so whenever there is something to do, and a record that is more than a
/// millisecond later than the first of a segment begins another segment.
pub fn configs(settings: &Settings) -> Vec<(&'static str, String)> {
    let bytes = ("max.message.bytes", settings.max_message_bytes.to_string());
    if !settings.compact {
        return vec![bytes];
    }
    vec![
        bytes,
        ("cleanup.policy", "compact".into()),
        ("min.cleanable.dirty.ratio", "0".into()),
        ("segment.ms", "1".into()),
    ]
}
