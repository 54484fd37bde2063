//! Sees to it that nothing is read on that may have missed removals: a process that was suspended for a day, or cut off from its brokers.
//!
//! From time to time it asks for the topics' last stable offsets. Once a fold has come to there, it had everything at the time of the
//! question; an answer alone says nothing, and neither does a record that comes, which may have been fetched before the process slept. Behind
//! an open transaction nothing is cleaned away, so nobody has to have read that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millstream_engine::state::restore::Phase;

use super::{Changelogs, write};
use crate::cluster::Reader;
use crate::directory::MapPlace;

/// How often it looks, in milliseconds.
const LOOK: i64 = 1000;

/// How much of a look may be spent on questions, which whoever reads waits for.
const ASKING_MAX: Duration = Duration::from_millis(100);

/// After an answer that didn't come, so many times as much passes before the next question.
const REST: u32 = 20;

#[derive(Debug, Default)]
pub struct Ends {
    /// Last stable offsets, and when they were asked for, by the wall clock; of partitions that have not been seen to reach them.
    asked: BTreeMap<MapPlace, (i64, i64)>,
    /// Of partitions that are being restored.
    positions: BTreeMap<MapPlace, i64>,
    looked: Option<i64>,
    /// Those behind it are asked about next: none has to wait for one that nobody answers for.
    last: Option<MapPlace>,
    due: Option<Instant>,
    /// To be asked about.
    unproven: Vec<MapPlace>,
}

impl<R: Reader> Changelogs<R> {
    /// What may not be read on is empty from here on, and folded anew.
    pub(super) fn keep_fresh(&mut self) {
        let now = self.memory.now();
        let before = self.ends.looked.unwrap_or(now);
        if self.ends.looked.is_some() && (before..before.saturating_add(LOOK)).contains(&now) {
            return;
        }
        self.ends.looked = Some(now);
        let mut positions = BTreeMap::new();
        let mut unproven = Vec::new();
        for (&place, shared) in &self.held {
            if self.loading.contains(&place) || self.broken.contains(&place) {
                continue;
            }
            let mut partition = write(shared);
            let (phase, position, read_to) =
                (partition.phase(), partition.position(), partition.read_to());
            let freshness = partition.freshness_mut();
            freshness.not_after(now);
            let slept = freshness.ends_within(now.saturating_sub(before));
            if let Phase::Restoring { .. } = phase {
                positions.insert(place, position);
                // How long a restore may take is the topic's to say; to begin again would take as long. What it began from stays as old.
                let last = self.ends.positions.get(&place);
                if !slept && last.is_some_and(|last| *last != position) {
                    freshness.spare(now.saturating_sub(before));
                }
            }
            if slept || freshness.is_over(now) {
                let (topic, number) = (&self.topics[place.0.0], place.1);
                tracing::warn!(
                    "{topic}[{number}] was last read to its end so long ago that it may have forgotten removals since"
                );
                *partition = self.memory.partition(place.0, 0, i64::MAX);
                self.ends.asked.remove(&place);
                self.broken.push(place);
            } else if freshness.is_unproven(now) {
                match self.ends.asked.get(&place) {
                    Some(&(end, at)) if read_to >= end => {
                        freshness.prove(at.min(now));
                        self.ends.asked.remove(&place);
                    }
                    Some(_) => {}
                    None => unproven.push(place),
                }
            }
        }
        self.ends.positions = positions;
        self.ends.unproven = unproven;
    }

    pub(super) fn ask_for_ends(&mut self) {
        let places = std::mem::take(&mut self.ends.unproven);
        let began = Instant::now();
        if self.ends.due.is_some_and(|due| began < due) {
            return;
        }
        let last = self.ends.last;
        let is_behind = |place: &&MapPlace| last.is_none_or(|last| **place > last);
        let (behind, rest): (Vec<&MapPlace>, Vec<&MapPlace>) = places.iter().partition(is_behind);
        for &place in behind.into_iter().chain(rest) {
            // It has everything up to here, not up to when the answer is looked at.
            let at = self.memory.now();
            self.ends.last = Some(place);
            match self.reader.stable_end(&self.topics[place.0.0], place.1) {
                Ok(end) => {
                    self.ends.asked.insert(place, (end, at));
                }
                Err(why) => {
                    tracing::warn!("where changelogs end can't be asked: {why}");
                    self.ends.due = Some(Instant::now() + began.elapsed() * REST);
                    return;
                }
            }
            if began.elapsed() > ASKING_MAX {
                return;
            }
        }
    }
}
