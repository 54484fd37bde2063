//! Which instance holds a partition, as the group says, and asking it.
//!
//! The group's answer is kept until something doesn't fit it, and asked for anew a few times a second at most, once for all that wait:
//! queries must not become a load for the brokers.
//!
//! Invariant: the group only says whom to ask. Whether a key is there says the owner, who checks that it is one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use millstream_engine::pipeline::Pipeline;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Refusal;
use super::peers::{self, Answer, Peers};
use crate::cluster::{Group, GroupMember, instance_of};

/// From one question to the group to the next.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// What may be under way to other instances; a page weighs more than an entry.
const UNDER_WAY_MAX: usize = 256;
pub const ENTRY_WEIGHT: u32 = 1;
pub const PAGE_WEIGHT: u32 = 16;

/// Asks the brokers who is in the group; blocks.
pub type AskGroup = Arc<dyn Fn() -> Result<Group, String> + Send + Sync>;

/// An instance that holds partitions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub instance: String,
    /// Where it answers queries, if it says so.
    pub address: Option<String>,
}

/// Who holds what, as of one answer of the group.
#[derive(Debug)]
pub struct Table {
    /// Counts the answers.
    number: u64,
    is_settled: bool,
    owners: BTreeMap<u32, Owner>,
}

pub struct Routing {
    /// The name of this instance.
    own: String,
    pipeline: Arc<Pipeline>,
    ask: AskGroup,
    looked: Mutex<Looked>,
    peers: Peers,
    under_way: Semaphore,
    pub meter: Meter,
}

#[derive(Debug, Default)]
struct Looked {
    table: Option<Arc<Table>>,
    number: u64,
    /// When the last look began.
    began: Option<Instant>,
    /// When the last look failed, if it did, and why.
    failed: Option<(Instant, String)>,
}

/// What became of the questions to other instances.
#[derive(Debug, Default)]
pub struct Meter {
    /// Entries, absences, pages, and what was wrong with the question.
    pub answered: AtomicU64,
    /// The owner is restoring.
    pub unready: AtomicU64,
    /// Nobody could be asked, or no answer came.
    pub failed: AtomicU64,
    /// How often the group was asked.
    pub looks: AtomicU64,
}

impl std::fmt::Debug for Routing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Routing")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

impl Table {
    fn new(number: u64, pipeline: &Pipeline, group: Group) -> Self {
        let mut owners = BTreeMap::new();
        for member in group.members {
            let Some(instance) = instance_of(&member.seat, &pipeline.name) else {
                // Somebody else in our group: what it was given is in nobody's maps.
                continue;
            };
            for number in numbers(pipeline, &member) {
                let owner = Owner {
                    instance: instance.to_owned(),
                    address: member.address.clone(),
                };
                owners.insert(number, owner);
            }
        }
        Self {
            number,
            is_settled: group.is_settled,
            owners,
        }
    }

    /// Whom to ask for a partition that `own` does not hold.
    fn owner(&self, number: u32, own: &str) -> Result<Owner, Nobody> {
        if !self.is_settled {
            return Err(Nobody::Unsettled);
        }
        match self.owners.get(&number) {
            None => Err(Nobody::Unowned),
            Some(owner) if owner.instance == own => Err(Nobody::NotTaken),
            Some(Owner { instance, address }) if address.is_none() => {
                Err(Nobody::Silent(instance.clone()))
            }
            Some(owner) => Ok(owner.clone()),
        }
    }
}

/// Why there is nobody to ask for a partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Nobody {
    Unsettled,
    Unowned,
    NotTaken,
    Silent(String),
}

impl Nobody {
    fn words(&self, numbers: &[u32]) -> String {
        let named = named(numbers);
        match self {
            Self::Unsettled => {
                format!("the group is rebalancing: who gets {named} is not settled")
            }
            Self::Unowned => format!("no instance of this pipeline holds {named} at the moment"),
            Self::NotTaken => {
                format!("this instance is given {named}, and has not taken that yet")
            }
            Self::Silent(instance) => {
                format!("instance {instance} holds {named}, and does not say where it answers")
            }
        }
    }
}

/// The partition numbers that a member has of the pipeline's sources: its maps' partitions have the same. Sources have equal partition
/// counts where there are maps, and the range assignor gives equal numbers to one member.
fn numbers<'a>(
    pipeline: &'a Pipeline,
    member: &'a GroupMember,
) -> impl Iterator<Item = u32> + use<'a> {
    let ours = |topic: &str| pipeline.topics.iter().any(|known| known.topic == topic);
    let held = member.partitions.iter();
    held.filter(move |(topic, _)| ours(topic))
        .map(|(_, number)| *number)
}

/// The partitions that another instance asks this one for; none where a client asks.
pub fn asked_for(headers: &HeaderMap) -> Result<Option<Vec<u32>>, Refusal> {
    if !headers.contains_key(peers::ROUTED) {
        return Ok(None);
    }
    let list = headers
        .get(peers::PARTITIONS)
        .and_then(|list| list.to_str().ok());
    let numbers = list.map(|list| list.split(',').map(str::parse).collect::<Result<_, _>>());
    match numbers {
        Some(Ok(numbers)) => Ok(Some(numbers)),
        _ => Err(Refusal::bad(format!(
            "a request with {} needs {}, numbers with commas between",
            peers::ROUTED,
            peers::PARTITIONS
        ))),
    }
}

impl Routing {
    pub fn new(own: &str, pipeline: &Arc<Pipeline>, ask: AskGroup) -> Self {
        Self {
            own: own.to_owned(),
            pipeline: Arc::clone(pipeline),
            ask,
            looked: Mutex::default(),
            peers: Peers::default(),
            under_way: Semaphore::new(UNDER_WAY_MAX),
            meter: Meter::default(),
        }
    }

    /// Asks the owners of partitions that this process does not hold, each once for all of its own. What an owner answers to this path
    /// and query comes with the partitions that it is for; a refusal to say anything, with all that were asked for.
    pub async fn ask(
        self: &Arc<Self>,
        target: &str,
        partitions: Vec<u32>,
        weight: u32,
    ) -> Vec<(Vec<u32>, Result<Answer, Refusal>)> {
        let Ok(_permit) = self.under_way.try_acquire_many(weight) else {
            Meter::count(&self.meter.failed);
            let refusal = unready("too many queries are under way to other instances");
            return vec![(partitions, Err(refusal))];
        };
        let mut answers = Vec::new();
        let mut left = partitions;
        let mut misfit = None;
        let mut whys = Vec::new();
        // An answer of the group that doesn't fit is asked for anew, once.
        for _ in 0..2 {
            let table = match self.table(misfit).await {
                Ok(table) => table,
                Err(why) => {
                    whys.push(why);
                    break;
                }
            };
            misfit = Some(table.number);
            whys.clear();
            let asked = self.ask_by(&table, target, std::mem::take(&mut left)).await;
            for (numbers, result) in asked {
                match result {
                    Ok(answer) => answers.push((numbers, Ok(self.metered(answer)))),
                    Err(why) => {
                        left.extend(numbers);
                        whys.push(why);
                    }
                }
            }
            if left.is_empty() {
                return answers;
            }
        }
        Meter::count(&self.meter.failed);
        answers.push((left, Err(unready(whys.join("; ")))));
        answers
    }

    /// One try by this table, all owners at once. Errors are reasons to doubt the table.
    async fn ask_by(
        self: &Arc<Self>,
        table: &Table,
        target: &str,
        partitions: Vec<u32>,
    ) -> Vec<(Vec<u32>, Result<Answer, String>)> {
        let mut owned: BTreeMap<Owner, Vec<u32>> = BTreeMap::new();
        let mut others: BTreeMap<Nobody, Vec<u32>> = BTreeMap::new();
        for number in partitions {
            match table.owner(number, &self.own) {
                Ok(owner) => owned.entry(owner).or_default().push(number),
                Err(nobody) => others.entry(nobody).or_default().push(number),
            }
        }
        let others = others.into_iter().map(|(nobody, numbers)| {
            let why = nobody.words(&numbers);
            (numbers, Err(why))
        });
        let mut results: Vec<_> = others.collect();
        let mut asked = JoinSet::new();
        for (owner, numbers) in owned {
            let (routing, target) = (Arc::clone(self), target.to_owned());
            asked.spawn(async move {
                let answer = routing.ask_owner(&owner, &target, &numbers).await;
                (numbers, answer)
            });
        }
        results.extend(asked.join_all().await);
        results
    }

    async fn ask_owner(
        &self,
        owner: &Owner,
        target: &str,
        numbers: &[u32],
    ) -> Result<Answer, String> {
        let address = owner.address.as_deref().unwrap_or_default();
        let asked = self.peers.ask(owner, address, target, numbers, &self.own);
        let name = &owner.instance;
        match asked.await {
            Ok(answer) if answer.status == StatusCode::MISDIRECTED_REQUEST => {
                Err(format!("instance {name}: {}", answer.error()))
            }
            Ok(answer) => Ok(answer),
            Err(why) => Err(format!(
                "instance {name} holds {} and can't be asked at {address}: {why}; if it is gone, others take over once its session is \
                 over",
                named(numbers)
            )),
        }
    }

    /// Who holds what. `misfit` is the number of a table that was found not to be so.
    async fn table(&self, misfit: Option<u64>) -> Result<Arc<Table>, String> {
        let came = Instant::now();
        let mut looked = self.looked.lock().await;
        if let Some(table) = &looked.table
            && misfit.is_none_or(|misfit| misfit < table.number)
        {
            return Ok(Arc::clone(table));
        }
        if let Some((at, why)) = &looked.failed
            && *at >= came
        {
            // Another request asked while this one waited.
            return Err(why.clone());
        }
        if let Some(began) = looked.began {
            tokio::time::sleep_until(began + LOOK_PAUSE).await;
        }
        looked.began = Some(Instant::now());
        Meter::count(&self.meter.looks);
        let ask = Arc::clone(&self.ask);
        let group = tokio::task::spawn_blocking(move || ask()).await;
        let group = group.map_err(|why| why.to_string()).and_then(|group| group);
        match group {
            Ok(group) => {
                looked.number += 1;
                let table = Arc::new(Table::new(looked.number, &self.pipeline, group));
                let owners = table.owners.values();
                let addresses = owners.filter_map(|owner| owner.address.as_deref());
                self.peers.forget_others(&addresses.collect::<Vec<_>>());
                looked.table = Some(Arc::clone(&table));
                Ok(table)
            }
            Err(why) => {
                let why = format!("the brokers can't be asked who holds it: {why}");
                looked.failed = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    fn metered(&self, answer: Answer) -> Answer {
        Meter::count(match answer.status {
            StatusCode::SERVICE_UNAVAILABLE => &self.meter.unready,
            _ => &self.meter.answered,
        });
        answer
    }
}

impl Meter {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn unready(why: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why)
}

/// `partition 3`, or `partitions 0, 3 and 5`: as people read it.
pub fn named(numbers: &[u32]) -> String {
    match numbers {
        [number] => format!("partition {number}"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(u32::to_string).collect();
            format!("partitions {} and {last}", first.join(", "))
        }
        [] => "no partition".into(),
    }
}

/// `0,3`: as headers have it.
pub fn listed(numbers: &[u32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    numbers.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(is_settled: bool) -> Table {
        let owner = |instance: &str, address: Option<&str>| Owner {
            instance: instance.to_owned(),
            address: address.map(str::to_owned),
        };
        let owners = [
            (0, owner("a", Some("one:1"))),
            (1, owner("b", Some("two:2"))),
            (2, owner("c", None)),
        ];
        Table {
            number: 1,
            is_settled,
            owners: owners.into(),
        }
    }

    #[test]
    fn only_somebody_else_with_an_address_is_asked() {
        let check = |is_settled, number, expected: Result<&str, &str>| {
            let found = table(is_settled).owner(number, "a");
            match (found, expected) {
                (Ok(owner), Ok(address)) => assert_eq!(owner.address.as_deref(), Some(address)),
                (Err(nobody), Err(words)) => {
                    let why = nobody.words(&[number, 7]);
                    assert!(why.contains(words), "{why}");
                }
                (found, _) => panic!("{number}: {found:?}"),
            }
        };
        check(true, 1, Ok("two:2"));
        check(
            true,
            0,
            Err("this instance is given partitions 0 and 7, and has not"),
        );
        check(true, 2, Err("does not say where it answers"));
        check(
            true,
            3,
            Err("no instance of this pipeline holds partitions 3 and 7 at"),
        );
        check(false, 1, Err("the group is rebalancing"));
    }

    #[test]
    fn another_instance_says_which_partitions_it_means() {
        let check = |headers: &[(&'static str, &str)], expected: Option<Option<&[u32]>>| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().expect("a header's value"));
            }
            let found = asked_for(&map).ok();
            let expected = expected.map(|numbers| numbers.map(<[u32]>::to_vec));
            assert_eq!(found, expected, "{headers:?}");
        };
        let routed = (peers::ROUTED, "a");
        check(&[], Some(None));
        check(&[(peers::PARTITIONS, "1")], Some(None));
        check(&[routed, (peers::PARTITIONS, "1")], Some(Some(&[1])));
        check(&[routed, (peers::PARTITIONS, "0,12")], Some(Some(&[0, 12])));
        check(&[routed], None);
        check(&[routed, (peers::PARTITIONS, "")], None);
        check(&[routed, (peers::PARTITIONS, "1,x")], None);
    }
}
