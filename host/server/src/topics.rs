//! The pipeline's topics, held against the cluster's: what is missing or doesn't fit is said with file, line and key; changelogs and
//! streams that are missing are made. Topics that tables are made from are others': they are only looked at.

use std::collections::BTreeMap;

use millstream_engine::pipeline::{Kept, MapId, Sink, Start, Step, Target, TopicId};
use millstream_engine::task::run::SinkLimits;

use crate::cluster::{Admin, AdminError, TopicFacts, Upkeep};
use crate::config::{Config, Problem, Problems};
use crate::fault;

/// Topics as the pipeline uses them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Of every changelog; 1 where a task owns no map partitions.
    pub map_partitions: u32,
    /// Of every map's topic, parallel to the pipeline's maps.
    pub partitions_of: Vec<u32>,
    /// The same topics.
    pub maps: Vec<TopicFacts>,
    /// Parallel to the pipeline's sinks.
    pub limits: Vec<SinkLimits>,
    /// Every partition of every source topic, and where its source starts.
    pub starts: Vec<(String, u32, Start)>,
}

#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    #[error(transparent)]
    Problems(#[from] Problems),
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// Checks all topics and makes the pipeline's own that are missing.
pub fn prepare(config: &Config, admin: &impl Admin) -> Result<Topics, TopicsError> {
    let mut facts = check(config, admin)?;
    let partitions = source_partitions(config, &facts);
    let changelogs = changelogs(config).into_iter();
    let changelogs = changelogs.map(|topic| (topic, Upkeep::Compacted));
    let streams = streams(config).map(|topic| (topic.to_owned(), Upkeep::Purged));
    for (topic, upkeep) in changelogs.chain(streams) {
        if !facts.contains_key(&topic) {
            let words = match upkeep {
                Upkeep::Compacted => ", compacted",
                Upkeep::Purged => "",
            };
            tracing::info!("making topic {topic} with {partitions} partitions{words}");
            let made = admin.create_topic(&topic, partitions, upkeep)?;
            fault::reach("start-topic-made");
            facts.extend([(topic, made)]);
        }
    }
    Ok(gather(config, &facts, partitions))
}

fn changelogs(config: &Config) -> Vec<String> {
    let own = config.pipeline.own_maps();
    own.map(|map| config.pipeline.changelog(map)).collect()
}

/// The topics of keyed streams, and those by which dead letters come back.
fn streams(config: &Config) -> impl Iterator<Item = &str> {
    let topics = config.pipeline.topics.iter().enumerate();
    let own = topics.filter(|(id, _)| config.pipeline.is_stream(TopicId(*id)));
    own.map(|(_, topic)| topic.topic.as_str())
}

/// Those of the pipeline's topics that exist; its own may be missing.
pub fn check(
    config: &Config,
    admin: &impl Admin,
) -> Result<BTreeMap<String, TopicFacts>, TopicsError> {
    let pipeline = &config.pipeline;
    let changelogs = changelogs(config);
    let tables = pipeline.maps.iter().filter_map(|map| match &map.kept {
        Kept::Changelog | Kept::State => None,
        Kept::Topic(topic) => Some(topic.as_str()),
    });
    let sources = pipeline.topics.iter().map(|topic| topic.topic.as_str());
    let sinks = pipeline.sinks.iter().filter_map(|sink| match &sink.target {
        Target::Topic(topic) => Some(topic.as_str()),
        Target::Map(_) | Target::Stream(_) => None,
    });
    let facts = admin.topics(
        sources
            .chain(sinks)
            .chain(tables)
            .chain(changelogs.iter().map(String::as_str)),
    )?;
    let mut problems = missing(config, &facts);
    problems.extend(unequal(config, &facts));
    let partitions = source_partitions(config, &facts);
    problems.extend(unfit_tables(config, &facts, partitions));
    for changelog in &changelogs {
        problems.extend(
            facts
                .get(changelog)
                .and_then(|facts| unfit(config, changelog, facts, partitions)),
        );
    }
    for (id, topic) in pipeline.topics.iter().enumerate() {
        let facts = facts.get(&topic.topic);
        let facts = facts.filter(|_| pipeline.is_stream(TopicId(id)));
        if let Some((why, repair)) = facts.and_then(unfit_stream) {
            let message = format!("topic \"{}\" {why}", topic.topic);
            let problem = config.topic_problem(TopicId(id), message);
            problems.push(problem.with_hint(repair));
        }
    }
    if let Some(problems) = Problems::from_list(problems) {
        return Err(problems.into());
    }
    Ok(facts)
}

fn missing(config: &Config, facts: &BTreeMap<String, TopicFacts>) -> Vec<Problem> {
    let pipeline = &config.pipeline;
    let absent = |topic: &str| format!("topic \"{topic}\" does not exist");
    let mut problems = Vec::new();
    for (id, topic) in pipeline.topics.iter().enumerate() {
        if !facts.contains_key(&topic.topic) && !pipeline.is_stream(TopicId(id)) {
            problems.push(config.topic_problem(TopicId(id), absent(&topic.topic)));
        }
    }
    for sink in &pipeline.sinks {
        if let Target::Topic(topic) = &sink.target
            && !facts.contains_key(topic)
        {
            problems.push(config.problem(&["sinks", &sink.name, "topic"], absent(topic)));
        }
    }
    for map in &pipeline.maps {
        if let Kept::Topic(topic) = &map.kept
            && !facts.contains_key(topic)
        {
            problems.push(config.problem(&["maps", &map.name, "topic"], absent(topic)));
        }
    }
    let advised = problems
        .into_iter()
        .map(|problem| problem.with_hint("make it, or mend the name"));
    advised.collect()
}

/// Source topics that differ in their number of partitions, where a task owns that number of each.
fn unequal(config: &Config, facts: &BTreeMap<String, TopicFacts>) -> Vec<Problem> {
    let pipeline = &config.pipeline;
    let count = |id: usize| {
        facts
            .get(&pipeline.topics[id].topic)
            .map(|facts| facts.partitions)
    };
    let Some(first) = count(0).filter(|_| pipeline.co_partitioned()) else {
        return Vec::new();
    };
    let differing = (1..pipeline.topics.len()).filter_map(|id| {
        let partitions = count(id).filter(|&partitions| partitions != first)?;
        let (topic, one) = (&pipeline.topics[id].topic, &pipeline.topics[0].topic);
        let message = format!("topic \"{topic}\" has {partitions} partitions, but \"{one}\" has {first}");
        let problem = config.topic_problem(TopicId(id), message);
        let hint = if pipeline.is_stream(TopicId(id)) {
            "a stream keeps the partitions it was made with: give it another name, once the group has read all of that topic \
             (kafka-consumer-groups.sh --describe shows a lag of 0), or let the pipeline begin anew with `millstream reset`"
        } else {
            "a pipeline with maps or keyed streams needs source topics of equal partition counts: the worker that owns a partition \
             number owns it in all of them"
        };
        Some(problem.with_hint(hint))
    });
    differing.collect()
}

fn source_partitions(config: &Config, facts: &BTreeMap<String, TopicFacts>) -> u32 {
    let first = facts.get(&config.pipeline.topics[0].topic);
    if config.pipeline.co_partitioned() {
        first.map_or(1, |facts| facts.partitions)
    } else {
        1
    }
}

/// Tables of which a task is to hold its own partition, and that have other partitions than the tasks. Those that lose entries are
/// warned of.
fn unfit_tables(
    config: &Config,
    facts: &BTreeMap<String, TopicFacts>,
    partitions: u32,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for map in &config.pipeline.maps {
        let Kept::Topic(topic) = &map.kept else {
            continue;
        };
        let Some(facts) = facts.get(topic) else {
            continue;
        };
        let key = ["maps", map.name.as_str(), "topic"];
        if !facts.is_compacted() {
            let message = format!(
                "topic \"{topic}\" has cleanup.policy={}: what it deletes is gone from the table after a restart",
                facts.cleanup_policy
            );
            let warning = config.problem(&key, message);
            tracing::warn!(
                "{}",
                warning.with_hint("set the topic's cleanup.policy to compact")
            );
        }
        if !map.replicated && facts.partitions != partitions {
            let message = format!(
                "topic \"{topic}\" has {} partitions, but the sources have {partitions}",
                facts.partitions
            );
            let hint = "a task reads its own partition of a table: give the topic as many as the sources, or hold all of it in \
                        every process, with `replicated = true`";
            problems.push(config.problem(&key, message).with_hint(hint));
        }
    }
    problems
}

/// Why an existing topic can't be a stream's, and what to do.
fn unfit_stream(facts: &TopicFacts) -> Option<(String, &'static str)> {
    if facts.is_compacted() {
        let why = "is compacted: records would be lost";
        return Some((why.into(), "set its cleanup.policy to delete"));
    }
    (!facts.retention.is_empty()).then(|| {
        let limits = facts.retention.join(" and ");
        let why = format!("has {limits}: records that wait to be read would be lost");
        let repair =
            "set both to -1: what has been read is deleted by the pipeline, whatever its age";
        (why, repair)
    })
}

/// Why an existing topic can't be the changelog of a map.
fn unfit(config: &Config, changelog: &str, facts: &TopicFacts, partitions: u32) -> Option<Problem> {
    let pipeline = &config.pipeline;
    let is_kept = |map: MapId| pipeline.changelog(map) == changelog;
    let writes = |sink: &&Sink| matches!(sink.target, Target::Map(map) if is_kept(map));
    let keeps = |step: &&Step| step.state.iter().any(|grant| is_kept(grant.map));
    let key = match pipeline.sinks.iter().find(writes) {
        Some(sink) => ["sinks", &sink.name, "map"],
        None => {
            let step = pipeline.steps.iter().find(keeps)?;
            ["steps", &step.name, "state"]
        }
    };
    if facts.partitions != partitions {
        let message = format!(
            "changelog \"{changelog}\" has {} partitions, but the sources have {partitions}",
            facts.partitions
        );
        let hint = "a map keeps the partitions it was made with: `millstream reset` has the pipeline begin anew; under another name the map \
                    begins empty";
        return Some(config.problem(&key, message).with_hint(hint));
    }
    if !facts.is_compacted() || facts.is_deleted_from() {
        let message = format!(
            "changelog \"{changelog}\" has cleanup.policy={}: entries would be lost",
            facts.cleanup_policy
        );
        return Some(
            config
                .problem(&key, message)
                .with_hint("set the topic's cleanup.policy to compact, and nothing else"),
        );
    }
    None
}

fn gather(config: &Config, facts: &BTreeMap<String, TopicFacts>, map_partitions: u32) -> Topics {
    let pipeline = &config.pipeline;
    let limits = pipeline.sinks.iter().map(|sink| {
        let topic = match &sink.target {
            Target::Topic(topic) | Target::Stream(topic) => topic.clone(),
            Target::Map(map) => pipeline.changelog(*map),
        };
        SinkLimits {
            record_bytes_max: facts[&topic].record_bytes_max,
        }
    });
    let starts = pipeline.topics.iter().flat_map(|topic| {
        let start = pipeline.sources[topic.source.0].start;
        (0..facts[&topic.topic].partitions)
            .map(move |partition| (topic.topic.clone(), partition, start))
    });
    let maps = 0..pipeline.maps.len();
    let maps = maps.map(|map| facts[&pipeline.topic_of(MapId(map))].clone());
    let maps: Vec<TopicFacts> = maps.collect();
    Topics {
        map_partitions,
        partitions_of: maps.iter().map(|facts| facts.partitions).collect(),
        maps,
        limits: limits.collect(),
        starts: starts.collect(),
    }
}
