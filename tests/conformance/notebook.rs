//! Runs a script against a Kafka: keeps what its clients know (epochs, sequence numbers, member ids), asks, and writes down.
//!
//! What it writes is the same for every Kafka that answers the same: no producer id, member id or time of the broker's own.

use std::collections::BTreeMap;
use std::error::Error;

use goldenscript::{Context, Runner};
use millstream_broker::{
    Answer, Isolation, Join, Marker, Membership, Outcome, PartitionOffset, Producer, Records,
    Settings, Spec,
};

use crate::command::Command;
use crate::subject::{Joined, Seen, Subject};

type Page = Result<String, Box<dyn Error>>;

const TRANSACTION_TIMEOUT_MS: i64 = 60_000;
/// Nobody's session or rebalance ends by accident, however slow the machine.
const SESSION_TIMEOUT_MS: i64 = 30_000;
const REBALANCE_TIMEOUT_MS: i64 = 30_000;
/// Between two heartbeats of a member while a script waits.
const HEARTBEAT_MS: u32 = 100;

/// The time of records where a script says none, late in the century: a broker forgets the sequence numbers of producers whose
/// last record is older than a day (`producer.id.expiration.ms`).
const RECORD_TIME: i64 = 4_000_000_000_000;

/// Longer values are cut.
const TEXT_MAX: usize = 40;
const NULL: &str = "null";

#[derive(Debug)]
pub struct Notebook<S> {
    subject: S,
    /// In front of every name that the broker is told.
    prefix: String,
    clients: BTreeMap<String, Client>,
    seats: BTreeMap<String, Seat>,
}

#[derive(Debug)]
struct Client {
    producer: Producer,
    /// The next sequence number by topic and partition.
    sequences: BTreeMap<(String, u32), i32>,
}

/// A member of a group as it knows itself.
#[derive(Clone, Debug)]
struct Seat {
    group: String,
    topics: Vec<String>,
    instance_id: Option<String>,
    session_timeout_ms: i64,
    rebalance_timeout_ms: i64,
    member_id: String,
    generation: i32,
    /// Sends heartbeats while a script waits: it is alive, and doesn't wait for the answer to a join.
    beats: bool,
}

impl Seat {
    fn membership(&self) -> Membership<'_> {
        Membership {
            member_id: &self.member_id,
            instance_id: self.instance_id.as_deref(),
            generation: self.generation,
        }
    }
}

impl<S: Subject> Runner for Notebook<S> {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Page {
        match command {
            Command::Topic { .. }
            | Command::Delete { .. }
            | Command::Partitions { .. }
            | Command::Truncate { .. }
            | Command::Compact { .. } => self.topic(command),
            Command::Producer { name, id, timeout } => self.producer(
                name,
                id.as_deref(),
                timeout.unwrap_or(TRANSACTION_TIMEOUT_MS),
            ),
            Command::Send { .. } | Command::Resend { .. } | Command::Record { .. } => {
                self.send(command)
            }
            Command::Commit { producer } => self.end(producer, Outcome::Commit),
            Command::Abort { producer } => self.end(producer, Outcome::Abort),
            Command::Read { place, from } => self.read(place, *from, Isolation::ReadCommitted),
            Command::Peek { place, from } => self.read(place, *from, Isolation::ReadUncommitted),
            Command::Marks { place } => self.marks(place),
            Command::Offsets {
                producer,
                group,
                member,
                offsets,
            } => self.store(Some(producer), group, member.as_deref(), offsets),
            Command::Store {
                group,
                member,
                metadata,
                offsets,
            } => {
                let metadata = " ".to_owned() + &"m".repeat(metadata.unwrap_or(0));
                let offsets = offsets.iter();
                let offsets = offsets.map(|(at, offset)| (at.clone(), offset.clone() + &metadata));
                self.store(None, group, member.as_deref(), &offsets.collect::<Vec<_>>())
            }
            Command::Committed { group, places } => self.committed(group, places, false),
            Command::Stable { group, places } => self.committed(group, places, true),
            Command::Hold { places } => self.markers(places, S::hold_marker),
            Command::Release { places } => self.markers(places, S::release_marker),
            Command::Wait { ms } => {
                self.wait(*ms);
                Ok(String::new())
            }
            Command::Restart => {
                self.subject.restart();
                Ok(String::new())
            }
            group => self.group(group),
        }
    }
}

impl<S: Subject> Notebook<S> {
    pub fn new(script: &str, subject: S) -> Self {
        Self {
            subject,
            prefix: format!("{script}."),
            clients: BTreeMap::new(),
            seats: BTreeMap::new(),
        }
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A topic's full name and the partition.
    fn place(&self, place: &str) -> Result<(String, u32), Box<dyn Error>> {
        let (topic, partition) = place.split_once('/').ok_or("no topic/partition")?;
        Ok((self.full(topic), partition.parse()?))
    }

    /// Those of partitions, or of groups.
    fn markers(&mut self, places: &[String], act: fn(&mut S, &Marker)) -> Page {
        for place in places {
            let at = if place.contains('/') {
                let (topic, partition) = self.place(place)?;
                Marker::Partition(topic, partition)
            } else {
                Marker::Group(self.full(place))
            };
            act(&mut self.subject, &at);
        }
        Ok(String::new())
    }

    fn topic(&mut self, command: &Command) -> Page {
        Ok(match command {
            Command::Topic {
                name,
                partitions,
                cleanup,
                bytes,
            } => {
                let usual = Settings::default().max_message_bytes;
                let settings = Settings {
                    compact: cleanup.as_deref() == Some("compact"),
                    max_message_bytes: bytes.unwrap_or(usual),
                };
                let full = self.full(name);
                let created = self
                    .subject
                    .create_topic(&full, partitions.unwrap_or(1), &settings);
                refused(name, created)
            }
            Command::Delete { name } => {
                let full = self.full(name);
                refused(name, self.subject.delete_topic(&full))
            }
            Command::Partitions { name } => {
                let full = self.full(name);
                said(name, self.subject.partitions(&full))
            }
            Command::Truncate { place, before } => {
                let (topic, partition) = self.place(place)?;
                let deleted = self.subject.delete_records((&topic, partition), *before);
                refused(place, deleted)
            }
            Command::Compact { place } => {
                let (topic, partition) = self.place(place)?;
                refused(place, self.subject.compact((&topic, partition)))
            }
            other => return Err(format!("{other:?} is not about topics").into()),
        })
    }

    fn producer(&mut self, name: &str, id: Option<&str>, timeout_ms: i64) -> Page {
        let id = id.map(|id| self.full(id));
        let answer = self.subject.init_producer_id(id.as_deref(), timeout_ms);
        Ok(said(
            name,
            answer.map(|producer| {
                let said = format!("epoch {}", producer.epoch);
                let client = Client {
                    producer,
                    sequences: BTreeMap::new(),
                };
                self.clients.insert(name.into(), client);
                said
            }),
        ))
    }

    fn send(&mut self, command: &Command) -> Page {
        let mut records = Records::default();
        let (producer, place, sequence) = match command {
            Command::Send {
                producer,
                place,
                records: pairs,
            } => {
                for (key, value) in pairs {
                    let (key, value) = (bytes(key), bytes(value));
                    records.push(
                        RECORD_TIME,
                        key.as_deref(),
                        value.as_deref(),
                        std::iter::empty(),
                    );
                }
                (producer, place, None)
            }
            Command::Resend {
                producer,
                place,
                sequence,
                count,
            } => {
                for _ in 0..count.unwrap_or(1) {
                    records.push(RECORD_TIME, Some(b"again"), Some(b""), std::iter::empty());
                }
                (producer, place, Some(*sequence))
            }
            Command::Record {
                producer, place, ..
            } => {
                record(command, &mut records);
                (producer, place, None)
            }
            other => return Err(format!("{other:?} is no batch").into()),
        };
        let (topic, partition) = self.place(place)?;
        let count = i32::try_from(records.len())?;
        let client = match producer.as_str() {
            "nobody" => None,
            name => Some(self.clients.get_mut(name).ok_or("no such producer")?),
        };
        let next = client.as_ref().map_or(-1, |client| {
            let next = client.sequences.get(&(topic.clone(), partition));
            next.copied().unwrap_or(0)
        });
        let identity = client.as_ref().map(|client| &client.producer);
        let at = (topic.as_str(), partition);
        let answer = self
            .subject
            .produce(identity, at, sequence.unwrap_or(next), records);
        if let (Some(client), None, Ok(_)) = (client, sequence, &answer) {
            client.sequences.insert((topic, partition), next + count);
        }
        let at = answer.map(|offset| format!("at {offset}"));
        Ok(said(&format!("{producer} -> {place}"), at))
    }

    fn end(&mut self, name: &str, outcome: Outcome) -> Page {
        let client = self.clients.get(name).ok_or("no such producer")?;
        let answer = self.subject.end_transaction(&client.producer, outcome);
        let done = match outcome {
            Outcome::Commit => "committed",
            Outcome::Abort => "aborted",
        };
        Ok(said(name, answer.map(|()| done)))
    }

    fn read(&mut self, place: &str, from: i64, isolation: Isolation) -> Page {
        let (topic, partition) = self.place(place)?;
        let (seen, next) = match self.subject.fetch((&topic, partition), from, isolation) {
            Ok(found) => found,
            Err(error) => return Ok(format!("{place}: {error}")),
        };
        let lines: Vec<String> = seen
            .iter()
            .map(|seen| format!("{}\n", show(seen)))
            .collect();
        Ok(format!("{}next {next}", lines.concat()))
    }

    fn marks(&mut self, place: &str) -> Page {
        let (topic, partition) = self.place(place)?;
        let mut offset = |spec| self.subject.list_offset((&topic, partition), spec);
        let marks = || -> Answer<String> {
            let start = offset(Spec::Earliest)?;
            let stable = offset(Spec::Latest(Isolation::ReadCommitted))?;
            let high = offset(Spec::Latest(Isolation::ReadUncommitted))?;
            Ok(format!("start {start}, stable {stable}, end {high}"))
        };
        Ok(said(place, { marks }()))
    }

    fn store(
        &mut self,
        producer: Option<&str>,
        group: &str,
        member: Option<&str>,
        offsets: &[(String, String)],
    ) -> Page {
        let mut wanted = Vec::new();
        for (place, offset) in offsets {
            let (offset, metadata) = offset.split_once(' ').unwrap_or((offset, ""));
            wanted.push((self.place(place)?, offset.parse()?, metadata.trim_end()));
        }
        let offsets = wanted.iter().map(|((topic, partition), offset, metadata)| {
            let metadata = *metadata;
            PartitionOffset {
                topic,
                partition: *partition,
                offset: *offset,
                metadata,
            }
        });
        let offsets: Vec<_> = offsets.collect();
        let client = match producer {
            Some(name) => Some(self.clients.get(name).ok_or("no such producer")?),
            None => None,
        };
        let seat = match member {
            Some(name) => Some(self.seats.get(name).ok_or("no such member")?),
            None => None,
        };
        let membership = seat.map_or(Membership::NONE, Seat::membership);
        let full = format!("{}{group}", self.prefix);
        let identity = client.map(|client| &client.producer);
        let answer = self
            .subject
            .commit_offsets(identity, &full, &membership, &offsets);
        let done = producer.map_or("committed", |_| "in the transaction");
        Ok(said(producer.unwrap_or(group), answer.map(|()| done)))
    }

    fn committed(&mut self, group: &str, places: &[String], require_stable: bool) -> Page {
        let full = self.full(group);
        let mut lines = Vec::new();
        for place in places {
            let (topic, partition) = self.place(place)?;
            let answer = self
                .subject
                .fetch_offset(&full, (&topic, partition), require_stable);
            let shown = answer.map(|found| match found {
                Some((offset, metadata)) => {
                    let metadata = text(Some(metadata.as_bytes()));
                    format!("{offset} {metadata}").trim_end().to_owned()
                }
                None => "none".into(),
            });
            lines.push(said(place, shown));
        }
        Ok(lines.join("\n"))
    }

    fn group(&mut self, command: &Command) -> Page {
        match command {
            Command::Member {
                name,
                group,
                topics,
                instance,
                session,
                rebalance,
            } => {
                let seat = Seat {
                    group: self.full(group),
                    topics: topics.iter().map(|topic| self.full(topic)).collect(),
                    instance_id: instance.clone(),
                    session_timeout_ms: session.unwrap_or(SESSION_TIMEOUT_MS),
                    rebalance_timeout_ms: rebalance.unwrap_or(REBALANCE_TIMEOUT_MS),
                    member_id: String::new(),
                    generation: -1,
                    beats: false,
                };
                self.seats.insert(name.clone(), seat);
                self.join(name)
            }
            Command::Join { members } => members.iter().map(|name| self.join(name)).collect(),
            Command::Joined { members } => self.joined(members),
            Command::Heartbeat { member } => {
                let seat = self.seats.get(member).ok_or("no such member")?;
                let answer = self.subject.heartbeat(&seat.group, &seat.membership());
                Ok(said(member, answer.map(|()| "belongs to the group")))
            }
            Command::Leave { member } => {
                let seat = self.seats.get(member).ok_or("no such member")?;
                let answer = self.subject.leave_group(&seat.group, &seat.membership());
                Ok(said(member, answer.map(|()| "left")))
            }
            Command::Remove { group, instance } => {
                let operator = Membership {
                    instance_id: Some(instance),
                    ..Membership::NONE
                };
                let group = self.full(group);
                let answer = self.subject.leave_group(&group, &operator);
                Ok(said(instance, answer.map(|()| "removed")))
            }
            Command::Kill { member } => {
                self.seats.get_mut(member).ok_or("no such member")?.beats = false;
                Ok(String::new())
            }
            other => Err(format!("{other:?} is not about groups").into()),
        }
    }

    fn join(&mut self, name: &str) -> Page {
        let seat = self.seats.get_mut(name).ok_or("no such member")?;
        seat.beats = false;
        let topics: Vec<&str> = seat.topics.iter().map(String::as_str).collect();
        let join = Join {
            client_id: name,
            member_id: &seat.member_id,
            instance_id: seat.instance_id.as_deref(),
            session_timeout_ms: seat.session_timeout_ms,
            rebalance_timeout_ms: seat.rebalance_timeout_ms,
            topics: &topics,
        };
        self.subject.join_group(name, &seat.group, &join);
        Ok(String::new())
    }

    fn joined(&mut self, names: &[String]) -> Page {
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut lines = Vec::new();
        for (name, answer) in names.iter().zip(self.subject.joined(&asked)) {
            let seat = self.seats.get_mut(name).ok_or("no such member")?;
            seat.beats = true;
            if let Ok((member_id, assignment)) = &answer {
                seat.member_id.clone_from(member_id);
                seat.generation = assignment.generation;
            }
            lines.push(said(name, answer.map(|joined| self.holds(&joined))));
        }
        Ok(lines.join("\n"))
    }

    fn holds(&self, (_, assignment): &Joined) -> String {
        let places = assignment.partitions.iter().map(|(topic, partition)| {
            let topic = topic.strip_prefix(&self.prefix).unwrap_or(topic);
            format!(" {topic}/{partition}")
        });
        let places: String = places.collect();
        format!("generation {}, holds{places}", assignment.generation)
    }

    fn wait(&mut self, ms: u32) {
        let mut left = ms;
        while left > 0 {
            let slice = left.min(HEARTBEAT_MS);
            self.subject.wait(slice);
            left -= slice;
            for seat in self.seats.values().filter(|seat| seat.beats) {
                // Whatever the answer, a script asks for itself what became of a member.
                let _ = self.subject.heartbeat(&seat.group, &seat.membership());
            }
        }
    }
}

fn record(command: &Command, records: &mut Records) {
    let Command::Record {
        key,
        value,
        time,
        headers,
        bytes: size,
        ..
    } = command
    else {
        return;
    };
    let text = |text: &Option<String>| bytes(text.as_deref().unwrap_or(NULL));
    let value = size.map_or_else(|| text(value), |size| Some(vec![b'x'; size]));
    let pairs = headers.as_deref().unwrap_or_default().split_whitespace();
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let headers: Vec<_> = pairs.map(|(name, value)| (name, bytes(value))).collect();
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_deref()));
    let time = time.unwrap_or(RECORD_TIME);
    records.push(time, text(key).as_deref(), value.as_deref(), headers);
}

/// What was answered, whether it is a refusal or not.
fn said<T: std::fmt::Display>(who: &str, answer: Answer<T>) -> String {
    match answer {
        Ok(done) => format!("{who}: {done}"),
        Err(error) => format!("{who}: {error}"),
    }
}

/// Only a refusal.
fn refused(who: &str, answer: Answer<()>) -> String {
    answer.map_or_else(|error| format!("{who}: {error}"), |()| String::new())
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    (text != NULL).then(|| text.as_bytes().to_vec())
}

fn text(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => NULL.into(),
        Some(bytes) if bytes.len() > TEXT_MAX => format!("({} bytes)", bytes.len()),
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn show(seen: &Seen) -> String {
    let (key, value) = (text(seen.key.as_deref()), text(seen.value.as_deref()));
    let time = match seen.timestamp {
        RECORD_TIME => String::new(),
        time => format!(" @{time}"),
    };
    let headers = seen.headers.iter().map(|(name, value)| {
        let name = String::from_utf8_lossy(name);
        format!(" {name}:{}", text(value.as_deref()))
    });
    let headers: String = headers.collect();
    format!("{} {key}={value}{time}{headers}", seen.offset)
}
