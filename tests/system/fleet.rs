//! Up to four processes of one pipeline that are killed and started again at moments that were drawn, and watched all the while: how soon
//! each commits after its start, and how soon others commit what a dead one held. Some are frozen, leave, or are told to die by themselves.
//!
//! Invariant: a process that ends without having been told to fails the test, and so does a fleet in which nobody commits.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rig::millstream::{self, Millstream};

use crate::dice::Dice;
use crate::limits::metric;
use crate::stage::{Faults, PARTITIONS, Place, READY, Stage, Told, keep_uncommitted, told};
use crate::timings::Timings;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// A process that is dead for longer has lost its partitions to others.
pub const SESSION: Duration = Duration::from_secs(8);
const TICK: Duration = Duration::from_millis(20);
/// A takeover waits for the session of the dead, and for rebalances.
const FAILED_OVER_WITHIN: Duration = Duration::from_secs(60);

/// What a fleet came to.
pub struct Finished {
    /// That it was to process.
    pub records: u64,
    /// Calls of plugins that failed, in the last lives.
    pub failed_calls: f64,
}

/// What became of one name.
struct Slot {
    life: Option<Life>,
    /// When the next life begins; none is due for a name that lives.
    due: Option<Instant>,
    failover: Option<Failover>,
    /// Of the next life.
    faults: Faults,
}

impl Slot {
    fn is_at_work(&self) -> bool {
        let life = self.life.as_ref();
        life.is_some_and(|life| life.first_epoch.is_some())
    }
}

struct Life {
    process: Millstream,
    began: Instant,
    address: Option<SocketAddr>,
    first_epoch: Option<Instant>,
    /// Since it began, everybody else has been at work.
    alone: bool,
    last: Told,
    end: End,
    is_frozen: bool,
}

/// How a life may end but by [`Fleet::kill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Not at all.
    Never,
    /// It was told to kill itself somewhere, and is started again then.
    Itself,
    /// It was asked to go, and stays away.
    Left,
}

const KILL: &str = "MILLSTREAM_FAULT_KILL";
/// What a process says that kills itself, before the name of the place.
const KILLED_AT: &str = "fault: killed at ";
/// The exit code of a bug.
const BUG: i32 = 70;
const SIGKILL: i32 = 9;
/// Until a process that killed itself is started again.
const AWAY: Duration = Duration::from_millis(300);

/// What a dead process held, and what is known to have been committed of it when others took it.
struct Failover {
    killed: Instant,
    /// Nobody else was killed with it or since.
    alone: bool,
    left: BTreeMap<Place, Option<u64>>,
}

pub struct Fleet {
    stage: Stage,
    interval: &'static str,
    slots: Vec<Slot>,
    /// Epochs that were seen to be committed, whoever did.
    epochs: u64,
    /// Where processes killed themselves.
    pub died_at: Vec<String>,
    /// Those that were killed, and of them those that had committed nothing yet.
    pub kills: u64,
    pub killed_early: u64,
    /// Of processes that started while everybody else was at work, and of those that didn't: a rebalance that waits for somebody who is
    /// dead holds up who joins meanwhile.
    pub restarted: [Timings; 2],
    /// Of processes that were killed alone, and of those that weren't.
    pub failed_over: [Timings; 2],
}

impl Fleet {
    pub fn new(stage: Stage, interval: &'static str) -> Self {
        let slot = |_| Slot {
            life: None,
            due: None,
            failover: None,
            faults: Vec::new(),
        };
        // More workers than partitions would have some commit nothing.
        let most = usize::try_from(PARTITIONS / stage.workers).expect("few partitions");
        Self {
            slots: (0..most.min(NAMES.len())).map(slot).collect(),
            stage,
            interval,
            epochs: 0,
            died_at: Vec::new(),
            kills: 0,
            killed_early: 0,
            restarted: Default::default(),
            failed_over: Default::default(),
        }
    }

    /// The rest comes soon.
    pub fn start_one_to_four(&mut self, dice: &mut Dice) {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let after = Duration::from_millis(dice.between(0, 15_000));
            slot.due = Some(Instant::now() + if number == 0 { Duration::ZERO } else { after });
        }
    }

    /// Waits until somebody has committed one more epoch.
    pub fn wait_progress(&mut self) {
        let (before, began) = (self.epochs, Instant::now());
        while self.epochs == before {
            assert!(
                began.elapsed() < READY,
                "nobody has committed anything for {READY:?}"
            );
            self.tick();
        }
    }

    pub fn pass(&mut self, milliseconds: u64) {
        let end = Instant::now() + Duration::from_millis(milliseconds);
        while Instant::now() < end {
            self.tick();
        }
    }

    /// Who is to be killed together: mostly one, sometimes all. Who has not committed since its start is mostly spared: how long a start
    /// takes is to be known.
    pub fn victims(&mut self, dice: &mut Dice, most: u64) -> Vec<usize> {
        let spare_starting = !dice.one_in(8);
        let alive = |slot: &&(usize, &Slot)| {
            let life = slot.1.life.as_ref();
            life.is_some_and(|life| life.first_epoch.is_some() || !spare_starting)
        };
        let slots: Vec<(usize, &Slot)> = self.slots.iter().enumerate().collect();
        let mut alive: Vec<usize> = slots.iter().filter(alive).map(|slot| slot.0).collect();
        let count = match dice.between(0, 9) {
            0..=5 => 1,
            6..=7 => 2,
            8 => 3,
            _ => 4,
        };
        let count = usize::try_from(most.min(count)).expect("four at most");
        while alive.len() > count {
            let spared = dice.between(0, alive.len() as u64 - 1);
            alive.swap_remove(usize::try_from(spared).expect("less than four"));
        }
        alive
    }

    /// Kills it, to be started again after a pause.
    pub fn kill(&mut self, number: usize, pause: u64) {
        // Its last word: what was committed after it makes a takeover look longer, never shorter.
        self.look(number);
        self.look_for_an_end(number);
        let slot = &mut self.slots[number];
        let Some(mut life) = slot.life.take() else {
            // It has died where it was told to, a moment ago.
            slot.due = Some(Instant::now() + Duration::from_millis(pause));
            return;
        };
        life.process.kill();
        self.kills += 1;
        let killed = Instant::now();
        if life.first_epoch.is_none() {
            self.killed_early += 1;
            self.restarted[usize::from(!life.alone)].add_cut(life.began.elapsed());
        }
        slot.due = Some(killed + Duration::from_millis(pause));
        let left: BTreeMap<_, _> = life.last.held.into_keys().map(|at| (at, None)).collect();
        for life in self.slots.iter_mut().filter_map(|slot| slot.life.as_mut()) {
            life.alone = false;
        }
        let mut alone = true;
        for other in self
            .slots
            .iter_mut()
            .filter_map(|slot| slot.failover.as_mut())
        {
            (alone, other.alone) = (false, false);
        }
        if !left.is_empty() {
            self.slots[number].failover = Some(Failover {
                killed,
                alone,
                left,
            });
        }
        println!(
            "killed {} {:.1?} after its start, after {} epochs; it is back in {pause} ms",
            NAMES[number],
            life.began.elapsed(),
            life.last.epochs
        );
    }

    /// Waits until others have committed what was taken from those that stay dead for long, and then until everybody is at work again.
    pub fn settle(&mut self) {
        let began = Instant::now();
        while self.slots.iter().any(|slot| slot.failover.is_some()) {
            assert!(
                began.elapsed() < FAILED_OVER_WITHIN,
                "partitions of a dead process are not committed"
            );
            self.tick();
        }
        let began = Instant::now();
        while !self.slots.iter().all(Slot::is_at_work) {
            assert!(began.elapsed() < READY, "a process commits nothing");
            self.tick();
        }
    }

    /// Those that run, frozen or not.
    pub fn running(&self) -> Vec<usize> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, slot)| slot.life.is_some())
            .map(|(number, _)| number)
            .collect()
    }

    /// Those that are away, and don't come by themselves.
    pub fn away(&self) -> Vec<usize> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, slot)| slot.life.is_none() && slot.due.is_none())
            .map(|(number, _)| number)
            .collect()
    }

    /// Starts one that is away, with these faults.
    pub fn join(&mut self, number: usize, faults: Faults) {
        let slot = &mut self.slots[number];
        assert!(slot.life.is_none(), "who joins is away");
        (slot.due, slot.faults) = (Some(Instant::now()), faults);
    }

    /// Kills one, and starts it again at once with these faults.
    pub fn replace(&mut self, number: usize, faults: Faults) {
        self.kill(number, 0);
        self.slots[number].faults = faults;
    }

    /// Whether it was told to kill itself, and hasn't yet.
    pub fn is_doomed(&self, number: usize) -> bool {
        let life = self.slots[number].life.as_ref();
        life.is_some_and(|life| life.end == End::Itself)
    }

    /// Whether somebody else says that it holds what this one held when it was last asked.
    pub fn is_succeeded(&self, number: usize) -> bool {
        let Some(victim) = &self.slots[number].life else {
            return false;
        };
        let others = self.slots.iter().enumerate();
        let others = others.filter(|(other, _)| *other != number);
        let mut others = others.filter_map(|(_, slot)| slot.life.as_ref());
        let is_held = |place: &Place| victim.last.held.contains_key(place);
        others.any(|life| !life.is_frozen && life.last.held.keys().any(is_held))
    }

    /// Whether its next life is to begin by itself.
    pub fn is_due(&self, number: usize) -> bool {
        self.slots[number].due.is_some()
    }

    /// Whether it lives, and said so.
    pub fn has_said(&self, number: usize, line: &str) -> bool {
        let life = self.slots[number].life.as_ref();
        life.is_some_and(|life| life.process.lines().iter().any(|said| said == line))
    }

    /// In how many lines those that live have said this.
    pub fn lines_with(&self, words: &str) -> u64 {
        let lives = self.slots.iter().filter_map(|slot| slot.life.as_ref());
        let lines = lives.flat_map(|life| life.process.lines());
        lines.filter(|line| line.contains(words)).count() as u64
    }

    pub fn freeze(&mut self, number: usize) {
        if let Some(life) = &mut self.slots[number].life {
            life.process.process().freeze();
            life.is_frozen = true;
        }
    }

    pub fn thaw(&mut self, number: usize) {
        if let Some(life) = &mut self.slots[number].life {
            life.process.process().thaw();
            life.is_frozen = false;
        }
    }

    /// Asks one to end, which keeps its seat for as long as a session lasts.
    pub fn terminate(&mut self, number: usize) {
        if let Some(life) = &mut self.slots[number].life {
            life.end = End::Left;
            life.process.process().terminate();
        }
    }

    /// Has one leave the group, which takes as long as it takes.
    pub fn drain(&mut self, number: usize) {
        if let Some(life) = &mut self.slots[number].life {
            life.end = End::Left;
            let file = self.stage.folder.join("pipeline.toml");
            let file = file.display().to_string();
            // What becomes of it is seen by its end; whoever asks may be left without an answer.
            std::thread::spawn(move || {
                millstream::run(&["drain", &file, "--instance", NAMES[number]])
            });
        }
    }

    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// SIGKILL for the only broker: see [`Stage::crash_the_only_broker`].
    pub fn crash_the_only_broker(&self) {
        let lives = self.slots.iter().filter_map(|slot| slot.life.as_ref());
        let lives: Vec<&Millstream> = lives.map(|life| &life.process).collect();
        self.stage.crash_the_only_broker(&lives);
    }

    /// Nobody dies from here on, and somebody is there. Waits until all that are have committed.
    pub fn calm_down(&mut self) {
        for number in self.running() {
            self.thaw(number);
            if self.is_doomed(number) {
                self.kill(number, 0);
            }
        }
        for slot in &mut self.slots {
            slot.faults.clear();
        }
        if self.running().is_empty() && self.away().len() == self.slots.len() {
            self.join(0, Vec::new());
        }
        let began = Instant::now();
        let at_work = |slot: &Slot| match &slot.life {
            Some(life) => life.first_epoch.is_some() && life.end == End::Never,
            None => slot.due.is_none(),
        };
        while !self.slots.iter().all(at_work) {
            assert!(began.elapsed() < READY, "a process commits nothing");
            self.tick();
        }
        if self.running().is_empty() {
            // The last one was leaving.
            self.join(0, Vec::new());
            self.wait_progress();
        }
    }

    /// Returns how many records there were.
    pub fn finish(mut self) -> Finished {
        let lives = self.slots.iter().filter_map(|slot| slot.life.as_ref());
        let lives: Vec<&Millstream> = lives.map(|life| &life.process).collect();
        self.stage.wait_done(&lives);
        self.stage.judge(&lives);
        Finished {
            records: self.stage.sent(),
            failed_calls: lives.iter().copied().map(failed_calls).sum(),
        }
    }

    /// Starts who is due, and looks at everybody.
    fn tick(&mut self) {
        for number in 0..self.slots.len() {
            if self.slots[number]
                .due
                .is_some_and(|due| due <= Instant::now())
            {
                self.start(number);
            }
            self.look_for_an_end(number);
            self.look(number);
        }
        std::thread::sleep(TICK);
    }

    fn start(&mut self, number: usize) {
        let mut others = self
            .slots
            .iter()
            .enumerate()
            .filter(|slot| slot.0 != number);
        let alone = others.all(|(_, slot)| slot.is_at_work());
        let slot = &mut self.slots[number];
        slot.due = None;
        // It is back before others had all of it. Within its session nobody was to have anything.
        if let Some(failover) = slot.failover.take()
            && failover.killed.elapsed() > SESSION
        {
            let timings = &mut self.failed_over[usize::from(!failover.alone)];
            timings.add_cut(failover.killed.elapsed());
        }
        let began = Instant::now();
        let faults = std::mem::take(&mut slot.faults);
        let is_doomed = faults.iter().any(|(name, _)| *name == KILL);
        slot.life = Some(Life {
            process: self.stage.spawn_with(NAMES[number], self.interval, &faults),
            began,
            address: None,
            first_epoch: None,
            alone,
            last: Told {
                held: BTreeMap::new(),
                epochs: 0,
            },
            end: if is_doomed { End::Itself } else { End::Never },
            is_frozen: false,
        });
    }

    /// Notes that a process has ended, which it must have been told to.
    fn look_for_an_end(&mut self, number: usize) {
        let slot = &mut self.slots[number];
        let Some(life) = &mut slot.life else { return };
        if life.process.exited().is_none() {
            return;
        }
        // Its last words may be on their way.
        let status = life.process.wait_exit(READY);
        let name = NAMES[number];
        let point = killed_at(&life.process, status);
        match (point, life.end) {
            (Some(point), end) if end != End::Never => {
                println!(
                    "{name} has killed itself at {point}, {:.1?} after its start",
                    life.began.elapsed()
                );
                self.died_at.push(point);
                slot.due = (end == End::Itself).then(|| Instant::now() + AWAY);
            }
            (None, End::Left) if status.code().is_some_and(|code| code != BUG) => {
                println!("{name} has left: {status}");
            }
            _ => panic!("{name} ended by itself: {status}"),
        }
        slot.life = None;
    }

    /// Asks one process, and notes what follows from its answer.
    fn look(&mut self, number: usize) {
        let life = self.slots[number].life.as_mut();
        let Some(life) = life.filter(|life| !life.is_frozen) else {
            return;
        };
        if life.address.is_none() {
            life.address = life.process.http_address_so_far();
        }
        let Some(told) = life.address.and_then(told) else {
            return;
        };
        let more = told.epochs.saturating_sub(life.last.epochs);
        if life.first_epoch.is_none() && told.epochs > 0 {
            life.first_epoch = Some(Instant::now());
            let took = life.began.elapsed();
            let others = if life.alone { "" } else { "not " };
            println!(
                "{} has committed {took:.2?} after its start, others {others}at work",
                NAMES[number]
            );
            self.restarted[usize::from(!life.alone)].add(took);
        }
        self.epochs += more;
        life.last = told;
        if more > 0 {
            self.look_for_takeovers(number);
        }
    }

    /// This process has committed: perhaps something that was a dead one's.
    fn look_for_takeovers(&mut self, number: usize) {
        let Some(life) = &self.slots[number].life else {
            return;
        };
        let held = life.last.held.clone();
        for slot in &mut self.slots {
            let Some(failover) = &mut slot.failover else {
                continue;
            };
            keep_uncommitted(&mut failover.left, &held);
            if failover.left.is_empty() {
                let timings = &mut self.failed_over[usize::from(!failover.alone)];
                timings.add(failover.killed.elapsed());
                slot.failover = None;
            }
        }
    }
}

fn failed_calls(life: &Millstream) -> f64 {
    let answer = life.get("/metrics");
    metric(answer.text(), "millstream_step_failed_calls_total", "")
}

/// The place at which a process killed itself, if that is how it ended.
fn killed_at(process: &Millstream, status: ExitStatus) -> Option<String> {
    if status.signal() != Some(SIGKILL) {
        return None;
    }
    let lines = process.lines();
    let said = lines.iter().find_map(|line| line.strip_prefix(KILLED_AT))?;
    said.split(',').next().map(str::to_owned)
}
