//! What can be asked of a Kafka, the model or a real one: one method a request, in the shapes of `millstream-broker`.

use millstream_broker::{
    Answer, Assignment, Isolation, Join, Marker, Membership, Outcome, PartitionOffset, Place,
    Producer, Records, Settings, Spec,
};

/// A record as a consumer saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// What waits at the end of a join.
pub type Joined = (String, Assignment);

pub trait Subject {
    fn create_topic(&mut self, name: &str, partitions: u32, settings: &Settings) -> Answer<()>;
    fn delete_topic(&mut self, name: &str) -> Answer<()>;
    fn partitions(&mut self, name: &str) -> Answer<u32>;
    fn delete_records(&mut self, at: Place<'_>, before: i64) -> Answer<()>;
    /// Returns once what is stable is compacted, but for the last record.
    fn compact(&mut self, at: Place<'_>) -> Answer<()>;

    fn init_producer_id(&mut self, id: Option<&str>, timeout_ms: i64) -> Answer<Producer>;
    fn produce(
        &mut self,
        producer: Option<&Producer>,
        at: Place<'_>,
        sequence: i32,
        records: Records,
    ) -> Answer<i64>;
    /// Answers once the markers are written, but those that are held back.
    fn end_transaction(&mut self, producer: &Producer, outcome: Outcome) -> Answer<()>;

    /// What can be read from `from` on, and the position after that.
    fn fetch(&mut self, at: Place<'_>, from: i64, isolation: Isolation)
    -> Answer<(Vec<Seen>, i64)>;
    fn list_offset(&mut self, at: Place<'_>, spec: Spec) -> Answer<i64>;

    /// In the producer's transaction, if there is a producer.
    fn commit_offsets(
        &mut self,
        producer: Option<&Producer>,
        group: &str,
        member: &Membership<'_>,
        offsets: &[PartitionOffset<'_>],
    ) -> Answer<()>;
    fn fetch_offset(
        &mut self,
        group: &str,
        at: Place<'_>,
        require_stable: bool,
    ) -> Answer<Option<(i64, String)>>;

    /// Asks to join, and doesn't wait for the answer. Each member has a name of its own.
    fn join_group(&mut self, name: &str, group: &str, join: &Join<'_>);
    /// The answers to the last joins of those members: who they are and what they have. All who have to join must have asked.
    fn joined(&mut self, names: &[&str]) -> Vec<Answer<Joined>>;
    fn heartbeat(&mut self, group: &str, member: &Membership<'_>) -> Answer<()>;
    fn leave_group(&mut self, group: &str, member: &Membership<'_>) -> Answer<()>;

    /// Has markers wait there.
    fn hold_marker(&mut self, at: &Marker);
    /// Returns once they are written.
    fn release_marker(&mut self, at: &Marker);

    fn wait(&mut self, ms: u32);
    fn restart(&mut self);
}
