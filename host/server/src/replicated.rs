//! The replicated maps: all their partitions, held once for the whole process and folded by a thread of their own, for every worker
//! to read.
//!
//! Invariant: they are held as long as any worker runs. Whoever starts workers keeps this alive until they have ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millstream_engine::pipeline::{MapId, Pipeline};

use crate::changelogs::Changelogs;
use crate::cluster::{Cluster, Reader};
use crate::directory::{Directory, MapPlace};
use crate::insist::insist;
use crate::map_memory::MapMemory;
use crate::snapshots::Snapshots;
use crate::threads;

/// How long the thread sleeps where there is nothing to fold: how late a change may be seen.
const IDLE: Duration = Duration::from_millis(5);

/// How often the cluster is asked whether there is more than was read.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Ends the thread when dropped.
#[derive(Debug)]
pub struct Replicated {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

/// Every partition of every replicated map; `partitions` is parallel to the pipeline's maps.
pub fn places(pipeline: &Pipeline, partitions: &[u32]) -> Vec<MapPlace> {
    let maps = pipeline.maps.iter().zip(partitions).enumerate();
    let replicated = maps.filter(|(_, (map, _))| map.replicated);
    let places = replicated
        .flat_map(|(id, (_, &partitions))| (0..partitions).map(move |number| (MapId(id), number)));
    places.collect()
}

impl Replicated {
    /// Starts to fold these map partitions into the directory. Transactions that earlier lives of this instance left open must have
    /// been ended. `topics` are those of all maps.
    ///
    /// # Errors
    ///
    /// Why there can't be a reader or a thread.
    pub fn start(
        cluster: &impl Cluster,
        places: Vec<MapPlace>,
        topics: Vec<String>,
        directory: &Arc<Directory>,
        memory: &Arc<MapMemory>,
        snapshots: Option<Arc<Snapshots>>,
    ) -> Result<Self, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut thread = None;
        if !places.is_empty() {
            let reader = cluster.reader()?;
            let changelogs = Changelogs::new(reader, topics, Arc::clone(memory), snapshots);
            let (stop, directory) = (Arc::clone(&stop), Arc::clone(directory));
            let fold = move || fold(changelogs, &places, &directory, &stop);
            let started = threads::start("tables", fold);
            thread = Some(started.map_err(|why| format!("a thread: {why}"))?);
        }
        Ok(Self { stop, thread })
    }
}

impl Replicated {
    /// Why nothing is folded any more, if so: a map has no room for its next change.
    pub fn failure(&mut self) -> Option<String> {
        let ended = self.thread.take_if(|thread| thread.is_finished())?;
        ended.join().expect("a panic ends the process").err()
    }
}

impl Drop for Replicated {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join().expect("a panic ends the process");
        }
    }
}

fn fold(
    mut changelogs: Changelogs<impl Reader>,
    places: &[MapPlace],
    directory: &Directory,
    stop: &AtomicBool,
) -> Result<(), String> {
    let taken = insist(stop, "opening the replicated tables", &|| (), || {
        changelogs.take(places)
    });
    if taken.is_err() {
        return Ok(());
    }
    directory.add(changelogs.held());
    let mut look_due = Instant::now() + LOOK_INTERVAL;
    while !stop.load(Ordering::Relaxed) {
        if changelogs.poll()? == 0 {
            std::thread::sleep(IDLE);
        }
        if look_due <= Instant::now() {
            look_due = Instant::now() + LOOK_INTERVAL;
            if let Err(why) = changelogs.look_for_more() {
                tracing::warn!("the ends of the replicated tables can't be asked for: {why}");
            }
        }
    }
    directory.remove(changelogs.held());
    Ok(())
}
