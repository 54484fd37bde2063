//! Fills map partitions from their newest snapshots, on a thread of its own, so that nobody who must poll waits for the disk.
//!
//! Invariant: while a partition is being filled it counts as restored nowhere and nothing is folded into it; what a wrong file brought
//! in is dropped before anything else gets in. Dropped, the loader has ended, and what was not finished is nobody's.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use millstream_engine::state::budget::Full;
use millstream_engine::state::restore::MapPartition;
use millstream_engine::state::snapshot::{Decoder, ENTRY_OVERHEAD, Fault, Header, Piece};

use super::Snapshots;
use super::shelf::{Named, Shelf, remove};
use crate::directory::{MapPlace, SharedPartition};
use crate::fault::{self, Disk};
use crate::map_memory::MapMemory;
use crate::threads;
use crate::wall_clock::now;

/// How much is read at a time.
const READ_BYTES: usize = 256 << 10;

/// A partition to be filled, and its changelog's first offset and high watermark.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub place: MapPlace,
    pub shared: SharedPartition,
    pub start: i64,
    pub end: i64,
}

#[derive(Debug)]
pub struct Loader {
    stop: Arc<AtomicBool>,
    done: Arc<Mutex<Vec<Done>>>,
    thread: Option<JoinHandle<()>>,
}

/// A partition that is to be folded on from where it stands, be it filled or empty; or that there is no memory for.
pub type Done = (MapPlace, Result<(), Full>);

impl Loader {
    /// # Errors
    ///
    /// Why there can't be a thread.
    pub fn start(
        snapshots: &Arc<Snapshots>,
        memory: &Arc<MapMemory>,
        wanted: Vec<Wanted>,
    ) -> io::Result<Self> {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::default());
        let filling = Filling {
            snapshots: Arc::clone(snapshots),
            memory: Arc::clone(memory),
            stop: Arc::clone(&stop),
        };
        let say = Arc::clone(&done);
        let fill = move || filling.all(&wanted, &say);
        let thread = threads::start("restore", fill)?;
        Ok(Self {
            stop,
            done,
            thread: Some(thread),
        })
    }

    /// Those that were finished since the last call.
    pub fn take_done(&self) -> Vec<Done> {
        std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a panic ends the process");
        }
    }
}

struct Filling {
    snapshots: Arc<Snapshots>,
    memory: Arc<MapMemory>,
    stop: Arc<AtomicBool>,
}

/// Why a file was not taken in.
enum Refusal {
    Fault(Fault),
    Full(Full),
    File(io::Error),
    Stopped,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl Filling {
    fn all(&self, wanted: &[Wanted], say: &Mutex<Vec<Done>>) {
        let began = Instant::now();
        let (mut filled, mut entries) = (0, 0);
        for one in wanted {
            let done = match self.one(one) {
                Ok(None) => Ok(()),
                Ok(Some(count)) => {
                    filled += 1;
                    entries += count;
                    Ok(())
                }
                Err(Refusal::Full(full)) => Err(full),
                Err(_) => return,
            };
            let mut said = say.lock().unwrap_or_else(PoisonError::into_inner);
            said.push((one.place, done));
        }
        if filled > 0 {
            tracing::info!(
                "{entries} entries of {filled} map partitions came from snapshots, in {:.1?}; the changelogs' tails come on top",
                began.elapsed()
            );
        }
    }

    /// How many entries came from a snapshot; none where no snapshot fits.
    fn one(&self, wanted: &Wanted) -> Result<Option<u64>, Refusal> {
        let Some(shelf) = self.snapshots.shelf(wanted.place) else {
            return Ok(None);
        };
        let name = self.snapshots.name(wanted.place);
        let files = shelf.files().unwrap_or_else(|why| {
            tracing::warn!(
                "the snapshots of {name} can't be listed: {why}. It is restored from its changelog alone: see to the disk, and to who may \
                 read {}",
                self.snapshots.folder.display()
            );
            Vec::new()
        });
        for file in &files {
            match self.fill(wanted, file) {
                Ok(entries) => {
                    let counts = self.snapshots.counts(wanted.place);
                    counts.restored.fetch_add(entries, Ordering::Relaxed);
                    tracing::debug!(
                        "{name}: {entries} entries from {}, changelog from offset {} on",
                        file.path.display(),
                        file.from
                    );
                    return Ok(Some(entries));
                }
                Err(Refusal::Fault(fault)) => {
                    self.empty(wanted);
                    let counts = self.snapshots.counts(wanted.place);
                    counts.refused.fetch_add(1, Ordering::Relaxed);
                    refuse(&shelf, file, &name, &fault);
                }
                Err(Refusal::File(why)) => {
                    self.empty(wanted);
                    tracing::warn!(
                        "{}, a snapshot of {name}, can't be read: {why}. An older one is taken, or the changelog alone: see to the disk, or \
                         delete the file",
                        file.path.display()
                    );
                }
                Err(ends) => return Err(ends),
            }
        }
        Ok(None)
    }

    fn fill(&self, wanted: &Wanted, named: &Named) -> Result<u64, Refusal> {
        fault::disk(Disk::Read)?;
        let mut file = File::open(&named.path)?;
        let bytes = file.metadata()?.len();
        let mut decoder = Decoder::default();
        let mut buffer = vec![0; READ_BYTES];
        let (mut from, mut begun, mut entries) = (wanted.start, 0, 0);
        loop {
            fault::disk(Disk::Read)?;
            let read = file.read(&mut buffer)?;
            if read == 0 {
                decoder.finish()?;
                break;
            }
            decoder.feed(&buffer[..read]);
            while let Some(piece) = decoder.next_piece()? {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Refusal::Stopped);
                }
                match piece {
                    Piece::Header(header) => {
                        self.check(wanted, &header)?;
                        fault::reach("restore-snapshot-opened");
                        (from, begun) = (header.from, header.begun);
                        let most = header.entries.min(bytes / ENTRY_OVERHEAD as u64);
                        let most = usize::try_from(most).unwrap_or(0);
                        write(&wanted.shared).reserve(most);
                    }
                    Piece::Entries(block) => {
                        let loaded = write(&wanted.shared).load(&block);
                        loaded.map_err(Refusal::Full)?;
                        fault::reach("restore-snapshot-half-loaded");
                    }
                    Piece::End(trailer) => {
                        trailer.is_within(wanted.end)?;
                        entries = trailer.entries;
                    }
                }
            }
        }
        // Only now is it known that nothing stands behind the end.
        write(&wanted.shared).loaded(from, begun);
        fault::reach("restore-snapshot-loaded");
        Ok(entries)
    }

    fn check(&self, wanted: &Wanted, header: &Header) -> Result<(), Fault> {
        let place = self.snapshots.header(wanted.place);
        let map = self.snapshots.map(wanted.place);
        let (Some(place), Some(map)) = (place, map) else {
            return Err(Fault::NotASnapshot);
        };
        header.belongs_to(&place)?;
        header.is_current(wanted.start, now(), map.retention)
    }

    fn empty(&self, wanted: &Wanted) {
        let partition = self
            .memory
            .partition(wanted.place.0, wanted.start, wanted.end);
        *write(&wanted.shared) = partition;
    }
}

/// Takes a file away that must not be used. One that is merely old tells nobody anything.
fn refuse(shelf: &Shelf, file: &Named, name: &str, fault: &Fault) {
    let path = file.path.display();
    if let Fault::TooOld { .. } = fault {
        tracing::info!("{path}, a snapshot of {name}, is deleted: {fault}");
        if let Err(why) = remove(&file.path) {
            tracing::warn!("{path} can't be deleted: {why}");
        }
        return;
    }
    match shelf.set_aside(&file.path) {
        Ok(aside) => tracing::warn!(
            "{path}, a snapshot of {name}, is not used: {fault}. It is set aside as {}",
            aside.display()
        ),
        Err(why) => tracing::warn!(
            "{path}, a snapshot of {name}, is not used: {fault}. It can't be set aside: {why}"
        ),
    }
}

fn write(shared: &SharedPartition) -> RwLockWriteGuard<'_, MapPartition> {
    shared.write().expect("nobody panics with it held")
}
