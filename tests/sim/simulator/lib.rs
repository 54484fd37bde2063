//! A simulator of the commit protocol: the real engine, driven as the server drives it, on the broker in memory, under faults that a seed
//! draws, with a judge who looks after every step. The same seed gives the same run, byte for byte.
//!
//! `plan` what a seed draws · `world` clock, network, processes · `driver` and `assignment` the worker's loop · `producer`, `member`,
//! `changelogs` its clients of Kafka · `pipeline` the steps · `operator` and `faults` what befalls them · `reference` and `judge` what
//! must be so · `course` what was met · `shrink` the least that goes wrong.

#![forbid(unsafe_code)]

mod assignment;
mod changelogs;
mod course;
mod dice;
mod driver;
mod faults;
mod judge;
mod member;
mod operator;
mod pipeline;
mod plan;
mod producer;
mod reference;
mod shrink;
mod trial;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

pub use course::{Course, Courses};
pub use shrink::shrink;
pub use world::Violation;

use dice::Dice;
use judge::Judge;
use plan::Plan;
use reference::Reference;
use world::World;

/// Which part of a seed is run, and what is told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Of the faults that the seed draws, these; all where it is none.
    pub faults: Option<Vec<usize>>,
    /// Of the batches that come in, so many.
    pub batches: Option<usize>,
    pub trace: bool,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    pub steps: u64,
    pub courses: Courses,
    pub violation: Option<Violation>,
    /// A line for everything that happened.
    pub trace: String,
    /// How many faults and batches it had.
    pub faults: usize,
    pub batches: usize,
}

pub fn run(seed: u64, orders: &Orders) -> Report {
    let mut dice = Dice::new(seed);
    let mut plan = Plan::draw(seed, &mut dice);
    plan.shrink(orders.faults.as_deref(), orders.batches);
    let (faults, batches) = (plan.faults.len(), plan.incoming.len());
    let pipeline = Arc::new(pipeline::build(&plan));
    let reference = Reference::new(plan.shape, plan.on_error, plan.partitions);
    let judge = Judge::new(Arc::clone(&pipeline), reference);
    let world = Rc::new(World::new(plan, pipeline, judge, dice, orders.trace));
    note_plan(&world, seed);
    operator::start(&world);
    // The engine's own checks count as well.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.into()));
        world.violate(Violation {
            name: "panic",
            what: said.unwrap_or_default(),
        });
    }
    Report {
        steps: world.steps(),
        courses: world.courses(),
        violation: world.violation(),
        trace: world.trace(),
        faults,
        batches,
    }
}

fn note_plan(world: &World, seed: u64) {
    let plan = &world.plan;
    world.note(|| {
        format!(
            "seed {seed}: {:?}, on error {:?}, {} partitions, {} processes of {} workers, interval {} ms, {} records a poll",
            plan.shape,
            plan.on_error,
            plan.partitions,
            plan.hosts,
            plan.workers,
            plan.interval,
            plan.poll_max
        )
    });
    for batch in &plan.incoming {
        let (topic, partition) = (batch.topic, batch.partition);
        let (records, transaction) = (&batch.records, batch.transaction);
        world.note(|| {
            format!(
                "batch at {}: {topic}[{partition}] {records:?} {transaction:?}",
                batch.at
            )
        });
    }
    for (number, (at, fault)) in plan.faults.iter().enumerate() {
        world.note(|| format!("fault {number} at {at}: {fault:?}"));
    }
}
