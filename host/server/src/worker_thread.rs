//! A worker's loop: polls the group, feeds the engine, carries out its effects. One thread, one group consumer, one transactional
//! producer, one changelog reader; everything here happens on that thread.
//!
//! Invariant: between two polls every effect that the engine asked for has been carried out, and its answer told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use millstream_engine::commit::machine::Reason;
use millstream_engine::pipeline::{Guarantee, Kept, MapId};
use millstream_engine::task::TopicPartition;
use millstream_engine::task::run::Broken;
use millstream_engine::worker::{Effect, End, Event, Setup, Slot, Worker};

use crate::awaited::Awaited;
use crate::changelogs::Changelogs;
use crate::cluster::{
    Cluster, Consumable as _, ConsumeError, Consumed, Member, Producer as _, Reader, Rebalance,
};
use crate::directory::{Directory, Holder};
use crate::failure_log::FailureLog;
use crate::fault;
use crate::insist::{Stopping, insist};
use crate::map_memory::MapMemory;
use crate::outlet::{OpenError, Outlet};
use crate::reporter::Reporter;
use crate::running::Running;
use crate::snapshots::Snapshots;
use crate::standby::Standbys;
use crate::status::{Phase, SharedStatus};
use crate::succession::Succession;
use crate::tables::Tables;
use crate::trials::Trials;
use crate::wasm::{StepPlugin, Steps};

mod assignment;
mod closing;
pub mod trial;

use trial::OnTrial;

/// How long a worker waits for records with nothing else to do: how late a tick may come, or a changed map entry be seen.
const IDLE: Duration = Duration::from_millis(5);

/// After how long without a look at its seat a worker doesn't take the client's word for it that it is still its own.
const STANDSTILL: Duration = Duration::from_secs(1);

/// How much longer each failed epoch in a row waits before it is run again, and up to how many.
const FAILURE_PAUSE: Duration = Duration::from_millis(200);
const FAILURES_COUNTED: u32 = 25;

/// What a worker thread is given.
#[derive(Debug)]
pub struct Seat<C> {
    pub setup: Setup,
    /// Of every map's topic, parallel to the pipeline's maps.
    pub partitions_of: Arc<[u32]>,
    /// The plugins, and those that are tried in their place.
    pub trials: Arc<Trials<Vec<StepPlugin>>>,
    /// Of a million records, how many a version that is tried may fail on.
    pub max_failures: Arc<AtomicU32>,
    pub tables: Arc<Tables>,
    pub outlet: Outlet<C>,
    pub directory: Arc<Directory>,
    pub memory: Arc<MapMemory>,
    pub standbys: Arc<Standbys>,
    pub snapshots: Option<Arc<Snapshots>>,
    pub status: SharedStatus,
    pub stop: Arc<AtomicBool>,
    /// Ending, the worker is to leave the group.
    pub drain: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(
        "another process has taken the seat \"{slot}\": {why}. Give each process its own --instance"
    )]
    Fenced { slot: String, why: String },
    #[error(
        "the last epoch could not be committed before the end: {0}. Nothing is lost: its records come again at the next start"
    )]
    Uncommitted(String),
    #[error("{0}")]
    Failed(String),
}

/// Why the loop ends.
enum Halt {
    Stopped,
    Failed(WorkerError),
}

impl From<Stopping> for Halt {
    fn from(_: Stopping) -> Self {
        Self::Stopped
    }
}

impl From<OpenError> for Halt {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Stopping(_) => Self::Stopped,
            OpenError::Refused(_) => Self::Failed(WorkerError::Failed(error.to_string())),
        }
    }
}

/// Runs until the worker is asked to stop or can't go on. The producer is the seat's.
pub fn run<C: Cluster>(seat: Seat<C>, producer: C::Producer) -> Result<(), WorkerError> {
    let status = Arc::clone(&seat.status);
    let result = Loop::start(seat, producer).and_then(|mut worker| worker.run_and_leave());
    status.lock().expect("nobody panics with it held").phase = Phase::Ended;
    match result {
        Err(Halt::Failed(error)) => Err(error),
        Err(Halt::Stopped) | Ok(()) => Ok(()),
    }
}

struct Loop<C: Cluster> {
    seat: Seat<C>,
    engine: Worker,
    consumer: C::Member,
    changelogs: Option<Changelogs<C::Reader>>,
    holder: Holder,
    /// None where nothing is assigned, or no step reads tables.
    awaited: Option<Awaited>,
    running: Running<C>,
    began: Instant,
    stopping: bool,
    reporter: Reporter,
    succession: Succession,
    trial: Option<OnTrial>,
    /// The number of the last version that it has heard of.
    heard: u64,
}

/// What queries may still ask must be folded still: whatever ends the loop, its partitions leave the directory.
impl<C: Cluster> Drop for Loop<C> {
    fn drop(&mut self) {
        if let Some(changelogs) = &self.changelogs {
            self.holder.remove(changelogs.held());
        }
    }
}

impl<C: Cluster> Loop<C> {
    fn start(seat: Seat<C>, producer: C::Producer) -> Result<Self, Halt> {
        let pipeline = &seat.setup.pipeline;
        let failed = |why: String| Halt::Failed(WorkerError::Failed(why));
        let maps = 0..pipeline.maps.len();
        let changelogs: Vec<String> = maps.map(|map| pipeline.topic_of(MapId(map))).collect();
        let topics: Vec<String> = pipeline
            .topics
            .iter()
            .map(|topic| topic.topic.clone())
            .collect();
        let cluster = &seat.outlet.cluster;
        let consumer = cluster.join(seat.setup.worker, &topics).map_err(failed)?;
        let reader = (!changelogs.is_empty()).then(|| cluster.reader());
        let reader = reader.transpose().map_err(failed)?;
        let memory = Arc::clone(&seat.memory);
        let current = seat.trials.current();
        let running = Running {
            producer: Some(producer),
            steps: Steps::new(&current.what, Arc::clone(&seat.tables)),
            outlet: seat.outlet.clone(),
            failures: FailureLog::new(),
            stopped: false,
            records: [0; 2],
        };
        Ok(Self {
            engine: Worker::new(seat.setup.clone()),
            consumer,
            changelogs: reader.map(|reader| {
                let snapshots = seat.snapshots.clone();
                let changelogs = Changelogs::new(reader, changelogs, memory, snapshots);
                changelogs
                    .with_standbys(&seat.standbys)
                    .with_ledger(&seat.setup.ledger, &seat.setup.pipeline)
            }),
            holder: Holder::new(&seat.directory),
            awaited: None,
            running,
            began: Instant::now(),
            stopping: false,
            reporter: Reporter::new(Arc::clone(&seat.status)),
            succession: Succession::default(),
            trial: None,
            heard: current.number,
            seat,
        })
    }

    /// Where the process is drained, the end of the loop is not the end: a seat that is merely given up is kept until the session is
    /// over.
    fn run_and_leave(&mut self) -> Result<(), Halt> {
        let ended = self.run();
        let fenced = matches!(ended, Err(Halt::Failed(WorkerError::Fenced { .. })));
        if fenced || !self.seat.drain.load(Ordering::Relaxed) {
            return ended;
        }
        if let Some(changelogs) = &self.changelogs {
            // Others change these partitions from now on.
            self.holder.remove(changelogs.held());
        }
        fault::reach("drain-committed");
        match (self.consumer.leave(), ended) {
            (Err(why), Ok(()) | Err(Halt::Stopped)) => {
                Err(Halt::Failed(WorkerError::Failed(format!(
                    "everything is committed, and the group could not be left: {why}. Others take over once the session is over"
                ))))
            }
            (_, ended) => ended,
        }
    }

    fn run(&mut self) -> Result<(), Halt> {
        loop {
            if !self.stopping && self.seat.stop.load(Ordering::Relaxed) {
                self.stopping = true;
                self.cut_trial_short("the process ends")?;
                self.happened(Event::Stop)?;
            }
            self.turn()?;
        }
    }

    fn turn(&mut self) -> Result<(), Halt> {
        self.look_at_trials()?;
        if self.holds() {
            return self.hold();
        }
        self.watch_tables()?;
        let idle = self.consume()? == 0;
        let rebalances = self.consumer.rebalances();
        if !rebalances.is_empty() {
            self.cut_trial_short("the group rebalances")?;
        }
        for rebalance in rebalances {
            self.rebalance(rebalance)?;
        }
        beat(&self.consumer, &self.holder);
        let now = self.began.elapsed();
        if idle || self.engine.is_due(now) {
            self.run_waiting()?;
        }
        if let Err(why) = self.running.producer().poll()
            && self.engine.is_open()
        {
            self.broken(Broken::Output(why))?;
        }
        if !self.judge_trial() {
            let now = self.began.elapsed();
            self.happened(match self.is_late() {
                true => Event::Close,
                false => Event::Tick { now },
            })?;
        }
        self.keep_up()
    }

    /// Whether failed calls have taken so much of the open epoch that it had better be closed.
    fn is_late(&self) -> bool {
        self.engine.is_open() && self.running.steps.are_late()
    }

    /// What is done in every turn: maps are read on, and it is said how things are.
    fn keep_up(&mut self) -> Result<(), Halt> {
        if let Some(changelogs) = &mut self.changelogs {
            let folded = changelogs.poll();
            folded.map_err(|why| Halt::Failed(WorkerError::Failed(why)))?;
        }
        self.running.failures.turn();
        self.running.steps.turn();
        let steps = self.running.steps.meters();
        self.reporter.publish(&self.engine, &self.consumer, steps);
        Ok(())
    }

    fn rebalance(&mut self, rebalance: Rebalance) -> Result<(), Halt> {
        match rebalance {
            Rebalance::Assigned(partitions) => {
                fault::reach("assigned-noted");
                self.happened(Event::Assigned(partitions))
            }
            Rebalance::Revoked => {
                fault::reach("revoked-noted");
                self.happened(Event::Revoked)
            }
            Rebalance::Lost => {
                fault::reach("lost-noted");
                self.happened(Event::Lost)
            }
        }
    }

    /// Takes in what the group has for us; full queues are run at once. Returns how many records came.
    fn consume(&mut self) -> Result<usize, Halt> {
        let wait = if self.engine.waiting().is_some() {
            Duration::ZERO
        } else {
            IDLE
        };
        let most = self.engine.records_max();
        let (engine, running, began) = (&mut self.engine, &mut self.running, self.began);
        let mut place: Option<(TopicPartition, Option<Slot>)> = None;
        let mut result = Ok(());
        let polled = self.consumer.poll(wait, most, |at, consumed| {
            if result.is_err() {
                // The epoch is broken: these records come again.
                return;
            }
            let record = match consumed {
                Consumed::Record(record) => record,
                Consumed::Unsettled => return engine.unsettle(at),
                Consumed::Unreadable(why) => {
                    place = None;
                    return running.stop(engine, at, &why);
                }
            };
            let slot = match place {
                Some((last, slot)) if last == at => slot,
                _ => engine.slot(at),
            };
            place = Some((at, slot));
            let Some(slot) = slot else { return };
            let input = engine.append(slot);
            input.push(
                record.offset(),
                record.timestamp(),
                record.key(),
                record.value(),
                record.headers(),
            );
            if input.is_full() {
                result = running.run(engine, slot, began);
                place = None;
            }
        });
        match polled {
            Ok(count) => {
                result.or_else(|broken| self.broken(broken))?;
                self.pause_stopped()?;
                Ok(count)
            }
            Err(ConsumeError::Fenced(why)) => Err(self.fenced(why)),
            Err(error) => Err(Halt::Failed(WorkerError::Failed(error.to_string()))),
        }
    }

    /// Runs what is queued, full or not.
    fn run_waiting(&mut self) -> Result<(), Halt> {
        while let Some(slot) = self.engine.waiting()
            && !self.is_late()
        {
            if let Err(broken) = self.running.run(&mut self.engine, slot, self.began) {
                self.broken(broken)?;
            }
        }
        self.pause_stopped()
    }

    fn broken(&mut self, broken: Broken) -> Result<(), Halt> {
        match broken {
            Broken::Output(why) => {
                if let Some(refusal) = self.running.producer().refusal() {
                    return Err(Halt::Failed(WorkerError::Failed(refusal)));
                }
                tracing::warn!("the epoch is aborted and will be run again: {why}");
                self.reporter.failed(&self.engine, &why);
                self.happened(Event::Broken(why))
            }
            Broken::Overdue(why) => {
                self.cut_trial_short(&why)?;
                if !self.engine.is_open() {
                    return Ok(());
                }
                tracing::warn!(
                    "the epoch is aborted and will be run again, fewer records at a time: {why}"
                );
                self.reporter.failed(&self.engine, &why);
                self.happened(Event::Broken(why))
            }
            Broken::NotReady(why) => {
                tracing::warn!("the epoch is aborted and will be run again: {why}");
                self.reporter.failed(&self.engine, &why);
                self.happened(Event::Broken(why))
            }
            Broken::Host(why) => Err(Halt::Failed(WorkerError::Failed(why))),
        }
    }

    fn pause_stopped(&mut self) -> Result<(), Halt> {
        if std::mem::take(&mut self.running.stopped) {
            let stopped = self.engine.stopped_partitions();
            self.pause(&stopped)?;
            self.reporter.hurry();
        }
        Ok(())
    }

    fn pause(&mut self, places: &[TopicPartition]) -> Result<(), Halt> {
        self.consumer
            .pause(places)
            .map_err(|why| Halt::Failed(WorkerError::Failed(why)))
    }

    /// Tells the engine what happened, and carries out what it wants, until it wants nothing more.
    fn happened(&mut self, event: Event) -> Result<(), Halt> {
        let mut effects = Vec::new();
        self.engine.on(event, &mut effects);
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            if let Some(answer) = self.carry_out(effect)? {
                let mut more = Vec::new();
                self.engine.on(answer, &mut more);
                effects.extend(more);
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<Option<Event>, Halt> {
        match effect {
            Effect::Begin => {
                self.running.begin(&self.engine);
                Ok(None)
            }
            Effect::Commit => {
                let verdict = self.commit();
                self.expect_changes(&verdict);
                fault::reach("epoch-judged");
                Ok(Some(Event::Verdict(verdict)))
            }
            Effect::Merge => self.merge().map(|()| None),
            Effect::Replace => self.replace().map(|()| Some(Event::Replaced)),
            Effect::ReadOffsets(places) => self
                .read_offsets(&places)
                .map(|offsets| Some(Event::Offsets(offsets))),
            Effect::Assign(offsets) => self.assign(&offsets).map(|()| None),
            Effect::Unassign => self.unassign().map(|()| None),
            Effect::Pause(places) => self.pause(&places).map(|()| None),
            Effect::Seek(offsets) => {
                let look = || self.look_after_seat();
                insist(
                    &self.seat.stop,
                    "going back to the committed offsets",
                    &look,
                    || {
                        match self.consumer.seek(&offsets) {
                            // What was lost is not read any more; the next poll says so.
                            Err(_) if self.consumer.is_lost() => Ok(()),
                            sought => sought,
                        }
                    },
                )?;
                fault::reach("rewind-sought");
                Ok(None)
            }
            Effect::End(End::Stopped) => Err(self.stopped()),
            Effect::End(End::Failed(Reason::Fenced(why))) => Err(self.fenced(why)),
            Effect::End(End::Failed(Reason::Fatal(why))) => {
                Err(Halt::Failed(WorkerError::Failed(why)))
            }
        }
    }

    /// A new producer for the seat. Epochs that fail one after another are run again ever more slowly.
    fn replace(&mut self) -> Result<(), Halt> {
        // What the plugins saw since the last checkpoint may be rolled back.
        self.running.steps.discard();
        fault::reach("replace-begun");
        if fault::keeps(self.running.producer()) {
            return self.restore_state();
        }
        // Gone before the next one is made: it might still send what it was asked to.
        self.running.producer = None;
        fault::reach("replace-dropped");
        let retrying = self.reporter.retrying(&self.engine);
        let failures = retrying.map_or(0, |retrying| retrying.epochs);
        let pause = FAILURE_PAUSE * failures.saturating_sub(1).min(FAILURES_COUNTED);
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.seat.stop.load(Ordering::Relaxed) {
            std::thread::sleep(IDLE);
            self.look_after_seat();
        }
        let producer = self
            .seat
            .outlet
            .open(&self.seat.stop, &|| self.look_after_seat())?;
        self.running.producer = Some(producer);
        fault::reach("replace-opened");
        self.restore_state()
    }

    /// Without transactions, what a failed epoch sent to changelogs stands there: it is read back before steps go on.
    fn restore_state(&mut self) -> Result<(), Halt> {
        let (Guarantee::AtLeastOnce, Some(changelogs)) =
            (self.engine.guarantee(), &mut self.changelogs)
        else {
            return Ok(());
        };
        let maps = &self.seat.setup.pipeline.maps;
        let is_state = |map: MapId| maps[map.0].kept == Kept::State;
        let stop = &self.seat.stop;
        insist(stop, "opening the changelogs", &|| (), || {
            changelogs.restore(is_state)
        })?;
        Ok(())
    }

    /// To be called twice a second by what keeps this thread from polling.
    fn look_after_seat(&self) {
        look_after_seat(&self.consumer, &self.changelogs, &self.holder);
    }

    /// The end that was asked for: a clean one unless the last epoch failed.
    fn stopped(&self) -> Halt {
        match self.reporter.retrying(&self.engine) {
            None => Halt::Stopped,
            Some(failed) => Halt::Failed(WorkerError::Uncommitted(failed.reason.clone())),
        }
    }

    fn fenced(&self, why: String) -> Halt {
        Halt::Failed(WorkerError::Fenced {
            slot: self.seat.outlet.cluster.seat(self.seat.setup.worker),
            why,
        })
    }
}

fn look_after_seat<M: Member, R: Reader>(
    member: &M,
    changelogs: &Option<Changelogs<R>>,
    holder: &Holder,
) {
    if member.look_after_seat()
        && let Some(changelogs) = changelogs
    {
        // Somebody else may be changing these partitions already.
        holder.remove(changelogs.held());
    }
    beat(member, holder);
}

/// Queries are answered from what the worker holds, for as long as this is called.
fn beat<M: Member>(member: &M, holder: &Holder) {
    if holder.age() > STANDSTILL {
        member.look_at_session();
    }
    if !member.is_lost() {
        holder.beat();
    }
}

/// Whether the partitions are others' by now. To be asked twice a second by what keeps a worker from polling.
fn is_lost<M: Member, R: Reader>(
    member: &M,
    changelogs: &Option<Changelogs<R>>,
    holder: &Holder,
) -> bool {
    look_after_seat(member, changelogs, holder);
    member.is_lost()
}
