//! What stands in for plugins and for Kafka: steps that follow a script's rules, and sinks that write down what they get.

use std::collections::BTreeMap;

use millstream_engine::pipeline::{Pipeline, SinkId, StepId};
use millstream_engine::record::{Column, Headers, Record};
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
}

/// A step's plugin.
#[derive(Debug, Default)]
pub struct Script {
    pub name: String,
    pub ports: Vec<String>,
    /// More records in one call are a trap.
    pub takes: Option<usize>,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Default)]
pub struct Scripts {
    /// Parallel to the pipeline's steps.
    pub steps: Vec<Script>,
    /// Calls since somebody looked last.
    pub calls: Vec<String>,
}

impl Plugin for Scripts {
    fn process(&mut self, step: StepId, batch: &Batch<'_>) -> Result<Outcome, CallFailure> {
        let script = &self.steps[step.0];
        let answer = script.answer(batch);
        self.calls.push(show::call(&script.name, batch, &answer));
        answer
    }

    fn ports(&self, step: StepId) -> &[String] {
        &self.steps[step.0].ports
    }
}

/// A record on its way out of a step.
struct Emitted<'a> {
    origin: u32,
    emit: &'a Emit,
    time: u32,
}

impl Script {
    fn answer(&self, batch: &Batch<'_>) -> Result<Outcome, CallFailure> {
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
                });
            }
            for does in rules {
                match does {
                    Does::Drop => {}
                    Does::Emit(emit) => {
                        emitted.extend((0..emit.times).map(|time| Emitted { origin, emit, time }));
                    }
                    Does::Fail(reason) => failures.push(Failure {
                        origin,
                        reason: reason.clone(),
                    }),
                    Does::Trap(reason) => return Err(CallFailure::Plugin(reason.clone())),
                    Does::Host(reason) => return Err(CallFailure::Host(reason.clone())),
                    Does::NotReady(reason) => return Err(CallFailure::NotReady(reason.clone())),
                    Does::Wrong(kind) => {
                        wrong = Some(kind.as_str());
                        emitted.push(Emitted {
                            origin,
                            emit: &pass,
                            time: 0,
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
        for (index, Emitted { origin, emit, time }) in here.iter().enumerate() {
            let origin = *origin as usize;
            let record = columns.record(origin);
            let fill = |template: &Option<String>, own: Option<&[u8]>| match template {
                None => own.map(<[u8]>::to_vec),
                Some(template) => show::bytes(&fill(template, batch, origin, *time)),
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

fn fill(template: &str, batch: &Batch<'_>, origin: usize, time: u32) -> String {
    let record = batch.columns.record(origin);
    template
        .replace("{key}", &show::text(record.key))
        .replace("{value}", &show::text(record.value))
        .replace("{offset}", &batch.columns.offsets[origin].to_string())
        .replace("{input}", show::input_of(batch, origin))
        .replace("{times}", &time.to_string())
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
