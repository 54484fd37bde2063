//! Kafka and two workers at one moment, and how it can go on from there.
//!
//! Invariant: seats are alike. Two worlds that differ in nothing but the seats' names hash alike, so that one of them is looked at;
//! whatever is offered in one is offered in the other.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::quality::FixedState;
use millstream_engine::commit::machine::{Event, Resolution, State, Then};
use millstream_engine::commit::verdict::{Sends, Verdict};

use crate::action::{Action, Decision, Step};
use crate::check::Protocol;
use crate::kafka::{Kafka, PARTITIONS, Place, SEATS, Transaction, index};
use crate::rule::Rule;
use crate::worker::{Doing, Ending, Fold, Input, Membership, Wanted, Worker};

/// How many requests of one seat to end a transaction are in flight at most.
const ENDS_MAX: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    pub kafka: Kafka,
    pub workers: [Worker; 2],
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.mark(&FixedState::default()));
    }
}

impl World {
    /// One worker has both partitions; the other is not started yet.
    pub fn first() -> Self {
        Self {
            kafka: Kafka::new(),
            workers: [Worker::first(), Worker::dead()],
        }
    }

    /// The same for worlds that differ in the seats' names only, and else most likely another one.
    pub(crate) fn mark(&self, hashing: &FixedState) -> u64 {
        let mut swapped = *self;
        swapped.kafka.swap_seats();
        swapped.workers.swap(0, 1);
        let hash = |world: &Self| hashing.hash_one((&world.kafka, &world.workers));
        hash(self).min(hash(&swapped))
    }

    /// Whether no offset of these partitions is pending.
    fn is_stable(&self, partitions: [bool; 2]) -> bool {
        PARTITIONS.into_iter().all(|partition| {
            let pending = &self.kafka.offsets[partition].pending;
            !partitions[partition] || pending.iter().all(Option::is_none)
        })
    }

    fn owned(&self, seat: usize) -> [bool; 2] {
        let owners = self.kafka.group.owners;
        owners.map(|owner| owner == Some(index(seat)))
    }

    fn held(&self, seat: usize) -> [bool; 2] {
        self.workers[seat].inputs.map(|input| input.is_some())
    }

    /// All members have joined, none of them is missing.
    fn is_generation_complete(&self) -> bool {
        let group = &self.kafka.group;
        let mut members = SEATS.into_iter().filter(|&seat| group.members[seat]);
        let joined = |seat: usize| self.workers[seat].membership == Membership::Joining;
        group.rebalancing && group.members != [false; 2] && members.all(joined)
    }
}

impl Protocol {
    pub(crate) fn offer(&self, world: &World, actions: &mut Vec<Action>) {
        for seat in SEATS {
            self.offer_steps(world, seat, &mut |step| {
                actions.push(Action::Worker(seat, step));
            });
            offer_decisions(world, seat, actions);
            if world.kafka.group.members[seat] {
                actions.push(Action::Expire(seat));
            }
        }
        if world.is_generation_complete() {
            let owners: &[[Option<u8>; 2]] = match world.kafka.group.members {
                [true, true] => &[[Some(0), Some(1)], [Some(1), Some(0)]],
                [true, false] => &[[Some(0); 2]],
                _ => &[[Some(1); 2]],
            };
            actions.extend(owners.iter().map(|owners| Action::Generation(*owners)));
        }
        if !world.kafka.group.rebalancing && world.kafka.group.members != [false; 2] {
            actions.push(Action::Rebalance);
        }
    }

    fn offer_steps(&self, world: &World, seat: usize, offer: &mut impl FnMut(Step)) {
        let worker = &world.workers[seat];
        if !worker.is_alive {
            return offer(Step::Start);
        }
        offer(Step::Die);
        match worker.doing {
            Doing::Nothing => self.offer_polling(world, seat, offer),
            _ => self.offer_doing(world, seat, offer),
        }
    }

    /// What a worker may do that polls: its machine is ready, or an epoch is open.
    fn offer_polling(&self, world: &World, seat: usize, offer: &mut impl FnMut(Step)) {
        let worker = &world.workers[seat];
        let producer = &world.kafka.producers[seat];
        for partition in PARTITIONS {
            let waits = |input: Input| input.processed < self.records[partition];
            // What a fenced producer is given is not delivered; it learns that later.
            let takes = producer.fenced || world.kafka.accepts(seat);
            if takes && !worker.leaving && worker.inputs[partition].is_some_and(waits) {
                offer(Step::Run(partition));
            }
        }
        if worker.state == State::Open {
            offer(Step::Close);
            offer(Step::Break);
        }
        offer_membership(world, seat, offer);
        let is_free = worker.state == State::Ready && worker.holds_nothing();
        if worker.membership == Membership::In && is_free && world.owned(seat) != [false; 2] {
            offer(Step::Assigned);
        }
    }

    /// What may come of the thing that a worker's thread is at.
    fn offer_doing(&self, world: &World, seat: usize, offer: &mut impl FnMut(Step)) {
        let worker = &world.workers[seat];
        let producer = &world.kafka.producers[seat];
        let accepts = world.kafka.accepts(seat);
        let stable =
            |partitions| !self.keeps(Rule::ReadStableOffsets) || world.is_stable(partitions);
        let is_lost = worker.membership == Membership::Stale;
        match worker.doing {
            Doing::Nothing => {}
            Doing::Starting | Doing::Replacing => {
                if matches!(producer.transaction, Transaction::None | Transaction::Open) {
                    offer(Step::Initialise);
                }
            }
            Doing::Taking(partitions) => {
                let others = world.kafka.producers[1 - seat].transaction;
                if matches!(others, Transaction::None | Transaction::Open) {
                    offer(Step::Succeed);
                }
                if stable(partitions) {
                    offer(Step::ReadOffsets);
                }
            }
            Doing::Restoring => {
                offer_membership(world, seat, offer);
                if self.is_restorable(world, seat) {
                    offer(Step::Restore);
                }
            }
            Doing::Flushing => {
                if producer.fenced || is_lost {
                    offer(Step::HearRefusal);
                }
                if accepts {
                    offer(Step::Flush);
                }
                offer(Step::GiveUp);
            }
            Doing::AddingOffsets => {
                if producer.fenced || worker.membership != Membership::In {
                    offer(Step::HearRefusal);
                }
                if self.may_add(world, seat) {
                    offer(Step::AddOffsets);
                    offer(Step::AddOffsetsAgain);
                }
                offer(Step::GiveUp);
            }
            Doing::Ending(ending) => {
                if ending.answered {
                    offer(Step::HearSuccess);
                }
                if producer.fenced {
                    offer(Step::HearRefusal);
                } else if producer.ends < ENDS_MAX {
                    offer(Step::SendAgain);
                }
                offer(Step::GiveUp);
            }
            Doing::ReadingBack => {
                if stable(world.held(seat)) {
                    offer(Step::ReadOffsets);
                }
            }
        }
    }

    /// Whether the changelogs can be folded as far as they went when the offsets had been read. What is open there of a transaction whose
    /// offsets were not pending then may be waited for or not: it comes to nothing.
    fn is_restorable(&self, world: &World, seat: usize) -> bool {
        let held = world.held(seat);
        let waits = |writer: usize, partition: usize| {
            world.kafka.producers[writer].transaction == Transaction::Committing
                && held[partition]
                && world.kafka.changes[partition].has(writer)
        };
        let mut writers = SEATS.into_iter();
        !self.keeps(Rule::RestoreToHighWatermark)
            || !writers.any(|writer| PARTITIONS.into_iter().any(|at| waits(writer, at)))
    }

    pub(crate) fn follow(&self, world: &World, action: Action) -> World {
        let mut world = *world;
        match action {
            Action::Worker(seat, step) => self.step(&mut world, seat, step),
            Action::Coordinator(seat, Decision::End) => {
                world.kafka.end(seat);
                if let Doing::Ending(ending) = &mut world.workers[seat].doing {
                    ending.answered = true;
                }
            }
            Action::Coordinator(seat, Decision::LateOffsets) => world.kafka.add_late(seat),
            Action::Coordinator(seat, Decision::TimeOut) => world.kafka.abort(seat),
            Action::Land(seat, place) => world.kafka.land(seat, place),
            Action::Rebalance => world.kafka.group.rebalancing = true,
            Action::Generation(owners) => {
                world.kafka.group.rebalancing = false;
                world.kafka.group.owners = owners;
                for worker in &mut world.workers {
                    if worker.membership == Membership::Joining {
                        worker.membership = Membership::In;
                    }
                }
                // They name a generation that is over.
                for producer in &mut world.kafka.producers {
                    producer.late = None;
                }
            }
            Action::Expire(seat) => expire(&mut world, seat),
        }
        for (producer, worker) in world.kafka.producers.iter_mut().zip(&world.workers) {
            // Nobody is shut out who has no producer, or is about to have a new one.
            producer.fenced &= worker.has_producer();
        }
        world
    }

    fn step(&self, world: &mut World, seat: usize, step: Step) {
        match step {
            Step::Run(partition) => self.run(world, seat, partition),
            Step::Close => self.tell(world, seat, Event::Close),
            Step::Flush => {
                for (partition, from, to) in world.workers[seat].moved() {
                    for record in from..to {
                        world.kafka.write_change(seat, partition, record);
                    }
                }
                world.workers[seat].doing = Doing::AddingOffsets;
            }
            Step::AddOffsets => add_offsets(world, seat, false),
            Step::AddOffsetsAgain => {
                add_offsets(world, seat, self.keeps(Rule::ReplaceAfterSeveralOffsets));
                leave_request(world, seat);
            }
            Step::SendAgain => {
                world.kafka.producers[seat].ends += 1;
                world.workers[seat].doing = Doing::Ending(Ending {
                    several: true,
                    answered: false,
                });
            }
            Step::GiveUp | Step::HearRefusal => self.fail(world, seat, step),
            Step::HearSuccess => {
                let several = Doing::Ending(Ending {
                    several: true,
                    answered: true,
                });
                let sends = match world.workers[seat].doing == several {
                    true => Sends::Several,
                    false => Sends::Once,
                };
                self.tell(world, seat, Event::Verdict(Verdict::Committed(sends)));
            }
            Step::Break => self.tell(world, seat, Event::Broken(String::new())),
            Step::Initialise => self.initialise(world, seat),
            Step::Succeed => match world.kafka.producers[1 - seat].transaction {
                Transaction::Open => world.kafka.abort(1 - seat),
                Transaction::None => world.kafka.raise_epoch(1 - seat),
                Transaction::Committing | Transaction::Aborting => {}
            },
            Step::ReadOffsets => self.read_offsets(world, seat),
            Step::Restore => restore(world, seat),
            Step::Revoked => self.leave(world, seat, Event::Close),
            Step::Lost => self.leave(world, seat, Event::Broken(String::new())),
            Step::Join => join(world, seat),
            Step::Assigned => world.workers[seat].doing = Doing::Taking(world.owned(seat)),
            Step::Die => {
                world.workers[seat] = Worker::dead();
                // The next life has another number in its tokens.
                world.kafka.forget_token(seat);
            }
            Step::Start => {
                world.workers[seat].is_alive = true;
                world.workers[seat].doing = Doing::Starting;
                if !self.keeps(Rule::InitialiseAtStart) {
                    started(world, seat);
                }
            }
        }
    }

    fn run(&self, world: &mut World, seat: usize, partition: usize) {
        if world.workers[seat].state == State::Ready {
            self.tell(world, seat, Event::Begin);
        }
        let input = world.workers[seat].inputs[partition].as_mut();
        let input = input.expect("what is run is held");
        let record = input.processed;
        input.processed += 1;
        if !world.kafka.producers[seat].fenced {
            world.kafka.write_output(seat, partition, record);
        }
    }

    /// Tells the machine, and sets about what it wants done.
    fn tell(&self, world: &mut World, seat: usize, event: Event) {
        match world.workers[seat].on(event) {
            Wanted::Nothing => {}
            Wanted::Begin => world.kafka.forget_token(seat),
            Wanted::Commit => world.workers[seat].doing = Doing::Flushing,
            Wanted::ReadOffsets => world.workers[seat].doing = Doing::ReadingBack,
            Wanted::Replace(state) => {
                let rule = match state {
                    State::Resolving => Rule::ReplaceInDoubt,
                    State::Replacing(Then::Keep) => Rule::ReplaceAfterSeveralSends,
                    _ => Rule::ReplaceAfterAbort,
                };
                if self.keeps(rule) {
                    world.workers[seat].doing = Doing::Replacing;
                } else {
                    return self.tell(world, seat, Event::Replaced);
                }
            }
        }
        settle(world, seat);
    }

    /// A commit doesn't come to a success. Once it was asked for, nobody knows what became of it.
    fn fail(&self, world: &mut World, seat: usize, step: Step) {
        let doing = world.workers[seat].doing;
        if doing == Doing::AddingOffsets && step == Step::GiveUp && self.may_add(world, seat) {
            leave_request(world, seat);
        }
        let was_asked_for = matches!(doing, Doing::Ending(_));
        let verdict = if !was_asked_for || !self.keeps(Rule::DoubtIsNoAbort) {
            Verdict::Aborted(String::new())
        } else if !self.keeps(Rule::DoubtIsNoCommit) {
            Verdict::Committed(Sends::Several)
        } else {
            Verdict::InDoubt(String::new())
        };
        self.tell(world, seat, Event::Verdict(verdict));
    }

    /// Whether the group takes offsets from the seat's worker.
    fn may_add(&self, world: &World, seat: usize) -> bool {
        let is_member = world.workers[seat].membership == Membership::In;
        world.kafka.accepts(seat) && (is_member || !self.keeps(Rule::CheckGeneration))
    }

    /// What is open is aborted; once nothing is, the producer has an epoch of its own.
    fn initialise(&self, world: &mut World, seat: usize) {
        if world.kafka.producers[seat].transaction == Transaction::Open {
            return world.kafka.abort(seat);
        }
        world.kafka.raise_epoch(seat);
        world.kafka.producers[seat].fenced = false;
        match world.workers[seat].doing {
            Doing::Starting => started(world, seat),
            _ => self.tell(world, seat, Event::Replaced),
        }
    }

    fn read_offsets(&self, world: &mut World, seat: usize) {
        let offsets = world.kafka.offsets;
        let worker = &mut world.workers[seat];
        if let Doing::Taking(partitions) = worker.doing {
            for partition in PARTITIONS {
                let at = offsets[partition].at;
                worker.inputs[partition] = partitions[partition].then_some(Input {
                    committed: at,
                    processed: at,
                    state: Fold::default(),
                });
            }
            worker.doing = Doing::Restoring;
            return;
        }
        let mut found = Resolution::Absent;
        for (input, offset) in worker.inputs.iter().zip(&offsets) {
            if input.is_some() && offset.token == Some(index(seat)) {
                found = Resolution::Found;
            }
        }
        if found == Resolution::Absent {
            for (input, offset) in worker.inputs.iter_mut().zip(&offsets) {
                if let Some(input) = input {
                    input.committed = offset.at;
                }
            }
        }
        self.tell(world, seat, Event::Resolved(found));
    }

    /// Partitions are to go: at once, or when the epoch that is open has ended.
    fn leave(&self, world: &mut World, seat: usize, open_epoch: Event) {
        let worker = &mut world.workers[seat];
        worker.leaving = true;
        let asked_back = worker.membership == Membership::In;
        if worker.state != State::Open {
            settle(world, seat);
        } else if asked_back && !self.keeps(Rule::CloseBeforeGivingUp) {
            join(world, seat);
        } else {
            self.tell(world, seat, open_epoch);
        }
    }
}

/// What a worker may hear of the group.
fn offer_membership(world: &World, seat: usize, offer: &mut impl FnMut(Step)) {
    match world.workers[seat].membership {
        Membership::Out => offer(Step::Join),
        Membership::Stale => offer(Step::Lost),
        Membership::In if world.kafka.group.rebalancing => offer(Step::Revoked),
        Membership::In | Membership::Joining => {}
    }
}

/// What may come of a seat's transaction without its worker.
fn offer_decisions(world: &World, seat: usize, actions: &mut Vec<Action>) {
    let producer = &world.kafka.producers[seat];
    match producer.transaction {
        Transaction::None | Transaction::Open => {
            // One that comes while markers are landing is told to come again.
            if producer.ends > 0 {
                actions.push(Action::Coordinator(seat, Decision::End));
            }
            if producer.late.is_some() {
                actions.push(Action::Coordinator(seat, Decision::LateOffsets));
            }
            if producer.transaction == Transaction::Open {
                actions.push(Action::Coordinator(seat, Decision::TimeOut));
            }
        }
        Transaction::Committing | Transaction::Aborting => {
            let lacking = |place: &Place| world.kafka.lacks_marker(seat, *place);
            let places = Place::ALL.into_iter().filter(lacking);
            actions.extend(places.map(|place| Action::Land(seat, place)));
        }
    }
}

fn add_offsets(world: &mut World, seat: usize, several: bool) {
    for (partition, _, to) in world.workers[seat].moved() {
        world.kafka.add_offset(seat, partition, to);
    }
    world.kafka.producers[seat].ends += 1;
    world.workers[seat].doing = Doing::Ending(Ending {
        several,
        answered: false,
    });
}

/// A request to add offsets that nobody waits for any more is still on its way.
fn leave_request(world: &mut World, seat: usize) {
    let mut late = [None; 2];
    for (partition, _, to) in world.workers[seat].moved() {
        late[partition] = Some(to);
    }
    world.kafka.producers[seat].late = Some(late);
}

/// Gives up the partitions of a worker that is to, if no transaction is open, and joins anew.
fn settle(world: &mut World, seat: usize) {
    let worker = &mut world.workers[seat];
    if worker.state != State::Ready || !std::mem::take(&mut worker.leaving) {
        return;
    }
    worker.inputs = [None; 2];
    worker.doing = Doing::Nothing;
    join(world, seat);
}

fn join(world: &mut World, seat: usize) {
    world.workers[seat].membership = Membership::Joining;
    world.kafka.group.members[seat] = true;
    world.kafka.group.rebalancing = true;
}

/// Its name is a static member's: while the session of its last life lasts, it has that one's place.
fn started(world: &mut World, seat: usize) {
    world.workers[seat].doing = Doing::Nothing;
    if world.kafka.group.members[seat] && !world.kafka.group.rebalancing {
        world.workers[seat].membership = Membership::In;
    } else {
        join(world, seat);
    }
}

fn restore(world: &mut World, seat: usize) {
    let worker = &mut world.workers[seat];
    for (input, log) in worker.inputs.iter_mut().zip(&world.kafka.changes) {
        if let Some(input) = input {
            let landed = log.entries().iter().filter(|entry| entry.seat.is_none());
            landed.for_each(|entry| input.state.take(entry.record));
        }
    }
    worker.doing = Doing::Nothing;
}

/// The group counts the seat out. Its worker, if it lives, doesn't know.
fn expire(world: &mut World, seat: usize) {
    let group = &mut world.kafka.group;
    group.members[seat] = false;
    group.rebalancing = group.members != [false; 2];
    for owner in &mut group.owners {
        *owner = owner.filter(|&owner| owner != index(seat));
    }
    world.kafka.producers[seat].late = None;
    let worker = &mut world.workers[seat];
    worker.membership = match worker.membership {
        Membership::In => Membership::Stale,
        Membership::Joining => Membership::Out,
        other => other,
    };
}
