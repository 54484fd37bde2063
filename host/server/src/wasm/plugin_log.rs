//! What plugins say: log lines by the contract, and what they write to their standard output and error, both held to the same number of lines.

use std::sync::Arc;

use millstream_engine::task::failure::in_a_line;
use tracing::Level;

use super::bindings::millstream::plugin::log;
use super::log_budget::LogBudget;

/// Where the lines of an instance go.
#[derive(Clone, Debug)]
pub struct PluginLog {
    step: Arc<str>,
    revision: Arc<str>,
    budget: Arc<LogBudget>,
}

impl PluginLog {
    pub fn new(step: &str, revision: &Arc<str>, budget: &Arc<LogBudget>) -> Self {
        Self {
            step: step.into(),
            revision: Arc::clone(revision),
            budget: Arc::clone(budget),
        }
    }

    pub fn step(&self) -> &str {
        &self.step
    }

    /// Writes a line, if the filter and the budget let it through.
    pub fn write(&self, level: log::Level, message: &str) {
        let (step, revision) = (&*self.step, &*self.revision);
        macro_rules! write {
            ($level:expr) => {
                if tracing::enabled!(target: "millstream::plugin", $level) && self.budget.admit() {
                    tracing::event!(target: "millstream::plugin", $level, step, revision, "{}", in_a_line(message));
                }
            };
        }
        match level {
            log::Level::Trace => write!(Level::TRACE),
            log::Level::Debug => write!(Level::DEBUG),
            log::Level::Info => write!(Level::INFO),
            log::Level::Warn => write!(Level::WARN),
            log::Level::Error => write!(Level::ERROR),
        }
    }
}
