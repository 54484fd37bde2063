//! What the targets of `tests/fuzz` call: a function for each reader of what comes from outside, with what has to hold of all that it
//! accepts. The product has nothing of this: the feature `fuzzing` is off there. Unit tests have it, and run the inputs that are in the tree.
//!
//! Invariant: a function panics where a promise is broken, and nowhere else.

use std::borrow::Cow;
use std::path::Path;

use millstream_broker::Records;
use millstream_engine::pipeline::{From, Input, Pipeline, Target};

use crate::config::{self, Config, Overrides, Problem};
use crate::lines::{self, Line};
pub use crate::query::fuzzing::{cursor, query, requests};

/// A pipeline file, with Kafka and without: every problem stands at a line of the file and is told in one, and an accepted file leaves
/// the engine nothing to check.
pub fn pipeline_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for embedded in [false, true] {
        let overrides = Overrides {
            bootstrap: None,
            embedded,
        };
        match config::parse(text, Path::new("pipeline.toml"), &overrides) {
            Ok(config) => check_accepted(&config, text),
            Err(unsound) => {
                let problems = unsound.problems;
                assert!(!problems.list.is_empty(), "refused without a problem");
                assert!(problems.list.is_sorted_by_key(|problem| problem.line));
                check_problems(&problems.list, text);
                let told = problems.to_string();
                assert_eq!(told.lines().count(), problems.list.len(), "{told}");
                if let Some(outside) = unsound.outside {
                    check_problems(&[outside.kafka_problem("acks", "no")], text);
                }
            }
        }
    }
}

fn check_problems(problems: &[Problem], text: &str) {
    let lines = 1 + text.matches('\n').count();
    for problem in problems {
        assert!(!problem.message.is_empty());
        let line = problem
            .line
            .expect("only a file that can't be read has no lines");
        assert!((1..=lines).contains(&line), "{problem} of {lines} lines");
    }
}

fn check_accepted(config: &Config, text: &str) {
    check_problems(&config.warnings, text);
    let pipeline = &config.pipeline;
    assert_eq!(config.steps.len(), pipeline.steps.len());
    for (step, outside) in pipeline.steps.iter().zip(&config.steps) {
        assert!(outside.plugin < config.outside.plugins.len());
        let read: serde_json::Value =
            serde_json::from_str(&outside.config).expect("a step's configuration is JSON");
        assert!(read.is_object());
        let key = ["steps", &step.name, "inputs"];
        check_problems(&[config.problem(&key, "no")], text);
    }
    for topic in 0..pipeline.topics.len() {
        let topic = millstream_engine::pipeline::TopicId(topic);
        check_problems(&[config.topic_problem(topic, "no")], text);
    }
    check_graph(pipeline);
}

/// What `millstream_engine::pipeline` says of itself.
fn check_graph(pipeline: &Pipeline) {
    let inputs = |inputs: &[Input], steps: usize| {
        assert!(!inputs.is_empty());
        for input in inputs {
            match input.from {
                From::Source(source) => assert!(source.0 < pipeline.sources.len()),
                From::Step { step, .. } => assert!(step.0 < steps, "{} is behind", input.name),
            }
        }
    };
    for (at, step) in pipeline.steps.iter().enumerate() {
        inputs(&step.inputs, at);
        let mut grants = step.lookups.iter().chain(&step.state);
        assert!(grants.all(|grant| grant.map.0 < pipeline.maps.len()));
    }
    for sink in &pipeline.sinks {
        inputs(&sink.inputs, pipeline.steps.len());
        if let Target::Map(map) = sink.target {
            assert!(pipeline.maps[map.0].kept.is_own());
        }
    }
    let mut topics = pipeline.topics.iter();
    assert!(topics.all(|topic| topic.source.0 < pipeline.sources.len()));
}

/// A feed: what a line says reads back from the line that it is written as.
pub fn feed(bytes: &[u8]) {
    for text in bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        let Ok(read) = lines::parse(text) else {
            continue;
        };
        let mut records = Records::default();
        let headers = read.headers.iter();
        records.push(
            read.timestamp.unwrap_or(-1),
            read.key.as_deref(),
            read.value.as_deref(),
            headers.map(|(name, value)| (name.as_bytes(), value.as_deref())),
        );
        let record = records.iter().next().expect("one was pushed");
        let partition = read.partition.unwrap_or(7);
        let mut written = Vec::new();
        lines::write(&mut written, "t", partition, &record);
        let line = written.strip_suffix(b"\n").expect("it ends a line");
        assert!(!line.contains(&b'\n'), "it is one line");
        let again = lines::parse(line).expect("what was written reads back");
        let expected = Line {
            timestamp: Some(record.timestamp),
            partition: Some(partition),
            key: read.key.as_deref().map(Cow::Borrowed),
            value: read.value.as_deref().map(Cow::Borrowed),
            headers: read.headers.clone(),
        };
        assert_eq!(again, expected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&[u8]);

    #[test]
    fn inputs_in_the_tree_hold() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus");
        let targets: [(&str, Check); 5] = [
            ("cursor", cursor),
            ("feed", feed),
            ("pipeline_file", pipeline_file),
            ("query", query),
            ("requests", requests),
        ];
        for (target, check) in targets {
            let files = std::fs::read_dir(corpus.join(target)).expect("each has inputs");
            for file in files {
                let path = file.expect("the folder can be listed").path();
                println!("{}", path.display());
                check(&std::fs::read(&path).expect("the file can be read"));
            }
        }
    }
}
