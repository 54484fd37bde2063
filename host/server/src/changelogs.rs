//! Folds map partitions out of what is committed in their topics, at start and ever after, through a reader outside the group: a
//! worker those of its tasks, and the process those that are replicated.
//!
//! Live update and restore are the same reading. Invariant: a partition counts as restored when everything up to the high watermark
//! of the moment it was taken has been read; what a reader of committed records sees as the end would let a dead writer's open
//! transaction hide committed changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use millstream_engine::commit::ledger::Ledger;
use millstream_engine::pipeline::{MapId, Pipeline};
use millstream_engine::state::overlay::Change;
use millstream_engine::state::restore::{MapPartition, Phase};

use crate::cluster::{Read, Reader};
use crate::directory::{MapPlace, SharedPartition};
use crate::fault;
use crate::map_memory::MapMemory;
use crate::own_topics::{self, OwnTopic};
use crate::snapshots::Snapshots;
use crate::snapshots::loader::{Loader, Wanted};
use crate::standby::Standbys;

mod ends;

use ends::Ends;

/// How long a partition that has something to read may stand still before its reading is begun again. librdkafka has been seen to
/// fetch nothing after an outage, for minutes; an open transaction of somebody else may hold it up too, and then nothing is lost.
const STANDSTILL_MAX: Duration = Duration::from_secs(10);

/// How long changes may be pending before something other than an open transaction is to be feared. A predecessor's ends by
/// its time-out, a minute after its last sign with usual intervals, and the broker's look every 10 s.
const PENDING_MAX: Duration = Duration::from_secs(120);

/// How long partitions that were filled from snapshots wait for others that are, at most, before their changelogs are read on.
const LOADED_PAUSE: Duration = Duration::from_secs(1);

/// How long a changelog that can't be read is left alone before it is tried again.
const REBUILD_PAUSE: Duration = Duration::from_secs(5);

/// How many changes are merged under one lock.
const MERGED_AT_ONCE: usize = 512;

#[derive(Debug)]
pub struct Changelogs<R> {
    reader: R,
    /// The maps' topics, by `MapId`: changelogs, and topics that tables are made from.
    topics: Vec<String>,
    memory: Arc<MapMemory>,
    held: BTreeMap<MapPlace, SharedPartition>,
    /// Given away in a rebalance under way, or claimed in it; what comes back goes on where it was.
    parked: BTreeMap<MapPlace, SharedPartition>,
    /// Partitions whose changelog could not be read on: they are folded anew from its start.
    broken: Vec<MapPlace>,
    rebuild_due: Instant,
    /// Partitions that have something to read, and when that began or they last moved.
    behind: BTreeMap<MapPlace, Instant>,
    /// Since when none of them has moved, as far as reading was begun again.
    standing: Option<Instant>,
    /// What the process keeps copies of, for this to take.
    standbys: Option<Arc<Standbys>>,
    /// The pipeline's own topics as they were when the process began.
    ledger: Option<(Ledger, Arc<Pipeline>)>,
    snapshots: Option<Arc<Snapshots>>,
    loader: Option<Loader>,
    /// Partitions that the loader has, or had a moment ago: their changelogs are not read yet.
    loading: BTreeSet<MapPlace>,
    loaded: Vec<MapPlace>,
    loaded_due: Instant,
    ends: Ends,
}

impl<R: Reader> Changelogs<R> {
    pub fn new(
        reader: R,
        topics: Vec<String>,
        memory: Arc<MapMemory>,
        snapshots: Option<Arc<Snapshots>>,
    ) -> Self {
        Self {
            reader,
            topics,
            memory,
            held: BTreeMap::new(),
            parked: BTreeMap::new(),
            broken: Vec::new(),
            rebuild_due: Instant::now(),
            behind: BTreeMap::new(),
            standing: None,
            standbys: None,
            ledger: None,
            snapshots,
            loader: None,
            loading: BTreeSet::new(),
            loaded: Vec::new(),
            loaded_due: Instant::now(),
            ends: Ends::default(),
        }
    }

    /// The same, taking copies that there are instead of beginning anew.
    pub fn with_standbys(mut self, standbys: &Arc<Standbys>) -> Self {
        self.standbys = Some(Arc::clone(standbys));
        self
    }

    /// The same, ending where one of the pipeline's own changelogs isn't the one that it was.
    pub fn with_ledger(mut self, ledger: &Ledger, pipeline: &Arc<Pipeline>) -> Self {
        self.ledger = Some((ledger.clone(), Arc::clone(pipeline)));
        self
    }

    /// Takes these map partitions. To be called after the stable offsets of the inputs were read. Can be called again after an
    /// error.
    pub fn take(&mut self, places: &[MapPlace]) -> Result<(), String> {
        self.stop_loading();
        // Whatever fails below, what is there already is there the next time.
        self.parked.append(&mut self.held);
        let claimed = self.claim(places);
        let mut held = BTreeMap::new();
        let mut wanted = Vec::new();
        for &place in places {
            let (start, end) = self.bounds(place)?;
            if let Some(kept) = self.kept(place, (start, end)) {
                held.insert(place, kept);
                continue;
            }
            let shared = Arc::new(RwLock::new(self.memory.partition(place.0, start, end)));
            held.insert(place, Arc::clone(&shared));
            wanted.push(Wanted {
                place,
                shared,
                start,
                end,
            });
        }
        fault::reach("restore-bounds-read");
        if claimed > 0 {
            fault::reach("standby-claimed");
        }
        let wanted = self.choose(wanted)?;
        self.held = held;
        self.load(wanted)?;
        self.assign()?;
        self.parked.clear();
        self.broken.clear();
        let now = Instant::now();
        let restoring =
            |shared: &SharedPartition| matches!(read(shared).phase(), Phase::Restoring { .. });
        let behind = self.held.iter().filter(|(_, shared)| restoring(shared));
        self.behind = behind.map(|(&place, _)| (place, now)).collect();
        Ok(())
    }

    /// Takes these map partitions to fold them as long as they are held: they never count as restored. Can be called again after an
    /// error.
    pub fn follow(&mut self, places: &[MapPlace]) -> Result<(), String> {
        let mut held = BTreeMap::new();
        for &place in places {
            let (start, end) = self.bounds(place)?;
            let kept = self.held.get(&place);
            let kept = kept.filter(|shared| (start..=end).contains(&read(shared).position()));
            let anew = || self.memory.partition(place.0, start, i64::MAX);
            let shared = kept.map_or_else(|| Arc::new(RwLock::new(anew())), Arc::clone);
            held.insert(place, shared);
        }
        self.held = held;
        self.assign()
    }

    /// Has nothing to do any more with partitions that aren't wanted, and reads them no more.
    pub fn retain(&mut self, wanted: impl Fn(&MapPlace) -> bool) -> Result<(), String> {
        match self.forget(wanted) {
            0 => Ok(()),
            _ => self.assign(),
        }
    }

    /// The same, without a question to anybody: what is read of them until the next call of `assign` is dropped. Returns how many there were.
    pub fn forget(&mut self, wanted: impl Fn(&MapPlace) -> bool) -> usize {
        let before = self.held.len();
        self.held.retain(|place, _| wanted(place));
        self.behind.retain(|place, _| wanted(place));
        self.broken.retain(|place| wanted(place));
        before - self.held.len()
    }

    /// A change of this partition was committed: if it is held here, it will come.
    pub fn expect(&mut self, place: MapPlace) {
        if self.held.contains_key(&place) {
            self.behind.entry(place).or_insert_with(Instant::now);
        }
    }

    /// Reads what is held, each topic partition from where the fold stands that is least far.
    pub fn assign(&mut self) -> Result<(), String> {
        let mut places: BTreeMap<(&str, u32), i64> = BTreeMap::new();
        let read_on = |(place, _): &(&MapPlace, _)| !self.loading.contains(place);
        for (&(map, partition), shared) in self.held.iter().filter(read_on) {
            let position = read(shared).position();
            let least = places.entry((&self.topics[map.0], partition));
            let least = least.or_insert(position);
            *least = position.min(*least);
        }
        let places = places.into_iter();
        let places = places.map(|((topic, partition), position)| (topic, partition, position));
        self.reader.assign(&places.collect::<Vec<_>>())
    }

    /// Begins the broken partitions anew. They answer nobody until they are restored.
    fn rebuild(&mut self) -> Result<(), String> {
        let (mut begun, mut refused) = (Vec::new(), None);
        while let (Some(&place), None) = (self.broken.first(), &refused) {
            match self.bounds(place) {
                Ok((start, end)) => {
                    if let Some(shared) = self.held.get(&place) {
                        *write(shared) = self.memory.partition(place.0, start, end);
                    }
                    begun.push(self.broken.remove(0));
                }
                Err(why) => {
                    // The others are the first the next time.
                    self.broken.rotate_left(1);
                    refused = Some(why);
                }
            }
        }
        if let Err(why) = self.assign() {
            self.broken.append(&mut begun);
            return Err(why);
        }
        refused.map_or(Ok(()), Err)
    }

    /// First offset and high watermark of a map partition's topic, be it held here or not.
    pub fn bounds(&self, (map, partition): MapPlace) -> Result<(i64, i64), String> {
        self.reader.bounds(&self.topics[map.0], partition)
    }

    /// Takes the copies that there are of these, to go on from. Returns how many.
    fn claim(&mut self, places: &[MapPlace]) -> usize {
        let Some(standbys) = &self.standbys else {
            return 0;
        };
        let copies = standbys.claim(places);
        let count = copies.len();
        if count > 0 {
            tracing::info!("{count} map partitions are taken over from standby copies");
        }
        self.parked.extend(copies);
        count
    }

    /// What was parked of it, to go on from.
    fn kept(&self, place: MapPlace, (start, end): (i64, i64)) -> Option<SharedPartition> {
        let kept = self.parked.get(&place).cloned()?;
        let mut partition = write(&kept);
        // A changelog that was made anew, or cut further than we had read, has to be read from its start; so has one that may have
        // forgotten what was removed meanwhile.
        let is_good = (start..=end).contains(&partition.position())
            && !partition.freshness().is_over(self.memory.now());
        is_good.then(|| {
            partition.resume(end);
            Arc::clone(&kept)
        })
    }

    /// Those of which there are snapshots to fill them from.
    fn choose(&self, wanted: Vec<Wanted>) -> Result<Vec<Wanted>, String> {
        let Some(snapshots) = &self.snapshots else {
            return Ok(Vec::new());
        };
        let restoring = |one: &Wanted| read(&one.shared).phase() != Phase::Live;
        let wanted = wanted.into_iter().filter(restoring);
        let mut wanted: Vec<Wanted> = wanted.filter(|one| snapshots.has(one.place)).collect();
        // A topic may have been made anew since the process began: nobody's snapshots are of that one.
        let maps: BTreeSet<MapId> = wanted.iter().map(|one| one.place.0).collect();
        for map in maps {
            let id = self.reader.topic_id(&self.topics[map.0])?;
            wanted.retain(|one| one.place.0 != map || snapshots.topic_id(one.place) == id);
        }
        Ok(wanted)
    }

    /// Begins to fill these.
    fn load(&mut self, wanted: Vec<Wanted>) -> Result<(), String> {
        let Some(snapshots) = self.snapshots.as_ref().filter(|_| !wanted.is_empty()) else {
            return Ok(());
        };
        self.loading = wanted.iter().map(|one| one.place).collect();
        let loader = Loader::start(snapshots, &self.memory, wanted);
        self.loader = Some(loader.map_err(|why| format!("a thread: {why}"))?);
        Ok(())
    }

    /// What was being filled is empty, or half full: it is nobody's from here on.
    fn stop_loading(&mut self) {
        self.loader = None;
        for place in std::mem::take(&mut self.loading) {
            self.held.remove(&place);
        }
        self.loaded.clear();
    }

    /// Reads the changelogs of what has been filled on from there. Several at a time: reading is begun anew for all others too.
    fn take_loaded(&mut self) -> Result<(), String> {
        let Some(loader) = &self.loader else {
            return Ok(());
        };
        let finished = loader.is_finished();
        for (place, done) in loader.take_done() {
            done.map_err(|full| self.memory.describe(place.0, &full))?;
            self.loaded.push(place);
        }
        let now = Instant::now();
        if finished {
            self.loader = None;
        }
        if self.loaded.is_empty() || (!finished && now < self.loaded_due) {
            return Ok(());
        }
        self.loaded_due = now + LOADED_PAUSE;
        fault::reach("restore-tail-begun");
        for place in self.loaded.drain(..) {
            self.loading.remove(&place);
            self.behind.insert(place, now);
        }
        if let Err(why) = self.assign() {
            tracing::warn!("changelogs can't be read on from their snapshots yet: {why}");
        }
        Ok(())
    }

    /// Gives all partitions up, keeping their contents until it is known which of them come back.
    pub fn park(&mut self) -> Result<(), String> {
        self.stop_loading();
        self.reader.assign(&[])?;
        self.parked.append(&mut self.held);
        self.behind.clear();
        Ok(())
    }

    pub fn held(&self) -> &BTreeMap<MapPlace, SharedPartition> {
        &self.held
    }

    /// Takes what a task changed of its own state, and committed, into the contents. Whoever asks waits for a part of a millisecond.
    pub fn merge<'c>(&mut self, changes: impl Iterator<Item = Change<'c>>) -> Result<(), String> {
        let (held, memory) = (&self.held, &self.memory);
        let mut locked: Option<(MapPlace, RwLockWriteGuard<'_, MapPartition>)> = None;
        for (count, change) in changes.enumerate() {
            let place = (change.map, change.partition);
            if count % MERGED_AT_ONCE == 0 || locked.as_ref().is_none_or(|(at, _)| *at != place) {
                // The lock is given up before it is asked for again.
                drop(locked.take());
                let shared = held.get(&place);
                locked = Some((place, write(shared.expect("a task holds its own state"))));
            }
            let (_, partition) = locked.as_mut().expect("it was locked above");
            if self.broken.contains(&place) {
                continue;
            }
            if partition.phase() != Phase::Live {
                // It was being folded anew, to an end that these changes are behind.
                **partition = memory.partition(place.0, 0, i64::MAX);
                self.broken.push(place);
                continue;
            }
            let merged = partition.merge(change.key, change.value);
            merged.map_err(|full| memory.describe(change.map, &full))?;
        }
        Ok(())
    }

    /// Folds these maps on from where they were read back: of what was sent and not merged, some may be in their changelogs.
    pub fn restore(&mut self, is_wanted: impl Fn(MapId) -> bool) -> Result<(), String> {
        for (&place, shared) in &self.held {
            if is_wanted(place.0) {
                let (_, end) = self.bounds(place)?;
                write(shared).resume(end);
            }
        }
        Ok(())
    }

    /// Asks the cluster whether there is more than was read. What a reader doesn't fetch though it is there is seen in no other way
    /// where others write the topics.
    pub fn look_for_more(&mut self) -> Result<(), String> {
        for place in self.held.keys().copied().collect::<Vec<_>>() {
            let (_, end) = self.bounds(place)?;
            if read(&self.held[&place]).position() < end {
                self.expect(place);
            }
        }
        Ok(())
    }

    /// Folds what is there, and looks after what can't be read on. Returns how many partitions moved. An error says that a map has no room
    /// for its next change, and nothing is folded from there on; or that what was committed is gone.
    pub fn poll(&mut self) -> Result<usize, String> {
        let moved = self.fold()?;
        self.tend(&moved)?;
        Ok(moved.len())
    }

    /// The first half, which waits for nobody. Returns what moved.
    ///
    /// Records that stand in a row for a partition are folded under one lock: who asks meanwhile waits once, for a part of a
    /// millisecond, instead of for each of them anew.
    pub fn fold(&mut self) -> Result<Vec<MapPlace>, String> {
        self.take_loaded()?;
        let (topics, held, broken) = (&self.topics, &self.held, &mut self.broken);
        let loading = &self.loading;
        let mut moved: Vec<MapPlace> = Vec::new();
        // Several maps may be made from one topic.
        let mut locked: Vec<(MapPlace, RwLockWriteGuard<'_, MapPartition>)> = Vec::new();
        let mut full = None;
        self.reader.poll(|(topic, partition), polled| {
            if full.is_some() {
                return;
            }
            let at = |place: &MapPlace| topics[place.0.0] == topic && place.1 == partition;
            if !locked.first().is_some_and(|(place, _)| at(place)) {
                locked.clear();
                let maps = (0..topics.len()).map(|map| (MapId(map), partition));
                let folds = |place: &MapPlace| !broken.contains(place) && !loading.contains(place);
                let places = maps.filter(|place| at(place) && folds(place));
                locked.extend(places.filter_map(|place| Some((place, write(held.get(&place)?)))));
                moved.extend(locked.iter().map(|(place, _)| *place));
            }
            for (place, partition) in &mut locked {
                match polled {
                    // Handed out before the reading was begun again.
                    Read::Record { offset, .. } if offset < partition.position() => {}
                    Read::Record { offset, key, value } => match key {
                        Some(key) => {
                            if let Err(why) = partition.fold(offset, key, value) {
                                full = Some((place.0, why));
                                return;
                            }
                        }
                        None => partition.advance(offset + 1),
                    },
                    Read::End(offset) => partition.advance(offset),
                    Read::Unreadable => {
                        **partition = self.memory.partition(place.0, 0, i64::MAX);
                        broken.push(*place);
                    }
                }
            }
            if matches!(polled, Read::Unreadable) {
                locked.clear();
            }
        });
        drop(locked);
        if let Some((map, full)) = full {
            return Err(self.memory.describe(map, &full));
        }
        // Here, so that who slept before or within that reading leaves nothing that was read on.
        self.keep_fresh();
        moved.sort_unstable();
        moved.dedup();
        Ok(moved)
    }

    /// The second half, which asks brokers: what is broken is begun anew, and where nothing moves, reading.
    pub fn tend(&mut self, moved: &[MapPlace]) -> Result<(), String> {
        self.ask_for_ends();
        self.rebuild_broken()?;
        self.restart_standing(moved);
        Ok(())
    }

    /// What can't be read on.
    pub fn broken(&self) -> &[MapPlace] {
        &self.broken
    }

    /// An error says that there is nothing to fold anew: what was committed is gone.
    fn rebuild_broken(&mut self) -> Result<(), String> {
        if self.broken.is_empty() || Instant::now() < self.rebuild_due {
            return Ok(());
        }
        let rebuilt = match self.made_anew() {
            Ok(Some(lost)) => return Err(lost),
            Ok(None) => self.rebuild(),
            Err(why) => Err(why),
        };
        self.rebuild_due = Instant::now() + REBUILD_PAUSE;
        match rebuilt {
            Ok(()) => {
                tracing::warn!("map partitions are folded anew from the start of their changelog");
            }
            Err(why) => tracing::warn!("map partitions can't be folded anew yet: {why}"),
        }
        Ok(())
    }

    /// Words for a stream, or a changelog of what is held, that is another one than when the process began. To be asked after everything was
    /// taken: what was read of a topic's bounds before may be of the other one.
    pub fn made_anew(&self) -> Result<Option<String>, String> {
        let Some((ledger, pipeline)) = &self.ledger else {
            return Ok(None);
        };
        let held: BTreeSet<&str> = self
            .held
            .keys()
            .map(|place| &*self.topics[place.0.0])
            .collect();
        let is_read = |own: &OwnTopic| own.is_stream() || held.contains(own.topic.as_str());
        for own in own_topics::of(pipeline).filter(is_read) {
            let id = self.reader.topic_id(&own.topic)?;
            if id.is_some_and(|id| own_topics::is_made_anew(&own.name, id, ledger)) {
                return Ok(Some(own.lost("this process began")));
            }
        }
        Ok(None)
    }

    /// Begins reading again where a partition has stood still for too long with something to read.
    fn restart_standing(&mut self, moved: &[MapPlace]) {
        if self.behind.is_empty() {
            return;
        }
        let now = Instant::now();
        if moved.iter().any(|place| self.behind.contains_key(place)) {
            self.standing = None;
        }
        for place in moved {
            match self.held.get(place).map(|shared| read(shared).phase()) {
                Some(Phase::Restoring { .. }) => {
                    fault::reach("restore-folding");
                    self.behind.insert(*place, now);
                }
                Some(Phase::Live) | None => {
                    self.behind.remove(place);
                }
            }
        }
        let stands = |(place, since): (&MapPlace, &Instant)| {
            now.duration_since(*since) > STANDSTILL_MAX && !self.loading.contains(place)
        };
        if let Some((&place, _)) = self.behind.iter().find(|behind| stands(*behind)) {
            let standing = now - *self.standing.get_or_insert(now);
            self.say_that_it_stands(place, standing > PENDING_MAX);
            self.behind.values_mut().for_each(|since| *since = now);
            if let Err(why) = self.assign() {
                tracing::warn!("it can't be read again yet: {why}");
            }
        }
    }

    fn say_that_it_stands(&self, place: MapPlace, is_hanging: bool) {
        let (topic, partition) = (&self.topics[place.0.0], place.1);
        let position = self.held.get(&place).map(|shared| read(shared).position());
        let at = format!("{topic}[{partition}]@{}", position.unwrap_or_default());
        if is_hanging {
            tracing::warn!(
                "{at} can't be read on for longer than a transaction may be open. A Kafka that is the only broker, and stopped as it \
                 ended a transaction, may have lost that end: kafka-transactions.sh find-hanging finds it, and abort ends it"
            );
        } else {
            tracing::warn!(
                "{at} has not moved for {STANDSTILL_MAX:?}: reading it again from there"
            );
        }
    }
}

fn read(shared: &SharedPartition) -> RwLockReadGuard<'_, MapPartition> {
    shared.read().expect("nobody panics with it held")
}

fn write(shared: &SharedPartition) -> RwLockWriteGuard<'_, MapPartition> {
    shared.write().expect("nobody panics with it held")
}

#[cfg(test)]
impl<R> Changelogs<R> {
    pub fn reader(&self) -> &R {
        &self.reader
    }

    pub fn reader_mut(&mut self) -> &mut R {
        &mut self.reader
    }

    pub fn rebuild_now(&mut self) {
        self.rebuild_due = Instant::now();
    }

    pub fn is_loading(&self) -> bool {
        !self.loading.is_empty()
    }
}
