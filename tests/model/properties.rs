//! What must hold in every world, and what must come to be in some.
//!
//! All of the first kind are about what is *decided*: from the moment at which the coordinator has a transaction's commit in its log it
//! took effect, wherever its markers are.

use millstream_engine::commit::machine::{State, Then};
use stateright::Property;

use crate::check::Protocol;
use crate::kafka::{Log, PARTITIONS, Place, RECORDS_MAX, SEATS, Transaction, index};
use crate::worker::{Doing, Fold, Input, Membership, Worker};
use crate::world::World;

type Condition = fn(&Protocol, &World) -> bool;

const INVARIANTS: [(&str, Condition); 7] = [
    ("a record takes effect at most once", once),
    (
        "outputs are in order and without gaps, up to the committed offset",
        in_order,
    ),
    (
        "outputs, changes and offsets of a transaction are all there, or none",
        whole,
    ),
    (
        "a member's state is the fold of what its position covers",
        folded,
    ),
    ("nobody merges what was not committed", merged_rightly),
    ("no member drops what was committed", dropped_rightly),
    (
        "who lost a partition commits nothing of it afterwards",
        shut_out,
    ),
];

const COURSES: [(&str, Condition); 15] = [
    ("all records are committed", |protocol, world| {
        protocol.is_done(world)
    }),
    ("both workers have a transaction open", |_, world| {
        SEATS
            .iter()
            .all(|&seat| transaction(world, seat) == Transaction::Open)
    }),
    ("markers are apart: in changelogs first", |_, world| {
        landed_apart(world, Place::Changes(0), Place::Offsets)
    }),
    ("markers are apart: in the offsets first", |_, world| {
        landed_apart(world, Place::Offsets, Place::Changes(0))
    }),
    ("a successor waits for pending offsets", successor_waits),
    ("a commit in doubt is found", |_, world| {
        reading_back(world).any(|(seat, _)| has_token(world, seat))
    }),
    ("a commit in doubt is absent", |_, world| {
        reading_back(world)
            .any(|(seat, worker)| !has_token(world, seat) && worker.membership == Membership::In)
    }),
    ("a commit in doubt is a zombie's", |_, world| {
        reading_back(world).any(|(_, worker)| worker.membership == Membership::Stale)
    }),
    (
        "a commit in doubt is of partitions asked back",
        |_, world| reading_back(world).any(|(_, worker)| worker.leaving),
    ),
    ("a commit was asked for several times", |_, world| {
        let kept = |worker: &Worker| worker.state == State::Replacing(Then::Keep);
        world.workers.iter().any(kept)
    }),
    (
        "a request to commit outlives its transaction",
        |_, world| {
            let late = |seat: &usize| world.kafka.producers[*seat].ends > 0;
            let mut late = SEATS.iter().filter(|seat| late(seat));
            late.any(|&seat| transaction(world, seat) == Transaction::None)
        },
    ),
    (
        "a request to add offsets outlives its transaction",
        |_, world| {
            let late = |seat: &usize| world.kafka.producers[*seat].late.is_some();
            let mut late = SEATS.iter().filter(|seat| late(seat));
            late.any(|&seat| transaction(world, seat) == Transaction::None)
        },
    ),
    ("a zombie asks for a commit", |_, world| {
        let asks = |worker: &&Worker| worker.doing == Doing::AddingOffsets;
        let mut asking = world.workers.iter().filter(asks);
        asking.any(|worker| worker.membership == Membership::Stale)
    }),
    (
        "a commit is asked for of a transaction that timed out",
        |_, world| {
            let asks = |seat: usize| matches!(world.workers[seat].doing, Doing::Ending(_));
            let fenced = |seat: usize| world.kafka.producers[seat].fenced;
            SEATS.iter().any(|&seat| asks(seat) && fenced(seat))
        },
    ),
    (
        "a commit is decided after its worker's death",
        |_, world| {
            let dead = |seat: usize| !world.workers[seat].is_alive;
            let committing = |seat: usize| transaction(world, seat) == Transaction::Committing;
            SEATS.iter().any(|&seat| dead(seat) && committing(seat))
        },
    ),
];

/// What holds in every world.
pub fn invariants() -> Vec<Property<Protocol>> {
    let always = |(name, condition)| Property::always(name, condition);
    INVARIANTS.into_iter().map(always).collect()
}

/// What comes to be in some.
pub fn courses() -> Vec<Property<Protocol>> {
    let sometimes = |(name, condition)| Property::sometimes(name, condition);
    COURSES.into_iter().map(sometimes).collect()
}

fn once(_: &Protocol, world: &World) -> bool {
    let mut logs = world.kafka.outputs.iter().chain(&world.kafka.changes);
    logs.all(|log| {
        (0..RECORDS_MAX).all(|record| {
            let same = decided(world, log).filter(|other| *other == record);
            same.count() <= 1
        })
    })
}

fn in_order(_: &Protocol, world: &World) -> bool {
    PARTITIONS.into_iter().all(|partition| {
        let outputs = decided(world, &world.kafka.outputs[partition]);
        outputs.eq(0..world.kafka.decided_offset(partition))
    })
}

fn whole(_: &Protocol, world: &World) -> bool {
    PARTITIONS.into_iter().all(|partition| {
        let outputs = decided(world, &world.kafka.outputs[partition]);
        let changes = decided(world, &world.kafka.changes[partition]);
        let end = world.kafka.decided_offset(partition);
        outputs.eq(0..end) && changes.eq(0..end)
    })
}

fn folded(_: &Protocol, world: &World) -> bool {
    let mut inputs = stood_behind(world);
    inputs.all(|(_, input)| input.state == Fold::up_to(input.committed))
}

fn merged_rightly(_: &Protocol, world: &World) -> bool {
    PARTITIONS.into_iter().all(|partition| {
        let end = world.kafka.decided_offset(partition);
        let mut all = Fold::default();
        decided(world, &world.kafka.changes[partition]).for_each(|record| all.take(record));
        let mut inputs = world.workers.iter().filter_map(|w| w.inputs[partition]);
        inputs.all(|input| input.committed <= end && input.state.is_within(&all))
    })
}

fn dropped_rightly(_: &Protocol, world: &World) -> bool {
    let mut inputs = stood_behind(world);
    inputs.all(|(partition, input)| input.committed == world.kafka.decided_offset(partition))
}

/// Whoever has taken a partition as a member need not reckon with another's offsets.
fn shut_out(_: &Protocol, world: &World) -> bool {
    PARTITIONS.into_iter().all(|partition| {
        SEATS.into_iter().all(|seat| {
            let pending = world.kafka.offsets[partition].pending[seat].is_some();
            let other = &world.workers[1 - seat];
            let taken = other.membership == Membership::In && other.inputs[partition].is_some();
            !(pending && taken)
        })
    })
}

/// The records of a log that took effect.
fn decided<'w>(world: &'w World, log: &'w Log) -> impl Iterator<Item = u8> + 'w {
    let entries = log.entries().iter();
    let decided = entries.filter(|entry| world.kafka.is_decided(entry));
    decided.map(|entry| entry.record)
}

/// By partition, what members of the present generation hold and go by: their state is restored, and of their commits none is on its
/// way, or has come to something that they have not drawn the consequence from.
fn stood_behind(world: &World) -> impl Iterator<Item = (usize, Input)> {
    let members = world.workers.iter().filter(|worker| {
        let undrawn = matches!(
            worker.state,
            State::Resolving | State::Replacing(Then::Rewind)
        );
        let busy = matches!(worker.doing, Doing::Ending(_) | Doing::Restoring);
        worker.membership == Membership::In && !undrawn && !busy
    });
    members.flat_map(|worker| {
        let held = |partition: usize| worker.inputs[partition].map(|input| (partition, input));
        PARTITIONS.into_iter().filter_map(held)
    })
}

fn transaction(world: &World, seat: usize) -> Transaction {
    world.kafka.producers[seat].transaction
}

/// Whether the markers of a commit have landed in one place, and not in another.
fn landed_apart(world: &World, landed: Place, awaited: Place) -> bool {
    let kafka = &world.kafka;
    SEATS.into_iter().any(|seat| {
        transaction(world, seat) == Transaction::Committing
            && !kafka.lacks_marker(seat, landed)
            && kafka.lacks_marker(seat, awaited)
    })
}

fn successor_waits(_: &Protocol, world: &World) -> bool {
    SEATS.into_iter().any(|seat| {
        let Doing::Taking(taken) = world.workers[seat].doing else {
            return false;
        };
        let pending = |at: usize| world.kafka.offsets[at].pending[1 - seat].is_some();
        PARTITIONS.iter().any(|&at| taken[at] && pending(at))
    })
}

/// Workers that are about to read what became of their commit, with their seats.
fn reading_back(world: &World) -> impl Iterator<Item = (usize, &Worker)> {
    let workers = world.workers.iter().enumerate();
    workers.filter(|(_, worker)| worker.doing == Doing::ReadingBack)
}

fn has_token(world: &World, seat: usize) -> bool {
    let mut offsets = world.kafka.offsets.iter();
    offsets.any(|offset| offset.token == Some(index(seat)))
}
