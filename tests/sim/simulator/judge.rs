//! What must be so, looked at from the broker's side after every step: the judge reads logs and decisions as they stand on the broker's
//! disk, and what queries would be answered; it knows the pipeline's definition and the input, and nothing of how the engine goes about
//! it.
//!
//! Invariants that it holds the engine to, each violation by its name:
//!
//! - `lost`, `duplicated`, `torn`, `wrong`: a transaction has exactly the outputs and changes of the records whose offsets it commits, in
//!   their order; `torn` are outputs of records that it doesn't commit.
//! - `went-back`: committed offsets never go back. `two-tokens`: one transaction, one token. `passed`: a record that stops its task is
//!   never passed.
//! - `uncommitted-read`: steps are given committed records only, and maps fold none but those.
//! - `map`: a map partition is the fold of what is committed up to its position; where its task changes it, up to there or to the end of
//!   a later transaction.
//! - `fenced-committed`: nothing is committed that a producer wrote which a newer one of its name has fenced.
//! - `stale-lookup`: what a committed output says of a table stood there, and no earlier than what a committed output of the same partition
//!   said before it.
//!
//! Others say themselves what is wrong: `stale-end` a late request that ended a later transaction of the same producer, `guest-remembers` a
//! plugin instance that is given what it had seen, `panic` a check within the engine, `no-progress` something left to do when all is long
//! healed, `no-end` a run that goes on and on.

mod lookups;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_broker::{Broker, Headers, Outcome, Standing};
use millstream_engine::commit::token::Token;
use millstream_engine::pipeline::{Kept, Pipeline};
use millstream_engine::state::restore::{MapPartition, Phase};

use super::pipeline::{DEAD, MapPlace, NAME, OUT};
use super::reference::{Reference, Text, Work, text};
use super::world::Violation;
use lookups::Lookups;

pub type Place = (String, u32);

/// How a record is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// In a transaction that isn't decided, by its number.
    Open(usize),
    /// By the number of its transaction, if it was in one.
    Committed(Option<usize>),
    Aborted,
}

#[derive(Debug)]
struct Written {
    offset: i64,
    key: Text,
    value: Option<Text>,
    fate: Fate,
}

#[derive(Debug)]
struct Log {
    place: Place,
    end: i64,
    records: Vec<Written>,
}

#[derive(Debug)]
struct Open {
    number: usize,
    /// Of the producers that began it and wrote its records.
    epochs: BTreeSet<i16>,
    /// By their logs.
    records: Vec<(usize, usize)>,
}

/// The fold of a log up to somewhere.
#[derive(Clone, Debug, Default)]
struct Fold {
    /// How many of the log's records are behind it.
    next: usize,
    contents: BTreeMap<Text, Text>,
}

#[derive(Debug)]
pub struct Judge {
    pipeline: Arc<Pipeline>,
    logs: Vec<Log>,
    /// By the producer's id.
    open: BTreeMap<i64, Open>,
    transactions: usize,
    offsets: BTreeMap<Place, i64>,
    reference: Reference,
    /// By the life of the map partition.
    folds: BTreeMap<u64, Fold>,
    /// By the same: how far its topic went when it was taken last.
    taken: BTreeMap<u64, i64>,
    lookups: Lookups,
}

impl Judge {
    pub fn new(pipeline: Arc<Pipeline>, reference: Reference) -> Self {
        Self {
            pipeline,
            logs: Vec::new(),
            open: BTreeMap::new(),
            transactions: 0,
            offsets: BTreeMap::new(),
            reference,
            folds: BTreeMap::new(),
            taken: BTreeMap::new(),
            lookups: Lookups::default(),
        }
    }

    /// To be called once, with the broker's topics.
    pub fn begin(&mut self, broker: &Broker) {
        for (topic, partitions, _) in broker.topics() {
            self.logs.extend((0..partitions).map(|partition| Log {
                place: (topic.to_owned(), partition),
                end: 0,
                records: Vec::new(),
            }));
        }
    }

    fn log(&self, (topic, partition): (&str, u32)) -> &Log {
        let is_it = |log: &&Log| log.place.1 == partition && log.place.0 == topic;
        let found = self.logs.iter().find(is_it);
        found.expect("nobody creates topics later")
    }

    /// Takes in what has happened to the broker since the last look: one request at most.
    pub fn look(&mut self, broker: &Broker) -> Result<(), Violation> {
        self.read_logs(broker);
        let mut decided = None;
        for (_, view) in broker.transactions() {
            if view.standing == Standing::Ongoing {
                let open = open(&mut self.open, &mut self.transactions, view.producer_id);
                open.epochs.insert(view.epoch);
            } else if let Some(open) = self.open.remove(&view.producer_id) {
                let outcome = match view.standing {
                    Standing::Decided(outcome) | Standing::Complete(outcome) => outcome,
                    Standing::Empty | Standing::Ongoing => Outcome::Abort,
                };
                match outcome {
                    Outcome::Commit => decided = Some((open, view.epoch)),
                    Outcome::Abort => self.abort(&open),
                }
            }
        }
        let Some((open, newest)) = decided else {
            return Ok(());
        };
        fenced(&open.epochs, newest)?;
        self.commit(broker, &open)
    }

    fn read_logs(&mut self, broker: &Broker) {
        for (number, log) in self.logs.iter_mut().enumerate() {
            let written = broker.written((&log.place.0, log.place.1), log.end);
            for written in written.into_iter().flatten() {
                let fate = match written.transactional {
                    None => Fate::Committed(None),
                    Some((id, epoch)) => {
                        let open = open(&mut self.open, &mut self.transactions, id);
                        open.epochs.insert(epoch);
                        open.records.push((number, log.records.len()));
                        Fate::Open(open.number)
                    }
                };
                let record = written.record;
                let value = record.value.map(text);
                log.end = record.offset + 1;
                log.records.push(Written {
                    offset: record.offset,
                    key: text(record.key.unwrap_or_default()),
                    value: if log.place.0 == DEAD {
                        Some(letter(record.headers, &value.unwrap_or_default()))
                    } else {
                        value
                    },
                    fate,
                });
            }
        }
    }

    fn abort(&mut self, open: &Open) {
        for (log, at) in &open.records {
            self.logs[*log].records[*at].fate = Fate::Aborted;
        }
    }

    /// A transaction is committed: it had better be all of what its offsets say.
    fn commit(&mut self, broker: &Broker, open: &Open) -> Result<(), Violation> {
        let mut work = Work::default();
        for (log, at) in &open.records {
            let log = &mut self.logs[*log];
            let record = &mut log.records[*at];
            record.fate = Fate::Committed(Some(open.number));
            if !self.reference.is_input(&log.place.0) {
                work.add(&log.place, &record.key, record.value.as_ref());
            }
        }
        let mut tokens = BTreeSet::new();
        let mut moved = Vec::new();
        for ((topic, partition), offset) in broker.decided_offsets(NAME) {
            let place = (topic.to_owned(), partition);
            let before = self.offsets.get(&place).copied().unwrap_or(0);
            if offset.offset < before {
                let what = format!("{place:?} from {before} to {}", offset.offset);
                return Err(wrong("went-back", what));
            }
            if offset.offset > before {
                tokens.insert(
                    Token::from_metadata(&offset.metadata)
                        .map(|token| (token.instance, token.worker, token.run, token.number)),
                );
                self.offsets.insert(place.clone(), offset.offset);
                moved.push((place, before, offset.offset));
            }
        }
        if tokens.len() > 1 {
            return Err(wrong("two-tokens", format!("{tokens:?}")));
        }
        let mut expected = Work::default();
        for (place, from, to) in moved {
            self.run_reference(&place, (from, to), &mut expected)?;
        }
        let stepped = self.pipeline.topics.last();
        let committed = |partition| {
            let place = stepped.map(|topic| (topic.topic.clone(), partition));
            let offset = place.and_then(|place| self.offsets.get(&place));
            offset.copied().unwrap_or(0)
        };
        self.reference.compare(&expected, &work, committed)?;
        self.judge_lookups(broker, open)
    }

    fn judge_lookups(&mut self, broker: &Broker, open: &Open) -> Result<(), Violation> {
        let mut steps = self.pipeline.steps.iter();
        let Some(granted) = steps.find_map(|step| step.lookups.first()) else {
            return Ok(());
        };
        let table = self.pipeline.topic_of(granted.map);
        let tables: Vec<&Log> = self
            .logs
            .iter()
            .filter(|log| log.place.0 == table)
            .collect();
        for (log, at) in &open.records {
            let (log, record) = (&self.logs[*log], &self.logs[*log].records[*at]);
            if log.place.0 == OUT {
                let value = record.value.as_deref().unwrap_or_default();
                self.lookups.judge(broker, &tables, &record.key, value)?;
            }
        }
        Ok(())
    }

    /// What the records of a partition come to from one offset to another.
    fn run_reference(
        &mut self,
        place: &Place,
        (from, to): (i64, i64),
        expected: &mut Work,
    ) -> Result<(), Violation> {
        let is_it = |log: &&Log| log.place == *place;
        let log = self.logs.iter().find(is_it);
        let log = log.expect("nobody creates topics later");
        let first = log.records.partition_point(|record| record.offset < from);
        for record in &log.records[first..] {
            if record.offset >= to {
                break;
            }
            match record.fate {
                Fate::Committed(_) => {}
                Fate::Aborted => continue,
                Fate::Open(_) => {
                    let what = format!("{place:?}@{} is behind a committed offset", record.offset);
                    return Err(wrong("uncommitted-read", what));
                }
            }
            let value = record.value.as_ref();
            let passes = self
                .reference
                .run(place, record.offset, &record.key, value, expected);
            if !passes {
                let what = format!("{place:?}@{} stops its task", record.offset);
                return Err(wrong("passed", what));
            }
        }
        Ok(())
    }

    /// A record is given to a worker.
    pub fn read(&self, (topic, partition): (&str, u32), offset: i64) -> Result<(), Violation> {
        let log = self.log((topic, partition));
        let at = log
            .records
            .binary_search_by_key(&offset, |record| record.offset);
        let fate = at.map(|at| log.records[at].fate);
        match fate {
            Ok(Fate::Committed(_)) => Ok(()),
            fate => {
                let what = format!("{topic}[{partition}]@{offset} is consumed: {fate:?}");
                Err(wrong("uncommitted-read", what))
            }
        }
    }

    /// How far the topic of a map partition goes.
    pub fn end(&self, place: MapPlace) -> i64 {
        let topic = self.pipeline.topic_of(place.0);
        self.log((&topic, place.1)).end
    }

    /// A map partition was taken when its topic went so far: it answers nobody before it has all of that.
    pub fn taken(&mut self, life: u64, end: i64) {
        self.taken.insert(life, end);
    }

    /// What a query would be answered of a map partition.
    pub fn see(
        &mut self,
        broker: &Broker,
        place: MapPlace,
        partition: &MapPartition,
    ) -> Result<(), Violation> {
        if partition.phase() != Phase::Live {
            return Ok(());
        }
        let topic = self.pipeline.topic_of(place.0);
        let end = self.taken.get(&partition.life()).copied().unwrap_or(0);
        if partition.position() < end {
            let (position, number) = (partition.position(), place.1);
            let what = format!("{topic}[{number}] answers at {position}, and was taken at {end}");
            return Err(wrong("live-early", what));
        }
        let is_it = |log: &&Log| log.place.1 == place.1 && log.place.0 == topic;
        let log = self.logs.iter().find(is_it);
        let log = log.expect("nobody creates topics later");
        let fold = self.folds.entry(partition.life()).or_default();
        while let Some(record) = log.records.get(fold.next) {
            if record.offset >= partition.position() {
                break;
            }
            if let Fate::Open(_) = record.fate {
                let what = format!("{topic}[{}]@{} is folded", place.1, record.offset);
                return Err(wrong("uncommitted-read", what));
            }
            fold.add(record);
        }
        if fold.is(partition) {
            return Ok(());
        }
        if self.pipeline.maps[place.0.0].kept == Kept::State {
            let mut ahead = fold.clone();
            while ahead.add_transaction(log) {
                if ahead.is(partition) {
                    return Ok(());
                }
            }
        }
        let at = partition.position();
        if log.is_what_compaction_left(broker, partition) {
            return Ok(());
        }
        let expected = &fold.contents;
        let what = format!(
            "{topic}[{}] at {at} has {:?}, and is the fold {expected:?}",
            place.1,
            contents(partition)
        );
        Err(wrong("map", what))
    }

    /// Whether everything that came in has been dealt with, and what came of it is there.
    pub fn is_done(&self, broker: &Broker) -> Result<(), String> {
        for topic in &self.pipeline.topics {
            let partitions = broker.partitions(&topic.topic).unwrap_or(0);
            for partition in 0..partitions {
                let place = (topic.topic.clone(), partition);
                let offset = self.offsets.get(&place).copied().unwrap_or(0);
                let records = &self.log((&place.0, place.1)).records;
                let left = records
                    .iter()
                    .find(|record| record.offset >= offset && record.fate != Fate::Aborted);
                if let Some(left) = left
                    && !self.reference.stops_at(left.value.as_ref())
                {
                    return Err(format!("{place:?}@{} of {offset}", left.offset));
                }
            }
        }
        let maps = self.pipeline.own_maps();
        for map in maps {
            let topic = self.pipeline.topic_of(map);
            for log in &self.logs {
                let (name, partition) = &log.place;
                if *name != topic {
                    continue;
                }
                let mut fold = Fold::default();
                log.records.iter().for_each(|record| fold.add(record));
                let expected = self.reference.map(*partition);
                if fold.contents != expected {
                    return Err(format!(
                        "{name}[{partition}]: {:?}, not {expected:?}",
                        fold.contents
                    ));
                }
            }
        }
        Ok(())
    }
}

/// A letter as other outputs are: with the place that it came from before its value.
fn letter(headers: Headers<'_>, value: &str) -> Text {
    let mut place = BTreeMap::new();
    for (name, value) in headers {
        place.insert(text(name), text(value.unwrap_or_default()));
    }
    let of = |name: &str| place.get(name).map_or("none", Text::as_str);
    let (partition, offset) = (of("millstream-partition"), of("millstream-offset"));
    format!("{partition}:{offset}:{value}")
}

impl Log {
    /// Whether the contents lack only such changes before their position as nobody can read any more, since a later one of the same key made
    /// compaction take them away.
    fn is_what_compaction_left(&self, broker: &Broker, partition: &MapPartition) -> bool {
        let place = (self.place.0.as_str(), self.place.1);
        let there = broker.written(place, 0).into_iter().flatten();
        let there: BTreeSet<i64> = there.map(|written| written.record.offset).collect();
        let later = self.records.iter().filter(|record| {
            record.offset >= partition.position() && there.contains(&record.offset)
        });
        let later: BTreeSet<&Text> = later.map(|record| &record.key).collect();
        let committed = self.records.iter().filter(|record| {
            let is_committed = matches!(record.fate, Fate::Committed(_));
            is_committed && record.offset < partition.position()
        });
        let mut allowed: BTreeMap<&Text, BTreeSet<Option<&Text>>> = BTreeMap::new();
        for record in committed {
            let values = allowed.entry(&record.key).or_insert_with(|| [None].into());
            let is_superseded = later.contains(&record.key);
            if there.contains(&record.offset) || !is_superseded {
                values.clear();
            }
            values.insert(record.value.as_ref());
        }
        let contents = contents(partition);
        let fits = |(key, values): (&&Text, &BTreeSet<Option<&Text>>)| {
            values.contains(&contents.get(*key))
        };
        contents.keys().all(|key| allowed.contains_key(key)) && allowed.iter().all(fits)
    }
}

impl Fold {
    fn add(&mut self, record: &Written) {
        self.next += 1;
        if let Fate::Committed(_) = record.fate {
            match &record.value {
                Some(value) => drop(self.contents.insert(record.key.clone(), value.clone())),
                None => drop(self.contents.remove(&record.key)),
            }
        }
    }

    /// Adds what is next committed, with all of its transaction. Returns whether there was something.
    fn add_transaction(&mut self, log: &Log) -> bool {
        let mut of = None;
        while let Some(record) = log.records.get(self.next) {
            match (record.fate, of) {
                (Fate::Committed(number), None) => of = Some(number),
                (Fate::Committed(number), Some(of)) if number != of => return true,
                _ => {}
            }
            self.add(record);
        }
        of.is_some()
    }

    fn is(&self, partition: &MapPartition) -> bool {
        let committed = partition.contents();
        let same =
            |(key, value): (&Text, &Text)| committed.get(key.as_bytes()) == Some(value.as_bytes());
        committed.len() == self.contents.len() && self.contents.iter().all(same)
    }
}

/// What a producer of these epochs wrote is committed, of which the newest is `newest` by then.
fn fenced(epochs: &BTreeSet<i16>, newest: i16) -> Result<(), Violation> {
    let older = epochs.range(..newest).next();
    older.map_or(Ok(()), |older| {
        let what = format!("of epoch {older}, when there is epoch {newest}");
        Err(wrong("fenced-committed", what))
    })
}

/// The open transaction of a producer.
fn open<'a>(
    all: &'a mut BTreeMap<i64, Open>,
    transactions: &mut usize,
    producer_id: i64,
) -> &'a mut Open {
    all.entry(producer_id).or_insert_with(|| {
        *transactions += 1;
        Open {
            number: *transactions,
            epochs: BTreeSet::new(),
            records: Vec::new(),
        }
    })
}

fn contents(partition: &MapPartition) -> BTreeMap<Text, Text> {
    let entries = partition.contents().entries();
    let all = (0..entries.end()).filter_map(|slot| entries.get(slot));
    all.map(|(key, value)| (text(key), text(value))).collect()
}

pub fn wrong(name: &'static str, what: String) -> Violation {
    Violation { name, what }
}

#[cfg(test)]
mod tests;
