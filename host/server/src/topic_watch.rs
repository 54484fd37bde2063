//! Sees what befalls topics beneath a running process that no worker would notice, or not at once: one that a table is made from gets more
//! partitions, so that keys would be looked for where they don't stand any more; one of the pipeline's own is deleted, or made anew under
//! its name, and what it had is gone.
//!
//! Sources need no look: the group offers what is new (`worker_thread::assignment`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millstream_engine::commit::ledger::Ledger;
use millstream_engine::pipeline::{Kept, Pipeline};

use crate::cluster::{Admin as _, AdminError, Cluster};
use crate::own_topics::{self, OwnTopic};
use crate::threads;

/// How late it is noticed; as late as for sources.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// How often it is looked whether the process ends.
const PAUSE: Duration = Duration::from_millis(50);

/// Ends the thread when dropped.
#[derive(Debug)]
pub struct TopicWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Option<String>>>,
}

impl TopicWatch {
    /// Starts to look, if there is something to look at. `partitions` are those of the maps' topics when the process began, parallel to the
    /// pipeline's maps, and the ledger is of that time too.
    ///
    /// # Errors
    ///
    /// Why there can't be a thread.
    pub fn start(
        cluster: &impl Cluster,
        pipeline: &Pipeline,
        partitions: &[u32],
        ledger: &Ledger,
    ) -> Result<Self, String> {
        let stop = Arc::<AtomicBool>::default();
        let mut watched = Watched {
            tables: tables(pipeline, partitions),
            // Where topics have no ids, there is nothing to tell them by.
            own: own_topics::of(pipeline)
                .filter(|_| !ledger.is_empty())
                .collect(),
            ledger: ledger.clone(),
            missing: BTreeSet::new(),
        };
        let mut thread = None;
        if !watched.tables.is_empty() || !watched.own.is_empty() {
            let (cluster, stop) = (cluster.clone(), Arc::clone(&stop));
            let started =
                threads::start("topic-watch", move || watch(&cluster, &mut watched, &stop));
            thread = Some(started.map_err(|why| format!("a thread: {why}"))?);
        }
        Ok(Self { stop, thread })
    }

    /// What has befallen a topic, and what to do, if something has.
    pub fn noticed(&mut self) -> Option<String> {
        let ended = self.thread.take_if(|thread| thread.is_finished())?;
        ended.join().expect("a panic ends the process")
    }
}

impl Drop for TopicWatch {
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

fn tables(pipeline: &Pipeline, partitions: &[u32]) -> Vec<Table> {
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
    tables.collect()
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

struct Watched {
    tables: Vec<Table>,
    own: Vec<OwnTopic>,
    ledger: Ledger,
    /// Of its own, what the last look didn't find.
    missing: BTreeSet<String>,
}

/// Returns words once something has befallen one.
fn watch(cluster: &impl Cluster, watched: &mut Watched, stop: &AtomicBool) -> Option<String> {
    let mut due = Instant::now() + LOOK_INTERVAL;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(PAUSE);
        if Instant::now() < due {
            continue;
        }
        match watched.look(cluster) {
            Ok(None) => {}
            Ok(befallen) => return befallen,
            Err(why) => tracing::debug!("topics can't be looked at: {why}"),
        }
        due = Instant::now() + LOOK_INTERVAL;
    }
    None
}

impl Watched {
    /// The client is made for the question: between two of them it would do nothing.
    fn look(&mut self, cluster: &impl Cluster) -> Result<Option<String>, AdminError> {
        let admin = cluster.admin()?;
        let tables = self.tables.iter().map(|table| table.topic.as_str());
        let own = self.own.iter().map(|own| own.topic.as_str());
        let facts = admin.topics(tables.chain(own))?;
        let grown = self.tables.iter().find_map(|table| {
            let now = facts.get(&table.topic)?.partitions;
            (now > table.partitions).then(|| table.grown_to(now))
        });
        if grown.is_some() {
            return Ok(grown);
        }
        let mut missing = BTreeSet::new();
        for own in &self.own {
            let is_lost = if facts.contains_key(&own.topic) {
                let id = admin.topic_id(&own.topic);
                let id = id.map_err(AdminError::Unanswered)?;
                id.is_some_and(|id| own_topics::is_made_anew(&own.name, id, &self.ledger))
            } else {
                // Of several brokers, one may not know yet what there is: one look says nothing.
                missing.insert(own.topic.clone());
                self.missing.contains(&own.topic)
            };
            if is_lost {
                return Ok(Some(own.lost("this process began")));
            }
        }
        self.missing = missing;
        Ok(None)
    }
}
