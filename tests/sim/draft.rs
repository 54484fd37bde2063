//! The pipeline that a script describes, until the first event makes a worker of it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use millstream_engine::commit::ledger::Ledger;
use millstream_engine::pipeline::{
    From, Grant, Guarantee, Input, Kept, Map, MapId, OnError, Pipeline, Sink, Source, SourceId,
    SourceTopic, Start, Step, StepId, Target,
};
use millstream_engine::task::run::SinkLimits;
use millstream_engine::worker::{Setup, Worker};

/// The `run` number in every token of these scripts.
pub const RUN: u64 = 7;

#[derive(Debug)]
pub struct Draft {
    pub pipeline: Pipeline,
    limits: Vec<SinkLimits>,
    pub map_partitions: u32,
}

impl Default for Draft {
    fn default() -> Self {
        let pipeline = Pipeline {
            name: "lab".into(),
            guarantee: Guarantee::ExactlyOnce,
            interval: Duration::from_millis(100),
            sources: Vec::new(),
            topics: Vec::new(),
            steps: Vec::new(),
            sinks: Vec::new(),
            maps: Vec::new(),
        };
        Self {
            pipeline,
            limits: Vec::new(),
            map_partitions: 1,
        }
    }
}

impl Draft {
    pub fn worker(&self) -> Worker {
        let maps = self.pipeline.maps.iter();
        let changelogs = maps.map(|map| (map.name.as_str(), "the first"));
        Worker::new(Setup {
            ledger: Ledger::new(changelogs),
            pipeline: Arc::new(self.pipeline.clone()),
            limits: self.limits.clone(),
            map_partitions: self.map_partitions,
            instance: "sim".into(),
            worker: 0,
            run: RUN,
        })
    }

    pub fn source(&mut self, name: &str, topics: &[String]) {
        let source = SourceId(self.pipeline.sources.len());
        self.pipeline.sources.push(Source {
            name: name.into(),
            start: Start::Earliest,
            stream: false,
        });
        let topics = topics.iter().map(|topic| SourceTopic {
            source,
            topic: topic.clone(),
        });
        self.pipeline.topics.extend(topics);
    }

    /// `lookups` and `state` name maps; those of its state are returned.
    pub fn step(
        &mut self,
        name: &str,
        inputs: &[String],
        (lookups, state): (&str, &str),
        on_error: Option<&str>,
    ) -> Result<Vec<Grant>, Box<dyn Error>> {
        let mut grants = |maps: &str, kept: &Kept| -> Vec<Grant> {
            let maps = maps.split_whitespace().map(|map| Grant {
                name: map.into(),
                map: self.map(map, kept),
            });
            maps.collect()
        };
        let lookups = grants(lookups, &Kept::Changelog);
        let state = grants(state, &Kept::State);
        let step = Step {
            name: name.into(),
            inputs: self.inputs(inputs)?,
            lookups,
            state: state.clone(),
            on_error: parse_on_error(on_error)?,
            retries: 0,
        };
        self.pipeline.steps.push(step);
        Ok(state)
    }

    /// `map` is the name of the map that the sink writes; without one it writes a topic of the sink's name.
    pub fn sink(
        &mut self,
        name: &str,
        inputs: &[String],
        map: Option<&str>,
        on_error: Option<&str>,
        bytes: Option<usize>,
    ) -> Result<(), Box<dyn Error>> {
        let target = map.map_or_else(
            || Target::Topic(name.into()),
            |map| Target::Map(self.map(map, &Kept::Changelog)),
        );
        let sink = Sink {
            name: name.into(),
            inputs: self.inputs(inputs)?,
            target,
            on_error: parse_on_error(on_error)?,
        };
        self.pipeline.sinks.push(sink);
        self.limits.push(SinkLimits {
            record_bytes_max: bytes.unwrap_or(2_000_000),
        });
        Ok(())
    }

    fn map(&mut self, name: &str, kept: &Kept) -> MapId {
        let known = self.pipeline.maps.iter().position(|map| map.name == name);
        MapId(known.unwrap_or_else(|| {
            self.pipeline.maps.push(Map {
                name: name.into(),
                kept: kept.clone(),
                replicated: false,
                index: Vec::new(),
            });
            self.pipeline.maps.len() - 1
        }))
    }

    pub fn table(&mut self, name: &str, replicated: bool) {
        self.pipeline.maps.push(Map {
            name: name.into(),
            kept: Kept::Topic(name.into()),
            replicated,
            index: Vec::new(),
        });
    }

    fn inputs(&self, names: &[String]) -> Result<Vec<Input>, Box<dyn Error>> {
        names.iter().map(|name| self.input(name)).collect()
    }

    fn input(&self, name: &str) -> Result<Input, Box<dyn Error>> {
        let (owner, port) = name.split_once('.').unwrap_or((name, ""));
        let sources = &self.pipeline.sources;
        let source = sources.iter().position(|source| source.name == owner);
        let from = match (source, self.step_named(owner)) {
            (Some(source), _) => From::Source(SourceId(source)),
            (None, Some(step)) => From::Step {
                step,
                port: port.into(),
            },
            (None, None) => return Err(format!("nothing is named {owner}").into()),
        };
        Ok(Input {
            name: name.into(),
            from,
        })
    }

    pub fn step_named(&self, name: &str) -> Option<StepId> {
        let steps = &self.pipeline.steps;
        steps.iter().position(|step| step.name == name).map(StepId)
    }
}

fn parse_on_error(word: Option<&str>) -> Result<OnError, Box<dyn Error>> {
    match word {
        None | Some("fail") => Ok(OnError::Fail),
        Some("skip") => Ok(OnError::Skip),
        Some("dead-letter") => Ok(OnError::DeadLetter),
        Some(other) => Err(format!("on-error={other} means nothing").into()),
    }
}
