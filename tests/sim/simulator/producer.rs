//! A transactional producer as librdkafka makes one: records go out in order, partition by partition, with sequence numbers; what is not
//! answered in time is sent again; a commit whose end was sent again is reported as a plain success. How often it was sent is counted
//! beside it, as the server's interceptor does.
//!
//! What mirrors the server is named after it: `host/server/src/kafka/producer.rs` and `verdict.rs`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use millstream_broker::{
    Answer, Broker, Error, Membership, Outcome, PartitionOffset, Producer as Identity, Records,
    Standing,
};
use millstream_engine::commit::verdict::{Sends, Verdict};

use super::course::Course;
use super::member::Commit;
use super::pipeline::NAME;
use super::world::{Request, Unanswered, Violation, World};

/// The broker aborts what is open for longer.
pub const TRANSACTION_TIMEOUT: i64 = 800;

/// How long a commit is tried.
const COMMIT_MAX: i64 = 400;

/// How long records may take to be delivered.
const DELIVERY_MAX: i64 = 500;

const RETRY: i64 = 5;

/// Records of a batch.
const BATCH_RECORDS: usize = 8;

pub type Place = (Rc<str>, u32);

#[derive(Debug)]
pub struct Producer {
    world: Rc<World>,
    life: usize,
    pub seat: Rc<str>,
    identity: Option<Identity>,
    waiting: BTreeMap<Place, Records>,
    sequences: BTreeMap<Place, i32>,
    failed: Option<String>,
    ends_sent: u32,
    /// A late copy of the request that adds offsets puts them into the next transaction of the same epoch.
    offsets_sent: u32,
    /// Counts transactions; shared with requests on their way, to tell late ones.
    transaction: Rc<Cell<u64>>,
}

impl Producer {
    pub fn new(world: &Rc<World>, life: usize, seat: &str) -> Self {
        Self {
            world: Rc::clone(world),
            life,
            seat: seat.into(),
            identity: None,
            waiting: BTreeMap::new(),
            sequences: BTreeMap::new(),
            failed: None,
            ends_sent: 0,
            offsets_sent: 0,
            transaction: Rc::default(),
        }
    }

    /// One try to take the transactional.id. `None` says to try again.
    pub async fn init(&mut self) -> Option<()> {
        let seat = Rc::clone(&self.seat);
        let init =
            move |broker: &mut Broker, _| broker.init_producer_id(Some(&seat), TRANSACTION_TIMEOUT);
        match self.ask(Request::Coordinator, init).await {
            Ok(Ok(identity)) => {
                let (seat, epoch) = (&self.seat, identity.epoch);
                self.world
                    .note(|| format!("{seat}: producer {} epoch {epoch}", identity.id));
                self.identity = Some(identity);
                Some(())
            }
            Ok(Err(_)) | Err(_) => {
                self.world.sleep(RETRY).await;
                None
            }
        }
    }

    pub fn begin(&mut self) {
        self.ends_sent = 0;
        self.offsets_sent = 0;
        self.transaction.set(self.transaction.get() + 1);
    }

    pub fn send<'h>(
        &mut self,
        at: Place,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h [u8], Option<&'h [u8]>)>,
    ) -> Result<(), String> {
        if self.world.weather.borrow().do_sends_fail() && self.world.chance(30) {
            self.world.count(Course::SendFailed);
            return Err("the queue is full".into());
        }
        let waiting = self.waiting.entry(at).or_default();
        waiting.push(timestamp, key, value, headers);
        Ok(())
    }

    /// What goes on behind: now and then a batch leaves before anybody flushes.
    pub async fn poll(&mut self) -> Result<(), String> {
        if !self.waiting.is_empty() && self.world.chance(30) {
            let which = self.world.below(self.waiting.len());
            let at = self.waiting.keys().nth(which).cloned();
            self.deliver(at.expect("it is below their number"), &|| false)
                .await;
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    pub async fn flush(&mut self, is_lost: &dyn Fn() -> bool) -> Result<(), String> {
        while let Some(at) = self.waiting.keys().next().cloned() {
            self.deliver(at, is_lost).await;
            if let Some(why) = &self.failed {
                return Err(why.clone());
            }
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Sends what waits for a partition until it is there, or can't be.
    async fn deliver(&mut self, at: Place, is_lost: &dyn Fn() -> bool) {
        let all = self.waiting.remove(&at).unwrap_or_default();
        let give_up = self.world.now() + DELIVERY_MAX;
        for batch in batches(&all) {
            loop {
                match self.produce(&at, batch.clone()).await {
                    Ok(Ok(_)) => break,
                    Ok(Err(Error::ConcurrentTransactions)) | Err(_)
                        if self.world.now() < give_up && !is_lost() =>
                    {
                        self.world.sleep(RETRY).await;
                    }
                    Ok(Err(error)) => {
                        self.note_error(error);
                        return self.fail(error.to_string());
                    }
                    Err(_) => return self.fail("the records could not be delivered".into()),
                }
            }
            let count = i32::try_from(batch.len()).expect("a batch is small");
            *self.sequences.entry(at.clone()).or_default() += count;
        }
    }

    fn fail(&mut self, why: String) {
        self.failed.get_or_insert(why);
    }

    async fn produce(&mut self, at: &Place, records: Records) -> Result<Answer<i64>, Unanswered> {
        let sequence = self.sequences.get(at).copied().unwrap_or(0);
        let (identity, at) = (self.identity.clone(), at.clone());
        let produce = move |broker: &mut Broker, now| {
            broker.produce(now, identity.as_ref(), (&at.0, at.1), sequence, records)
        };
        self.ask(Request::Produce, produce).await
    }

    /// Commits the open transaction with these offsets: the server's `commit`, with what `judge` makes of errors.
    pub async fn commit(&mut self, commit: &Commit, look: &dyn Fn() -> bool) -> Verdict {
        let give_up = self.world.now() + COMMIT_MAX;
        loop {
            self.offsets_sent += 1;
            match self.add_offsets(commit).await {
                Ok(Ok(())) => break,
                Ok(Err(Error::ConcurrentTransactions)) | Err(_) => {
                    if self.world.now() > give_up || look() {
                        return Verdict::Aborted("the offsets could not be added in time".into());
                    }
                    self.world.sleep(RETRY).await;
                }
                Ok(Err(error)) => {
                    self.note_error(error);
                    return Verdict::Aborted(error.to_string());
                }
            }
        }
        loop {
            self.ends_sent += 1;
            match self.end().await {
                Ok(Ok(())) if self.ends_sent.max(self.offsets_sent) > 1 => {
                    return Verdict::Committed(Sends::Several);
                }
                Ok(Ok(())) => return Verdict::Committed(Sends::Once),
                Ok(Err(Error::ConcurrentTransactions)) | Err(_) => {
                    look();
                    if self.world.now() > give_up {
                        return Verdict::InDoubt("it could not be ended in time".into());
                    }
                    self.world.sleep(RETRY).await;
                }
                Ok(Err(error)) => {
                    self.note_error(error);
                    return Verdict::InDoubt(error.to_string());
                }
            }
        }
    }

    async fn add_offsets(&mut self, commit: &Commit) -> Result<Answer<()>, Unanswered> {
        let identity = self.identity.clone().ok_or(Unanswered::NotNow)?;
        let commit = commit.clone();
        let add = move |broker: &mut Broker, now| {
            let offsets = commit
                .offsets
                .iter()
                .map(|(topic, partition, offset)| PartitionOffset {
                    topic,
                    partition: *partition,
                    offset: *offset,
                    metadata: &commit.metadata,
                });
            let offsets: Vec<_> = offsets.collect();
            let member = Membership {
                member_id: &commit.member_id,
                instance_id: Some(&commit.instance_id),
                generation: commit.generation,
            };
            broker.commit_offsets_in_transaction(now, &identity, NAME, &member, &offsets)
        };
        self.ask(Request::Coordinator, add).await
    }

    async fn end(&mut self) -> Result<Answer<()>, Unanswered> {
        let identity = self.identity.clone().ok_or(Unanswered::NotNow)?;
        let (world, seat) = (Rc::clone(&self.world), Rc::clone(&self.seat));
        let (meant, running) = (self.transaction.get(), Rc::clone(&self.transaction));
        let end = move |broker: &mut Broker, _| {
            let open = |broker: &Broker| {
                let mut all = broker.transactions();
                all.any(|(id, view)| *id == *seat && view.standing == Standing::Ongoing)
            };
            let was_open = open(broker);
            let ended = broker.end_transaction(&identity, Outcome::Commit);
            let twice = world.weather.borrow().ends_twice();
            if twice > 0 && world.chance(twice) {
                world.count(Course::EndTwice);
                // The answer to this one is to nobody's question.
                let again = broker.end_transaction(&identity, Outcome::Commit);
                world.note(|| format!("{seat}: end arrived again: {again:?}"));
            }
            let is_gone = match &ended {
                Ok(()) | Err(Error::ConcurrentTransactions) => meant != running.get(),
                Err(_) => true,
            };
            if meant != running.get() && was_open && ended.is_ok() {
                world.violate(Violation {
                    name: "stale-end",
                    what: format!(
                        "a late end of {seat}'s transaction {meant} ended {}",
                        running.get()
                    ),
                });
            } else if is_gone {
                world.count(Course::StaleEnd);
            }
            world.note(|| format!("{seat}: end arrived: {ended:?}"));
            ended
        };
        self.ask(Request::End, end).await
    }

    async fn ask<T: 'static>(
        &self,
        request: Request,
        act: impl FnOnce(&mut Broker, i64) -> Answer<T> + 'static,
    ) -> Result<Answer<T>, Unanswered> {
        let answer = self.world.ask(self.life, request, act).await;
        if let Ok(Err(Error::ConcurrentTransactions)) = answer {
            self.world.count(Course::Concurrent);
        }
        answer
    }

    fn note_error(&self, error: Error) {
        match error {
            Error::IllegalGeneration | Error::UnknownMemberId => {
                self.world.count(Course::ZombieRefused);
            }
            Error::InvalidProducerEpoch | Error::InvalidProducerIdMapping => {
                self.world.count(Course::ProducerFenced);
            }
            _ => {}
        }
    }
}

/// The records in batches as they are sent.
fn batches(all: &Records) -> Vec<Records> {
    let mut batches = Vec::new();
    for (index, record) in all.iter().enumerate() {
        if index % BATCH_RECORDS == 0 {
            batches.push(Records::default());
        }
        let batch = batches.last_mut().expect("one was pushed");
        batch.push(record.timestamp, record.key, record.value, record.headers);
    }
    batches
}
