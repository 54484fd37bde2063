//! What the pipeline comes to without epochs: a straight fold over its input, record by record. Held against what transactions have.

use std::collections::BTreeMap;

use millstream_engine::pipeline::OnError;
use millstream_engine::state::changelog;

use super::judge::{Place, wrong};
use super::pipeline::{DEAD, OUT, STREAM, Treatment, counted, treatment};
use super::plan::{EVENTS, Shape, TABLE, payload};
use super::world::Violation;

pub type Text = String;

pub fn text(bytes: &[u8]) -> Text {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Outputs and changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Of topics that are no changelogs: in each partition what came of each input partition, in order.
    outputs: BTreeMap<(Place, u32), Vec<(Text, Text)>>,
    /// Of changelogs: the last value of each key in each partition, and how many there were.
    changes: BTreeMap<(u32, Text), (Option<Text>, u32)>,
}

impl Work {
    /// A record that stands in the log of a topic which the pipeline writes.
    pub fn add(&mut self, place: &Place, key: &Text, value: Option<&Text>) {
        let value = value.cloned();
        if [OUT, STREAM, DEAD].contains(&place.0.as_str()) {
            // What was looked up is the judge's: it depends on how far the table was.
            let value = value.unwrap_or_default();
            let value = value
                .split_once('=')
                .map_or(value.clone(), |(made, _)| made.into());
            let from = origin(&value).map_or(u32::MAX, |(partition, _)| partition);
            let outputs = self.outputs.entry((place.clone(), from));
            outputs.or_default().push((key.clone(), value));
        } else {
            let change = self.changes.entry((place.1, key.clone())).or_default();
            *change = (value, change.1 + 1);
        }
    }

    fn output(&mut self, topic: &str, partitions: u32, from: u32, key: &str, value: Text) {
        let to = changelog::partition(key.as_bytes(), partitions);
        let outputs = self.outputs.entry(((topic.into(), to), from));
        outputs.or_default().push((key.into(), value));
    }

    fn change(&mut self, partition: u32, key: &str, value: Option<Text>) {
        self.changes.insert((partition, key.into()), (value, 1));
    }
}

/// Partition and offset of the record that an output came from.
pub fn origin(value: &str) -> Option<(u32, i64)> {
    let mut parts = value.split(':');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[derive(Debug)]
pub struct Reference {
    shape: Shape,
    on_error: OnError,
    partitions: u32,
    /// Of the pipeline's map, by partition.
    maps: BTreeMap<u32, BTreeMap<Text, Text>>,
}

impl Reference {
    pub fn new(shape: Shape, on_error: OnError, partitions: u32) -> Self {
        Self {
            shape,
            on_error,
            partitions,
            maps: BTreeMap::new(),
        }
    }

    /// Whether others write it.
    pub fn is_input(&self, topic: &str) -> bool {
        topic == EVENTS || topic == TABLE
    }

    pub fn map(&self, partition: u32) -> BTreeMap<Text, Text> {
        self.maps.get(&partition).cloned().unwrap_or_default()
    }

    pub fn stops_at(&self, value: Option<&Text>) -> bool {
        let value = value.map(String::as_bytes);
        self.on_error == OnError::Fail && treatment(self.shape, value) == Treatment::Failed
    }

    /// Takes a record of an input partition. Returns false where its task stops there.
    pub fn run(
        &mut self,
        place: &Place,
        offset: i64,
        key: &Text,
        value: Option<&Text>,
        expected: &mut Work,
    ) -> bool {
        let partition = place.1;
        let text = value.map(String::as_str).unwrap_or_default();
        if self.shape == Shape::Stream && place.0 == EVENTS {
            expected.output(STREAM, self.partitions, partition, key, text.into());
            return true;
        }
        if self.stops_at(value) {
            return false;
        }
        let mark = format!("{partition}:{offset}");
        match treatment(self.shape, value.map(String::as_bytes)) {
            Treatment::Passed => {}
            Treatment::Failed if self.on_error == OnError::DeadLetter => {
                let letter = format!("{mark}:{text}");
                expected.output(DEAD, self.partitions, partition, key, letter);
                return true;
            }
            Treatment::Dropped | Treatment::Failed => return true,
        }
        let text = payload(text);
        let out = match self.shape {
            Shape::Filter => format!("{mark}:{text}"),
            Shape::Map => {
                let to = changelog::partition(key.as_bytes(), self.partitions);
                let value = value.map(|_| format!("{mark}:{text}"));
                let map = self.maps.entry(to).or_default();
                match &value {
                    Some(value) => map.insert(key.clone(), value.clone()),
                    None => map.remove(key),
                };
                expected.change(to, key, value);
                return true;
            }
            Shape::Count | Shape::Stream => {
                let map = self.maps.entry(partition).or_default();
                let before = map.get(key).map(String::as_bytes);
                let after = counted(before, text);
                map.insert(key.clone(), after.clone());
                expected.change(partition, key, Some(after.clone()));
                format!("{mark}:{after}")
            }
            Shape::Lookup => format!("{mark}:{text}"),
        };
        expected.output(OUT, self.partitions, partition, key, out);
        true
    }

    /// Whether a transaction has what it should have. `committed` says up to which offset of a partition that is.
    pub fn compare(
        &self,
        expected: &Work,
        found: &Work,
        committed: impl Fn(u32) -> i64,
    ) -> Result<(), Violation> {
        let none = Vec::new();
        let groups = expected.outputs.keys().chain(found.outputs.keys());
        for group in groups {
            let (place, from) = group;
            let of = |work: &Work| work.outputs.get(group).unwrap_or(&none).clone();
            let (wanted, there) = (of(expected), of(found));
            if wanted == there {
                continue;
            }
            let extra = there.iter().find(|output| !wanted.contains(output));
            let missing = wanted.iter().find(|output| !there.contains(output));
            let beyond = |value: &str| {
                let is_out = place.0 != STREAM;
                origin(value).is_some_and(|(_, offset)| is_out && offset >= committed(*from))
            };
            let name = match (extra, missing) {
                (Some((_, value)), _) if beyond(value) => "torn",
                (Some(_), None) => "duplicated",
                (None, Some(_)) => "lost",
                (Some(_), Some(_)) | (None, None) => "wrong",
            };
            let what = format!("{place:?} has {there:?}, not {wanted:?}");
            return Err(wrong(name, what));
        }
        if expected.changes != found.changes {
            let beyond = found
                .changes
                .keys()
                .any(|key| !expected.changes.contains_key(key));
            let within = expected
                .changes
                .keys()
                .any(|key| !found.changes.contains_key(key));
            let name = match (beyond, within) {
                (true, false) => "torn",
                (false, true) => "lost",
                _ => "wrong",
            };
            let what = format!("changes {:?}, not {:?}", found.changes, expected.changes);
            return Err(wrong(name, what));
        }
        Ok(())
    }
}
