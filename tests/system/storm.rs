//! All faults that there are, one drawn after the other: the server kills itself at each of its failpoints, is killed, frozen, joined and
//! left; brokers are killed, coordinators among them; requests are lost, held and come late; disks are full, or fail. Records come all the while, and
//! the judge is asked at the end of each round: outputs, maps and counts, and whether each transaction is whole. Of a long run, what was never
//! met when its time is over is carried out then (`storm/floor.rs`).
//!
//! `cargo xtask chaos --minutes N` runs it for long. `MILLSTREAM_CHAOS_SECONDS` sets for how long, `MILLSTREAM_CHAOS_RATE` the records a
//! second, `MILLSTREAM_CHAOS_SEED` draws what an earlier run drew, and `MILLSTREAM_CHAOS_SUMMARY` names a file for the last line.
//!
//! Invariant: what is told of a run was met in it; a round that the judge convicts, or in which nobody gets on, fails the test, with the seed.

use std::time::{Duration, Instant};

use rig::kafka::{Kafka, Options};
use rig::proxy::{self, Listening, Then, When};

use crate::dice::Dice;
use crate::example::Example;
use crate::fleet::Fleet;
use crate::stage::{Build, Stage, number};

mod act;
mod control;
mod floor;
mod meddler;
pub mod points;
mod tally;

use act::Act;
use meddler::Meddler;
use points::Points;
use tally::Tally;

const INTERVAL: &str = "200ms";
/// Of the faults of a round, whatever the whole takes: less would not see much, and more wait long for a judge.
const ROUND: [Duration; 2] = [Duration::from_secs(40), Duration::from_secs(300)];
/// How many rounds there are to be at least.
const ROUNDS: u32 = 4;
/// Fewer than a call mostly has where records come as fast as they can: it fails, and its halves are tried.
const RECORDS_MAX: u32 = 100;
/// What a round takes beside its faults.
const AROUND: Duration = Duration::from_secs(40);

/// Says which seed it was that failed.
struct Named {
    seed: u64,
    round: usize,
}

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let line = format!(
                "chaos: failed in round {} of MILLSTREAM_CHAOS_SEED={}",
                self.round, self.seed
            );
            println!("{line}");
            tally::write_summary(&line);
        }
    }
}

#[test]
fn storm_of_all_faults() {
    let began = Instant::now();
    let whole = Duration::from_secs(number("MILLSTREAM_CHAOS_SECONDS", 40));
    let seed = number("MILLSTREAM_CHAOS_SEED", u64::from(std::process::id()));
    println!("MILLSTREAM_CHAOS_SEED={seed}");
    let mut named = Named { seed, round: 0 };
    let mut dice = Dice::new(seed);
    let mut points = Points::all(&mut dice);
    let mut tally = Tally::default();
    let each = (whole / ROUNDS)
        .saturating_sub(AROUND)
        .clamp(ROUND[0], ROUND[1]);
    let kinds = [
        (1, Example::Both),
        (3, Example::Both),
        (1, Example::Orders),
        (3, Example::Users),
    ];
    for (round, (brokers, example)) in kinds.into_iter().cycle().enumerate() {
        named.round = round;
        let mut round = Round::new(brokers, example, &mut dice, &mut points, &mut tally);
        round.strike(each);
        let is_last = began.elapsed() + AROUND + each > whole;
        if is_last && whole >= floor::LONG {
            round.make_up();
        }
        round.heal();
        if is_last {
            break;
        }
    }
    tally.print(&points);
    if whole >= floor::LONG {
        floor::require(&tally);
    }
    let line = tally.last_line();
    println!("{line}");
    tally::write_summary(&line);
}

/// A cluster, a fleet on it, and what goes wrong with them.
struct Round<'a> {
    brokers: u16,
    example: Example,
    standby: u32,
    fleet: Fleet,
    meddler: Meddler,
    dice: &'a mut Dice,
    points: &'a mut Points,
    tally: &'a mut Tally,
}

impl<'a> Round<'a> {
    fn new(
        brokers: u16,
        example: Example,
        dice: &'a mut Dice,
        points: &'a mut Points,
        tally: &'a mut Tally,
    ) -> Self {
        let listening = Listening::before(brokers);
        let kafka = Kafka::start_with(Options {
            brokers,
            advertised: Some(listening.port()),
            ..Options::default()
        });
        let proxy = listening.forward_to(kafka.port());
        let rate = number("MILLSTREAM_CHAOS_RATE", 1000);
        let mut stage = Stage::endless(example, kafka, rate);
        stage.build = Build::Faulty;
        stage.standby = u32::from(dice.one_in(2));
        stage.workers = if dice.one_in(3) { 2 } else { 1 };
        // Whether its transactions are whole can be asked of a stream that has them all.
        stage.keeps_streams = example.stream().is_some() && dice.one_in(2);
        if stage.keeps_streams {
            proxy.on_request(proxy::DELETE_RECORDS, When::Before, |_| Then::Drop);
        }
        if dice.one_in(4) {
            stage.records_max = Some(RECORDS_MAX);
            tally.failing += 1;
        }
        println!(
            "{brokers} brokers, {example:?}, {} workers each, {} standby copies, streams kept: {}, calls return at most: {:?}",
            stage.workers, stage.standby, stage.keeps_streams, stage.records_max
        );
        Self {
            brokers,
            example,
            standby: stage.standby,
            fleet: Fleet::new(stage, INTERVAL),
            meddler: Meddler::new(proxy),
            dice,
            points,
            tally,
        }
    }

    fn strike(&mut self, time: Duration) {
        // Only who comes first makes topics.
        let first = self.points.take("start-topic-made");
        self.fleet
            .join(0, first.map(points::doom).into_iter().collect());
        self.fleet.wait_progress();
        for number in self.fleet.away() {
            if self.dice.one_in(2) {
                self.fleet.join(number, Vec::new());
            }
        }
        let until = Instant::now() + time;
        while Instant::now() < until {
            let act = Act::draw(self.dice, self.brokers, self.tally.met());
            println!("{act:?}");
            self.carry_out(act);
            self.note();
            // Half of the time one thing after the other, else before anybody has got over the last.
            if self.dice.one_in(2) && !self.fleet.running().is_empty() {
                self.fleet.wait_progress();
            }
            self.fleet.pass(self.dice.between(0, 1500));
        }
    }

    /// Nothing goes wrong any more, and the judge is asked.
    fn heal(mut self) {
        self.meddler.stop();
        self.fleet.calm_down();
        self.note();
        let finished = self.fleet.finish();
        self.tally.records += finished.records;
        self.tally.failed_calls += finished.failed_calls;
        self.tally.rounds += 1;
    }

    /// What was met since the last look.
    fn note(&mut self) {
        self.tally.kills += std::mem::take(&mut self.fleet.kills);
        self.tally.killed_early += std::mem::take(&mut self.fleet.killed_early);
        self.tally.meddled(self.meddler.take_met());
        for point in self.fleet.died_at.drain(..) {
            self.points.died_at(&point);
            self.tally.killed_at(point);
        }
    }
}

/// The requests that are meddled with: those of transactions, of the group, and those that bring records.
const MEDDLED: [(i16, &str); 9] = [
    (proxy::END_TXN, "EndTxn"),
    (proxy::TXN_OFFSET_COMMIT, "TxnOffsetCommit"),
    (proxy::PRODUCE, "Produce"),
    (proxy::ADD_PARTITIONS_TO_TXN, "AddPartitionsToTxn"),
    (proxy::ADD_OFFSETS_TO_TXN, "AddOffsetsToTxn"),
    (proxy::INIT_PRODUCER_ID, "InitProducerId"),
    (proxy::HEARTBEAT, "Heartbeat"),
    (proxy::JOIN_GROUP, "JoinGroup"),
    (proxy::FETCH, "Fetch"),
];
