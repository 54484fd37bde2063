//! A worker takes partitions and gives them up: its inputs', and with them those of the maps. Part of the loop.
//!
//! Invariant: map partitions are taken after the stable offsets of the inputs were read, and are in the directory until they are
//! given up.

use std::time::Instant;

use millstream_engine::pipeline::{Guarantee, MapId};
use millstream_engine::task::TopicPartition;
use millstream_engine::worker::{CommittedOffset, Event};

use super::{Halt, Loop, WorkerError};
use crate::awaited::Awaited;
use crate::cluster::{Cluster, Member as _};
use crate::directory::MapPlace;
use crate::fault;
use crate::insist::insist;
use crate::own_topics;
use crate::status::Phase;

const HANGING: &str = "they have been pending for longer than a transaction may be open. A broker that was shut down in the wrong \
     moment may have lost its end: kafka-transactions.sh find-hanging finds it, in __consumer_offsets";

impl<C: Cluster> Loop<C> {
    pub(super) fn read_offsets(
        &mut self,
        places: &[TopicPartition],
    ) -> Result<Vec<CommittedOffset>, Halt> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let taking = self.engine.held().next().is_none()
            && self.engine.guarantee() == Guarantee::ExactlyOnce;
        let mut succession = std::mem::take(&mut self.succession);
        let look = || self.look_after_seat();
        let cluster = &self.seat.outlet.cluster;
        if taking {
            succession.look(cluster, &look);
            fault::reach("assigned-group-looked-at");
        }
        let began = Instant::now();
        let explain = |why| match began.elapsed() > cluster.pending_max() {
            true => format!("{why}; {HANGING}"),
            false => why,
        };
        let names = places.iter().map(|at| (self.topic_of(*at), at.partition));
        let names: Vec<(&str, u32)> = names.collect();
        let offsets = insist(
            &self.seat.stop,
            "reading the committed offsets",
            &look,
            || {
                let mut offsets = Vec::with_capacity(places.len());
                let committed = self.consumer.committed(places);
                if taking && committed.is_err() {
                    succession.unblock(cluster, &names, &look);
                }
                for (partition, offset, metadata) in committed.map_err(explain)? {
                    let offset =
                        offset.map_or_else(|| self.consumer.first_offset(partition), Ok)?;
                    offsets.push(CommittedOffset {
                        partition,
                        offset,
                        metadata,
                    });
                }
                Ok(offsets)
            },
        )?;
        fault::reach("assigned-offsets-read");
        if taking {
            let metadata = offsets.iter().map(|at| &*at.metadata);
            succession.succeed(cluster, metadata, &look);
        }
        self.succession = succession;
        self.check_own_topics(&offsets)?;
        if !taking {
            fault::reach("doubt-offsets-read");
        }
        Ok(offsets)
    }

    /// What these offsets cover stands in the topics that there were when they were committed, and in no others.
    fn check_own_topics(&self, offsets: &[CommittedOffset]) -> Result<(), Halt> {
        let setup = &self.seat.setup;
        for at in offsets {
            let place = || self.describe(at.partition, at.offset);
            let lost = own_topics::lost_since(&setup.pipeline, &setup.ledger, &at.metadata, place);
            lost.map_or(Ok(()), failed)?;
        }
        Ok(())
    }

    /// The partitions of maps and streams are fixed when they are made: a source that has got more would put keys where nobody looks.
    fn check_partitions(&self, offsets: &[(TopicPartition, i64)]) -> Result<(), Halt> {
        let setup = &self.seat.setup;
        let most = setup.map_partitions;
        let beyond = offsets.iter().find(|(at, _)| at.partition >= most);
        let Some((at, _)) = beyond.filter(|_| setup.pipeline.co_partitioned()) else {
            return Ok(());
        };
        failed(format!(
            "topic {} has a partition {} now, but the pipeline's maps and streams have {most} partitions, fixed when they were made: \
             `millstream reset` has the pipeline begin anew, with as many",
            self.topic_of(*at),
            at.partition
        ))
    }

    pub(super) fn assign(&mut self, offsets: &[(TopicPartition, i64)]) -> Result<(), Halt> {
        self.check_partitions(offsets)?;
        let stop = &self.seat.stop;
        insist(stop, "taking the partitions", &|| (), || {
            self.consumer.assign(offsets)
        })?;
        fault::reach("assigned-consuming");
        self.take_maps(offsets)?;
        fault::reach("assigned-maps-taken");
        let held: Vec<String> = offsets
            .iter()
            .map(|(at, offset)| self.describe(*at, *offset))
            .collect();
        tracing::info!(
            worker = self.seat.setup.worker,
            "assigned: {}",
            held.join(" ")
        );
        self.reporter.set_phase(Phase::Running);
        Ok(())
    }

    /// Takes the maps' partitions of the inputs' numbers, and notes how far the tables go that steps read.
    fn take_maps(&mut self, offsets: &[(TopicPartition, i64)]) -> Result<(), Halt> {
        let Some(changelogs) = &mut self.changelogs else {
            return Ok(());
        };
        let seat = &self.seat;
        let pipeline = &seat.setup.pipeline;
        let mut numbers: Vec<u32> = offsets.iter().map(|(at, _)| at.partition).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let own = pipeline.maps.iter().enumerate();
        let own = own.filter(|(_, map)| !map.replicated);
        let places: Vec<MapPlace> = own
            .flat_map(|(map, _)| numbers.iter().map(move |&number| (MapId(map), number)))
            .collect();
        let consumer = &self.consumer;
        let look = || {
            consumer.look_after_seat();
        };
        let awaited = insist(&seat.stop, "opening the changelogs", &look, || {
            changelogs.take(&places)?;
            let end = |place| changelogs.bounds(place).map(|(_, end)| end);
            Awaited::new(pipeline, &seat.partitions_of, &numbers, end)
        })?;
        let asked = insist(
            &seat.stop,
            "asking for the ids of changelogs",
            &look,
            || changelogs.made_anew(),
        )?;
        asked.map_or(Ok(()), failed)?;
        self.holder.add(changelogs.held());
        self.awaited = pipeline.has_tables().then_some(awaited);
        Ok(())
    }

    /// Tells the engine when the tables that steps read are live, and when they aren't any more.
    pub(super) fn watch_tables(&mut self) -> Result<(), Halt> {
        let Some(awaited) = &self.awaited else {
            return Ok(());
        };
        match (
            self.engine.waits_for_tables(),
            awaited.are_live(&self.seat.directory),
        ) {
            (true, true) => {
                tracing::info!(
                    worker = self.seat.setup.worker,
                    "the tables are live: records are run"
                );
                fault::reach("assigned-tables-live");
                self.happened(Event::TablesLive)
            }
            (false, false) => {
                tracing::warn!(
                    worker = self.seat.setup.worker,
                    "a table is being restored again: no record is run meanwhile"
                );
                self.happened(Event::TablesRestoring)
            }
            (true, false) | (false, true) => Ok(()),
        }
    }

    fn topic_of(&self, at: TopicPartition) -> &str {
        &self.seat.setup.pipeline.topics[at.topic.0].topic
    }

    fn describe(&self, at: TopicPartition, offset: i64) -> String {
        format!("{}[{}]@{offset}", self.topic_of(at), at.partition)
    }

    pub(super) fn unassign(&mut self) -> Result<(), Halt> {
        fault::reach("revoked-closed");
        self.awaited = None;
        if let Some(changelogs) = &mut self.changelogs {
            self.holder.remove(changelogs.held());
            changelogs
                .park()
                .map_err(|why| Halt::Failed(WorkerError::Failed(why)))?;
        }
        fault::reach("revoked-maps-parked");
        self.consumer
            .unassign()
            .map_err(|why| Halt::Failed(WorkerError::Failed(why)))?;
        tracing::info!(worker = self.seat.setup.worker, "all partitions given up");
        fault::reach("revoked-done");
        self.reporter.set_phase(Phase::Joining);
        Ok(())
    }
}

fn failed(why: String) -> Result<(), Halt> {
    Err(Halt::Failed(WorkerError::Failed(why)))
}
