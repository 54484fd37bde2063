//! The `[kafka]` table: librdkafka properties, dotted or nested, for both clients or for one of them, with their secrets read.
//!
//! Never prints a value: `Debug` and problems show names only, so that no secret can slip out by being written in plain.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::problem::{Findings, Place, nearest};
use super::refused;
use super::value::{Entry, Section, kind};

/// Largest secret file in bytes; a longer one is taken for the wrong file.
const SECRET_BYTES_MAX: u64 = 1024 * 1024;

const SECRET_KEYS: &[&str] = &["env", "file"];

/// Properties that end in `.file`. Dotted, they look like a secret of the property before that ending, which does not exist.
const FILE_PROPERTIES: &[&str] = &[
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
    "sasl.oauthbearer.assertion.private.key.file",
];

/// The resolved librdkafka properties of a pipeline, none of which Millstream sets itself.
#[derive(Clone, Default)]
pub struct KafkaProperties {
    list: Vec<Property>,
}

#[derive(Clone)]
struct Property {
    client: Client,
    /// As librdkafka knows it: without `consumer.` or `producer.`.
    name: String,
    /// `None` where it could not be read: reported, and the pipeline is not loaded.
    value: Option<String>,
    place: Place,
}

/// Where they stand doesn't count.
impl PartialEq for KafkaProperties {
    fn eq(&self, other: &Self) -> bool {
        let said = |property: &Property| {
            let Property {
                client,
                name,
                value,
                ..
            } = property;
            (*client, name.clone(), value.clone())
        };
        self.list.iter().map(said).eq(other.list.iter().map(said))
    }
}

/// Which clients a property is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    All,
    Consumer,
    Producer,
}

impl Client {
    const ALL: [(Client, &str); 2] = [
        (Client::Consumer, "consumer."),
        (Client::Producer, "producer."),
    ];

    fn prefix(self) -> &'static str {
        match self {
            Client::All => "",
            Client::Consumer => "consumer.",
            Client::Producer => "producer.",
        }
    }
}

impl KafkaProperties {
    /// Name and value of what holds for every client, in the order of the file.
    #[cfg(test)]
    pub fn common(&self) -> impl Iterator<Item = (&str, &str)> {
        self.effective(Client::All)
    }

    /// Name and value for consumers: the common properties, with `consumer.` ones added and in place of common ones.
    pub fn consumer(&self) -> impl Iterator<Item = (&str, &str)> {
        self.effective(Client::Consumer)
    }

    /// Name and value for producers: the common properties, with `producer.` ones added and in place of common ones.
    pub fn producer(&self) -> impl Iterator<Item = (&str, &str)> {
        self.effective(Client::Producer)
    }

    fn effective(&self, client: Client) -> impl Iterator<Item = (&str, &str)> {
        let replaced = move |name: &str| self.find(client, name).is_some();
        self.list
            .iter()
            .filter(move |property| {
                property.client == client
                    || property.client == Client::All && !replaced(&property.name)
            })
            .filter_map(|property| Some((property.name.as_str(), property.value.as_deref()?)))
    }

    fn find(&self, client: Client, name: &str) -> Option<&Property> {
        let name = refused::canonical(name);
        let same = |p: &&Property| p.client == client && refused::canonical(&p.name) == name;
        self.list.iter().find(same)
    }

    /// Where a property was set, by the name it was set under or any other name of it; `consumer.` and `producer.` may lead.
    pub(super) fn place(&self, name: &str) -> Option<&Place> {
        let (client, bare) = split(name);
        let others = [client, Client::All, Client::Consumer, Client::Producer];
        others
            .into_iter()
            .find_map(|client| self.find(client, bare))
            .map(|found| &found.place)
    }
}

impl fmt::Debug for KafkaProperties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self
            .list
            .iter()
            .map(|p| format!("{}{}", p.client.prefix(), p.name));
        formatter.debug_set().entries(names).finish()
    }
}

fn split(name: &str) -> (Client, &str) {
    let prefixed = Client::ALL
        .iter()
        .find_map(|(client, prefix)| name.strip_prefix(prefix).map(|rest| (*client, rest)));
    prefixed.unwrap_or((Client::All, name))
}

/// Reads the table. `folder` is where relative secret files start; `brokers` stands in for `bootstrap.servers`.
pub(super) fn read(
    section: &Section<'_>,
    folder: &Path,
    brokers: Option<&str>,
    findings: &mut Findings<'_>,
) -> KafkaProperties {
    let mut reading = Reading {
        folder,
        findings,
        list: Vec::new(),
    };
    reading.table("", section);
    let mut properties = KafkaProperties { list: reading.list };
    settle_brokers(&mut properties, &section.place, brokers, findings);
    properties
}

/// What holds without a `[kafka]` table. `place` is that of the whole file.
pub(super) fn absent(
    place: &Place,
    brokers: Option<&str>,
    findings: &mut Findings<'_>,
) -> KafkaProperties {
    let mut properties = KafkaProperties::default();
    let place = Place {
        key: "kafka".to_owned(),
        offset: place.offset,
    };
    settle_brokers(&mut properties, &place, brokers, findings);
    properties
}

fn settle_brokers(
    properties: &mut KafkaProperties,
    section: &Place,
    brokers: Option<&str>,
    findings: &mut Findings<'_>,
) {
    let place = Place {
        key: format!("{}.bootstrap.servers", section.key),
        offset: section.offset,
    };
    match (brokers, properties.find(Client::All, refused::BROKERS)) {
        (Some(brokers), written) => {
            let place = written.map_or(place, |written| written.place.clone());
            let is_brokers = |p: &Property| refused::canonical(&p.name) == refused::BROKERS;
            properties.list.retain(|property| !is_brokers(property));
            properties.list.push(Property {
                client: Client::All,
                name: "bootstrap.servers".to_owned(),
                value: Some(brokers.to_owned()),
                place,
            });
        }
        (None, None) => {
            let hint = "the brokers to begin with: \"localhost:9092\"";
            findings.absent(&place, "is missing", Some(hint.to_owned()));
        }
        (None, Some(written)) => {
            if written
                .value
                .as_deref()
                .is_some_and(|value| value.trim().is_empty())
            {
                findings.problem(&written.place, "names no broker");
            }
        }
    }
}

struct Reading<'a, 'f, 't> {
    folder: &'a Path,
    findings: &'f mut Findings<'t>,
    list: Vec<Property>,
}

impl Reading<'_, '_, '_> {
    /// `path` is the name so far: a property may be written dotted, nested, quoted, or partly each.
    fn table(&mut self, path: &str, section: &Section<'_>) {
        for entry in section.entries() {
            let path = match path {
                "" => entry.key.to_owned(),
                path => format!("{path}.{}", entry.key),
            };
            let DeValue::Table(table) = entry.value else {
                self.property(&path, &entry, None);
                continue;
            };
            let section = Section {
                place: entry.place.clone(),
                table,
            };
            if table.is_empty() && path != "consumer" && path != "producer" {
                self.findings
                    .problem(&entry.place, "expected a value, found an empty table");
            }
            match secret(&path, table) {
                Some(secret) => self.property(&path, &entry, Some(secret)),
                None if self.is_misspelt_secret(&section) => {}
                None => self.table(&path, &section),
            }
        }
    }

    /// A table like `{ envv = "PASSWORD" }`; that is then reported. No property's name ends in such a word.
    fn is_misspelt_secret(&mut self, section: &Section<'_>) -> bool {
        let entries = section.entries();
        let [entry] = &entries[..] else {
            return false;
        };
        let near = nearest(&entry.key.to_lowercase(), SECRET_KEYS.iter().copied());
        let Some(near) = near.filter(|near| *near != entry.key) else {
            return false;
        };
        let place = Place {
            key: format!("{}.{}", section.place.key, entry.key),
            offset: entry.place.offset,
        };
        let message = "a secret comes from `env` or from `file`";
        let hint = format!("did you mean {near:?}?");
        self.findings.problem_with_hint(&place, message, Some(hint));
        true
    }

    fn property(&mut self, path: &str, entry: &Entry<'_>, secret: Option<Secret<'_>>) {
        let place = Place {
            key: format!("kafka.{path}"),
            offset: entry.place.offset,
        };
        let (client, name) = split(path);
        let reason = match client {
            Client::All => refused::reason(name),
            Client::Consumer | Client::Producer => {
                refused::reason(name).or_else(|| refused::reason_for_one_client(name))
            }
        };
        if let Some(reason) = reason {
            self.findings
                .problem(&place, format!("can't be set: {reason}"));
            return;
        }
        let value = match secret {
            Some(secret) => self.secret(&place, secret),
            None => self.plain(&place, entry.value),
        };
        let value = value.filter(|value| {
            let sound = !value.contains('\0');
            if !sound {
                self.findings.problem(&place, "holds a NUL character");
            }
            sound
        });
        let written = self.list.iter().find(|other| {
            other.client == client && refused::canonical(&other.name) == refused::canonical(name)
        });
        if let Some(written) = written {
            let (other, line) = (&written.place.key, self.findings.line(&written.place));
            let message = format!("the same property is set on line {line}, as {other}");
            self.findings.problem(&place, message);
            return;
        }
        self.list.push(Property {
            client,
            name: name.to_owned(),
            value,
            place,
        });
    }

    fn plain(&mut self, place: &Place, value: &DeValue<'_>) -> Option<String> {
        match value {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Boolean(truth) => Some(truth.to_string()),
            DeValue::Float(number) => Some(number.as_str().to_owned()),
            DeValue::Integer(number) => {
                let decimal = i64::from_str_radix(number.as_str(), number.radix()).ok();
                if decimal.is_none() {
                    self.findings
                        .problem(place, "an integer of more than 64 bits");
                }
                decimal.map(|number| number.to_string())
            }
            other @ (DeValue::Array(_) | DeValue::Table(_) | DeValue::Datetime(_)) => {
                let message = format!(
                    "expected a string, a number or a boolean, found {}",
                    kind(other)
                );
                let list = matches!(other, DeValue::Array(_));
                let hint = list.then(|| "librdkafka takes lists as one string: \"a,b\"".to_owned());
                self.findings.problem_with_hint(place, message, hint);
                None
            }
        }
    }

    fn secret(&mut self, place: &Place, secret: Secret<'_>) -> Option<String> {
        let read = match secret {
            Secret::Environment(name) => from_environment(name),
            Secret::File(path) => from_file(&self.folder.join(path)),
            Secret::Both => Err("a secret comes from `env` or from `file`, not both".to_owned()),
        };
        read.map_err(|message| self.findings.problem(place, message))
            .ok()
    }
}

enum Secret<'d> {
    Environment(&'d str),
    File(&'d str),
    Both,
}

/// The secret that a table stands for; `None` if it holds further parts of property names.
fn secret<'d>(path: &str, table: &'d DeTable<'_>) -> Option<Secret<'d>> {
    let text = |key: &str| table.get(key).and_then(|value| value.get_ref().as_str());
    match (table.len(), text("env"), text("file")) {
        (1, Some(name), None) => Some(Secret::Environment(name)),
        (1, None, Some(file)) => {
            let joined = format!("{}.file", split(path).1);
            (!FILE_PROPERTIES.contains(&joined.as_str())).then_some(Secret::File(file))
        }
        (2, Some(_), Some(_)) => Some(Secret::Both),
        _ => None,
    }
}

fn from_environment(name: &str) -> Result<String, String> {
    // `var_os` panics on such names.
    let unusable = name.is_empty() || name.contains(['=', '\0']);
    let value = if unusable {
        None
    } else {
        std::env::var_os(name)
    };
    let value = value.ok_or(format!("the environment variable {name:?} is not set"))?;
    value
        .into_string()
        .map_err(|_| format!("the environment variable {name:?} is not UTF-8"))
}

/// The contents of a file without one line break at its end.
fn from_file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let failed = |error: std::io::Error| format!("can't read {shown}: {error}");
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(SECRET_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!(
            "{shown} is too large for a secret, which has {SECRET_BYTES_MAX} bytes at most"
        ));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| format!("{shown} is not UTF-8"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
