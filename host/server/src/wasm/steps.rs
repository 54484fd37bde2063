//! The instances of a worker, one for each step, and their replacement.
//!
//! Invariant: an instance that failed a call, or saw an epoch that was aborted, is never called again, so guest memory never
//! carries work that was rolled back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_engine::pipeline::StepId;
use millstream_engine::step::{Batch, CallFailure, Outcome, Plugin as EnginePlugin};

use super::instance::Instance;
use super::plugin::Plugin;

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
}

#[derive(Debug)]
pub struct Steps {
    steps: Arc<Vec<StepPlugin>>,
    /// Made when first called.
    instances: Vec<Option<Instance>>,
    /// Time that failed calls have taken since the epoch began.
    failing: Duration,
}

/// What failed calls may take of an epoch. After that calls get the least time: the transaction has a time-out, and a plugin that
/// loops on every record must not outlast it again and again.
const FAILING_MAX: Duration = Duration::from_secs(10);

/// How often an instance is tried to be made.
const INSTANTIATIONS: u32 = 3;

impl Steps {
    pub fn new(steps: Arc<Vec<StepPlugin>>) -> Self {
        let instances = steps.iter().map(|_| None).collect();
        Self {
            steps,
            instances,
            failing: Duration::ZERO,
        }
    }

    pub fn begin_epoch(&mut self) {
        self.failing = Duration::ZERO;
    }

    /// Throws all instances away: what they saw was rolled back.
    pub fn discard(&mut self) {
        self.instances.fill_with(|| None);
    }
}

impl EnginePlugin for Steps {
    fn process(&mut self, step: StepId, batch: &Batch<'_>) -> Result<Outcome, CallFailure> {
        let slot = &mut self.instances[step.0];
        let mut instance = match slot.take() {
            Some(instance) => instance,
            None => instantiate(&self.steps[step.0])?,
        };
        let began = Instant::now();
        let hurried = if self.failing > FAILING_MAX {
            u32::MAX
        } else {
            batch.halvings
        };
        match instance.process(&Batch {
            halvings: hurried,
            ..*batch
        }) {
            Ok(outcome) => {
                *slot = Some(instance);
                Ok(outcome)
            }
            Err(failure) => {
                self.failing += began.elapsed();
                Err(failure)
            }
        }
    }

    fn ports(&self, step: StepId) -> &[String] {
        &self.steps[step.0].ports
    }
}

fn instantiate(step: &StepPlugin) -> Result<Instance, CallFailure> {
    let StepPlugin {
        name,
        plugin,
        config,
        ..
    } = step;
    let mut last = String::new();
    for _ in 0..INSTANTIATIONS {
        match plugin.instantiate(name, config) {
            Ok((instance, _)) => return Ok(instance),
            // It was configured so before: on a machine that has no time, it may be late.
            Err(why) => last = why,
        }
    }
    Err(CallFailure::Host(format!(
        "step \"{name}\" can't be instantiated: {last}"
    )))
}
