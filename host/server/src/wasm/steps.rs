//! The instances of a worker, one for each step, and their replacement.
//!
//! Invariant: an instance that failed a call, or saw an epoch that was aborted, is never called again, so guest memory never
//! carries work that was rolled back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_engine::pipeline::{Grant, StepId};
use millstream_engine::state::overlay::Overlay;
use millstream_engine::step::{Batch, CallFailure, Outcome, Plugin as EnginePlugin};

use super::grants::Grants;
use super::instance::Instance;
use super::limits;
use super::plugin::Plugin;
use crate::status::StepMeter;
use crate::tables::Tables;

/// A step's plugin and configuration, and the ports it declared under it.
#[derive(Clone, Debug)]
pub struct StepPlugin {
    pub name: String,
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
    /// Time that failed calls have taken since the epoch began.
    failing: Duration,
}

/// What failed calls may take of an epoch. After that calls get the least time: the transaction has a time-out, and a plugin that
/// loops on every record must not outlast it again and again.
const FAILING_MAX: Duration = Duration::from_secs(10);

/// How often an instance is tried to be made.
const INSTANTIATIONS: u32 = 3;

impl Steps {
    pub fn new(steps: Arc<Vec<StepPlugin>>, tables: Arc<Tables>) -> Self {
        let instances = steps.iter().map(|_| None).collect();
        let meter = StepMeter {
            memory_limit: limits::MEMORY_MAX as u64,
            ..StepMeter::default()
        };
        Self {
            meters: vec![meter; steps.len()],
            steps,
            tables,
            instances,
            failing: Duration::ZERO,
        }
    }

    /// What calls have taken so far, in the pipeline's order.
    pub fn meters(&self) -> &[StepMeter] {
        &self.meters
    }

    pub fn begin_epoch(&mut self) {
        self.failing = Duration::ZERO;
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
        let slot = &mut self.instances[step.0];
        let mut instance = match slot.take() {
            Some(instance) => instance,
            None => instantiate(&self.steps[step.0], &self.tables)?,
        };
        let began = Instant::now();
        let hurried = if self.failing > FAILING_MAX {
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
        match answer {
            Ok(outcome) => {
                meter.memory = instance.memory() as u64;
                *slot = Some(instance);
                Ok(outcome)
            }
            Err(failure) => {
                meter.memory = 0;
                self.failing += took;
                Err(failure)
            }
        }
    }

    fn forget(&mut self) {
        self.discard();
    }

    fn ports(&self, step: StepId) -> &[String] {
        &self.steps[step.0].ports
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
    match answer {
        Ok(outcome) => {
            for output in &outcome.outputs {
                meter.records_out += output.origins.len() as u64;
                meter.bytes_out += output.bytes() as u64;
            }
        }
        Err(_) => meter.failed_calls += 1,
    }
}

fn instantiate(step: &StepPlugin, tables: &Arc<Tables>) -> Result<Instance, CallFailure> {
    let StepPlugin {
        name,
        plugin,
        config,
        lookups,
        state,
        revision,
        ..
    } = step;
    let mut last = String::new();
    for _ in 0..INSTANTIATIONS {
        let grants = Grants::new((lookups, state), Some(tables));
        match plugin.instantiate(name, config, revision, grants) {
            Ok((instance, _)) => return Ok(instance),
            // It was configured so before: on a machine that has no time, it may be late.
            Err(why) => last = why,
        }
    }
    Err(CallFailure::Host(format!(
        "step \"{name}\" can't be instantiated: {last}"
    )))
}
