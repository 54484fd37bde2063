//! Ending what other instances left open when they died: part of taking partitions.
//!
//! Until its time-out, the open transaction of a dead worker hides what is behind it from everybody who reads committed records, our
//! own maps included, and keeps stable offsets from being read. Initialising a producer in its seat ends it at once.
//!
//! Invariant: a seat that is in the group is left alone. One that isn't and lives all the same was frozen or cut off; it finds its
//! epoch aborted, as the group would have made it, and takes its seat again.

use std::collections::BTreeSet;
use std::time::Duration;

use millstream_engine::commit::token::Token;
use millstream_engine::worker::CommittedOffset;

use crate::cluster::{Cluster, InitError, Producer as _};
use crate::fault;

/// A seat that can't be had in so many tries is left to its time-out.
const TRIES: u32 = 10;
const TRY: Duration = Duration::from_millis(500);

/// The seats of other instances, as far as a worker knows them.
#[derive(Debug, Default)]
pub struct Succession {
    /// In the group when there was a look last; none if they could not be listed then. Who is not known to have gone is left alone.
    present: Option<BTreeSet<String>>,
    /// What the last look ended.
    ended: BTreeSet<String>,
}

impl Succession {
    /// To be called with every assignment, before offsets are read: ends what those seats left open that have gone since the last.
    pub fn look<C: Cluster>(&mut self, cluster: &C, between: &dyn Fn()) {
        let listed = cluster.others();
        if let Err(why) = &listed {
            tracing::warn!("the group's members can't be listed: {why}");
        }
        self.ended.clear();
        let before = std::mem::replace(&mut self.present, listed.ok());
        if let (Some(before), Some(present)) = (before, &self.present) {
            for seat in before.difference(present) {
                end(cluster, seat, between);
                self.ended.insert(seat.clone());
            }
        }
    }

    /// The same for the seats that committed these offsets: they may have gone before this worker came.
    pub fn succeed<C: Cluster>(
        &self,
        cluster: &C,
        offsets: &[CommittedOffset],
        between: &dyn Fn(),
    ) {
        let Some(present) = &self.present else {
            return;
        };
        let tokens = offsets
            .iter()
            .filter_map(|at| Token::from_metadata(&at.metadata));
        // Our own instance's were ended when the process started.
        let others = tokens.filter(|token| token.instance != cluster.instance());
        let seats: BTreeSet<String> = others
            .map(|token| cluster.seat_of(&token.instance, token.worker))
            .collect();
        for seat in &(&seats - present) - &self.ended {
            end(cluster, &seat, between);
        }
    }
}

fn end<C: Cluster>(cluster: &C, seat: &str, between: &dyn Fn()) {
    fault::reach("succession-ending");
    let ended = cluster.producer(seat, &[], (0, 0)).and_then(|producer| {
        for _ in 0..TRIES {
            match producer.init(TRY) {
                // The coordinator ends it, and fences who may have had the seat: more is not wanted.
                Ok(()) | Err(InitError::Ending(_)) => return Ok(()),
                Err(InitError::Again(_)) => between(),
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("it took too long".into())
    });
    fault::reach("succession-ended");
    match ended {
        Ok(()) => tracing::info!("{seat} is gone: what it may have left open is ended"),
        Err(why) => tracing::warn!(
            "{seat} is gone, and what it may have left open stays so until its time-out: {why}"
        ),
    }
}
