//! The keyed streams of a pipeline file: each is a sink that writes a topic of the pipeline's own, and the source that reads it back. And the ways
//! back of dead letters: sources too, whose topics `millstream dead-letters replay` writes.

use millstream_engine::pipeline::{
    From, Input, Pipeline, Sink, Source, SourceId, SourceTopic, Start, Target,
};

use super::file::{File, Step, Stream};
use super::problem::{Findings, Placed};
use super::resolve::Inputs;
use super::value::TOPIC_MAX;

/// The source half.
pub(super) fn source(stream: &Stream) -> Source {
    Source {
        name: stream.name.value.clone(),
        // All of it is the pipeline's: nothing that was written before the group began may be left out.
        start: Start::Earliest,
        stream: true,
    }
}

/// The steps whose dead letters may come back, by their places in the file.
pub(super) fn replays(file: &File) -> impl Iterator<Item = (usize, &Step)> {
    let wants = |step: &Step| step.replay.as_ref().is_some_and(|replay| replay.value);
    file.steps
        .iter()
        .enumerate()
        .filter(move |(_, step)| wants(step))
}

/// By which dead letters come back to a step. No name in a file has a dot.
pub(super) fn replay_source(step: &Step) -> Source {
    Source {
        name: format!("{}.{REPLAY}", step.name.value),
        start: Start::Earliest,
        stream: true,
    }
}

/// The input that the step has more, by its place in the file: sources of replays stand behind streams.
pub(super) fn replay_input(file: &File, step: usize) -> Option<Input> {
    let at = replays(file).position(|(replayed, _)| replayed == step)?;
    Some(Input {
        name: REPLAY.into(),
        from: From::Source(SourceId(file.sources.len() + file.streams.len() + at)),
    })
}

/// What the plugin is told of records that come back.
const REPLAY: &str = "replay";

/// The sink half.
pub(super) fn sink(pipeline: &str, stream: &Stream, inputs: Vec<Input>) -> Sink {
    let name = &stream.name.value;
    Sink {
        name: name.clone(),
        inputs,
        target: Target::Stream(Pipeline::stream_topic(pipeline, name)),
        on_error: stream.on_error,
    }
}

/// The topics of streams and replays; their sources stand behind those of the file.
pub(super) fn topics(file: &File) -> Vec<SourceTopic> {
    let pipeline = file.name.as_ref().map_or("", |name| &name.value);
    let streams = file.streams.iter().zip(file.sources.len()..);
    let topics = streams.map(|(stream, source)| SourceTopic {
        source: SourceId(source),
        topic: Pipeline::stream_topic(pipeline, &stream.name.value),
    });
    let replays = replays(file).zip(file.sources.len() + file.streams.len()..);
    let replays = replays.map(|((_, step), source)| SourceTopic {
        source: SourceId(source),
        topic: Pipeline::replay_topic(pipeline, &step.name.value),
    });
    topics.chain(replays).collect()
}

/// Sinks and streams are told apart by their names in metrics and status.
pub(super) fn check_sinks(file: &File, findings: &mut Findings<'_>) {
    for stream in &file.streams {
        let same = file.sinks.iter();
        let same = same.map(|sink| &sink.name);
        let Some(sink) = same
            .into_iter()
            .find(|name| name.value == stream.name.value)
        else {
            continue;
        };
        let (first, second, kind) = match sink.place.offset < stream.name.place.offset {
            true => (sink, &stream.name, "sink"),
            false => (&stream.name, sink, "stream"),
        };
        let line = findings.line(&first.place);
        let message = format!("{:?} is the name of the {kind} on line {line}", first.value);
        findings.problem(&second.place, message);
    }
}

/// The streams' topics, with what each of them is for.
pub(super) fn check_topics(file: &File, findings: &mut Findings<'_>) -> Vec<(String, String)> {
    let mut own = Vec::new();
    let Some(pipeline) = &file.name else {
        return own;
    };
    let mut check = |owner: &Placed<String>, kind: &str, topic: &str| {
        if topic.len() > TOPIC_MAX {
            let message = format!(
                "the {kind}'s topic, {topic:?}, would have {} characters, {TOPIC_MAX} are allowed",
                topic.len()
            );
            findings.problem(&owner.place, message);
        }
    };
    for stream in &file.streams {
        let name = &stream.name.value;
        let topic = Pipeline::stream_topic(&pipeline.value, name);
        check(&stream.name, "stream", &topic);
        own.push((topic, format!("is the stream {name:?}")));
    }
    for (_, step) in replays(file) {
        let name = &step.name.value;
        let topic = Pipeline::replay_topic(&pipeline.value, name);
        check(&step.name, "replay", &topic);
        own.push((
            topic,
            format!("is the way back of dead letters to step {name:?}"),
        ));
    }
    own
}

/// A stream that is fed, through whatever steps and streams, by what comes out of it would run for ever.
pub(super) fn check_circles(
    file: &File,
    step_inputs: &[Inputs],
    stream_inputs: &[Inputs],
    findings: &mut Findings<'_>,
) {
    let first = file.sources.len();
    for (index, stream) in file.streams.iter().enumerate() {
        let mut wanted: Vec<&From> = froms(&stream_inputs[index]).collect();
        let mut seen = Vec::new();
        while let Some(from) = wanted.pop() {
            let (key, inputs) = match from {
                From::Step { step, .. } => (Ok(step.0), step_inputs.get(step.0)),
                From::Source(source) if source.0 == first + index => {
                    let message = "what comes out of this stream goes into it again";
                    findings.problem(&stream.name.place, message);
                    break;
                }
                From::Source(source) => {
                    let stream = source.0.checked_sub(first);
                    let inputs = stream.and_then(|stream| stream_inputs.get(stream));
                    (Err(source.0), inputs)
                }
            };
            if !seen.contains(&key) {
                seen.push(key);
                wanted.extend(inputs.into_iter().flat_map(froms));
            }
        }
    }
}

fn froms(inputs: &Inputs) -> impl Iterator<Item = &From> {
    inputs.iter().flatten().map(|input| &input.from)
}
