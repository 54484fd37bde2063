//! Sees to it that nothing is read on that may have missed removals: a process that was suspended for a day, or cut off from its brokers.
//!
//! From time to time it asks where the topics end. Once a fold has come to there, it had everything at the time of the question; an answer
//! alone says nothing, and neither does a record that comes, which may have been fetched before the process slept.

use std::collections::BTreeMap;

use super::{Changelogs, read, write};
use crate::cluster::Reader;
use crate::directory::MapPlace;

/// How often it looks, in milliseconds.
const LOOK: i64 = 1000;

/// How long brokers that don't answer are left alone, in milliseconds.
const PAUSE: i64 = 60_000;

#[derive(Debug, Default)]
pub struct Ends {
    /// High watermarks, and when they were asked for, by the wall clock; of partitions that have not been seen to reach them.
    asked: BTreeMap<MapPlace, (i64, i64)>,
    looked: i64,
    refused: Option<i64>,
}

impl<R: Reader> Changelogs<R> {
    /// What may not be read on is empty from here on, and folded anew.
    pub(super) fn keep_fresh(&mut self) {
        let now = self.memory.now();
        if (self.ends.looked..self.ends.looked.saturating_add(LOOK)).contains(&now) {
            return;
        }
        self.ends.looked = now;
        let mut unproven = Vec::new();
        for (&place, shared) in &self.held {
            if self.loading.contains(&place) || self.broken.contains(&place) {
                continue;
            }
            let (freshness, position) = {
                let partition = read(shared);
                (partition.freshness(), partition.position())
            };
            if freshness.is_over(now) {
                let (topic, number) = (&self.topics[place.0.0], place.1);
                tracing::warn!(
                    "{topic}[{number}] was last read to its end so long ago that it may have forgotten removals since"
                );
                *write(shared) = self.memory.partition(place.0, 0, i64::MAX);
                self.broken.push(place);
            } else if freshness.is_unproven(now) {
                match self.ends.asked.get(&place) {
                    Some(&(end, at)) if position >= end => {
                        write(shared).prove_fresh(at);
                        self.ends.asked.remove(&place);
                    }
                    Some(_) => {}
                    None => unproven.push(place),
                }
            }
        }
        self.ask(&unproven);
    }

    fn ask(&mut self, places: &[MapPlace]) {
        let is_paused = |at: i64| (at..at.saturating_add(PAUSE)).contains(&self.memory.now());
        if self.ends.refused.is_some_and(is_paused) {
            return;
        }
        self.ends.refused = None;
        for &place in places {
            // It has everything up to here, not up to when the answer is looked at.
            let at = self.memory.now();
            match self.bounds(place) {
                Ok((_, end)) => {
                    self.ends.asked.insert(place, (end, at));
                }
                Err(why) => {
                    tracing::warn!("where changelogs end can't be asked: {why}");
                    self.ends.refused = Some(self.memory.now());
                    return;
                }
            }
        }
    }
}
