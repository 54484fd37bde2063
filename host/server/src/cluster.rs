//! What Millstream needs of Kafka, as traits. librdkafka's clients have them (`kafka`) and so has the broker in memory (`embedded`):
//! everything above runs on either without knowing which.
//!
//! Invariant of both: what is read is committed; a time-out is never taken for an answer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use millstream_engine::commit::verdict::Verdict;
use millstream_engine::pipeline::{Guarantee, Start};
use millstream_engine::record::Record;
use millstream_engine::task::TopicPartition;

/// A Kafka, as one pipeline's instance sees it: makes its clients.
pub trait Cluster: Clone + Debug + Send + Sync + 'static {
    type Admin: Admin;
    type Member: Member<Commit = Self::Commit> + Debug;
    type Producer: Producer<Commit = Self::Commit> + Debug + Send + 'static;
    type Reader: Reader + Debug + Send + 'static;
    /// Offsets with all that it takes to commit them.
    type Commit;

    fn guarantee(&self) -> Guarantee;

    fn pipeline(&self) -> &str;

    /// The name of this process among those of the pipeline.
    fn instance(&self) -> &str;

    /// The name of a worker's seat: its `transactional.id` and `group.instance.id`.
    fn seat_of(&self, instance: &str, worker: u32) -> String {
        format!("{}.{instance}.{worker}", self.pipeline())
    }

    fn seat(&self, worker: u32) -> String {
        self.seat_of(self.instance(), worker)
    }

    /// The same, with members that say to the group that this process answers queries at this address, `host:port`.
    #[must_use]
    fn answering_at(&self, address: &str) -> Self;

    /// Who is in the group right now, and holds what. Asks the brokers, and waits for them.
    fn group(&self) -> Result<Group, String>;

    /// How long the group keeps the seat of somebody who is silent.
    fn session(&self) -> Duration;

    /// How long offsets may be pending at most: until a transaction that nobody ends has timed out, and the brokers have seen it.
    fn pending_max(&self) -> Duration;

    /// What stands beside the last committed offsets of these partitions, whatever is pending there: who committed last, and nothing to go
    /// on from.
    fn last_metadata(&self, places: &[(&str, u32)]) -> Result<Vec<String>, String>;

    /// Seats of other instances that are in the group right now.
    fn others(&self) -> Result<BTreeSet<String>, String> {
        // Whoever else reads in the group under a name of its own has no seat.
        let others = self.group()?.members.into_iter().filter(|member| {
            let instance = instance_of(&member.seat, self.pipeline());
            instance.is_some_and(|instance| instance != self.instance())
        });
        Ok(others.map(|member| member.seat).collect())
    }

    fn admin(&self) -> Result<Self::Admin, AdminError>;

    /// Joins the group in the seat of a worker. The index of a topic is its `TopicId`.
    fn join(&self, worker: u32, topics: &[String]) -> Result<Self::Member, String>;

    /// In a seat, for these topics, whose smallest and largest `max.message.bytes` are given. To be initialised before it is used.
    fn producer(
        &self,
        seat: &str,
        topics: &[String],
        record_bytes: (usize, usize),
    ) -> Result<Self::Producer, String>;

    fn reader(&self) -> Result<Self::Reader, String>;
}

/// The consumer group as the brokers see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Every member knows what it has been given. Otherwise who holds what is being settled, and nothing is said of it.
    pub is_settled: bool,
    pub members: Vec<GroupMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    pub seat: String,
    /// Where its process answers queries, if it says so.
    pub address: Option<String>,
    /// Where an address of loopback is its: see `scope`.
    pub scope: Option<String>,
    /// Topics and partitions.
    pub partitions: Vec<(String, u32)>,
}

impl GroupMember {
    /// What a member is called in the group: its seat, and each behind a sign that no seat has, where it answers queries, and its scope.
    pub fn client_id(seat: &str, address: Option<&str>, scope: Option<&str>) -> String {
        let parts = [Some(seat), address, scope.filter(|_| address.is_some())];
        let parts: Vec<&str> = parts.into_iter().flatten().collect();
        parts.join("@")
    }

    pub fn of(client_id: &str, partitions: Vec<(String, u32)>) -> Self {
        let mut parts = client_id.splitn(3, '@').map(str::to_owned);
        Self {
            seat: parts.next().unwrap_or_default(),
            address: parts.next(),
            scope: parts.next(),
            partitions,
        }
    }
}

/// The instance that a seat of this pipeline belongs to; none where it is no seat of it.
pub fn instance_of<'a>(seat: &'a str, pipeline: &str) -> Option<&'a str> {
    let (instance, worker) = seat
        .strip_prefix(pipeline)?
        .strip_prefix('.')?
        .rsplit_once('.')?;
    worker.parse::<u32>().is_ok().then_some(instance)
}

/// A worker's seat in the consumer group: records in, positions and offsets out, and what the group wants.
///
/// A rebalance is answered with `assign` or `unassign`; until then the partitions are still the worker's, unless they are lost.
pub trait Member {
    type Record<'a>: Consumable;
    type Commit;

    /// Hands out what is there, about `most` records at most, waiting for the first one at most `timeout`. Returns how many came.
    fn poll(
        &mut self,
        timeout: Duration,
        most: usize,
        each: impl FnMut(TopicPartition, Consumed<'_, Self::Record<'_>>),
    ) -> Result<usize, ConsumeError>;

    /// What the group wanted since the last call, in order.
    fn rebalances(&mut self) -> Vec<Rebalance>;

    /// Answers an assignment: reads these partitions from these offsets on, whether or not they were paused in an earlier one.
    fn assign(&mut self, offsets: &[(TopicPartition, i64)]) -> Result<(), String>;

    /// Answers a revocation: gives all partitions up.
    fn unassign(&mut self) -> Result<(), String>;

    /// Whether what was assigned is others' by now, or this client can't be used any more.
    fn is_lost(&self) -> bool;

    /// Why the seat is another process's, if that is known.
    fn fenced(&self) -> Option<String>;

    /// To be called twice a second by whoever can't poll. Where the session timed out meanwhile, everything is given up at once.
    /// Returns whether that was so; nothing may be committed then.
    fn look_after_seat(&self) -> bool;

    /// Has the client look now whether its session is over: after a standstill of the process it may not have noticed.
    fn look_at_session(&self);

    /// Goes back to these offsets. What was fetched before does not come any more; what was paused is read again.
    fn seek(&self, offsets: &[(TopicPartition, i64)]) -> Result<(), String>;

    fn pause(&mut self, places: &[TopicPartition]) -> Result<(), String>;

    /// The stable committed offsets. Fails, to be asked again, while a transaction has offsets pending.
    fn committed(&self, places: &[TopicPartition]) -> Result<Vec<Committed>, String>;

    /// Offsets of the next records to be handed out, past transaction markers too; partitions of which nothing was handed out are
    /// left out.
    fn positions(&self, places: &[TopicPartition]) -> BTreeMap<TopicPartition, i64>;

    /// The ends of these partitions, as far as they are known without asking for them.
    fn ends(&self, places: &[TopicPartition]) -> BTreeMap<TopicPartition, i64>;

    /// The first offset that a partition still has.
    fn first_offset(&self, at: TopicPartition) -> Result<i64, String>;

    /// What a producer needs to commit these offsets for this member, as it stands in the group right now; fails where the group
    /// does not count it in.
    fn commit_of(
        &self,
        offsets: &[(TopicPartition, i64)],
        metadata: &str,
    ) -> Result<Self::Commit, String>;

    /// Commits outside of any transaction.
    fn commit(&self, offsets: &[(TopicPartition, i64)], metadata: &str) -> Result<(), String>;

    /// Gives the seat back: others get the partitions at once, not after the session time-out. To be called last, with nothing open.
    fn leave(&mut self) -> Result<(), String>;
}

/// A record that was consumed, lent during a poll.
pub trait Consumable {
    fn offset(&self) -> i64;
    /// Milliseconds since 1970-01-01 UTC; -1 for none.
    fn timestamp(&self) -> i64;
    fn key(&self) -> Option<&[u8]>;
    fn value(&self) -> Option<&[u8]>;
    /// Name and value of each header.
    fn headers(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)>;
}

/// What a poll of the group hands out.
#[derive(Clone, Debug)]
pub enum Consumed<'a, R> {
    Record(R),
    /// Something went wrong there and will be tried again. Until the next record the position says nothing.
    Unsettled,
    /// The records at the position can't be had: retention took them, the topic was made anew, or they are damaged.
    Unreadable(Cow<'a, str>),
}

/// What the group wants of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    Assigned(Vec<TopicPartition>),
    /// All partitions are asked back; they are ours until `unassign`.
    Revoked,
    /// All partitions are somebody else's already.
    Lost,
}

/// Why consuming can't go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    #[error("another process took the seat: {0}")]
    Fenced(String),
    #[error("{0}")]
    Fatal(String),
}

/// A stable committed offset, with its metadata; none where there is none.
pub type Committed = (TopicPartition, Option<i64>, String);

/// A worker's producer: transactional, unless the guarantee is at-least-once.
///
/// A producer that was in any abort, in a commit that failed, or in one whose end was sent more than once is never used again: it is
/// dropped, and another one made.
pub trait Producer {
    type Commit;

    /// Takes the transactional.id, and ends what whoever had it before left open. To be called again after [`InitError::Again`].
    fn init(&self, timeout: Duration) -> Result<(), InitError>;

    fn begin(&self) -> Result<(), String>;

    /// Queues a copy of a record for a topic, by index; the partition is the key's where none is given.
    ///
    /// # Errors
    ///
    /// Why it, or one queued before, can't be delivered.
    fn send(
        &mut self,
        topic: usize,
        partition: Option<u32>,
        record: &Record<'_>,
    ) -> Result<(), String>;

    /// Serves what goes on behind.
    ///
    /// # Errors
    ///
    /// The first delivery that failed.
    fn poll(&self) -> Result<(), String>;

    /// Waits until all that was sent has been delivered. `look` is called every now and then, and says when to give up.
    fn flush(&mut self, look: &dyn Fn() -> bool) -> Result<(), String>;

    /// Commits the open transaction with these offsets. `look` is called every now and then, and says when to give up before the
    /// end was asked for.
    fn commit(&mut self, commit: &Self::Commit, look: &dyn Fn() -> bool) -> Verdict;

    /// Why Kafka will never take what this producer writes, if it said so. To be asked after a send or a flush in an open
    /// transaction has failed, and only then.
    fn refusal(&self) -> Option<String>;

    /// Ends what is open, and says whether this producer would take another transaction: what must never be asked of one that the engine
    /// wants replaced, but by a test that shows why.
    #[cfg(feature = "faults")]
    fn keep(&mut self) -> bool {
        false
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitError {
    /// The same call, made again, goes on where this one stopped.
    #[error("{0}")]
    Again(String),
    /// The same, since what whoever had the seat before left open is still being ended.
    #[error("{0}")]
    Ending(String),
    /// Another producer may succeed.
    #[error("{0}")]
    Failed(String),
    /// Trying again would not help.
    #[error("{0}")]
    Refused(String),
}

/// Reads partitions outside of any group: committed records, in order, from offsets that it is told.
pub trait Reader {
    /// Reads these topics' partitions from these offsets on, and nothing else.
    fn assign(&mut self, places: &[(&str, u32, i64)]) -> Result<(), String>;

    /// First offset, and the high watermark, which open transactions don't hold back.
    fn bounds(&self, topic: &str, partition: u32) -> Result<(i64, i64), String>;

    /// The last stable offset: what is committed before it can be read, and no cleaner has been past it.
    fn stable_end(&self, topic: &str, partition: u32) -> Result<i64, String>;

    /// What tells a topic from others that had its name before; none where it has no such thing.
    fn topic_id(&self, topic: &str) -> Result<Option<u128>, String>;

    /// Hands out what is there.
    fn poll(&mut self, each: impl FnMut(ReadPlace<'_>, Read<'_>));
}

/// Topic and partition.
pub type ReadPlace<'a> = (&'a str, u32);

/// What a reader hands out.
#[derive(Clone, Copy, Debug)]
pub enum Read<'a> {
    Record {
        offset: i64,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
    },
    /// Everything before this offset has been read, and it is the end for now.
    End(i64),
    /// What comes next can't be had.
    Unreadable,
}

/// What is asked of the cluster before any record flows.
pub trait Admin: Debug {
    /// Waits until the cluster answers, saying so; for at most `patience`, if there is one.
    fn connect(
        &self,
        patience: Option<Duration>,
        stopping: impl Fn() -> bool,
    ) -> Result<(), AdminError>;

    /// Those of the topics that exist.
    fn topics<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<BTreeMap<String, TopicFacts>, AdminError>;

    /// What tells this cluster from others; none where nothing of it outlives the process.
    fn cluster_id(&self) -> Option<String>;

    /// See [`Reader::topic_id`].
    fn topic_id(&self, name: &str) -> Result<Option<u128>, String>;

    /// Makes a topic of the pipeline's own. One that exists already, made by another instance a moment ago, is fine. What it is like
    /// is said here: of several brokers, another may not know it yet.
    fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        upkeep: Upkeep,
    ) -> Result<TopicFacts, AdminError>;

    /// Deletes the records before these offsets.
    fn delete_records(&self, before: &[(&str, u32, i64)]) -> Result<(), AdminError>;

    /// Commits where sources begin whose topics the group has never committed an offset of: all partitions of all such topics at
    /// once. Partitions that are added later have no committed offset then, and begin at their beginning.
    ///
    /// A group without any committed offset is refused where one of the `changelogs`, those of state, has records.
    ///
    /// Returns the offsets that were committed before.
    ///
    /// # Errors
    ///
    /// [`AdminError::Unanswered`] also while a transaction has offsets pending.
    fn resolve_starts(
        &self,
        places: &[StartPlace<'_>],
        changelogs: &[(String, u32)],
    ) -> Result<Vec<CommittedAt>, AdminError>;
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedAt {
    pub topic: String,
    pub partition: u32,
    pub offset: i64,
    pub metadata: String,
}

/// What keeps a topic of the pipeline's own from growing for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// The last record of each key stays.
    Compacted,
    /// All stay until the pipeline has consumed them, and then deletes them.
    Purged,
}

/// A topic as the cluster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    pub partitions: u32,
    /// `max.message.bytes`.
    pub record_bytes_max: usize,
    pub cleanup_policy: String,
    /// `delete.retention.ms`: how long a compacted topic still tells of removed keys.
    pub delete_retention: Duration,
    /// Settings by which records are deleted that nobody may have read yet, as `name=value`; for topics that are not compacted.
    pub retention: Vec<String>,
}

/// What was noted of a topic that forgets removed keys sooner than this would be too old as soon as it is noted.
const RETENTION_MIN: Duration = Duration::from_secs(60);

impl TopicFacts {
    /// Whether records go whatever their keys.
    pub fn is_deleted_from(&self) -> bool {
        let mut policies = self.cleanup_policy.split(',');
        policies.any(|policy| policy.trim() == "delete")
    }

    /// Whether the last record of each key stays.
    pub fn is_compacted(&self) -> bool {
        let mut policies = self.cleanup_policy.split(',');
        policies.any(|policy| policy.trim() == "compact")
    }

    /// For how long a compacted topic tells of a removed key. None where so short that nobody who comes later can be in time.
    pub fn removals_kept(&self) -> Option<Duration> {
        let is_kept = self.is_compacted() && self.delete_retention >= RETENTION_MIN;
        is_kept.then_some(self.delete_retention)
    }
}

/// A partition of a source topic and where its source starts.
pub type StartPlace<'a> = (&'a str, u32, Start);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    #[error("{bootstrap} can't be reached: {why}")]
    Unreachable { bootstrap: String, why: String },
    #[error("{0}")]
    Refused(String),
    /// Nobody who could has answered: the same may be asked again.
    #[error("{0}")]
    Unanswered(String),
    #[error(
        "group {group} has no committed offsets of these sources, and topic {changelog} has state: were they read from their start, records \
         would count twice. The offsets were deleted, or have expired (brokers drop those of a group that has been empty for longer than their \
         offsets.retention.minutes), or the state came of other sources, under the same name. Set them with kafka-consumer-groups.sh --reset-offsets to where the pipeline had got to, or have \
         it begin anew with `millstream reset`"
    )]
    OffsetsLost { group: String, changelog: String },
    #[error("the process was asked to end")]
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_says_seat_and_address() {
        let check = |seat: &str, address: Option<&str>, scope: Option<&str>| {
            let id = GroupMember::client_id(seat, address, scope);
            let member = GroupMember::of(&id, Vec::new());
            assert_eq!(member.seat, seat);
            assert_eq!(member.address.as_deref(), address);
            assert_eq!(member.scope.as_deref(), scope);
        };
        check("users.a.0", None, None);
        check("users.a.0", Some("127.0.0.1:8080"), None);
        check("users.a.b.12", Some("[::1]:8080"), Some("6f-4026531840"));
    }

    #[test]
    fn a_seat_says_its_instance() {
        let check =
            |seat: &str, expected| assert_eq!(instance_of(seat, "users"), expected, "{seat}");
        check("users.a.0", Some("a"));
        check("users.a.b.12", Some("a.b"));
        check("users.a.x", None);
        check("users.0", None);
        check("users-too.a.0", None);
        check("rdkafka", None);
    }
}
