//! The instances of a worker, one for each step, and their replacement.
//!
//! Invariant: an instance that failed a call, or saw an epoch that was aborted, is never called again, so guest memory never
//! carries work that was rolled back.

use std::sync::Arc;

use millstream_engine::pipeline::StepId;
use millstream_engine::step::{Batch, CallFailure, Outcome, Plugin as EnginePlugin};

use super::instance::Instance;
use super::plugin::Plugin;

/// A step's plugin and configuration, and the ports it declared under it.
#[derive(Clone, Debug)]
pub struct StepPlugin {
    pub name: String,
    pub plugin: Plugin,
    /// A JSON object.
    pub config: String,
    pub ports: Vec<String>,
}

#[derive(Debug)]
pub struct Steps {
    steps: Arc<Vec<StepPlugin>>,
    /// Made when first called.
    instances: Vec<Option<Instance>>,
}

impl Steps {
    pub fn new(steps: Arc<Vec<StepPlugin>>) -> Self {
        let instances = steps.iter().map(|_| None).collect();
        Self { steps, instances }
    }

    /// Throws all instances away: what they saw was rolled back.
    pub fn discard(&mut self) {
        self.instances.fill_with(|| None);
    }
}

impl EnginePlugin for Steps {
    fn process(&mut self, step: StepId, batch: &Batch<'_>) -> Result<Outcome, CallFailure> {
        let StepPlugin {
            name,
            plugin,
            config,
            ..
        } = &self.steps[step.0];
        let slot = &mut self.instances[step.0];
        let mut instance = match slot.take() {
            Some(instance) => instance,
            None => {
                let made = plugin.instantiate(name, config);
                let (instance, _) = made.map_err(|why| {
                    CallFailure::Host(format!("step \"{name}\" can't be instantiated: {why}"))
                })?;
                instance
            }
        };
        let outcome = instance.process(batch)?;
        *slot = Some(instance);
        Ok(outcome)
    }

    fn ports(&self, step: StepId) -> &[String] {
        &self.steps[step.0].ports
    }
}
