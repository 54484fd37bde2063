//! The pipeline file: read, checked and resolved in one go, with everything that is wrong in it told at once.
//!
//! `text` knows lines and positions, `file` walks the document with the readers of `value` and `json`, `kafka` and `refused` do
//! the client properties, `plugins` the tables of plugins, `resolve`, `maps`, `streams` and `letters` join the names, `problem` says what is wrong. Nothing here connects to Kafka or opens a plugin: what they find out later comes
//! back to the line it belongs to through [`Config::problem`].
//!
//! Invariant: a [`Config`] exists only for a file without problems.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use millstream_engine::pipeline::{Pipeline, TopicId};
use sha2::{Digest as _, Sha256};
use toml::de::DeTable;

use crate::plugin_allow::Allow;
use crate::plugin_limits::PluginLimits;

mod file;
mod json;
mod kafka;
mod letters;
mod maps;
mod plugins;
mod problem;
mod refused;
mod resolve;
mod streams;
#[cfg(test)]
mod tests;
mod text;
mod value;

pub use file::Reload;
pub use kafka::KafkaProperties;
pub use problem::{Problem, Problems};
pub use text::SourceText;
pub use value::duration as parse_duration;

/// Largest pipeline file in bytes; a longer one is taken for the wrong file.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What the command line says in place of the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// In place of `kafka.bootstrap.servers`.
    pub bootstrap: Option<String>,
    /// There is no Kafka: the `[kafka]` table is not read, be it there or not.
    pub embedded: bool,
}

/// A pipeline file without problems.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the engine runs.
    pub pipeline: Pipeline,
    /// Parallel to `pipeline.steps`.
    pub steps: Vec<StepConfig>,
    pub outside: Outside,
    /// What all maps may take in this process, in bytes, where the file says it.
    pub memory: Option<usize>,
    /// How many other instances keep a copy of each map partition.
    pub standby: u32,
    pub reload: Reload,
    /// What stands in the file to no effect, by line.
    pub warnings: Vec<Problem>,
    /// SHA-256 of the file's text.
    pub digest: [u8; 32],
}

/// What a file names that others have to judge.
#[derive(Clone, Debug)]
pub struct Outside {
    /// Those that a step uses, in the order of the file.
    pub plugins: Vec<PluginFile>,
    /// librdkafka properties of the user, secrets included.
    pub kafka: KafkaProperties,
    /// Where everything stands in the file.
    source: SourceText,
}

/// A pipeline file with problems.
#[derive(Clone, Debug)]
pub struct Unsound {
    pub problems: Problems,
    /// As far as it could be read; there may be problems with that too. None where parts of the file could not be read at all.
    pub outside: Option<Box<Outside>>,
}

/// What the engine does not need to know of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepConfig {
    /// Index in [`Outside::plugins`].
    pub plugin: usize,
    /// A JSON object with its keys sorted; `{}` if the file has none.
    pub config: String,
}

/// A plugin that a pipeline uses. Not opened yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginFile {
    pub name: String,
    /// As written, or joined to the folder of the pipeline file.
    pub path: PathBuf,
    /// Which bytes the file must have, where that is said.
    pub sha256: Option<[u8; 32]>,
    pub limits: PluginLimits,
    pub allow: Allow,
}

impl Config {
    /// A problem at a key of the file: `&["steps", "parse", "lookups"]`, `&["sources", "events", "topics[0]"]`. If the key is
    /// not in the file, the line is that of the nearest table around it.
    pub fn problem(&self, key: &[&str], message: impl Into<String>) -> Problem {
        self.outside.problem(key, message)
    }

    /// A problem with a source topic, at its element of `topics`; with a stream's, at the stream; with a replay's, at the step.
    pub fn topic_problem(&self, topic: TopicId, message: impl Into<String>) -> Problem {
        let owner = self.pipeline.topics[topic.0].source;
        let name = &self.pipeline.sources[owner.0].name;
        if self.pipeline.is_stream(topic) {
            return match name.split_once('.') {
                Some((step, key)) => self.problem(&["steps", step, key], message),
                None => self.problem(&["streams", name], message),
            };
        }
        let before = &self.pipeline.topics[..topic.0];
        let index = before.iter().filter(|other| other.source == owner).count();
        self.problem(&["sources", name, &format!("topics[{index}]")], message)
    }
}

impl Outside {
    /// As [`Config::problem`].
    pub fn problem(&self, key: &[&str], message: impl Into<String>) -> Problem {
        self.source.problem(&key.join("."), message)
    }

    /// A problem with a librdkafka property, under any of its names and with or without `consumer.` or `producer.`; at the
    /// `[kafka]` table if the file doesn't set it.
    pub fn kafka_problem(&self, property: &str, message: impl Into<String>) -> Problem {
        match self.kafka.place(property) {
            Some(place) => self.source.problem_at(place.offset, &place.key, message),
            None => self.problem(&["kafka", property], message),
        }
    }
}

/// Reads and checks a pipeline file. Relative paths in it start at its folder.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Config, Unsound> {
    let text = read(path).map_err(|problems| Unsound {
        problems,
        outside: None,
    })?;
    parse(&text, path, overrides)
}

/// Checks the text of a pipeline file; `path` is where it comes from.
pub fn parse(text: &str, path: &Path, overrides: &Overrides) -> Result<Config, Unsound> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let (document, errors) = DeTable::parse_recoverable(text);
    let mended = text::without_stops(text, &errors);
    let document = match &mended {
        Some(mended) => DeTable::parse_recoverable(mended).0,
        None => document,
    };
    let document = document.get_ref();
    let source = SourceText::new(path, text, document);
    let syntax = text::Syntax::new(&source, text, document, &errors);
    let damaged = syntax.damaged;
    let mut findings = problem::Findings::new(&source, syntax);
    let file = file::read(document, folder, overrides, &mut findings);
    let resolved = resolve::resolve(&file, &source, &mut findings);
    let problems = findings.into_problems(path);
    let plugins = resolve::used_plugins(&file).map(|(plugin, path)| PluginFile {
        name: plugin.name.value.clone(),
        path: folder.join(path),
        sha256: plugin.sha256,
        limits: plugin.limits,
        allow: plugin.allow.clone(),
    });
    let outside = Outside {
        plugins: plugins.collect(),
        kafka: file.kafka,
        source,
    };
    if let Some(problems) = problems {
        let outside = (!damaged).then(|| Box::new(outside));
        return Err(Unsound { problems, outside });
    }
    let resolved = resolved.expect("a file that does not resolve has a problem");
    let steps = resolved
        .steps
        .into_iter()
        .map(|(plugin, config)| StepConfig { plugin, config });
    Ok(Config {
        pipeline: resolved.pipeline,
        steps: steps.collect(),
        outside,
        memory: resolved.memory,
        standby: resolved.standby,
        reload: file.reload,
        warnings: resolved.warnings,
        digest: Sha256::digest(text).into(),
    })
}

fn read(path: &Path) -> Result<String, Problems> {
    let problem = |line, message| {
        let key = String::new();
        Problems::from(Problem {
            file: path.into(),
            line,
            key,
            message,
            hint: None,
        })
    };
    let failed = |error: std::io::Error| problem(None, format!("can't be read: {error}"));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let message =
            format!("is too large for a pipeline, which has {FILE_BYTES_MAX} bytes at most");
        return Err(problem(None, message));
    }
    String::from_utf8(bytes).map_err(|error| {
        let sound = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + sound.iter().filter(|byte| **byte == b'\n').count();
        problem(Some(line), "is not UTF-8".to_owned())
    })
}
