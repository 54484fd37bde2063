//! The control: a build that keeps its producers, under the same late ends of transactions that the real one is held to, tears one; and the
//! judge says so. Who finds nothing here would find nothing elsewhere.
//!
//! A late end commits what is there of the next transaction. What comes for the same partitions then is refused by a broker of today, the
//! rest is aborted, and run again. So that a transaction is seen to be torn, and not only its outputs to come twice, it has to write to
//! another partition in between: records come seldom, and epochs are long.

use std::time::{Duration, Instant};

use rig::judge::{self, Verdict};
use rig::millstream::Millstream;

use super::meddler::{Meddler, Plan};
use super::{number, tally};
use crate::dice::Dice;
use crate::example::Example;
use crate::stage::{Build, Faults, READY, Stage, behind_proxy, epochs, wait};

/// Until a transaction is torn.
const LONG_ENOUGH: Duration = Duration::from_secs(240);
/// Between two late ends.
const PAUSE: Duration = Duration::from_millis(4500);
/// Records a second.
const RATE: u64 = 8;
const INTERVAL: &str = "2s";
/// Late ends between two looks of the judge.
const ENDS: u64 = 8;

#[test]
fn a_build_that_keeps_its_producers_tears_a_transaction() {
    let kept = vec![("MILLSTREAM_FAULT_KEEP_PRODUCER", "1".to_owned())];
    let mut control = Control::new(&kept);
    let began = Instant::now();
    let torn = loop {
        match control.judge_after(ENDS) {
            Verdict::Wrong(output) => break output,
            Verdict::Right(output) => println!("{}", output.trim()),
        }
        assert!(
            began.elapsed() < LONG_ENOUGH,
            "{} late ends have torn no transaction: the control shows nothing",
            control.ends
        );
    };
    println!("{}", torn.trim());
    assert!(judge::count(&torn, "torn") > 0, "{torn}");
    let ends = control.ends;
    let line = format!("control: after {ends} late ends of transactions, the judge convicts");
    println!("{line}");
    tally::write_summary(&line);
}

/// What tears transactions there is that the producer is kept, and not what is done to its requests.
#[test]
fn the_same_late_ends_tear_nothing_where_producers_are_replaced() {
    let mut control = Control::new(&Vec::new());
    match control.judge_after(2 * ENDS) {
        Verdict::Right(output) => println!("{}", output.trim()),
        Verdict::Wrong(output) => panic!("{output}"),
    }
    assert!(control.ends >= ENDS, "only {} ends came late", control.ends);
}

struct Control {
    dice: Dice,
    meddler: Meddler,
    stage: Stage,
    _life: Millstream,
    /// That came late, so far.
    ends: u64,
}

impl Control {
    fn new(faults: &Faults) -> Self {
        let seed = number("MILLSTREAM_CHAOS_SEED", u64::from(std::process::id()));
        println!("MILLSTREAM_CHAOS_SEED={seed}");
        let (kafka, proxy) = behind_proxy();
        let mut stage = Stage::endless(Example::Users, kafka, RATE);
        stage.build = Build::Faulty;
        let life = stage.spawn_with("a", INTERVAL, faults);
        let _ = life.http_address();
        wait("some epochs", READY, || epochs(&life) > 1);
        Self {
            dice: Dice::new(seed),
            meddler: Meddler::new(proxy),
            stage,
            _life: life,
            ends: 0,
        }
    }

    fn judge_after(&mut self, ends: u64) -> Verdict {
        for _ in 0..ends {
            self.meddler.add(Plan::late_end(&mut self.dice));
            std::thread::sleep(PAUSE);
            self.ends += self.meddler.take_met().values().sum::<u64>();
        }
        self.stage.are_whole()
    }
}
