//! The walk over the TOML document of a pipeline file: shapes, types, words and names. Whether the names fit together is
//! asked in `resolve`.
//!
//! Every problem is noted and the walk goes on with what is left; a value that could not be read is `None` or missing from
//! its list, and has been reported by then.

use std::path::Path;
use std::time::Duration;

use millstream_engine::json::Pointer;
use millstream_engine::pipeline::{Guarantee, OnError, Start};
use toml::de::{DeTable, DeValue};

use super::Overrides;
use super::kafka::{self, KafkaProperties};
use super::plugins::Plugin;
use super::problem::{Findings, Place, Placed};
use super::value::{Keys, Section, Walk};

const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);

/// A copy costs as much memory as what it is a copy of.
const STANDBYS_MAX: u32 = 3;

/// Of a call that fails on a record alone.
const RETRIES_MAX: u32 = 5;
/// Each change of a map is parsed for all of them at once.
const INDEXES_MAX: usize = 16;

const ROOT: Keys = Keys {
    known: &[
        "name",
        "kafka",
        "checkpoint",
        "sources",
        "plugins",
        "steps",
        "streams",
        "sinks",
        "maps",
        "memory",
        "standby",
        "reload",
    ],
    planned: &[],
};
const CHECKPOINT: Keys = Keys {
    known: &["guarantee", "interval"],
    planned: &[],
};
const RELOAD: Keys = Keys {
    known: &["watch", "max-failures"],
    planned: &[],
};
const SOURCE: Keys = Keys {
    known: &["topics", "start"],
    planned: &[],
};
const STEP: Keys = Keys {
    known: &[
        "inputs", "plugin", "config", "lookups", "state", "on-error", "retries", "replay",
    ],
    planned: &[],
};
const STREAM: Keys = Keys {
    known: &["inputs", "on-error"],
    planned: &[],
};
const SINK: Keys = Keys {
    known: &["inputs", "map", "topic", "on-error"],
    planned: &[],
};
const MAP: Keys = Keys {
    known: &["topic", "replicated", "index"],
    planned: &["ttl"],
};

/// A pipeline file as written.
pub(super) struct File {
    pub name: Option<Placed<String>>,
    pub guarantee: Guarantee,
    pub interval: Duration,
    pub kafka: KafkaProperties,
    pub sources: Vec<Source>,
    pub plugins: Vec<Plugin>,
    pub steps: Vec<Step>,
    pub streams: Vec<Stream>,
    pub sinks: Vec<Sink>,
    pub maps: Vec<Map>,
    /// In bytes.
    pub memory: Option<usize>,
    /// Warm copies of each map partition, in other instances.
    pub standby: u32,
    pub reload: Reload,
}

/// How plugins are reloaded while the pipeline runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// When files change, without being asked.
    pub watch: bool,
    /// Of a million records in each worker, how many a new version may fail on as it is tried.
    pub max_failures: u32,
}

impl Default for Reload {
    fn default() -> Self {
        Self {
            watch: true,
            max_failures: 100_000,
        }
    }
}

pub(super) struct Source {
    pub name: Placed<String>,
    pub topics: Vec<Placed<String>>,
    pub start: Start,
}

pub(super) struct Step {
    pub name: Placed<String>,
    pub inputs: Vec<Placed<String>>,
    pub plugin: Option<Placed<String>>,
    /// A JSON object.
    pub config: Option<String>,
    pub lookups: Vec<Grant>,
    pub state: Vec<Grant>,
    /// None where it could not be read.
    pub on_error: Placed<Option<OnError>>,
    pub retries: Option<Placed<u32>>,
    /// Whether its dead letters may come back.
    pub replay: Option<Placed<bool>>,
}

/// A map that a step may use.
pub(super) struct Grant {
    /// Under which the plugin opens it.
    pub name: String,
    pub map: Placed<String>,
}

/// A keyed stream: what comes in is read back key by key.
pub(super) struct Stream {
    pub name: Placed<String>,
    pub inputs: Vec<Placed<String>>,
    pub on_error: OnError,
}

pub(super) struct Sink {
    pub name: Placed<String>,
    pub inputs: Vec<Placed<String>>,
    pub target: Option<Target>,
    pub on_error: OnError,
}

#[derive(Clone)]
pub(super) enum Target {
    Map(Placed<String>),
    Topic(Placed<String>),
}

/// What is said of a map, be it one that a sink writes or a table made from a topic.
pub(super) struct Map {
    pub name: Placed<String>,
    /// Where the map is a table made from a topic; within, none where the topic could not be read.
    pub topic: Option<Option<Placed<String>>>,
    pub replicated: bool,
    pub index: Vec<Pointer>,
}

/// Reads the whole document. `folder` is that of the pipeline file: relative paths start there.
pub(super) fn read<'d>(
    document: &'d DeTable<'d>,
    folder: &Path,
    overrides: &Overrides,
    findings: &mut Findings<'_>,
) -> File {
    let root = Section {
        place: Place {
            key: String::new(),
            offset: 0,
        },
        table: document,
    };
    let mut walk = Walk { findings };
    walk.check_keys(&root, &ROOT);
    let name = walk
        .required(&root, "name")
        .and_then(|entry| walk.name_value(&entry));
    let (guarantee, interval) = walk.checkpoint(&root);
    let kafka = match root.get("kafka") {
        _ if overrides.embedded => None,
        Some(entry) => walk.table(&entry).map(|section| {
            kafka::read(
                &section,
                folder,
                overrides.bootstrap.as_deref(),
                walk.findings,
            )
        }),
        None => Some(kafka::absent(
            &root.place,
            overrides.bootstrap.as_deref(),
            walk.findings,
        )),
    };
    File {
        name,
        guarantee,
        interval,
        kafka: kafka.unwrap_or_default(),
        sources: walk.named_tables(&root, "sources", Walk::source),
        plugins: walk.named_tables(&root, "plugins", Walk::plugin),
        steps: walk.named_tables(&root, "steps", Walk::step),
        streams: walk.named_tables(&root, "streams", Walk::stream),
        sinks: walk.named_tables(&root, "sinks", Walk::sink),
        maps: walk.named_tables(&root, "maps", Walk::map),
        memory: root.get("memory").and_then(|entry| walk.memory(&entry)),
        standby: root
            .get("standby")
            .and_then(|entry| walk.count(&entry, STANDBYS_MAX))
            .unwrap_or(0),
        reload: walk.reload(&root),
    }
}

/// The tables of a pipeline file.
impl Walk<'_, '_> {
    fn checkpoint(&mut self, root: &Section<'_>) -> (Guarantee, Duration) {
        let default = (Guarantee::ExactlyOnce, INTERVAL_DEFAULT);
        let Some(section) = root.get("checkpoint").and_then(|entry| self.table(&entry)) else {
            return default;
        };
        self.check_keys(&section, &CHECKPOINT);
        let words = [
            ("exactly-once", Guarantee::ExactlyOnce),
            ("at-least-once", Guarantee::AtLeastOnce),
        ];
        let guarantee = section
            .get("guarantee")
            .and_then(|entry| self.word(&entry, &words, &[]));
        let interval = section
            .get("interval")
            .and_then(|entry| self.interval(&entry));
        (
            guarantee.unwrap_or(default.0),
            interval.unwrap_or(default.1),
        )
    }

    fn reload(&mut self, root: &Section<'_>) -> Reload {
        let default = Reload::default();
        let Some(section) = root.get("reload").and_then(|entry| self.table(&entry)) else {
            return default;
        };
        self.check_keys(&section, &RELOAD);
        let watch = section.get("watch").and_then(|entry| self.boolean(&entry));
        let most = section.get("max-failures");
        let most = most.and_then(|entry| self.share(&entry));
        Reload {
            watch: watch.unwrap_or(default.watch),
            max_failures: most.unwrap_or(default.max_failures),
        }
    }

    fn source(&mut self, name: Placed<String>, section: &Section<'_>) -> Source {
        self.check_keys(section, &SOURCE);
        let topics = self
            .required(section, "topics")
            .map(|entry| self.strings(&entry, "topic"));
        let topics = topics.unwrap_or_default();
        let topics = topics
            .into_iter()
            .filter(|topic| self.check_topic(topic))
            .collect();
        let words = [("earliest", Start::Earliest), ("latest", Start::Latest)];
        let start = section
            .get("start")
            .and_then(|entry| self.word(&entry, &words, &[]));
        Source {
            name,
            topics,
            start: start.unwrap_or(Start::Earliest),
        }
    }

    fn retries(&mut self, section: &Section<'_>) -> Option<Placed<u32>> {
        let entry = section.get("retries")?;
        let value = self.count(&entry, RETRIES_MAX)?;
        let place = entry.place;
        Some(Placed { value, place })
    }

    fn replay(&mut self, section: &Section<'_>) -> Option<Placed<bool>> {
        let entry = section.get("replay")?;
        let value = self.boolean(&entry)?;
        let place = entry.place;
        Some(Placed { value, place })
    }

    fn step(&mut self, name: Placed<String>, section: &Section<'_>) -> Step {
        self.check_keys(section, &STEP);
        Step {
            name,
            inputs: self.inputs(section),
            plugin: self
                .required(section, "plugin")
                .and_then(|entry| self.string(&entry)),
            config: match section.get("config") {
                Some(entry) => self.config(&entry),
                None => Some("{}".to_owned()),
            },
            lookups: self.grants(section, "lookups"),
            state: self.state(section),
            on_error: self.on_error_of(
                section,
                &[
                    ("fail", OnError::Fail),
                    ("skip", OnError::Skip),
                    ("dead-letter", OnError::DeadLetter),
                ],
            ),
            retries: self.retries(section),
            replay: self.replay(section),
        }
    }

    fn stream(&mut self, name: Placed<String>, section: &Section<'_>) -> Stream {
        self.check_keys(section, &STREAM);
        Stream {
            name,
            inputs: self.inputs(section),
            on_error: self.on_error(section),
        }
    }

    fn sink(&mut self, name: Placed<String>, section: &Section<'_>) -> Sink {
        self.check_keys(section, &SINK);
        let inputs = self.inputs(section);
        let on_error = self.on_error(section);
        let target = match (section.get("map"), section.get("topic")) {
            (Some(map), None) => self.string(&map).and_then(|map| {
                let sound = self.check_name(&map, None);
                sound.then_some(Target::Map(map))
            }),
            (None, Some(topic)) => self.string(&topic).and_then(|topic| {
                let sound = self.check_topic(&topic);
                sound.then_some(Target::Topic(topic))
            }),
            (Some(_), Some(topic)) => {
                let message = "a sink writes one map or one topic, not both";
                self.findings
                    .problem_with_hint(&topic.place, message, two_sinks());
                None
            }
            (None, None) => {
                self.findings
                    .absent(&section.place, "`map` or `topic` is missing", None);
                None
            }
        };
        Sink {
            name,
            inputs,
            target,
            on_error,
        }
    }

    fn map(&mut self, name: Placed<String>, section: &Section<'_>) -> Map {
        self.check_keys(section, &MAP);
        let pointers = match section.get("index") {
            Some(entry) => self.strings(&entry, "JSON pointer"),
            None => Vec::new(),
        };
        if let Some(first) = pointers.get(INDEXES_MAX) {
            let message = format!("a map has {INDEXES_MAX} indexes at most");
            self.findings.problem(&first.place, message);
        }
        let index = pointers
            .iter()
            .filter_map(|pointer| self.pointer(pointer))
            .collect();
        let topic = section.get("topic").map(|entry| {
            let topic = self.string(&entry);
            topic.filter(|topic| self.check_topic(topic))
        });
        let replicated = section.get("replicated");
        Map {
            name,
            topic,
            replicated: replicated
                .and_then(|entry| self.boolean(&entry))
                .unwrap_or(false),
            index,
        }
    }

    /// `["countries"]`, or under other names `{ countries = "iso-countries" }`.
    fn grants(&mut self, section: &Section<'_>, key: &str) -> Vec<Grant> {
        let Some(entry) = section.get(key) else {
            return Vec::new();
        };
        let DeValue::Table(table) = entry.value else {
            let maps = self.strings(&entry, "map");
            return maps
                .into_iter()
                .map(|map| Grant {
                    name: map.value.clone(),
                    map,
                })
                .collect();
        };
        let named = Section {
            place: entry.place,
            table,
        };
        let grants = named.entries().into_iter().filter_map(|entry| {
            let name = entry.key.to_owned();
            self.string(&entry).map(|map| Grant { name, map })
        });
        grants.collect()
    }

    /// As lookups are granted; the names of state that is not there yet are names of maps to be.
    fn state(&mut self, section: &Section<'_>) -> Vec<Grant> {
        let granted = self.grants(section, "state").into_iter();
        granted
            .filter(|state| self.check_name(&state.map, None))
            .collect()
    }

    fn inputs(&mut self, section: &Section<'_>) -> Vec<Placed<String>> {
        let list = self
            .required(section, "inputs")
            .map(|entry| self.strings(&entry, "input"));
        list.unwrap_or_default()
    }

    fn on_error(&mut self, section: &Section<'_>) -> OnError {
        let words = [("fail", OnError::Fail), ("skip", OnError::Skip)];
        self.on_error_of(section, &words)
            .value
            .unwrap_or(OnError::Fail)
    }

    fn on_error_of(
        &mut self,
        section: &Section<'_>,
        words: &[(&str, OnError)],
    ) -> Placed<Option<OnError>> {
        let entry = section.get("on-error");
        let place = entry.as_ref().map_or(&section.place, |entry| &entry.place);
        let place = place.clone();
        let value = match entry {
            Some(entry) => self.word(&entry, words, &[]),
            None => Some(OnError::Fail),
        };
        Placed { value, place }
    }
}

fn two_sinks() -> Option<String> {
    Some("two sinks may have the same inputs".to_owned())
}
