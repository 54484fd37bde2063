//! Warm copies of map partitions that would come to this process next: folded as they change, answered from by nobody, and handed to
//! the worker that is assigned them.
//!
//! Who would be next is computed, not agreed on: the group's range assignment gives every number of partitions to the seats in the
//! order of their names, so what it would be without the seats of an instance is known to all. Where the guess is wrong, a partition
//! is restored from its changelog; nothing else depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millstream_engine::pipeline::{MapId, Pipeline};

use crate::changelogs::Changelogs;
use crate::cluster::{Cluster, instance_of};
use crate::directory::{MapPlace, SharedPartition};
use crate::fault;
use crate::map_memory::MapMemory;
use crate::threads;

/// How long the thread sleeps where there is nothing to fold.
const IDLE: Duration = Duration::from_millis(20);

/// How long who folds waits for others to pass, at a time.
const PASSING: Duration = Duration::from_millis(1);

/// How often it is looked who is in the group.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// How long a process without memory for its copies does without them.
const FULL_PAUSE: Duration = Duration::from_secs(60);

/// The copies of a process, until a worker claims them.
#[derive(Debug, Default)]
pub struct Standbys {
    /// Held while they are folded.
    copies: Mutex<BTreeMap<MapPlace, SharedPartition>>,
    /// How many wait for that: who folds lets them pass.
    waiting: AtomicUsize,
}

impl Standbys {
    fn held(&self) -> MutexGuard<'_, BTreeMap<MapPlace, SharedPartition>> {
        self.copies.lock().expect("nobody panics with it held")
    }

    /// The same, for who doesn't fold.
    fn held_next(&self) -> MutexGuard<'_, BTreeMap<MapPlace, SharedPartition>> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let held = self.held();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        held
    }

    fn let_pass(&self) {
        while self.waiting.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(PASSING);
        }
    }

    /// Gives those of these away that there are. Nobody else has anything to do with them from then on.
    pub fn claim(&self, places: &[MapPlace]) -> Vec<(MapPlace, SharedPartition)> {
        let mut held = self.held_next();
        let claim = |&place| Some((place, held.remove(&place)?));
        places.iter().filter_map(claim).collect()
    }

    #[cfg(test)]
    pub fn keep(&self, place: MapPlace, copy: SharedPartition) {
        self.held().insert(place, copy);
    }

    /// How many partitions of a map there are copies of.
    pub fn count(&self, map: MapId) -> usize {
        let held = self.held_next();
        held.keys().filter(|(of, _)| *of == map).count()
    }
}

/// Ends the thread when dropped.
#[derive(Debug)]
pub struct Standby {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread needs to know.
#[derive(Debug)]
pub struct Wanted {
    /// How many copies of a partition there are to be, in as many other instances.
    pub copies: u32,
    pub workers: u32,
    /// Of every map that a task owns partitions of.
    pub partitions: u32,
    pub pipeline: Arc<Pipeline>,
}

impl Standby {
    /// Starts to keep copies, if any are wanted.
    ///
    /// # Errors
    ///
    /// Why there can't be a reader or a thread.
    pub fn start<C: Cluster>(
        cluster: &C,
        wanted: Wanted,
        memory: &Arc<MapMemory>,
        standbys: &Arc<Standbys>,
    ) -> Result<Self, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut thread = None;
        let maps: Vec<MapId> = owned(&wanted.pipeline).collect();
        if wanted.copies > 0 && !maps.is_empty() {
            let all = 0..wanted.pipeline.maps.len();
            let topics = all.map(|map| wanted.pipeline.topic_of(MapId(map)));
            let changelogs = Changelogs::new(
                cluster.reader()?,
                topics.collect(),
                Arc::clone(memory),
                None,
            );
            let mut keeper = Keeper {
                cluster: cluster.clone(),
                wanted,
                maps,
                changelogs,
                standbys: Arc::clone(standbys),
                numbers: Vec::new(),
                spared: BTreeSet::new(),
            };
            let stop = Arc::clone(&stop);
            let started = threads::start("standby", move || keeper.run(&stop));
            thread = Some(started.map_err(|why| format!("a thread: {why}"))?);
        }
        Ok(Self { stop, thread })
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a panic ends the process");
        }
    }
}

/// The maps of which each task owns a partition.
fn owned(pipeline: &Pipeline) -> impl Iterator<Item = MapId> {
    let maps = pipeline.maps.iter().enumerate();
    maps.filter(|(_, map)| !map.replicated)
        .map(|(id, _)| MapId(id))
}

struct Keeper<C: Cluster> {
    cluster: C,
    wanted: Wanted,
    maps: Vec<MapId>,
    changelogs: Changelogs<C::Reader>,
    standbys: Arc<Standbys>,
    /// The numbers of the partitions that the last look wanted copies of.
    numbers: Vec<u32>,
    /// Copies that the last look didn't want any more, and left.
    spared: BTreeSet<MapPlace>,
}

impl<C: Cluster> Keeper<C> {
    fn run(&mut self, stop: &AtomicBool) {
        let mut look_due = Instant::now() + LOOK_INTERVAL;
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if look_due <= now {
                look_due = now + LOOK_INTERVAL;
                if let Err(why) = self.look() {
                    tracing::warn!("standby copies can't be looked after: {why}");
                }
            }
            match self.fold() {
                Ok(0) => std::thread::sleep(IDLE),
                Ok(_) => {}
                Err(why) => {
                    tracing::warn!("standby copies are given up for {FULL_PAUSE:?}: {why}");
                    self.give_up();
                    look_due = Instant::now() + FULL_PAUSE;
                }
            }
        }
        self.give_up();
    }

    fn give_up(&mut self) {
        self.standbys.held().clear();
        if let Err(why) = self.changelogs.retain(|_| false) {
            tracing::warn!("standby copies can't be given up: {why}");
        }
    }

    /// Folds what is there. Nobody claims a copy meanwhile, and what was claimed is left alone. Nor does anybody wait for brokers who
    /// claims one: a copy that would have to begin anew is given up until the next look.
    fn fold(&mut self) -> Result<usize, String> {
        self.standbys.let_pass();
        let mut kept = self.standbys.held();
        let claimed = self.changelogs.forget(|place| kept.contains_key(place));
        let moved = self.changelogs.fold()?;
        for place in self.changelogs.broken() {
            kept.remove(place);
        }
        let broken = self.changelogs.forget(|place| kept.contains_key(place));
        drop(kept);
        if claimed + broken > 0 {
            self.changelogs.assign()?;
        }
        self.changelogs.tend(&moved)?;
        Ok(moved.len())
    }

    /// Takes up what would come to this instance now, and gives up what wouldn't, or what a worker has claimed.
    ///
    /// Copies that aren't wanted any more stay until the next look: the group may know already that they are this process's own, and
    /// the worker be about to claim them.
    fn look(&mut self) -> Result<(), String> {
        let cluster = &self.cluster;
        let others = cluster.others()?;
        let numbers = next_of(
            cluster.instance(),
            &self.all_seats(&others),
            self.wanted.partitions,
            self.wanted.copies,
        );
        let maps = self.maps.iter();
        let places = maps.flat_map(|&map| numbers.iter().map(move |&number| (map, number)));
        let mut places: BTreeSet<MapPlace> = places.collect();
        if self.numbers != numbers {
            let listed: Vec<String> = numbers.iter().map(u32::to_string).collect();
            tracing::info!("standby copies of partitions: {}", listed.join(" "));
            self.numbers = numbers;
        }
        let before: BTreeSet<MapPlace> = self.standbys.held().keys().copied().collect();
        self.changelogs.retain(|place| before.contains(place))?;
        let unwanted = before.difference(&places);
        let spared = unwanted.filter(|place| !self.spared.contains(place));
        self.spared = spared.copied().collect();
        places.extend(&self.spared);
        if before == places {
            return Ok(());
        }
        let places: Vec<MapPlace> = places.into_iter().collect();
        self.changelogs.follow(&places)?;
        fault::reach("standby-followed");
        let mut kept = self.standbys.held();
        // What was claimed meanwhile is a worker's.
        let claimed = |place: &MapPlace| before.contains(place) && !kept.contains_key(place);
        let claimed = self.changelogs.forget(|place| !claimed(place));
        kept.clone_from(self.changelogs.held());
        drop(kept);
        match claimed {
            0 => Ok(()),
            _ => self.changelogs.assign(),
        }
    }

    /// The seats in the group, each with its instance. Ours are in it, or will be.
    fn all_seats(&self, others: &BTreeSet<String>) -> BTreeMap<String, String> {
        let pipeline = self.cluster.pipeline();
        let instance = |seat: &String| {
            let instance = instance_of(seat, pipeline)?;
            Some((seat.clone(), instance.to_owned()))
        };
        let ours = (0..self.wanted.workers).map(|worker| {
            let seat = self.cluster.seat(worker);
            (seat, self.cluster.instance().to_owned())
        });
        others.iter().filter_map(instance).chain(ours).collect()
    }
}

/// Partitions that would come to `instance` if those who are before it went: their owner now, and as many as come next with fewer
/// than `copies` others. `seats` are by name, with their instances.
fn next_of(
    instance: &str,
    seats: &BTreeMap<String, String>,
    partitions: u32,
    copies: u32,
) -> Vec<u32> {
    let is_next = |number: &u32| {
        let mut left = seats.clone();
        let owner = owner_of(&left, *number, partitions);
        let mut gone = owner.cloned();
        for _ in 0..copies {
            let Some(last) = gone else { return false };
            if last == instance {
                return false;
            }
            left.retain(|_, of| *of != last);
            gone = owner_of(&left, *number, partitions).cloned();
            if gone.as_deref() == Some(instance) {
                return true;
            }
        }
        false
    };
    (0..partitions).filter(is_next).collect()
}

/// As Kafka's range assignor has it: the first seats get one partition more where they don't come out even.
fn owner_of(seats: &BTreeMap<String, String>, number: u32, partitions: u32) -> Option<&String> {
    let count = u32::try_from(seats.len()).ok().filter(|&count| count > 0)?;
    let (least, more) = (partitions / count, partitions % count);
    let with_more = more * (least + 1);
    let at = match number.checked_sub(with_more) {
        None => number / (least + 1),
        Some(behind) => more + behind / least,
    };
    seats.values().nth(at as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(names: &[&str]) -> BTreeMap<String, String> {
        let seat = |name: &&str| {
            let (instance, _) = name.split_once('.').expect("instance.worker");
            (format!("p.{name}"), instance.to_owned())
        };
        names.iter().map(seat).collect()
    }

    #[test]
    fn ranges_are_kafkas() {
        let check = |names: &[&str], partitions: u32, expected: &str| {
            let seats = seats(names);
            let owners = (0..partitions).map(|number| owner_of(&seats, number, partitions));
            let owners: String = owners
                .map(|owner| owner.map_or("-", String::as_str))
                .collect();
            assert_eq!(owners, expected);
        };
        check(&["a.0"], 3, "aaa");
        check(&["a.0", "b.0"], 4, "aabb");
        check(&["a.0", "b.0", "c.0"], 4, "aabc");
        check(&["a.0", "b.0", "c.0"], 8, "aaabbbcc");
        check(&["a.0", "a.1", "b.0"], 3, "aab");
        check(&["a.0", "b.0", "c.0"], 2, "ab");
        check(&[], 2, "--");
    }

    #[test]
    fn what_would_come_next_is_kept() {
        let check = |instance: &str, names: &[&str], copies: u32, expected: &[u32]| {
            assert_eq!(next_of(instance, &seats(names), 4, copies), expected);
        };
        check("a", &["a.0"], 1, &[]);
        check("a", &["a.0", "b.0"], 1, &[2, 3]);
        check("b", &["a.0", "b.0"], 1, &[0, 1]);
        // aabc: without a, bbcc; without b, aacc; without c, aabb.
        check("b", &["a.0", "b.0", "c.0"], 1, &[0, 1, 3]);
        check("c", &["a.0", "b.0", "c.0"], 1, &[2]);
        check("a", &["a.0", "b.0", "c.0"], 1, &[]);
        check("c", &["a.0", "b.0", "c.0"], 2, &[0, 1, 2]);
        check("a", &["a.0", "b.0", "c.0"], 2, &[2, 3]);
        check("a", &["a.0", "b.0"], 0, &[]);
        // Every partition has exactly one next.
        let names = ["a.0", "a.1", "b.0", "c.0"];
        let all = ["a", "b", "c"].map(|instance| next_of(instance, &seats(&names), 7, 1));
        let mut all = all.concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5, 6]);
    }
}
