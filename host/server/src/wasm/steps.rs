//! The instances of a worker, one for each step, and their replacement.
//!
//! Invariant: an instance that failed a call, or saw an epoch that was aborted, is never called again, so guest memory never
//! carries work that was rolled back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_engine::pipeline::{Grant, StepId};
use millstream_engine::state::overlay::Overlay;
use millstream_engine::step::{Batch, CallFailure, Outcome, Output, Plugin as EnginePlugin};

use super::deadline;
use super::grants::Grants;
use super::instance::{Instance, Wiring};
use super::log_budget::LogBudget;
use super::plugin::Plugin;
use crate::plugin_limits::{Limit, size};
use crate::status::StepMeter;
use crate::tables::Tables;

/// A step's plugin and configuration, and the ports it declared under it.
#[derive(Clone, Debug)]
pub struct StepPlugin {
    pub name: String,
    /// By which the pipeline file names the plugin.
    pub plugin_name: String,
    pub plugin: Plugin,
    /// What the plugin says it is.
    pub description: String,
    /// A JSON object.
    pub config: String,
    pub ports: Vec<String>,
    /// What the pipeline file grants it.
    pub lookups: Vec<Grant>,
    pub state: Vec<Grant>,
    /// The version of configuration and plugins that it is part of.
    pub revision: Arc<str>,
}

#[derive(Debug)]
pub struct Steps {
    steps: Arc<Vec<StepPlugin>>,
    tables: Arc<Tables>,
    /// Made when first called.
    instances: Vec<Option<Instance>>,
    meters: Vec<StepMeter>,
    logs: Vec<Arc<LogBudget>>,
    /// When a limit that was run into was last told of: of each step, each limit.
    told: Vec<[Option<Instant>; Limit::ALL.len()]>,
    /// Time that failed calls have taken since the epoch began, with the instances that were made for them.
    failing: Duration,
    failing_max: Duration,
    /// The source record that is run is alone: a batch of fewer there isn't.
    is_alone: bool,
    /// When instances that were replaced for their memory were last told of.
    told_replaced: Option<Instant>,
}

/// What failed calls may take of an epoch, or four times what the longest call may, if that is more: to find one record takes twice that.
/// After half of it the epoch is closed; past it, it is aborted and run again with fewer records at a time. The transaction has a
/// time-out, of a minute at least, and a plugin that loops on every record must not outlast it again and again.
const FAILING_MAX: Duration = Duration::from_secs(10);
const FAILING_CALLS: u32 = 4;

/// The same for a source record alone. Calls get the least time before that, and are not made after it: what steps make of it is failed untried.
const FAILING_ALONE_MAX: Duration = Duration::from_secs(45);

/// Runs into a limit are told at most so often, of each step; metrics count them all.
const TELLING_PAUSE: Duration = Duration::from_secs(1);
const REPLACED_PAUSE: Duration = Duration::from_secs(60);

/// How often an instance is tried to be made.
const INSTANTIATIONS: u32 = 3;

impl Steps {
    pub fn new(steps: &Arc<Vec<StepPlugin>>, tables: Arc<Tables>) -> Self {
        let log = |step: &StepPlugin| Arc::new(LogBudget::new(&step.name, 0));
        let mut made = Self {
            meters: vec![StepMeter::default(); steps.len()],
            logs: steps.iter().map(log).collect(),
            told: vec![[None; Limit::ALL.len()]; steps.len()],
            steps: Arc::default(),
            tables,
            instances: Vec::new(),
            failing: Duration::ZERO,
            failing_max: FAILING_MAX,
            is_alone: false,
            told_replaced: None,
        };
        made.change(steps);
        made
    }

    /// Has other plugins for the same steps from now on. Instances go; what was counted stays.
    pub fn change(&mut self, steps: &Arc<Vec<StepPlugin>>) {
        self.steps = Arc::clone(steps);
        self.instances = steps.iter().map(|_| None).collect();
        self.discard();
        for (meter, step) in self.meters.iter_mut().zip(steps.iter()) {
            meter.limits = *step.plugin.limits();
        }
        for (log, step) in self.logs.iter().zip(steps.iter()) {
            log.allow(step.plugin.limits().log_lines);
        }
        let times = steps.iter().map(|step| step.plugin.limits().time);
        let longest = times.max().unwrap_or_default();
        self.failing_max = FAILING_MAX.max(longest * FAILING_CALLS);
    }

    /// What calls have taken so far, in the pipeline's order.
    pub fn meters(&self) -> &[StepMeter] {
        &self.meters
    }

    /// To be called now and then: plugins that logged too much are told of, and counted.
    pub fn turn(&mut self) {
        for (log, meter) in self.logs.iter().zip(&mut self.meters) {
            log.turn();
            let counts = log.counts();
            meter.log_lines = counts.written;
            meter.log_lines_left_out = counts.left_out;
        }
    }

    pub fn begin_epoch(&mut self) {
        self.failing = Duration::ZERO;
    }

    /// Says of the next calls whether they are for one source record.
    pub fn expect_patience(&mut self, is_alone: bool) {
        self.is_alone = is_alone;
    }

    /// Whether the epoch had better be closed: failed calls have taken half of what they may take of it.
    pub fn are_late(&self) -> bool {
        self.failing * 2 > self.failing_max
    }

    /// Whether a call may be made, for what failed calls have taken so far.
    fn has_time(&self, step: StepId) -> Result<(), CallFailure> {
        let (name, failing) = (&self.steps[step.0].name, self.failing);
        if !self.is_alone && failing > self.failing_max {
            return Err(CallFailure::Overdue(format!(
                "step \"{name}\": failed calls have taken {failing:.1?} of the epoch"
            )));
        }
        if failing > FAILING_ALONE_MAX {
            return Err(CallFailure::Plugin(format!(
                "not tried: failed calls have taken {failing:.1?} of the epoch, with one source record"
            )));
        }
        Ok(())
    }

    /// Throws all instances away: what they saw was rolled back.
    pub fn discard(&mut self) {
        self.instances.fill_with(|| None);
        for meter in &mut self.meters {
            meter.memory = 0;
        }
    }
}

impl EnginePlugin for Steps {
    fn process(
        &mut self,
        step: StepId,
        batch: &Batch<'_>,
        overlay: &mut Overlay,
    ) -> Result<Outcome, CallFailure> {
        self.has_time(step)?;
        let started = Instant::now();
        let slot = &mut self.instances[step.0];
        let mut instance = match slot.take() {
            Some(instance) => instance,
            None => instantiate(&self.steps[step.0], &self.tables, &self.logs[step.0])?,
        };
        let began = Instant::now();
        let hurried = if self.failing > self.failing_max {
            u32::MAX
        } else {
            batch.halvings
        };
        let batch = Batch {
            halvings: hurried,
            ..*batch
        };
        let answer = instance.process(&batch, overlay);
        let (took, meter) = (began.elapsed(), &mut self.meters[step.0]);
        count(meter, &batch, &answer, took);
        let memory = instance.memory();
        meter.memory = memory as u64;
        if let Some(limit) = instance.take_hit() {
            meter.hits.count(limit);
            if is_due(&mut self.told[step.0][limit as usize], TELLING_PAUSE) {
                tell(&self.steps[step.0], &batch, limit, answer.is_ok());
            }
        }
        if answer.is_err() {
            meter.memory = 0;
            self.failing += started.elapsed();
        } else if memory > self.steps[step.0].plugin.limits().memory_mark {
            // Some runtimes never give memory back. The next batch finds a new one.
            meter.replaced += 1;
            meter.memory = 0;
            if is_due(&mut self.told_replaced, REPLACED_PAUSE) {
                tell_replaced(&self.steps[step.0], memory);
            }
        } else {
            *slot = Some(instance);
        }
        answer
    }

    fn forget(&mut self) {
        self.discard();
    }

    fn ports(&self, step: StepId) -> &[String] {
        &self.steps[step.0].ports
    }

    fn digest(&self, step: StepId) -> &str {
        self.steps[step.0].plugin.digest()
    }
}

fn count(
    meter: &mut StepMeter,
    batch: &Batch<'_>,
    answer: &Result<Outcome, CallFailure>,
    took: Duration,
) {
    meter.calls += 1;
    meter.time += took;
    meter.records_in += batch.columns.len() as u64;
    meter.bytes_in += batch.columns.bytes() as u64;
    meter.longest = meter.longest.max(took);
    match answer {
        Ok(outcome) => {
            let outputs = outcome.outputs.iter();
            let records: usize = outputs.map(|output| output.origins.len()).sum();
            let bytes: usize = outcome.outputs.iter().map(Output::bytes).sum();
            meter.records_out += records as u64;
            meter.bytes_out += bytes as u64;
            meter.most_records = meter.most_records.max(records as u64);
            meter.most_bytes = meter.most_bytes.max(bytes as u64);
        }
        Err(_) => meter.failed_calls += 1,
    }
}

/// Whether something that was told of last at this time, if ever, may be told of again; it is now, then.
fn is_due(told: &mut Option<Instant>, pause: Duration) -> bool {
    let is_due = told.is_none_or(|told| told.elapsed() >= pause);
    if is_due {
        *told = Some(Instant::now());
    }
    is_due
}

/// Says which limit a plugin ran into, and with what.
fn tell(step: &StepPlugin, batch: &Batch<'_>, limit: Limit, lived: bool) {
    let limits = step.plugin.limits();
    let allowed = match limit {
        Limit::Memory => size(limits.memory),
        Limit::Time => format!("{:?}", deadline::allowed(limits.time, batch.halvings)),
        Limit::OutputBytes => size(limits.output_bytes),
        Limit::OutputRecords => limits.output_records.to_string(),
        Limit::LogLines => limits.log_lines.to_string(),
    };
    let offsets = &batch.columns.offsets;
    tracing::warn!(
        step = step.name,
        plugin = step.plugin_name,
        digest = step.plugin.digest(),
        topic = batch.topic,
        partition = batch.partition,
        first_offset = offsets.first(),
        last_offset = offsets.last(),
        limit = limit.key(),
        allowed,
        "the plugin ran into its limit{}",
        if lived {
            ", and went on"
        } else {
            ": the call failed"
        }
    );
}

fn tell_replaced(step: &StepPlugin, memory: usize) {
    let limits = step.plugin.limits();
    let (memory, mark) = (size(memory), size(limits.memory_mark));
    tracing::warn!(
        step = step.name,
        plugin = step.plugin_name,
        digest = step.plugin.digest(),
        "an instance with {memory} of memory, above its mark of {mark}, is replaced; this is told once a minute at most"
    );
}

fn instantiate(
    step: &StepPlugin,
    tables: &Arc<Tables>,
    log: &Arc<LogBudget>,
) -> Result<Instance, CallFailure> {
    let StepPlugin { name, plugin, .. } = step;
    let mut last = String::new();
    for _ in 0..INSTANTIATIONS {
        let wiring = Wiring {
            step: name,
            config: &step.config,
            revision: &step.revision,
            grants: Grants::new((&step.lookups, &step.state), Some(tables)),
            log,
        };
        match plugin.instantiate(wiring) {
            Ok((instance, _)) => return Ok(instance),
            // It was configured so before: on a machine that has no time, it may be late.
            Err(why) => last = why,
        }
    }
    Err(CallFailure::Host(format!(
        "step \"{name}\" can't be instantiated: {last}"
    )))
}
