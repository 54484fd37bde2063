//! What a pipeline has left in the cluster, and its deletion.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka_sys::RDKafkaErrorCode as Code;

use super::admin::{Admin, options, refused};
use super::client::REQUEST_MAX;
use super::group;
use super::native::list;
use crate::cluster::AdminError;

/// How long seats that are kept for a process that may come back are waited for.
const SEATS_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

/// What a pipeline has left in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    pub group: String,
    /// By source topic, of how many partitions an offset is committed.
    pub offsets: BTreeMap<String, usize>,
    /// Who is in the group: the names of their seats.
    pub members: Vec<String>,
    /// The pipeline's own topics, changelogs and streams, with partitions and offsets from start to end.
    pub topics: BTreeMap<String, (usize, i64)>,
}

impl Remains {
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty() && self.topics.is_empty()
    }
}

impl Admin {
    /// Looks. `sources` are the topics whose offsets count; the pipeline's own are found by their names, those of maps and streams that
    /// the pipeline file no longer has too.
    pub fn remains(&self, pipeline: &str, sources: &[&str]) -> Result<Remains, AdminError> {
        let metadata = self.client.inner().fetch_metadata(None, REQUEST_MAX);
        let metadata = metadata.map_err(|error| refused(&error))?;
        let mut remains = Remains {
            group: pipeline.into(),
            members: self.members(pipeline)?,
            ..Remains::default()
        };
        for topic in metadata.topics() {
            let count = topic.partitions().len();
            let numbers = || (0..).take(count);
            if is_own(topic.name(), pipeline) {
                let mut offsets = 0;
                for partition in numbers() {
                    let (start, end) = self.watermarks(topic.name(), partition)?;
                    offsets += end - start;
                }
                remains.topics.insert(topic.name().into(), (count, offsets));
            } else if sources.contains(&topic.name()) {
                let places = list(numbers().map(|partition| (topic.name(), partition, None)));
                self.reader
                    .committed(&places)
                    .map_err(AdminError::Refused)?;
                let elements = places.elements();
                let committed = elements
                    .iter()
                    .filter(|at| matches!(at.offset(), Offset::Offset(_)));
                let committed = committed.count();
                if committed > 0 {
                    remains.offsets.insert(topic.name().into(), committed);
                }
            }
        }
        Ok(remains)
    }

    fn members(&self, group: &str) -> Result<Vec<String>, AdminError> {
        let group = group::describe(self.client.inner(), group).map_err(AdminError::Refused)?;
        Ok(group
            .members
            .into_iter()
            .map(|member| member.seat)
            .collect())
    }

    /// Deletes the group's offsets, then its topics: the other way round a crash between the two would leave offsets to go on from
    /// without what had been kept up to them.
    pub fn delete(&self, remains: &Remains) -> Result<(), AdminError> {
        self.wait_for_seats(&remains.group)?;
        let groups = [remains.group.as_str()];
        let deleted = self
            .runtime
            .block_on(self.client.delete_groups(&groups, &options()));
        for result in deleted.map_err(|error| refused(&error))? {
            match result {
                Ok(_) | Err((_, Code::GroupIdNotFound)) => {}
                Err((group, code)) => {
                    let why = format!("group {group} can't be deleted: {code}");
                    return Err(AdminError::Refused(why));
                }
            }
        }
        let topics: Vec<&str> = remains.topics.keys().map(String::as_str).collect();
        if topics.is_empty() {
            return Ok(());
        }
        let deleted = self
            .runtime
            .block_on(self.client.delete_topics(&topics, &options()));
        for result in deleted.map_err(|error| refused(&error))? {
            match result {
                Ok(_) | Err((_, Code::UnknownTopicOrPartition)) => {}
                Err((topic, code)) => {
                    let why = format!("topic {topic} can't be deleted: {code}; run it again");
                    return Err(AdminError::Refused(why));
                }
            }
        }
        Ok(())
    }

    /// A process that was ended keeps its seats until its session is over.
    fn wait_for_seats(&self, group: &str) -> Result<(), AdminError> {
        let give_up = Instant::now() + SEATS_MAX;
        let mut said = false;
        loop {
            let members = self.members(group)?;
            if members.is_empty() {
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(AdminError::Refused(format!(
                    "the group has members: {}. End these processes first",
                    members.join(", ")
                )));
            }
            if !said {
                tracing::info!("waiting for seats to run out: {}", members.join(", "));
                said = true;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Whether a topic is named as a pipeline's own are: `<pipeline>.<map>.changelog`, `<pipeline>.<stream>.stream`,
/// `<pipeline>.<step>.replay`.
fn is_own(topic: &str, pipeline: &str) -> bool {
    let rest = topic.strip_prefix(pipeline);
    let rest = rest.and_then(|rest| rest.strip_prefix('.'));
    let named = rest.and_then(|rest| rest.split_once('.'));
    named.is_some_and(|(name, kind)| {
        !name.is_empty() && matches!(kind, "changelog" | "stream" | "replay")
    })
}

#[cfg(test)]
mod tests {
    use super::is_own;

    #[test]
    fn own_topics_are_told_by_their_names() {
        let check = |topic, expected| assert_eq!(is_own(topic, "p"), expected, "{topic}");
        check("p.by-country.stream", true);
        check("p.parse.replay", true);
        check("p.stream", false);
        check("p.by-country.streams", false);
        check("p.users.changelog", true);
        check("p..changelog", false);
        check("p.changelog", false);
        check("p.users.changelog.old", false);
        check("p.x.users.changelog", false);
        check("pp.users.changelog", false);
        check("users.changelog", false);
    }
}
