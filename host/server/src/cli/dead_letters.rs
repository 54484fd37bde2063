//! `millstream dead-letters`: shows what the steps of a pipeline have set aside, and has them take it again.

mod replay;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use millstream_broker::{Record, Records};
use millstream_engine::pipeline::{FAILED_PORT, From, Pipeline, Sink, Target};
use millstream_engine::task::failure::in_a_line;
use millstream_engine::task::letter;

use super::{duration, read, runtime};
use crate::cluster::{Admin as _, Cluster as _, TopicFacts};
use crate::config::Overrides;
use crate::kafka::{Clients, Kept, Stretch};
use crate::supervisor::Failure;
use crate::{lines, load};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Dead letters of a pipeline, a line each: where it stands, which step, the kind of the failure, where its record comes from, and why.
    List {
        #[command(flatten)]
        of: Of,
        /// Only those of this step.
        #[arg(long)]
        step: Option<String>,
        /// How many of each partition of a topic, the last ones.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Whole records, as lines that `run --embedded --feed` reads.
        #[arg(long)]
        json: bool,
    },
    /// One dead letter with all that it says.
    Show {
        #[command(flatten)]
        of: Of,
        /// Where it stands, as `list` says it: `dead-letters[0]@17`.
        #[arg(value_name = "TOPIC[PARTITION]@OFFSET", value_parser = place)]
        letter: Place,
        /// As a line that `run --embedded --feed` reads.
        #[arg(long)]
        json: bool,
    },
    /// Has steps with `replay = true` process their dead letters again: all that came since that was done last, each once. Of letters that
    /// are named, those, as often as they are named.
    Replay {
        #[command(flatten)]
        of: Of,
        /// Only those of this step.
        #[arg(long)]
        step: Option<String>,
        /// Where a letter stands, as `list` says it.
        #[arg(value_name = "TOPIC[PARTITION]@OFFSET", value_parser = place)]
        letters: Vec<Place>,
    },
}

#[derive(Debug, Args)]
pub struct Of {
    /// The pipeline file.
    pipeline: PathBuf,
    /// Brokers to start from, in place of the file's `bootstrap.servers`.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
    /// Give up when no broker could be reached for so long.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    connect_timeout: Duration,
}

/// Where a record stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    topic: String,
    partition: u32,
    offset: i64,
}

fn place(text: &str) -> Result<Place, String> {
    let parsed = || {
        let (topic, rest) = text.rsplit_once('[')?;
        let (partition, offset) = rest.split_once("]@")?;
        Some(Place {
            topic: (!topic.is_empty()).then(|| topic.to_owned())?,
            partition: partition.parse().ok()?,
            offset: offset.parse().ok().filter(|offset| *offset >= 0)?,
        })
    };
    parsed().ok_or_else(|| "topic, partition and offset: dead-letters[0]@17".into())
}

pub fn main(command: Command) -> Result<(), Failure> {
    match command {
        Command::List {
            of,
            step,
            limit,
            json,
        } => {
            let letters = Letters::open(&of)?;
            if let Some(step) = &step {
                letters.check_step(step)?;
            }
            letters.list(step.as_deref(), limit, json)
        }
        Command::Show { of, letter, json } => Letters::open(&of)?.show(&letter, json),
        Command::Replay { of, step, letters } => {
            let known = Letters::open(&of)?;
            if let Some(step) = &step {
                known.check_step(step)?;
            }
            known.replay(step.as_deref(), &letters)
        }
    }
}

/// The topics that a pipeline's letters go to.
struct Letters {
    pipeline: Pipeline,
    clients: Clients,
    /// With how many partitions each has.
    topics: Vec<(String, u32)>,
    /// The topics by which they come back, of those that are there.
    replays: BTreeMap<String, TopicFacts>,
}

impl Letters {
    fn open(of: &Of) -> Result<Self, Failure> {
        let overrides = Overrides {
            bootstrap: of.bootstrap.clone(),
            embedded: false,
        };
        let config = read(&of.pipeline, &overrides, &runtime()?)?;
        let pipeline = config.pipeline.clone();
        let names: Vec<&str> = pipeline.sinks.iter().filter_map(topic_of_letters).collect();
        if names.is_empty() {
            let why = format!(
                "no sink of pipeline \"{}\" keeps dead letters in a topic: `on-error = \"dead-letter\"` of a step sets them aside, and a \
                 sink with `inputs = [\"STEP.{FAILED_PORT}\"]` keeps them",
                pipeline.name
            );
            return Err(Failure::CommandLine(why));
        }
        let clients = load::clients(&config, "dead-letters")?;
        let admin = clients.admin()?;
        admin.connect(Some(of.connect_timeout), || false)?;
        let facts = admin.topics(names)?;
        let replays = pipeline.steps.iter();
        let replays: Vec<String> = replays
            .map(|step| Pipeline::replay_topic(&pipeline.name, &step.name))
            .filter(|name| pipeline.topics.iter().any(|topic| topic.topic == *name))
            .collect();
        let replays = admin.topics(replays.iter().map(String::as_str))?;
        let topics = facts
            .into_iter()
            .map(|(name, facts)| (name, facts.partitions));
        Ok(Self {
            topics: topics.collect(),
            replays,
            clients,
            pipeline,
        })
    }

    fn check_step(&self, name: &str) -> Result<(), Failure> {
        let steps = self.pipeline.steps.iter().map(|step| step.name.as_str());
        let steps: Vec<&str> = steps.collect();
        if steps.contains(&name) {
            return Ok(());
        }
        let why = format!(
            "--step: there is no step \"{name}\"; there are {}",
            steps.join(", ")
        );
        Err(Failure::CommandLine(why))
    }

    fn list(&self, step: Option<&str>, limit: u32, json: bool) -> Result<(), Failure> {
        let mut stretch = Stretch::new(&self.clients)?;
        let mut places = Vec::new();
        for (topic, partitions) in &self.topics {
            for partition in 0..*partitions {
                let (start, end) = stretch.bounds(topic, partition)?;
                let from = start.max(end - i64::from(limit));
                places.push((topic.as_str(), partition, from, end));
            }
        }
        let is_of = |letter: &Kept| step.is_none_or(|step| told(letter, letter::STEP) == step);
        stretch.read(&places, |letter| {
            if !is_of(&letter) {
                return;
            }
            if json {
                print!("{}", line(&letter));
            } else {
                println!("{}", in_short(&letter));
            }
        })?;
        Ok(())
    }

    fn show(&self, place: &Place, json: bool) -> Result<(), Failure> {
        let letter = self.letter(&mut Stretch::new(&self.clients)?, place)?;
        if json {
            print!("{}", line(&letter));
        } else {
            print!("{}", whole(&letter));
        }
        Ok(())
    }

    fn letter(&self, stretch: &mut Stretch, place: &Place) -> Result<Kept, Failure> {
        let Place {
            topic,
            partition,
            offset,
        } = place;
        let known = self.topics.iter().find(|(name, _)| name == topic);
        if known.is_none_or(|(_, partitions)| partition >= partitions) {
            let topics: Vec<&str> = self.topics.iter().map(|(name, _)| name.as_str()).collect();
            let why = format!(
                "{topic}[{partition}] is no partition that dead letters of pipeline \"{}\" are in; they are in {}",
                self.pipeline.name,
                topics.join(", ")
            );
            return Err(Failure::CommandLine(why));
        }
        let (start, end) = stretch.bounds(topic, *partition)?;
        let mut found = None;
        if (start..end).contains(offset) {
            let here = [(topic.as_str(), *partition, *offset, offset + 1)];
            stretch.read(&here, |letter| {
                found = Some(letter).filter(|at| at.offset == *offset);
            })?;
        }
        found.ok_or_else(|| {
            let why = format!("there is no committed record at {topic}[{partition}]@{offset}");
            Failure::CommandLine(why)
        })
    }
}

/// The topic of a sink that keeps letters.
fn topic_of_letters(sink: &Sink) -> Option<&str> {
    let is_letters = |from: &From| matches!(from, From::Step { port, .. } if port == FAILED_PORT);
    match &sink.target {
        Target::Topic(topic) if sink.inputs.iter().any(|input| is_letters(&input.from)) => {
            Some(topic)
        }
        _ => None,
    }
}

/// What a header says, as text; `?` where there is none.
fn told(letter: &Kept, name: &str) -> String {
    let mut headers = letter.headers.iter().rev();
    let found = headers.find(|(known, _)| known == name.as_bytes());
    let value = found.and_then(|(_, value)| value.as_deref());
    value.map_or_else(
        || "?".into(),
        |value| in_a_line(&String::from_utf8_lossy(value)),
    )
}

fn origin(letter: &Kept) -> String {
    let told = |name| told(letter, name);
    let (topic, partition, offset) = (
        told(letter::TOPIC),
        told(letter::PARTITION),
        told(letter::OFFSET),
    );
    format!("{topic}[{partition}]@{offset}")
}

fn in_short(letter: &Kept) -> String {
    format!(
        "{}[{}]@{}  step {}  {}  from {}  {}",
        letter.topic,
        letter.partition,
        letter.offset,
        told(letter, letter::STEP),
        told(letter, letter::KIND),
        origin(letter),
        told(letter, letter::REASON)
    )
}

fn whole(letter: &Kept) -> String {
    let text = |bytes: &Option<Vec<u8>>| match bytes {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => "null".into(),
    };
    let mut shown = format!("{}[{}]@{}\n", letter.topic, letter.partition, letter.offset);
    for (what, told) in [
        ("step", told(letter, letter::STEP)),
        ("plugin", told(letter, letter::PLUGIN)),
        ("kind", told(letter, letter::KIND)),
        ("reason", told(letter, letter::REASON)),
        ("from", origin(letter)),
        ("timestamp", letter.timestamp.to_string()),
        ("key", text(&letter.key)),
        ("value", text(&letter.value)),
    ] {
        shown += &format!("  {what:<10} {told}\n");
    }
    let own = letter.headers.iter();
    let own = own.filter(|(name, _)| !letter::is_ours(name));
    for (name, value) in own {
        let name = String::from_utf8_lossy(name);
        shown += &format!("  {:<10} {name}: {}\n", "header", text(value));
    }
    shown
}

fn line(letter: &Kept) -> String {
    let headers = letter.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_slice(), value.as_deref()));
    let (key, value) = (letter.key.as_deref(), letter.value.as_deref());
    let mut records = Records::default();
    records.push(letter.timestamp, key, value, headers);
    let record = records.iter().next().expect("one was pushed");
    let record = Record {
        offset: letter.offset,
        ..record
    };
    let mut line = Vec::new();
    lines::write(&mut line, &letter.topic, letter.partition, &record);
    String::from_utf8_lossy(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let read = |text: &str| {
            place(text)
                .ok()
                .map(|at| (at.topic, at.partition, at.offset))
        };
        assert_eq!(read("dead.1[0]@17"), Some(("dead.1".into(), 0, 17)));
        for text in [
            "dead",
            "dead[0]",
            "[0]@1",
            "dead[x]@1",
            "dead[0]@-1",
            "dead[0]@",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
