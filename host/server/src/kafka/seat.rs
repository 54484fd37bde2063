//! Whose a worker's seat is by what the group says: each member's `client.id` tells where its process answers.

use std::collections::BTreeSet;

use super::client::Clients;
use crate::cluster::{Cluster as _, Group, GroupMember};
use crate::scope;

/// Whether the seat's last life is in the group still, and told it another address than this one has, or wanted other topics: a static member
/// that comes back for others is told what it had (KAFKA-12759).
pub fn is_outdated(clients: &Clients, worker: u32, topics: &[String]) -> bool {
    let Some(address) = &clients.address else {
        return false;
    };
    let group = clients.group().unwrap_or_else(|why| {
        tracing::warn!(target: "millstream::kafka", "the group's members can't be listed: {why}");
        Group::default()
    });
    let seat = clients.seat(worker);
    match is_elsewhere(&group, &seat, address) {
        Some(is_elsewhere) => is_elsewhere || wanted_others(&group, &seat, topics),
        None => false,
    }
}

/// Whether the group was settled when the seat, or everybody, wanted other topics: one is the seat's that isn't among these, or one of these
/// is nobody's.
fn wanted_others(group: &Group, seat: &str, topics: &[String]) -> bool {
    let held = |of: &GroupMember| {
        of.partitions
            .iter()
            .map(|(topic, _)| topic.clone())
            .collect()
    };
    let members = group.members.iter();
    let seats: Vec<(&str, BTreeSet<String>)> =
        members.map(|of| (of.seat.as_str(), held(of))).collect();
    let is_among = |topic: &String| topics.contains(topic);
    let mut own = seats.iter().filter(|(of, _)| *of == seat);
    let is_anybodys = |topic: &String| seats.iter().any(|(_, held)| held.contains(topic));
    let has_another = own.any(|(_, held)| !held.iter().all(is_among));
    group.is_settled && (has_another || !topics.iter().all(is_anybodys))
}

/// Whether the group knows the seat under the address that is this process's alone: nobody else has joined in it.
pub fn is_ours(clients: &Clients, worker: u32) -> bool {
    let (group, seat) = (clients.group(), clients.seat(worker));
    let address = clients.address.as_deref();
    let place = address.zip(group.ok());
    place.is_some_and(|(address, group)| is_elsewhere(&group, &seat, address) == Some(false))
}

/// Whether who has the seat answers elsewhere; none where nobody has it.
fn is_elsewhere(group: &Group, seat: &str, address: &str) -> Option<bool> {
    let mut members = group.members.iter().filter(|member| member.seat == seat);
    let is_here = |scope: Option<&str>| !scope::is_loopback(address) || scope == scope::own();
    let member = members.next()?;
    let is_known = member.address.as_deref() == Some(address);
    Some(!is_known || !is_here(member.scope.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_ones_own_at_ones_own_address() {
        let check = |seat: &str, address: Option<&str>, scope, expected| {
            let id = GroupMember::client_id(seat, address, scope);
            let group = Group {
                members: vec![GroupMember::of(&id, Vec::new())],
                ..Group::default()
            };
            assert_eq!(is_elsewhere(&group, "p.a.0", "127.0.0.1:80"), expected);
        };
        let (here, own) = (Some("127.0.0.1:80"), scope::own());
        check("p.a.0", here, own, Some(false));
        check("p.a.1", here, own, None);
        check("p.a.0", Some("127.0.0.1:81"), own, Some(true));
        check("p.a.0", here, Some("another"), Some(true));
        check("p.a.0", None, own, Some(true));
    }

    #[test]
    fn a_seat_that_wanted_other_topics_is_not_taken_as_it_was() {
        let check = |held: [&[&str]; 2], topics: &[&str], expected: bool| {
            let member = |(seat, held): (&str, &[&str])| {
                let held = held.iter().map(|topic| ((*topic).to_owned(), 0));
                GroupMember::of(seat, held.collect())
            };
            let mut group = Group {
                is_settled: true,
                members: ["p.a.0", "p.a.1"]
                    .into_iter()
                    .zip(held)
                    .map(member)
                    .collect(),
            };
            let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
            assert_eq!(wanted_others(&group, "p.a.0", &topics), expected);
            // Who holds what is being settled, for this member too.
            group.is_settled = false;
            assert!(!wanted_others(&group, "p.a.0", &topics));
        };
        check([&["t"], &["t", "u"]], &["t", "u"], false);
        check([&["t"], &["t"]], &["t", "u"], true);
        check([&["t", "u"], &["t"]], &["t"], true);
        check([&["t"], &["t", "u"]], &["t"], false);
        check([&[], &["t"]], &["t"], false);
    }
}
