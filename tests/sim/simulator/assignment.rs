//! A worker takes partitions and gives them up: its inputs', and with them those of the maps. Part of the loop, as in
//! `host/server/src/worker_thread/assignment.rs` and `host/server/src/succession.rs`.
//!
//! Invariant: map partitions are taken after the stable offsets of the inputs were read.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use millstream_broker::Broker;
use millstream_engine::commit::token::Token;
use millstream_engine::pipeline::MapId;
use millstream_engine::state::restore::Phase;
use millstream_engine::task::TopicPartition;
use millstream_engine::worker::{CommittedOffset, Event};

use super::course::Course;
use super::driver::{Halt, Loop};
use super::pipeline::{MapPlace, NAME};
use super::producer::{Producer, TRANSACTION_TIMEOUT};
use super::world::{Directory, Request, World};

/// A seat that can't be had in so many tries is tried again with the next look, for as long as something may be open there.
const TRIES: u32 = 5;
const OPEN_MAX: i64 = 2 * TRANSACTION_TIMEOUT;

/// How far the tables go that a worker's steps wait for.
#[derive(Debug, Default)]
pub struct Awaited(BTreeMap<MapPlace, i64>);

impl Awaited {
    fn are_live(&self, directory: &Directory) -> bool {
        let places = directory.places.borrow();
        self.0.iter().all(|(place, &end)| {
            places.get(place).is_some_and(|shared| {
                let partition = shared.borrow();
                partition.phase() == Phase::Live && partition.position() >= end
            })
        })
    }
}

impl Loop {
    pub async fn read_offsets(
        &mut self,
        places: &[TopicPartition],
    ) -> Result<Vec<CommittedOffset>, Halt> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let taking = self.engine.held().next().is_none();
        let mut succession = std::mem::take(&mut self.succession);
        if taking {
            succession.look(self).await;
        }
        let (mut back_off, mut stopping) = (0, None);
        let offsets = loop {
            match self.member.committed(places).await {
                Ok(offsets) => break offsets,
                Err(_) => {
                    if taking {
                        succession.unblock(self, places).await;
                    }
                    self.back_off(&mut back_off, &mut stopping).await?;
                    self.look_after_seat();
                }
            }
        };
        if taking {
            let metadata = offsets.iter().map(|at| &*at.metadata);
            succession.succeed(self, metadata).await;
        }
        self.succession = succession;
        Ok(offsets)
    }

    pub async fn assign(&mut self, offsets: &[(TopicPartition, i64)]) -> Result<(), Halt> {
        self.member.assign(offsets);
        if self.world.pipeline.maps.is_empty() {
            return Ok(());
        }
        let mut numbers: Vec<u32> = offsets.iter().map(|(at, _)| at.partition).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let maps = 0..self.world.pipeline.maps.len();
        let own = maps.flat_map(|map| numbers.iter().map(move |&number| (MapId(map), number)));
        let own: Vec<MapPlace> = own.collect();
        let (mut back_off, mut stopping) = (0, None);
        let awaited = loop {
            match self.take_maps(&own, &numbers).await {
                Ok(awaited) => break awaited,
                Err(_) => self.back_off(&mut back_off, &mut stopping).await?,
            }
        };
        *self.directory.places.borrow_mut() = self.changelogs.held().clone();
        self.directory.touched.set(true);
        self.awaited = self.world.pipeline.has_tables().then_some(awaited);
        Ok(())
    }

    async fn take_maps(&mut self, own: &[MapPlace], numbers: &[u32]) -> Result<Awaited, String> {
        self.changelogs.take(own).await?;
        let mut ends = BTreeMap::new();
        for map in self.world.pipeline.read_by_steps() {
            for &number in numbers {
                let (_, end) = self.changelogs.bounds((map, number)).await?;
                ends.insert((map, number), end);
            }
        }
        Ok(Awaited(ends))
    }

    /// Tells the engine when the tables that steps read are live, and when they aren't any more.
    pub async fn watch_tables(&mut self) -> Result<(), Halt> {
        let Some(awaited) = &self.awaited else {
            return Ok(());
        };
        let are_live = awaited.are_live(&self.directory);
        match (self.engine.waits_for_tables(), are_live) {
            (true, true) => self.happened(Event::TablesLive).await,
            (false, false) => {
                self.world.count(Course::GateShut);
                self.happened(Event::TablesRestoring).await
            }
            (true, false) | (false, true) => Ok(()),
        }
    }

    pub fn unassign(&mut self) {
        self.world.count(Course::Unassigned);
        self.awaited = None;
        self.directory.places.borrow_mut().clear();
        self.changelogs.park();
        self.member.unassign();
    }
}

/// The seats of other instances, as far as a worker knows them.
#[derive(Debug, Default)]
pub struct Succession {
    /// In the group when it could be listed last.
    present: BTreeSet<String>,
    /// Whether it could be at the last look. Who is not known to have gone is left alone.
    is_known: bool,
    /// Not in the group any more, as was seen then, and what they left open may be open still.
    gone: BTreeMap<String, i64>,
    /// What was ended, of seats that were not in the group since.
    ended: BTreeSet<String>,
}

impl Succession {
    async fn look(&mut self, worker: &Loop) {
        self.list(worker).await;
        let gone = self.gone();
        self.end_those(worker, gone).await;
    }

    async fn succeed(&mut self, worker: &Loop, metadata: impl Iterator<Item = &str>) {
        let missed = self.miss(worker.world.now(), &seats_of(worker, metadata));
        self.end_those(worker, missed).await;
    }

    /// Ends what was left open by whoever committed last, while what is pending hides whose it is.
    async fn unblock(&mut self, worker: &Loop, places: &[TopicPartition]) {
        self.list(worker).await;
        if let Ok(metadata) = worker.member.last_metadata(places).await {
            worker.world.count(Course::Unblocked);
            let metadata = metadata.iter().map(|told| &**told);
            self.miss(worker.world.now(), &seats_of(worker, metadata));
        }
        let gone = self.gone();
        self.end_those(worker, gone).await;
    }

    async fn list(&mut self, worker: &Loop) {
        let listed = others(&worker.world, worker.life, &worker.instance).await;
        self.is_known = listed.is_some();
        let Some(present) = listed else {
            return;
        };
        let now = worker.world.now();
        let left = self.present.difference(&present);
        self.gone.extend(left.map(|seat| (seat.clone(), now)));
        self.gone
            .retain(|seat, since| !present.contains(seat) && now - *since < OPEN_MAX);
        self.ended.retain(|seat| !present.contains(seat));
        self.present = present;
    }

    /// These were there before. Returns those of whose going nothing was known.
    fn miss(&mut self, now: i64, seats: &BTreeSet<String>) -> BTreeSet<String> {
        if !self.is_known {
            return BTreeSet::new();
        }
        let mut missed = &(seats - &self.present) - &self.ended;
        missed.retain(|seat| !self.gone.contains_key(seat));
        self.gone
            .extend(missed.iter().map(|seat| (seat.clone(), now)));
        missed
    }

    fn gone(&self) -> BTreeSet<String> {
        let is_known = self.is_known;
        self.gone.keys().filter(|_| is_known).cloned().collect()
    }

    async fn end_those(&mut self, worker: &Loop, seats: BTreeSet<String>) {
        for seat in seats {
            if end(worker, &seat).await {
                self.gone.remove(&seat);
                self.ended.insert(seat);
            }
        }
    }
}

fn seats_of<'m>(worker: &Loop, metadata: impl Iterator<Item = &'m str>) -> BTreeSet<String> {
    let tokens = metadata.filter_map(Token::from_metadata);
    let others = tokens.filter(|token| *token.instance != *worker.instance);
    others
        .map(|token| seat_of(&token.instance, token.worker))
        .collect()
}

pub fn seat_of(instance: &str, worker: u32) -> String {
    format!("{NAME}.{instance}.{worker}")
}

/// Seats of other instances that are in the group right now.
async fn others(world: &World, life: usize, instance: &Rc<str>) -> Option<BTreeSet<String>> {
    let own = format!("{NAME}.{instance}.");
    let list = move |broker: &mut Broker, _| {
        let members = broker.describe_group(NAME);
        let others = members.filter(|seat| !seat.starts_with(&own));
        others.map(str::to_owned).collect()
    };
    world.ask(life, Request::Read, list).await.ok()
}

/// Ends what a seat left open that is gone. Returns whether there is nothing more to be tried.
async fn end(worker: &Loop, seat: &str) -> bool {
    worker.note(|| format!("{seat} is gone"));
    let mut producer = Producer::new(&worker.world, worker.life, seat);
    for _ in 0..TRIES {
        if producer.init().await.is_some() {
            worker.world.count(Course::Succeeded);
            return true;
        }
        worker.look_after_seat();
    }
    false
}
