//! What a long run has to have met: one at least of each kind of fault. What is missing when its time is over is carried out then.
//!
//! Invariant: a run of [`LONG`] or more that ends well has met every mark.

use std::fmt;
use std::time::Duration;

use super::Round;
use super::act::{Act, Version};
use super::meddler::Plan;
use super::tally::Tally;
use crate::dice::Dice;

/// Runs that take at least so long are held to it.
pub const LONG: Duration = Duration::from_secs(240);

/// How often a mark is tried for.
const TRIES: u32 = 5;

/// Until what the proxy was told to do is done: some epochs.
const DONE: u64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Kill,
    KillAtPoint,
    Zombie,
    BrokerKill,
    EndFault,
    FailedDisk,
    ReloadTaken,
    ReloadRejected,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "a SIGKILL at a moment that was drawn",
            Self::KillAtPoint => "a SIGKILL at a failpoint",
            Self::Zombie => "a zombie with a successor",
            Self::BrokerKill => "a kill of a broker",
            Self::EndFault => "a fault of EndTxn",
            Self::FailedDisk => "a disk that failed",
            Self::ReloadTaken => "a reload that was taken",
            Self::ReloadRejected => "a reload that was rejected",
        })
    }
}

impl Mark {
    pub const ALL: [Self; 8] = [
        Self::Kill,
        Self::KillAtPoint,
        Self::Zombie,
        Self::BrokerKill,
        Self::EndFault,
        Self::FailedDisk,
        Self::ReloadTaken,
        Self::ReloadRejected,
    ];

    /// What brings it about, mostly.
    fn act(self, dice: &mut Dice) -> Act {
        match self {
            Self::Kill => Act::KillNow,
            Self::KillAtPoint => Act::KillAtPoints(1),
            Self::Zombie => Act::Zombie,
            Self::BrokerKill => Act::Broker,
            Self::EndFault => Act::Meddle([Plan::late_end(dice), Plan::doubt(1)]),
            Self::FailedDisk => Act::Disk("full"),
            Self::ReloadTaken => Act::Reload(Version::Good),
            Self::ReloadRejected => Act::Reload(Version::Rejected),
        }
    }
}

/// What was never met.
pub fn missing(tally: &Tally) -> Vec<Mark> {
    let mut marks = Vec::from(Mark::ALL);
    marks.retain(|mark| tally.count(*mark) == 0);
    marks
}

/// Nothing follows from a run in which nothing went wrong.
pub fn require(tally: &Tally) {
    let never = missing(tally);
    let never: Vec<String> = never.iter().map(Mark::to_string).collect();
    assert!(
        never.is_empty(),
        "the run shows nothing: it never met {}",
        never.join(", ")
    );
    assert!(
        tally.failing == 0 || tally.failed_calls > 0.0,
        "calls were to fail, and none did"
    );
}

impl Round<'_> {
    /// Carries out what is missing, some times if need be.
    pub fn make_up(&mut self) {
        for mark in missing(self.tally) {
            for _ in 0..TRIES {
                // What another one was tried for may have brought it.
                if self.tally.count(mark) > 0 {
                    break;
                }
                if self.fleet.running().is_empty() {
                    self.join(Vec::new());
                }
                self.fleet.wait_progress();
                let act = mark.act(self.dice);
                println!("not met yet, {mark}: {act:?}");
                self.carry_out(act);
                self.fleet.pass(DONE);
                self.note();
            }
        }
    }
}

#[test]
fn what_a_run_never_met_is_missing() {
    let mut tally = Tally::default();
    assert_eq!(missing(&tally), Mark::ALL);
    tally.kills = 1;
    // Nobody took over, and nothing was tried.
    tally.frozen_alone = 1;
    tally.coordinators = 1;
    tally.killed_at("epoch-begun".to_owned());
    tally.reloads = [0, 1, 0];
    let met = [(("EndTxn", "lost"), 1), (("Produce", "lost"), 1)];
    tally.meddled(met.into());
    let left = [Mark::Zombie, Mark::FailedDisk, Mark::ReloadTaken];
    assert_eq!(missing(&tally), left);
    tally.zombies = 1;
    tally.failed_disk("eio-read");
    tally.reloads[0] = 1;
    assert_eq!(missing(&tally), []);
    let mut other = Tally::default();
    let unheard = [
        (("Produce", "lost"), 1),
        (("EndTxn", "held"), 1),
        (("EndTxn", "twice"), 1),
    ];
    other.meddled(unheard.into());
    assert!(missing(&other).contains(&Mark::EndFault));
}
