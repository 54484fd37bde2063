//! Running records in a worker: the engine decides, plugins work, the producer takes what comes out.
//!
//! Invariant: records are run in an open transaction only, and one is opened only for records.

use std::time::Instant;

use millstream_engine::pipeline::Guarantee;
use millstream_engine::task::TopicPartition;
use millstream_engine::task::run::Broken;
use millstream_engine::worker::{Effect, Event, Slot, Worker};

use crate::cluster::{Cluster, Producer as _};
use crate::failure_log::FailureLog;
use crate::fault;
use crate::outlet::{Outlet, Sending};
use crate::wall_clock;
use crate::wasm::Steps;
use crate::worker_thread::trial::Failings;

/// Why there is a producer.
const PRODUCER: &str = "a producer is replaced in one go";

/// What running records takes, beside the engine.
pub struct Running<C: Cluster> {
    /// None only while it is being replaced.
    pub producer: Option<C::Producer>,
    pub steps: Steps,
    pub outlet: Outlet<C>,
    pub failures: FailureLog,
    /// A task has stopped since somebody looked last.
    pub stopped: bool,
    /// Records that were run, and those of them that failed, be it that they come again.
    pub records: [u64; 2],
}

impl<C: Cluster> Running<C> {
    pub fn producer(&mut self) -> &mut C::Producer {
        self.producer.as_mut().expect(PRODUCER)
    }

    /// Ends the task whose records can't be had.
    pub fn stop(&mut self, engine: &mut Worker, at: TopicPartition, why: &str) {
        if let Some(offset) = engine.stop(at, why) {
            let (topic, partition) = (engine.topic(at.topic), at.partition);
            tracing::error!(
                topic,
                partition,
                offset,
                "the source can't be read on, and its task stops here: {why}"
            );
            self.stopped = true;
        }
    }

    pub fn begin(&mut self, engine: &Worker) {
        self.steps.begin_epoch();
        fault::began(engine.token());
        if engine.guarantee() == Guarantee::ExactlyOnce
            && let Err(error) = self.producer().begin()
        {
            // The first send fails too, and that breaks the epoch.
            tracing::warn!("no transaction could be begun: {error}");
        }
    }

    /// Runs a queue, in the open transaction or a new one.
    pub fn run(&mut self, engine: &mut Worker, slot: Slot, began: Instant) -> Result<(), Broken> {
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
            self.begin(engine);
            fault::reach("epoch-begun");
        }
        let mut output = Sending {
            producer: self.producer.as_mut().expect(PRODUCER),
            outlet: &self.outlet,
        };
        let at = engine.place(slot);
        let is_alone = engine.queue(slot).len() == 1;
        self.steps.expect_patience(is_alone);
        let ran = engine.run(slot, wall_clock::now(), &mut self.steps, &mut output)?;
        fault::reach("epoch-batch-run");
        for failure in &ran.failures {
            self.failures
                .log(engine.topic(at.topic), at.partition, failure);
        }
        self.records[0] += ran.records as u64;
        self.records[1] += ran.failures.len() as u64;
        self.stopped |= ran.stopper().is_some();
        Ok(())
    }

    /// What plugins failed at so far.
    pub fn failings(&self) -> Failings {
        let meters = self.steps.meters().iter();
        let calls = meters.map(|meter| meter.failed_calls + meter.hits.of_calls());
        Failings {
            calls: calls.sum(),
            run: self.records[0],
            failed: self.records[1],
        }
    }

    pub fn send_changes(&mut self, engine: &Worker) -> Result<(), String> {
        let producer = self.producer.as_mut().expect(PRODUCER);
        engine
            .changes()
            .try_for_each(|change| self.outlet.send_change(producer, &change))
    }
}
