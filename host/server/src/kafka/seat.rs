//! Whose a worker's seat is by what the group says: each member's `client.id` tells where its process answers.

use super::client::Clients;
use crate::cluster::{Cluster as _, Group};
use crate::scope;

/// Whether the seat's last life is in the group still, and told it another address than this one has.
pub fn is_outdated(clients: &Clients, worker: u32) -> bool {
    let Some(address) = &clients.address else {
        return false;
    };
    let group = clients.group().unwrap_or_else(|why| {
        tracing::warn!(target: "millstream::kafka", "the group's members can't be listed: {why}");
        Group::default()
    });
    is_elsewhere(&group, &clients.seat(worker), address) == Some(true)
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
    use crate::cluster::GroupMember;

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
}
