//! A worker's seat in the consumer group.
//!
//! Invariant: a rebalance is answered by the worker, with `assign` or `unassign`, after its transaction is closed; until then the
//! partitions are still ours.

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millstream_engine::pipeline::TopicId;
use millstream_engine::task::TopicPartition;
use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka_sys::RDKafkaErrorCode as Code;

use super::client::{Clients, SESSION};
use super::loss::Loss;
use super::membership::GroupMetadata;
use super::native::{NativeConsumer, Noted, Polled, RecordRef, TopicHandle, list};
use super::seat;
use super::unread::{self, GONE, STUCK};
use crate::cluster::{Cluster as _, Committed, ConsumeError, Consumed, Member, Rebalance};
use crate::threads;

/// Offsets to commit, and who we are in the group.
#[derive(Debug)]
pub struct Commit {
    pub offsets: TopicPartitionList,
    pub group: GroupMetadata,
}

/// How long after a session has timed out here a fencing may be by our own requests, and after a start by those of the seat's last life.
const OWN_FENCING: Duration = Duration::from_secs(120);

/// How long the group's offer is waited for before another client looks whether the group has settled without this one, and how often.
const OFFER_MAX: Duration = Duration::from_secs(20);
const OFFER_LOOK: Duration = Duration::from_secs(5);

/// How long coming back into a seat may take; a rebalance may be under way.
const RETURNING_MAX: Duration = Duration::from_secs(20);

/// How long leaving the group may take, and how often there is a look meanwhile.
const LEAVING_MAX: Duration = Duration::from_secs(5);
const LEAVING_LOOK: Duration = Duration::from_millis(10);

/// How long after its assignment a partition may not be read yet. Of one that isn't then, its leader is asked whether it has what is to be
/// read; where it has, it was away, or slow, and there is more time.
const STARTED_WITHIN: Duration = Duration::from_secs(3);
const STARTED_MAX: Duration = Duration::from_secs(60);
const STARTED_LOOK: Duration = Duration::from_millis(500);

/// What the group and this member owe each other.
///
/// ```text
///   Outside ── the group offers partitions ──▶ Offered ── assign ──▶ Holding ── unassign ──▶ Outside
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// An offer is to come, since then.
    Outside {
        since: Instant,
    },
    /// The worker has still to answer.
    Offered,
    Holding,
}

/// Looks of another client at the group, while this one waits for its offer.
#[derive(Clone, Copy, Debug)]
struct Looks {
    due: Instant,
    /// The last one found that the group waits for nobody.
    settled: bool,
}

#[derive(Debug)]
pub struct GroupConsumer {
    clients: Clients,
    worker: u32,
    native: RefCell<NativeConsumer>,
    /// By `TopicId`.
    topics: Vec<String>,
    /// Topics that records came from.
    seen: Vec<(TopicHandle, TopicId)>,
    loss: Loss,
    /// When the session was seen to have timed out, unless the client was renewed for it.
    lost: Cell<Option<Instant>>,
    /// When this life began, unless the client was renewed on account of the last one.
    began: Cell<Option<Instant>>,
    standing: Cell<Standing>,
    looks: Cell<Looks>,
    /// The client was asked last for committed offsets in vain: another one is asked next.
    ask_another: Cell<bool>,
    /// Partitions that are not read on, since there is nothing where they were to be; with why. The worker has still to be told.
    unsought: RefCell<Vec<(TopicPartition, String)>>,
}

impl GroupConsumer {
    /// Joins the group in the seat of a worker.
    pub fn join(clients: &Clients, worker: u32, topics: &[String]) -> Result<Self, String> {
        let is_outdated = seat::is_outdated(clients, worker, topics);
        let now = Instant::now();
        let mut member = Self {
            native: RefCell::new(subscribed(clients, worker, topics)?),
            clients: clients.clone(),
            worker,
            topics: topics.to_vec(),
            seen: Vec::new(),
            loss: Loss::default(),
            lost: Cell::new(None),
            began: Cell::new(Some(now)),
            standing: Cell::new(Standing::Outside { since: now }),
            looks: Cell::new(Looks {
                due: now + OFFER_MAX,
                settled: false,
            }),
            ask_another: Cell::new(false),
            unsought: RefCell::default(),
        };
        if is_outdated {
            tracing::info!(
                target: "millstream::kafka",
                "the group knows this seat under another address, or for other topics: leaving it and joining anew"
            );
            member.join_anew()?;
        }
        Ok(member)
    }

    /// First and next offset of a partition.
    fn bounds(&self, at: TopicPartition) -> Result<(i64, i64), String> {
        let (topic, partition) = (&self.topics[at.topic.0], at.partition);
        let marks = self.native().watermarks(topic, partition);
        marks.map_err(|code| format!("{topic}[{partition}]: {code}"))
    }

    /// Leaves the group as whoever had the seat before, and joins it again: a static member that merely comes back keeps, in the
    /// group's eyes, the `client.id` that it first came with, and the address in it.
    fn join_anew(&mut self) -> Result<(), String> {
        let until = Instant::now() + RETURNING_MAX;
        let native = self.native.get_mut();
        let mut is_back = false;
        while !is_back && Instant::now() < until {
            native.poll(LEAVING_LOOK, |_| ());
            for noted in native.take_noted() {
                let answered = match noted {
                    Noted::Assign(_) => native.assign(&TopicPartitionList::new()),
                    Noted::Revoke => native.unassign(),
                };
                answered.map_err(|code| code.to_string())?;
                is_back = true;
            }
        }
        self.leave()?;
        subscribe(self.native.get_mut(), &self.topics)
    }

    fn native(&self) -> Ref<'_, NativeConsumer> {
        self.native.borrow()
    }

    /// Whether the group took us for an impostor of ourselves. After a session has timed out, or while a join is not answered, librdkafka
    /// asks to join again and again; brokers that were away, or stood still, answer all of it once they are back, and each answer fences
    /// the one before. A request of the seat's last life may be as late.
    fn is_fenced_by_itself(&self) -> bool {
        if self.native().fatal_error() != Some(Code::FencedInstanceId) {
            return false;
        }
        let recent = |since: Instant| since.elapsed() < OWN_FENCING;
        let is_waiting = match self.standing.get() {
            Standing::Outside { since } => since.elapsed() > SESSION,
            Standing::Offered | Standing::Holding => false,
        };
        is_waiting || self.lost.get().is_some_and(recent) || {
            self.began.get().is_some_and(recent) && seat::is_ours(&self.clients, self.worker)
        }
    }

    /// Makes another client where this one was fenced by itself: once for each session that timed out, and for each join that was not
    /// answered for as long, and once for the seat's last life. Should the seat be another process's after all, it is that one which is
    /// fenced now, and it ends: its session has not timed out. Returns whether it did.
    fn renew(&self) -> bool {
        if !self.is_fenced_by_itself() {
            return false;
        }
        tracing::warn!(target: "millstream::kafka", "fenced by our own requests to join: joining with a new client");
        self.lost.set(None);
        self.began.set(None);
        self.replace();
        true
    }

    /// The worker is told that what the old client held, or was offered, is lost.
    fn replace(&self) {
        let native = match subscribed(&self.clients, self.worker, &self.topics) {
            Ok(native) => native,
            Err(why) => {
                tracing::error!(target: "millstream::kafka", "no new client: {why}");
                return;
            }
        };
        close(self.native.replace(native));
        let is_outside = matches!(self.standing.get(), Standing::Outside { .. });
        self.loss.replace_client(!is_outside);
        if is_outside {
            self.wait_for_offer();
        }
    }

    fn wait_for_offer(&self) {
        let since = Instant::now();
        self.standing.set(Standing::Outside { since });
        self.looks.set(Looks {
            due: since + OFFER_MAX,
            settled: false,
        });
    }

    /// Whether the group waits for nobody, while this client waits for its offer: seen twice, so that an offer on its way counts. Brokers
    /// that stood still for longer than a session have left librdkafka waiting for an answer to a join for ever, or looking for the group's
    /// coordinator, while a new client was answered at once.
    fn is_forgotten(&self) -> bool {
        let (looks, now) = (self.looks.get(), Instant::now());
        if !matches!(self.standing.get(), Standing::Outside { .. }) || now < looks.due {
            return false;
        }
        let group = self.clients.group();
        let settled = group.is_ok_and(|group| group.is_settled || group.members.is_empty());
        let due = Instant::now() + OFFER_LOOK;
        self.looks.set(Looks { due, settled });
        looks.settled && settled
    }

    fn places(&self, list: &[(String, i32)]) -> Vec<TopicPartition> {
        let places = list.iter().filter_map(|(name, partition)| {
            let topic = TopicId(self.topics.iter().position(|topic| topic == name)?);
            Some(TopicPartition {
                topic,
                partition: number(*partition),
            })
        });
        places.collect()
    }

    fn name(&self, at: TopicPartition) -> (&str, u32) {
        (&self.topics[at.topic.0], at.partition)
    }

    fn list(
        &self,
        places: impl IntoIterator<Item = (TopicPartition, Option<i64>)>,
    ) -> TopicPartitionList {
        list(places.into_iter().map(|(at, offset)| {
            let (topic, partition) = self.name(at);
            (topic, partition, offset)
        }))
    }

    /// The list that a commit takes: offsets, each with the metadata.
    fn offsets(&self, offsets: &[(TopicPartition, i64)], metadata: &str) -> TopicPartitionList {
        let list = self.list(offsets.iter().map(|&(at, offset)| (at, Some(offset))));
        for mut element in list.elements() {
            element.set_metadata(metadata);
        }
        list
    }
}

impl Member for GroupConsumer {
    type Record<'a> = RecordRef<'a>;
    type Commit = Commit;

    fn poll(
        &mut self,
        timeout: Duration,
        most: usize,
        mut each: impl FnMut(TopicPartition, Consumed<'_, RecordRef<'_>>),
    ) -> Result<usize, ConsumeError> {
        if self.is_forgotten() {
            tracing::warn!(target: "millstream::kafka", "the group has settled without this worker: joining with a new client");
            // What the old one asked for may be answered still.
            self.lost.set(Some(Instant::now()));
            self.replace();
        }
        for (place, why) in self.unsought.get_mut().drain(..) {
            each(place, Consumed::Unreadable(why.into()));
        }
        let (topics, seen) = (&self.topics, &mut self.seen);
        let (mut gone, mut result) = (Vec::new(), Ok(()));
        let count = self
            .native
            .get_mut()
            .poll_some(timeout, most, |polled| match polled {
                Polled::Record(record) => {
                    let handle = record.topic_handle();
                    let known = seen.iter().find(|(known, _)| *known == handle);
                    let topic = known.map(|(_, topic)| *topic).or_else(|| {
                        let topic = find(topics, record.topic())?;
                        seen.push((handle, topic));
                        Some(topic)
                    });
                    let topic = topic.expect("records come from topics that were subscribed to");
                    let partition = number(record.partition());
                    each(
                        TopicPartition { topic, partition },
                        Consumed::Record(record),
                    );
                }
                Polled::End { .. } => {}
                Polled::Error(error) => {
                    let place = error.place.and_then(|(topic, partition)| {
                        Some(TopicPartition {
                            topic: find(topics, topic)?,
                            partition: number(partition),
                        })
                    });
                    match (unread::judge(&error), place) {
                        (Ok(_), Some(place)) if unread::is_gone(error.code) => {
                            gone.push((place, error.text.to_owned()));
                        }
                        (Ok(consumed), Some(place)) => each(place, consumed),
                        (Ok(_), None) => {}
                        (Err(error), _) => result = Err(error),
                    }
                }
            });
        for (place, text) in gone {
            let bounds = self.bounds(place);
            let there = bounds.map_or_else(|why| why, |(first, end)| format!("{first} to {end}"));
            let why = format!("{text}; it has {there}: {GONE}");
            each(place, Consumed::Unreadable(why.into()));
        }
        if matches!(result, Err(ConsumeError::Fenced(_))) && self.renew() {
            self.seen.clear();
            return Ok(count);
        }
        result.map(|()| count)
    }

    fn rebalances(&mut self) -> Vec<Rebalance> {
        let mut wanted = Vec::new();
        if self.loss.is_orphaned() {
            self.seen.clear();
            wanted.push(Rebalance::Lost);
        }
        for noted in self.native().take_noted() {
            wanted.push(match noted {
                Noted::Assign(list) => {
                    self.standing.set(Standing::Offered);
                    Rebalance::Assigned(self.places(&list))
                }
                Noted::Revoke if self.loss.take_request() => Rebalance::Lost,
                Noted::Revoke if self.native().is_assignment_lost() => {
                    self.lost.set(Some(Instant::now()));
                    Rebalance::Lost
                }
                Noted::Revoke => Rebalance::Revoked,
            });
        }
        wanted
    }

    fn assign(&mut self, offsets: &[(TopicPartition, i64)]) -> Result<(), String> {
        if self.loss.is_orphaned() {
            // It was the old client's offer; that it is lost is what the worker is told next.
            return Ok(());
        }
        let list = self.list(offsets.iter().map(|&(at, offset)| (at, Some(offset))));
        self.standing.set(Standing::Holding);
        let native = self.native();
        // Before: what is paused when it is assigned is fetched up to a second late, as in `seek`.
        native.resume(&list).map_err(|code| code.to_string())?;
        native.assign(&list).map_err(|code| code.to_string())
    }

    fn unassign(&mut self) -> Result<(), String> {
        self.wait_for_offer();
        if !self.loss.answer() {
            // That was the old client's.
            return Ok(());
        }
        self.native().unassign().map_err(|code| code.to_string())
    }

    fn is_lost(&self) -> bool {
        self.loss.is_open()
            || self.native().is_assignment_lost()
            || self.native().fatal_error().is_some()
    }

    fn fenced(&self) -> Option<String> {
        let fenced = self.native().fatal_error() == Some(Code::FencedInstanceId);
        (fenced && !self.is_fenced_by_itself())
            .then(|| "another process has joined the group in this seat".into())
    }

    fn look_after_seat(&self) -> bool {
        self.renew();
        if !self.loss.is_abandoned() && self.native().is_assignment_lost() {
            tracing::warn!(target: "millstream::kafka", "the partitions were lost");
            self.lost.set(Some(Instant::now()));
            self.loss.abandon(self.native().unassign().is_ok());
        }
        self.loss.is_open()
    }

    fn look_at_session(&self) {
        self.native().settle();
    }

    fn seek(&self, offsets: &[(TopicPartition, i64)]) -> Result<(), String> {
        if offsets.is_empty() {
            return Ok(());
        }
        let list = self.list(offsets.iter().map(|&(at, offset)| (at, Some(offset))));
        let said = |code: Code| code.to_string();
        self.native().pause(&list).map_err(said)?;
        let began = Instant::now();
        let mut unread = Vec::new();
        loop {
            let stopped = self.places(&self.native().seek(&list)?);
            let stopped = offsets.iter().filter(|(at, _)| stopped.contains(at));
            let stopped: Vec<(TopicPartition, i64)> = stopped.copied().collect();
            unread.clear();
            if stopped.is_empty() {
                break;
            }
            if began.elapsed() < STARTED_WITHIN {
                if self.native().is_assignment_lost() {
                    return Err("the partitions were lost".into());
                }
                std::thread::sleep(LEAVING_LOOK);
                continue;
            }
            let mut may_come = false;
            for (at, offset) in stopped {
                let (first, end) = self.bounds(at)?;
                let is_there = (first..=end).contains(&offset);
                may_come |= is_there;
                let why = match is_there {
                    true => format!("it is not read from there on, though it is there: {STUCK}"),
                    false => format!("it has {first} to {end}: {GONE}"),
                };
                unread.push((at, format!("offset {offset} could not be read: {why}")));
            }
            if !may_come || began.elapsed() > STARTED_MAX {
                break;
            }
            if self.look_after_seat() {
                return Err("the partitions were lost".into());
            }
            std::thread::sleep(STARTED_LOOK);
        }
        self.native().resume(&list).map_err(said)?;
        // A thread of librdkafka's with nothing to fetch looks again once a second. Of a seek it hears at once, of a resumption not.
        self.native().seek(&list)?;
        // What librdkafka had to say of these is lost, or was said already.
        self.unsought.borrow_mut().append(&mut unread);
        Ok(())
    }

    fn pause(&mut self, places: &[TopicPartition]) -> Result<(), String> {
        let list = self.list(places.iter().map(|&at| (at, None)));
        self.native().pause(&list).map_err(|code| code.to_string())
    }

    fn committed(&self, places: &[TopicPartition]) -> Result<Vec<Committed>, String> {
        let list = self.list(places.iter().map(|&at| (at, None)));
        // It takes no member to ask, and this one may have lost the group's coordinator for good, as in `is_forgotten`.
        let asked = if self.ask_another.take() {
            NativeConsumer::new(&self.clients.reader_config("read_committed"))?.committed(&list)
        } else {
            let asked = self.native().committed(&list);
            self.ask_another.set(asked.is_err());
            asked
        };
        asked?;
        let committed = list
            .elements()
            .into_iter()
            .zip(places)
            .map(|(element, &at)| {
                let offset = match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                };
                (at, offset, element.metadata().to_owned())
            });
        Ok(committed.collect())
    }

    fn positions(&self, places: &[TopicPartition]) -> BTreeMap<TopicPartition, i64> {
        let list = self.list(places.iter().map(|&at| (at, None)));
        if let Err(code) = self.native().position(&list) {
            tracing::warn!(target: "millstream::kafka", "no positions: {code}");
            return BTreeMap::new();
        }
        let positions = list
            .elements()
            .into_iter()
            .zip(places)
            .filter_map(|(element, &at)| match element.offset() {
                Offset::Offset(offset) => Some((at, offset)),
                _ => None,
            });
        positions.collect()
    }

    fn ends(&self, places: &[TopicPartition]) -> BTreeMap<TopicPartition, i64> {
        let end = |&at: &TopicPartition| {
            let (topic, partition) = self.name(at);
            Some((at, self.native().known_end(topic, partition)?))
        };
        places.iter().filter_map(end).collect()
    }

    fn first_offset(&self, at: TopicPartition) -> Result<i64, String> {
        let (topic, partition) = self.name(at);
        self.native()
            .watermarks(topic, partition)
            .map(|(low, _)| low)
            .map_err(|code| code.to_string())
    }

    fn commit_of(
        &self,
        offsets: &[(TopicPartition, i64)],
        metadata: &str,
    ) -> Result<Commit, String> {
        let group = self.native().group_metadata();
        Ok(Commit {
            offsets: self.offsets(offsets, metadata),
            group: group.ok_or("the group does not count this worker in")?,
        })
    }

    fn commit(&self, offsets: &[(TopicPartition, i64)], metadata: &str) -> Result<(), String> {
        let offsets = self.offsets(offsets, metadata);
        self.native()
            .commit(&offsets)
            .map_err(|code| code.to_string())
    }

    fn leave(&mut self) -> Result<(), String> {
        let native = self.native.get_mut();
        native.unsubscribe().map_err(|code| code.to_string())?;
        let until = Instant::now() + LEAVING_MAX;
        // Who has no name in the group any more has asked to leave; the client is not closed before the answer is there.
        while native.group_metadata().is_some() {
            if Instant::now() > until {
                return Err(format!("nothing came of it within {LEAVING_MAX:?}"));
            }
            native.poll(LEAVING_LOOK, |_| ());
            if !native.take_noted().is_empty() {
                native.unassign().map_err(|code| code.to_string())?;
            }
        }
        Ok(())
    }
}

fn subscribed(clients: &Clients, worker: u32, topics: &[String]) -> Result<NativeConsumer, String> {
    let native = NativeConsumer::new(&clients.member_config(worker))?;
    subscribe(&native, topics)?;
    Ok(native)
}

/// Apart, where there can be a thread for it: a client that waits for brokers may take long to close.
fn close(native: NativeConsumer) {
    if let Err(why) = threads::start("closing", move || drop(native)) {
        tracing::warn!(target: "millstream::kafka", "a client was closed without a thread: {why}");
    }
}

fn subscribe(native: &NativeConsumer, topics: &[String]) -> Result<(), String> {
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    native.subscribe(&names).map_err(|code| code.to_string())
}

fn number(partition: i32) -> u32 {
    u32::try_from(partition).expect("Kafka's partitions are not negative")
}

fn find(topics: &[String], name: &str) -> Option<TopicId> {
    topics.iter().position(|topic| topic == name).map(TopicId)
}
