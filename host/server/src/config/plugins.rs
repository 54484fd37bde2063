//! The tables of plugins: where a component is, which bytes it must have, and what it may take.

use std::time::Duration;

use millstream_engine::step::OUTCOME_BYTES_MAX;

use super::file::File;
use super::problem::{Findings, Placed, did_you_mean};
use super::value::{Entry, Keys, Section, Walk};
use crate::plugin_allow::{Allow, Stub};
use crate::plugin_limits::{PluginLimits, size};

const PLUGIN: Keys = Keys {
    known: &["path", "sha256", "limits", "allow"],
    planned: &[],
};
const LIMITS: Keys = Keys {
    known: &[
        "memory",
        "memory-mark",
        "time",
        "output-bytes",
        "output-records",
        "log-lines",
        "instances",
    ],
    planned: &[],
};

const ALLOW: Keys = Keys {
    known: &["env", "stdout", "stubs"],
    planned: &["http"],
};

/// A call is not to outlast what queries and the group wait for a worker.
const TIMES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));
/// A transaction times out after a minute, and has more to do than to wait for one record.
const RETRYING_MAX: Duration = Duration::from_secs(20);
/// An answer of more is too large in any case: the engine counts 32 bytes for each (`OUTCOME_BYTES_MAX`).
const OUTPUT_RECORDS_MAX: u32 = 2_000_000;
const LOG_LINES_MAX: u32 = 100_000;
const INSTANCES_MAX: u32 = 10_000;

pub(super) struct Plugin {
    pub name: Placed<String>,
    pub path: Option<String>,
    pub sha256: Option<[u8; 32]>,
    pub limits: PluginLimits,
    pub allow: Allow,
}

impl Walk<'_, '_> {
    pub fn plugin(&mut self, name: Placed<String>, section: &Section<'_>) -> Plugin {
        self.check_keys(section, &PLUGIN);
        let path = self
            .required(section, "path")
            .and_then(|entry| self.string(&entry));
        if let Some(path) = path.as_ref().filter(|path| path.value.is_empty()) {
            self.findings.problem(&path.place, "names no file");
        }
        let path = path.map(|path| path.value);
        let (limits, allow) = (section.get("limits"), section.get("allow"));
        Plugin {
            name,
            path: path.filter(|path| !path.is_empty()),
            sha256: section.get("sha256").and_then(|entry| self.sha256(&entry)),
            limits: limits
                .and_then(|entry| self.table(&entry))
                .map(|section| self.limits(&section))
                .unwrap_or_default(),
            allow: allow
                .and_then(|entry| self.table(&entry))
                .map(|section| self.allow(&section))
                .unwrap_or_default(),
        }
    }

    fn allow(&mut self, section: &Section<'_>) -> Allow {
        self.check_keys(section, &ALLOW);
        let env = section.get("env");
        let env = env.map(|entry| self.strings(&entry, "variable"));
        let env = env.unwrap_or_default();
        for name in &env {
            if name.value.is_empty() || name.value.contains(['=', '\0']) {
                self.findings
                    .problem(&name.place, "is no name of an environment variable");
            }
        }
        let stdout = section.get("stdout");
        let stubs = section.get("stubs");
        let stubs = stubs.map(|entry| self.strings(&entry, "interface"));
        let stubs = stubs.unwrap_or_default();
        Allow {
            env: env.into_iter().map(|name| name.value).collect(),
            stdout: stdout.and_then(|entry| self.boolean(&entry)) == Some(true),
            stubs: stubs.iter().filter_map(|word| self.stub(word)).collect(),
        }
    }

    fn stub(&mut self, word: &Placed<String>) -> Option<Stub> {
        let found = Stub::ALL.into_iter().find(|stub| stub.word() == word.value);
        if found.is_none() {
            let words = Stub::ALL.map(Stub::word);
            let message = format!("{:?} is none of {}", word.value, words.join(", "));
            let hint = did_you_mean(&word.value, words);
            self.findings.problem_with_hint(&word.place, message, hint);
        }
        found
    }

    fn limits(&mut self, section: &Section<'_>) -> PluginLimits {
        self.check_keys(section, &LIMITS);
        let default = PluginLimits::default();
        let memory = section.get("memory").and_then(|entry| self.memory(&entry));
        let memory = memory.unwrap_or(default.memory);
        let mut bytes = |key: &str| section.get(key).and_then(|entry| self.memory(&entry));
        let (mark, output_bytes) = (bytes("memory-mark"), bytes("output-bytes"));
        if let (Some(mark), Some(entry)) = (mark, section.get("memory-mark"))
            && mark > memory
        {
            let message = format!("is above the plugin's memory of {}", size(memory));
            self.findings.problem(&entry.place, message);
        }
        if let (Some(most), Some(entry)) = (output_bytes, section.get("output-bytes"))
            && most > OUTCOME_BYTES_MAX
        {
            let message = format!(
                "is above {}, which no answer may pass",
                size(OUTCOME_BYTES_MAX)
            );
            self.findings.problem(&entry.place, message);
        }
        let time = section.get("time");
        let time = time.and_then(|entry| self.duration_between(&entry, TIMES));
        let mut count = |key: &str, most: u32| section.get(key).and_then(|e| self.count(&e, most));
        let (output_records, log_lines, instances) = (
            count("output-records", OUTPUT_RECORDS_MAX),
            count("log-lines", LOG_LINES_MAX),
            count("instances", INSTANCES_MAX),
        );
        PluginLimits {
            memory,
            memory_mark: mark.unwrap_or(PluginLimits::mark_of(memory)),
            time: time.unwrap_or(default.time),
            output_bytes: output_bytes.unwrap_or(default.output_bytes),
            output_records: output_records.map_or(default.output_records, |most| most as usize),
            log_lines: log_lines.unwrap_or(default.log_lines),
            instances: instances.map_or(default.instances, |most| most as usize),
        }
    }

    fn sha256(&mut self, entry: &Entry<'_>) -> Option<[u8; 32]> {
        let text = self.string(entry)?;
        let digest = digest(&text.value);
        if digest.is_none() {
            let message = format!("{:?} is not a SHA-256 digest", text.value);
            let hint = "64 hexadecimal digits, as `sha256sum FILE` prints them";
            self.findings
                .problem_with_hint(&text.place, message, Some(hint.to_owned()));
        }
        digest
    }
}

/// A record that fails at every try must not outlast its transaction.
pub(super) fn check_retries(file: &File, findings: &mut Findings<'_>) {
    for step in &file.steps {
        let (Some(retries), Some(plugin)) = (&step.retries, &step.plugin) else {
            continue;
        };
        let mut plugins = file.plugins.iter();
        let Some(plugin) = plugins.find(|known| known.name.value == plugin.value) else {
            continue;
        };
        let time = plugin.limits.time;
        if time * retries.value > RETRYING_MAX {
            let message = format!(
                "{} calls of {time:?} each are more than {RETRYING_MAX:?}, which a record may take",
                retries.value
            );
            let hint = format!(
                "shorten `plugins.{}.limits.time`, or try less often",
                plugin.name.value
            );
            findings.problem_with_hint(&retries.place, message, Some(hint));
        }
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(digest)
}
