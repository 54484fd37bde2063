//! A pipeline as the engine sees it: names resolved to indices, steps in an order in which inputs come first, nothing left
//! to check. Built by the server from the pipeline file; never changed afterwards.
//!
//! Invariant: every index in it is in range, the graph has no cycle, and `steps` is in topological order.

use std::time::Duration;

use crate::json::Pointer;

/// Index of a step in [`Pipeline::steps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub usize);

/// Index of a sink in [`Pipeline::sinks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SinkId(pub usize);

/// Index of a source in [`Pipeline::sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub usize);

/// Index of a map in [`Pipeline::maps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapId(pub usize);

/// Index of a source topic in [`Pipeline::topics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub usize);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// Consumer group, and the first part of every name that the pipeline gives to something in Kafka.
    pub name: String,
    pub guarantee: Guarantee,
    /// From the first record of an epoch to the start of its commit.
    pub interval: Duration,
    pub sources: Vec<Source>,
    /// Every topic of every source. A topic belongs to one source only.
    pub topics: Vec<SourceTopic>,
    /// In topological order.
    pub steps: Vec<Step>,
    /// In the order of the pipeline file, which is the order in which records of one origin reach Kafka.
    pub sinks: Vec<Sink>,
    pub maps: Vec<Map>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    ExactlyOnce,
    AtLeastOnce,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub start: Start,
    /// Whether its one topic is the pipeline's own: a keyed stream, which the sink of its name writes, or the way back of a step's dead letters.
    pub stream: bool,
}

/// Where a source begins when the group has never committed an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTopic {
    pub source: SourceId,
    pub topic: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub name: String,
    /// In the order of the pipeline file: records of one source offset meet in that order.
    pub inputs: Vec<Input>,
    /// The maps that its plugin may read.
    pub lookups: Vec<Grant>,
    /// The maps that its plugin reads and changes; no other step's, and no sink's.
    pub state: Vec<Grant>,
    pub on_error: OnError,
    /// How often a call that fails on a record alone is made again before the record counts as failed.
    pub retries: u32,
}

/// A map that a step may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Under which the plugin opens it.
    pub name: String,
    pub map: MapId,
}

/// One name in an `inputs` list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// As the pipeline file names it: `events`, `parse`, `parse.adults`.
    pub name: String,
    pub from: From,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    Source(SourceId),
    /// The port is empty for the default one.
    Step {
        step: StepId,
        port: String,
    },
}

/// What becomes of a record that a step or sink can't take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Everything up to the record is committed, then its task stops.
    Fail,
    /// Counted, logged and left out.
    Skip,
    /// Counted and logged, and it leaves by the step's port [`FAILED_PORT`]. Of steps only.
    DeadLetter,
}

/// The port by which a step's dead letters leave. No plugin has one of that name.
pub const FAILED_PORT: &str = "failed";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    pub name: String,
    pub inputs: Vec<Input>,
    pub target: Target,
    pub on_error: OnError,
}

impl Sink {
    /// As people know it: what the pipeline file calls a stream is one here too.
    pub fn describe(&self) -> String {
        let kind = match self.target {
            Target::Topic(_) | Target::Map(_) => "sink",
            Target::Stream(_) => "stream",
        };
        format!("{kind} \"{}\"", self.name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Topic(String),
    Map(MapId),
    /// A topic of the pipeline's own, read back as the source of the sink's name: each key is in the partition that it hashes to.
    Stream(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    pub name: String,
    pub kept: Kept,
    /// Held once per process, all of it; else a task holds its own partition of it.
    pub replicated: bool,
    /// Where in the values scalars stand that queries look for.
    pub index: Vec<Pointer>,
}

/// The topic that a map is the fold of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Its changelog: sinks write it, each key in the partition that it hashes to.
    Changelog,
    /// Its changelog: a step writes it, each task in its own partition. A key may stand in several.
    State,
    /// A topic that others write: the map is a table made from it.
    Topic(String),
}

impl Kept {
    /// Whether the pipeline writes it.
    pub fn is_own(&self) -> bool {
        match self {
            Self::Changelog | Self::State => true,
            Self::Topic(_) => false,
        }
    }
}

impl Pipeline {
    /// The compacted topic that keeps a map which the pipeline writes: `<pipeline>.<map>.changelog`.
    pub fn changelog(&self, map: MapId) -> String {
        format!("{}.{}.changelog", self.name, self.maps[map.0].name)
    }

    /// The topic behind a keyed stream of a pipeline: `<pipeline>.<stream>.stream`.
    pub fn stream_topic(pipeline: &str, stream: &str) -> String {
        format!("{pipeline}.{stream}.stream")
    }

    /// The topic by which dead letters come back to a step of a pipeline: `<pipeline>.<step>.replay`.
    pub fn replay_topic(pipeline: &str, step: &str) -> String {
        format!("{pipeline}.{step}.replay")
    }

    /// Whether the pipeline writes this source topic itself, or has letters written back there.
    pub fn is_stream(&self, topic: TopicId) -> bool {
        self.sources[self.topics[topic.0].source.0].stream
    }

    /// The topic that a map is the fold of.
    pub fn topic_of(&self, map: MapId) -> String {
        match &self.maps[map.0].kept {
            Kept::Changelog | Kept::State => self.changelog(map),
            Kept::Topic(topic) => topic.clone(),
        }
    }

    /// Whether all source topics must have the same number of partitions: a task that owns map partitions owns that number in
    /// every topic, keyed streams too. Replicated tables alone ask for nothing.
    pub fn co_partitioned(&self) -> bool {
        let mut maps = self.maps.iter();
        self.has_streams() || maps.any(|map| map.kept.is_own() || !map.replicated)
    }

    /// Whether the pipeline writes topics that it reads back.
    pub fn has_streams(&self) -> bool {
        self.sources.iter().any(|source| source.stream)
    }

    /// The maps whose changelogs the pipeline writes.
    pub fn own_maps(&self) -> impl Iterator<Item = MapId> {
        let maps = self.maps.iter().enumerate();
        let own = maps.filter(|(_, map)| map.kept.is_own());
        own.map(|(id, _)| MapId(id))
    }

    /// Whether a step reads a map, be it a table or its own state.
    pub fn has_tables(&self) -> bool {
        !self.read_by_steps().is_empty()
    }

    /// Whether a step has state.
    pub fn has_state(&self) -> bool {
        self.steps.iter().any(|step| !step.state.is_empty())
    }

    /// The maps that steps read, each once: tables, and their own state.
    pub fn read_by_steps(&self) -> Vec<MapId> {
        let read = self.steps.iter();
        let read = read.flat_map(|step| step.lookups.iter().chain(&step.state));
        let mut maps: Vec<MapId> = read.map(|grant| grant.map).collect();
        maps.sort_unstable();
        maps.dedup();
        maps
    }
}
