//! A worker's loop, as the server's: polls the group, feeds the engine, carries out its effects one by one. It reads like
//! `host/server/src/worker_thread.rs`, `running.rs` and `outlet.rs`, and decides the same at the same points; where those wait, this
//! waits for virtual time, and may be killed there.
//!
//! Invariant: between two polls every effect that the engine asked for has been carried out, and its answer told.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use millstream_engine::commit::machine::Reason;
use millstream_engine::commit::verdict::{Sends, Verdict};
use millstream_engine::pipeline::{Kept, OnError, SinkId, Target};
use millstream_engine::record::Record;
use millstream_engine::state::changelog;
use millstream_engine::task::run::{Broken, Output};
use millstream_engine::worker::{Effect, End, Event, Slot, Worker};

use super::assignment::{Awaited, Succession};
use super::changelogs::Changelogs;
use super::course::Course;
use super::member::{Member, Rebalance};
use super::pipeline::{Steps, setup};
use super::plan::BEGIN;
use super::producer::Producer;
use super::trial::OnTrial;
use super::world::{Directory, World};

/// How long a worker waits for records with nothing else to do.
const IDLE: i64 = 6;

/// How much longer each failed epoch in a row waits, and up to how many.
const FAILURE_PAUSE: i64 = 8;
const FAILURES_COUNTED: u32 = 8;

/// Pauses between tries of what must be done before anything else can go on.
const BACK_OFF_MIN: i64 = 4;
const BACK_OFF_MAX: i64 = 60;

/// How long things are still tried once the process was asked to end.
const STOPPING_MAX: i64 = 300;

/// Why the loop ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    Stopped,
    Fenced(String),
    Failed(String),
}

pub struct Loop {
    pub world: Rc<World>,
    pub life: usize,
    pub engine: Worker,
    pub member: Member,
    pub changelogs: Changelogs,
    pub awaited: Option<Awaited>,
    pub directory: Rc<Directory>,
    pub succession: Succession,
    /// None only while it is being replaced.
    producer: Option<Producer>,
    pub steps: Steps,
    /// Of the process' seats.
    pub number: u32,
    pub trial: Option<OnTrial>,
    /// The last version that this worker knows of.
    pub heard: u64,
    /// The process' name, by which seats are called.
    pub instance: Rc<str>,
    seat: Rc<str>,
    /// A task has stopped since somebody looked last.
    stopped: bool,
    stopping: bool,
    /// The last commit is in doubt.
    doubted: bool,
    /// Epochs that failed since the last one that was committed, and when that was looked at.
    failures: (u32, u64),
}

/// Why there is a producer.
const PRODUCER: &str = "a producer is replaced in one go";

impl Loop {
    pub fn new(
        world: &Rc<World>,
        life: usize,
        (instance, number): (&Rc<str>, u32),
        producer: Producer,
    ) -> Self {
        let directory = Rc::new(Directory::default());
        world.lives.borrow_mut()[life]
            .directories
            .push(Rc::clone(&directory));
        let topics = world.pipeline.topics.iter();
        let topics: Vec<Rc<str>> = topics.map(|topic| topic.topic.as_str().into()).collect();
        let seat = Rc::clone(&producer.seat);
        Self {
            engine: Worker::new(setup(world, instance, number)),
            member: Member::join(world, life, &seat, &topics.into()),
            changelogs: Changelogs::new(world, life),
            awaited: None,
            succession: Succession::default(),
            producer: Some(producer),
            steps: Steps::new(world, &directory),
            number,
            trial: None,
            heard: 1,
            instance: Rc::clone(instance),
            seat,
            directory,
            stopped: false,
            stopping: false,
            doubted: false,
            failures: (0, 0),
            world: Rc::clone(world),
            life,
        }
    }

    /// Runs until the worker is asked to stop or can't go on. A seat that is merely given up is kept until the session is over, unless
    /// the process is drained.
    pub async fn run_and_leave(mut self) -> Halt {
        let halt = loop {
            let turned = self.run().await;
            if let Err(halt) = turned {
                break halt;
            }
        };
        self.directory.places.borrow_mut().clear();
        let drains = self.world.lives.borrow()[self.life].drain;
        if drains && !matches!(halt, Halt::Fenced(_)) {
            self.member.leave().await;
        }
        if let Halt::Fenced(_) = halt {
            self.world.count(Course::Fenced);
        }
        self.note(|| format!("ended: {halt:?}"));
        halt
    }

    pub fn note(&self, line: impl FnOnce() -> String) {
        self.world.note(|| format!("{}: {}", self.seat, line()));
    }

    pub fn is_stopping(&self) -> bool {
        self.world.lives.borrow()[self.life].stop
    }

    fn now(&self) -> Duration {
        let since = u64::try_from(self.world.now() - BEGIN);
        Duration::from_millis(since.expect("the clock never goes back"))
    }

    async fn run(&mut self) -> Result<(), Halt> {
        if !self.stopping && self.is_stopping() {
            self.stopping = true;
            self.cut_trial_short("the process ends").await?;
            self.happened(Event::Stop).await?;
        }
        self.turn().await
    }

    async fn turn(&mut self) -> Result<(), Halt> {
        self.look_at_trials().await?;
        if self.holds() {
            return self.hold().await;
        }
        self.watch_tables().await?;
        let idle = self.consume().await? == 0;
        let rebalances = self.member.rebalances();
        if !rebalances.is_empty() {
            self.cut_trial_short("the group rebalances").await?;
        }
        for rebalance in rebalances {
            self.note(|| format!("{rebalance:?}"));
            self.count_rebalance(&rebalance);
            self.happened(match rebalance {
                Rebalance::Assigned(partitions) => Event::Assigned(partitions),
                Rebalance::Revoked => Event::Revoked,
                Rebalance::Lost => Event::Lost,
            })
            .await?;
        }
        let now = self.now();
        if idle || self.engine.is_due(now) {
            self.run_waiting().await?;
        }
        if let Err(why) = self.producer().poll().await
            && self.engine.is_open()
        {
            self.broken(Broken::Output(why)).await?;
        }
        if !self.judge_trial() {
            let now = self.now();
            self.happened(Event::Tick { now }).await?;
        }
        self.keep_up().await;
        Ok(())
    }

    pub async fn keep_up(&mut self) {
        if self.changelogs.poll().await > 0 {
            self.directory.touched.set(true);
        }
    }

    fn count_rebalance(&self, rebalance: &Rebalance) {
        let is_open = self.engine.is_open();
        match rebalance {
            Rebalance::Assigned(_) => self.world.count(Course::Assigned),
            Rebalance::Revoked if self.engine.waiting().is_some() => {
                self.world.count(Course::RevokedQueued);
            }
            Rebalance::Revoked if is_open => self.world.count(Course::RevokedOpen),
            Rebalance::Revoked => {}
            Rebalance::Lost if is_open => self.world.count(Course::LostOpen),
            Rebalance::Lost => self.world.count(Course::LostIdle),
        }
    }

    fn producer(&mut self) -> &mut Producer {
        self.producer.as_mut().expect(PRODUCER)
    }

    /// Takes in what the group has for us. Returns how many records came.
    async fn consume(&mut self) -> Result<usize, Halt> {
        let batches = self.member.poll().await.map_err(Halt::Fenced)?;
        if batches.is_empty() && self.engine.waiting().is_none() {
            self.world.sleep(IDLE).await;
        }
        let mut count = 0;
        for (at, fetched, most) in batches {
            let Ok(fetched) = fetched else {
                self.engine.unsettle(at);
                continue;
            };
            for record in fetched.records().take(most) {
                count += 1;
                let topic = self.engine.topic(at.topic).to_owned();
                let read = (topic.as_str(), at.partition);
                if let Err(violation) = self.world.judge.borrow().read(read, record.offset) {
                    self.world.violate(violation);
                }
                let Some(slot) = self.engine.slot(at) else {
                    continue;
                };
                let input = self.engine.append(slot);
                let (key, value) = (record.key, record.value);
                input.push(record.offset, record.timestamp, key, value, record.headers);
            }
        }
        self.pause_stopped();
        Ok(count)
    }

    /// Runs what is queued.
    async fn run_waiting(&mut self) -> Result<(), Halt> {
        while let Some(slot) = self.engine.waiting() {
            if let Err(broken) = self.run_slot(slot) {
                self.broken(broken).await?;
            }
        }
        self.pause_stopped();
        Ok(())
    }

    /// Runs a queue, in the open transaction or a new one.
    fn run_slot(&mut self, slot: Slot) -> Result<(), Broken> {
        if !self.engine.is_open() {
            let mut effects = Vec::new();
            let now = self.now();
            self.engine.on(Event::Work { now }, &mut effects);
            assert_eq!(
                effects,
                [Effect::Begin],
                "work opens a transaction and nothing else"
            );
            self.begin();
        }
        let at = self.engine.place(slot);
        let now = self.world.now();
        let mut output = Sending {
            world: &self.world,
            producer: self.producer.as_mut().expect(PRODUCER),
        };
        let ran = self.engine.run(slot, now, &mut self.steps, &mut output)?;
        self.world
            .note(|| format!("{}: ran {} of {at:?}", self.seat, ran.records));
        for _ in &ran.failures {
            let has_letters = self.world.plan.on_error == OnError::DeadLetter;
            self.world.count(if has_letters {
                Course::Letter
            } else {
                Course::Poison
            });
        }
        if ran.stopper().is_some() {
            self.world.count(Course::TaskStopped);
            self.stopped = true;
        }
        Ok(())
    }

    fn begin(&mut self) {
        self.world.count(Course::Begun);
        self.producer().begin();
    }

    async fn broken(&mut self, broken: Broken) -> Result<(), Halt> {
        if let Broken::Overdue(why) = &broken {
            self.cut_trial_short(why).await?;
            if !self.engine.is_open() {
                return Ok(());
            }
        }
        match broken {
            Broken::Output(why) | Broken::NotReady(why) | Broken::Overdue(why) => {
                self.world.count(Course::Broken);
                self.failed();
                self.note(|| format!("broken: {why}"));
                self.happened(Event::Broken(why)).await
            }
            Broken::Host(why) => Err(Halt::Failed(why)),
        }
    }

    fn failed(&mut self) {
        self.failures = (self.retrying() + 1, self.engine.tally().committed);
    }

    fn retrying(&self) -> u32 {
        let (failures, committed) = self.failures;
        if committed == self.engine.tally().committed {
            failures
        } else {
            0
        }
    }

    fn pause_stopped(&mut self) {
        if std::mem::take(&mut self.stopped) {
            let stopped = self.engine.stopped_partitions();
            self.member.pause(&stopped);
        }
    }

    /// Tells the engine what happened, and carries out what it wants, until it wants nothing more.
    pub async fn happened(&mut self, event: Event) -> Result<(), Halt> {
        let mut effects = Vec::new();
        self.engine.on(event, &mut effects);
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            self.note(|| format!("{effect:?}"));
            if let Some(answer) = self.carry_out(effect).await? {
                self.note(|| format!("{answer:?}"));
                let resolves = self.doubted && matches!(answer, Event::Offsets(_));
                let before = self.engine.tally().committed;
                let mut more = Vec::new();
                self.engine.on(answer, &mut more);
                if resolves {
                    self.doubted = false;
                    let found = self.engine.tally().committed > before;
                    self.world.count(if found {
                        Course::InDoubtFound
                    } else {
                        Course::InDoubtAbsent
                    });
                    if more.contains(&Effect::Unassign) {
                        self.world.count(Course::InDoubtRevoked);
                    }
                }
                effects.extend(more);
            }
            // Here a process may die as well.
            self.world.sleep(1).await;
        }
        Ok(())
    }

    async fn carry_out(&mut self, effect: Effect) -> Result<Option<Event>, Halt> {
        match effect {
            Effect::Begin => {
                self.begin();
                Ok(None)
            }
            Effect::Commit => {
                let verdict = self.commit().await;
                Ok(Some(Event::Verdict(verdict)))
            }
            Effect::Merge => {
                self.merge();
                Ok(None)
            }
            Effect::Replace => self.replace().await.map(|()| Some(Event::Replaced)),
            Effect::ReadOffsets(places) => {
                let offsets = self.read_offsets(&places).await?;
                Ok(Some(Event::Offsets(offsets)))
            }
            Effect::Assign(offsets) => self.assign(&offsets).await.map(|()| None),
            Effect::Unassign => {
                self.unassign();
                Ok(None)
            }
            Effect::Pause(places) => {
                self.member.pause(&places);
                Ok(None)
            }
            Effect::Seek(offsets) => {
                self.member.seek(&offsets);
                Ok(None)
            }
            Effect::End(End::Stopped) => Err(Halt::Stopped),
            Effect::End(End::Failed(Reason::Fenced(why))) => Err(Halt::Fenced(why)),
            Effect::End(End::Failed(Reason::Fatal(why))) => Err(Halt::Failed(why)),
        }
    }

    /// A new producer for the seat. Epochs that fail one after another are run again ever more slowly.
    async fn replace(&mut self) -> Result<(), Halt> {
        self.world.count(Course::Replaced);
        self.steps.discard();
        self.producer = None;
        let failures = self.retrying().saturating_sub(1).min(FAILURES_COUNTED);
        let until = self.world.now() + FAILURE_PAUSE * i64::from(failures);
        while self.world.now() < until && !self.is_stopping() {
            self.world.sleep(IDLE).await;
            self.look_after_seat();
        }
        let mut producer = Producer::new(&self.world, self.life, &self.seat);
        let mut stopping = None;
        while producer.init().await.is_none() {
            self.look_after_seat();
            self.give_up(&mut stopping)?;
        }
        self.producer = Some(producer);
        Ok(())
    }

    /// Once the process is to end, things are tried for a short while only.
    fn give_up(&self, stopping: &mut Option<i64>) -> Result<(), Halt> {
        if self.is_stopping() {
            let since = *stopping.get_or_insert(self.world.now());
            if self.world.now() - since > STOPPING_MAX {
                return Err(Halt::Stopped);
            }
        }
        Ok(())
    }

    /// Between two tries of something that must succeed.
    pub async fn back_off(
        &self,
        back_off: &mut i64,
        stopping: &mut Option<i64>,
    ) -> Result<(), Halt> {
        self.give_up(stopping)?;
        *back_off = (*back_off * 2).clamp(BACK_OFF_MIN, BACK_OFF_MAX);
        self.world.sleep(*back_off).await;
        Ok(())
    }

    pub fn look_after_seat(&self) {
        look_after_seat(&self.member, &self.directory);
    }

    async fn commit(&mut self) -> Verdict {
        let mut verdict = self.try_commit().await.unwrap_or_else(Verdict::Aborted);
        if let (Verdict::Aborted(_) | Verdict::InDoubt(_), Some(why)) =
            (&verdict, self.member.fenced())
        {
            // A new producer under this name would fence the process that has the seat now.
            verdict = Verdict::Fenced(why);
        }
        match &verdict {
            Verdict::Committed(Sends::Once) => self.world.count(Course::Merged),
            Verdict::Committed(Sends::Several) => self.world.count(Course::SentSeveral),
            Verdict::Aborted(_) => {
                self.world.count(Course::Aborted);
                self.failed();
            }
            Verdict::InDoubt(_) => {
                self.world.count(Course::InDoubt);
                self.doubted = true;
                self.failed();
            }
            Verdict::Fenced(_) | Verdict::Fatal(_) => {}
        }
        verdict
    }

    /// Steps' own state is as they changed it.
    fn merge(&mut self) {
        let maps = &self.world.pipeline.maps;
        let changes = self.engine.changes();
        let own = changes.filter(|change| maps[change.map.0].kept == Kept::State);
        self.changelogs.merge(own);
        self.directory.touched.set(true);
    }

    /// Errors are reasons to abort: nobody has asked for the transaction's end.
    async fn try_commit(&mut self) -> Result<Verdict, String> {
        self.send_changes()?;
        let producer = self.producer.as_mut().expect(PRODUCER);
        let (member, directory) = (&self.member, &self.directory);
        let is_lost = || is_lost(member, directory);
        if let Err(why) = producer.flush(&is_lost).await {
            return Ok(Verdict::Aborted(why));
        }
        let positions = member.positions();
        let (offsets, metadata) = self
            .engine
            .offsets_to_commit(|at| positions.get(&at).copied());
        let commit = member.commit_of(&offsets, metadata)?;
        if is_lost() {
            // What the group says of us now may be of a later life than these records.
            return Err("the partitions were lost".into());
        }
        self.world
            .note(|| format!("{}: commits {:?}", self.seat, commit.offsets));
        Ok(producer.commit(&commit, &is_lost).await)
    }

    fn send_changes(&mut self) -> Result<(), String> {
        let pipeline = &self.world.pipeline;
        let producer = self.producer.as_mut().expect(PRODUCER);
        self.engine.changes().try_for_each(|change| {
            let topic = pipeline.changelog(change.map).into();
            let at = (topic, change.partition);
            let (key, value) = (Some(change.key), change.value);
            producer.send(at, change.timestamp, key, value, std::iter::empty())
        })
    }
}

impl std::fmt::Debug for Loop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loop")
            .field("seat", &self.seat)
            .finish_non_exhaustive()
    }
}

fn look_after_seat(member: &Member, directory: &Directory) {
    if member.look_after_seat() {
        // Somebody else may be changing these partitions already.
        directory.places.borrow_mut().clear();
    }
}

fn is_lost(member: &Member, directory: &Directory) -> bool {
    look_after_seat(member, directory);
    member.is_lost()
}

/// Where topic sinks' records go.
struct Sending<'a> {
    world: &'a World,
    producer: &'a mut Producer,
}

impl Output for Sending<'_> {
    fn send(&mut self, sink: SinkId, record: &Record<'_>) -> Result<(), String> {
        let partitions = self.world.plan.partitions;
        let topic = match &self.world.pipeline.sinks[sink.0].target {
            Target::Topic(topic) | Target::Stream(topic) => topic.as_str().into(),
            Target::Map(_) => unreachable!("changes of maps wait in the overlay"),
        };
        let key = record.key.unwrap_or_default();
        let at = (topic, changelog::partition(key, partitions));
        let (key, value, headers) = (record.key, record.value, record.headers.iter());
        self.producer
            .send(at, record.timestamp, key, value, headers)
    }
}
