//! What the maps of a process may take, and how their partitions are made within that.
//!
//! Invariant: every map partition of the process has a share of the one budget; who can't get more says so before memory runs out.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream_engine::json::Pointer;
use millstream_engine::pipeline::{Kept, MapId, Pipeline};
use millstream_engine::state::budget::{Budget, Full};
use millstream_engine::state::committed::Committed;
use millstream_engine::state::freshness::Freshness;
use millstream_engine::state::restore::{LiveFrom, MapPartition};

use crate::wall_clock;

/// Where nothing tells how much memory there is.
const MEMORY_UNKNOWN: usize = 2 << 30;

/// Makes the map partitions of a process.
#[derive(Debug)]
pub struct MapMemory {
    pub budget: Arc<Budget>,
    names: Vec<String>,
    /// By map.
    indexes: Vec<Arc<[Pointer]>>,
    /// By map.
    live_from: Vec<LiveFrom>,
    /// By map: for how long its topic tells of a removal. Where it isn't told, for ever.
    retentions: Vec<Option<Duration>>,
    clock: fn() -> i64,
    /// Of hash tables. Told to nobody.
    seed: u64,
    /// Of the partition that is made next; it begins anywhere, so that no other process's are the same.
    life: AtomicU64,
}

/// What the maps of a pipeline may take where its file says nothing, in bytes: half of what this process may have is for maps, in equal
/// shares for its pipelines.
pub fn share(pipelines: usize) -> usize {
    let all = machine_memory().map_or(MEMORY_UNKNOWN, |all| all / 2);
    all / pipelines.max(1)
}

impl MapMemory {
    /// Of `limit` bytes.
    pub fn new(pipeline: &Pipeline, limit: usize, seed: u64, life: u64) -> Self {
        Self {
            budget: Budget::new(limit, pipeline.maps.len()),
            names: pipeline.maps.iter().map(|map| map.name.clone()).collect(),
            indexes: pipeline
                .maps
                .iter()
                .map(|map| map.index.as_slice().into())
                .collect(),
            live_from: pipeline
                .maps
                .iter()
                .map(|map| match map.kept {
                    Kept::State => LiveFrom::Task,
                    Kept::Changelog | Kept::Topic(_) => LiveFrom::Changelog,
                })
                .collect(),
            retentions: vec![None; pipeline.maps.len()],
            clock: wall_clock::now,
            seed,
            life: AtomicU64::new(life),
        }
    }

    /// The same, for topics that forget their removals after so long; by map.
    pub fn forgetting(mut self, retentions: Vec<Option<Duration>>) -> Self {
        self.retentions = retentions;
        self
    }

    /// The same, in another time: milliseconds since 1970-01-01 UTC.
    #[cfg(test)]
    pub fn at_time(mut self, clock: fn() -> i64) -> Self {
        self.clock = clock;
        self
    }

    pub fn now(&self) -> i64 {
        (self.clock)()
    }

    /// An empty partition, to be folded from `start` on.
    pub fn partition(&self, map: MapId, start: i64, end: i64) -> MapPartition {
        let contents = Committed::new(self.seed, Arc::clone(&self.indexes[map.0]));
        let life = self.life.fetch_add(1, Ordering::Relaxed);
        let share = self.budget.share(map.0);
        let freshness = Freshness::new(self.now(), self.retentions[map.0]);
        MapPartition::new(contents, share, life, (start, end), self.live_from[map.0])
            .with_freshness(freshness)
    }

    /// What is to be said, and done, when a map can't grow.
    pub fn describe(&self, map: MapId, full: &Full) -> String {
        format!(
            "map \"{}\" is too large for memory: with its next change it would take {} in this process, all maps {}, and `memory` \
             allows {}. What is committed stays. Raise `memory` in the pipeline file, or run more instances: each holds a part of \
             the partitions",
            self.names[map.0],
            amount(full.map),
            amount(full.all),
            amount(full.limit)
        )
    }
}

/// Bytes as people say them.
fn amount(bytes: usize) -> String {
    let units = [("GiB", 30), ("MiB", 20)];
    let unit = units.iter().find(|(_, shift)| bytes >= 1 << shift);
    let (name, shift) = unit.unwrap_or(&("KiB", 10));
    let tenths = (bytes * 10) >> shift;
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        tenth => format!("{}.{tenth} {name}", tenths / 10),
    }
}

/// The memory of the machine, or what the control groups of this process leave of it.
fn machine_memory() -> Option<usize> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.as_deref().and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib << 10)
    });
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    machine
        .into_iter()
        .chain(group_limits(&groups, Path::new("/sys/fs/cgroup")))
        .min()
}

/// The limits of all groups that this process is in, of either version, up to the root. In a container the root is its own.
fn group_limits(groups: &str, root: &Path) -> Vec<usize> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            some if some.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let folder = root.join(group.trim_start_matches('/'));
        let folders = folder
            .ancestors()
            .take_while(|folder| folder.starts_with(&root));
        limits.extend(folders.filter_map(|folder| {
            let text = std::fs::read_to_string(folder.join(file)).ok()?;
            text.trim().parse::<usize>().ok()
        }));
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_readable() {
        let check = |bytes, expected: &str| assert_eq!(amount(bytes), expected);
        check(2 << 30, "2 GiB");
        check((5 << 30) / 2, "2.5 GiB");
        check(1 << 20, "1 MiB");
        check(16 << 10, "16 KiB");
    }

    #[test]
    fn the_tightest_group_counts() {
        let root = std::env::temp_dir().join(format!("millstream-groups-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let file = root.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        write("a/b/memory.max", "max\n");
        write("a/memory.max", "1000\n");
        write("memory/x/memory.limit_in_bytes", "700\n");
        assert_eq!(group_limits("0::/a/b\n", &root), [1000]);
        assert_eq!(
            group_limits("5:cpu:/x\n4:memory,hugetlb:/x\n", &root),
            [700]
        );
        assert!(group_limits("0::/\nnonsense", &root).is_empty());
        std::fs::remove_dir_all(&root).unwrap();
        assert!(machine_memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}
