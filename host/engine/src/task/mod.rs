//! A task: a partition number of a pipeline, with what waits there and how it is run.

pub mod failure;
pub mod input;
pub mod letter;
pub mod run;
pub mod stride;

use crate::pipeline::{Pipeline, TopicId};
use crate::task::failure::Stopped;

/// A partition of a source topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: TopicId,
    pub partition: u32,
}

/// Which task a topic partition belongs to. In a pipeline with maps a task owns a partition number of every source topic;
/// in one without, a single topic partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    pub partition: u32,
    pub topic: Option<TopicId>,
}

/// Whether a task's records are run.
///
/// ```text
///   Running ── a record fails, on-error = "fail" ──▶ Stopping ── its epoch is merged ──▶ Stopped
///      ▲                                                │ it is rewound
///      └────────────────────────────────────────────────┘
/// ```
#[derive(Debug, Default)]
pub enum Task {
    #[default]
    Running,
    /// Stopped in the open epoch: should that be dropped, the task comes to the same record again.
    Stopping(Stopped),
    /// Stopped as of a checkpoint.
    Stopped(Stopped),
}

impl Task {
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running)
    }

    pub fn stopped(&self) -> Option<&Stopped> {
        match self {
            Self::Running => None,
            Self::Stopping(why) | Self::Stopped(why) => Some(why),
        }
    }

    /// The open epoch took effect.
    pub fn merge(&mut self) {
        *self = match std::mem::take(self) {
            Self::Stopping(why) => Self::Stopped(why),
            other => other,
        };
    }

    /// The open epoch did not take effect.
    pub fn rewind(&mut self) {
        if let Self::Stopping(_) = self {
            *self = Self::Running;
        }
    }
}

impl TopicPartition {
    pub fn task(self, pipeline: &Pipeline) -> TaskId {
        let topic = if pipeline.co_partitioned() {
            None
        } else {
            Some(self.topic)
        };
        TaskId {
            partition: self.partition,
            topic,
        }
    }
}
