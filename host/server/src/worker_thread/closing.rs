//! How a worker's epoch ends: its changes are produced, all is flushed, the offsets join, and it is committed; what took effect is taken
//! into the maps. Part of the loop.
//!
//! Invariant: nothing is committed once the partitions are known to be lost.

use std::time::Instant;

use millstream_engine::commit::verdict::{Sends, Verdict};
use millstream_engine::pipeline::{Guarantee, Kept};
use millstream_engine::task::TopicPartition;

use super::{Halt, Loop, WorkerError, is_lost};
use crate::cluster::{Cluster, Member as _, Producer as _};
use crate::fault;

impl<C: Cluster> Loop<C> {
    pub(super) fn commit(&mut self) -> Verdict {
        let began = Instant::now();
        let mut verdict = self.try_commit().unwrap_or_else(Verdict::Aborted);
        if let Verdict::Committed(_) = verdict {
            self.reporter.commits.note(began.elapsed());
        }
        if let (Verdict::Aborted(_) | Verdict::InDoubt(_), Some(why)) =
            (&verdict, self.consumer.fenced())
        {
            // A new producer under this name would fence the process that has the seat now.
            verdict = Verdict::Fenced(why);
        }
        match &verdict {
            Verdict::Committed(Sends::Once) => {}
            Verdict::Committed(Sends::Several) => tracing::info!("committed after several tries"),
            Verdict::Aborted(why) => {
                tracing::warn!("the epoch is aborted and will be run again: {why}");
                self.reporter.failed(&self.engine, why);
            }
            Verdict::InDoubt(why) => {
                tracing::warn!("the commit is in doubt: {why}; reading the offsets back");
                self.reporter.failed(&self.engine, why);
            }
            Verdict::Fenced(why) | Verdict::Fatal(why) => {
                tracing::error!("the commit failed: {why}");
            }
        }
        verdict
    }

    /// What was committed to the changelogs of partitions held here is to come back through them.
    pub(super) fn expect_changes(&mut self, verdict: &Verdict) {
        if let (Verdict::Committed(_), Some(changelogs)) = (verdict, &mut self.changelogs) {
            let mut last = None;
            for change in self.engine.changes() {
                let place = (change.map, change.partition);
                if last.replace(place) != Some(place) {
                    changelogs.expect(place);
                }
            }
        }
    }

    /// Steps' own state is as they changed it.
    pub(super) fn merge(&mut self) -> Result<(), Halt> {
        let Some(changelogs) = &mut self.changelogs else {
            return Ok(());
        };
        let maps = &self.seat.setup.pipeline.maps;
        let changes = self.engine.changes();
        let own = changes.filter(|change| maps[change.map.0].kept == Kept::State);
        fault::reach("epoch-merging");
        let merged = changelogs.merge(own);
        fault::reach("epoch-merged");
        merged.map_err(|why| Halt::Failed(WorkerError::Failed(why)))
    }

    /// Errors are reasons to abort: nobody has asked for the transaction's end.
    fn try_commit(&mut self) -> Result<Verdict, String> {
        fault::reach("epoch-closing");
        self.running.send_changes(&self.engine)?;
        fault::reach("epoch-changes-sent");
        let is_lost = || is_lost(&self.consumer, &self.changelogs, &self.holder);
        if let Err(why) = self.running.producer().flush(&is_lost) {
            let refusal = self.running.producer().refusal();
            return Ok(refusal.map_or(Verdict::Aborted(why), Verdict::Fatal));
        }
        fault::reach("epoch-flushed");
        let held: Vec<TopicPartition> = self.engine.held().map(|(at, _)| at).collect();
        let positions = self.consumer.positions(&held);
        let (offsets, metadata) = self
            .engine
            .offsets_to_commit(|at| positions.get(&at).copied());
        match self.seat.outlet.cluster.guarantee() {
            Guarantee::AtLeastOnce => {
                self.consumer.commit(&offsets, &metadata)?;
                Ok(Verdict::Committed(Sends::Once))
            }
            Guarantee::ExactlyOnce => {
                let commit = self.consumer.commit_of(&offsets, &metadata)?;
                fault::reach("epoch-offsets-read");
                if is_lost() {
                    // What the group says of us now may be of a later life than these records.
                    return Err("the partitions were lost".into());
                }
                Ok(self.running.producer().commit(&commit, &is_lost))
            }
        }
    }
}
