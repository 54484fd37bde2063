//! The judge convicts whom it should: transactions are written by hand, a wrong one behind a right one.
//!
//! What `fenced-committed` convicts the broker refuses, so that it is asked of its decision alone; planted bug 78 has a broker that doesn't.

use millstream_broker::{
    Broker, Isolation, Membership, Outcome, PartitionOffset, Producer, Records, Settings, Spec,
};
use millstream_engine::commit::ledger::Ledger;
use millstream_engine::commit::token::Token;
use millstream_engine::pipeline::{MapId, OnError};
use millstream_engine::state::budget::Budget;
use millstream_engine::state::changelog;
use millstream_engine::state::committed::Committed;
use millstream_engine::state::restore::LiveFrom;

use super::super::pipeline::{DEAD, NAME, OUT, build};
use super::super::plan::{EVENTS, Plan, Shape, TABLE};
use super::super::reference::Reference;
use super::*;

const PARTITIONS: u32 = 2;
const KEY: &[u8] = b"k";
const USERS: &str = "sim.users.changelog";

/// Offset, key and value.
type Change = (i64, &'static str, Option<&'static str>);

/// A pipeline of one step, and one transactional producer.
struct Court {
    broker: Broker,
    judge: Judge,
    producer: Producer,
    sequences: BTreeMap<Place, i32>,
    maps: u64,
}

impl Court {
    fn new(shape: Shape, on_error: OnError) -> Self {
        let plan = Plan {
            shape,
            on_error,
            partitions: PARTITIONS,
            hosts: 1,
            workers: 1,
            interval: 50,
            poll_max: 9,
            slow_tables: false,
            incoming: Vec::new(),
            faults: Vec::new(),
        };
        let mut broker = Broker::default();
        for topic in [EVENTS, OUT, DEAD, TABLE, USERS] {
            let settings = Settings {
                compact: [TABLE, USERS].contains(&topic),
                ..Settings::default()
            };
            let created = broker.create_topic(topic, PARTITIONS, settings);
            created.expect("there are no topics yet");
        }
        let reference = Reference::new(plan.shape, on_error, PARTITIONS);
        let mut judge = Judge::new(Arc::new(build(&plan)), reference);
        judge.begin(&broker);
        let producer = broker.init_producer_id(Some("seat"), 1000);
        Self {
            broker,
            judge,
            producer: producer.expect("a first producer"),
            sequences: BTreeMap::new(),
            maps: 0,
        }
    }

    /// Somebody else writes to partition 0 of the input.
    fn input(&mut self, values: &[&str]) {
        for value in values {
            self.change(EVENTS, "k", Some(value));
        }
    }

    /// Somebody else writes to partition 0 of a topic.
    fn change(&mut self, topic: &str, key: &str, value: Option<&str>) {
        let mut records = Records::default();
        let (key, value) = (Some(key.as_bytes()), value.map(str::as_bytes));
        records.push(0, key, value, std::iter::empty());
        let written = self.broker.produce(0, None, (topic, 0), 0, records);
        written.expect("the topic is there");
        self.judge.look(&self.broker).expect("input is input");
    }

    /// What is said of partition 0 of the map, folded from these changes of the topic's up to its end.
    fn see(&mut self, changes: &[Change]) -> Option<&'static str> {
        let end = Spec::Latest(Isolation::ReadUncommitted);
        let end = self.broker.list_offset((USERS, 0), end);
        let end = end.expect("the topic is there");
        let contents = Committed::new(1, Arc::default());
        let share = Budget::new(1 << 20, 1).share(0);
        self.maps += 1;
        let from = LiveFrom::Changelog;
        let mut partition = MapPartition::new(contents, share, self.maps, (0, end), from);
        for (offset, key, value) in changes {
            let folded = partition.fold(*offset, key.as_bytes(), value.map(str::as_bytes));
            folded.expect("there is room enough");
        }
        partition.advance(end);
        let seen = self.judge.see(&self.broker, (MapId(0), 0), &partition);
        seen.err().map(|violation| violation.name)
    }

    /// An output, in the transaction.
    fn output(&mut self, value: &str) {
        self.write(OUT, value, &[]);
    }

    fn write(&mut self, topic: &str, value: &str, headers: &[(&str, &str)]) {
        let at = (topic.to_owned(), changelog::partition(KEY, PARTITIONS));
        let sequence = self.sequences.entry(at.clone()).or_default();
        let headers = headers.iter();
        let headers = headers.map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())));
        let mut records = Records::default();
        records.push(0, Some(KEY), Some(value.as_bytes()), headers);
        let written =
            self.broker
                .produce(0, Some(&self.producer), (topic, at.1), *sequence, records);
        written.expect("the producer is the newest");
        *sequence += 1;
        self.judge.look(&self.broker).expect("nothing is decided");
    }

    /// The name of the violation, if it is one, once the transaction has committed these offsets: partition, offset and number of
    /// the transaction.
    fn commit(&mut self, offsets: &[(u32, i64, u64)]) -> Option<&'static str> {
        let token = |number| Token {
            instance: "a".into(),
            worker: 0,
            run: 1,
            number,
        };
        let marks: Vec<String> = offsets
            .iter()
            .map(|(.., number)| token(*number).to_metadata(&Ledger::default()))
            .collect();
        let offsets: Vec<PartitionOffset<'_>> = offsets
            .iter()
            .zip(&marks)
            .map(|((partition, offset, _), metadata)| PartitionOffset {
                topic: EVENTS,
                partition: *partition,
                offset: *offset,
                metadata,
            })
            .collect();
        let (producer, nobody) = (&self.producer, Membership::NONE);
        let added = self
            .broker
            .commit_offsets_in_transaction(0, producer, NAME, &nobody, &offsets);
        added.expect("the producer is the newest");
        self.judge.look(&self.broker).expect("nothing is decided");
        let ended = self.broker.end_transaction(producer, Outcome::Commit);
        ended.expect("there is a transaction");
        let looked = self.judge.look(&self.broker);
        looked.err().map(|violation| violation.name)
    }
}

/// The first record is in, and its output. The step lets those through that don't end in a digit which 3 divides.
fn begun(on_error: OnError, values: &[&str]) -> Court {
    let mut court = Court::new(Shape::Filter, on_error);
    court.input(values);
    court.output("0:0:11");
    assert_eq!(court.commit(&[(0, 1, 1)]), None);
    court
}

fn skips() -> Court {
    begun(OnError::Skip, &["11", "21", "31", "refuse"])
}

#[test]
fn what_is_right_passes() {
    let mut court = skips();
    court.output("0:1:21");
    court.output("0:2:31");
    assert_eq!(court.commit(&[(0, 4, 2)]), None);
}

#[test]
fn outputs_are_those_of_the_offsets() {
    let cases: [(&str, &[&str]); 5] = [
        ("lost", &["0:1:21"]),
        ("duplicated", &["0:0:11", "0:1:21", "0:2:31"]),
        ("torn", &["0:1:21", "0:2:31", "0:3:41"]),
        ("wrong", &["0:2:31", "0:1:21"]),
        ("wrong", &["0:1:21", "0:2:32"]),
    ];
    for (name, outputs) in cases {
        let mut court = skips();
        outputs.iter().for_each(|output| court.output(output));
        assert_eq!(court.commit(&[(0, 3, 2)]), Some(name), "{outputs:?}");
    }
}

#[test]
fn offsets_go_forward_under_one_token() {
    assert_eq!(skips().commit(&[(0, 0, 2)]), Some("went-back"));
    let mut court = skips();
    court.output("0:1:21");
    let both = [(0, 2, 2), (1, 1, 3)];
    assert_eq!(court.commit(&both), Some("two-tokens"));
}

#[test]
fn who_stops_is_not_passed() {
    let mut court = begun(OnError::Fail, &["11", "refuse"]);
    assert_eq!(court.commit(&[(0, 2, 2)]), Some("passed"));
}

#[test]
fn letters_are_outputs() {
    let place = [("millstream-partition", "0"), ("millstream-offset", "1")];
    let mut court = begun(OnError::DeadLetter, &["11", "refuse"]);
    court.write(DEAD, "refuse", &place);
    assert_eq!(court.commit(&[(0, 2, 2)]), None);
    let mut court = begun(OnError::DeadLetter, &["11", "refuse"]);
    assert_eq!(court.commit(&[(0, 2, 2)]), Some("lost"));
}

#[test]
fn only_what_is_committed_is_read() {
    let mut court = skips();
    let read = |court: &Court, place, offset| {
        let read = court.judge.read(place, offset);
        read.err().map(|violation| violation.name)
    };
    assert_eq!(read(&court, (EVENTS, 0), 0), None);
    court.output("0:1:21");
    let out = (OUT, changelog::partition(KEY, PARTITIONS));
    let end = Spec::Latest(Isolation::ReadUncommitted);
    let offset = court.broker.list_offset(out, end);
    let offset = offset.expect("the topic is there") - 1;
    assert_eq!(read(&court, out, offset), Some("uncommitted-read"));
    let aborted = court
        .broker
        .end_transaction(&court.producer, Outcome::Abort);
    aborted.expect("there is a transaction");
    court.judge.look(&court.broker).expect("an abort is right");
    assert_eq!(read(&court, out, offset), Some("uncommitted-read"));
}

#[test]
fn who_is_fenced_commits_nothing() {
    let check = |epochs: &[i16], newest, expected: Option<&str>| {
        let epochs = epochs.iter().copied().collect();
        let found = fenced(&epochs, newest).err();
        assert_eq!(found.map(|violation| violation.name), expected);
    };
    check(&[], 3, None);
    check(&[3], 3, None);
    check(&[2], 3, Some("fenced-committed"));
    check(&[2, 3], 3, Some("fenced-committed"));
}

#[test]
fn a_map_is_the_fold_of_its_topic() {
    let (a, b, c) = (
        (0, "a", Some("1")),
        (1, "b", Some("2")),
        (3, "c", Some("4")),
    );
    let (newer, gone) = ((2, "a", Some("3")), (4, "b", None));
    let cases: [(Option<&str>, &[Change]); 6] = [
        (None, &[a, b, newer, c, gone]),
        // Missing, extra, old, not removed.
        (Some("map"), &[a, b, newer, gone]),
        (Some("map"), &[a, b, newer, c, gone, (5, "d", Some("5"))]),
        (Some("map"), &[a, b, c, gone]),
        (Some("map"), &[a, b, newer, c]),
        (None, &[newer, c]),
    ];
    for (expected, changes) in cases {
        let mut court = Court::new(Shape::Map, OnError::Skip);
        for (_, key, value) in [a, b, newer, c, gone] {
            court.change(USERS, key, value);
        }
        court.change(USERS, "c", Some("4"));
        assert_eq!(court.see(changes), expected, "{changes:?}");
    }
}

#[test]
fn a_map_answers_once_it_has_what_there_was_when_it_was_taken() {
    let mut court = Court::new(Shape::Map, OnError::Skip);
    for value in ["1", "2"] {
        court.change(USERS, "a", Some(value));
    }
    let place = (MapId(0), 0);
    let contents = Committed::new(1, Arc::default());
    let share = Budget::new(1 << 20, 1).share(0);
    let early = (0, 1);
    let mut partition = MapPartition::new(contents, share, 1, early, LiveFrom::Changelog);
    let end = court.judge.end(place);
    court.judge.taken(partition.life(), end);
    let mut check = |offset, value: &str, expected: Option<&str>| {
        let folded = partition.fold(offset, b"a", Some(value.as_bytes()));
        folded.expect("there is room enough");
        let seen = court.judge.see(&court.broker, place, &partition);
        assert_eq!(seen.err().map(|violation| violation.name), expected);
    };
    check(0, "1", Some("live-early"));
    check(1, "2", None);
}

#[test]
fn what_is_looked_up_stood_in_the_table_and_is_never_older_than_before() {
    let check = |outputs: &[&str], expected: Option<&str>| {
        let mut court = Court::new(Shape::Lookup, OnError::Skip);
        let changes = [
            ("k", Some("v1")),
            ("other", Some("w1")),
            ("k", None),
            ("k", Some("v2")),
        ];
        for (key, value) in changes {
            court.change(TABLE, key, value);
        }
        let values = ["10", "20", "30"];
        court.input(&values);
        let mut found = None;
        for (((offset, number), value), output) in (0..).zip(1..).zip(values).zip(outputs) {
            assert_eq!(found, None, "{outputs:?}");
            court.output(&format!("0:{offset}:{value}={output}"));
            found = court.commit(&[(0, offset + 1, number)]);
        }
        assert_eq!(found, expected, "{outputs:?}");
    };
    check(&["none", "v1", "v2"], None);
    check(&["v1", "none", "v2"], None);
    check(&["v2", "v2"], None);
    let stale = Some("stale-lookup");
    // Of another key, of none, older, absent again.
    check(&["w1"], stale);
    check(&["v3"], stale);
    check(&["v2", "v1"], stale);
    check(&["v2", "none"], stale);
    check(&["v1", "none", "v1"], stale);
}
