//! The pipeline of a run, and the plugins of its steps.
//!
//! What a record comes to depends on the record, on state and on a table, and says which record it came from: `partition:offset:…`. So
//! outputs can be held against the input one by one.

use std::rc::Rc;
use std::time::Duration;

use millstream_engine::commit::ledger::Ledger;
use millstream_engine::pipeline::{
    FAILED_PORT, From, Grant, Guarantee, Input, Kept, Map, MapId, OnError, Pipeline, Sink, Source,
    SourceId, SourceTopic, Start, Step, StepId, Target,
};
use millstream_engine::record::Column;
use millstream_engine::state::overlay::Overlay;
use millstream_engine::state::restore::Phase;
use millstream_engine::step::{Batch, CallFailure, Failure, Outcome, Output, Plugin};
use millstream_engine::task::run::SinkLimits;
use millstream_engine::worker::Setup;

use super::course::Course;
use super::plan::{EVENTS, Plan, Shape, TABLE};
use super::world::{Directory, Violation, World};

pub const NAME: &str = "sim";
pub const OUT: &str = "out";
/// Of letters.
pub const DEAD: &str = "dead";
pub const STREAM: &str = "sim.keyed.stream";

/// A map and the number of a partition of it.
pub type MapPlace = (MapId, u32);

pub fn build(plan: &Plan) -> Pipeline {
    let mut pipeline = Pipeline {
        name: NAME.into(),
        guarantee: Guarantee::ExactlyOnce,
        interval: Duration::from_millis(u64::try_from(plan.interval).unwrap_or(1)),
        sources: vec![source("events", false)],
        topics: vec![topic(0, EVENTS)],
        steps: vec![Step {
            name: "step".into(),
            inputs: vec![from_source("events", 0)],
            lookups: Vec::new(),
            state: Vec::new(),
            on_error: plan.on_error,
            retries: 0,
        }],
        sinks: vec![sink(plan, "out", from_step(""), Target::Topic(OUT.into()))],
        maps: Vec::new(),
    };
    match plan.shape {
        Shape::Filter => {}
        Shape::Map => {
            pipeline.maps = vec![map("users", Kept::Changelog)];
            pipeline.sinks = vec![sink(plan, "users", from_step(""), Target::Map(MapId(0)))];
        }
        Shape::Count => {
            pipeline.maps = vec![map("totals", Kept::State)];
            pipeline.steps[0].state = vec![grant("totals")];
        }
        Shape::Stream => {
            pipeline.maps = vec![map("totals", Kept::State)];
            pipeline.steps[0].state = vec![grant("totals")];
            pipeline.steps[0].inputs = vec![from_source("keyed", 1)];
            pipeline.sources.push(source("keyed", true));
            pipeline.topics.push(topic(1, STREAM));
            let target = Target::Stream(STREAM.into());
            let stream = sink(plan, "keyed", from_source("events", 0), target);
            pipeline.sinks.insert(0, stream);
        }
        Shape::Lookup => {
            pipeline.maps = vec![map("countries", Kept::Topic(TABLE.into()))];
            pipeline.steps[0].lookups = vec![grant("countries")];
        }
    }
    if plan.on_error == OnError::DeadLetter {
        let target = Target::Topic(DEAD.into());
        let letters = sink(plan, "dead", from_step(FAILED_PORT), target);
        pipeline.sinks.push(letters);
    }
    pipeline
}

fn from_source(name: &str, source: usize) -> Input {
    Input {
        name: name.into(),
        from: From::Source(SourceId(source)),
    }
}

fn from_step(port: &str) -> Input {
    Input {
        name: "step".into(),
        from: From::Step {
            step: StepId(0),
            port: port.into(),
        },
    }
}

fn sink(plan: &Plan, name: &str, input: Input, target: Target) -> Sink {
    Sink {
        name: name.into(),
        inputs: vec![input],
        target,
        on_error: match plan.on_error {
            OnError::Fail => OnError::Fail,
            OnError::Skip | OnError::DeadLetter => OnError::Skip,
        },
    }
}

fn source(name: &str, stream: bool) -> Source {
    Source {
        name: name.into(),
        start: Start::Earliest,
        stream,
    }
}

fn topic(source: usize, topic: &str) -> SourceTopic {
    SourceTopic {
        source: SourceId(source),
        topic: topic.into(),
    }
}

fn map(name: &str, kept: Kept) -> Map {
    Map {
        name: name.into(),
        kept,
        replicated: false,
        index: Vec::new(),
    }
}

fn grant(name: &str) -> Grant {
    Grant {
        name: name.into(),
        map: MapId(0),
    }
}

pub fn setup(world: &World, instance: &str, worker: u32) -> Setup {
    let limit = SinkLimits {
        record_bytes_max: 1 << 20,
    };
    Setup {
        pipeline: world.pipeline.clone(),
        limits: vec![limit; world.pipeline.sinks.len()],
        map_partitions: world.plan.partitions,
        instance: instance.into(),
        worker,
        run: world.random(),
        ledger: Ledger::default(),
    }
}

/// What is done with a record's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    Passed,
    Dropped,
    Failed,
}

/// Which of its records a step lets through. Shared with the judge, and all that is: it is the pipeline's definition.
pub fn treatment(shape: Shape, value: Option<&[u8]>) -> Treatment {
    match value.map(payload_of) {
        Some(b"refuse" | b"trap") => Treatment::Failed,
        Some(value) if shape == Shape::Filter && value.last().is_some_and(|last| last % 3 == 0) => {
            Treatment::Dropped
        }
        _ => Treatment::Passed,
    }
}

fn payload_of(value: &[u8]) -> &[u8] {
    value
        .rsplit(|&byte| byte == b':')
        .next()
        .unwrap_or_default()
}

/// What an instance remembers between calls, as guests may: of each partition the last offset that it was given. Of work that was rolled
/// back it must remember nothing.
#[derive(Debug, Default)]
struct Guest {
    seen: Vec<((String, u32), i64)>,
}

/// A version of the plugins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Code {
    /// The worker in which what it puts out is wrong.
    pub bad: Option<u32>,
}

/// The steps' plugins in a worker, as the server keeps them: an instance that failed a call is never called again.
#[derive(Debug)]
pub struct Steps {
    world: Rc<World>,
    directory: Rc<Directory>,
    guest: Option<Guest>,
    /// What they put out is wrong.
    is_bad: bool,
    pub failed_calls: u64,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Directory")
    }
}

impl Steps {
    pub fn new(world: &Rc<World>, directory: &Rc<Directory>) -> Self {
        Self {
            world: Rc::clone(world),
            directory: Rc::clone(directory),
            guest: None,
            is_bad: false,
            failed_calls: 0,
        }
    }

    /// Has other plugins from now on.
    pub fn change(&mut self, code: Code, worker: u32) {
        self.is_bad = code.bad == Some(worker);
        self.discard();
    }

    pub fn is_bad(&self) -> bool {
        self.is_bad
    }

    /// Throws the instance away: what it saw was rolled back.
    pub fn discard(&mut self) {
        self.guest = None;
    }

    fn call(
        &self,
        guest: &mut Guest,
        batch: &Batch<'_>,
        overlay: &mut Overlay,
    ) -> Result<Outcome, CallFailure> {
        self.remember(guest, batch);
        let columns = batch.columns;
        let traps = self.world.weather.borrow().traps();
        let trap_at = (columns.len() > 1 && self.world.chance(traps))
            .then(|| self.world.below(columns.len()));
        let (mut values, mut outcome) = (Column::default(), Outcome::default());
        let mut origins = Vec::new();
        for (origin, index) in (0..).zip(0..columns.len()) {
            let value = columns.values.get(index);
            if trap_at == Some(index) && index + 1 == columns.len() {
                self.world.count(Course::Overdue);
                return Err(CallFailure::Overdue("it takes too long".into()));
            }
            if trap_at == Some(index) || value.map(payload_of) == Some(b"trap") {
                self.world.count(Course::Trap);
                return Err(CallFailure::Plugin("unreachable".into()));
            }
            match treatment(self.world.plan.shape, value) {
                Treatment::Passed => {
                    let made = self.make(batch, index, overlay)?;
                    values.push(made.as_deref());
                    origins.push(origin);
                }
                Treatment::Dropped => {}
                Treatment::Failed => outcome.failures.push(Failure {
                    origin,
                    reason: "refused".into(),
                }),
            }
        }
        outcome.outputs.push(Output {
            origins,
            values: Some(values),
            ..Output::default()
        });
        Ok(outcome)
    }

    fn remember(&self, guest: &mut Guest, batch: &Batch<'_>) {
        let offsets = &batch.columns.offsets;
        let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else {
            return;
        };
        let place = (batch.topic.to_owned(), batch.partition);
        let known = guest.seen.iter_mut().find(|(known, _)| *known == place);
        let Some((_, seen)) = known else {
            return guest.seen.push((place, *last));
        };
        if first <= seen {
            self.world.violate(Violation {
                name: "guest-remembers",
                what: format!(
                    "an instance that was given {place:?} up to {seen} is given it from {first} on: it remembers work that was rolled back"
                ),
            });
        }
        *seen = *last;
    }

    /// The value of the record that comes out.
    fn make(
        &self,
        batch: &Batch<'_>,
        index: usize,
        overlay: &mut Overlay,
    ) -> Result<Option<Vec<u8>>, CallFailure> {
        let columns = batch.columns;
        let value = columns.values.get(index);
        let key = columns.keys.get(index).unwrap_or_default();
        let text = String::from_utf8_lossy(value.map(payload_of).unwrap_or_default());
        let wrong = if self.is_bad { "wrong:" } else { "" };
        let mark = format!("{wrong}{}:{}", batch.partition, columns.offsets[index]);
        let place = (MapId(0), batch.partition);
        Ok(match self.world.plan.shape {
            Shape::Filter => Some(format!("{mark}:{text}").into_bytes()),
            Shape::Map => value.map(|_| format!("{mark}:{text}").into_bytes()),
            Shape::Count | Shape::Stream => {
                let before = match overlay.get(place, key) {
                    Some(changed) => changed.map(<[u8]>::to_vec),
                    None => self.committed(place, key)?,
                };
                let after = counted(before.as_deref(), &text);
                let timestamp = columns.timestamps[index];
                overlay.put(place, key, Some(after.as_bytes()), timestamp);
                Some(format!("{mark}:{after}").into_bytes())
            }
            Shape::Lookup => {
                let found = self.committed(place, key)?;
                if found.is_some() {
                    self.world.count(Course::LookupFound);
                }
                let found = found.as_deref().map(String::from_utf8_lossy);
                let found = found.unwrap_or_else(|| "none".into());
                Some(format!("{mark}:{text}={found}").into_bytes())
            }
        })
    }

    fn committed(&self, place: MapPlace, key: &[u8]) -> Result<Option<Vec<u8>>, CallFailure> {
        let places = self.directory.places.borrow();
        let shared = places.get(&place).map(|shared| shared.borrow());
        match shared {
            Some(partition) if partition.phase() == Phase::Live => {
                Ok(partition.contents().get(key).map(<[u8]>::to_vec))
            }
            _ => Err(CallFailure::NotReady("the table is being restored".into())),
        }
    }
}

/// A count and a sum, one more.
pub fn counted(before: Option<&[u8]>, value: &str) -> String {
    let before = before.map(String::from_utf8_lossy);
    let numbers = before.as_deref().and_then(|text| text.split_once('/'));
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    let (count, sum) = numbers.map_or((0, 0), |(count, sum)| (number(count), number(sum)));
    format!("{}/{}", count + 1, sum + number(value))
}

impl Plugin for Steps {
    fn process(
        &mut self,
        _: StepId,
        batch: &Batch<'_>,
        overlay: &mut Overlay,
    ) -> Result<Outcome, CallFailure> {
        let mut guest = self.guest.take().unwrap_or_default();
        let answer = self.call(&mut guest, batch, overlay);
        match &answer {
            Ok(_) => self.guest = Some(guest),
            Err(_) => {
                self.failed_calls += 1;
                self.world.count(Course::GuestReplaced);
            }
        }
        answer
    }

    fn forget(&mut self) {
        self.discard();
    }

    fn ports(&self, _: StepId) -> &[String] {
        &[]
    }

    fn digest(&self, _: StepId) -> &str {
        "simulated"
    }
}
