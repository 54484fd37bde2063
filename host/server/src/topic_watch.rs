//! Sees whether a topic that a table is made from gets more partitions while the process runs: keys would be looked for where they don't
//! stand any more, or not at all.
//!
//! Sources need no look of their own: the group offers what is new (`worker_thread::assignment`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millstream_engine::pipeline::{Kept, Pipeline};

use crate::cluster::{Admin as _, AdminError, Cluster};
use crate::threads;

/// How late it is noticed; as late as for sources.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// How often it is looked whether the process ends.
const PAUSE: Duration = Duration::from_millis(50);

/// Ends the thread when dropped.
#[derive(Debug)]
pub struct Growth {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Option<String>>>,
}

impl Growth {
    /// Starts to look, if there are tables. `partitions` are those of the maps' topics when the process began, parallel to the pipeline's
    /// maps.
    ///
    /// # Errors
    ///
    /// Why there can't be a thread.
    pub fn start(
        cluster: &impl Cluster,
        pipeline: &Pipeline,
        partitions: &[u32],
    ) -> Result<Self, String> {
        let stop = Arc::<AtomicBool>::default();
        let maps = pipeline.maps.iter().zip(partitions);
        let tables = maps.filter_map(|(map, &partitions)| match &map.kept {
            Kept::Topic(topic) => Some(Table {
                map: map.name.clone(),
                topic: topic.clone(),
                partitions,
                replicated: map.replicated,
            }),
            Kept::Changelog | Kept::State => None,
        });
        let tables: Vec<Table> = tables.collect();
        let mut thread = None;
        if !tables.is_empty() {
            let (cluster, stop) = (cluster.clone(), Arc::clone(&stop));
            let started = threads::start("growth", move || watch(&cluster, &tables, &stop));
            thread = Some(started.map_err(|why| format!("a thread: {why}"))?);
        }
        Ok(Self { stop, thread })
    }

    /// What has grown, and what to do, if something has.
    pub fn noticed(&mut self) -> Option<String> {
        let ended = self.thread.take_if(|thread| thread.is_finished())?;
        ended.join().expect("a panic ends the process")
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join().expect("a panic ends the process");
        }
    }
}

struct Table {
    map: String,
    topic: String,
    partitions: u32,
    replicated: bool,
}

impl Table {
    fn grown_to(&self, now: u32) -> String {
        let what = match self.replicated {
            true => "start this process again: it reads them then",
            false => {
                "a task reads its own partition of a table, so the sources need as many; or hold all of it in every process, with \
                 `replicated = true`"
            }
        };
        format!(
            "topic {}, from which map \"{}\" is made, has {now} partitions now, but had {} when this process began: keys are in other \
             partitions by now. What is committed stays; {what}",
            self.topic, self.map, self.partitions
        )
    }
}

/// Returns words once one has grown.
fn watch(cluster: &impl Cluster, tables: &[Table], stop: &AtomicBool) -> Option<String> {
    let mut due = Instant::now() + LOOK_INTERVAL;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(PAUSE);
        if Instant::now() < due {
            continue;
        }
        match look(cluster, tables) {
            Ok(None) => {}
            Ok(grown) => return grown,
            Err(why) => tracing::debug!("the partitions of tables are not known: {why}"),
        }
        due = Instant::now() + LOOK_INTERVAL;
    }
    None
}

/// The client is made for the question: between two of them it would do nothing.
fn look(cluster: &impl Cluster, tables: &[Table]) -> Result<Option<String>, AdminError> {
    let names = tables.iter().map(|table| table.topic.as_str());
    let facts = cluster.admin()?.topics(names)?;
    Ok(tables.iter().find_map(|table| {
        let now = facts.get(&table.topic)?.partitions;
        (now > table.partitions).then(|| table.grown_to(now))
    }))
}
