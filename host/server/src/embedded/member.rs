//! A worker's seat in a group of the broker in memory.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_broker::{
    self as broker, Error, Isolation, Join, Membership, PartitionOffset, Spec,
};
use millstream_engine::pipeline::TopicId;
use millstream_engine::task::TopicPartition;

use super::{FETCH_BYTES, Shared};
use crate::cluster::{self, Committed, Consumable, ConsumeError, Consumed, Rebalance};

/// A worker that is busy may not speak for long: nobody waits for its partitions but workers of the same process.
const SESSION_MS: i64 = 60_000;
pub const SESSION: Duration = Duration::from_millis(SESSION_MS.unsigned_abs());
const HEARTBEAT: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub struct Member {
    shared: Arc<Shared>,
    group: String,
    seat: String,
    /// By `TopicId`.
    topics: Vec<String>,
    state: State,
    member_id: String,
    generation: i32,
    places: RefCell<Vec<Place>>,
    noted: Vec<Rebalance>,
    heartbeat_due: Cell<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Has asked to join and waits for the others.
    Joining,
    /// Has been given partitions, or has been asked to give them back, and hasn't answered.
    Asked,
    Steady,
}

#[derive(Debug)]
struct Place {
    at: TopicPartition,
    /// Of the next record to be handed out.
    offset: i64,
    paused: bool,
}

/// Offsets to commit, and who the member is in the group.
#[derive(Debug)]
pub struct Commit {
    pub group: String,
    pub seat: String,
    pub member_id: String,
    pub generation: i32,
    /// Topic, partition, offset.
    pub offsets: Vec<(String, u32, i64)>,
    pub metadata: String,
}

impl Consumable for broker::Record<'_> {
    fn offset(&self) -> i64 {
        self.offset
    }

    fn timestamp(&self) -> i64 {
        self.timestamp
    }

    fn key(&self) -> Option<&[u8]> {
        self.key
    }

    fn value(&self) -> Option<&[u8]> {
        self.value
    }

    fn headers(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.headers
    }
}

impl Member {
    pub fn join(
        shared: Arc<Shared>,
        group: &str,
        seat: String,
        topics: &[String],
    ) -> Result<Self, Error> {
        let mut member = Self {
            shared,
            group: group.into(),
            seat,
            topics: topics.to_vec(),
            state: State::Joining,
            member_id: String::new(),
            generation: -1,
            places: RefCell::default(),
            noted: Vec::new(),
            heartbeat_due: Cell::new(Instant::now()),
        };
        member.rejoin()?;
        Ok(member)
    }

    fn rejoin(&mut self) -> Result<(), Error> {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let join = Join {
            client_id: &self.seat,
            member_id: &self.member_id,
            instance_id: Some(&self.seat),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: SESSION_MS,
            topics: &topics,
        };
        self.member_id = self
            .shared
            .tell(|broker, now| broker.join_group(now, &self.group, &join))?;
        self.state = State::Joining;
        Ok(())
    }

    fn membership(&self) -> Membership<'_> {
        Membership {
            member_id: &self.member_id,
            instance_id: Some(&self.seat),
            generation: self.generation,
        }
    }

    /// What the group wants by now.
    fn follow_group(&mut self) -> Result<(), ConsumeError> {
        let asked = match self.state {
            State::Joining => self.sync(),
            State::Steady if self.heartbeat_due.get() <= Instant::now() => self.heartbeat(),
            State::Steady | State::Asked => Ok(()),
        };
        match asked {
            Ok(()) => Ok(()),
            Err(Error::RebalanceInProgress) if self.state == State::Steady => {
                self.state = State::Asked;
                self.noted.push(Rebalance::Revoked);
                Ok(())
            }
            Err(Error::RebalanceInProgress) => self.rejoin().map_err(fatal),
            Err(Error::UnknownMemberId | Error::IllegalGeneration) => {
                self.member_id.clear();
                if self.state == State::Joining {
                    return self.rejoin().map_err(fatal);
                }
                self.state = State::Asked;
                self.noted.push(Rebalance::Lost);
                Ok(())
            }
            Err(error) => Err(fatal(error)),
        }
    }

    fn sync(&mut self) -> Result<(), Error> {
        let given = self
            .shared
            .ask(|broker| broker.sync_group(&self.group, &self.membership()))?;
        let Some(given) = given else {
            return Ok(());
        };
        self.generation = given.generation;
        self.state = State::Asked;
        let places = given.partitions.iter().map(|(name, partition)| {
            let topic = self.topics.iter().position(|topic| topic == name);
            TopicPartition {
                topic: TopicId(topic.expect("partitions are of topics that were asked for")),
                partition: *partition,
            }
        });
        self.noted.push(Rebalance::Assigned(places.collect()));
        Ok(())
    }

    fn heartbeat(&self) -> Result<(), Error> {
        self.heartbeat_due.set(Instant::now() + HEARTBEAT);
        self.shared.tell(|broker, now| {
            broker.tick(now);
            broker.heartbeat(now, &self.group, &self.membership())
        })
    }

    /// Hands out what one fetch of each partition brings. Returns how many records came.
    fn fetch(
        &self,
        most: usize,
        mut each: impl FnMut(TopicPartition, Consumed<'_, broker::Record<'_>>),
    ) -> usize {
        let mut count = 0;
        for place in self
            .places
            .borrow_mut()
            .iter_mut()
            .filter(|place| !place.paused)
        {
            let at = (self.topics[place.at.topic.0].as_str(), place.at.partition);
            let fetched = self.shared.fetch(at, place.offset, FETCH_BYTES);
            match fetched {
                Ok(fetched) => {
                    let mut records = fetched.records();
                    for record in records.by_ref().take(most - count) {
                        place.offset = record.offset + 1;
                        each(place.at, Consumed::Record(record));
                        count += 1;
                    }
                    if records.next().is_none() {
                        place.offset = fetched.next_offset;
                    }
                }
                Err(error) => each(place.at, Consumed::Unreadable(error.to_string().into())),
            }
        }
        count
    }
}

fn fatal(error: Error) -> ConsumeError {
    match error {
        Error::FencedInstanceId => ConsumeError::Fenced(error.to_string()),
        error => ConsumeError::Fatal(error.to_string()),
    }
}

impl cluster::Member for Member {
    type Record<'a> = broker::Record<'a>;
    type Commit = Commit;

    fn poll(
        &mut self,
        timeout: Duration,
        most: usize,
        mut each: impl FnMut(TopicPartition, Consumed<'_, broker::Record<'_>>),
    ) -> Result<usize, ConsumeError> {
        self.follow_group()?;
        if self.state != State::Steady {
            if self.noted.is_empty() {
                self.shared.wait(timeout);
            }
            return Ok(0);
        }
        let mut count = self.fetch(most, &mut each);
        if count == 0 && !timeout.is_zero() {
            self.shared.wait(timeout);
            count = self.fetch(most, &mut each);
        }
        Ok(count)
    }

    fn rebalances(&mut self) -> Vec<Rebalance> {
        std::mem::take(&mut self.noted)
    }

    fn assign(&mut self, offsets: &[(TopicPartition, i64)]) -> Result<(), String> {
        let places = offsets.iter().map(|&(at, offset)| Place {
            at,
            offset,
            paused: false,
        });
        *self.places.borrow_mut() = places.collect();
        self.state = State::Steady;
        Ok(())
    }

    fn unassign(&mut self) -> Result<(), String> {
        self.places.borrow_mut().clear();
        self.rejoin().map_err(|error| error.to_string())
    }

    fn is_lost(&self) -> bool {
        self.noted.contains(&Rebalance::Lost)
    }

    fn fenced(&self) -> Option<String> {
        None
    }

    fn look_after_seat(&self) -> bool {
        // What the group wants is heard at the next poll, which would else find that it has just been asked.
        if self.heartbeat().is_err() {
            self.heartbeat_due.set(Instant::now());
        }
        false
    }

    /// There is no client between this and the group.
    fn look_at_session(&self) {}

    fn seek(&self, offsets: &[(TopicPartition, i64)]) -> Result<(), String> {
        for place in self.places.borrow_mut().iter_mut() {
            if let Some((_, offset)) = offsets.iter().find(|(at, _)| *at == place.at) {
                place.offset = *offset;
                place.paused = false;
            }
        }
        Ok(())
    }

    fn pause(&mut self, places: &[TopicPartition]) -> Result<(), String> {
        for place in self.places.get_mut() {
            place.paused |= places.contains(&place.at);
        }
        Ok(())
    }

    fn committed(&self, places: &[TopicPartition]) -> Result<Vec<Committed>, String> {
        let committed = self.shared.ask(|broker| {
            let one = |at: &TopicPartition| {
                let topic = &self.topics[at.topic.0];
                let found = broker.fetch_offset(&self.group, (topic, at.partition), true)?;
                Ok(match found {
                    Some(found) => (*at, Some(found.offset), found.metadata.clone()),
                    None => (*at, None, String::new()),
                })
            };
            places.iter().map(one).collect::<Result<_, Error>>()
        });
        committed.map_err(|error| error.to_string())
    }

    fn positions(&self, places: &[TopicPartition]) -> BTreeMap<TopicPartition, i64> {
        let held = self.places.borrow();
        let wanted = held.iter().filter(|place| places.contains(&place.at));
        wanted.map(|place| (place.at, place.offset)).collect()
    }

    fn ends(&self, places: &[TopicPartition]) -> BTreeMap<TopicPartition, i64> {
        let end = Spec::Latest(Isolation::ReadCommitted);
        self.shared.ask(|broker| {
            let of = |&at: &TopicPartition| {
                let topic = &self.topics[at.topic.0];
                Some((at, broker.list_offset((topic, at.partition), end).ok()?))
            };
            places.iter().filter_map(of).collect()
        })
    }

    fn first_offset(&self, at: TopicPartition) -> Result<i64, String> {
        let topic = &self.topics[at.topic.0];
        self.shared
            .ask(|broker| broker.list_offset((topic, at.partition), Spec::Earliest))
            .map_err(|error| error.to_string())
    }

    fn commit_of(
        &self,
        offsets: &[(TopicPartition, i64)],
        metadata: &str,
    ) -> Result<Commit, String> {
        let offsets = offsets.iter().map(|&(at, offset)| {
            let topic = self.topics[at.topic.0].clone();
            (topic, at.partition, offset)
        });
        Ok(Commit {
            group: self.group.clone(),
            seat: self.seat.clone(),
            member_id: self.member_id.clone(),
            generation: self.generation,
            offsets: offsets.collect(),
            metadata: metadata.into(),
        })
    }

    fn commit(&self, offsets: &[(TopicPartition, i64)], metadata: &str) -> Result<(), String> {
        let offsets = offsets.iter().map(|&(at, offset)| PartitionOffset {
            topic: &self.topics[at.topic.0],
            partition: at.partition,
            offset,
            metadata,
        });
        let offsets: Vec<_> = offsets.collect();
        self.shared
            .tell(|broker, _| broker.commit_offsets(&self.group, &self.membership(), &offsets))
            .map_err(|error| error.to_string())
    }

    /// Nobody waits for the partitions but workers of this process, which ends.
    fn leave(&mut self) -> Result<(), String> {
        Ok(())
    }
}
