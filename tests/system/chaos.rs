//! What goes wrong in a fleet, for as long as it is told to, with records coming all the time and the judge at the end: SIGKILLs of one to
//! four processes, processes that come and go, rolling restarts, brokers that crash.
//!
//! `cargo xtask chaos` runs the long form and prints how long it took to commit again. `MILLSTREAM_CHAOS_KILLS` sets the SIGKILLs,
//! `MILLSTREAM_CHAOS_ROUNDS` how often processes come and go or brokers crash, `MILLSTREAM_CHAOS_RATE` the records a second, and
//! `MILLSTREAM_CHAOS_SEED` repeats a run, as far as the machine lets it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rig::kafka::{Kafka, Options};
use rig::millstream::{self, Millstream};

use crate::dice::Dice;
use crate::example::Example;
use crate::fleet::{Fleet, SESSION};
use crate::stage::{
    Build, PARTITIONS, Place, READY, Stage, asked, epochs, keep_uncommitted, number, stands_still,
    told, wait,
};
use crate::storm::points;
use crate::timings::Timings;

const INTERVAL: &str = "200ms";
const RESTARTED: &str = "from a process's start to its first committed epoch";
const FAILED_OVER: &str =
    "from the kill of a process that stays dead to a commit of its last partition by others";
/// A copy of the largest state that anybody runs this with, from its changelog.
const COPIED_WITHIN: Duration = Duration::from_secs(15);
/// Of the death of a process: a session, and some time. Where nobody ends what the dead one left open, its offsets can't be read before the
/// time-out of its transaction, 60 s.
const SUCCEEDED_WITHIN: Duration = Duration::from_secs(45);
/// How late the group may be to give up who is silent.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(4);
const BROKER_BACK: &str =
    "from the broker's being back to the next committed epoch of every process";
const BROKER_GONE: &str = "from a broker's crash to the next committed epoch of every process";

fn rounds() -> u64 {
    number("MILLSTREAM_CHAOS_ROUNDS", 1)
}

fn stage(example: Example, kafka: Kafka) -> Stage {
    Stage::endless(example, kafka, number("MILLSTREAM_CHAOS_RATE", 1000))
}

fn dice() -> Dice {
    let seed = number("MILLSTREAM_CHAOS_SEED", u64::from(std::process::id()));
    println!("MILLSTREAM_CHAOS_SEED={seed}");
    Dice::new(seed)
}

#[test]
fn chaos_of_kills_while_users_are_kept() {
    kills(Example::Users, number("MILLSTREAM_CHAOS_KILLS", 3));
}

#[test]
fn chaos_of_kills_while_orders_are_counted() {
    kills(Example::Orders, number("MILLSTREAM_CHAOS_KILLS", 5));
}

/// Between any two kills somebody has committed an epoch.
fn kills(example: Example, kills: u64) {
    let mut dice = dice();
    let mut fleet = Fleet::new(stage(example, Kafka::start()), INTERVAL);
    fleet.start_one_to_four(&mut dice);
    let mut killed = 0;
    while killed < kills {
        // Half of the time one thing after the other, else before anybody has got over the last.
        let calm = dice.one_in(2);
        if calm {
            fleet.settle();
        }
        fleet.wait_progress();
        fleet.pass(dice.between(0, 1500));
        let wanted = fleet.victims(&mut dice, kills - killed);
        for victim in &wanted {
            // The long ones are for others to take over: see `FAILED_OVER`.
            let pause = if dice.one_in(5) {
                dice.between(13_000, 20_000)
            } else {
                dice.between(0, 3_000)
            };
            fleet.kill(*victim, pause);
        }
        killed += wanted.len() as u64;
        if calm {
            fleet.settle();
        }
    }
    fleet.settle();
    println!("{killed} SIGKILLs of 1 to 4 processes at {example:?}");
    for (timings, what) in [
        (&mut fleet.restarted, RESTARTED),
        (&mut fleet.failed_over, FAILED_OVER),
    ] {
        let [alone, together] = timings;
        alone.print(what);
        together.print("  the same where more than one was down");
    }
    fleet.finish();
}

/// From one process to four and back to one.
#[test]
fn chaos_of_scaling_out_and_in() {
    let mut stage = stage(Example::Orders, Kafka::start());
    let mut lives = vec![start(&mut stage, "a")];
    for round in 0..rounds() {
        for instance in ["b", "c", "d"] {
            lives.push(start(&mut stage, instance));
        }
        println!("round {round}: four processes");
        while lives.len() > 1 {
            let mut leaver = lives.pop().expect("there are several");
            assert!(leaver.terminate(READY).success());
            wait_epochs(&lives);
        }
        // Its partitions are the last one's when the session of each is over.
        std::thread::sleep(SESSION);
    }
    finish(&mut stage, &lives);
}

#[test]
fn chaos_of_takeovers() {
    takeovers(0);
}

#[test]
fn chaos_of_takeovers_by_standbys() {
    takeovers(1);
}

/// One of two processes is killed for good, and another time drained: its partitions are the other's.
fn takeovers(standby: u32) {
    let mut stage = stage(Example::Orders, Kafka::start());
    stage.standby = standby;
    let mut stays = start(&mut stage, "a");
    stays.wait_ready(READY);
    let file = stage.folder.join("pipeline.toml").display().to_string();
    let (mut killed, mut drained) = (Timings::default(), Timings::default());
    for round in 0..rounds() {
        for is_drained in [false, true] {
            let mut goes = start(&mut stage, "b");
            wait_shared(&mut stays, &mut goes, standby);
            let (lost, lines) = (asked(&goes).held, stays.lines().len());
            let began = Instant::now();
            if is_drained {
                let output = millstream::run(&["drain", &file, "--instance", "b"]);
                assert!(output.status.success(), "{output:?}");
            } else {
                goes.kill();
            }
            wait_committed(&stays, lost.into_keys());
            let took = began.elapsed();
            let timings = if is_drained {
                &mut drained
            } else {
                &mut killed
            };
            timings.add(took);
            if standby > 0 {
                stays.wait_line_after(lines, "taken over from standby copies", READY);
            }
            println!(
                "round {round}: taken over {took:.2?} after b was gone, drained: {is_drained}"
            );
        }
    }
    println!("takeovers of half of 4 partitions, standby = {standby}");
    killed.print(FAILED_OVER);
    drained.print("from the beginning of a drain to a commit of its last partition by others");
    finish(&mut stage, &[stays]);
}

/// It dies when its offsets are in the transaction, and the end isn't asked for yet.
#[test]
fn chaos_of_a_death_within_a_commit() {
    let mut stage = stage(Example::Orders, Kafka::start());
    stage.build = Build::Faulty;
    let mut stays = start(&mut stage, "a");
    stays.wait_ready(READY);
    let doom = vec![points::doom(("epoch-offsets-added".to_owned(), 20))];
    let mut goes = stage.spawn_with("b", INTERVAL, &doom);
    let address = goes.http_address();
    let mut lost = BTreeMap::new();
    wait("the death of b", READY, || {
        if let Some(told) = told(address)
            && !told.held.is_empty()
        {
            lost = told.held;
        }
        goes.exited().is_some()
    });
    let began = Instant::now();
    assert!(!lost.is_empty(), "b held nothing when it died");
    wait_committed(&stays, lost.into_keys());
    let took = began.elapsed();
    println!("taken over {took:.2?} after b's death");
    assert!(took < SUCCEEDED_WITHIN, "it took {took:?}");
    finish(&mut stage, &[stays]);
}

/// The same, with nobody left who knew it: who comes has another name, and comes when the group has forgotten the dead one. It finds its
/// offsets pending.
#[test]
fn chaos_of_a_stranger_after_a_death_within_a_commit() {
    let mut stage = stage(Example::Orders, Kafka::start());
    stage.build = Build::Faulty;
    let doom = vec![points::doom(("epoch-offsets-added".to_owned(), 20))];
    let mut goes = stage.spawn_with("a", INTERVAL, &doom);
    wait("the death of a", READY, || goes.exited().is_some());
    let began = Instant::now();
    std::thread::sleep(SESSION + FORGOTTEN_WITHIN);
    let comes = start(&mut stage, "z");
    let took = began.elapsed();
    println!("a stranger committed {took:.2?} after a's death");
    assert!(took < SUCCEEDED_WITHIN, "it took {took:?}");
    finish(&mut stage, &[comes]);
}

/// Waits until two processes have half of the partitions each, and what there are to be of copies.
fn wait_shared(one: &mut Millstream, other: &mut Millstream, standby: u32) {
    let half = usize::try_from(PARTITIONS / 2).expect("few partitions");
    for life in [one, other] {
        wait(
            "half of the input's and the stream's partitions",
            READY,
            || asked(life).held.len() == 2 * half,
        );
        life.wait_ready(READY);
        if standby > 0 {
            let copies = format!("map=\"totals\"}} {half}");
            life.wait_get("/metrics", READY, |answer| {
                let mut lines = answer.text().lines();
                lines.any(|line| {
                    line.starts_with("millstream_map_standby_partitions{")
                        && line.ends_with(&copies)
                })
            });
        }
    }
    if standby > 0 {
        // They are kept; that they have read to the end shows nowhere.
        std::thread::sleep(COPIED_WITHIN);
    }
}

/// Waits until one process has committed something of each of these places, which were another's.
fn wait_committed(life: &Millstream, places: impl Iterator<Item = Place>) {
    let mut left: BTreeMap<Place, Option<u64>> = places.map(|place| (place, None)).collect();
    wait("a commit of all that was taken over", READY, || {
        let held = asked(life).held;
        keep_uncommitted(&mut left, &held);
        left.is_empty()
    });
}

/// Each in turn is asked to end, and started again at once: its seat is still its own.
#[test]
fn chaos_of_a_rolling_restart() {
    let mut stage = stage(Example::Orders, Kafka::start());
    let names = ["a", "b", "c"];
    let mut lives: Vec<Millstream> = names.iter().map(|name| start(&mut stage, name)).collect();
    let mut restarted = Timings::default();
    for _ in 0..rounds() {
        for (life, name) in lives.iter_mut().zip(names) {
            assert!(life.terminate(READY).success());
            let began = Instant::now();
            *life = start(&mut stage, name);
            restarted.add(began.elapsed());
        }
    }
    println!("rolling restarts of 3 processes: {}", rounds());
    restarted.print(RESTARTED);
    finish(&mut stage, &lives);
}

#[test]
fn chaos_of_the_only_broker_crashing() {
    broker_crashes(1);
}

#[test]
fn chaos_of_one_of_three_brokers_crashing() {
    broker_crashes(3);
}

/// Killed, not stopped: see [`Stage::crash_the_only_broker`].
fn broker_crashes(brokers: u16) {
    let mut dice = dice();
    let kafka = Kafka::start_with(Options {
        brokers,
        ..Options::default()
    });
    let mut stage = stage(Example::Orders, kafka);
    let mut lives = vec![start(&mut stage, "a"), start(&mut stage, "b")];
    let (mut gone, mut back) = (Timings::default(), Timings::default());
    for round in 0..rounds() {
        let node = u16::try_from(dice.between(1, u64::from(brokers))).expect("it was a u16");
        if brokers == 1 {
            stage.crash_the_only_broker(&lives.iter().collect::<Vec<_>>());
        } else {
            stage.kafka.process(node).kill();
        }
        let crashed = Instant::now();
        // The others go on; sometimes it is back before they have noticed.
        if brokers > 1 && !dice.one_in(3) {
            wait_epochs(&lives);
            gone.add(crashed.elapsed());
        }
        let pause = if dice.one_in(3) {
            dice.between(8_500, 12_000)
        } else {
            dice.between(0, 4_000)
        };
        std::thread::sleep(Duration::from_millis(pause));
        stage.kafka.restart();
        let up = Instant::now();
        wait_epochs(&lives);
        back.add(up.elapsed());
        println!(
            "round {round}: broker {node} of {brokers} is back after {:.1?}, and each process got on {:.1?} later",
            up - crashed,
            up.elapsed()
        );
        std::thread::sleep(Duration::from_millis(dice.between(0, 2_000)));
        for life in &mut lives {
            assert_eq!(life.exited(), None, "a broker that is away ends nothing");
        }
    }
    println!("crashes of one of {brokers} brokers: {}", rounds());
    gone.print(BROKER_GONE);
    back.print(BROKER_BACK);
    finish(&mut stage, &lives);
}

/// The only broker stands still for longer than sessions last, while members leave, die and come: what clients wait for may never be
/// answered, and what was given up on may be answered after all.
#[test]
fn chaos_of_a_broker_that_stands_still() {
    const STILL: Duration = Duration::from_secs(25);
    let mut dice = dice();
    let kafka = Kafka::start_with(Options {
        properties: stands_still(),
        ..Options::default()
    });
    let mut stage = stage(Example::Orders, kafka);
    stage.workers = 2;
    let names = ["a", "b"];
    let mut lives: Vec<Millstream> = names.iter().map(|name| start(&mut stage, name)).collect();
    let file = stage.folder.join("pipeline.toml").display().to_string();
    let mut back = Timings::default();
    for round in 0..rounds() {
        // One is in the middle of leaving as the broker stops, another is killed and started again meanwhile.
        let [leaver, victim] = if dice.one_in(2) { [0, 1] } else { [1, 0] };
        let drain = || millstream::run(&["drain", &file, "--instance", names[leaver]]);
        let output = std::thread::scope(|scope| {
            let drained = scope.spawn(drain);
            std::thread::sleep(Duration::from_millis(dice.between(0, 400)));
            stage.kafka.freeze();
            std::thread::sleep(Duration::from_millis(dice.between(0, 12_000)));
            lives[victim].kill();
            lives[victim] = stage.spawn(names[victim], INTERVAL);
            std::thread::sleep(STILL - Duration::from_secs(12));
            stage.kafka.thaw();
            drained.join().expect("drain ends")
        });
        let thawed = Instant::now();
        println!("round {round}: {}", String::from_utf8_lossy(&output.stderr));
        lives[leaver].wait_exit(READY);
        lives[leaver] = start(&mut stage, names[leaver]);
        wait_epochs(&lives);
        back.add(thawed.elapsed());
        for life in &mut lives {
            assert_eq!(
                life.exited(),
                None,
                "a broker that stands still ends nothing"
            );
        }
    }
    back.print(BROKER_BACK);
    finish(&mut stage, &lives);
}

/// Waits until each process has committed an epoch that was not on its way when this began.
fn wait_epochs(lives: &[Millstream]) {
    std::thread::sleep(Duration::from_millis(300));
    let before: Vec<u64> = lives.iter().map(epochs).collect();
    wait("an epoch of each process", READY * 2, || {
        let mut all = lives.iter().zip(&before);
        all.all(|(life, before)| epochs(life) > *before)
    });
}

/// Starts a process, and waits for its first epoch.
fn start(stage: &mut Stage, instance: &str) -> Millstream {
    let life = stage.spawn(instance, INTERVAL);
    let _ = life.http_address();
    wait("a first epoch", READY, || epochs(&life) > 0);
    life
}

fn finish(stage: &mut Stage, lives: &[Millstream]) {
    let lives: Vec<&Millstream> = lives.iter().collect();
    stage.wait_done(&lives);
    stage.judge(&lives);
}
