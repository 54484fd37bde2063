//! The keyed streams of a pipeline file: each is a sink that writes a topic of the pipeline's own, and the source that reads it back.

use millstream_engine::pipeline::{
    From, Input, Pipeline, Sink, Source, SourceId, SourceTopic, Start, Target,
};

use super::file::{File, Stream};
use super::problem::Findings;
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

/// The streams' topics; their sources stand behind those of the file.
pub(super) fn topics(file: &File) -> Vec<SourceTopic> {
    let pipeline = file.name.as_ref().map_or("", |name| &name.value);
    let streams = file.streams.iter().zip(file.sources.len()..);
    let topics = streams.map(|(stream, source)| SourceTopic {
        source: SourceId(source),
        topic: Pipeline::stream_topic(pipeline, &stream.name.value),
    });
    topics.collect()
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
    for stream in &file.streams {
        let name = &stream.name.value;
        let topic = Pipeline::stream_topic(&pipeline.value, name);
        if topic.len() > TOPIC_MAX {
            let message = format!(
                "the stream's topic, {topic:?}, would have {} characters, {TOPIC_MAX} are allowed",
                topic.len()
            );
            findings.problem(&stream.name.place, message);
        }
        own.push((topic, format!("is the stream {name:?}")));
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
