//! Consumer groups by the classic protocol: members, sessions, generations, and who gets which partitions.
//!
//! ```text
//!            a member joins, leaves, or its session ends
//!   Stable ──────────────────────────────────────────────▶ Rebalancing { until }
//!     ▲                                                       │
//!     └───────────────────────────────────────────────────────┘ every member has asked to join, or the time is over:
//!                                                                the next generation
//! ```
//!
//! Invariants: a member that waits for the others is never dropped; an instance id belongs to one member at a time; the assignment
//! of a generation covers every partition of its members' topics, each once.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Answer, Error};
use crate::offsets::Offsets;
use crate::{Broker, Topics};

/// A request to join a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join<'a> {
    /// What the broker makes the member's id from, which range assignment sorts by.
    pub client_id: &'a str,
    /// Empty the first time.
    pub member_id: &'a str,
    /// `group.instance.id`: a static member's name (KIP-345).
    pub instance_id: Option<&'a str>,
    pub session_timeout_ms: i64,
    /// How long others wait for this member in a rebalance.
    pub rebalance_timeout_ms: i64,
    pub topics: &'a [&'a str],
}

/// As whom a client speaks to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership<'a> {
    pub member_id: &'a str,
    pub instance_id: Option<&'a str>,
    pub generation: i32,
}

impl Membership<'_> {
    /// Of a client that is no member.
    pub const NONE: Self = Self {
        member_id: "",
        instance_id: None,
        generation: -1,
    };
}

/// What a member has in a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub generation: i32,
    /// Topic and partition, in order.
    pub partitions: Vec<(String, u32)>,
}

#[derive(Debug, Default)]
pub(crate) struct Group {
    generation: i32,
    /// None while it is `Stable`.
    rebalancing_until: Option<i64>,
    members: BTreeMap<String, Member>,
    /// Who asked to join first. When it asks again, there is a rebalance.
    leader: Option<String>,
    /// The members of the last generation: all that the broker writes to disk.
    written: BTreeMap<String, Member>,
    pub offsets: Offsets,
}

#[derive(Clone, Debug)]
struct Member {
    instance_id: Option<String>,
    topics: BTreeSet<String>,
    session_timeout_ms: i64,
    rebalance_timeout_ms: i64,
    session_ends: i64,
    /// Has asked to join and waits for the others.
    waits: bool,
    partitions: Vec<(String, u32)>,
}

impl Group {
    pub fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Whether that is a member, and of this generation.
    pub fn check(&self, member: &Membership<'_>) -> Answer<()> {
        self.member(member.member_id, member.instance_id)?;
        let is_current = member.generation == self.generation;
        is_current.then_some(()).ok_or(Error::IllegalGeneration)
    }

    /// Kafka's `ClassicGroup.validateMember`.
    fn member(&self, member_id: &str, instance_id: Option<&str>) -> Answer<&Member> {
        if let Some(instance_id) = instance_id {
            let holder = self.holder(instance_id).ok_or(Error::UnknownMemberId)?;
            if holder != member_id {
                return Err(Error::FencedInstanceId);
            }
        }
        self.members.get(member_id).ok_or(Error::UnknownMemberId)
    }

    /// The id of the member that has this instance id.
    fn holder(&self, instance_id: &str) -> Option<&str> {
        let mut members = self.members.iter();
        let found = members.find(|(_, member)| member.instance_id.as_deref() == Some(instance_id));
        found.map(|(id, _)| id.as_str())
    }

    fn join(&mut self, id: &str, join: &Join<'_>, now: i64, topics: &Topics) {
        let holder = join.instance_id.and_then(|name| self.holder(name));
        let before = holder.unwrap_or(id).to_owned();
        let mut member = Member {
            instance_id: join.instance_id.map(str::to_owned),
            topics: join.topics.iter().map(|&topic| topic.into()).collect(),
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            session_ends: now + join.session_timeout_ms,
            waits: true,
            partitions: Vec::new(),
        };
        let leads = self.leader.as_ref() == Some(&before);
        if leads || self.leader.is_none() {
            self.leader = Some(id.into());
        }
        // A follower that wants the same as before is told what it has, and so is the new holder of an instance id, whatever it
        // wants (KAFKA-12759).
        if let Some(old) = self.members.remove(&before)
            && self.rebalancing_until.is_none()
            && (join.member_id.is_empty() || (!leads && old.topics == member.topics))
        {
            member.waits = false;
            member.partitions = old.partitions;
            self.members.insert(id.into(), member);
            self.written = self.members.clone();
        } else {
            self.members.insert(id.into(), member);
            self.rebalance(now);
            self.complete_if_ready(now, topics);
        }
    }

    fn remove(&mut self, now: i64, goes: impl Fn(&String, &Member) -> bool) {
        let before = self.members.len();
        self.members.retain(|id, member| !goes(id, member));
        if self.members.len() == before {
            return;
        }
        let is_gone = |leader: &String| !self.members.contains_key(leader);
        if self.leader.as_ref().is_some_and(is_gone) {
            self.leader = self.members.keys().next().cloned();
        }
        self.rebalance(now);
    }

    fn rebalance(&mut self, now: i64) {
        let timeouts = self.members.values().map(|m| m.rebalance_timeout_ms);
        let until = now + timeouts.max().unwrap_or(0);
        self.rebalancing_until.get_or_insert(until);
    }

    pub fn tick(&mut self, now: i64, topics: &Topics) {
        let is_over = self.rebalancing_until.is_some_and(|until| until < now);
        self.remove(now, |_, member| {
            // Static members keep their place until their session ends.
            let is_late = is_over && member.instance_id.is_none();
            !member.waits && (is_late || member.session_ends < now)
        });
        if is_over && self.members.values().any(|member| member.waits) {
            self.complete(now, topics);
        }
        self.complete_if_ready(now, topics);
    }

    fn complete_if_ready(&mut self, now: i64, topics: &Topics) {
        if self.rebalancing_until.is_some() && self.members.values().all(|member| member.waits) {
            self.complete(now, topics);
        }
    }

    fn complete(&mut self, now: i64, topics: &Topics) {
        self.rebalancing_until = None;
        self.generation += 1;
        for member in self.members.values_mut() {
            member.waits = false;
            member.session_ends = now + member.session_timeout_ms;
            member.partitions.clear();
        }
        self.assign(topics);
        self.written = self.members.clone();
    }

    /// Kafka's `RangeAssignor`: of each topic a run of partitions a member, the first ones one more. Static members come first, by
    /// their instance ids, then the others by their member ids.
    fn assign(&mut self, topics: &Topics) {
        for (name, topic) in topics {
            let members = self.members.iter_mut();
            let mut takers: Vec<_> = members.filter(|(_, m)| m.topics.contains(name)).collect();
            takers.sort_by_key(|(id, m)| (m.instance_id.is_none(), m.instance_id.clone(), *id));
            let mut next = 0..topic.partitions();
            let mut left = takers.len();
            for (_, member) in takers {
                let share = next.len().div_ceil(left);
                left -= 1;
                let run = next.by_ref().take(share);
                member.partitions.extend(run.map(|at| (name.clone(), at)));
            }
        }
    }

    pub fn restart(&mut self, now: i64) {
        self.members = self.written.clone();
        self.rebalancing_until = None;
        let leads = |leader: &String| self.members.contains_key(leader);
        self.leader = self.leader.take().filter(leads);
        for member in self.members.values_mut() {
            member.session_ends = now + member.session_timeout_ms;
        }
    }
}

impl Broker {
    /// JoinGroup: answers the member's id. What it has is told by [`Self::sync_group`], once all members have asked to join.
    ///
    /// Errors: `UNKNOWN_MEMBER_ID`, `FENCED_INSTANCE_ID`.
    pub fn join_group(&mut self, now: i64, group: &str, join: &Join<'_>) -> Answer<String> {
        let found = self.groups.entry(group.into()).or_default();
        let id = if join.member_id.is_empty() {
            self.members += 1;
            let name = join.instance_id.unwrap_or(join.client_id);
            format!("{name}-{}", self.members - 1)
        } else {
            found.member(join.member_id, join.instance_id)?;
            join.member_id.into()
        };
        found.join(&id, join, now, &self.topics);
        Ok(id)
    }

    /// SyncGroup, by a member that has asked to join: what it has, or None as long as others have not asked to join. The
    /// generation of `member` is not looked at: the answer brings the new one.
    ///
    /// Errors: `UNKNOWN_MEMBER_ID`, `FENCED_INSTANCE_ID`, `REBALANCE_IN_PROGRESS` where it has to join again.
    pub fn sync_group(&self, group: &str, member: &Membership<'_>) -> Answer<Option<Assignment>> {
        let found = self.groups.get(group).ok_or(Error::UnknownMemberId)?;
        let of = found.member(member.member_id, member.instance_id)?;
        match found.rebalancing_until {
            None => Ok(Some(Assignment {
                generation: found.generation,
                partitions: of.partitions.clone(),
            })),
            Some(_) if of.waits => Ok(None),
            Some(_) => Err(Error::RebalanceInProgress),
        }
    }

    /// Errors: `UNKNOWN_MEMBER_ID`, `FENCED_INSTANCE_ID`, `ILLEGAL_GENERATION`, `REBALANCE_IN_PROGRESS`; only with the last one,
    /// and without any, the session goes on.
    pub fn heartbeat(&mut self, now: i64, group: &str, member: &Membership<'_>) -> Answer<()> {
        let found = self.groups.get_mut(group).ok_or(Error::UnknownMemberId)?;
        found.check(member)?;
        if let Some(of) = found.members.get_mut(member.member_id) {
            of.session_ends = now + of.session_timeout_ms;
        }
        let is_stable = found.rebalancing_until.is_none();
        is_stable.then_some(()).ok_or(Error::RebalanceInProgress)
    }

    /// DescribeGroups: who is in the group, by the names of static members and the ids of others.
    pub fn describe_group(&self, group: &str) -> impl Iterator<Item = &str> {
        let members = self.groups.get(group).into_iter();
        let members = members.flat_map(|group| &group.members);
        members.map(|(id, member)| member.instance_id.as_ref().unwrap_or(id).as_str())
    }

    /// LeaveGroup. With an instance id and no member id an operator removes whoever has it.
    ///
    /// Errors: `UNKNOWN_MEMBER_ID`, `FENCED_INSTANCE_ID`.
    pub fn leave_group(&mut self, now: i64, group: &str, member: &Membership<'_>) -> Answer<()> {
        let found = self.groups.get_mut(group).ok_or(Error::UnknownMemberId)?;
        let mut member_id = member.member_id.to_owned();
        if let Some(name) = member.instance_id
            && member_id.is_empty()
        {
            member_id = found.holder(name).unwrap_or_default().into();
        }
        found.member(&member_id, member.instance_id)?;
        found.remove(now, |id, _| *id == member_id);
        found.complete_if_ready(now, &self.topics);
        Ok(())
    }
}
