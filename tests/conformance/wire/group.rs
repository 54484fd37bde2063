//! Members of groups: a connection each, since a request to join is answered only when everybody has asked. Who is told to lead
//! assigns the partitions, by the range rule, written once more here so that it can differ from the model's.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use millstream_broker::{Answer, Assignment, Join};

use super::codec::{Fields, Form, Request};
use super::connection::Connection;
use super::{PATIENCE, PAUSE, check};
use crate::subject::Joined;

const MEMBER_ID_REQUIRED: i16 = 79;

/// The state of a group that waits for its members to ask for their places.
const WAITING: &str = "PreparingRebalance";

/// In which time a request is taken to have been read.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Seats(BTreeMap<String, Seat>);

#[derive(Debug)]
struct Seat {
    connection: Connection,
    group: String,
    instance_id: Option<String>,
}

/// What JoinGroup answered.
#[derive(Debug)]
struct Place {
    generation: i32,
    leader: String,
    member_id: String,
    members: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    member_id: String,
    instance_id: Option<String>,
    topics: Vec<String>,
}

impl Seats {
    /// Returns when the broker has either answered or begun to wait for others. `main` is a connection on which it answers at once.
    pub fn join(
        &mut self,
        main: &mut Connection,
        bootstrap: &str,
        (name, group): (&str, &str),
        join: &Join<'_>,
    ) {
        let connection = Connection::open(bootstrap, join.client_id);
        let mut seat = Seat {
            connection,
            group: group.into(),
            instance_id: join.instance_id.map(str::to_owned),
        };
        let mut given = None;
        if join.member_id.is_empty() && join.instance_id.is_none() {
            let answer = &mut seat.connection.call(&request(group, join, ""));
            answer.i32();
            assert_eq!(answer.i16(), MEMBER_ID_REQUIRED, "as by KIP-394");
            answer.i32();
            answer.string();
            answer.string();
            given = Some(answer.string());
        }
        let member_id = given.as_deref().unwrap_or(join.member_id);
        let waited_before = state(main, group) == WAITING;
        seat.connection.send(&request(group, join, member_id));
        let began = Instant::now();
        // A group that waited already doesn't show that it has heard of one more.
        let is_heard = |main: &mut Connection| match waited_before {
            true => began.elapsed() > HEARD_WITHIN,
            false => state(main, group) == WAITING,
        };
        while !seat.connection.is_answered() && !is_heard(main) {
            assert!(began.elapsed() < PATIENCE, "{name} doesn't join {group}");
            thread::sleep(PAUSE);
        }
        self.0.insert(name.into(), seat);
    }

    /// `partitions` tells the number of a topic's partitions.
    pub fn joined(
        &mut self,
        names: &[&str],
        mut partitions: impl FnMut(&str) -> u32,
    ) -> Vec<Answer<Joined>> {
        let places: Vec<Answer<Place>> = names
            .iter()
            .map(|name| place(&mut self.seat(name).connection.receive(Form::Plain)))
            .collect();
        for (name, place) in names.iter().zip(&places) {
            if let Ok(place) = place {
                let shares = if place.leader == place.member_id {
                    assign(&place.members, &mut partitions)
                } else {
                    BTreeMap::new()
                };
                self.seat(name).sync(place, &shares);
            }
        }
        let answers = names.iter().zip(places).map(|(name, place)| {
            let place = place?;
            let answer = &mut self.seat(name).connection.receive(Form::Plain);
            answer.i32();
            check(answer.i16())?;
            let assignment = Assignment {
                generation: place.generation,
                partitions: decode(answer.blob()),
            };
            Ok((place.member_id, assignment))
        });
        answers.collect()
    }

    fn seat(&mut self, name: &str) -> &mut Seat {
        let seat = self.0.get_mut(name);
        seat.unwrap_or_else(|| panic!("{name} has not asked to join"))
    }
}

type Shares = BTreeMap<String, Vec<(String, u32)>>;

impl Seat {
    fn sync(&mut self, place: &Place, shares: &Shares) {
        let mut request = Request::new(14, 3, Form::Plain);
        request.string(&self.group).i32(place.generation);
        request.string(&place.member_id);
        request.nullable(self.instance_id.as_deref());
        request.array(shares.len());
        for (member_id, share) in shares {
            let mut assignment = Request::new(0, 0, Form::Plain);
            assignment.i16(0).array(share.len());
            for (topic, partition) in share {
                assignment.string(topic).array(1).partition(*partition);
            }
            assignment.bytes(&[]);
            request.string(member_id).bytes(&assignment.body);
        }
        self.connection.send(&request);
    }
}

fn request(group: &str, join: &Join<'_>, member_id: &str) -> Request {
    let ms = |ms| i32::try_from(ms).expect("scripts wait for seconds, not weeks");
    let mut subscription = Request::new(0, 0, Form::Plain);
    subscription.i16(0).array(join.topics.len());
    for topic in join.topics {
        subscription.string(topic);
    }
    subscription.bytes(&[]);
    let mut request = Request::new(11, 5, Form::Plain);
    request.string(group).i32(ms(join.session_timeout_ms));
    request.i32(ms(join.rebalance_timeout_ms));
    request.string(member_id).nullable(join.instance_id);
    request.string("consumer").array(1).string("range");
    request.bytes(&subscription.body);
    request
}

fn place(answer: &mut Fields) -> Answer<Place> {
    answer.i32();
    check(answer.i16())?;
    let generation = answer.i32();
    answer.string();
    let (leader, member_id) = (answer.string(), answer.string());
    let members = (0..answer.array()).map(|_| {
        let (member_id, instance_id) = (answer.string(), answer.optional());
        let mut subscription = Fields::new(Form::Plain, answer.blob());
        subscription.i16();
        let topics = (0..subscription.array()).map(|_| subscription.string());
        Candidate {
            member_id,
            instance_id,
            topics: topics.collect(),
        }
    });
    Ok(Place {
        generation,
        leader,
        members: members.collect(),
        member_id,
    })
}

fn decode(assignment: Vec<u8>) -> Vec<(String, u32)> {
    let mut fields = Fields::new(Form::Plain, assignment);
    let mut partitions = Vec::new();
    if fields.is_empty() {
        return partitions;
    }
    fields.i16();
    for _ in 0..fields.array() {
        let topic = fields.string();
        for _ in 0..fields.array() {
            partitions.push((topic.clone(), fields.i32().cast_unsigned()));
        }
    }
    partitions.sort();
    partitions
}

/// As `RangeAssignor` documents it: `n / m` partitions each, and the first `n % m` members one more.
fn assign(members: &[Candidate], mut partitions: impl FnMut(&str) -> u32) -> Shares {
    let mut ordered: Vec<&Candidate> = members.iter().collect();
    ordered.sort_by(|a, b| match (&a.instance_id, &b.instance_id) {
        (Some(a), Some(b)) => a.cmp(b),
        (a_static, b_static) => b_static
            .is_some()
            .cmp(&a_static.is_some())
            .then_with(|| a.member_id.cmp(&b.member_id)),
    });
    let ids = ordered.iter().map(|member| member.member_id.clone());
    let mut shares: Shares = ids.map(|id| (id, Vec::new())).collect();
    let mut topics: Vec<&String> = members.iter().flat_map(|member| &member.topics).collect();
    topics.sort();
    topics.dedup();
    for topic in topics {
        let takers = || {
            ordered
                .iter()
                .filter(|member| member.topics.contains(topic))
        };
        let count = u32::try_from(takers().count()).expect("a script's groups are small");
        let (each, more) = (partitions(topic) / count, partitions(topic) % count);
        let mut next = 0;
        for (at, member) in (0..).zip(takers()) {
            let end = next + each + u32::from(at < more);
            let share = shares.entry(member.member_id.clone()).or_default();
            share.extend((next..end).map(|partition| (topic.clone(), partition)));
            next = end;
        }
    }
    shares
}

pub fn describe(group: &str) -> Request {
    let mut request = Request::new(15, 0, Form::Plain);
    request.array(1).string(group);
    request
}

/// The group's state, as DescribeGroups names it.
fn state(main: &mut Connection, group: &str) -> String {
    let answer = &mut main.call(&describe(group));
    answer.array();
    answer.i16();
    answer.string();
    answer.string()
}
