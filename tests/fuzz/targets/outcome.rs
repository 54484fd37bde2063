//! What plugins answer: any columns, origins, ports and failures, to calls on a small graph with dead letters, state, and sinks of every
//! kind. An answer that was accepted is read without a panic, and the sinks get what the engine promises them.
//!
//! A record's timestamp is its source offset, and every answer keeps it: so it can be told what a record at a sink comes from.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use millstream_engine::pipeline::{
    From, Grant, Guarantee, Input, Kept, Map, MapId, OnError, Pipeline, Sink, SinkId, Source,
    SourceId, SourceTopic, Start, Step, StepId, Target,
};
use millstream_engine::record::{Column, Columns, Headers, Record};
use millstream_engine::state::changelog;
use millstream_engine::state::overlay::Overlay;
use millstream_engine::step::{
    Batch, CallFailure, Failure, OUTCOME_BYTES_MAX, Outcome, Output, Plugin,
};
use millstream_engine::task::run::{self, Origin, RECORD_OVERHEAD, Ran, SinkLimits, Surroundings};
use millstream_fuzz::Draws;

const MAP_PARTITIONS: u32 = 3;
const PARTITION: u32 = 1;

/// The maps: a step's state, and what a sink writes.
const STATE: MapId = MapId(0);
const SUNK: MapId = MapId(1);

/// What a header may add to a record, as `task/run` counts it.
const HEADER_OVERHEAD: usize = 10;

fuzz_target!(|data: &[u8]| {
    let mut draws = Draws(data);
    let pipeline = pipeline(&mut draws);
    let limits: Vec<SinkLimits> = (pipeline.sinks.iter())
        .map(|_| SinkLimits {
            record_bytes_max: [1 << 20, 160][draws.below(2)],
        })
        .collect();
    let columns = source(&mut draws);
    let mut plugin = Drawn {
        draws,
        ports: ["odd", "even"].map(String::from),
        has_state: pipeline.has_state(),
    };
    let mut sent = Sent {
        records: vec![Vec::new(); pipeline.sinks.len()],
        left: 1 + plugin.draws.below(256),
    };
    let mut overlay = Overlay::new(1);
    let mut around = Surroundings {
        pipeline: &pipeline,
        limits: &limits,
        map_partitions: MAP_PARTITIONS,
        plugin: &mut plugin,
        output: &mut sent,
        overlay: &mut overlay,
    };
    let origin = Origin {
        source: SourceId(0),
        topic: "events",
        partition: PARTITION,
        now: 1,
        columns: &columns,
    };
    if let Ok(ran) = run::run(&mut around, &origin) {
        check_ran(&ran, &columns);
        check_sent(&ran, &pipeline, &limits, &sent.records);
        check_overlay(&overlay, end(&ran, &columns));
    }
});

/// The offset before which everything is dealt with.
fn end(ran: &Ran, columns: &Columns) -> i64 {
    let stopped_at = columns.offsets.get(ran.records).copied();
    stopped_at.unwrap_or(i64::MAX)
}

fn check_ran(ran: &Ran, columns: &Columns) {
    let end = end(ran, columns);
    assert!(ran.records <= columns.len());
    assert!(ran.failures.iter().all(|failure| failure.offset <= end));
    let stopped_at = ran.stopper().map(|failure| failure.offset);
    let expected = (ran.records < columns.len()).then_some(end);
    assert_eq!(stopped_at, expected, "{ran:?}");
    let signs = ran
        .failures
        .iter()
        .flat_map(|failure| failure.reason.chars());
    assert!(!signs.into_iter().any(char::is_control));
}

/// Nothing of what stopped the task or comes after it, in the order of the source, and nothing that the sink can't take.
fn check_sent(ran: &Ran, pipeline: &Pipeline, limits: &[SinkLimits], sent: &[Vec<Arrival>]) {
    for (at, records) in sent.iter().enumerate() {
        let sink = &pipeline.sinks[at];
        assert!(records.is_sorted_by_key(|record| record.offset));
        for record in records {
            let framed = record.bytes + record.headers * HEADER_OVERHEAD + RECORD_OVERHEAD;
            assert!(framed <= limits[at].record_bytes_max);
            assert!(record.has_key || matches!(sink.target, Target::Topic(_)));
        }
        if !matches!(sink.target, Target::Map(_)) {
            let bytes: usize = records.iter().map(|record| record.bytes).sum();
            let counted = (ran.sent[at].records, ran.sent[at].bytes);
            assert_eq!(counted, (records.len() as u64, bytes as u64));
        }
    }
    let stopped = ran.stopper().map_or(i64::MAX, |failure| failure.offset);
    let all = sent.iter().flatten();
    assert!(all.into_iter().all(|record| record.offset < stopped));
}

fn check_overlay(overlay: &Overlay, end: i64) {
    for change in overlay.changes() {
        assert!(change.timestamp < end, "of a record that is not dealt with");
        let partition = match change.map {
            STATE => PARTITION,
            _ => changelog::partition(change.key, MAP_PARTITIONS),
        };
        assert_eq!(change.partition, partition);
    }
}

/// What a sink was given.
#[derive(Clone)]
struct Arrival {
    offset: i64,
    bytes: usize,
    headers: usize,
    has_key: bool,
}

struct Sent {
    records: Vec<Vec<Arrival>>,
    /// After so many the producer fails.
    left: usize,
}

impl run::Output for Sent {
    fn send(&mut self, sink: SinkId, record: &Record<'_>) -> Result<(), String> {
        self.left -= 1;
        if self.left == 0 {
            return Err("the producer is fenced".into());
        }
        for (name, _) in record.headers.iter() {
            assert!(std::str::from_utf8(name).is_ok() && !name.contains(&0));
        }
        self.records[sink.0].push(Arrival {
            offset: record.timestamp,
            bytes: record.bytes(),
            headers: record.headers.len(),
            has_key: record.key.is_some(),
        });
        Ok(())
    }
}

/// A plugin that answers anything.
struct Drawn<'d> {
    draws: Draws<'d>,
    ports: [String; 2],
    has_state: bool,
}

impl Plugin for Drawn<'_> {
    fn process(
        &mut self,
        step: StepId,
        batch: &Batch<'_>,
        overlay: &mut Overlay,
    ) -> Result<Outcome, CallFailure> {
        let columns = batch.columns;
        assert!(!columns.is_empty());
        assert!(columns.offsets.is_sorted());
        assert_eq!(columns.offsets, columns.timestamps);
        let is_of_one = batch.inputs.len() == 1 && batch.input_of.is_empty();
        assert!(is_of_one || batch.input_of.len() == columns.len());
        let mut inputs = batch.input_of.iter();
        assert!(inputs.all(|&input| (input as usize) < batch.inputs.len()));
        if self.has_state && step == StepId(0) {
            for &offset in &columns.offsets {
                let key = [self.draws.byte() % 4];
                overlay.put((STATE, batch.partition), &key, Some(b"seen"), offset);
            }
        }
        match self.draws.below(32) {
            31 => return Err(CallFailure::Host("no instance".into())),
            30 => return Err(CallFailure::NotReady("no table".into())),
            25..30 => return Err(CallFailure::Plugin("it\ntrapped".into())),
            _ => {}
        }
        let outcome = outcome(&mut self.draws, columns);
        let outcome = outcome.map_err(CallFailure::Plugin)?;
        if outcome.check(columns, &self.ports).is_ok() {
            read_all(&outcome, columns);
        }
        Ok(outcome)
    }

    fn forget(&mut self) {}

    fn ports(&self, _: StepId) -> &[String] {
        &self.ports
    }

    fn digest(&self, _: StepId) -> &str {
        "0123"
    }
}

/// Every record of an accepted answer can be had, and all of them are within the limit.
fn read_all(outcome: &Outcome, columns: &Columns) {
    let mut bytes = 0;
    for output in &outcome.outputs {
        for (index, &origin) in output.origins.iter().enumerate() {
            let record = output.record(index, columns, 0);
            assert_eq!(record.timestamp, columns.timestamps[origin as usize]);
            bytes += record.bytes();
        }
        let headers = output.headers.iter();
        let owners = headers.flat_map(|headers| headers.owners().to_vec());
        assert!(
            owners
                .max()
                .is_none_or(|last| (last as usize) < output.origins.len())
        );
    }
    assert!(bytes <= columns.bytes() + 32 * columns.len() + OUTCOME_BYTES_MAX);
}

/// Mostly sound.
fn outcome(draws: &mut Draws<'_>, batch: &Columns) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    for _ in 0..draws.below(4) {
        outcome.outputs.push(output(draws, batch)?);
    }
    while draws.once_in(3) {
        outcome.failures.push(Failure {
            origin: draws.below(batch.len() + 1) as u32,
            reason: draws.text(20).into(),
        });
    }
    Ok(outcome)
}

fn output(draws: &mut Draws<'_>, batch: &Columns) -> Result<Output, String> {
    let ports = ["", "odd", "even", "", "odd", "even", "failed", "none"];
    let port = ports[draws.below(ports.len())].into();
    let count = draws.below(2 * batch.len() + 1);
    let origin = |draws: &mut Draws<'_>| match draws.once_in(64) {
        true => draws.u32(),
        false => draws.below(batch.len()) as u32,
    };
    let mut origins: Vec<u32> = (0..count).map(|_| origin(draws)).collect();
    if !draws.once_in(32) {
        origins.sort_unstable();
    }
    let timestamp = |&origin: &u32| batch.timestamps.get(origin as usize).copied();
    let times = origins.iter().map(|origin| timestamp(origin).unwrap_or(-1));
    let mut timestamps = (draws.below(2) == 1).then(|| times.collect::<Vec<_>>());
    if let Some(timestamps) = &mut timestamps
        && draws.once_in(32)
    {
        timestamps.pop();
    }
    let has = draws.byte();
    let headers = match has & 4 {
        0 => None,
        _ => Some(headers(draws, count)?),
    };
    Ok(Output {
        port,
        keys: (has & 1 > 0).then(|| column(draws, count)).transpose()?,
        values: (has & 2 > 0).then(|| column(draws, count)).transpose()?,
        timestamps,
        headers,
        origins,
    })
}

/// So many strings, or parts that may be no column.
fn column(draws: &mut Draws<'_>, count: usize) -> Result<Column, String> {
    let count = match draws.once_in(32) {
        true => draws.below(8),
        false => count,
    };
    let mut column = Column::default();
    for _ in 0..count {
        let string = draws.bytes(12);
        let is_null = string.is_empty() && draws.below(2) == 1;
        column.push((!is_null).then_some(string));
    }
    let (bytes, mut ends, mut nulls) = column.into_parts();
    while draws.once_in(16) {
        let (at, number) = (draws.below(8), draws.u32() % 40);
        match (draws.below(3), ends.get_mut(at)) {
            (0, Some(end)) => *end = number,
            (1, _) => nulls.push(number),
            _ => nulls.insert(0, number),
        }
    }
    Column::from_parts(bytes, ends, nulls)
}

fn headers(draws: &mut Draws<'_>, records: usize) -> Result<Headers, String> {
    let count = draws.below(6);
    let end = records.max(1) + usize::from(draws.once_in(32));
    let owners = (0..count).map(|_| draws.below(end));
    let mut owners: Vec<u32> = owners.map(|owner| owner as u32).collect();
    if !draws.once_in(32) {
        owners.sort_unstable();
    }
    let mut names = Column::default();
    for _ in 0..count {
        let name = ["h", "millstream-reason", "", "\u{e4}"][draws.below(4)];
        let name = name.as_bytes();
        names.push(Some(if draws.once_in(32) {
            draws.bytes(4)
        } else {
            name
        }));
    }
    let values = column(draws, count)?;
    Headers::from_parts(owners, names, values, records)
}

/// One to eight records, each with its offset as its timestamp.
fn source(draws: &mut Draws<'_>) -> Columns {
    let mut columns = Columns::default();
    let mut offset = 0;
    for _ in 0..=draws.below(8) {
        offset += 1 + i64::from(draws.byte() % 4);
        let kind = draws.byte();
        let (key, value) = (draws.bytes(8), draws.bytes(40));
        let header = (&b"millstream-step"[..], Some(&b"earlier"[..]));
        columns.push(
            offset,
            offset,
            (kind & 1 > 0).then_some(key),
            (kind & 2 > 0).then_some(value),
            (kind & 4 > 0).then_some(header).into_iter(),
        );
    }
    columns
}

/// All that steps and sinks may take; the first four come before the second step.
fn inputs() -> [Input; 7] {
    let input = |name: &str, from| Input {
        name: name.into(),
        from,
    };
    let of_step = |step, port: &str| From::Step {
        step: StepId(step),
        port: port.into(),
    };
    [
        input("events", From::Source(SourceId(0))),
        input("first", of_step(0, "")),
        input("first.odd", of_step(0, "odd")),
        input("first.failed", of_step(0, "failed")),
        input("second", of_step(1, "")),
        input("second.even", of_step(1, "even")),
        input("second.failed", of_step(1, "failed")),
    ]
}

/// `events` → `first` → `second`, and sinks that take any of what these have.
fn pipeline(draws: &mut Draws<'_>) -> Pipeline {
    let all = inputs();
    let some = |draws: &mut Draws<'_>, most: usize| {
        let set = draws.byte();
        let chosen = (0..most).filter(|at| set & 1 << at > 0);
        let chosen: Vec<Input> = chosen.map(|at| all[at].clone()).collect();
        match chosen.is_empty() {
            true => vec![all[draws.below(most)].clone()],
            false => chosen,
        }
    };
    let state = Grant {
        name: "seen".into(),
        map: STATE,
    };
    let mut steps = Vec::new();
    for (name, reaches) in [("first", 1), ("second", 4)] {
        let errors = [OnError::Fail, OnError::Skip, OnError::DeadLetter];
        steps.push(Step {
            name: name.into(),
            inputs: some(draws, reaches),
            lookups: Vec::new(),
            state: Vec::from_iter((name == "first" && draws.below(2) == 1).then(|| state.clone())),
            on_error: errors[draws.below(3)],
            retries: draws.below(3) as u32,
        });
    }
    let targets = [
        Target::Topic("out".into()),
        Target::Map(SUNK),
        Target::Stream("keyed".into()),
        Target::Topic("more".into()),
    ];
    let sinks = targets
        .into_iter()
        .take(1 + draws.below(4))
        .map(|target| Sink {
            name: "sink".into(),
            inputs: some(draws, all.len()),
            target,
            on_error: [OnError::Fail, OnError::Skip][draws.below(2)],
        });
    Pipeline {
        name: "p".into(),
        guarantee: Guarantee::ExactlyOnce,
        interval: Duration::from_secs(1),
        sinks: sinks.collect(),
        sources: vec![Source {
            name: "events".into(),
            start: Start::Earliest,
            stream: false,
        }],
        topics: vec![SourceTopic {
            source: SourceId(0),
            topic: "events".into(),
        }],
        steps,
        maps: [Kept::State, Kept::Changelog].map(map).into(),
    }
}

fn map(kept: Kept) -> Map {
    Map {
        name: "m".into(),
        kept,
        replicated: false,
        index: Vec::new(),
    }
}
