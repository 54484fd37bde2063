//! What a case of the corpus is: a file in this folder, its head, and the pipeline that it runs in.
//!
//! The head is what stands in front, in lines that begin with `;;`: what the plugin does, and then `KEY: VALUE` for
//!
//! - `expect`: `refused: WORDS` the process doesn't start, exit code 2; `fails: WORDS` the call on the evil record fails, the others come
//!   out; `all fail: WORDS` so does the call on each; `refuses: WORDS` the plugin says so itself; `passes` all come out. It is said with
//!   those words;
//! - `limit`: a limit that is counted as run into;
//! - `limits`, `step`: what stands in the tables of plugin and step; `more`: a line of the pipeline file. `{case}` is the case's name;
//! - `value`: the evil record, where it is not the long one;
//! - `version`: of the contract; `behind: honest`: the component's sections stand behind those of the honest plugin.
//!
//! Invariant: a head that isn't understood fails the test. A case that checks nothing must not pass.

use std::path::{Path, PathBuf};

use rig::repository;
use serde_json::json;

use super::component;
use crate::pipelines::plugin;

/// What each instance and call may take, where the case doesn't say otherwise.
pub const LIMITS: &str = "time = \"5s\", memory = \"64MiB\"";

/// The same for who takes all the time that there is. Others are to do what they do on a slow machine too.
pub const SHORT_LIMITS: &str = "time = \"100ms\", memory = \"64MiB\"";

/// Longer than any other record: see `$process` in common.wat.
const EVIL_BYTES: usize = 4004;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    Refused(String),
    Fails(String),
    AllFail(String),
    Refuses(String),
    Passes,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub expected: Expected,
    pub limit: Option<String>,
    /// The evil record's value.
    pub value: String,
    limits: String,
    step: String,
    more: Vec<String>,
    plugin: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Wat {
        text: String,
        version: String,
        behind_honest: bool,
    },
    /// The Rust plugin that does on demand what plugins do by mistake.
    Probe,
}

/// All of them, by name.
pub fn all() -> Vec<Case> {
    let folder = repository().join("tests/system/hostile");
    let files = std::fs::read_dir(&folder).expect("the corpus is there");
    let mut files: Vec<PathBuf> = files
        .map(|file| file.expect("it can be read").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|kind| kind == "wat" || kind == "probe")
        })
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name != component::COMMON)
        })
        .collect();
    files.sort();
    files.iter().map(|file| Case::read(file)).collect()
}

impl Case {
    fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file);
        let text = text.unwrap_or_else(|why| panic!("{}: {why}", file.display()));
        let name = file.file_stem().expect("it has one").to_string_lossy();
        let mut head = Head::of(&text, file);
        let (version, behind) = (head.one("version"), head.one("behind"));
        let plugin = match file.extension() {
            Some(kind) if kind == "probe" => Source::Probe,
            _ => Source::Wat {
                text: text.clone(),
                version: version.unwrap_or_else(|| component::VERSION.into()),
                behind_honest: behind.is_some(),
            },
        };
        let evil = || format!("evil{}", "!".repeat(EVIL_BYTES - 4));
        let expected = head.one("expect").unwrap_or_default();
        let expected = Expected::of(&expected)
            .unwrap_or_else(|| panic!("{}: expect: {expected}", file.display()));
        let limit = head.one("limit");
        let limits = match (&expected, limit.as_deref()) {
            (Expected::Refused(_), _) | (_, Some("time")) => SHORT_LIMITS,
            _ => LIMITS,
        };
        let case = Self {
            name: name.clone().into_owned(),
            expected,
            limit,
            value: head.one("value").unwrap_or_else(evil),
            limits: head.one("limits").unwrap_or_else(|| limits.into()),
            step: head.one("step").unwrap_or_default(),
            more: head.all("more"),
            plugin,
        };
        head.end();
        case
    }

    /// The same under other limits.
    pub fn with_limits(self, limits: &str) -> Self {
        Self {
            limits: limits.to_owned(),
            ..self
        }
    }

    /// The bytes of its plugin; none where that is the Rust plugin.
    pub fn component(&self) -> Option<Vec<u8>> {
        match &self.plugin {
            Source::Probe => None,
            Source::Wat {
                text,
                version,
                behind_honest: false,
            } => Some(component::assemble(&self.name, text, version)),
            Source::Wat { text, .. } => Some(component::behind_honest(&self.name, text)),
        }
    }

    /// Its lines of a pipeline file: its plugin, written into this folder, and a step of its name that reads the source `in`.
    pub fn lines(&self, folder: &Path) -> String {
        let (name, limits) = (&self.name, &self.limits);
        let path = match self.component() {
            None => plugin("probe.wasm"),
            Some(bytes) => {
                let path = folder.join(name).with_extension("wasm");
                std::fs::write(&path, bytes).expect("the folder can be written");
                path
            }
        };
        let (path, probe) = (json!(path), json!(plugin("probe.wasm")));
        let comma = if self.step.is_empty() { "" } else { ", " };
        let lines = format!(
            "plugins.{name}.path = {path}\nplugins.{name}.limits = {{ {limits} }}\n\
             steps.{name} = {{ inputs = [\"in\"], plugin = \"{name}\", on-error = \"skip\"{comma}{} }}\n{}\n",
            self.step,
            self.more.join("\n")
        );
        lines
            .replace("{case}", name)
            .replace("{probe}", &probe.to_string())
    }
}

impl Expected {
    fn of(text: &str) -> Option<Self> {
        let (kind, words) = text.split_once(':').unwrap_or((text, ""));
        let words = words.trim().to_owned();
        match (kind, words.is_empty()) {
            ("refused", false) => Some(Self::Refused(words)),
            ("fails", false) => Some(Self::Fails(words)),
            ("all fail", false) => Some(Self::AllFail(words)),
            ("refuses", false) => Some(Self::Refuses(words)),
            ("passes", true) => Some(Self::Passes),
            _ => None,
        }
    }
}

/// Keys and values in front of a file.
struct Head {
    file: PathBuf,
    pairs: Vec<(String, String)>,
}

impl Head {
    const KEYS: [&str; 8] = [
        "expect", "limit", "limits", "step", "more", "value", "version", "behind",
    ];

    fn of(text: &str, file: &Path) -> Self {
        let lines = text.lines().map_while(|line| line.strip_prefix(";;"));
        let pairs = lines.filter_map(|line| {
            let (key, value) = line.trim().split_once(": ").or(Some((line.trim(), "")))?;
            let pair = (key.to_owned(), value.to_owned());
            Self::KEYS.contains(&key).then_some(pair)
        });
        Self {
            file: file.to_owned(),
            pairs: pairs.collect(),
        }
    }

    fn all(&mut self, key: &str) -> Vec<String> {
        let mut found = Vec::new();
        self.pairs.retain(|(name, value)| {
            let is_it = name == key;
            if is_it {
                found.push(value.clone());
            }
            !is_it
        });
        found
    }

    fn one(&mut self, key: &str) -> Option<String> {
        let mut found = self.all(key);
        let file = self.file.display();
        assert!(found.len() < 2, "{file}: `{key}` stands there twice");
        found.pop()
    }

    fn end(self) {
        let (file, left) = (self.file.display(), &self.pairs);
        assert!(left.is_empty(), "{file}: {left:?}");
    }
}
