//! How things are written in scripts.

use millstream_engine::pipeline::Sink;
use millstream_engine::record::Record;
use millstream_engine::state::overlay::Change;
use millstream_engine::step::{Batch, CallFailure, Outcome};
use millstream_engine::tally::Tally;
use millstream_engine::task::TopicPartition;
use millstream_engine::worker::{Effect, End, Worker};

/// Longer texts are cut.
const TEXT_MAX: usize = 40;

const NULL: &str = "null";

pub fn text(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => NULL.into(),
        Some(bytes) if bytes.len() > TEXT_MAX => format!("({} bytes)", bytes.len()),
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// The other way round.
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    (text != NULL).then(|| text.as_bytes().to_vec())
}

/// Headers out of `x=1 y=null`.
pub fn headers_from(text: &str) -> Vec<(String, Option<Vec<u8>>)> {
    let pairs = text.split_whitespace();
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.into(), bytes(value))
        })
        .collect()
}

pub fn record(record: &Record<'_>) -> String {
    let headers: Vec<String> = record
        .headers
        .iter()
        .map(|(name, value)| format!(" {}:{}", String::from_utf8_lossy(name), text(value)))
        .collect();
    format!(
        "{}={} @{}{}",
        text(record.key),
        text(record.value),
        record.timestamp,
        headers.concat()
    )
}

/// The name of the input by which a record of a batch came.
pub fn input_of<'a>(batch: &Batch<'a>, index: usize) -> &'a str {
    let input = batch.input_of.get(index).copied().unwrap_or(0);
    batch.inputs[input as usize]
}

pub fn call(step: &str, batch: &Batch<'_>, answer: &Result<Outcome, CallFailure>) -> String {
    let records: Vec<String> = (0..batch.columns.len())
        .map(|index| {
            let record = batch.columns.record(index);
            let from = if batch.input_of.is_empty() {
                String::new()
            } else {
                format!(" by {}", input_of(batch, index))
            };
            let (key, value) = (text(record.key), text(record.value));
            format!("{} {key}={value}{from}", batch.columns.offsets[index])
        })
        .collect();
    let halved = match batch.halvings {
        0 => String::new(),
        halvings => format!(", halved {halvings}"),
    };
    let came_to = match answer {
        Ok(_) => String::new(),
        Err(CallFailure::Plugin(why)) => format!(" -> trap: {why}"),
        Err(CallFailure::Host(why)) => format!(" -> host: {why}"),
        Err(CallFailure::NotReady(why)) => format!(" -> not ready: {why}"),
        Err(CallFailure::Overdue(why)) => format!(" -> overdue: {why}"),
    };
    let (inputs, records) = (batch.inputs.join("+"), records.join(" | "));
    format!("call {step} of {inputs}{halved}: {records}{came_to}")
}

pub fn place(worker: &Worker, at: TopicPartition) -> String {
    format!("{}/{}", worker.topic(at.topic), at.partition)
}

pub fn places(worker: &Worker, places: &[TopicPartition]) -> String {
    let names: Vec<String> = places.iter().map(|&at| place(worker, at)).collect();
    names.join(" ")
}

pub fn offsets(worker: &Worker, offsets: &[(TopicPartition, i64)]) -> String {
    let names: Vec<String> = offsets
        .iter()
        .map(|&(at, offset)| format!("{}@{offset}", place(worker, at)))
        .collect();
    names.join(" ")
}

pub fn effect(worker: &Worker, effect: &Effect) -> String {
    let what = match effect {
        Effect::Begin => "begin".into(),
        Effect::Commit => "commit".into(),
        Effect::Merge => "merge".into(),
        Effect::Replace => "replace the producer".into(),
        Effect::ReadOffsets(wanted) => format!("read offsets of {}", places(worker, wanted)),
        Effect::Assign(from) => format!("assign {}", offsets(worker, from)),
        Effect::Unassign => "unassign".into(),
        Effect::Pause(what) => format!("pause {}", places(worker, what)),
        Effect::Seek(to) => format!("seek {}", offsets(worker, to)),
        Effect::End(End::Stopped) => "end: stopped".into(),
        Effect::End(End::Failed(why)) => format!("end: {why:?}"),
    };
    format!("=> {what}")
}

pub fn change(map: &str, change: &Change<'_>) -> String {
    format!(
        "{map}[{}] <- {}={} @{}",
        change.partition,
        text(Some(change.key)),
        text(change.value),
        change.timestamp
    )
}

pub fn tally(tally: &Tally, sinks: &[Sink]) -> String {
    let mut lines = vec![
        format!("records {} bytes {}", tally.records, tally.bytes),
        format!(
            "epochs committed {} aborted {} in doubt {}",
            tally.committed, tally.aborted, tally.in_doubt
        ),
    ];
    for (sink, sent) in sinks.iter().zip(&tally.sent) {
        lines.push(format!(
            "{}: records {} bytes {}",
            sink.name, sent.records, sent.bytes
        ));
    }
    for (at, count) in tally.failures_by_place() {
        lines.push(format!("failures at {at}: {count}"));
    }
    lines.join("\n")
}
