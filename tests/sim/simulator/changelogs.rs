//! The fold of a worker's map partitions from their topics, at the assignment and ever after, and their snapshots on disk.
//!
//! Mirrors `host/server/src/changelogs.rs` and `snapshots`: what is parked comes back and is read on; a partition counts as restored at
//! the high watermark of the moment it was taken; steps' own state is merged as it is committed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use millstream_broker::{Answer, Broker, Fetched, Isolation, Spec};
use millstream_engine::pipeline::{Kept, MapId};
use millstream_engine::state::budget::Budget;
use millstream_engine::state::committed::Committed;
use millstream_engine::state::freshness::Freshness;
use millstream_engine::state::overlay::Change;
use millstream_engine::state::restore::{LiveFrom, MapPartition, Phase};
use millstream_engine::state::snapshot::{Decoder, Encoder, Fault, Header, Piece};

use super::course::Course;
use super::pipeline::{MapPlace, NAME};
use super::world::{Directory, Request, Shared, World};

/// `delete.retention.ms`.
const RETENTION: Duration = Duration::from_secs(86_400);

const FETCH_BYTES: usize = 2048;

/// The topic's id: topics are never made anew here.
const TOPIC_ID: u128 = 7;

/// How long after it was taken a slow table may bring nothing yet.
const STARTS_WITHIN: i64 = 150;

/// Slots that a snapshot takes in at a time.
const STEP_SLOTS: u32 = 3;

#[derive(Debug)]
pub struct Changelogs {
    world: Rc<World>,
    life: usize,
    /// By map.
    topics: Rc<[Rc<str>]>,
    held: BTreeMap<MapPlace, Shared>,
    parked: BTreeMap<MapPlace, Shared>,
    /// Partitions whose own changes came while they were folded anew.
    broken: Vec<MapPlace>,
    /// When a snapshot has been looked for, and with which bounds.
    loading: BTreeMap<MapPlace, (i64, (i64, i64))>,
    /// From when on those that are slow can be read.
    starting: BTreeMap<MapPlace, i64>,
    budget: Arc<Budget>,
}

impl Changelogs {
    pub fn new(world: &Rc<World>, life: usize) -> Self {
        let pipeline = &world.pipeline;
        let maps = 0..pipeline.maps.len();
        let topics: Vec<Rc<str>> = maps
            .map(|map| pipeline.topic_of(MapId(map)).into())
            .collect();
        Self {
            world: Rc::clone(world),
            life,
            topics: topics.into(),
            held: BTreeMap::new(),
            parked: BTreeMap::new(),
            broken: Vec::new(),
            loading: BTreeMap::new(),
            starting: BTreeMap::new(),
            budget: Budget::new(usize::MAX / 4, pipeline.maps.len()),
        }
    }

    fn anew(&self, map: MapId, bounds: (i64, i64)) -> MapPartition {
        let live_from = match self.world.pipeline.maps[map.0].kept {
            Kept::State => LiveFrom::Task,
            Kept::Changelog | Kept::Topic(_) => LiveFrom::Changelog,
        };
        let contents = Committed::new(1, Arc::default());
        let life = self.world.partition_life();
        let freshness = Freshness::new(self.clock(), Some(RETENTION));
        MapPartition::new(contents, self.budget.share(map.0), life, bounds, live_from)
            .with_freshness(freshness)
    }

    fn clock(&self) -> i64 {
        self.world.clock(self.life)
    }

    /// First offset and high watermark of a map partition's topic.
    pub async fn bounds(&self, (map, partition): MapPlace) -> Result<(i64, i64), String> {
        let topic = Rc::clone(&self.topics[map.0]);
        let bounds = move |broker: &mut Broker, _| -> Answer<(i64, i64)> {
            let place = (&*topic, partition);
            let end = Spec::Latest(Isolation::ReadUncommitted);
            let start = broker.list_offset(place, Spec::Earliest)?;
            Ok((start, broker.list_offset(place, end)?))
        };
        let bounds = self.world.ask(self.life, Request::Read, bounds).await;
        let bounds = bounds.map_err(|why| format!("{why:?}"))?;
        bounds.map_err(|error| error.to_string())
    }

    /// Takes these map partitions. To be called after the stable offsets of the inputs were read.
    pub async fn take(&mut self, places: &[MapPlace]) -> Result<(), String> {
        self.stop_loading();
        let (mut held, mut loading) = (BTreeMap::new(), BTreeMap::new());
        for &place in places {
            let goes_to = self.world.judge.borrow().end(place);
            let (start, end) = self.bounds(place).await?;
            let taken = |life| self.world.judge.borrow_mut().taken(life, goes_to);
            if let Some(kept) = self.kept(place, (start, end)) {
                taken(kept.borrow().life());
                held.insert(place, kept);
                continue;
            }
            let anew = self.anew(place.0, (start, end));
            taken(anew.life());
            if anew.phase() != Phase::Live && self.has_snapshot(place) {
                let done = self.world.now() + self.world.between(1, 15);
                loading.insert(place, (done, (start, end)));
            }
            held.insert(place, Rc::new(RefCell::new(anew)));
        }
        self.held = held;
        self.loading = loading;
        self.starting.clear();
        if self.world.plan.slow_tables {
            let starts = |place: &MapPlace| {
                let after = self.world.between(0, STARTS_WITHIN);
                (*place, self.world.now() + after)
            };
            self.starting = places.iter().map(starts).collect();
        }
        self.parked.clear();
        self.broken.clear();
        Ok(())
    }

    fn kept(&self, place: MapPlace, (start, end): (i64, i64)) -> Option<Shared> {
        let kept = self.parked.get(&place)?;
        let mut partition = kept.borrow_mut();
        let is_good = (start..=end).contains(&partition.position())
            && !partition.freshness().is_over(self.clock());
        is_good.then(|| {
            self.world.count(Course::Resumed);
            partition.resume(end);
            Rc::clone(kept)
        })
    }

    fn stop_loading(&mut self) {
        for place in std::mem::take(&mut self.loading).into_keys() {
            self.held.remove(&place);
        }
    }

    pub fn park(&mut self) {
        self.stop_loading();
        self.parked = std::mem::take(&mut self.held);
    }

    pub fn held(&self) -> &BTreeMap<MapPlace, Shared> {
        &self.held
    }

    /// Takes what a task changed of its own state, and committed, into the contents.
    pub fn merge<'c>(&mut self, changes: impl Iterator<Item = Change<'c>>) {
        for change in changes {
            let place = (change.map, change.partition);
            let shared = self.held.get(&place).expect("a task holds its own state");
            if self.broken.contains(&place) {
                continue;
            }
            let mut partition = shared.borrow_mut();
            if partition.phase() != Phase::Live {
                *partition = self.anew(place.0, (0, i64::MAX));
                self.broken.push(place);
                continue;
            }
            let merged = partition.merge(change.key, change.value);
            merged.expect("there is room enough");
        }
    }

    /// Folds what is there. Returns how many partitions moved.
    pub async fn poll(&mut self) -> usize {
        self.take_loaded();
        self.rebuild_broken().await;
        let now = self.world.now();
        self.starting.retain(|_, from| *from > now);
        let is_read = |place: &MapPlace| {
            let is_early = self.loading.contains_key(place) || self.starting.contains_key(place);
            !is_early && !self.broken.contains(place)
        };
        let wanted: Vec<(MapPlace, i64)> = self
            .held
            .iter()
            .filter(|(place, _)| is_read(place))
            .map(|(place, shared)| (*place, shared.borrow().position()))
            .collect();
        if wanted.is_empty() {
            return 0;
        }
        let (asked, topics) = (wanted.clone(), Rc::clone(&self.topics));
        let at = self.clock();
        let fetch = move |broker: &mut Broker, _| {
            let one = |((map, partition), offset): &(MapPlace, i64)| {
                let place = (&*topics[map.0], *partition);
                broker.fetch(place, *offset, Isolation::ReadCommitted, FETCH_BYTES)
            };
            asked.iter().map(one).collect::<Vec<_>>()
        };
        let fetched = self.world.ask(self.life, Request::Read, fetch).await;
        let mut moved = 0;
        for ((place, _), fetched) in wanted.into_iter().zip(fetched.into_iter().flatten()) {
            let shared = self.held.get(&place);
            let shared = shared.expect("nobody gave it up meanwhile: this is the worker's own");
            let before = shared.borrow().position();
            let now = self.clock();
            shared.borrow_mut().freshness_mut().not_after(now);
            let is_over = shared.borrow().freshness().is_over(now);
            match fetched {
                Ok(fetched) if !is_over => {
                    let mut partition = shared.borrow_mut();
                    if fold(&mut partition, &fetched) {
                        partition.freshness_mut().prove(at.min(now));
                    }
                }
                Ok(_) | Err(_) => {
                    *shared.borrow_mut() = self.anew(place.0, (0, i64::MAX));
                    self.broken.push(place);
                }
            }
            moved += usize::from(shared.borrow().position() != before);
        }
        moved
    }

    async fn rebuild_broken(&mut self) {
        for place in std::mem::take(&mut self.broken) {
            self.world.count(Course::TableFell);
            let goes_to = self.world.judge.borrow().end(place);
            match self.bounds(place).await {
                Ok(bounds) => {
                    let anew = self.anew(place.0, bounds);
                    self.world.judge.borrow_mut().taken(anew.life(), goes_to);
                    if let Some(shared) = self.held.get(&place) {
                        *shared.borrow_mut() = anew;
                    }
                }
                Err(_) => self.broken.push(place),
            }
        }
    }

    fn has_snapshot(&self, place: MapPlace) -> bool {
        let is_table = matches!(self.world.pipeline.maps[place.0.0].kept, Kept::Topic(_));
        let host = self.world.lives.borrow()[self.life].host;
        !is_table
            && self.world.disks.borrow()[host]
                .snapshots
                .contains_key(&place)
    }

    /// Reads on what a snapshot has filled, or what none could fill.
    fn take_loaded(&mut self) {
        let now = self.world.now();
        let done = self.loading.extract_if(.., |_, (done, _)| *done <= now);
        let done: Vec<(MapPlace, (i64, i64))> =
            done.map(|(place, (_, bounds))| (place, bounds)).collect();
        for (place, bounds) in done {
            let host = self.world.lives.borrow()[self.life].host;
            let file = self.world.disks.borrow()[host]
                .snapshots
                .get(&place)
                .cloned();
            let (Some(file), Some(shared)) = (file, self.held.get(&place)) else {
                continue;
            };
            let filled = fill(
                &mut shared.borrow_mut(),
                &file,
                &header(&self.world, self.life, place),
                bounds,
                self.clock(),
            );
            match filled {
                Ok(()) => self.world.count(Course::SnapshotUsed),
                Err(fault) => {
                    self.world.count(match fault {
                        Fault::TooOld { .. } => Course::SnapshotTooOld,
                        Fault::Undated(_) => Course::SnapshotUndated,
                        _ => Course::SnapshotRejected,
                    });
                    self.world
                        .note(|| format!("snapshot of {place:?} refused: {fault}"));
                    let anew = self.anew(place.0, bounds);
                    self.world.judge.borrow_mut().taken(anew.life(), bounds.1);
                    *shared.borrow_mut() = anew;
                    self.world.disks.borrow_mut()[host].snapshots.remove(&place);
                }
            }
        }
    }
}

/// Returns whether that was all there is for now.
fn fold(partition: &mut MapPartition, fetched: &Fetched) -> bool {
    for record in fetched.records() {
        match record.key {
            Some(key) => {
                let folded = partition.fold(record.offset, key, record.value);
                folded.expect("there is room enough");
            }
            None => partition.advance(record.offset + 1),
        }
    }
    let is_end = fetched.next_offset >= fetched.last_stable_offset;
    if is_end {
        partition.advance(fetched.next_offset);
    }
    is_end
}

/// Whose snapshot one would have to be.
fn header(world: &World, life: usize, (map, partition): MapPlace) -> Header {
    Header {
        pipeline: NAME.into(),
        map: world.pipeline.maps[map.0].name.clone(),
        partition,
        partitions: world.plan.partitions,
        topic: TOPIC_ID,
        from: 0,
        begun: world.clock(life),
        entries: 0,
    }
}

/// The server's `fill`: every part is checked, the end too, before anything counts.
fn fill(
    partition: &mut MapPartition,
    file: &[u8],
    place: &Header,
    (start, end): (i64, i64),
    now: i64,
) -> Result<(), Fault> {
    let mut decoder = Decoder::default();
    decoder.feed(file);
    let (mut from, mut begun) = (start, 0);
    while let Some(piece) = decoder.next_piece()? {
        match piece {
            Piece::Header(header) => {
                header.belongs_to(place)?;
                header.is_current(start, now, RETENTION)?;
                (from, begun) = (header.from, header.begun);
            }
            Piece::Entries(block) => partition.load(&block).expect("there is room enough"),
            Piece::End(trailer) => trailer.is_within(end)?,
        }
    }
    decoder.finish()?;
    partition.loaded(from, begun);
    Ok(())
}

/// A process' thread of snapshots: walks a partition in short steps while it goes on being folded, and publishes what got to its end.
pub async fn write_snapshots(world: Rc<World>, life: usize) {
    loop {
        let pause = world.between(30, 150);
        world.sleep(pause).await;
        let directories = world.lives.borrow()[life].directories.clone();
        for directory in directories {
            let all = directory.places.borrow().clone();
            for (place, shared) in all {
                write_one(&world, life, &directory, place, &shared).await;
            }
        }
    }
}

async fn write_one(
    world: &World,
    life: usize,
    directory: &Directory,
    place: MapPlace,
    shared: &Shared,
) {
    let is_own = world.pipeline.maps[place.0.0].kept.is_own();
    let is_due = is_own && {
        let partition = shared.borrow();
        partition.phase() == Phase::Live && !partition.contents().is_empty()
    };
    if !is_due {
        return;
    }
    let (mut header, mut bytes) = (header(world, life, place), Vec::new());
    let (end, of) = {
        let partition = shared.borrow();
        // A process that was frozen may have what is long gone.
        if !partition.freshness().can_be_kept(header.begun) {
            return;
        }
        header.from = partition.position();
        header.entries = partition.contents().len() as u64;
        (partition.contents().entries().end(), partition.life())
    };
    let mut encoder = Encoder::new(&header, &mut bytes);
    let mut slot = 0;
    while slot < end {
        {
            let partition = shared.borrow();
            if partition.life() != of {
                return;
            }
            let most = (slot + STEP_SLOTS).min(end);
            encoder.copy(partition.contents().entries(), slot, most);
            slot = most;
        }
        encoder.flush(&mut bytes);
        let rest = world.between(1, 8);
        world.sleep(rest).await;
    }
    let to = {
        let partition = shared.borrow();
        if partition.life() != of {
            return;
        }
        partition.position()
    };
    encoder.finish(to, &mut bytes);
    let host = world.lives.borrow()[life].host;
    let is_given_up = !directory.places.borrow().contains_key(&place);
    world.note(|| {
        format!(
            "host {host}: snapshot of {place:?} from {}, given up: {is_given_up}",
            header.from
        )
    });
    world.count(Course::SnapshotWritten);
    let disk = &mut world.disks.borrow_mut()[host];
    disk.backup.entry(place).or_insert_with(|| bytes.clone());
    disk.snapshots.insert(place, bytes);
}
