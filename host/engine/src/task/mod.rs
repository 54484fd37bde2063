//! A task: a partition number of a pipeline, with what waits there and how it is run.

pub mod failure;
pub mod input;
pub mod run;

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

#[derive(Debug, Default)]
pub struct Task {
    /// Set once a record failed where the pipeline says `on-error = "fail"`: nothing more of this task is run.
    pub stopped: Option<Stopped>,
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
