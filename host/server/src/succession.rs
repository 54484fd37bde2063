//! Ending what other instances left open when they died: part of taking partitions, and of starting.
//!
//! Until its time-out, the open transaction of a dead worker hides what is behind it from everybody who reads committed records, our
//! own maps included, and keeps stable offsets from being read. Initialising a producer in its seat ends it at once.
//!
//! Invariant: a seat that is in the group is left alone. One that isn't and lives all the same was frozen or cut off; it finds its
//! epoch aborted, as the group would have made it, and takes its seat again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use millstream_engine::commit::token::Token;

use crate::cluster::{Cluster, InitError, Producer as _};
use crate::fault;

/// A seat that can't be had in so many tries is tried again with the next look, for as long as something may be open there.
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
    /// Not in the group any more, as was seen then, and what they left open may be open still.
    gone: BTreeMap<String, Instant>,
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
            gone: BTreeMap::new(),
            ended: BTreeSet::new(),
        }
    }

    /// To be called with every assignment, before offsets are read: ends what those seats left open that have gone since the last.
    pub fn look<C: Cluster>(&mut self, cluster: &C, between: &dyn Fn()) {
        self.list(cluster);
        let gone = self.gone();
        self.end_those(gone, |seat| end(cluster, seat, between));
    }

    /// The same for the seats that committed last, as stands beside the offsets: they may have gone before this worker came.
    pub fn succeed<'m, C: Cluster>(
        &mut self,
        cluster: &C,
        metadata: impl Iterator<Item = &'m str>,
        between: &dyn Fn(),
    ) {
        let missed = self.miss(&self.seats_of(cluster, metadata));
        self.end_those(missed, |seat| end(cluster, seat, between));
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
        let gone = self.gone();
        self.end_those(gone, |seat| end(cluster, seat, between));
    }

    fn list<C: Cluster>(&mut self, cluster: &C) {
        let listed = cluster.others();
        if let Err(why) = &listed {
            tracing::warn!("the group's members can't be listed: {why}");
        }
        self.note(listed.ok(), cluster.pending_max());
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

    /// Who is in the group now; none if they can't be listed. What was left open for so long has timed out.
    fn note(&mut self, listed: Option<BTreeSet<String>>, open_max: Duration) {
        self.is_known = listed.is_some();
        let Some(present) = listed else {
            return;
        };
        let left = self.present.difference(&present);
        self.gone
            .extend(left.map(|seat| (seat.clone(), Instant::now())));
        self.gone
            .retain(|seat, since| !present.contains(seat) && since.elapsed() < open_max);
        self.ended.retain(|seat| !present.contains(seat));
        self.present = present;
    }

    /// These were there before. Returns those of whose going nothing was known.
    fn miss(&mut self, seats: &BTreeSet<String>) -> BTreeSet<String> {
        if !self.is_known {
            return BTreeSet::new();
        }
        let mut missed = &(seats - &self.present) - &self.ended;
        missed.retain(|seat| !self.gone.contains_key(seat));
        let gone = missed.iter().map(|seat| (seat.clone(), Instant::now()));
        self.gone.extend(gone);
        missed
    }

    fn gone(&self) -> BTreeSet<String> {
        let is_known = self.is_known;
        self.gone.keys().filter(|_| is_known).cloned().collect()
    }

    fn end_those(&mut self, seats: BTreeSet<String>, mut end: impl FnMut(&str) -> bool) {
        for seat in seats {
            if end(&seat) {
                self.gone.remove(&seat);
                self.ended.insert(seat);
            }
        }
    }
}

/// Ends what workers of this process's own name from `opened` on left open, as far as that stands beside these offsets: an earlier life may
/// have had more of them, and have been on another host, whose lock says how many.
pub fn end_earlier<'m, C: Cluster>(
    cluster: &C,
    opened: u32,
    metadata: impl Iterator<Item = &'m str>,
    stopping: impl Fn() -> bool,
) {
    let tokens = metadata.filter_map(Token::from_metadata);
    let own = tokens.filter(|token| token.instance == cluster.instance() && token.worker >= opened);
    let seats: BTreeSet<String> = own.map(|token| cluster.seat(token.worker)).collect();
    for seat in seats {
        if stopping() {
            return;
        }
        end(cluster, &seat, &|| ());
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

    const LONG: Duration = Duration::from_secs(60);

    fn note(succession: &mut Succession, present: &str) {
        succession.note(Some(seats(present)), LONG);
    }

    /// Which of these it tries to end, where those in `away` can't be.
    fn tries(succession: &mut Succession, those: BTreeSet<String>, away: &str) -> String {
        let mut tried = Vec::new();
        succession.end_those(those, |seat| {
            tried.push(seat.to_owned());
            !away.split_whitespace().any(|one| one == seat)
        });
        tried.join(" ")
    }

    #[test]
    fn what_can_not_be_ended_is_tried_again() {
        let mut succession = Succession::new(1);
        let gone = |succession: &mut Succession, away| {
            let gone = succession.gone();
            tries(succession, gone, away)
        };
        note(&mut succession, "a b c");
        assert_eq!(gone(&mut succession, ""), "");
        note(&mut succession, "c");
        assert_eq!(gone(&mut succession, "b"), "a b");
        // Not twice in one look.
        let missed = succession.miss(&seats("a b c d"));
        assert_eq!(tries(&mut succession, missed, ""), "d");
        note(&mut succession, "c");
        assert_eq!(gone(&mut succession, "b"), "b");
        // Who is back lives.
        note(&mut succession, "b c d");
        assert_eq!(gone(&mut succession, ""), "");
        note(&mut succession, "c");
        assert_eq!(gone(&mut succession, "d"), "b d");
        // Nothing is open any more.
        succession.note(Some(seats("c")), Duration::ZERO);
        assert_eq!(gone(&mut succession, ""), "");
    }

    #[test]
    fn nobody_is_ended_who_is_not_known_to_have_gone() {
        let mut succession = Succession::new(1);
        assert_eq!(succession.miss(&seats("a")), seats(""));
        note(&mut succession, "a b");
        succession.note(None, LONG);
        assert_eq!(succession.miss(&seats("a b")), seats(""));
        assert_eq!(succession.gone(), seats(""));
        // Who left while nobody could be listed is missed all the same.
        note(&mut succession, "b");
        assert_eq!(succession.gone(), seats("a"));
    }
}
