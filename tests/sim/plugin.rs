//! What stands in for plugins and for Kafka: steps that follow a script's rules, and sinks that write down what they get.

use std::collections::BTreeMap;

use millstream_engine::pipeline::{Grant, MapId, Pipeline, SinkId, StepId};
use millstream_engine::record::{Column, Headers, Record};
use millstream_engine::state::overlay::{Change, Overlay};
use millstream_engine::step::{Batch, CallFailure, Failure, Outcome, Output, Plugin};
use millstream_engine::task::run;

use crate::show;

/// What a step makes of the records that it fits.
#[derive(Debug)]
pub struct Rule {
    /// The value of the records, or `any`.
    pub value_is: String,
    pub does: Does,
}

#[derive(Debug)]
pub enum Does {
    Drop,
    Emit(Emit),
    Fail(String),
    Trap(String),
    Host(String),
    NotReady(String),
    Overdue(String),
    Wrong(String),
}

/// A record to emit; what is `None` is taken over from the origin.
#[derive(Debug, Default)]
pub struct Emit {
    pub port: String,
    pub key: Option<String>,
    pub value: Option<String>,
    pub time: Option<i64>,
    pub headers: Option<String>,
    pub times: u32,
    /// The state that has the number of records of each key, this one included.
    pub count: Option<String>,
}

/// A step's plugin.
#[derive(Debug, Default)]
pub struct Script {
    pub name: String,
    pub ports: Vec<String>,
    /// More records in one call are a trap.
    pub takes: Option<usize>,
    pub rules: Vec<Rule>,
    pub state: Vec<Grant>,
}

/// Values by map, partition and key.
type Contents = BTreeMap<(MapId, u32, Vec<u8>), Vec<u8>>;

#[derive(Debug, Default)]
pub struct Scripts {
    /// Parallel to the pipeline's steps.
    pub steps: Vec<Script>,
    /// Of steps' state.
    committed: Contents,
    /// Calls since somebody looked last.
    pub calls: Vec<String>,
}

impl Scripts {
    /// Takes in what took effect.
    pub fn merge<'a>(&mut self, changes: impl Iterator<Item = Change<'a>>) {
        for change in changes {
            let at = (change.map, change.partition, change.key.to_vec());
            match change.value {
                Some(value) => self.committed.insert(at, value.to_vec()),
                None => self.committed.remove(&at),
            };
        }
    }
}

impl Plugin for Scripts {
    fn process(
        &mut self,
        step: StepId,
        batch: &Batch<'_>,
        overlay: &mut Overlay,
    ) -> Result<Outcome, CallFailure> {
        let script = &self.steps[step.0];
        let mut counter = Counter {
            state: &script.state,
            partition: batch.partition,
            overlay,
            committed: &self.committed,
        };
        let answer = script.answer(batch, &mut counter);
        self.calls.push(show::call(&script.name, batch, &answer));
        answer
    }

    fn forget(&mut self) {
        self.calls.push("forget".into());
    }

    fn ports(&self, step: StepId) -> &[String] {
        &self.steps[step.0].ports
    }

    fn digest(&self, step: StepId) -> &str {
        &self.steps[step.0].name
    }
}

/// A step's state during a call.
struct Counter<'a> {
    state: &'a [Grant],
    partition: u32,
    overlay: &'a mut Overlay,
    committed: &'a Contents,
}

impl Counter<'_> {
    /// Counts a record, and says how many there were.
    fn count(&mut self, store: &str, record: &Record<'_>) -> u64 {
        let granted = self.state.iter().find(|grant| grant.name == store);
        let map = granted.expect("scripts name state that there is").map;
        let key = record.key.expect("scripts count records with keys");
        let place = (map, self.partition);
        let committed = || self.committed.get(&(map, self.partition, key.to_vec()));
        let known = match self.overlay.get(place, key) {
            Some(changed) => changed,
            None => committed().map(Vec::as_slice),
        };
        let before = known.map_or(0, |value| show::text(Some(value)).parse().expect("a count"));
        let value = (before + 1).to_string();
        self.overlay
            .put(place, key, Some(value.as_bytes()), record.timestamp);
        before + 1
    }
}

/// A record on its way out of a step.
struct Emitted<'a> {
    origin: u32,
    emit: &'a Emit,
    time: u32,
    count: u64,
}

impl Script {
    fn answer(&self, batch: &Batch<'_>, counter: &mut Counter<'_>) -> Result<Outcome, CallFailure> {
        let records = batch.columns.len();
        if self.takes.is_some_and(|most| records > most) {
            return Err(CallFailure::Plugin(format!("{records} are too many")));
        }
        let pass = Emit {
            times: 1,
            ..Emit::default()
        };
        let mut emitted: Vec<Emitted<'_>> = Vec::new();
        let (mut failures, mut wrong) = (Vec::new(), None);
        for (origin, index) in (0..).zip(0..records) {
            let rules = self.rules(&show::text(batch.columns.values.get(index)));
            if rules.is_empty() {
                emitted.push(Emitted {
                    origin,
                    emit: &pass,
                    time: 0,
                    count: 0,
                });
            }
            for does in rules {
                match does {
                    Does::Drop => {}
                    Does::Emit(emit) => {
                        let record = batch.columns.record(index);
                        let store = emit.count.as_ref();
                        let count = store.map_or(0, |store| counter.count(store, &record));
                        emitted.extend((0..emit.times).map(|time| Emitted {
                            origin,
                            emit,
                            time,
                            count,
                        }));
                    }
                    Does::Fail(reason) => failures.push(Failure {
                        origin,
                        reason: reason.clone(),
                    }),
                    Does::Trap(reason) => return Err(CallFailure::Plugin(reason.clone())),
                    Does::Host(reason) => return Err(CallFailure::Host(reason.clone())),
                    Does::NotReady(reason) => return Err(CallFailure::NotReady(reason.clone())),
                    Does::Overdue(reason) => return Err(CallFailure::Overdue(reason.clone())),
                    Does::Wrong(kind) => {
                        wrong = Some(kind.as_str());
                        emitted.push(Emitted {
                            origin,
                            emit: &pass,
                            time: 0,
                            count: 0,
                        });
                    }
                }
            }
        }
        let ports = std::iter::once("").chain(self.ports.iter().map(String::as_str));
        let outputs = ports.filter_map(|port| self.output(port, &emitted, batch));
        let mut outcome = Outcome {
            outputs: outputs.collect(),
            failures,
        };
        if let Some(kind) = wrong {
            spoil(&mut outcome, kind, records);
        }
        Ok(outcome)
    }

    fn rules(&self, value: &str) -> Vec<&Does> {
        let of = |wanted: &str| {
            let fitting = self.rules.iter().filter(|rule| rule.value_is == wanted);
            fitting.map(|rule| &rule.does).collect::<Vec<_>>()
        };
        let own = of(value);
        if own.is_empty() { of("any") } else { own }
    }

    /// Whether any rule sets what `field` picks: the column then has to be there for all records.
    fn sets<T>(&self, field: impl Fn(&Emit) -> &Option<T>) -> bool {
        self.rules
            .iter()
            .any(|rule| matches!(&rule.does, Does::Emit(emit) if field(emit).is_some()))
    }

    fn output(&self, port: &str, emitted: &[Emitted<'_>], batch: &Batch<'_>) -> Option<Output> {
        let here: Vec<&Emitted<'_>> = emitted.iter().filter(|e| e.emit.port == port).collect();
        if here.is_empty() {
            return None;
        }
        let columns = batch.columns;
        let (mut keys, mut values) = (Column::default(), Column::default());
        let (mut times, mut headers) = (Vec::new(), Headers::default());
        for (index, emitted) in here.iter().enumerate() {
            let (origin, emit) = (emitted.origin as usize, emitted.emit);
            let record = columns.record(origin);
            let fill = |template: &Option<String>, own: Option<&[u8]>| match template {
                None => own.map(<[u8]>::to_vec),
                Some(template) => show::bytes(&fill(template, batch, emitted)),
            };
            keys.push(fill(&emit.key, record.key).as_deref());
            values.push(fill(&emit.value, record.value).as_deref());
            times.push(emit.time.unwrap_or(record.timestamp));
            match &emit.headers {
                None => record
                    .headers
                    .iter()
                    .for_each(|(name, value)| headers.push(index, name, value)),
                Some(text) => {
                    for (name, value) in show::headers_from(text) {
                        headers.push(index, name.as_bytes(), value.as_deref());
                    }
                }
            }
        }
        Some(Output {
            port: port.into(),
            origins: here.iter().map(|emitted| emitted.origin).collect(),
            keys: self.sets(|emit| &emit.key).then_some(keys),
            values: self.sets(|emit| &emit.value).then_some(values),
            timestamps: self.sets(|emit| &emit.time).then_some(times),
            headers: self.sets(|emit| &emit.headers).then_some(headers),
        })
    }
}

fn fill(template: &str, batch: &Batch<'_>, emitted: &Emitted<'_>) -> String {
    let origin = emitted.origin as usize;
    let record = batch.columns.record(origin);
    template
        .replace("{key}", &show::text(record.key))
        .replace("{value}", &show::text(record.value))
        .replace("{offset}", &batch.columns.offsets[origin].to_string())
        .replace("{input}", show::input_of(batch, origin))
        .replace("{times}", &emitted.time.to_string())
        .replace("{count}", &emitted.count.to_string())
}

/// Makes an answer one that makes no sense.
fn spoil(outcome: &mut Outcome, kind: &str, records: usize) {
    let records = u32::try_from(records).expect("scripts are short");
    let output = &mut outcome.outputs[0];
    match kind {
        "reversed" => output.origins.reverse(),
        "beyond" => output.origins.push(records),
        "port" => output.port = "nowhere".into(),
        "short" => output.timestamps = Some(Vec::new()),
        "both" => outcome.failures.push(Failure {
            origin: output.origins[0],
            reason: "and yet it is emitted".into(),
        }),
        other => panic!("wrong={other} means nothing"),
    }
}

/// Writes down what topic sinks are sent.
#[derive(Debug, Default)]
pub struct Sheet {
    /// Names of the pipeline's sinks.
    pub sinks: Vec<String>,
    /// By sink: how many records it still takes, and why it takes no more.
    pub refusals: BTreeMap<String, (u32, String)>,
    /// Sent since somebody looked last.
    pub sent: Vec<String>,
}

impl Sheet {
    pub fn new(pipeline: &Pipeline) -> Self {
        Self {
            sinks: pipeline
                .sinks
                .iter()
                .map(|sink| sink.name.clone())
                .collect(),
            ..Self::default()
        }
    }
}

impl run::Output for Sheet {
    fn send(&mut self, sink: SinkId, record: &Record<'_>) -> Result<(), String> {
        let sink = &self.sinks[sink.0];
        match self.refusals.get_mut(sink) {
            Some((0, why)) => return Err(why.clone()),
            Some((left, _)) => *left -= 1,
            None => {}
        }
        self.sent
            .push(format!("{sink} <- {}", show::record(record)));
        Ok(())
    }
}
