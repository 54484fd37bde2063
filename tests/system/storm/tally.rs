//! What was met in a run, as a table and as its last line.

use std::collections::BTreeMap;

use super::floor::Mark;
use super::meddler::{Met, Plan};
use super::points::Points;

/// What a process says of new plugins.
pub const OUTCOMES: [&str; 3] = [
    "the reload is taken",
    "the reload is rejected",
    "the reload is refused",
];

#[derive(Default)]
pub struct Tally {
    pub rounds: u64,
    pub records: u64,
    /// At moments that were drawn.
    pub kills: u64,
    /// Of these, of processes that had committed nothing yet: mostly while they started.
    pub killed_early: u64,
    /// With a successor.
    pub zombies: u64,
    pub frozen_alone: u64,
    /// The only one, one of three, and one of three for what it coordinated.
    pub only_broker: u64,
    pub one_of_three: u64,
    pub coordinators: u64,
    /// Of plugins, while processes ran.
    pub versions: u64,
    /// Of these, those of which some process said so.
    pub reloads: [u64; OUTCOMES.len()],
    pub joined: u64,
    pub left: u64,
    /// Rounds in which calls on many records fail, and their halves are tried.
    pub failing: u64,
    /// In what ran when rounds ended.
    pub failed_calls: f64,
    points: BTreeMap<String, u64>,
    /// By what failed.
    disks: BTreeMap<&'static str, u64>,
    met: Met,
}

impl Tally {
    pub fn killed_at(&mut self, point: String) {
        *self.points.entry(point).or_default() += 1;
    }

    /// Of one life.
    pub fn failed_disk(&mut self, kind: &'static str) {
        *self.disks.entry(kind).or_default() += 1;
    }

    pub fn meddled(&mut self, met: Met) {
        for (what, count) in met {
            *self.met.entry(what).or_default() += count;
        }
    }

    /// What was done to requests so far.
    pub fn met(&self) -> &Met {
        &self.met
    }

    /// How often that was met.
    pub fn count(&self, mark: Mark) -> u64 {
        match mark {
            Mark::Kill => self.kills,
            Mark::KillAtPoint => self.points.values().sum(),
            Mark::Zombie => self.zombies,
            Mark::BrokerKill => self.broker_kills(),
            Mark::EndFault => self.ends(),
            Mark::FailedDisk => self.disks.values().sum(),
            Mark::ReloadTaken => self.reloads[0],
            Mark::ReloadRejected => self.reloads[1],
        }
    }

    fn broker_kills(&self) -> u64 {
        self.only_broker + self.one_of_three + self.coordinators
    }

    /// Those of which no client can know what became of its request. One that is held for a while is waited for, mostly; of one that is doubled
    /// the first answer is heard.
    fn ends(&self) -> u64 {
        let is_fault = |kind: &str| !matches!(kind, "held" | "answer held" | "twice");
        let met = self.met.iter();
        let ends = met.filter(|((name, kind), _)| *name == "EndTxn" && is_fault(kind));
        ends.map(|(_, count)| count).sum()
    }

    pub fn print(&self, points: &Points) {
        let line = |what: &str, count: u64| println!("{count:>8}  {what}");
        line("records", self.records);
        line("rounds", self.rounds);
        line(
            "of them, with calls that fail on many records",
            self.failing,
        );
        println!(
            "{:>8}  calls that failed, of who ran when rounds ended",
            self.failed_calls
        );
        line("SIGKILLs at moments that were drawn", self.kills);
        line(
            "of them, of processes that had committed nothing yet",
            self.killed_early,
        );
        for (point, count) in &self.points {
            line(&format!("SIGKILL at {point}"), *count);
        }
        line("zombies", self.zombies);
        line("frozen, with nobody to take over", self.frozen_alone);
        line("kills of the only broker", self.only_broker);
        line("kills of one of three brokers", self.one_of_three);
        line("kills of a coordinator among three", self.coordinators);
        let kinds = Plan::kinds();
        let never = kinds.iter().filter(|kind| !self.met.contains_key(kind));
        let never: Vec<String> = never.map(|(name, kind)| format!("{name} {kind}")).collect();
        for ((name, kind), count) in &self.met {
            line(&format!("{name} {kind}"), *count);
        }
        for (kind, count) in &self.disks {
            line(&format!("lives whose disk failed: {kind}"), *count);
        }
        line("versions of plugins to be reloaded", self.versions);
        for (words, count) in OUTCOMES.iter().zip(self.reloads) {
            line(&format!("of them, some process said: {words}"), count);
        }
        line("processes joined", self.joined);
        line("processes asked to leave", self.left);
        if never.is_empty() {
            println!("every meddling with a request was met");
        } else {
            println!("never: {}", never.join(", "));
        }
        let never = points.deaths().iter().filter(|(_, deaths)| **deaths == 0);
        let never: Vec<&str> = never.map(|(point, _)| point.as_str()).collect();
        if never.is_empty() {
            println!("all {} failpoints were met", points.deaths().len());
        } else {
            println!(
                "of {} failpoints, nobody died at {}: {}",
                points.deaths().len(),
                never.len(),
                never.join(" ")
            );
        }
    }

    pub fn last_line(&self) -> String {
        let killed = self.kills + self.count(Mark::KillAtPoint);
        format!(
            "chaos: {} records, {killed} SIGKILLs ({} before a first commit), {} zombies, {} broker kills, {} EndTxn faults, {} failed disks: 0 violations",
            self.records,
            self.killed_early,
            self.zombies,
            self.broker_kills(),
            self.ends(),
            self.count(Mark::FailedDisk)
        )
    }
}

/// For whoever runs the test, and has more to say before that.
pub fn write_summary(line: &str) {
    if let Some(file) = std::env::var_os("MILLSTREAM_CHAOS_SUMMARY")
        && let Err(why) = std::fs::write(&file, line)
    {
        eprintln!("{}: {why}", file.display());
    }
}
