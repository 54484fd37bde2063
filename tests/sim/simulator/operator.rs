//! Whoever runs the processes and whatever befalls them: writes the input, carries out the schedule of faults, has processes start again
//! that ended, heals everything in the end, and waits until nothing is left to do.

use std::rc::Rc;
use std::sync::Arc;

use millstream_broker::{Broker, Error, Isolation, Outcome, Place, Records, Settings, Spec};
use millstream_engine::pipeline::{MapId, OnError};
use millstream_engine::state::restore::Phase;
use millstream_engine::trials::Trials;

use super::assignment::seat_of;
use super::changelogs::write_snapshots;
use super::course::Course;
use super::driver::{Halt, Loop};
use super::faults::befall;
use super::pipeline::{DEAD, OUT, STREAM};
use super::plan::{EVENTS, FAULTS_UNTIL, Incoming, TABLE, Upstream};
use super::producer::Producer;
use super::world::{Life, Violation, Weather, World};

/// Within this time after everything was healed nothing may be left to do.
const HEALED_WITHIN: i64 = 8_000;

/// Upstream's transactions never time out by themselves.
const UPSTREAM_TIMEOUT: i64 = 900_000;

/// How often the broker looks at its clock.
const TICK: i64 = 15;

fn create_topics(world: &World) {
    let mut broker = world.broker.borrow_mut();
    let maps = world.pipeline.own_maps();
    let changelogs = maps.map(|map| (world.pipeline.changelog(map), true));
    let plain = [
        (EVENTS, false),
        (OUT, false),
        (STREAM, false),
        (TABLE, true),
    ];
    let plain = plain.map(|(name, compact)| (name.to_owned(), compact));
    let has_letters = world.plan.on_error == OnError::DeadLetter;
    let letters = has_letters.then(|| (DEAD.to_owned(), false));
    for (name, compact) in changelogs.chain(plain).chain(letters) {
        let settings = Settings {
            compact,
            ..Settings::default()
        };
        let created = broker.create_topic(&name, world.plan.partitions, settings);
        created.expect("the broker has no topics yet");
    }
    world.judge.borrow_mut().begin(&broker);
}

pub fn start(world: &Rc<World>) {
    create_topics(world);
    for host in 0..world.plan.hosts {
        spawn_process(world, host);
    }
    world.spawn(None, tick(Rc::clone(world)));
    world.spawn(None, feed(Rc::clone(world)));
    world.spawn(None, operate(Rc::clone(world)));
}

/// Starts a process on a host, or beside the one that runs there.
pub fn spawn_process(world: &Rc<World>, host: usize) {
    let life = world.lives.borrow().len();
    world.lives.borrow_mut().push(Life {
        host,
        alive: true,
        workers: world.plan.workers,
        trials: Some(Trials::new(Arc::default(), world.plan.workers as usize)),
        ..Life::default()
    });
    world.note(|| format!("host {host}: process {life} starts"));
    world.spawn(Some(life), process(Rc::clone(world), life));
    world.spawn(Some(life), write_snapshots(Rc::clone(world), life));
}

/// The supervisor: seats are initialised before anything is read, which ends what an earlier life left open.
async fn process(world: Rc<World>, life: usize) {
    let host = world.lives.borrow()[life].host;
    let instance: Rc<str> = ["a", "b", "c"][host].into();
    let mut producers = Vec::new();
    for worker in 0..world.plan.workers {
        let mut producer = Producer::new(&world, life, &seat_of(&instance, worker));
        while producer.init().await.is_none() {
            if world.lives.borrow()[life].stop {
                world.lives.borrow_mut()[life].alive = false;
                return;
            }
        }
        producers.push(producer);
    }
    for (number, producer) in (0..).zip(producers) {
        let worker = Loop::new(&world, life, (&instance, number), producer);
        world.spawn(Some(life), work(Rc::clone(&world), life, worker));
    }
}

/// A worker's thread. Where one fails, the process ends, and is started again.
async fn work(world: Rc<World>, life: usize, worker: Loop) {
    let halt = worker.run_and_leave().await;
    if let Halt::Failed(what) = &halt {
        let what = what.clone();
        world.violate(Violation {
            name: "process-failed",
            what,
        });
    }
    let life = &mut world.lives.borrow_mut()[life];
    life.workers -= 1;
    if halt != Halt::Stopped {
        life.stop = true;
    }
    if life.workers == 0 {
        life.alive = false;
    }
}

async fn tick(world: Rc<World>) {
    loop {
        world.sleep(TICK).await;
        if world.weather.borrow().is_broker_down() {
            continue;
        }
        let open = |world: &World| {
            let broker = world.broker.borrow();
            let all = broker.transactions();
            all.map(|(_, view)| i64::from(view.epoch)).sum::<i64>()
        };
        let before = open(&world);
        let now = world.now();
        world.broker.borrow_mut().tick(now);
        if open(&world) != before {
            world.count(Course::TransactionTimedOut);
        }
        world.look();
    }
}

/// Writes the input as it comes, in transactions of its own or none.
async fn feed(world: Rc<World>) {
    for incoming in world.plan.incoming.clone() {
        world.sleep((incoming.at - world.elapsed()).max(0)).await;
        write(&world, &incoming).await;
    }
}

async fn write(world: &World, incoming: &Incoming) {
    let mut records = Records::default();
    for (key, value) in &incoming.records {
        let value = value.as_ref().map(String::as_bytes);
        let now = world.now();
        records.push(now, Some(key.as_bytes()), value, std::iter::empty());
    }
    let at: Place<'_> = (incoming.topic, incoming.partition);
    let now = world.now();
    let (open, outcome) = match incoming.transaction {
        Upstream::Plain => {
            let written = world.broker.borrow_mut().produce(now, None, at, 0, records);
            written.expect("the topic is there and the batch small");
            return world.look();
        }
        Upstream::Committed { open } => (open, Outcome::Commit),
        Upstream::Aborted { open } => {
            world.count(Course::InputAborted);
            (open, Outcome::Abort)
        }
    };
    let producer = loop {
        let given = world
            .broker
            .borrow_mut()
            .init_producer_id(Some("upstream"), UPSTREAM_TIMEOUT);
        match given {
            Ok(producer) => break producer,
            Err(Error::ConcurrentTransactions) => world.sleep(TICK).await,
            Err(error) => unreachable!("the time-out is allowed: {error}"),
        }
    };
    let produce = |broker: &mut Broker| broker.produce(now, Some(&producer), at, 0, records);
    let written = produce(&mut world.broker.borrow_mut());
    written.expect("nobody else has this transactional.id");
    world.look();
    world.sleep(open).await;
    // Where a day has gone by meanwhile it has timed out.
    let ended = world
        .broker
        .borrow_mut()
        .end_transaction(&producer, outcome);
    if let Err(error) = ended {
        world.note(|| format!("upstream: {error}"));
    }
    world.look();
}

async fn operate(world: Rc<World>) {
    for (at, fault) in world.plan.faults.clone() {
        world.sleep((at - world.elapsed()).max(0)).await;
        befall(&world, fault);
    }
    world.sleep((FAULTS_UNTIL - world.elapsed()).max(0)).await;
    heal(&world);
    let give_up = world.now() + HEALED_WITHIN;
    loop {
        world.sleep(TICK).await;
        restart_ended(&world);
        match is_done(&world) {
            Ok(()) => return world.finish(),
            Err(what) if world.now() > give_up => {
                return world.violate(Violation {
                    name: "no-progress",
                    what,
                });
            }
            Err(_) => {}
        }
    }
}

fn heal(world: &World) {
    world.note(|| "all is healed".into());
    let now = world.now();
    *world.weather.borrow_mut() = Weather::default();
    world.broker.borrow_mut().write_markers();
    world.look();
    for life in world.lives.borrow_mut().iter_mut() {
        life.cut_until = 0;
        life.frozen_until = life.frozen_until.min(now);
    }
}

/// Whoever supervises processes starts those again that ended. A second one of a seat is not started again.
fn restart_ended(world: &Rc<World>) {
    for host in 0..world.plan.hosts {
        let runs = {
            let lives = world.lives.borrow();
            lives.iter().any(|life| life.host == host && life.alive)
        };
        if !runs {
            spawn_process(world, host);
        }
    }
}

/// What is left to do.
fn is_done(world: &World) -> Result<(), String> {
    let broker = world.broker.borrow();
    world.judge.borrow().is_done(&broker)?;
    for map in 0..world.pipeline.maps.len() {
        let topic = world.pipeline.topic_of(MapId(map));
        for partition in 0..world.plan.partitions {
            let place = (MapId(map), partition);
            let end = Spec::Latest(Isolation::ReadUncommitted);
            let end = broker.list_offset((&topic, partition), end);
            let end = end.expect("the topic was created");
            let lives = world.lives.borrow();
            let live = lives.iter().filter(|life| life.alive);
            let mut all = live.flat_map(|life| &life.directories);
            let is_there = all.any(|directory| {
                let places = directory.places.borrow();
                places.get(&place).is_some_and(|shared| {
                    let phase = shared.borrow().phase();
                    let is_live = phase == Phase::Live;
                    is_live && shared.borrow().position() >= end
                })
            });
            if !is_there {
                return Err(format!("{topic}[{partition}] is not folded up to {end}"));
            }
        }
    }
    Ok(())
}
