//! Reading TOML values of one kind each: words, names, topics, durations, lists, tables by their keys.
//!
//! A reader answers `None`, or leaves an element out, for what it has reported; it never invents a value.

use std::time::Duration;

use millstream_engine::json::Pointer;
use toml::de::{DeTable, DeValue};

use super::problem::{Findings, Place, Placed, did_you_mean};
use super::text::dotted;

/// Longest name of a pipeline, source, step, sink or plugin, in characters.
pub(super) const NAME_MAX: usize = 100;
/// Longest name of a topic: Kafka's own limit.
pub(super) const TOPIC_MAX: usize = 249;
/// Brokers end transactions after 15 minutes at most (`transaction.max.timeout.ms`), which is three of the longest.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(300));
/// Below this, hardly a map would find room.
const MEMORY_MIN: usize = 1 << 20;

/// The keys that a table may have.
pub(super) struct Keys {
    pub known: &'static [&'static str],
    /// Words of the design that this version does not do yet.
    pub planned: &'static [&'static str],
}

/// A table and where it stands.
pub(super) struct Section<'d> {
    pub place: Place,
    pub table: &'d DeTable<'d>,
}

/// A key of a table with its value.
pub(super) struct Entry<'d> {
    pub key: &'d str,
    pub place: Place,
    pub value: &'d DeValue<'d>,
}

impl<'d> Section<'d> {
    /// In the order of the file, whatever order the parser keeps.
    pub fn entries(&self) -> Vec<Entry<'d>> {
        let mut entries: Vec<_> = self
            .table
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref(),
                place: Place {
                    key: dotted(&self.place.key, key.get_ref()),
                    offset: key.span().start,
                },
                value: value.get_ref(),
            })
            .collect();
        entries.sort_by_key(|entry| entry.place.offset);
        entries
    }

    pub fn get(&self, key: &str) -> Option<Entry<'d>> {
        self.entries().into_iter().find(|entry| entry.key == key)
    }
}

/// Reads values out of tables and notes what is wrong with them.
pub(super) struct Walk<'f, 't> {
    pub findings: &'f mut Findings<'t>,
}

/// Values of one kind each: `None` has been reported.
impl Walk<'_, '_> {
    pub fn check_keys(&mut self, section: &Section<'_>, keys: &Keys) {
        for entry in section.entries() {
            if keys.known.contains(&entry.key) {
                continue;
            }
            if keys.planned.contains(&entry.key) {
                self.findings.problem(&entry.place, "not supported yet");
                continue;
            }
            let known = format!("known here: {}", keys.known.join(", "));
            let hint = match did_you_mean(entry.key, keys.known.iter().copied()) {
                Some(near) => format!("{near} {known}"),
                None => known,
            };
            self.findings
                .problem_with_hint(&entry.place, "unknown key", Some(hint));
        }
    }

    pub fn required<'d>(&mut self, section: &Section<'d>, key: &str) -> Option<Entry<'d>> {
        let entry = section.get(key);
        if entry.is_none() {
            let place = Place {
                key: dotted(&section.place.key, key),
                offset: section.place.offset,
            };
            self.findings.absent(&place, "is missing", None);
        }
        entry
    }

    pub fn named_tables<'d, T>(
        &mut self,
        root: &Section<'d>,
        key: &str,
        read: fn(&mut Self, Placed<String>, &Section<'d>) -> T,
    ) -> Vec<T> {
        let Some(entry) = root.get(key) else {
            return Vec::new();
        };
        let Some(section) = self.table(&entry) else {
            self.findings.hide_absences();
            return Vec::new();
        };
        let mut list = Vec::new();
        for entry in section.entries() {
            let name = Placed {
                value: entry.key.to_owned(),
                place: entry.place.clone(),
            };
            self.check_name(&name, Some(NAME_MAX));
            match self.table(&entry) {
                Some(section) => list.push(read(self, name, &section)),
                None => self.findings.hide_absences(),
            }
        }
        list
    }

    pub fn table<'d>(&mut self, entry: &Entry<'d>) -> Option<Section<'d>> {
        match entry.value {
            DeValue::Table(table) => Some(Section {
                place: entry.place.clone(),
                table,
            }),
            other => {
                self.expected(&entry.place, "a table", other, None);
                None
            }
        }
    }

    pub fn string(&mut self, entry: &Entry<'_>) -> Option<Placed<String>> {
        self.string_at(&entry.place, entry.value)
    }

    pub fn string_at(&mut self, place: &Place, value: &DeValue<'_>) -> Option<Placed<String>> {
        match value {
            DeValue::String(text) => Some(Placed {
                value: text.to_string(),
                place: place.clone(),
            }),
            other => {
                self.expected(place, "a string", other, None);
                None
            }
        }
    }

    pub fn boolean(&mut self, entry: &Entry<'_>) -> Option<bool> {
        if let DeValue::Boolean(value) = entry.value {
            return Some(*value);
        }
        self.expected(&entry.place, "a boolean", entry.value, None);
        None
    }

    /// An array of strings, without those seen before. `what` names one of them.
    pub fn strings(&mut self, entry: &Entry<'_>, what: &str) -> Vec<Placed<String>> {
        let array = match entry.value {
            DeValue::Array(array) => array,
            other => {
                let hint = other.as_str().map(|text| format!("write [{text:?}]"));
                self.expected(&entry.place, "an array of strings", other, hint);
                return Vec::new();
            }
        };
        if array.is_empty() {
            self.findings
                .absent(&entry.place, format!("names no {what}"), None);
        }
        let mut list: Vec<Placed<String>> = Vec::new();
        for (index, element) in array.iter().enumerate() {
            let place = Place {
                key: format!("{}[{index}]", entry.place.key),
                offset: element.span().start,
            };
            let Some(text) = self.string_at(&place, element.get_ref()) else {
                continue;
            };
            if list.iter().any(|seen| seen.value == text.value) {
                let message = format!("{:?} is in this list already", text.value);
                self.findings.problem(&place, message);
            } else {
                list.push(text);
            }
        }
        list
    }

    pub fn word<T: Copy>(
        &mut self,
        entry: &Entry<'_>,
        words: &[(&str, T)],
        planned: &[&str],
    ) -> Option<T> {
        let text = self.string(entry)?;
        let found = words.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            if planned.contains(&text.value.as_str()) {
                self.findings.problem(
                    &text.place,
                    format!("{:?} is not supported yet", text.value),
                );
            } else {
                let known: Vec<_> = words
                    .iter()
                    .map(|(word, _)| format!("\"{word}\""))
                    .collect();
                let message = format!("{:?} is not one of {}", text.value, known.join(", "));
                let hint = did_you_mean(&text.value, words.iter().map(|(word, _)| *word));
                self.findings.problem_with_hint(&text.place, message, hint);
            }
        }
        found.map(|(_, value)| *value)
    }

    pub fn interval(&mut self, entry: &Entry<'_>) -> Option<Duration> {
        self.duration_between(entry, INTERVALS)
    }

    /// From the shortest to the longest.
    pub fn duration_between(
        &mut self,
        entry: &Entry<'_>,
        (shortest, longest): (Duration, Duration),
    ) -> Option<Duration> {
        let text = self.string(entry)?;
        let Some(found) = duration(&text.value) else {
            let message = format!("{:?} is not a duration", text.value);
            let hint = "a whole number and one of ms, s, m: \"500ms\", \"5s\", \"1m\"";
            self.findings
                .problem_with_hint(&text.place, message, Some(hint.to_owned()));
            return None;
        };
        if !(shortest..=longest).contains(&found) {
            let (shortest, longest) = (written(shortest), written(longest));
            let message = format!(
                "{:?} is not between \"{shortest}\" and \"{longest}\"",
                text.value
            );
            self.findings.problem(&text.place, message);
            return None;
        }
        Some(found)
    }

    /// In bytes.
    pub fn memory(&mut self, entry: &Entry<'_>) -> Option<usize> {
        let text = self.string(entry)?;
        let Some(bytes) = size(&text.value) else {
            let message = format!("{:?} is not an amount of memory", text.value);
            let hint = "a whole number and one of KiB, MiB, GiB, TiB: \"512MiB\", \"2GiB\"";
            self.findings
                .problem_with_hint(&text.place, message, Some(hint.to_owned()));
            return None;
        };
        if bytes < MEMORY_MIN {
            let message = format!("{:?} is less than \"1MiB\"", text.value);
            self.findings.problem(&text.place, message);
            return None;
        }
        Some(bytes)
    }

    pub fn count(&mut self, entry: &Entry<'_>, most: u32) -> Option<u32> {
        let DeValue::Integer(number) = entry.value else {
            self.expected(&entry.place, "a whole number", entry.value, None);
            return None;
        };
        let count = u32::from_str_radix(number.as_str(), number.radix()).ok();
        let count = count.filter(|count| *count <= most);
        if count.is_none() {
            let message = format!("is not a number from 0 to {most}");
            self.findings.problem(&entry.place, message);
        }
        count
    }

    /// A share of a whole, from 0 to 1, in millionths.
    pub fn share(&mut self, entry: &Entry<'_>) -> Option<u32> {
        let text = match entry.value {
            DeValue::Integer(number) => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => {
                self.expected(&entry.place, "a number from 0 to 1", entry.value, None);
                return None;
            }
        };
        let share = text.replace('_', "").parse::<f64>().ok();
        let share = share.filter(|share| (0.0..=1.0).contains(share));
        if share.is_none() {
            let message = "is not a number from 0 to 1";
            self.findings.problem(&entry.place, message);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 0 and a million"
        )]
        share.map(|share| (share * 1e6).round() as u32)
    }

    pub fn pointer(&mut self, text: &Placed<String>) -> Option<Pointer> {
        let pointer = Pointer::parse(&text.value);
        if let Err(why) = &pointer {
            let hint = (!text.value.starts_with('/')).then(|| {
                let near = format!("/{}", text.value.replace('.', "/"));
                format!("write {near:?}")
            });
            self.findings
                .problem_with_hint(&text.place, format!("{:?}: {why}", text.value), hint);
        }
        pointer.ok()
    }

    pub fn name_value(&mut self, entry: &Entry<'_>) -> Option<Placed<String>> {
        let name = self.string(entry)?;
        self.check_name(&name, Some(NAME_MAX)).then_some(name)
    }

    pub fn check_name(&mut self, name: &Placed<String>, longest: Option<usize>) -> bool {
        let text = &name.value;
        if !is_name(text) {
            let message = format!("{text:?} is not a name");
            let hint = "a lower-case letter, then lower-case letters, digits, `_` and `-`";
            self.findings
                .problem_with_hint(&name.place, message, Some(hint.to_owned()));
            return false;
        }
        if let Some(longest) = longest.filter(|longest| text.len() > *longest) {
            let message = format!("a name of {} characters, {longest} are allowed", text.len());
            self.findings.problem(&name.place, message);
            return false;
        }
        true
    }

    pub fn check_topic(&mut self, topic: &Placed<String>) -> bool {
        let text = &topic.value;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let sound = (1..=TOPIC_MAX).contains(&text.len())
            && text.chars().all(allowed)
            && text != "."
            && text != "..";
        if !sound {
            let message = format!("{text:?} is not a topic name");
            let hint = "1 to 249 letters, digits, `.`, `_` and `-`, and not `.` or `..`";
            self.findings
                .problem_with_hint(&topic.place, message, Some(hint.to_owned()));
        }
        sound
    }

    pub fn expected(
        &mut self,
        place: &Place,
        what: &str,
        found: &DeValue<'_>,
        hint: Option<String>,
    ) {
        let message = format!("expected {what}, found {}", kind(found));
        self.findings.problem_with_hint(place, message, hint);
    }
}

/// `[a-z][a-z0-9_-]*`
pub(super) fn is_name(text: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(rest)
}

/// A value's type as a message says it.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn size(text: &str) -> Option<usize> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let number: usize = text[..unit].parse().ok()?;
    let shift = match &text[unit..] {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// As the file has it.
fn written(duration: Duration) -> String {
    match (duration.as_millis(), duration.as_secs()) {
        (millis, _) if millis % 1000 > 0 => format!("{millis}ms"),
        (_, seconds) if seconds % 60 > 0 => format!("{seconds}s"),
        (_, seconds) => format!("{}m", seconds / 60),
    }
}

pub fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..unit].parse().ok()?;
    match &text[unit..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    }
}
