//! The model, asked by scripts. Its clock goes on only when a script waits.

use std::collections::{BTreeMap, BTreeSet};

use millstream_broker::{
    Answer, Broker, Error, Isolation, Join, Marker, Membership, Outcome, PartitionOffset, Place,
    Producer, Records, Settings, Spec,
};

use crate::subject::{Joined, Seen, Subject};

/// A script's records fit.
const FETCH_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
pub struct Imitation {
    broker: Broker,
    now: i64,
    held: BTreeSet<Marker>,
    /// By the member's name: its group, instance id, and what its join was answered.
    joins: BTreeMap<String, (String, Option<String>, Answer<String>)>,
}

impl Imitation {
    /// Writes what is not held back.
    fn write_markers(&mut self) {
        if self.held.is_empty() {
            return self.broker.write_markers();
        }
        let is_free = |marker: &Marker| !self.held.contains(marker);
        loop {
            let free = self.broker.missing_markers().position(is_free);
            let Some(which) = free else { return };
            self.broker.write_marker(which);
        }
    }
}

impl Subject for Imitation {
    fn create_topic(&mut self, name: &str, partitions: u32, settings: &Settings) -> Answer<()> {
        self.broker.create_topic(name, partitions, settings.clone())
    }

    fn delete_topic(&mut self, name: &str) -> Answer<()> {
        self.broker.delete_topic(name)
    }

    fn partitions(&mut self, name: &str) -> Answer<u32> {
        self.broker.partitions(name)
    }

    fn delete_records(&mut self, at: Place<'_>, before: i64) -> Answer<()> {
        self.broker.delete_records(at, before)
    }

    fn compact(&mut self, at: Place<'_>) -> Answer<()> {
        self.broker.compact(self.now, at)
    }

    fn init_producer_id(&mut self, id: Option<&str>, timeout_ms: i64) -> Answer<Producer> {
        let answer = self.broker.init_producer_id(id, timeout_ms);
        self.write_markers();
        // What is asked again once nothing is missing.
        match answer {
            Err(Error::ConcurrentTransactions) => self.broker.init_producer_id(id, timeout_ms),
            answer => answer,
        }
    }

    fn produce(
        &mut self,
        producer: Option<&Producer>,
        at: Place<'_>,
        sequence: i32,
        records: Records,
    ) -> Answer<i64> {
        self.broker
            .produce(self.now, producer, at, sequence, records)
    }

    fn end_transaction(&mut self, producer: &Producer, outcome: Outcome) -> Answer<()> {
        let answer = self.broker.end_transaction(producer, outcome);
        self.write_markers();
        answer
    }

    fn fetch(
        &mut self,
        at: Place<'_>,
        from: i64,
        isolation: Isolation,
    ) -> Answer<(Vec<Seen>, i64)> {
        let fetched = self.broker.fetch(at, from, isolation, FETCH_BYTES)?;
        let own = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let seen = fetched.records().map(|record| Seen {
            offset: record.offset,
            timestamp: record.timestamp,
            key: own(record.key),
            value: own(record.value),
            headers: record
                .headers
                .map(|(name, value)| (name.to_vec(), own(value)))
                .collect(),
        });
        Ok((seen.collect(), fetched.next_offset))
    }

    fn list_offset(&mut self, at: Place<'_>, spec: Spec) -> Answer<i64> {
        self.broker.list_offset(at, spec)
    }

    fn commit_offsets(
        &mut self,
        producer: Option<&Producer>,
        group: &str,
        member: &Membership<'_>,
        offsets: &[PartitionOffset<'_>],
    ) -> Answer<()> {
        match producer {
            Some(producer) => self
                .broker
                .commit_offsets_in_transaction(self.now, producer, group, member, offsets),
            None => self.broker.commit_offsets(group, member, offsets),
        }
    }

    fn fetch_offset(
        &mut self,
        group: &str,
        at: Place<'_>,
        require_stable: bool,
    ) -> Answer<Option<(i64, String)>> {
        let found = self.broker.fetch_offset(group, at, require_stable)?;
        Ok(found.map(|found| (found.offset, found.metadata.clone())))
    }

    fn join_group(&mut self, name: &str, group: &str, join: &Join<'_>) {
        let answer = self.broker.join_group(self.now, group, join);
        let instance_id = join.instance_id.map(str::to_owned);
        self.joins
            .insert(name.into(), (group.into(), instance_id, answer));
    }

    fn joined(&mut self, names: &[&str]) -> Vec<Answer<Joined>> {
        let answer = |name: &&str| {
            let (group, instance_id, member_id) = &self.joins[*name];
            let member_id = member_id.clone()?;
            let member = Membership {
                member_id: &member_id,
                instance_id: instance_id.as_deref(),
                generation: -1,
            };
            let assignment = self.broker.sync_group(group, &member)?;
            let assignment = assignment.unwrap_or_else(|| panic!("{name} still waits for others"));
            Ok((member_id, assignment))
        };
        names.iter().map(answer).collect()
    }

    fn heartbeat(&mut self, group: &str, member: &Membership<'_>) -> Answer<()> {
        self.broker.heartbeat(self.now, group, member)
    }

    fn leave_group(&mut self, group: &str, member: &Membership<'_>) -> Answer<()> {
        self.broker.leave_group(self.now, group, member)
    }

    fn hold_marker(&mut self, at: &Marker) {
        self.broker.hold_markers();
        self.held.insert(at.clone());
    }

    fn release_marker(&mut self, at: &Marker) {
        self.held.remove(at);
        self.write_markers();
    }

    fn wait(&mut self, ms: u32) {
        self.now += i64::from(ms);
        self.broker.tick(self.now);
        self.write_markers();
    }

    fn restart(&mut self) {
        self.broker.restart(self.now);
        self.write_markers();
    }
}
