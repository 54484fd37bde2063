//! What is done to a cluster and its processes, one thing at a time: drawn, and carried out while the fleet is looked after.
//!
//! Invariant: of three brokers one is down at most, and the only one goes down with no transaction in the moment of its end.

use super::Round;
use super::meddler::{Met, Plan};
use super::points::doom;
use super::tally::OUTCOMES;
use crate::dice::Dice;
use crate::example::Half;
use crate::fleet::{Fleet, SESSION};
use crate::stage::Faults;

/// How long a process that is to kill itself somewhere may take to get there, in looks of [`LOOK`]: mostly, and where something has to time
/// out first.
const LOOKS: u32 = 60;
const LOOKS_MOST: u32 = 112;
const LOOK: u64 = 250;

fn looks(point: &str) -> u32 {
    match kind(point) {
        "purge" | "doubt" | "standby" | "succession" => LOOKS_MOST,
        _ => LOOKS,
    }
}

/// After how many looks it is helped along, and after how many more again.
fn provoked(point: &str) -> (u32, u32) {
    match kind(point) {
        "replace" => (8, 4),
        // A copy has to be there first: the group is looked at every five seconds.
        "standby" if point == "standby-claimed" => (28, 24),
        "assigned" | "revoked" | "restore" | "standby" => (8, 24),
        _ => (8, LOOKS_MOST),
    }
}

/// The first word of a failpoint's name.
fn kind(point: &str) -> &str {
    point.split('-').next().unwrap_or_default()
}

#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// So many processes kill themselves, each at a failpoint of its own.
    KillAtPoints(u64),
    /// One process or several.
    KillNow,
    /// One process as it starts, and starts again.
    KillInRow(u64),
    /// Frozen for longer than a session, then awake.
    Zombie,
    Broker,
    /// The broker that leads what coordinates the group, or a worker's transactions.
    Coordinator,
    Meddle([Plan; 2]),
    /// A process whose snapshots can't be written, or read.
    Disk(&'static str),
    Join,
    Leave,
    Drain,
    /// Another version of the plugins, for all processes.
    Reload(Version),
}

#[derive(Clone, Copy, Debug)]
pub enum Version {
    Good,
    /// Not even tried.
    Refused,
    /// A call on several records fails: tried by whoever has some, and undone.
    Rejected,
}

/// What fails of a disk: see `host/server/src/fault/injected.rs`.
const DISKS: [&str; 8] = [
    "full",
    "eio-create",
    "eio-write",
    "eio-sync",
    "eio-rename",
    "eio-folder",
    "eio-list",
    "eio-read",
];

impl Act {
    pub fn draw(dice: &mut Dice, brokers: u16, met: &Met) -> Self {
        match dice.between(0, 99) {
            0..=29 => Self::KillAtPoints(dice.between(1, 3)),
            30..=36 => Self::KillNow,
            37..=44 => Self::KillInRow(dice.between(3, 10)),
            45..=55 => Self::Zombie,
            56..=61 => Self::Broker,
            62..=66 if brokers > 1 => Self::Coordinator,
            62..=81 => Self::Meddle([Plan::draw(dice, met), Plan::draw(dice, met)]),
            82..=85 => Self::Disk(one_of(dice, &DISKS)),
            86..=88 => Self::Join,
            89 => Self::Leave,
            90 => Self::Drain,
            _ => Self::Reload(match dice.between(0, 4) {
                0 => Version::Refused,
                1 | 2 => Version::Rejected,
                _ => Version::Good,
            }),
        }
    }
}

fn one_of<T: Copy>(dice: &mut Dice, of: &[T]) -> T {
    let at = dice.between(0, of.len() as u64 - 1);
    of[usize::try_from(at).expect("a slice's length is one")]
}

impl Round<'_> {
    pub fn carry_out(&mut self, act: Act) {
        match act {
            Act::KillAtPoints(count) => self.kill_at_points(count),
            Act::KillNow => {
                for victim in self.fleet.victims(self.dice, 4) {
                    // The long ones are for others to take over.
                    let pause = if self.dice.one_in(5) {
                        self.dice.between(10_000, 15_000)
                    } else {
                        self.dice.between(0, 2_000)
                    };
                    self.fleet.kill(victim, pause);
                }
            }
            Act::KillInRow(times) => {
                if let Some(victim) = self.one_of(&self.fleet.running()) {
                    self.kill_in_row(victim, times);
                }
            }
            Act::Zombie => {
                if self.fleet.running().len() < 2 {
                    self.join(Vec::new());
                    self.fleet.wait_progress();
                }
                if let Some(victim) = self.one_of(&self.fleet.running()) {
                    self.freeze(victim);
                }
            }
            Act::Broker => {
                let node = self.dice.between(1, u64::from(self.brokers));
                self.crash(u16::try_from(node).expect("it was a u16"));
            }
            Act::Coordinator => self.fail_over(),
            Act::Meddle(plans) => plans.into_iter().for_each(|plan| self.meddler.add(plan)),
            Act::Disk(kind) => self.fail_disk(kind),
            Act::Join => self.join(Vec::new()),
            Act::Leave => self.leave(false),
            Act::Drain => self.leave(true),
            Act::Reload(version) => self.reload(version),
        }
    }

    /// Whoever starts later finds the file as it was, and the others follow it.
    fn reload(&mut self, version: Version) {
        let time = 2001 + self.tally.versions;
        self.tally.versions += 1;
        let lines = match version {
            Version::Good => format!("limits = {{ time = \"{time}ms\" }}"),
            Version::Refused => "limits = {}\nsha256 = \"0\"".to_owned(),
            Version::Rejected => {
                format!("limits = {{ time = \"{time}ms\", output-records = 1 }}")
            }
        };
        let heard = |fleet: &Fleet| OUTCOMES.map(|words| fleet.lines_with(words));
        let before = heard(&self.fleet);
        self.fleet.stage().change_plugins(&lines);
        for _ in 0..LOOKS / 2 {
            self.fleet.pass(LOOK);
            if heard(&self.fleet) != before {
                break;
            }
        }
        let counts = self.tally.reloads.iter_mut();
        for ((count, before), now) in counts.zip(before).zip(heard(&self.fleet)) {
            *count += u64::from(now > before);
        }
        if let Version::Rejected = version {
            // Those who come later would run records one by one.
            self.fleet.stage().change_plugins("limits = {}");
        }
        self.fleet.wait_progress();
    }

    /// It may die by itself meanwhile, or leave.
    fn kill_in_row(&mut self, victim: usize, times: u64) {
        for _ in 0..times {
            if self.fleet.running().contains(&victim) {
                self.fleet.kill(victim, 0);
            }
            let life = self.dice.between(50, 2500);
            self.fleet.pass(life);
        }
    }

    /// What is asked of the disk for snapshots fails from some time on, if that much is asked for.
    fn fail_disk(&mut self, kind: &'static str) {
        // Where there are none they are written at once; what is read has to be there.
        if !matches!(kind, "eio-list" | "eio-read") {
            self.fleet.stage().remove_snapshots();
        }
        // Of writes there are several in a snapshot, and a process may have few partitions.
        let most = match kind {
            "full" | "eio-write" => 6,
            _ => 2,
        };
        let after = self.dice.between(1, most);
        let faults = vec![("MILLSTREAM_FAULT_DISK", format!("{kind}:{after}"))];
        let Some(victim) = self.start_over(faults) else {
            return;
        };
        let words = format!("fault: the disk fails: {kind}");
        for _ in 0..LOOKS / 2 {
            if self.fleet.has_said(victim, &words) {
                self.tally.failed_disk(kind);
                return;
            }
            self.fleet.pass(LOOK);
        }
    }

    fn one_of(&mut self, of: &[usize]) -> Option<usize> {
        (!of.is_empty()).then(|| one_of(self.dice, of))
    }

    /// One that is away comes, or one that is there dies and comes again, with these faults. Returns who it is.
    fn start_over(&mut self, faults: Faults) -> Option<usize> {
        let away = self.fleet.away();
        let mut running = self.fleet.running();
        running.retain(|number| !self.fleet.is_doomed(*number));
        let is_join = !away.is_empty() && (running.is_empty() || self.dice.one_in(3));
        if is_join && let Some(number) = self.one_of(&away) {
            self.fleet.join(number, faults);
            self.tally.joined += 1;
            return Some(number);
        }
        let victim = self.one_of(&running)?;
        self.fleet.replace(victim, faults);
        Some(victim)
    }

    pub fn join(&mut self, faults: Faults) {
        let away = self.fleet.away();
        if let Some(number) = self.one_of(&away) {
            self.fleet.join(number, faults);
            self.tally.joined += 1;
        }
    }

    /// Somebody stays.
    fn leave(&mut self, is_drained: bool) {
        let running = self.fleet.running();
        if running.len() < 2 {
            return self.join(Vec::new());
        }
        if let Some(number) = self.one_of(&running) {
            self.tally.left += 1;
            if is_drained {
                self.fleet.drain(number);
            } else {
                self.fleet.terminate(number);
            }
        }
    }

    fn freeze(&mut self, victim: usize) {
        self.fleet.freeze(victim);
        let session = u64::try_from(SESSION.as_millis()).expect("seconds");
        let more = self.dice.between(1_000, 5_000);
        self.fleet.pass(session + more);
        // Who froze alone finds its partitions as they were.
        let has_successor = self.fleet.is_succeeded(victim);
        self.fleet.thaw(victim);
        if has_successor {
            self.tally.zombies += 1;
        } else {
            self.tally.frozen_alone += 1;
        }
    }

    fn crash(&mut self, node: u16) {
        if self.brokers == 1 {
            // What is late, and arrives as it dies, would be an end of a transaction in its last moment.
            self.meddler.stop();
            self.fleet.crash_the_only_broker();
            self.tally.only_broker += 1;
        } else {
            self.fleet.stage().kafka.process(node).kill();
            self.tally.one_of_three += 1;
        }
        self.restart_brokers();
    }

    fn restart_brokers(&mut self) {
        let pause = if self.dice.one_in(3) {
            self.dice.between(8_500, 12_000)
        } else {
            self.dice.between(0, 4_000)
        };
        self.fleet.pass(pause);
        self.fleet.stage().kafka.restart();
        // The next one goes down when this one has what it missed, or not yet.
        self.fleet.wait_progress();
    }

    fn fail_over(&mut self) {
        let stage = self.fleet.stage();
        let group = self.example.group();
        let (topic, key) = if self.dice.one_in(2) {
            ("__consumer_offsets", group.to_owned())
        } else {
            ("__transaction_state", format!("{group}.a.0"))
        };
        let leader = stage.kafka.leader(topic, &key);
        println!("broker {leader} coordinates {key}");
        stage.kafka.process(leader).kill();
        self.tally.coordinators += 1;
        self.restart_brokers();
    }

    fn kill_at_points(&mut self, count: u64) {
        let mut doomed = Vec::new();
        for _ in 0..count {
            doomed.extend(self.doom_one());
        }
        for look in 0..LOOKS_MOST {
            doomed.retain(|(point, victim)| {
                let lives = self.fleet.is_doomed(*victim) || self.fleet.is_due(*victim);
                lives && look < looks(point)
            });
            if doomed.is_empty() {
                return;
            }
            for (point, victim) in &doomed {
                let (first, every) = provoked(point);
                let is_now = look >= first && (look - first) % every == 0;
                if is_now && self.fleet.is_doomed(*victim) {
                    self.provoke(point, *victim);
                }
            }
            self.fleet.pass(LOOK);
        }
    }

    /// One that was killed, or came, to kill itself at the next point.
    fn doom_one(&mut self) -> Option<(String, usize)> {
        let running = self.fleet.running();
        let is_free = |number: &usize| !self.fleet.is_doomed(*number);
        if !running.iter().any(is_free) && self.fleet.away().is_empty() {
            return None;
        }
        let several = running.len() > 1;
        let (has_stream, standby) = (self.example.has(Half::Orders), self.standby);
        let is_purged = has_stream && !self.fleet.stage().keeps_streams;
        let can_be = |point: &str| match point {
            // Who made the topics is there.
            "start-topic-made" => false,
            point if point.starts_with("standby-") => standby > 0 && several,
            point if point.starts_with("succession-") => several,
            "purge-done" => is_purged,
            point if point.starts_with("purge-") || point.starts_with("epoch-merg") => has_stream,
            _ => true,
        };
        let (point, times) = self.points.next(self.dice, can_be);
        println!("to be met: {point}, {times} times");
        if point.starts_with("snapshot-") {
            self.fleet.stage().remove_snapshots();
        }
        let victim = self.start_over(vec![doom((point.clone(), times))])?;
        Some((point, victim))
    }

    /// What brings a process to a point that it doesn't come to by itself.
    fn provoke(&mut self, point: &str, victim: usize) {
        let others = || {
            let running = self.fleet.running().into_iter();
            running
                .filter(|number| *number != victim && !self.fleet.is_doomed(*number))
                .collect::<Vec<_>>()
        };
        match kind(point) {
            "drain" => self.fleet.drain(victim),
            "assigned" | "revoked" | "restore" | "standby" => {
                let others = others();
                // Who comes takes from the others; who goes leaves to them what they have copies of.
                let leaves = point == "standby-claimed" && !others.is_empty();
                if leaves || self.fleet.away().is_empty() {
                    if let Some(other) = self.one_of(&others) {
                        self.fleet.drain(other);
                    }
                } else {
                    self.join(Vec::new());
                }
            }
            "succession" => {
                let others = others();
                if let Some(other) = self.one_of(&others) {
                    let session = u64::try_from(SESSION.as_millis()).expect("seconds");
                    self.fleet.kill(other, session + 5_000);
                }
            }
            "lost" => self.freeze(victim),
            "doubt" => {
                // Whose it is can't be told from the request.
                let workers = self.fleet.running().len() as u64;
                let workers = workers * u64::from(self.fleet.stage().workers);
                self.meddler.add(Plan::doubt(workers));
            }
            "rewind" => self.meddler.add(Plan::late_init()),
            "replace" => self.meddler.add(Plan::late_end(self.dice)),
            _ => {}
        }
    }
}
