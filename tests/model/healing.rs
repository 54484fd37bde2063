//! Whether every world can still come to all records committed without another fault: that nothing waits for ever for something that
//! doesn't come.
//!
//! The checker looks for worlds along courses and can't say that of each there is a way on. So the worlds are gone through once more, with
//! their arrows kept, and then backwards from where everything is committed.
//!
//! Invariant: a way that is taken for one leads through steps that processes, brokers and the group take by themselves.

use std::collections::VecDeque;

use foldhash::quality::FixedState;
use hashbrown::HashMap;
use stateright::Model as _;

use crate::action::{Action, Decision, Step};
use crate::check::Protocol;
use crate::world::World;

#[derive(Debug)]
pub struct Healing {
    pub worlds: usize,
    pub stuck: Option<Stuck>,
}

#[derive(Debug)]
pub struct Stuck {
    /// How many there are from which there is no way.
    pub worlds: usize,
    /// The shortest one to one of them.
    pub course: Vec<Action>,
}

/// Of the marks that tell worlds apart: another one than the checker's, so that the two don't take the same worlds for one.
const SEED: u64 = 1;

/// The world that another one was first come to from, and by which of the actions offered there.
type Parent = (u32, u16);

/// What is known of each world gone through, by its number: they are numbered in the order of how far they are.
#[derive(Default)]
struct Graph {
    parents: Vec<Parent>,
    /// Whether all records are committed.
    done: Vec<bool>,
    /// From, to, where it takes no fault.
    arrows: Vec<(u32, u32)>,
}

impl Protocol {
    pub fn heals(&self) -> Healing {
        let (healing, parents) = self.go_through().healing();
        let stuck = healing.iter().filter(|heals| !**heals).count();
        let first = healing.iter().position(|heals| !heals);
        Healing {
            worlds: healing.len(),
            stuck: first.map(|world| Stuck {
                worlds: stuck,
                course: self.course(&parents, world),
            }),
        }
    }

    fn go_through(&self) -> Graph {
        let hashing = FixedState::with_seed(SEED);
        let mut graph = Graph::default();
        let mut numbers: HashMap<u64, u32, FixedState> = HashMap::default();
        let mut waiting = VecDeque::from([World::first()]);
        numbers.insert(World::first().mark(&hashing), 0);
        graph.parents.push((0, 0));
        let mut actions = Vec::new();
        let mut from = 0;
        while let Some(world) = waiting.pop_front() {
            graph.done.push(self.is_done(&world));
            self.actions(&world, &mut actions);
            for (number, action) in (0..).zip(actions.drain(..)) {
                let Some(next) = self.next_state(&world, action) else {
                    continue;
                };
                let fresh = u32::try_from(numbers.len()).expect("memory ends before 2^32 worlds");
                let to = *numbers.entry(next.mark(&hashing)).or_insert(fresh);
                if to == fresh {
                    graph.parents.push((from, number));
                    waiting.push_back(next);
                }
                if !is_fault(&world, action) {
                    graph.arrows.push((from, to));
                }
            }
            from += 1;
        }
        graph
    }

    fn course(&self, parents: &[Parent], world: usize) -> Vec<Action> {
        let mut numbers = Vec::new();
        let mut at = world;
        while at != 0 {
            let (parent, number) = parents[at];
            numbers.push(number);
            at = parent as usize;
        }
        let mut world = World::first();
        let follow = |number: u16| {
            let mut actions = Vec::new();
            self.actions(&world, &mut actions);
            let action = actions[usize::from(number)];
            world = self.follow(&world, action);
            action
        };
        numbers.into_iter().rev().map(follow).collect()
    }
}

impl Graph {
    /// Of each world whether there is a way from it: backwards from those that are there.
    fn healing(mut self) -> (Vec<bool>, Vec<Parent>) {
        let mut healing = self.done;
        self.arrows.sort_unstable_by_key(|&(_, to)| to);
        let done = (0..).zip(&healing).filter(|(_, done)| **done);
        let mut waiting: Vec<u32> = done.map(|(world, _)| world).collect();
        while let Some(to) = waiting.pop() {
            let first = self.arrows.partition_point(|arrow| arrow.1 < to);
            let leading = self.arrows[first..]
                .iter()
                .take_while(|arrow| arrow.1 == to);
            for &(from, _) in leading {
                if !std::mem::replace(&mut healing[from as usize], true) {
                    waiting.push(from);
                }
            }
        }
        (healing, self.parents)
    }
}

/// What goes wrong, and must not be needed for anything.
fn is_fault(world: &World, action: Action) -> bool {
    match action {
        Action::Worker(seat, Step::Break) => !world.kafka.producers[seat].fenced,
        Action::Worker(_, step) => matches!(
            step,
            Step::Die | Step::GiveUp | Step::SendAgain | Step::AddOffsetsAgain | Step::Succeed
        ),
        // A dead worker's session ends, and its transaction too; of a live one that is a fault.
        Action::Coordinator(seat, Decision::TimeOut) | Action::Expire(seat) => {
            world.workers[seat].is_alive
        }
        Action::Coordinator(_, Decision::LateOffsets) | Action::Rebalance => true,
        Action::Coordinator(_, Decision::End) | Action::Land(..) | Action::Generation(_) => false,
    }
}
