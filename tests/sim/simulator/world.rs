//! What actors live in: a virtual clock, an agenda in the order of time, a network between clients and the broker, and the processes
//! with what they have on disk. One thread; whatever happens at the same moment happens in an order that the seed draws.
//!
//! Actors are plain futures. They wait for time only, so that there are no wakers: whoever is polled has slept out. To kill a process is
//! to drop its futures; what it had sent is on its way all the same.

use std::cell::{Cell, RefCell};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use millstream_broker::Broker;
use millstream_engine::pipeline::Pipeline;
use millstream_engine::state::restore::MapPartition;
use millstream_engine::trials::Trials;

use super::course::{Course, Courses};
use super::dice::Dice;
use super::judge::Judge;
use super::member::SESSION;
use super::pipeline::{Code, MapPlace};
use super::plan::{BEGIN, Fault, Plan};

/// How long clients wait for an answer.
pub const REQUEST_TIMEOUT: i64 = 60;

/// A run that takes more is taken not to end.
const STEPS_MAX: u64 = 300_000;

/// What was wrong first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub name: &'static str,
    pub what: String,
}

/// What clients ask for, as far as faults tell requests apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Read,
    /// To the leader of a partition.
    Produce,
    /// To the coordinator of a group or of transactions.
    Coordinator,
    /// To the coordinator of transactions, to end one.
    End,
}

impl Request {
    fn is_for_coordinator(self) -> bool {
        matches!(self, Self::Coordinator | Self::End)
    }
}

/// Why a request was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    TimedOut,
    /// NOT_COORDINATOR, or COORDINATOR_LOAD_IN_PROGRESS: nothing was done.
    NotNow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    Lost,
    ReplyLost,
    Late,
    NotNow,
}

/// The faults that last right now.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    pub faults: Vec<Fault>,
}

impl Weather {
    /// What several of a kind come to together.
    fn percent(&self, of: impl Fn(&Fault) -> Option<u32>) -> u32 {
        self.faults.iter().filter_map(of).sum()
    }

    fn has(&self, is: impl Fn(&Fault) -> bool) -> bool {
        self.faults.iter().any(is)
    }

    pub fn is_broker_down(&self) -> bool {
        self.has(|fault| matches!(fault, Fault::BrokerRestart { .. }))
    }

    pub fn do_sends_fail(&self) -> bool {
        self.has(|fault| matches!(fault, Fault::SendFails { .. }))
    }

    pub fn ends_twice(&self) -> u32 {
        self.percent(|fault| match fault {
            Fault::EndsTwice { percent, .. } => Some(*percent),
            _ => None,
        })
    }

    pub fn traps(&self) -> u32 {
        self.percent(|fault| match fault {
            Fault::Traps { percent, .. } => Some(*percent),
            _ => None,
        })
    }
}

pub type Shared = Rc<RefCell<MapPartition>>;

/// The map partitions of a worker that queries read.
#[derive(Default)]
pub struct Directory {
    pub places: RefCell<BTreeMap<MapPlace, Shared>>,
    pub touched: Cell<bool>,
}

/// One life of a process.
#[derive(Default)]
pub struct Life {
    pub host: usize,
    pub alive: bool,
    pub frozen_until: i64,
    /// As elapsed time; none once it was seen to have lasted past the session.
    pub frozen_since: Option<i64>,
    pub cut_until: i64,
    pub stop: bool,
    pub drain: bool,
    /// Workers that have not ended.
    pub workers: u32,
    pub directories: Vec<Rc<Directory>>,
    /// Of its plugins.
    pub trials: Option<Trials<Code>>,
}

/// What a host keeps on disk: the newest snapshot of each place, and its first one as somebody's backup has it.
#[derive(Debug, Default)]
pub struct Disk {
    pub snapshots: BTreeMap<MapPlace, Vec<u8>>,
    pub backup: BTreeMap<MapPlace, Vec<u8>>,
}

type Delivery = Box<dyn FnOnce(&World)>;

enum What {
    Wake(usize),
    Arrive(Delivery),
}

struct Due {
    at: i64,
    /// Drawn, then counted: an order among what is due at the same time.
    tie: (u64, u64),
    what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.tie).cmp(&(other.at, other.tie))
    }
}

struct Actor {
    life: Option<usize>,
    /// It was to go on while its process was frozen.
    held: bool,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

pub struct World {
    pub plan: Plan,
    pub pipeline: Arc<Pipeline>,
    pub broker: RefCell<Broker>,
    pub judge: RefCell<Judge>,
    pub weather: RefCell<Weather>,
    pub lives: RefCell<Vec<Life>>,
    /// By host.
    pub disks: RefCell<Vec<Disk>>,
    dice: RefCell<Dice>,
    courses: RefCell<Courses>,
    trace: Option<RefCell<String>>,
    violation: RefCell<Option<Violation>>,
    over: Cell<bool>,
    /// How often coordinators have moved.
    pub moves: Cell<u64>,
    now: Cell<i64>,
    jumped: Cell<i64>,
    /// By host, how far its clock is ahead.
    clocks: RefCell<Vec<i64>>,
    steps: Cell<u64>,
    /// Until when the actor that is being polled sleeps.
    wake: Cell<i64>,
    agenda: RefCell<BinaryHeap<Reverse<Due>>>,
    entries: Cell<u64>,
    spawned: RefCell<Vec<Actor>>,
    partitions_made: Cell<u64>,
}

impl World {
    pub fn new(plan: Plan, pipeline: Arc<Pipeline>, judge: Judge, dice: Dice, trace: bool) -> Self {
        let hosts = plan.hosts;
        Self {
            plan,
            pipeline,
            broker: RefCell::default(),
            judge: RefCell::new(judge),
            weather: RefCell::default(),
            lives: RefCell::default(),
            disks: RefCell::new((0..hosts).map(|_| Disk::default()).collect()),
            dice: RefCell::new(dice),
            courses: RefCell::default(),
            trace: trace.then(RefCell::default),
            violation: RefCell::default(),
            over: Cell::new(false),
            moves: Cell::new(0),
            now: Cell::new(BEGIN),
            jumped: Cell::new(0),
            clocks: RefCell::new(vec![0; hosts]),
            steps: Cell::new(0),
            wake: Cell::new(0),
            agenda: RefCell::default(),
            entries: Cell::new(0),
            spawned: RefCell::default(),
            partitions_made: Cell::new(0),
        }
    }

    pub fn now(&self) -> i64 {
        self.now.get()
    }

    /// Since the begin, without the jumps of the clock.
    pub fn elapsed(&self) -> i64 {
        self.now.get() - BEGIN - self.jumped.get()
    }

    pub fn jump(&self, by: i64) {
        self.now.set(self.now.get() + by);
        self.jumped.set(self.jumped.get() + by);
    }

    /// The time of day that a process is told by its host.
    pub fn clock(&self, life: usize) -> i64 {
        let host = self.lives.borrow()[life].host;
        self.now() + self.clocks.borrow()[host]
    }

    pub fn set_clock(&self, host: usize, ahead: i64) {
        let before = std::mem::replace(&mut self.clocks.borrow_mut()[host], ahead);
        if ahead < before {
            self.count(Course::ClockSetBack);
        }
    }

    pub fn steps(&self) -> u64 {
        self.steps.get()
    }

    pub fn finish(&self) {
        self.over.set(true);
    }

    pub fn violation(&self) -> Option<Violation> {
        self.violation.borrow().clone()
    }

    /// Notes what is wrong; only the first counts, and the run ends with it.
    pub fn violate(&self, violation: Violation) {
        self.note(|| format!("VIOLATION {}: {}", violation.name, violation.what));
        self.violation.borrow_mut().get_or_insert(violation);
        self.finish();
    }

    pub fn count(&self, course: Course) {
        self.courses.borrow_mut().count(course);
    }

    pub fn courses(&self) -> Courses {
        self.courses.borrow().clone()
    }

    /// A line of the trace, made only where one is written.
    pub fn note(&self, line: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            let mut trace = trace.borrow_mut();
            let text = format!("{:>6} {}\n", self.elapsed(), line());
            trace.push_str(&text);
        }
    }

    pub fn trace(&self) -> String {
        self.trace.as_ref().map(RefCell::take).unwrap_or_default()
    }

    pub fn below(&self, count: usize) -> usize {
        self.dice.borrow_mut().below(count)
    }

    pub fn between(&self, first: i64, last: i64) -> i64 {
        self.dice.borrow_mut().between(first, last)
    }

    pub fn chance(&self, percent: u32) -> bool {
        percent > 0 && self.dice.borrow_mut().chance(percent)
    }

    pub fn random(&self) -> u64 {
        self.dice.borrow_mut().roll()
    }

    /// A number that no other map partition has.
    pub fn partition_life(&self) -> u64 {
        self.partitions_made.set(self.partitions_made.get() + 1);
        self.partitions_made.get()
    }

    pub fn sleep(&self, ms: i64) -> Sleep<'_> {
        Sleep {
            world: self,
            until: self.now.get() + ms,
        }
    }

    /// Has an actor run, which ends with its process if it is of one.
    pub fn spawn(&self, life: Option<usize>, future: impl Future<Output = ()> + 'static) {
        let future = Box::pin(future);
        let actor = Actor {
            life,
            held: false,
            future,
        };
        self.spawned.borrow_mut().push(actor);
    }

    fn schedule(&self, at: i64, what: What) {
        self.entries.set(self.entries.get() + 1);
        let tie = (self.dice.borrow_mut().roll(), self.entries.get());
        self.agenda
            .borrow_mut()
            .push(Reverse(Due { at, tie, what }));
    }

    /// Sends a request, and waits for the answer as long as clients do. What was sent arrives even if its sender is gone by then.
    pub async fn ask<T: 'static>(
        &self,
        life: usize,
        request: Request,
        act: impl FnOnce(&mut Broker, i64) -> T + 'static,
    ) -> Result<T, Unanswered> {
        self.count(Course::Request);
        let fate = self.fate(life, request);
        let (out, back) = (self.between(1, 3), self.between(1, 2));
        match fate {
            Fate::Answered | Fate::ReplyLost | Fate::Late => {}
            Fate::Lost => {
                self.sleep(REQUEST_TIMEOUT).await;
                return Err(Unanswered::TimedOut);
            }
            Fate::NotNow => {
                self.sleep(out + back).await;
                return Err(Unanswered::NotNow);
            }
        }
        let answer = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&answer);
        let refused = Rc::new(Cell::new(false));
        let refuse = Rc::clone(&refused);
        let (is_for_one, moves) = (request.is_for_coordinator(), self.moves.get());
        let late = if fate == Fate::Late {
            REQUEST_TIMEOUT + self.between(1, 3 * REQUEST_TIMEOUT)
        } else {
            0
        };
        let arrive = move |world: &Self| {
            if world.weather.borrow().is_broker_down() {
                return;
            }
            if is_for_one && world.moves.get() != moves {
                world.count(Course::CoordinatorMoved);
                refuse.set(true);
                return;
            }
            let answered = act(&mut world.broker.borrow_mut(), world.now());
            if request != Request::Read {
                world.look();
            }
            *slot.borrow_mut() = Some(answered);
        };
        self.schedule(self.now.get() + late + out, What::Arrive(Box::new(arrive)));
        if fate != Fate::Answered {
            self.sleep(REQUEST_TIMEOUT).await;
            return Err(Unanswered::TimedOut);
        }
        self.sleep(out + back).await;
        if refused.get() {
            return Err(Unanswered::NotNow);
        }
        let answered = answer.borrow_mut().take();
        if answered.is_none() {
            self.sleep(REQUEST_TIMEOUT - out - back).await;
        }
        answered.ok_or(Unanswered::TimedOut)
    }

    fn fate(&self, life: usize, request: Request) -> Fate {
        if self.lives.borrow()[life].cut_until > self.now() {
            return Fate::Lost;
        }
        let weather = self.weather.borrow();
        if weather.faults.is_empty() {
            return Fate::Answered;
        }
        if weather.is_broker_down() {
            return Fate::Lost;
        }
        let is_refused = |fault: &Fault| {
            matches!(
                fault,
                Fault::CoordinatorRefuses { .. } | Fault::CoordinatorMoves { .. }
            )
        };
        if request.is_for_coordinator() && weather.has(is_refused) {
            self.count(if self.chance(50) {
                Course::NotCoordinator
            } else {
                Course::CoordinatorLoading
            });
            return Fate::NotNow;
        }
        for fault in &weather.faults {
            let (percent, fate, course) = match *fault {
                Fault::Lose { percent, .. } => (percent, Fate::Lost, Course::RequestLost),
                Fault::LoseReplies { percent, .. } => (percent, Fate::ReplyLost, Course::ReplyLost),
                Fault::Late { percent, .. } if request != Request::Read => {
                    (percent, Fate::Late, Course::RequestLate)
                }
                Fault::LateEnds { percent, .. } if request == Request::End => {
                    (percent, Fate::Late, Course::EndLate)
                }
                _ => continue,
            };
            if self.chance(percent) {
                self.count(course);
                return fate;
            }
        }
        Fate::Answered
    }

    /// Has the judge see what the broker was brought to do.
    pub fn look(&self) {
        let found = self.judge.borrow_mut().look(&self.broker.borrow());
        if let Err(violation) = found {
            self.violate(violation);
        }
    }

    /// Has the judge see what a process' queries would be answered.
    fn look_at_maps(&self, life: usize) {
        for directory in &self.lives.borrow()[life].directories {
            if !directory.touched.take() {
                continue;
            }
            for (place, shared) in directory.places.borrow().iter() {
                let seen = {
                    let mut judge = self.judge.borrow_mut();
                    judge.see(&self.broker.borrow(), *place, &shared.borrow())
                };
                if let Err(violation) = seen {
                    self.violate(violation);
                }
            }
        }
    }

    /// Lets everything happen until the run is over.
    pub fn run(&self) {
        self.run_actors();
        // What is on its way has a hold on this world.
        self.agenda.take();
    }

    fn run_actors(&self) {
        let mut actors: Vec<Option<Actor>> = Vec::new();
        loop {
            for actor in self.spawned.take() {
                self.schedule(self.now(), What::Wake(actors.len()));
                actors.push(Some(actor));
            }
            let due = self.agenda.borrow_mut().pop();
            let Some(Reverse(due)) = due.filter(|_| !self.over.get()) else {
                return;
            };
            self.now.set(self.now.get().max(due.at));
            self.steps.set(self.steps.get() + 1);
            if self.steps.get() > STEPS_MAX {
                self.violate(Violation {
                    name: "no-end",
                    what: format!("not over after {STEPS_MAX} steps"),
                });
            }
            match due.what {
                What::Arrive(arrive) => arrive(self),
                What::Wake(number) => self.wake(number, &mut actors[number]),
            }
        }
    }

    fn wake(&self, number: usize, slot: &mut Option<Actor>) {
        let Some(actor) = slot else { return };
        if let Some(life) = actor.life {
            let (alive, frozen_until) = {
                let life = &self.lives.borrow()[life];
                (life.alive, life.frozen_until)
            };
            if !alive {
                *slot = None;
                return;
            }
            if frozen_until > self.now() {
                actor.held = true;
                return self.schedule(frozen_until, What::Wake(number));
            }
            if std::mem::take(&mut actor.held) {
                self.go_on(life);
            }
        }
        let polled = actor
            .future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        if let Some(life) = actor.life {
            self.look_at_maps(life);
        }
        match polled {
            Poll::Ready(()) => *slot = None,
            Poll::Pending => self.schedule(self.wake.get(), What::Wake(number)),
        }
    }

    /// A process goes on that was frozen.
    fn go_on(&self, life: usize) {
        let life = &mut self.lives.borrow_mut()[life];
        let is_over = |since: &mut i64| self.elapsed() - *since > SESSION;
        if life.frozen_since.take_if(is_over).is_some() {
            self.count(Course::FrozenPast);
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("now", &self.now.get())
            .finish_non_exhaustive()
    }
}

/// Waits for virtual time.
#[derive(Debug)]
pub struct Sleep<'a> {
    world: &'a World,
    until: i64,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.world.now.get() >= self.until {
            return Poll::Ready(());
        }
        self.world.wake.set(self.until);
        Poll::Pending
    }
}
