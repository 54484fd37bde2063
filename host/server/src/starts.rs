//! Where the sources begin, and whether what was committed before still stands in the pipeline's topics: settled before a worker starts.

use std::time::{Duration, Instant};

use millstream_engine::commit::ledger::Ledger;
use millstream_engine::pipeline::{Guarantee, Kept, Pipeline};

use crate::cluster::{Admin, AdminError, Cluster, CommittedAt, StartPlace};
use crate::own_topics;
use crate::succession::{self, Succession};
use crate::topics::Topics;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// See [`Admin::resolve_starts`]; of a process that has opened so many seats. Tries for as long as somebody's transaction may have offsets
/// pending, and ends those of the dead.
pub fn settle<C: Cluster>(
    cluster: &C,
    admin: &C::Admin,
    pipeline: &Pipeline,
    (topics, opened): (&Topics, u32),
    stopping: impl Fn() -> bool,
) -> Result<Vec<CommittedAt>, AdminError> {
    let starts = topics.starts.iter();
    let starts = starts.map(|(topic, at, start)| (topic.as_str(), *at, *start));
    let starts: Vec<StartPlace<'_>> = starts.collect();
    let places: Vec<(&str, u32)> = starts.iter().map(|&(topic, at, _)| (topic, at)).collect();
    let states = state_changelogs(pipeline, topics.map_partitions);
    let mut succession = Succession::new(opened);
    let is_transactional = cluster.guarantee() == Guarantee::ExactlyOnce;
    let began = Instant::now();
    let mut said = String::new();
    loop {
        let why = match admin.resolve_starts(&starts, &states) {
            Err(AdminError::Unanswered(why)) => why,
            Ok(committed) if is_transactional => {
                let metadata = committed.iter().map(|at| &*at.metadata);
                succession::end_earlier(cluster, opened, metadata, stopping);
                return Ok(committed);
            }
            settled => return settled,
        };
        if stopping() {
            return Err(AdminError::Stopped);
        }
        if began.elapsed() > cluster.pending_max() {
            return Err(AdminError::Refused(format!(
                "the start of the sources can't be settled: {why}"
            )));
        }
        if said != why {
            tracing::info!("settling where the sources start: {why}; trying again");
            said = why;
        }
        if is_transactional {
            succession.unblock(cluster, &places, &|| ());
        }
        std::thread::sleep(PAUSE);
    }
}

/// The changelogs of state, each with its number of partitions.
fn state_changelogs(pipeline: &Pipeline, partitions: u32) -> Vec<(String, u32)> {
    let own = pipeline.own_maps();
    let states = own.filter(|map| pipeline.maps[map.0].kept == Kept::State);
    states
        .map(|map| (pipeline.changelog(map), partitions))
        .collect()
}

/// Words for a topic of the pipeline's own that isn't the one any more to which these offsets were committed. Workers ask it too, of what
/// they take; some may take nothing that was ever committed, and answer for maps all the same.
pub fn lost(pipeline: &Pipeline, ledger: &Ledger, committed: &[CommittedAt]) -> Option<String> {
    committed.iter().find_map(|at| {
        let place = || format!("{}[{}]@{}", at.topic, at.partition, at.offset);
        own_topics::lost_since(pipeline, ledger, &at.metadata, place)
    })
}
