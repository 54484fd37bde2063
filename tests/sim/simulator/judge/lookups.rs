//! What steps found in a table, held against what the table's topic has committed.
//!
//! Outputs of a partition are to come of states of the table partition of that number that never go back: within a worker the fold only
//! goes forward, and who takes the partition over runs nothing before the table is folded up to the end that it had after the stable
//! offsets were read, which is behind whatever a committed output saw. So it is judged across all owners. How much of the table the first
//! output of all had to see, nobody can tell from the logs.
//!
//! Invariant: of all the states that an output may have seen the earliest is taken, so that nothing right is convicted.

use std::collections::{BTreeMap, BTreeSet};

use millstream_broker::Broker;

use super::super::reference::{Text, origin};
use super::super::world::Violation;
use super::{Fate, Log, Written, wrong};

#[derive(Debug, Default)]
pub struct Lookups {
    /// By partition: up to which offset the table was folded at least when its last output was made.
    folded: BTreeMap<u32, i64>,
}

impl Lookups {
    /// An output of this key is committed. `tables` are the logs of the table's topic.
    pub fn judge(
        &mut self,
        broker: &Broker,
        tables: &[&Log],
        key: &Text,
        value: &str,
    ) -> Result<(), Violation> {
        let found = value.split_once('=').zip(origin(value));
        let Some(((_, found), (partition, _))) = found else {
            return Err(wrong("stale-lookup", format!("{value} says of no lookup")));
        };
        let found = (found != "none").then_some(found);
        let mut tables = tables.iter();
        let table = tables.find(|log| log.place.1 == partition);
        let changes = Changes::of(table.expect("tables have as many partitions"), broker, key);
        let folded = self.folded.entry(partition).or_insert(0);
        let later = changes.ends().filter(|end| end > folded);
        let mut ends = [*folded].into_iter().chain(later);
        let seen = ends.find(|end| changes.may_come_to(*end, found));
        let Some(seen) = seen else {
            let what = format!("{value}, of {key} in {changes:?} from {folded} on");
            return Err(wrong("stale-lookup", what));
        };
        *folded = seen;
        Ok(())
    }
}

/// The committed changes of a key, up to the first one of the table that may still be aborted.
#[derive(Debug)]
struct Changes<'a> {
    all: Vec<&'a Written>,
    /// Offsets of what compaction has left.
    there: BTreeSet<i64>,
}

impl<'a> Changes<'a> {
    fn of(table: &'a Log, broker: &Broker, key: &Text) -> Self {
        let is_decided = |record: &&Written| !matches!(record.fate, Fate::Open(_));
        let is_meant =
            |record: &&Written| record.key == *key && matches!(record.fate, Fate::Committed(_));
        let records = table.records.iter().take_while(is_decided);
        let there = broker.written((&table.place.0, table.place.1), 0);
        let there = there.into_iter().flatten();
        Self {
            all: records.filter(is_meant).collect(),
            there: there.map(|written| written.record.offset).collect(),
        }
    }

    fn ends(&self) -> impl Iterator<Item = i64> {
        self.all.iter().map(|change| change.offset + 1)
    }

    /// Whether a fold up to there may have this of the key. What compaction took away for a change from there on is in the fold or not.
    fn may_come_to(&self, end: i64, found: Option<&str>) -> bool {
        let before = self.all.partition_point(|change| change.offset < end);
        let is_superseded = before < self.all.len();
        let mut possible = BTreeSet::from([None]);
        for change in &self.all[..before] {
            if !is_superseded || self.there.contains(&change.offset) {
                possible.clear();
            }
            possible.insert(change.value.as_deref());
        }
        possible.contains(&found)
    }
}
