//! A worker's loop: polls the group, feeds the engine, carries out its effects. One thread, one group consumer, one transactional
//! producer, one changelog reader; everything here happens on that thread.
//!
//! Invariant: between two polls every effect that the engine asked for has been carried out, and its answer told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use millstream_engine::commit::machine::Reason;
use millstream_engine::commit::verdict::{Sends, Verdict};
use millstream_engine::pipeline::{Guarantee, SinkId, Target};
use millstream_engine::record::{Headers, Record};
use millstream_engine::task::TopicPartition;
use millstream_engine::task::failure::RecordFailure;
use millstream_engine::task::run::{Broken, Output};
use millstream_engine::worker::{CommittedOffset, Effect, End, Event, Setup, Slot, Worker};

use crate::directory::Directory;
use crate::kafka::{
    ChangelogReader, Clients, Commit, ConsumeError, GroupConsumer, Producer, Rebalance,
    TransactionError,
};
use crate::status::{Phase, SharedStatus};
use crate::wasm::{StepPlugin, Steps};

/// How long a worker waits for records with nothing else to do: how late a tick may come, or a changed map entry be seen.
const IDLE: Duration = Duration::from_millis(5);

/// How often a worker's status is made known.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);

/// Pauses between tries of what must succeed for the worker to go on.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// How long things are still tried once the process was asked to end.
const STOPPING_MAX: Duration = Duration::from_secs(10);

/// Failed records that are logged one by one in a second; the others are counted.
const FAILURE_LINES_MAX: u32 = 20;

/// What a worker thread is given.
#[derive(Debug)]
pub struct Seat {
    pub clients: Clients,
    pub setup: Setup,
    pub steps: Arc<Vec<StepPlugin>>,
    /// The smallest and the largest `max.message.bytes` of all topics written to.
    pub record_bytes: (usize, usize),
    pub directory: Arc<Directory>,
    pub status: SharedStatus,
    pub stop: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(
        "another process has taken the seat \"{slot}\": {why}. Give each process its own --instance"
    )]
    Fenced { slot: String, why: String },
    #[error("{0}")]
    Failed(String),
    #[error("it panicked")]
    Panicked,
}

/// Why the loop ends.
enum Halt {
    Stopped,
    Failed(WorkerError),
}

/// Runs until the worker is asked to stop or can't go on.
pub fn run(seat: Seat) -> Result<(), WorkerError> {
    let status = Arc::clone(&seat.status);
    let result = Loop::start(seat).and_then(|mut worker| worker.run());
    status.lock().expect("nobody panics with it held").phase = Phase::Ended;
    match result {
        Err(Halt::Failed(error)) => Err(error),
        Err(Halt::Stopped) | Ok(()) => Ok(()),
    }
}

struct Loop {
    seat: Seat,
    engine: Worker,
    consumer: GroupConsumer,
    changelogs: Option<ChangelogReader>,
    running: Running,
    began: Instant,
    status_due: Instant,
    stopping: bool,
}

/// What running records takes, beside the engine.
struct Running {
    producer: Producer,
    steps: Steps,
    /// The producer's topics: those of the topic sinks by sink, and the changelogs by map.
    sinks: Vec<Option<usize>>,
    changelogs: Vec<usize>,
    failures: FailureLog,
}

impl Loop {
    fn start(seat: Seat) -> Result<Self, Halt> {
        let pipeline = &seat.setup.pipeline;
        let failed = |why: String| Halt::Failed(WorkerError::Failed(why));
        let maps: Vec<_> = (0..pipeline.maps.len())
            .map(millstream_engine::pipeline::MapId)
            .collect();
        let changelogs: Vec<String> = maps.iter().map(|&map| pipeline.changelog(map)).collect();
        // Before anything is read: this ends what an earlier life of this seat left open.
        let producer = make_producer(&seat)?;
        let topics: Vec<String> = pipeline
            .topics
            .iter()
            .map(|topic| topic.topic.clone())
            .collect();
        let consumer =
            GroupConsumer::join(&seat.clients, seat.setup.worker, &topics).map_err(failed)?;
        let reader = (!changelogs.is_empty())
            .then(|| ChangelogReader::new(&seat.clients, changelogs, seat.setup.run))
            .transpose()
            .map_err(failed)?;
        let (sinks, changelogs) = routes(&seat);
        let running = Running {
            producer,
            steps: Steps::new(Arc::clone(&seat.steps)),
            sinks,
            changelogs,
            failures: FailureLog::new(),
        };
        let now = Instant::now();
        Ok(Self {
            engine: Worker::new(seat.setup.clone()),
            consumer,
            changelogs: reader,
            running,
            began: now,
            status_due: now,
            stopping: false,
            seat,
        })
    }

    fn run(&mut self) -> Result<(), Halt> {
        loop {
            if !self.stopping && self.seat.stop.load(Ordering::Relaxed) {
                self.stopping = true;
                self.happened(Event::Stop)?;
            }
            self.turn()?;
        }
    }

    fn turn(&mut self) -> Result<(), Halt> {
        let idle = self.consume()? == 0;
        for rebalance in self.consumer.rebalances() {
            self.happened(match rebalance {
                Rebalance::Assigned(partitions) => Event::Assigned(partitions),
                Rebalance::Revoked => Event::Revoked,
                Rebalance::Lost => Event::Lost,
            })?;
        }
        let now = self.began.elapsed();
        if idle || self.engine.is_due(now) {
            self.run_waiting()?;
        }
        if let Err(why) = self.running.producer.poll(Duration::ZERO)
            && self.engine.is_open()
        {
            self.broken(Broken::Output(why))?;
        }
        self.happened(Event::Tick {
            now: self.began.elapsed(),
        })?;
        if let Some(changelogs) = &mut self.changelogs {
            changelogs.poll();
        }
        self.publish();
        Ok(())
    }

    /// Takes in what the group has for us; full queues are run at once. Returns how many records came.
    fn consume(&mut self) -> Result<usize, Halt> {
        let wait = if self.engine.waiting().is_some() {
            Duration::ZERO
        } else {
            IDLE
        };
        let (engine, running, began) = (&mut self.engine, &mut self.running, self.began);
        let mut place: Option<(TopicPartition, Option<Slot>)> = None;
        let mut result = Ok(());
        let polled = self.consumer.poll(wait, |at, record| {
            if result.is_err() {
                // The epoch is broken: these records come again.
                return;
            }
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
        while let Some(slot) = self.engine.waiting() {
            if let Err(broken) = self.running.run(&mut self.engine, slot, self.began) {
                self.broken(broken)?;
            }
        }
        self.pause_stopped()
    }

    fn broken(&mut self, broken: Broken) -> Result<(), Halt> {
        match broken {
            Broken::Output(why) => {
                tracing::warn!("the epoch is aborted and will be run again: {why}");
                self.happened(Event::Broken(why))
            }
            Broken::Host(why) => Err(Halt::Failed(WorkerError::Failed(why))),
        }
    }

    fn pause_stopped(&mut self) -> Result<(), Halt> {
        if std::mem::take(&mut self.running.failures.stopped) {
            let stopped = self.engine.stopped_partitions();
            self.consumer
                .pause(&stopped)
                .map_err(|why| Halt::Failed(WorkerError::Failed(why)))?;
            self.status_due = Instant::now();
        }
        Ok(())
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
                self.running.begin(self.seat.clients.guarantee);
                Ok(None)
            }
            Effect::Commit => Ok(Some(Event::Verdict(self.commit()))),
            Effect::Replace => {
                self.running.producer = make_producer(&self.seat)?;
                Ok(Some(Event::Replaced))
            }
            Effect::ReadOffsets(places) => self
                .read_offsets(&places)
                .map(|offsets| Some(Event::Offsets(offsets))),
            Effect::Assign(offsets) => self.assign(&offsets).map(|()| None),
            Effect::Unassign => self.unassign().map(|()| None),
            Effect::Seek(offsets) => {
                // What the plugins saw since the last checkpoint was rolled back.
                self.running.steps.discard();
                insist(
                    &self.seat.stop,
                    "going back to the committed offsets",
                    || self.consumer.seek(&offsets),
                )?;
                Ok(None)
            }
            Effect::End(End::Stopped) => Err(Halt::Stopped),
            Effect::End(End::Failed(Reason::Fenced(why))) => Err(self.fenced(why)),
            Effect::End(End::Failed(Reason::Fatal(why))) => {
                Err(Halt::Failed(WorkerError::Failed(why)))
            }
        }
    }

    fn commit(&mut self) -> Verdict {
        let verdict = self.try_commit().unwrap_or_else(Verdict::Aborted);
        match &verdict {
            Verdict::Committed(Sends::Once) => {}
            Verdict::Committed(Sends::Several) => tracing::info!("committed after several tries"),
            Verdict::Aborted(why) => {
                tracing::warn!("the epoch is aborted and will be run again: {why}")
            }
            Verdict::InDoubt(why) => {
                tracing::warn!("the commit is in doubt: {why}; reading the offsets back")
            }
            Verdict::Fenced(why) | Verdict::Fatal(why) => {
                tracing::error!("the commit failed: {why}")
            }
        }
        verdict
    }

    /// Errors are reasons to abort: nothing that ends the transaction was sent.
    fn try_commit(&mut self) -> Result<Verdict, String> {
        self.running.send_changes(&self.engine)?;
        let producer = &self.running.producer;
        producer.flush()?;
        let held: Vec<TopicPartition> = self.engine.held().map(|(at, _)| at).collect();
        let positions = self.consumer.positions(&held);
        let (offsets, metadata) = self
            .engine
            .offsets_to_commit(|at| positions.get(&at).copied());
        let offsets = self.consumer.offsets(&offsets, &metadata);
        match self.seat.clients.guarantee {
            Guarantee::ExactlyOnce => {
                let group = self
                    .consumer
                    .group()
                    .ok_or("the group does not count this worker in")?;
                Ok(producer.commit(&Commit {
                    offsets: &offsets,
                    group: &group,
                }))
            }
            Guarantee::AtLeastOnce => {
                self.consumer
                    .commit(&offsets)
                    .map_err(|code| code.to_string())?;
                Ok(Verdict::Committed(Sends::Once))
            }
        }
    }

    fn read_offsets(&self, places: &[TopicPartition]) -> Result<Vec<CommittedOffset>, Halt> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        insist(&self.seat.stop, "reading the committed offsets", || {
            let committed = self.consumer.committed(places)?.into_iter().map(
                |(partition, offset, metadata)| {
                    let offset =
                        offset.map_or_else(|| self.consumer.first_offset(partition), Ok)?;
                    Ok(CommittedOffset {
                        partition,
                        offset,
                        metadata,
                    })
                },
            );
            committed.collect()
        })
    }

    fn assign(&mut self, offsets: &[(TopicPartition, i64)]) -> Result<(), Halt> {
        insist(&self.seat.stop, "taking the partitions", || {
            self.consumer.assign(offsets)
        })?;
        if let Some(changelogs) = &mut self.changelogs {
            let mut numbers: Vec<u32> = offsets.iter().map(|(at, _)| at.partition).collect();
            numbers.sort_unstable();
            numbers.dedup();
            insist(&self.seat.stop, "opening the changelogs", || {
                changelogs.take(&numbers)
            })?;
            self.seat.directory.add(changelogs.held());
        }
        let held: Vec<String> = offsets
            .iter()
            .map(|(at, offset)| self.describe(*at, *offset))
            .collect();
        tracing::info!(
            worker = self.seat.setup.worker,
            "assigned: {}",
            held.join(" ")
        );
        self.set_phase(Phase::Running);
        Ok(())
    }

    fn describe(&self, at: TopicPartition, offset: i64) -> String {
        format!(
            "{}[{}]@{offset}",
            self.seat.setup.pipeline.topics[at.topic.0].topic, at.partition
        )
    }

    fn unassign(&mut self) -> Result<(), Halt> {
        if let Some(changelogs) = &mut self.changelogs {
            self.seat.directory.remove(changelogs.held().keys());
            changelogs
                .park()
                .map_err(|why| Halt::Failed(WorkerError::Failed(why)))?;
        }
        self.consumer
            .unassign()
            .map_err(|why| Halt::Failed(WorkerError::Failed(why)))?;
        tracing::info!(worker = self.seat.setup.worker, "all partitions given up");
        self.set_phase(Phase::Joining);
        Ok(())
    }

    fn fenced(&self, why: String) -> Halt {
        Halt::Failed(WorkerError::Fenced {
            slot: self.seat.clients.slot(self.seat.setup.worker),
            why,
        })
    }

    fn set_phase(&mut self, phase: Phase) {
        self.seat
            .status
            .lock()
            .expect("nobody panics with it held")
            .phase = phase;
        self.status_due = Instant::now();
    }

    fn publish(&mut self) {
        let now = Instant::now();
        if now < self.status_due {
            return;
        }
        self.status_due = now + STATUS_INTERVAL;
        let mut status = self.seat.status.lock().expect("nobody panics with it held");
        status.held = self.engine.held().collect();
        status.stopped = self.engine.stopped().cloned().collect();
        status.tally.clone_from(self.engine.tally());
    }
}

impl Running {
    fn begin(&self, guarantee: Guarantee) {
        if guarantee == Guarantee::ExactlyOnce
            && let Err(error) = self.producer.begin()
        {
            // The first send fails too, and that breaks the epoch.
            tracing::warn!("no transaction could be begun: {error}");
        }
    }

    /// Runs a queue, in the open transaction or a new one.
    fn run(&mut self, engine: &mut Worker, slot: Slot, began: Instant) -> Result<(), Broken> {
        if !engine.is_open() {
            let mut effects = Vec::new();
            engine.on(
                Event::Work {
                    now: began.elapsed(),
                },
                &mut effects,
            );
            assert_eq!(
                effects,
                [Effect::Begin],
                "work opens a transaction and nothing else"
            );
            self.begin(engine.guarantee());
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        });
        let mut output = Sending {
            producer: &mut self.producer,
            topics: &self.sinks,
        };
        let at = engine.place(slot);
        let ran = engine.run(slot, now, &mut self.steps, &mut output)?;
        for failure in &ran.failures {
            self.failures.log(engine, at, failure);
        }
        self.failures.stopped |= ran.stopper().is_some();
        Ok(())
    }

    fn send_changes(&mut self, engine: &Worker) -> Result<(), String> {
        let none = Headers::default();
        for change in engine.changes() {
            let record = Record {
                key: Some(change.key),
                value: change.value,
                timestamp: change.timestamp,
                headers: none.of(0),
            };
            self.producer.send(
                self.changelogs[change.map.0],
                Some(change.partition),
                &record,
            )?;
        }
        Ok(())
    }
}

/// Where topic sinks' records go.
struct Sending<'a> {
    producer: &'a mut Producer,
    topics: &'a [Option<usize>],
}

impl Output for Sending<'_> {
    fn send(&mut self, sink: SinkId, record: &Record<'_>) -> Result<(), String> {
        let topic = self.topics[sink.0].expect("the engine sends only what goes to topics");
        self.producer.send(topic, None, record)
    }
}

/// Logs failed records, but not thousands a second.
struct FailureLog {
    second: Instant,
    lines: u32,
    silent: u64,
    /// A task has stopped since somebody looked last.
    stopped: bool,
}

impl FailureLog {
    fn new() -> Self {
        Self {
            second: Instant::now(),
            lines: 0,
            silent: 0,
            stopped: false,
        }
    }

    fn log(&mut self, engine: &Worker, at: TopicPartition, failure: &RecordFailure) {
        if self.second.elapsed() >= Duration::from_secs(1) {
            if self.silent > 0 {
                tracing::warn!(
                    "{} more records failed; /v1/status counts them all",
                    self.silent
                );
            }
            *self = Self {
                stopped: self.stopped,
                ..Self::new()
            };
        }
        let RecordFailure {
            at: place,
            offset,
            reason,
            on_error,
        } = failure;
        let (topic, partition) = (engine.topic(at.topic), at.partition);
        if *on_error == millstream_engine::pipeline::OnError::Fail {
            tracing::error!(
                topic,
                partition,
                offset,
                "{place} failed, and its task stops here: {reason}"
            );
        } else if self.lines < FAILURE_LINES_MAX {
            self.lines += 1;
            tracing::warn!(
                topic,
                partition,
                offset,
                "{place} skipped a record: {reason}"
            );
        } else {
            self.silent += 1;
        }
    }
}

/// The producer's topics, in the order that `make_producer` gives them: sinks' topics, then changelogs.
fn topics(seat: &Seat) -> Vec<String> {
    let pipeline = &seat.setup.pipeline;
    let sinks = pipeline.sinks.iter().filter_map(|sink| match &sink.target {
        Target::Topic(topic) => Some(topic.clone()),
        Target::Map(_) => None,
    });
    let maps = (0..pipeline.maps.len())
        .map(|map| pipeline.changelog(millstream_engine::pipeline::MapId(map)));
    sinks.chain(maps).collect()
}

fn routes(seat: &Seat) -> (Vec<Option<usize>>, Vec<usize>) {
    let pipeline = &seat.setup.pipeline;
    let mut next = 0..;
    let sinks = pipeline.sinks.iter().map(|sink| match &sink.target {
        Target::Topic(_) => next.next(),
        Target::Map(_) => None,
    });
    let sinks = sinks.collect();
    (sinks, next.take(pipeline.maps.len()).collect())
}

/// A producer in its seat: whatever the seat's last one left open is ended.
fn make_producer(seat: &Seat) -> Result<Producer, Halt> {
    let (smallest, largest) = seat.record_bytes;
    let config = seat.clients.producer(seat.setup.worker, smallest, largest);
    let topics = topics(seat);
    let mut refused = None;
    let producer = insist(&seat.stop, "initialising the producer", || {
        let producer = Producer::new(&config, &topics)?;
        if seat.clients.guarantee == Guarantee::AtLeastOnce {
            return Ok(Some(producer));
        }
        match init(&producer) {
            Ok(()) => Ok(Some(producer)),
            Err(error) if error.is_refused() => {
                refused = Some(error);
                Ok(None)
            }
            Err(error) => Err(error.to_string()),
        }
    })?;
    producer.ok_or_else(|| {
        let why = refused.map_or_else(String::new, |error| error.to_string());
        Halt::Failed(WorkerError::Failed(format!(
            "the producer can't be initialised: {why}"
        )))
    })
}

fn init(producer: &Producer) -> Result<(), TransactionError> {
    const TRIES: u32 = 4;
    let mut result = Ok(());
    for _ in 0..TRIES {
        result = producer.init(Duration::from_secs(5));
        match &result {
            Err(error) if error.retriable => {}
            _ => return result,
        }
    }
    result
}

/// Tries until it succeeds, saying so; once the process is to end, for a short while only.
fn insist<T>(
    stop: &AtomicBool,
    what: &str,
    mut attempt: impl FnMut() -> Result<T, String>,
) -> Result<T, Halt> {
    let mut back_off = BACK_OFF_MIN;
    let mut stopping: Option<Instant> = None;
    loop {
        let why = match attempt() {
            Ok(done) => return Ok(done),
            Err(why) => why,
        };
        if stop.load(Ordering::Relaxed) {
            let since = *stopping.get_or_insert_with(Instant::now);
            if since.elapsed() > STOPPING_MAX {
                tracing::warn!("{what} did not succeed before the end: {why}");
                return Err(Halt::Stopped);
            }
        }
        tracing::warn!("{what}: {why}; trying again in {back_off:?}");
        std::thread::sleep(back_off);
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}
