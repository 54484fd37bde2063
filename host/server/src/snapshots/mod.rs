//! Snapshots of map partitions on this host's disk: the writer makes them beside the live work, the loader begins a restore with the
//! newest that fits. The folder is shared by all processes of the host.
//!
//! Invariant: a file under its final name was whole when it got it. A file that doesn't fit is not used, and nothing ends because of
//! one: the changelog has it all.
//!
//! `<state folder>/snapshots/<cluster id>/<pipeline>/<map>/<partition>/<begun>-<from>.snapshot`

pub mod loader;
pub mod report;
pub mod shelf;
pub mod writer;

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use millstream_engine::pipeline::{Kept, MapId, Pipeline};
use millstream_engine::state::snapshot::Header;

use self::shelf::Shelf;
use crate::cluster::{Admin, TopicFacts};
use crate::directory::MapPlace;
use crate::wall_clock::now;

/// Where to keep them, as the command line says.
#[derive(Clone, Debug)]
pub struct State {
    pub folder: PathBuf,
    /// How long after one of a partition the next may be written.
    pub interval: Duration,
}

/// Where the snapshots of a pipeline stand, and what must be true of them.
#[derive(Debug)]
pub struct Snapshots {
    folder: PathBuf,
    interval: Duration,
    pipeline: String,
    /// By map; none where no snapshots are kept.
    maps: Vec<Option<MapTopic>>,
    counts: Arc<[MapCounts]>,
}

#[derive(Clone, Debug)]
struct MapTopic {
    map: String,
    partitions: u32,
    id: u128,
    retention: Duration,
}

/// Of one map, since the process began.
#[derive(Debug, Default)]
pub struct MapCounts {
    pub written: AtomicU64,
    pub failed: AtomicU64,
    pub refused: AtomicU64,
    /// Entries that were restored from snapshots.
    pub restored: AtomicU64,
    /// Of the last one written: its bytes, and how long that took.
    pub bytes: AtomicU64,
    pub millis: AtomicU64,
}

/// For each map of a pipeline.
pub fn counts(pipeline: &Pipeline) -> Arc<[MapCounts]> {
    pipeline.maps.iter().map(|_| MapCounts::default()).collect()
}

impl Snapshots {
    /// Looks which maps can have snapshots: of a changelog, or of a topic that only compaction takes records from, and that has an
    /// id. None where no map can. `facts` are of the maps' topics.
    pub fn open(
        state: &State,
        pipeline: &Pipeline,
        facts: &[TopicFacts],
        admin: &impl Admin,
        counts: &Arc<[MapCounts]>,
    ) -> Option<Arc<Self>> {
        if facts.is_empty() {
            return None;
        }
        let Some(cluster) = admin.cluster_id() else {
            tracing::warn!(
                "no snapshots of maps are kept: the brokers don't tell their cluster's id"
            );
            return None;
        };
        let maps = pipeline.maps.iter().zip(facts).enumerate();
        let maps = maps.map(|(id, (map, facts))| {
            let clear_cut = match map.kept {
                Kept::Changelog | Kept::State => facts.is_compacted(),
                // What retention deletes is gone from the fold, and would be there in a snapshot.
                Kept::Topic(_) => facts.cleanup_policy.trim() == "compact",
            };
            let Some(retention) = facts.removals_kept().filter(|_| clear_cut) else {
                tracing::info!(
                    "no snapshots of map \"{}\" are kept: its topic deletes records",
                    map.name
                );
                return None;
            };
            let topic = pipeline.topic_of(MapId(id));
            let asked = admin.topic_id(&topic);
            let known = asked.and_then(|id| id.ok_or_else(|| "it has none".into()));
            match known {
                Ok(id) => Some(MapTopic {
                    map: map.name.clone(),
                    partitions: facts.partitions,
                    id,
                    retention,
                }),
                Err(why) => {
                    tracing::warn!(
                        "no snapshots of map \"{}\" are kept: the id of topic {topic}: {why}",
                        map.name
                    );
                    None
                }
            }
        });
        let snapshots = Self {
            folder: folder_of(&state.folder, &cluster).join(&pipeline.name),
            interval: state.interval,
            pipeline: pipeline.name.clone(),
            maps: maps.collect(),
            counts: Arc::clone(counts),
        };
        snapshots
            .maps
            .iter()
            .any(Option::is_some)
            .then(|| Arc::new(snapshots))
    }

    fn map(&self, (map, _): MapPlace) -> Option<&MapTopic> {
        self.maps[map.0].as_ref()
    }

    /// The id that a map's topic had at the start.
    pub fn topic_id(&self, place: MapPlace) -> Option<u128> {
        self.map(place).map(|map| map.id)
    }

    /// Whether there may be a snapshot of it.
    pub fn has(&self, place: MapPlace) -> bool {
        let files = self.shelf(place).map(|shelf| shelf.files());
        // What can't be listed is the loader's to tell of.
        files.is_some_and(|files| files.map_or(true, |files| !files.is_empty()))
    }

    fn counts(&self, (map, _): MapPlace) -> &MapCounts {
        &self.counts[map.0]
    }

    fn shelf(&self, place: MapPlace) -> Option<Shelf> {
        let map = self.map(place)?;
        Some(Shelf::new(
            self.folder.join(&map.map).join(place.1.to_string()),
        ))
    }

    /// What a snapshot of this place says of itself, when it is begun now.
    fn header(&self, place: MapPlace) -> Option<Header> {
        let map = self.map(place)?;
        Some(Header {
            pipeline: self.pipeline.clone(),
            map: map.map.clone(),
            partition: place.1,
            partitions: map.partitions,
            topic: map.id,
            from: 0,
            begun: now(),
            entries: 0,
        })
    }

    /// Every place that snapshots may be kept of.
    fn places(&self) -> impl Iterator<Item = MapPlace> {
        let maps = self.maps.iter().enumerate();
        let maps = maps.filter_map(|(id, map)| Some((MapId(id), map.as_ref()?.partitions)));
        maps.flat_map(|(id, partitions)| (0..partitions).map(move |number| (id, number)))
    }

    /// For people.
    fn name(&self, place: MapPlace) -> String {
        let map = self.map(place).map_or("?", |map| map.map.as_str());
        format!("partition {} of map \"{map}\"", place.1)
    }
}

/// Where the snapshots of a cluster's pipelines stand.
pub fn folder_of(state: &Path, cluster: &str) -> PathBuf {
    let plain = |c: char| match c.is_ascii_alphanumeric() || c == '_' {
        true => c,
        false => '-',
    };
    let name: String = cluster.chars().map(plain).take(60).collect();
    all_of(state).join(name)
}

/// Where those of all clusters do.
pub fn all_of(state: &Path) -> PathBuf {
    state.join("snapshots")
}

/// Makes the folder that the command line names, and sees whether it can be written.
pub fn check_folder(state: &Path) -> io::Result<()> {
    let folder = all_of(state);
    shelf::make_folder(&folder)?;
    // In a folder that everybody may write to, somebody else may have been there first.
    let owner = std::fs::metadata(state)?.uid();
    if state.starts_with(std::env::temp_dir()) && owner != user() {
        return Err(io::Error::other("it is another user's"));
    }
    let probe = folder.join(format!("probe.{}", std::process::id()));
    std::fs::write(&probe, b"")?;
    shelf::remove(&probe)
}

/// Whose process this is.
pub fn user() -> u32 {
    std::fs::metadata("/proc/self").map_or(0, |process| process.uid())
}

#[cfg(test)]
mod tests;
