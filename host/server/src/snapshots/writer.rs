//! The thread that writes snapshots: it goes over the map partitions held here, and walks those of which enough has changed.
//!
//! It looks at a partition in short steps, between which folding and queries go on, and works for a small part of the time only.
//! Invariant: nothing waits for the disk with a partition locked; whatever fails here costs the next restore some time, and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millstream_engine::state::restore::{MapPartition, Phase};
use millstream_engine::state::snapshot::{CLOCK_SLACK, Encoder, Header, age_max};

use super::Snapshots;
use crate::directory::{Directory, MapPlace, SharedPartition};
use crate::fault;
use crate::threads;
use crate::wall_clock::now;

/// A snapshot is written once so many changelog offsets came after the last one, or a quarter of the entries, whichever is more.
const CHANGES_MIN: i64 = 10_000;
const CHANGES_PART: i64 = 4;

/// Of each step's time, so many times as much passes before the next.
const REST: u32 = 4;
/// After a step that waited for a slow disk; an end of the process waits as long.
const REST_MAX: Duration = Duration::from_millis(200);

/// How often it is looked whether the process ends.
const LOOK: Duration = Duration::from_millis(50);

/// How often files that nobody needs are looked for.
const SWEEP: Duration = Duration::from_secs(3600);

/// Ends the thread when dropped.
#[derive(Debug)]
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// # Errors
    ///
    /// Why there can't be a thread.
    pub fn start(snapshots: Arc<Snapshots>, directory: Arc<Directory>) -> io::Result<Self> {
        let mut rounds = Rounds::new(snapshots);
        let stop = Arc::clone(&rounds.stop);
        let thread = threads::start("snapshots", move || rounds.run(&directory))?;
        let thread = Some(thread);
        Ok(Self { stop, thread })
    }
}

impl Drop for Writer {
    /// What is being written is given up: a restore reads the changelog from a little further back, and the process ends at once.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a panic ends the process");
        }
    }
}

pub(super) struct Rounds {
    snapshots: Arc<Snapshots>,
    /// The newest snapshot of each partition, as far as is known here.
    known: BTreeMap<MapPlace, Known>,
    stop: Arc<AtomicBool>,
    /// The last one could not be written, and that was said.
    failing: bool,
}

#[derive(Clone, Copy)]
struct Known {
    begun: i64,
    from: Option<i64>,
}

impl Rounds {
    pub(super) fn new(snapshots: Arc<Snapshots>) -> Self {
        Self {
            snapshots,
            known: BTreeMap::new(),
            stop: Arc::default(),
            failing: false,
        }
    }

    fn run(&mut self, directory: &Directory) {
        let mut sweep_due = Instant::now();
        // Maps that were just restored have a snapshot, and others have better things to do.
        let mut round_due = Instant::now() + self.snapshots.interval;
        while !self.stop.load(Ordering::Relaxed) {
            if sweep_due <= Instant::now() {
                sweep_due = Instant::now() + SWEEP;
                self.sweep();
            }
            if round_due <= Instant::now() {
                self.round(directory);
                round_due = Instant::now() + self.snapshots.interval / 4;
            }
            std::thread::sleep(LOOK);
        }
    }

    pub(super) fn sweep(&self) {
        for place in self.snapshots.places() {
            self.sweep_and_say(place);
        }
    }

    fn sweep_and_say(&self, place: MapPlace) {
        if let Err(why) = self.sweep_one(place) {
            tracing::debug!("old snapshots of {}: {why}", self.snapshots.name(place));
        }
    }

    fn sweep_one(&self, place: MapPlace) -> io::Result<()> {
        let (Some(shelf), Some(map)) = (self.snapshots.shelf(place), self.snapshots.map(place))
        else {
            return Ok(());
        };
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let oldest = now().saturating_sub(millis(age_max(map.retention)));
        shelf.sweep(oldest..=now().saturating_add(millis(CLOCK_SLACK)))
    }

    pub(super) fn round(&mut self, directory: &Directory) {
        for (place, shared) in directory.all() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if !self.is_due(place, &shared) {
                continue;
            }
            let begun = Instant::now();
            let written = self.write(place, &shared);
            let counts = self.snapshots.counts(place);
            match written {
                Ok(Some((from, bytes))) => {
                    counts.written.fetch_add(1, Ordering::Relaxed);
                    counts.bytes.store(bytes, Ordering::Relaxed);
                    let took = begun.elapsed();
                    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    counts.millis.store(millis, Ordering::Relaxed);
                    let name = self.snapshots.name(place);
                    tracing::debug!(
                        "snapshot of {name} from changelog offset {from} on: {bytes} bytes in {took:.1?}"
                    );
                    self.failing = false;
                }
                Ok(None) => {}
                Err(why) => {
                    counts.failed.fetch_add(1, Ordering::Relaxed);
                    self.failed(place, &why);
                }
            }
        }
    }

    /// Said once, until one succeeds: a full disk stays full for a while.
    fn failed(&mut self, place: MapPlace, why: &io::Error) {
        if !self.failing {
            tracing::warn!(
                "the snapshot of {} can't be written in {}: {why}. Restores read more of the changelog until one can: make room, see to the \
                 disk, or name another folder with --state-dir",
                self.snapshots.name(place),
                self.snapshots.folder.display()
            );
        }
        self.failing = true;
    }

    fn is_due(&mut self, place: MapPlace, shared: &SharedPartition) -> bool {
        let Some(map) = self.snapshots.map(place) else {
            return false;
        };
        let (position, entries) = {
            let partition = read(shared);
            if partition.phase() != Phase::Live || partition.contents().is_empty() {
                return false;
            }
            (partition.position(), partition.contents().len())
        };
        let due = |known: &Known| {
            let age = u64::try_from(now().saturating_sub(known.begun)).unwrap_or(u64::MAX);
            let age = Duration::from_millis(age);
            if age < self.snapshots.interval {
                return false;
            }
            let Some(from) = known.from else { return true };
            let part = i64::try_from(entries).unwrap_or(i64::MAX) / CHANGES_PART;
            // A changelog that was made anew goes on from 0.
            position - from >= CHANGES_MIN.max(part) || position < from || age >= map.retention / 2
        };
        if self.known.get(&place).is_some_and(|known| !due(known)) {
            return false;
        }
        // Another process of this host may have written one.
        let files = self.snapshots.shelf(place).map(|shelf| shelf.files());
        let newest = files.and_then(|files| files.ok()?.into_iter().next());
        let newest = newest.map(|newest| Known {
            begun: newest.begun,
            from: Some(newest.from),
        });
        if let Some(newest) = newest.filter(|newest| !due(newest)) {
            self.known.insert(place, newest);
            return false;
        }
        true
    }

    /// Offset from which its changelog is to be read, and bytes. None where the partition's contents were given up meanwhile, or the
    /// process ends.
    fn write(
        &mut self,
        place: MapPlace,
        shared: &SharedPartition,
    ) -> io::Result<Option<(i64, u64)>> {
        let snapshots = Arc::clone(&self.snapshots);
        let (Some(shelf), Some(mut header)) = (snapshots.shelf(place), snapshots.header(place))
        else {
            return Ok(None);
        };
        // Whatever comes of it, the next try is an interval away.
        let known = self.known.entry(place).or_insert(Known {
            begun: header.begun,
            from: None,
        });
        known.begun = header.begun;
        let walk = {
            let partition = read(shared);
            if partition.phase() != Phase::Live {
                return Ok(None);
            }
            // Somebody who slept has what is long gone, until it is folded anew.
            if !partition.freshness().can_be_kept(header.begun) {
                return Ok(None);
            }
            header.from = partition.position();
            header.entries = partition.contents().len() as u64;
            Walk::of(&partition)
        };
        let mut draft = shelf.draft(header.begun, header.from)?;
        fault::reach("snapshot-begun");
        if !self.walk(&walk, &header, shared, |bytes| draft.write(bytes))? {
            return Ok(None);
        }
        fault::reach("snapshot-written");
        let bytes = draft.publish()?;
        fault::reach("snapshot-published");
        self.known.insert(
            place,
            Known {
                begun: header.begun,
                from: Some(header.from),
            },
        );
        // It is there, whatever becomes of old ones.
        self.sweep_and_say(place);
        fault::reach("snapshot-swept");
        Ok(Some((header.from, bytes)))
    }

    /// Returns whether it got to the end.
    fn walk(
        &self,
        walk: &Walk,
        header: &Header,
        shared: &SharedPartition,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(header, &mut out);
        let mut next = Some(0);
        while let Some(slot) = next {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let began = Instant::now();
            {
                let partition = read(shared);
                if partition.life() != walk.life {
                    return Ok(false);
                }
                next = encoder.copy(partition.contents().entries(), slot, walk.end);
            }
            encoder.flush(&mut out);
            write(&out)?;
            fault::reach("snapshot-half-written");
            out.clear();
            std::thread::sleep((began.elapsed() * REST).min(REST_MAX));
        }
        let to = {
            let partition = read(shared);
            if partition.life() != walk.life {
                return Ok(false);
            }
            partition.position()
        };
        encoder.finish(to, &mut out);
        write(&out)?;
        Ok(true)
    }
}

/// What is walked.
struct Walk {
    life: u64,
    /// Slots from here on were taken later, by changes that are read from the changelog anyway.
    end: u32,
}

impl Walk {
    fn of(partition: &MapPartition) -> Self {
        Self {
            life: partition.life(),
            end: partition.contents().entries().end(),
        }
    }
}

fn read(shared: &SharedPartition) -> std::sync::RwLockReadGuard<'_, MapPartition> {
    shared.read().expect("nobody panics with it held")
}
