//! Ending what other instances left open when they died: part of taking partitions, and of starting.
//!
//! Until its time-out, the open transaction of a dead worker hides what is behind it from everybody who reads committed records, our
//! own maps included, and keeps stable offsets from being read. Initialising a producer in its seat ends it at once.
//!
//! Invariant: a seat that is in the group is left alone. One that isn't and lives all the same was frozen or cut off; it finds its
//! epoch aborted, as the group would have made it, and takes its seat again.

use std::collections::BTreeSet;
use std::time::Duration;

use millstream_engine::commit::token::Token;

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
    /// What was ended, of seats that were not in the group since.
    ended: BTreeSet<String>,
}

impl Succession {
    /// To be called with every assignment, before offsets are read: ends what those seats left open that have gone since the last.
    pub fn look<C: Cluster>(&mut self, cluster: &C, between: &dyn Fn()) {
        let listed = cluster.others();
        if let Err(why) = &listed {
            tracing::warn!("the group's members can't be listed: {why}");
        }
        let before = std::mem::replace(&mut self.present, listed.ok());
        let Some(present) = &self.present else {
            return;
        };
        self.ended.retain(|seat| !present.contains(seat));
        for seat in before.unwrap_or_default().difference(present) {
            end(cluster, seat, between);
            self.ended.insert(seat.clone());
        }
    }

    /// The same for the seats that committed last, as stands beside the offsets: they may have gone before this worker came.
    pub fn succeed<'m, C: Cluster>(
        &mut self,
        cluster: &C,
        metadata: impl Iterator<Item = &'m str>,
        between: &dyn Fn(),
    ) {
        let Some(present) = &self.present else {
            return;
        };
        let tokens = metadata.filter_map(Token::from_metadata);
        // Our own instance's were ended when the process started.
        let others = tokens.filter(|token| token.instance != cluster.instance());
        let seats: BTreeSet<String> = others
            .map(|token| cluster.seat_of(&token.instance, token.worker))
            .collect();
        for seat in &(&seats - present) - &self.ended {
            end(cluster, &seat, between);
            self.ended.insert(seat);
        }
    }

    /// To be called while stable offsets can't be read. Whoever died between adding offsets to its transaction and the end of it is mostly
    /// who committed at those partitions before; and that can be read all the same.
    pub fn unblock<C: Cluster>(&mut self, cluster: &C, places: &[(&str, u32)], between: &dyn Fn()) {
        self.look(cluster, between);
        match cluster.last_metadata(places) {
            Ok(metadata) => self.succeed(cluster, metadata.iter().map(|told| &**told), between),
            Err(why) => tracing::warn!("who committed last can't be read: {why}"),
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
