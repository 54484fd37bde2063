//! A worker's seat in the group, as librdkafka's consumer has it: one half is the worker's (`Member`), the other goes on behind it and
//! speaks to the group (`attend`): joins, beats, notices that the session is over.
//!
//! What mirrors the server is named after it: `host/server/src/kafka/consumer.rs`. A rebalance is answered by the worker; the group's
//! generation goes on behind its back.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use millstream_broker::{
    Answer, Assignment, Broker, Error, Fetched, Isolation, Join, Membership, Spec,
};
use millstream_engine::pipeline::TopicId;
use millstream_engine::task::TopicPartition;
use millstream_engine::worker::CommittedOffset;

use super::course::Course;
use super::pipeline::NAME;
use super::world::{Request, Unanswered, World};

pub const SESSION: i64 = 250;
const REBALANCE: i64 = 400;
const HEARTBEAT: i64 = 40;
const SYNC: i64 = 8;

/// How long after a session has timed out a fencing may be by our own requests.
const OWN_FENCING: i64 = 6_000;

/// How long after an assignment or a seek a partition may not be read yet.
const STARTS_WITHIN: i64 = 60;

const FETCH_BYTES: usize = 4096;

/// What the group wants of the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    Assigned(Vec<TopicPartition>),
    Revoked,
    Lost,
}

/// Offsets to commit, and who the member is in the group.
#[derive(Clone, Debug)]
pub struct Commit {
    pub member_id: String,
    pub instance_id: Rc<str>,
    pub generation: i32,
    pub offsets: Vec<(Rc<str>, u32, i64)>,
    pub metadata: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Joining,
    /// Has been given partitions, and hasn't answered.
    Given,
    Steady,
    /// Has been asked to give them up, or has lost them, and hasn't answered.
    Asked,
    Left,
}

#[derive(Debug)]
struct Seat {
    phase: Phase,
    member_id: String,
    generation: i32,
    /// When the group was last heard of.
    heard: i64,
    noted: VecDeque<Rebalance>,
    /// What is assigned is others' by now.
    lost: bool,
    /// It was given up outside of a poll, because it was lost; the worker has still to be told.
    abandoned: bool,
    /// The worker's answer to that is no answer to the group any more.
    answered: bool,
    lost_at: Option<i64>,
    fenced: bool,
}

#[derive(Debug)]
struct Place {
    at: TopicPartition,
    /// Of the next record to be fetched.
    offset: i64,
    /// Of the next record to be handed out, as `position` tells: after a seek still the one from before.
    position: Option<i64>,
    paused: bool,
    /// Reading that was begun anew takes until then to bring something.
    fetched_from: i64,
}

#[derive(Debug)]
pub struct Member {
    world: Rc<World>,
    life: usize,
    name: Rc<str>,
    topics: Rc<[Rc<str>]>,
    seat: Rc<RefCell<Seat>>,
    places: RefCell<Vec<Place>>,
}

/// What one fetch of a partition brought, and how many of its records are handed out.
pub type Batch = (TopicPartition, Answer<Fetched>, usize);

impl Member {
    pub fn join(world: &Rc<World>, life: usize, name: &Rc<str>, topics: &Rc<[Rc<str>]>) -> Self {
        let seat = Seat {
            phase: Phase::Joining,
            member_id: String::new(),
            generation: -1,
            heard: world.now(),
            noted: VecDeque::new(),
            lost: false,
            abandoned: false,
            answered: false,
            lost_at: None,
            fenced: false,
        };
        let member = Self {
            world: Rc::clone(world),
            life,
            name: Rc::clone(name),
            topics: Rc::clone(topics),
            seat: Rc::new(RefCell::new(seat)),
            places: RefCell::default(),
        };
        let behind = Behind {
            world: Rc::clone(world),
            life,
            name: Rc::clone(name),
            topics: Rc::clone(topics),
            seat: Rc::clone(&member.seat),
        };
        world.spawn(Some(life), behind.attend());
        member
    }

    /// Fetches what there is. An error says that the seat is another process's.
    pub async fn poll(&mut self) -> Result<Vec<Batch>, String> {
        if self.seat.borrow().fenced {
            if !self.is_fenced_by_itself() {
                return Err("another process has joined the group in this seat".into());
            }
            self.renew();
        }
        let wanted: Vec<(TopicPartition, i64)> = {
            let places = self.places.borrow();
            let now = self.world.now();
            let is_read = |place: &&Place| !place.paused && place.fetched_from <= now;
            let wanted = places.iter().filter(is_read);
            wanted.map(|place| (place.at, place.offset)).collect()
        };
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let (asked, topics) = (wanted.clone(), Rc::clone(&self.topics));
        let fetch = move |broker: &mut Broker, _| {
            let one = |(at, offset): &(TopicPartition, i64)| {
                let place = (&*topics[at.topic.0], at.partition);
                broker.fetch(place, *offset, Isolation::ReadCommitted, FETCH_BYTES)
            };
            asked.iter().map(one).collect::<Vec<_>>()
        };
        let fetched = self.world.ask(self.life, Request::Read, fetch).await;
        let mut batches = Vec::new();
        for ((at, offset), fetched) in wanted.into_iter().zip(fetched.into_iter().flatten()) {
            if let Some(batch) = self.take(at, offset, fetched) {
                batches.push(batch);
            }
        }
        Ok(batches)
    }

    fn take(&self, at: TopicPartition, from: i64, fetched: Answer<Fetched>) -> Option<Batch> {
        let mut places = self.places.borrow_mut();
        let place = places.iter_mut().find(|place| place.at == at)?;
        let most = self.world.plan.poll_max;
        if let Ok(fetched) = &fetched {
            let mut offsets = fetched.records().map(|record| record.offset);
            let next = offsets.nth(most).unwrap_or(fetched.next_offset);
            if next == from {
                return None;
            }
            place.offset = next;
            place.position = Some(next);
        }
        Some((at, fetched, most))
    }

    pub fn rebalances(&mut self) -> Vec<Rebalance> {
        let mut seat = self.seat.borrow_mut();
        let noted = std::mem::take(&mut seat.noted);
        if noted.contains(&Rebalance::Lost) {
            seat.abandoned = false;
        }
        noted.into()
    }

    pub fn assign(&mut self, offsets: &[(TopicPartition, i64)]) {
        let places = offsets.iter().map(|&(at, offset)| Place {
            at,
            offset,
            position: None,
            paused: false,
            fetched_from: self.world.now() + self.world.between(0, STARTS_WITHIN),
        });
        *self.places.borrow_mut() = places.collect();
        let mut seat = self.seat.borrow_mut();
        if seat.phase == Phase::Given {
            seat.phase = Phase::Steady;
        }
    }

    pub fn unassign(&mut self) {
        self.places.borrow_mut().clear();
        let mut seat = self.seat.borrow_mut();
        let answered = std::mem::take(&mut seat.answered);
        // It may have been given up so while the worker dealt with the very loss.
        seat.abandoned = false;
        if seat.phase == Phase::Asked && !answered {
            seat.phase = Phase::Joining;
        }
        seat.lost = seat.phase == Phase::Asked;
    }

    pub fn is_lost(&self) -> bool {
        let seat = self.seat.borrow();
        seat.lost || seat.abandoned || seat.fenced
    }

    fn is_fenced_by_itself(&self) -> bool {
        let seat = self.seat.borrow();
        let recent = |lost: i64| self.world.now() - lost < OWN_FENCING;
        seat.fenced && seat.lost_at.is_some_and(recent)
    }

    pub fn fenced(&self) -> Option<String> {
        let fenced = self.seat.borrow().fenced;
        (fenced && !self.is_fenced_by_itself())
            .then(|| "another process has joined the group in this seat".into())
    }

    /// Another client, once for each session that timed out.
    fn renew(&self) {
        if !self.is_fenced_by_itself() {
            return;
        }
        self.world.count(Course::Renewed);
        let mut seat = self.seat.borrow_mut();
        seat.lost_at = None;
        seat.fenced = false;
        seat.member_id.clear();
        seat.generation = -1;
        if matches!(seat.phase, Phase::Given | Phase::Steady) {
            seat.noted.push_back(Rebalance::Lost);
        }
        if seat.phase != Phase::Joining {
            seat.lost = true;
            seat.answered = true;
        }
        seat.phase = Phase::Joining;
    }

    /// To be called twice a second by whoever can't poll. Returns whether everything was lost.
    pub fn look_after_seat(&self) -> bool {
        self.renew();
        let mut seat = self.seat.borrow_mut();
        if seat.lost && !seat.abandoned && seat.phase == Phase::Asked {
            seat.abandoned = true;
            seat.answered = true;
            seat.phase = Phase::Joining;
            self.places.borrow_mut().clear();
        }
        seat.lost || seat.abandoned
    }

    pub fn seek(&self, offsets: &[(TopicPartition, i64)]) {
        for place in self.places.borrow_mut().iter_mut() {
            if let Some((_, offset)) = offsets.iter().find(|(at, _)| *at == place.at) {
                place.offset = *offset;
                place.paused = false;
                place.fetched_from = self.world.now() + self.world.between(0, STARTS_WITHIN);
            }
        }
    }

    pub fn pause(&mut self, wanted: &[TopicPartition]) {
        for place in self.places.get_mut() {
            place.paused |= wanted.contains(&place.at);
        }
    }

    /// The stable committed offsets; where there are none, the first ones.
    pub async fn committed(
        &self,
        places: &[TopicPartition],
    ) -> Result<Vec<CommittedOffset>, String> {
        let (asked, topics) = (places.to_vec(), Rc::clone(&self.topics));
        let read = move |broker: &mut Broker, _| {
            let one = |at: &TopicPartition| {
                let place = (&*topics[at.topic.0], at.partition);
                let found = broker.fetch_offset(NAME, place, true)?;
                let found = found.map(|found| (found.offset, found.metadata.clone()));
                let (offset, metadata) = match found {
                    Some(found) => found,
                    None => (broker.list_offset(place, Spec::Earliest)?, String::new()),
                };
                Ok(CommittedOffset {
                    partition: *at,
                    offset,
                    metadata,
                })
            };
            asked.iter().map(one).collect::<Answer<Vec<_>>>()
        };
        let read = self.world.ask(self.life, Request::Coordinator, read).await;
        match read {
            Ok(Ok(offsets)) => Ok(offsets),
            Ok(Err(error)) => {
                self.world.count(Course::Unstable);
                Err(error.to_string())
            }
            Err(unanswered) => Err(format!("{unanswered:?}")),
        }
    }

    /// What stands beside the last committed offsets, whatever is pending.
    pub async fn last_metadata(
        &self,
        places: &[TopicPartition],
    ) -> Result<Vec<String>, Unanswered> {
        let (asked, topics) = (places.to_vec(), Rc::clone(&self.topics));
        let read = move |broker: &mut Broker, _| {
            let one = |at: &TopicPartition| {
                let place = (&*topics[at.topic.0], at.partition);
                let found = broker.fetch_offset(NAME, place, false).ok().flatten();
                found.map(|found| found.metadata.clone())
            };
            asked.iter().filter_map(one).collect()
        };
        self.world.ask(self.life, Request::Coordinator, read).await
    }

    pub fn positions(&self) -> BTreeMap<TopicPartition, i64> {
        let places = self.places.borrow();
        let known = places
            .iter()
            .filter_map(|place| Some((place.at, place.position?)));
        known.collect()
    }

    pub fn commit_of(
        &self,
        offsets: &[(TopicPartition, i64)],
        metadata: String,
    ) -> Result<Commit, String> {
        let seat = self.seat.borrow();
        if seat.generation < 0 || seat.member_id.is_empty() {
            return Err("the group does not count this worker in".into());
        }
        let offsets = offsets.iter().map(|&(at, offset)| {
            let topic = Rc::clone(&self.topics[at.topic.0]);
            (topic, at.partition, offset)
        });
        Ok(Commit {
            member_id: seat.member_id.clone(),
            instance_id: Rc::clone(&self.name),
            generation: seat.generation,
            offsets: offsets.collect(),
            metadata,
        })
    }

    /// Gives the seat back. What the group says of it doesn't matter: the process ends.
    pub async fn leave(&mut self) {
        let (name, member_id) = {
            let mut seat = self.seat.borrow_mut();
            seat.phase = Phase::Left;
            (Rc::clone(&self.name), seat.member_id.clone())
        };
        let leave = move |broker: &mut Broker, now| {
            let member = Membership {
                member_id: &member_id,
                instance_id: Some(&name),
                generation: -1,
            };
            broker.leave_group(now, NAME, &member)
        };
        // Where that is not answered, others wait for the session's end.
        let _ = self.world.ask(self.life, Request::Coordinator, leave).await;
    }
}

/// What goes on behind a member.
struct Behind {
    world: Rc<World>,
    life: usize,
    name: Rc<str>,
    topics: Rc<[Rc<str>]>,
    seat: Rc<RefCell<Seat>>,
}

impl Behind {
    async fn attend(self) {
        loop {
            let phase = self.seat.borrow().phase;
            match phase {
                Phase::Joining if !self.seat.borrow().fenced => self.join().await,
                Phase::Joining => self.world.sleep(SYNC).await,
                Phase::Given | Phase::Steady | Phase::Asked => {
                    self.world.sleep(HEARTBEAT).await;
                    self.beat().await;
                }
                Phase::Left => return,
            }
        }
    }

    async fn join(&self) {
        let (name, topics) = (Rc::clone(&self.name), Rc::clone(&self.topics));
        let member_id = self.seat.borrow().member_id.clone();
        let before = member_id.clone();
        let join = move |broker: &mut Broker, now| {
            let topics: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
            let join = Join {
                client_id: &name,
                member_id: &member_id,
                instance_id: Some(&name),
                session_timeout_ms: SESSION,
                rebalance_timeout_ms: REBALANCE,
                topics: &topics,
            };
            broker.join_group(now, NAME, &join)
        };
        let joined = self.world.ask(self.life, Request::Coordinator, join).await;
        {
            let mut seat = self.seat.borrow_mut();
            if seat.phase != Phase::Joining || seat.member_id != before {
                return;
            }
            match joined {
                Ok(Ok(ref id)) => seat.member_id = id.clone(),
                Ok(Err(Error::FencedInstanceId)) => seat.fenced = true,
                Ok(Err(_)) => seat.member_id.clear(),
                Err(_) => {}
            }
        }
        if let Ok(Ok(id)) = joined {
            self.sync(&id).await;
        } else {
            self.world.sleep(SYNC).await;
        }
    }

    /// Asks what the member was given until it is told, or has to join again.
    async fn sync(&self, id: &str) {
        loop {
            self.world.sleep(SYNC).await;
            let synced = self.call(|broker, _, member| broker.sync_group(NAME, member));
            let synced = synced.await;
            let mut seat = self.seat.borrow_mut();
            if seat.phase != Phase::Joining || seat.member_id != id {
                return;
            }
            match synced {
                Ok(Ok(None)) | Err(_) => {}
                Ok(Ok(Some(given))) => {
                    seat.heard = self.world.now();
                    return self.given(&mut seat, &given);
                }
                Ok(Err(Error::FencedInstanceId)) => {
                    seat.fenced = true;
                    return;
                }
                Ok(Err(Error::RebalanceInProgress)) => return,
                Ok(Err(_)) => return seat.member_id.clear(),
            }
        }
    }

    fn given(&self, seat: &mut Seat, given: &Assignment) {
        let places = given.partitions.iter().filter_map(|(name, partition)| {
            let topic = self.topics.iter().position(|topic| **topic == **name)?;
            Some(TopicPartition {
                topic: TopicId(topic),
                partition: *partition,
            })
        });
        seat.generation = given.generation;
        seat.phase = Phase::Given;
        seat.noted.push_back(Rebalance::Assigned(places.collect()));
    }

    async fn beat(&self) {
        let before = self.seat.borrow().member_id.clone();
        let beaten = self.call(|broker, now, member| broker.heartbeat(now, NAME, member));
        let beaten = beaten.await;
        let mut seat = self.seat.borrow_mut();
        let is_out = matches!(seat.phase, Phase::Joining | Phase::Left);
        if is_out || seat.member_id != before {
            return;
        }
        match beaten {
            Ok(Ok(())) => seat.heard = self.world.now(),
            Ok(Err(Error::RebalanceInProgress)) => {
                seat.heard = self.world.now();
                if seat.phase == Phase::Steady {
                    seat.phase = Phase::Asked;
                    seat.noted.push_back(Rebalance::Revoked);
                }
            }
            Ok(Err(Error::FencedInstanceId)) => seat.fenced = true,
            Ok(Err(_)) => self.lose(&mut seat),
            Err(_) if self.world.now() - seat.heard > SESSION => self.lose(&mut seat),
            Err(_) => {}
        }
    }

    fn lose(&self, seat: &mut Seat) {
        seat.lost_at = Some(self.world.now());
        seat.heard = self.world.now();
        seat.member_id.clear();
        seat.generation = -1;
        seat.lost = true;
        if matches!(seat.phase, Phase::Given | Phase::Steady) {
            seat.noted.push_back(Rebalance::Lost);
        }
        seat.phase = Phase::Asked;
    }

    async fn call<T: 'static>(
        &self,
        act: impl FnOnce(&mut Broker, i64, &Membership<'_>) -> T + 'static,
    ) -> Result<T, Unanswered> {
        let name = Rc::clone(&self.name);
        let (member_id, generation) = {
            let seat = self.seat.borrow();
            (seat.member_id.clone(), seat.generation)
        };
        let act = move |broker: &mut Broker, now| {
            let member = Membership {
                member_id: &member_id,
                instance_id: Some(&name),
                generation,
            };
            act(broker, now, &member)
        };
        self.world.ask(self.life, Request::Coordinator, act).await
    }
}
