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
#[derive(Debug)]
pub struct Succession {
    /// How many seats of this process's own name are its own. Those behind them are of an earlier life that had more.
    workers: u32,
    /// In the group when it could be listed last.
    present: BTreeSet<String>,
    /// Whether it could be at the last look. Who is not known to have gone is left alone.
    is_known: bool,
    /// Not in the group any more, and what they left open may be open still.
    gone: BTreeSet<String>,
    /// What was ended, of seats that were not in the group since.
    ended: BTreeSet<String>,
}

/// Of a worker: the start of its process has ended what others of its name left.
impl Default for Succession {
    fn default() -> Self {
        Self::new(u32::MAX)
    }
}

impl Succession {
    /// Of a process that has so many workers.
    pub fn new(workers: u32) -> Self {
        Self {
            workers,
            present: BTreeSet::new(),
            is_known: false,
            gone: BTreeSet::new(),
            ended: BTreeSet::new(),
        }
    }

    /// To be called with every assignment, before offsets are read: ends what those seats left open that have gone since the last.
    pub fn look<C: Cluster>(&mut self, cluster: &C, between: &dyn Fn()) {
        self.list(cluster);
        self.end_each(|seat| end(cluster, seat, between));
    }

    /// The same for the seats that committed last, as stands beside the offsets: they may have gone before this worker came.
    pub fn succeed<'m, C: Cluster>(
        &mut self,
        cluster: &C,
        metadata: impl Iterator<Item = &'m str>,
        between: &dyn Fn(),
    ) {
        self.miss(&self.seats_of(cluster, metadata));
        self.end_each(|seat| end(cluster, seat, between));
    }

    /// To be called while stable offsets can't be read. Whoever died between adding offsets to its transaction and the end of it is mostly
    /// who committed at those partitions before; and that can be read all the same.
    pub fn unblock<C: Cluster>(&mut self, cluster: &C, places: &[(&str, u32)], between: &dyn Fn()) {
        self.list(cluster);
        match cluster.last_metadata(places) {
            Ok(metadata) => {
                let metadata = metadata.iter().map(|told| &**told);
                self.miss(&self.seats_of(cluster, metadata));
            }
            Err(why) => tracing::warn!("who committed last can't be read: {why}"),
        }
        self.end_each(|seat| end(cluster, seat, between));
    }

    fn list<C: Cluster>(&mut self, cluster: &C) {
        let listed = cluster.others();
        if let Err(why) = &listed {
            tracing::warn!("the group's members can't be listed: {why}");
        }
        self.note(listed.ok());
    }

    fn seats_of<'m, C: Cluster>(
        &self,
        cluster: &C,
        metadata: impl Iterator<Item = &'m str>,
    ) -> BTreeSet<String> {
        let tokens = metadata.filter_map(Token::from_metadata);
        let others = tokens
            .filter(|token| token.instance != cluster.instance() || token.worker >= self.workers);
        let seats = others.map(|token| cluster.seat_of(&token.instance, token.worker));
        seats.collect()
    }

    /// Who is in the group now; none if they can't be listed.
    fn note(&mut self, listed: Option<BTreeSet<String>>) {
        self.is_known = listed.is_some();
        let Some(present) = listed else {
            return;
        };
        let left = self.present.difference(&present);
        self.gone.extend(left.cloned());
        self.gone.retain(|seat| !present.contains(seat));
        self.ended.retain(|seat| !present.contains(seat));
        self.present = present;
    }

    /// These were there before.
    fn miss(&mut self, seats: &BTreeSet<String>) {
        if self.is_known {
            self.gone.extend(&(seats - &self.present) - &self.ended);
        }
    }

    /// What can't be ended now, since its coordinator is away, is tried again with the next look.
    fn end_each(&mut self, mut end: impl FnMut(&str) -> bool) {
        if !self.is_known {
            return;
        }
        let ended = self.gone.extract_if(.., |seat| end(seat));
        self.ended.extend(ended);
    }
}

/// Returns whether there is nothing more to be tried.
fn end<C: Cluster>(cluster: &C, seat: &str, between: &dyn Fn()) -> bool {
    fault::reach("succession-ending");
    let ended = cluster
        .producer(seat, &[], (0, 0))
        .map_err(InitError::Refused)
        .and_then(|producer| {
            for _ in 0..TRIES {
                match producer.init(TRY) {
                    // The coordinator ends it, and fences who may have had the seat: more is not wanted.
                    Ok(()) | Err(InitError::Ending(_)) => return Ok(()),
                    Err(InitError::Again(_)) => between(),
                    Err(error) => return Err(error),
                }
            }
            Err(InitError::Again("it took too long".into()))
        });
    fault::reach("succession-ended");
    match ended {
        Ok(()) => {
            tracing::info!("{seat} is gone: what it may have left open is ended");
            true
        }
        Err(InitError::Refused(why)) => {
            tracing::warn!(
                "{seat} is gone, and what it may have left open stays so until its time-out: {why}"
            );
            true
        }
        Err(why) => {
            tracing::warn!(
                "{seat} is gone, and what it may have left open is not ended yet: {why}"
            );
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(names: &str) -> BTreeSet<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    /// Which seats it tries to end, where those in `away` can't be.
    fn tries(succession: &mut Succession, away: &str) -> String {
        let mut tried = Vec::new();
        succession.end_each(|seat| {
            tried.push(seat.to_owned());
            !away.split_whitespace().any(|one| one == seat)
        });
        tried.join(" ")
    }

    #[test]
    fn what_can_not_be_ended_is_tried_again() {
        let mut succession = Succession::new(1);
        succession.note(Some(seats("a b c")));
        assert_eq!(tries(&mut succession, ""), "");
        succession.note(Some(seats("c")));
        assert_eq!(tries(&mut succession, "b"), "a b");
        succession.miss(&seats("a b c d"));
        assert_eq!(tries(&mut succession, "b"), "b d");
        // Who is back lives.
        succession.note(Some(seats("b c d")));
        assert_eq!(tries(&mut succession, ""), "");
        succession.note(Some(seats("c")));
        assert_eq!(tries(&mut succession, ""), "b d");
        assert_eq!(tries(&mut succession, ""), "");
    }

    #[test]
    fn nobody_is_ended_who_is_not_known_to_have_gone() {
        let mut succession = Succession::new(1);
        succession.miss(&seats("a"));
        assert_eq!(tries(&mut succession, ""), "");
        succession.note(Some(seats("a b")));
        succession.note(None);
        succession.miss(&seats("a b"));
        assert_eq!(tries(&mut succession, ""), "");
        // Who left while nobody could be listed is missed all the same.
        succession.note(Some(seats("b")));
        assert_eq!(tries(&mut succession, ""), "a");
    }
}
