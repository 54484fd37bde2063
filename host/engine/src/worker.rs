//! A worker's decisions: what its epochs, tasks and partitions do about everything that happens to them.
//!
//! The caller owns the loop: it tells [`Worker::on`] what happened and carries out the effects, one by one and in order, before
//! anything else; some of them answer with another event. Records come by [`Worker::append`] and leave in [`Worker::run`].
//!
//! Invariants: partitions are given up only when no transaction is open; a transaction is opened only for work; what a commit
//! covers is what [`Worker::offsets_to_commit`] said last.

mod event;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::commit::ledger::Ledger;
use crate::commit::machine::{self, Action, Resolution, State};
use crate::commit::token::Token;
use crate::commit::verdict::Verdict;
use crate::pipeline::{Guarantee, Pipeline, TopicId};
use crate::record::Columns;
use crate::state::overlay::{Change, Overlay};
use crate::step::Plugin;
use crate::tally::Tally;
use crate::task::failure::{Kind, Stopped};
use crate::task::input::{BATCH_RECORDS_MAX, Input};
use crate::task::run::{self, Broken, Origin, Output, Ran, SinkLimits, Surroundings};
use crate::task::{Task, TaskId, TopicPartition};

pub use event::{CommittedOffset, Effect, End, Event};

/// What a worker is told once.
#[derive(Clone, Debug)]
pub struct Setup {
    pub pipeline: Arc<Pipeline>,
    /// Parallel to the pipeline's sinks.
    pub limits: Vec<SinkLimits>,
    /// Of every changelog; 1 where there are no maps.
    pub map_partitions: u32,
    pub instance: String,
    pub worker: u32,
    /// A random number, another one in each life.
    pub run: u64,
    /// The changelogs of the pipeline's maps.
    pub ledger: Ledger,
}

/// Whether records are run, as far as it is for the tables that steps read to say.
///
/// ```text
///   Open ── assigned, in a pipeline with lookups; a table is folded anew ──▶ Shut ── all tables are live ──▶ Open
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// Nothing is queued: what comes all the same is left out, and consumed again when the gate opens.
    Shut,
}

/// A place in the worker's inputs, valid until the next effect that assigns or unassigns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

#[derive(Debug)]
pub struct Worker {
    setup: Setup,
    state: State,
    inputs: Vec<(TopicPartition, Input)>,
    tasks: BTreeMap<TaskId, Task>,
    overlay: Overlay,
    token: Token,
    opened: Duration,
    /// Of the commit under way.
    closing: Vec<(TopicPartition, i64)>,
    /// Partitions assigned whose offsets are being read.
    assigning: bool,
    gate: Gate,
    leaving: bool,
    stopping: bool,
    /// Of the open epoch.
    epoch: Tally,
    total: Tally,
}

impl Worker {
    pub fn new(setup: Setup) -> Self {
        let token = Token {
            instance: setup.instance.clone(),
            worker: setup.worker,
            run: setup.run,
            number: 0,
        };
        let tally = Tally::new(&setup.pipeline);
        Self {
            overlay: Overlay::new(setup.run),
            state: State::Ready,
            inputs: Vec::new(),
            tasks: BTreeMap::new(),
            token,
            opened: Duration::ZERO,
            closing: Vec::new(),
            assigning: false,
            gate: Gate::Open,
            leaving: false,
            stopping: false,
            epoch: tally.clone(),
            total: tally,
            setup,
        }
    }

    /// Takes in what happened and appends what is to be done.
    pub fn on(&mut self, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick { now } if !self.is_due(now) => {}
            Event::Tick { .. } | Event::Close => self.close(effects),
            Event::Work { now } => {
                self.overlay.clear();
                self.opened = now;
                self.token.number += 1;
                self.step(machine::Event::Begin, effects);
            }
            Event::Assigned(partitions) => {
                assert!(
                    self.inputs.is_empty(),
                    "partitions are assigned to a worker that has none"
                );
                self.assigning = true;
                effects.push(Effect::ReadOffsets(partitions));
            }
            Event::Offsets(offsets) => self.on_offsets(offsets, effects),
            Event::Revoked => {
                self.leave();
                self.close(effects);
            }
            Event::Lost => {
                self.leave();
                if self.state == State::Open {
                    self.step(
                        machine::Event::Broken("the partitions were lost".into()),
                        effects,
                    );
                }
            }
            Event::Broken(why) => self.step(machine::Event::Broken(why), effects),
            Event::Verdict(verdict) => self.on_verdict(verdict, effects),
            Event::Replaced => self.step(machine::Event::Replaced, effects),
            Event::TablesLive => self.open_gate(effects),
            Event::TablesRestoring => self.shut_gate(effects),
            Event::Stop => {
                self.stopping = true;
                self.close(effects);
            }
        }
        self.settle(effects);
    }

    fn leave(&mut self) {
        assert!(
            !self.assigning,
            "partitions are asked back once the answer to their assignment is in"
        );
        self.leaving = true;
    }

    fn close(&mut self, effects: &mut Vec<Effect>) {
        if self.state == State::Open {
            self.step(machine::Event::Close, effects);
        }
    }

    fn on_verdict(&mut self, verdict: Verdict, effects: &mut Vec<Effect>) {
        if let Verdict::InDoubt(_) = verdict {
            self.total.in_doubt += 1;
        }
        self.step(machine::Event::Verdict(verdict), effects);
    }

    fn on_offsets(&mut self, offsets: Vec<CommittedOffset>, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.assigning) {
            self.inputs = offsets
                .iter()
                .map(|at| (at.partition, Input::new(at.offset)))
                .collect();
            let pipeline = &self.setup.pipeline;
            self.tasks = offsets
                .iter()
                .map(|at| (at.partition.task(pipeline), Task::default()))
                .collect();
            effects.push(Effect::Assign(
                offsets.iter().map(|at| (at.partition, at.offset)).collect(),
            ));
            self.gate = Gate::Open;
            if pipeline.has_tables() {
                self.shut_gate(effects);
            }
            return;
        }
        let found = offsets
            .iter()
            .any(|at| Token::from_metadata(&at.metadata).as_ref() == Some(&self.token));
        let resolution = if found {
            Resolution::Found
        } else {
            Resolution::Absent
        };
        if resolution == Resolution::Absent {
            for at in offsets {
                if let Some((_, input)) = self
                    .inputs
                    .iter_mut()
                    .find(|(partition, _)| *partition == at.partition)
                {
                    input.rewind(at.offset);
                }
            }
        }
        self.step(machine::Event::Resolved(resolution), effects);
    }

    /// What was queued is consumed again, from where processing stands.
    fn shut_gate(&mut self, effects: &mut Vec<Effect>) {
        if self.gate == Gate::Shut || self.leaving {
            return;
        }
        self.gate = Gate::Shut;
        for (_, input) in &mut self.inputs {
            input.processed(0);
            input.unsettle();
        }
        let running: Vec<TopicPartition> = self.running().map(|(at, _)| *at).collect();
        if !running.is_empty() {
            effects.push(Effect::Pause(running));
        }
    }

    fn open_gate(&mut self, effects: &mut Vec<Effect>) {
        if self.gate == Gate::Open || self.leaving {
            return;
        }
        self.gate = Gate::Open;
        let running = self.running();
        let processed: Vec<(TopicPartition, i64)> = running
            .map(|(at, input)| (*at, input.processed_offset()))
            .collect();
        if !processed.is_empty() {
            effects.push(Effect::Seek(processed));
        }
    }

    fn step(&mut self, event: machine::Event, effects: &mut Vec<Effect>) {
        let (state, actions) = machine::on(self.state, event);
        self.state = state;
        for action in actions {
            match action {
                Action::Begin => effects.push(Effect::Begin),
                Action::Commit => effects.push(Effect::Commit),
                Action::Replace => effects.push(Effect::Replace),
                Action::ReadOffsets => {
                    effects.push(Effect::ReadOffsets(
                        self.inputs.iter().map(|(at, _)| *at).collect(),
                    ));
                }
                Action::Merge => {
                    self.merge();
                    if self.setup.pipeline.has_state() {
                        effects.push(Effect::Merge);
                    }
                }
                Action::Rewind => self.rewind(effects),
                Action::End(reason) => effects.push(Effect::End(End::Failed(reason))),
            }
        }
    }

    /// The changes stay where they are until the next epoch: [`Effect::Merge`] is still to come.
    fn merge(&mut self) {
        for (at, offset) in std::mem::take(&mut self.closing) {
            let input = self
                .inputs
                .iter_mut()
                .find(|(partition, _)| *partition == at);
            input
                .expect("partitions are kept while a commit is under way")
                .1
                .commit(offset);
        }
        self.tasks.values_mut().for_each(Task::merge);
        self.total.add(&self.epoch);
        self.total.committed += 1;
        self.epoch.clear();
    }

    fn rewind(&mut self, effects: &mut Vec<Effect>) {
        self.overlay.clear();
        self.closing.clear();
        self.total.aborted += 1;
        self.epoch.clear();
        for (_, input) in &mut self.inputs {
            input.rewind(input.committed());
        }
        self.tasks.values_mut().for_each(Task::rewind);
        // Behind a gate that is shut the consumer is told once it opens.
        if !self.leaving && !self.stopping && self.gate == Gate::Open {
            let running = self.running();
            let committed = running.map(|(at, input)| (*at, input.committed()));
            effects.push(Effect::Seek(committed.collect()));
        }
    }

    /// What waited for the end of the epoch.
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        if self.state != State::Ready {
            return;
        }
        if std::mem::take(&mut self.leaving) {
            self.inputs.clear();
            self.tasks.clear();
            effects.push(Effect::Unassign);
        }
        if std::mem::take(&mut self.stopping) {
            effects.push(Effect::End(End::Stopped));
        }
    }

    /// Partitions whose tasks run.
    fn running(&self) -> impl Iterator<Item = &(TopicPartition, Input)> {
        let running = (0..self.inputs.len()).filter(|&slot| self.is_running(slot));
        running.map(|slot| &self.inputs[slot])
    }

    /// Whether records wait for tables: to be told of [`Event::TablesLive`].
    pub fn waits_for_tables(&self) -> bool {
        self.gate == Gate::Shut
    }

    /// Where records of a partition go; none where it isn't ours, its task has stopped, or a table is being restored.
    pub fn slot(&self, at: TopicPartition) -> Option<Slot> {
        let slot = self.held_at(at)?;
        let takes = self.is_running(slot) && self.gate == Gate::Open;
        takes.then_some(Slot(slot))
    }

    fn held_at(&self, at: TopicPartition) -> Option<usize> {
        let mut inputs = self.inputs.iter();
        inputs.position(|(partition, _)| *partition == at)
    }

    fn is_running(&self, slot: usize) -> bool {
        let id = self.inputs[slot].0.task(&self.setup.pipeline);
        self.tasks.get(&id).is_some_and(Task::is_running)
    }

    /// Puts a consumed record into its queue. The queue must be run once this has filled it.
    pub fn append(&mut self, slot: Slot) -> &mut Input {
        &mut self.inputs[slot.0].1
    }

    /// What is queued at a slot.
    pub fn queue(&self, slot: Slot) -> &Columns {
        self.inputs[slot.0].1.queue()
    }

    /// How many records may be consumed before there is time for something else: as many as the smallest batch may have.
    pub fn records_max(&self) -> usize {
        let inputs = self.inputs.iter();
        let most = inputs.map(|(_, input)| input.stride().records_max()).min();
        most.unwrap_or(BATCH_RECORDS_MAX)
    }

    /// Slots with records to run.
    pub fn waiting(&self) -> Option<Slot> {
        let waiting = |(_, input): &(TopicPartition, Input)| !input.queue().is_empty();
        self.inputs.iter().position(waiting).map(Slot)
    }

    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether the open epoch should be closed now.
    pub fn is_due(&self, now: Duration) -> bool {
        let over = now.saturating_sub(self.opened) >= self.setup.pipeline.interval;
        self.state == State::Open && (over || self.overlay.is_full())
    }

    /// The partition whose records go to a slot.
    pub fn place(&self, slot: Slot) -> TopicPartition {
        self.inputs[slot.0].0
    }

    pub fn topic(&self, id: TopicId) -> &str {
        &self.setup.pipeline.topics[id.0].topic
    }

    pub fn guarantee(&self) -> Guarantee {
        self.setup.pipeline.guarantee
    }

    /// Runs what is queued at a slot. A transaction must be open. `now` is the wall clock in milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// Why the epoch is broken; the caller passes that on as an event.
    pub fn run(
        &mut self,
        slot: Slot,
        now: i64,
        plugin: &mut impl Plugin,
        output: &mut impl Output,
    ) -> Result<Ran, Broken> {
        assert_eq!(
            self.state,
            State::Open,
            "records are run in an open transaction"
        );
        let (at, input) = &mut self.inputs[slot.0];
        let pipeline = Arc::clone(&self.setup.pipeline);
        let topic = &pipeline.topics[at.topic.0];
        let queued = input.queue().len();
        let origin = Origin {
            source: topic.source,
            topic: &topic.topic,
            partition: at.partition,
            now,
            columns: input.queue(),
        };
        let mut around = Surroundings {
            pipeline: &pipeline,
            limits: &self.setup.limits,
            map_partitions: self.setup.map_partitions,
            plugin,
            output,
            overlay: &mut self.overlay,
        };
        let ran = run::run(&mut around, &origin);
        if let Err(Broken::Overdue(_)) = &ran {
            input.stride_mut().shrink();
        }
        let ran = ran?;
        self.epoch.count(&ran, input.queue(), &pipeline);
        if ran.records < queued {
            let stopper = ran
                .stopper()
                .expect("only a failure keeps records from being processed");
            let stopped = Stopped {
                at: stopper.at.clone(),
                topic: topic.topic.clone(),
                partition: at.partition,
                offset: stopper.offset,
                reason: stopper.reason.clone(),
            };
            self.tasks
                .insert(at.task(&pipeline), Task::Stopping(stopped));
        }
        if ran
            .failures
            .iter()
            .all(|failure| failure.kind != Kind::Call)
        {
            input.stride_mut().grow();
        }
        input.processed(ran.records);
        self.forget_stopped();
        Ok(ran)
    }

    /// What waits at a stopped task will be consumed again, once somebody has dealt with the record that stopped it.
    fn forget_stopped(&mut self) {
        for slot in 0..self.inputs.len() {
            if !self.is_running(slot) {
                self.inputs[slot].1.processed(0);
            }
        }
    }

    /// The consumer's position of a partition means nothing until its next record.
    pub fn unsettle(&mut self, at: TopicPartition) {
        if let Some((_, input)) = self
            .inputs
            .iter_mut()
            .find(|(partition, _)| *partition == at)
        {
            input.unsettle();
        }
    }

    /// Stops the task whose source can't be read on, and returns the offset at which it stands; none where it isn't ours or has
    /// stopped already. What it has queued is run no more.
    pub fn stop(&mut self, at: TopicPartition, why: &str) -> Option<i64> {
        // Whether or not tables are awaited: what is said of a source is said once.
        let slot = self.held_at(at).filter(|&slot| self.is_running(slot))?;
        let offset = self.inputs[slot].1.processed_offset();
        let stopped = Stopped {
            at: "source".into(),
            topic: self.topic(at.topic).into(),
            partition: at.partition,
            offset,
            reason: why.into(),
        };
        let task = at.task(&self.setup.pipeline);
        // Should the epoch be rewound, the task comes to the same place again.
        self.tasks.insert(task, Task::Stopping(stopped));
        self.forget_stopped();
        Some(offset)
    }

    /// Partitions of stopped tasks: nothing more of them needs to be consumed.
    pub fn stopped_partitions(&self) -> Vec<TopicPartition> {
        let stopped = (0..self.inputs.len()).filter(|&slot| !self.is_running(slot));
        stopped.map(|slot| self.inputs[slot].0).collect()
    }

    pub fn stopped(&self) -> impl Iterator<Item = &Stopped> {
        self.tasks.values().filter_map(Task::stopped)
    }

    /// The map changes of the epoch: of the open one, or of the last one that took effect.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.overlay.changes()
    }

    /// What the commit under way covers: partitions that moved, their new offsets, and the metadata for each. Where none moved (the
    /// epoch's only record stopped its task) it covers all, so that the token stands somewhere. `position` is the consumer's.
    pub fn offsets_to_commit(
        &mut self,
        position: impl Fn(TopicPartition) -> Option<i64>,
    ) -> (Vec<(TopicPartition, i64)>, String) {
        let offsets = self.inputs.iter().enumerate().map(|(slot, (at, input))| {
            let position = position(*at).filter(|_| self.is_running(slot));
            (*at, input.to_commit(position), input.committed())
        });
        let moved = offsets.filter(|(_, offset, committed)| offset > committed);
        self.closing = moved.map(|(at, offset, _)| (at, offset)).collect();
        if self.closing.is_empty() {
            self.closing = self.held().collect();
        }
        (
            self.closing.clone(),
            self.token.to_metadata(&self.setup.ledger),
        )
    }

    /// The mark of the open epoch; of the last one where none is open.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Everything counted since the start, without the open epoch.
    pub fn tally(&self) -> &Tally {
        &self.total
    }

    /// Partitions held, with the committed offset of each.
    pub fn held(&self) -> impl Iterator<Item = (TopicPartition, i64)> {
        self.inputs
            .iter()
            .map(|(at, input)| (*at, input.committed()))
    }
}
