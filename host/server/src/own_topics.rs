//! The topics that are the pipeline's own, changelogs and streams, told from others that had their names before.
//!
//! Committed offsets say that records were processed, and what came of them stands in these topics. Invariant: nobody goes on behind
//! offsets that were committed to others of the same names: what these had is gone.

use std::sync::atomic::AtomicBool;

use millstream_engine::commit::ledger::Ledger;
use millstream_engine::commit::token;
use millstream_engine::pipeline::{Pipeline, TopicId};

use crate::insist::{Stopping, insist};

pub struct OwnTopic {
    /// In the ledger: a map's is the map's, so that one keeps it whatever its topic is called. A stream's is its topic's, which has a dot
    /// in it as no map's name has.
    pub name: String,
    pub topic: String,
}

pub fn of(pipeline: &Pipeline) -> impl Iterator<Item = OwnTopic> {
    let maps = pipeline.own_maps().map(|map| OwnTopic {
        name: pipeline.maps[map.0].name.clone(),
        topic: pipeline.changelog(map),
    });
    let streams = pipeline.topics.iter().enumerate();
    let streams = streams.filter(|(id, _)| pipeline.is_stream(TopicId(*id)));
    let streams = streams.map(|(_, topic)| OwnTopic {
        name: topic.topic.clone(),
        topic: topic.topic.clone(),
    });
    maps.chain(streams)
}

/// Which ones there are, as far as the cluster tells topics of one name apart: `ask` asks it. One that is left out counts as new the next
/// time, so an answer is waited for.
pub fn ledger(
    pipeline: &Pipeline,
    ask: impl Fn(&str) -> Result<Option<u128>, String>,
    stop: &AtomicBool,
) -> Result<Ledger, Stopping> {
    let mut ids: Vec<(String, String)> = Vec::new();
    for own in of(pipeline) {
        let ask = || ask(&own.topic);
        if let Some(id) = insist(stop, "asking for the ids of topics", &|| (), ask)? {
            ids.push((own.name, id.to_string()));
        }
    }
    let ids = ids.iter().map(|(name, id)| (name.as_str(), id.as_str()));
    Ok(Ledger::new(ids))
}

/// Words for the first that is another one than when these offsets were committed: `at` says which, `metadata` stands beside them.
pub fn lost_since(
    pipeline: &Pipeline,
    now: &Ledger,
    metadata: &str,
    at: impl FnOnce() -> String,
) -> Option<String> {
    let earlier = token::ledger_of(metadata);
    let lost = of(pipeline).find(|own| is_another(&own.name, now, &earlier))?;
    Some(lost.lost(&format!("{} was committed", at())))
}

/// Whether a topic that is this one now isn't the one in the ledger.
pub fn is_made_anew(name: &str, id: u128, ledger: &Ledger) -> bool {
    let now = Ledger::new([(name, id.to_string().as_str())].into_iter());
    is_another(name, &now, ledger)
}

fn is_another(name: &str, now: &Ledger, earlier: &Ledger) -> bool {
    !now.made_anew(earlier, [name].into_iter()).is_empty()
}

impl OwnTopic {
    pub fn is_stream(&self) -> bool {
        self.name == self.topic
    }

    /// What is said where it isn't the one any more that was written to.
    pub fn lost(&self, since: &str) -> String {
        let Self { name, topic } = self;
        if self.is_stream() {
            return format!(
                "topic {topic} was deleted, or made anew, since {since}: records that waited in it are gone, and count as processed. \
                 Under another name the stream begins empty, and the pipeline goes on; `millstream reset` lets it begin anew"
            );
        }
        format!(
            "topic {topic} was deleted, or made anew, since {since}: what map \"{name}\" had is gone, and its records count as processed. \
             `millstream reset` lets the pipeline begin anew; under another name the map begins empty"
        )
    }
}
