//! Lines in and lines out, for a pipeline on the broker in memory: `--feed` writes a source's topic or a table's, `--out` copies what
//! a sink's topic holds.
//!
//! Invariants: a table's file is read to its end before anything else begins; a broken line is told with its number, and costs
//! nothing but itself; records of a key keep the order of their lines; no feed runs more than [`AHEAD_MAX`] records ahead of the
//! pipeline, or of what is written out.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use millstream_broker::{Broker, Error, Isolation, Membership, PartitionOffset, Records, Spec};
use millstream_engine::pipeline::{Kept, Pipeline, Target};
use millstream_engine::state::changelog;
use millstream_engine::task::failure::Stopped;

use crate::embedded::{Embedded, PARTITIONS, Shared, out_group};
use crate::lines::{self, Line};
use crate::status::SharedStatus;
use crate::wall_clock::now;

/// How many records a feed may be ahead of whoever is slowest behind it.
const AHEAD_MAX: i64 = 200_000;

/// Records are handed over when so many were read, or when the next one has to be waited for.
const BATCH_RECORDS: usize = 1000;

/// How many broken lines of a feed are told one by one; the others are counted.
const BROKEN_TOLD: u64 = 20;

/// How much is read or written at once.
const BUFFER: usize = 1 << 20;

/// What a record takes beside its line's text, or a header beside its own, at most.
const AROUND_A_RECORD: usize = 256;

/// Some programs put it before a file's first character.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const PAUSE: Duration = Duration::from_millis(20);

/// `NAME=FILE`, or `NAME=-` for standard input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// Of a source, a map made from a topic, or a sink.
    pub name: String,
    /// None for `-`.
    pub file: Option<PathBuf>,
}

impl FromStr for Tap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok(Self {
                name: name.into(),
                file: (file != "-").then(|| file.into()),
            }),
            _ => Err("a name of the pipeline file, =, and a file or -".into()),
        }
    }
}

/// Who reads a topic, and commits how far: the pipeline its sources, and outs their sinks.
#[derive(Debug)]
struct Follower {
    group: String,
    topic: String,
}

/// All that follow what is fed, and the workers, which say whose tasks have stopped: nobody waits for those.
#[derive(Debug)]
struct Followers {
    shared: Arc<Shared>,
    all: Vec<Follower>,
    workers: Vec<SharedStatus>,
}

impl Followers {
    /// How many offsets the one that is furthest behind has before it. All are asked at one moment: what one has processed is before
    /// the next one.
    fn are_behind_by(&self) -> i64 {
        let stopped = self.stopped();
        let behind = |broker: &Broker, follower: &Follower| {
            let numbers = (0..PARTITIONS).filter(|&partition| {
                let is =
                    |task: &Stopped| task.topic == follower.topic && task.partition == partition;
                !stopped.iter().any(is)
            });
            let left = numbers.filter_map(|number| left(broker, follower, number).ok());
            left.sum()
        };
        self.shared.ask(|broker| {
            let all = self.all.iter();
            all.map(|follower| behind(broker, follower))
                .max()
                .unwrap_or(0)
        })
    }

    fn stopped(&self) -> Vec<Stopped> {
        let of = |worker: &SharedStatus| {
            let status = worker.lock().expect("nobody panics with it held");
            status.stopped.clone()
        };
        self.workers.iter().flat_map(of).collect()
    }
}

/// How many offsets lie between a follower's committed one and the end.
fn left(broker: &Broker, follower: &Follower, partition: u32) -> Result<i64, Error> {
    let Follower { group, topic } = follower;
    let at = (topic.as_str(), partition);
    let committed = broker.fetch_offset(group, at, false)?;
    let end = broker.list_offset(at, Spec::Latest(Isolation::ReadUncommitted))?;
    Ok(end - committed.map_or(0, |committed| committed.offset))
}

/// What flows in and out beside the pipeline.
#[derive(Debug)]
pub struct Taps {
    followers: Arc<Followers>,
    feeding: Arc<AtomicUsize>,
    /// What feeds could not read or hand over.
    failures: Arc<Mutex<Vec<String>>>,
    outs: Vec<JoinHandle<std::io::Result<()>>>,
    ended: Arc<AtomicBool>,
}

impl Taps {
    /// Opens all files and starts to read and write.
    ///
    /// # Errors
    ///
    /// What can't be opened, or names nothing of the pipeline.
    pub fn open(
        embedded: &Embedded,
        pipeline: &Pipeline,
        workers: &[SharedStatus],
        feeds: &[Tap],
        outs: &[Tap],
    ) -> Result<Self, String> {
        let follower = |group: &str, topic: &str| Follower {
            group: group.into(),
            topic: topic.into(),
        };
        let sources = pipeline.topics.iter();
        let mut followers: Vec<Follower> = sources
            .map(|source| follower(&pipeline.name, &source.topic))
            .collect();
        let mut targets = Vec::new();
        for tap in outs {
            let is_fed = |feed: &&Tap| feed.file.is_some() && is_same(feed, tap);
            if let Some(feed) = feeds.iter().find(is_fed) {
                return Err(format!(
                    "--out: {}={} would overwrite what --feed reads for {}",
                    tap.name,
                    tap.file.as_deref().unwrap_or(Path::new("-")).display(),
                    feed.name
                ));
            }
            let (topic, out) = (sink_topic(pipeline, &tap.name)?, create(tap)?);
            followers.push(follower(&out_group(&pipeline.name), &topic));
            targets.push((topic, out));
        }
        let mut taps = Self {
            followers: Arc::new(Followers {
                shared: Arc::clone(embedded.shared()),
                all: followers,
                workers: workers.to_vec(),
            }),
            feeding: Arc::default(),
            failures: Arc::default(),
            outs: Vec::new(),
            ended: Arc::default(),
        };
        let feeds: Vec<Feed> = feeds
            .iter()
            .map(|tap| taps.feed(pipeline, tap))
            .collect::<Result<_, _>>()?;
        // Steps wait for what a table holds when they start: nobody would wait for the rest of a file.
        let (tables, feeds): (Vec<Feed>, Vec<Feed>) =
            feeds.into_iter().partition(|feed| feed.is_whole_table);
        tables.into_iter().for_each(Feed::run);
        if let Some(why) = taps.failures().first() {
            return Err(format!("--feed: {why}"));
        }
        for (topic, out) in targets {
            let group = out_group(&pipeline.name);
            let (shared, ended) = (Arc::clone(&taps.followers.shared), Arc::clone(&taps.ended));
            let copy = move || copy_out(&shared, &Follower { group, topic }, out, &ended);
            taps.outs.push(spawn("out", copy)?);
        }
        taps.feeding.store(feeds.len(), Ordering::Relaxed);
        for feed in feeds {
            let feeding = Arc::clone(&taps.feeding);
            spawn("feed", move || {
                feed.run();
                feeding.fetch_sub(1, Ordering::Relaxed);
            })?;
        }
        Ok(taps)
    }

    fn feed(&self, pipeline: &Pipeline, tap: &Tap) -> Result<Feed, String> {
        let (topic, kind) = fed_topic(pipeline, &tap.name)?;
        let bytes_max = self.followers.shared.ask(|broker| {
            let mut topics = broker.topics();
            let found = topics.find(|(name, ..)| *name == topic);
            found.map(|(.., settings)| settings.max_message_bytes)
        });
        let input: Box<dyn Read + Send> = match &tap.file {
            None => Box::new(std::io::stdin()),
            Some(path) => {
                let opened = File::open(path);
                Box::new(opened.map_err(|why| format!("--feed: {}: {why}", path.display()))?)
            }
        };
        let name = tap.file.as_ref();
        Ok(Feed {
            followers: Arc::clone(&self.followers),
            failures: Arc::clone(&self.failures),
            bytes_max: bytes_max.expect("the pipeline's topics were made"),
            is_whole_table: kind == Fed::Table && tap.file.is_some(),
            needs_keys: kind == Fed::Table,
            topic,
            name: name.map_or("standard input".into(), |path| path.display().to_string()),
            input: BufReader::with_capacity(BUFFER, input),
            waiting: Default::default(),
            next: 0,
        })
    }

    /// Whether all feeds have come to their end, and nobody is behind them but tasks that have stopped.
    pub fn are_done(&self) -> bool {
        self.feeding.load(Ordering::Relaxed) == 0 && self.followers.are_behind_by() == 0
    }

    /// Whether an output can't be written; [`Taps::close`] says why.
    pub fn is_blocked(&self) -> bool {
        let ended = self.ended.load(Ordering::Relaxed);
        !ended && self.outs.iter().any(JoinHandle::is_finished)
    }

    fn failures(&self) -> Vec<String> {
        let failures = self.failures.lock();
        failures.expect("nobody panics with it held").clone()
    }

    /// What could not be read, and what tasks have left because they stopped, in words.
    pub fn unprocessed(&self) -> Option<String> {
        let stopped = self.followers.stopped();
        let said = stopped.iter().map(|task| {
            let Stopped {
                at,
                topic,
                partition,
                offset,
                reason,
            } = task;
            format!("{topic} partition {partition} stopped at offset {offset}: {at}: {reason}")
        });
        let said: Vec<String> = self.failures().into_iter().chain(said).collect();
        (!said.is_empty()).then(|| said.join("; "))
    }

    /// Writes out what is committed by now, to the end.
    pub fn close(&mut self) -> std::io::Result<()> {
        self.ended.store(true, Ordering::Relaxed);
        for out in self.outs.drain(..) {
            out.join().expect("a panic ends the process")?;
        }
        Ok(())
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, String> {
    let thread = std::thread::Builder::new().name(name.into());
    thread.spawn(work).map_err(|why| format!("a thread: {why}"))
}

struct Feed {
    followers: Arc<Followers>,
    failures: Arc<Mutex<Vec<String>>>,
    topic: String,
    /// Of a batch: the topic's `max.message.bytes`.
    bytes_max: usize,
    /// A table out of a file, which has an end.
    is_whole_table: bool,
    /// What has no key can't be in a table.
    needs_keys: bool,
    /// What is read, for people.
    name: String,
    input: BufReader<Box<dyn Read + Send>>,
    waiting: [Records; PARTITIONS as usize],
    /// Records without a key go to one partition after the other.
    next: u32,
}

impl Feed {
    fn run(mut self) {
        let (mut number, mut records, mut broken) = (0_u64, 0_u64, 0_u64);
        let mut line = Vec::new();
        loop {
            line.clear();
            match self.input.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => number += 1,
                Err(why) => {
                    self.fail(format!("{}: can't be read on: {why}", self.name));
                    break;
                }
            }
            let text = match number {
                1 => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&line),
                _ => &line,
            };
            let text = text.trim_ascii();
            if !text.is_empty() {
                let taken = lines::parse(text).and_then(|line| self.add(&line, text.len()));
                match taken {
                    Ok(()) => records += 1,
                    Err(why) => {
                        broken += 1;
                        if broken <= BROKEN_TOLD {
                            tracing::warn!("{}:{number}: {why}; left out", self.name);
                        }
                    }
                }
            }
            let full = self.waiting.iter().map(Records::len).sum::<usize>() >= BATCH_RECORDS;
            if full || !self.input.buffer().contains(&b'\n') {
                self.hand_over();
            }
        }
        self.hand_over();
        tracing::info!(
            "{}: {records} records for {}; {broken} broken lines left out",
            self.name,
            self.topic
        );
    }

    fn fail(&self, why: String) {
        tracing::error!("{why}");
        let mut failures = self.failures.lock().expect("nobody panics with it held");
        failures.push(why);
    }

    /// `length` is that of the line's text: no record takes more, but for what lies around it.
    fn add(&mut self, line: &Line<'_>, length: usize) -> Result<(), String> {
        if self.needs_keys && line.key.is_none() {
            return Err("a table's record needs a key".into());
        }
        let partition = match (line.partition, &line.key) {
            (Some(partition), _) if partition >= PARTITIONS => {
                return Err(format!(
                    "partition {partition}: there are {PARTITIONS}, from 0"
                ));
            }
            (Some(partition), _) => partition,
            (None, Some(key)) => changelog::partition(key, PARTITIONS),
            (None, None) => {
                self.next = (self.next + 1) % PARTITIONS;
                self.next
            }
        };
        let headers = line
            .headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_deref()));
        let around = AROUND_A_RECORD * (1 + line.headers.len());
        if self.waiting[partition as usize].size() + length + around > self.bytes_max {
            self.hand_over_of(partition);
        }
        let waiting = &mut self.waiting[partition as usize];
        waiting.push(
            line.timestamp.unwrap_or_else(now),
            line.key.as_deref(),
            line.value.as_deref(),
            headers,
        );
        let bytes = waiting.size();
        if bytes > self.bytes_max {
            // It stands alone there.
            *waiting = Records::default();
            let most = self.bytes_max;
            return Err(format!(
                "takes {bytes} bytes as a record, and the topic takes {most} at most"
            ));
        }
        Ok(())
    }

    fn hand_over_of(&mut self, partition: u32) {
        let records = std::mem::take(&mut self.waiting[partition as usize]);
        if records.is_empty() {
            return;
        }
        let (at, count) = ((self.topic.as_str(), partition), records.len());
        let produced = self
            .followers
            .shared
            .tell(|broker, now| broker.produce(now, None, at, 0, records));
        if let Err(error) = produced {
            self.fail(format!(
                "{}: {count} records are not taken: {error}",
                self.name
            ));
        }
    }

    fn hand_over(&mut self) {
        (0..PARTITIONS).for_each(|partition| self.hand_over_of(partition));
        while self.followers.are_behind_by() > AHEAD_MAX {
            std::thread::sleep(PAUSE);
        }
    }
}

/// What a feed writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fed {
    Source,
    Table,
}

/// The topic behind a name: a source's, the first of them, or the one that a map is made from.
fn fed_topic(pipeline: &Pipeline, name: &str) -> Result<(String, Fed), String> {
    let sources = pipeline.topics.iter().filter_map(|topic| {
        let source = &pipeline.sources[topic.source.0];
        (!source.stream).then_some((source.name.as_str(), &topic.topic, Fed::Source))
    });
    let tables = pipeline.maps.iter().filter_map(|map| match &map.kept {
        Kept::Topic(topic) => Some((map.name.as_str(), topic, Fed::Table)),
        Kept::Changelog | Kept::State => None,
    });
    let all = sources.chain(tables);
    let found = all.clone().find(|(known, ..)| *known == name);
    found
        .map(|(_, topic, kind)| (topic.clone(), kind))
        .ok_or_else(|| {
            let mut known: Vec<&str> = all.map(|(name, ..)| name).collect();
            known.dedup();
            format!(
                "--feed: no source, and no map made from a topic, is named \"{name}\"; there are: {}",
                known.join(", ")
            )
        })
}

fn sink_topic(pipeline: &Pipeline, name: &str) -> Result<String, String> {
    let topics = pipeline.sinks.iter().filter_map(|sink| match &sink.target {
        Target::Topic(topic) => Some((sink.name.as_str(), topic)),
        Target::Map(_) | Target::Stream(_) => None,
    });
    let found = topics.clone().find(|(sink, _)| *sink == name);
    found.map(|(_, topic)| topic.clone()).ok_or_else(|| {
        let known: Vec<&str> = topics.map(|(sink, _)| sink).collect();
        let known = if known.is_empty() {
            "none".into()
        } else {
            known.join(", ")
        };
        format!("--out: no sink that writes a topic is named \"{name}\"; there are: {known}")
    })
}

/// Whether both are one file that is there.
fn is_same(one: &Tap, other: &Tap) -> bool {
    let found = |tap: &Tap| tap.file.as_deref()?.canonicalize().ok();
    let is_file = |path: &PathBuf| path.is_file();
    found(one)
        .filter(is_file)
        .is_some_and(|path| found(other) == Some(path))
}

type Output = Box<dyn Write + Send>;

fn create(tap: &Tap) -> Result<Output, String> {
    Ok(match &tap.file {
        None => Box::new(std::io::stdout()),
        Some(path) => {
            let created = File::create(path);
            Box::new(created.map_err(|why| format!("--out: {}: {why}", path.display()))?)
        }
    })
}

/// Copies committed records until the pipeline has ended and all of them are out.
fn copy_out(
    shared: &Shared,
    Follower { group, topic }: &Follower,
    mut out: Output,
    ended: &AtomicBool,
) -> std::io::Result<()> {
    let mut offsets = [0; PARTITIONS as usize];
    let mut buffer = Vec::new();
    loop {
        // Asked before the look: what was committed until then is seen by it.
        let last = ended.load(Ordering::Relaxed);
        let mut moved = false;
        for (partition, offset) in (0..).zip(&mut offsets) {
            let fetched = shared.fetch((topic, partition), *offset, BUFFER);
            let fetched = fetched.map_err(std::io::Error::other)?;
            for record in fetched.records() {
                lines::write(&mut buffer, topic, partition, &record);
            }
            moved |= fetched.next_offset > *offset;
            *offset = fetched.next_offset;
            out.write_all(&buffer)?;
            out.flush()?;
            buffer.clear();
            let read = PartitionOffset {
                topic,
                partition,
                offset: *offset,
                metadata: "",
            };
            let committed =
                shared.tell(|broker, _| broker.commit_offsets(group, &Membership::NONE, &[read]));
            committed.map_err(std::io::Error::other)?;
        }
        if last && !moved {
            return Ok(());
        }
        if !moved {
            std::thread::sleep(PAUSE);
        }
    }
}
