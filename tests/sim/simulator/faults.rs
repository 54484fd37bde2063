//! How each fault comes about. To add one: a variant of `plan::Fault` with its share in `draw_fault`, its arm here, and a course that counts
//! what it leads to.

use std::rc::Rc;
use std::sync::Arc;

use millstream_broker::Broker;

use super::course::Course;
use super::operator::spawn_process;
use super::pipeline::Code;
use super::plan::{FAULTS_UNTIL, Fault};
use super::world::{Life, World};

const DAY: i64 = 86_400_000;

/// How long workers may take to have tried new plugins.
const TRIAL_MAX: i64 = 150;

pub fn befall(world: &Rc<World>, fault: Fault) {
    world.note(|| format!("fault {fault:?}"));
    match fault {
        Fault::Lose { lasts, .. }
        | Fault::LoseReplies { lasts, .. }
        | Fault::Late { lasts, .. }
        | Fault::LateEnds { lasts, .. }
        | Fault::CoordinatorRefuses { lasts }
        | Fault::EndsTwice { lasts, .. }
        | Fault::Traps { lasts, .. }
        | Fault::SendFails { lasts } => {
            last(world, fault, lasts, |_| ());
        }
        Fault::BrokerRestart { lasts } => {
            last(world, fault, lasts, |world| {
                world.count(Course::BrokerRestart);
                world.broker.borrow_mut().restart(world.now());
            });
        }
        Fault::CoordinatorMoves { lasts } => {
            world.moves.set(world.moves.get() + 1);
            last(world, fault, lasts, |_| ());
        }
        Fault::Clock { host, ahead } => world.set_clock(host, ahead),
        Fault::Markers { lasts } => hold_markers(world, lasts),
        Fault::Compact => compact(world),
        Fault::Age => {
            compact(world);
            world.count(Course::ClockJumped);
            world.jump(DAY + 1);
            compact(world);
        }
        Fault::Kill { host, down } => {
            let course = if down.is_some() {
                Course::Killed
            } else {
                Course::KilledForGood
            };
            each_life(world, host, course, |life| life.alive = false);
            start_later(world, host, down.unwrap_or(FAULTS_UNTIL));
        }
        Fault::Freeze { host, lasts } => freeze(world, host, lasts),
        Fault::CutOff { host, lasts } => {
            let until = world.now() + lasts;
            each_life(world, host, Course::CutOff, |life| life.cut_until = until);
        }
        Fault::Twin { host } => {
            if has_life(world, host) {
                world.count(Course::Twin);
            }
            spawn_process(world, host);
        }
        Fault::Stop { host, down } => {
            each_life(world, host, Course::Stopped, |life| life.stop = true);
            start_later(world, host, down);
        }
        Fault::Drain { host, down } => {
            each_life(world, host, Course::Drained, |life| {
                life.drain = true;
                life.stop = true;
            });
            start_later(world, host, down);
        }
        Fault::Reload { host, bad } => reload(world, host, Code { bad }),
        Fault::Tear { host } | Fault::Flip { host } | Fault::Revert { host } => {
            befall_disk(world, host, fault);
        }
    }
}

/// The process that looks at files: it waits a while for its workers.
fn reload(world: &Rc<World>, host: usize, code: Code) {
    let mut lives = world.lives.borrow_mut();
    let mut all = lives.iter_mut().enumerate();
    let here = all.find(|(_, life)| life.host == host && life.alive && !life.stop);
    let Some((life, Some(trials))) = here.map(|(life, here)| (life, &mut here.trials)) else {
        return;
    };
    world.count(Course::ReloadTried);
    let number = trials.begin(Arc::new(code));
    let later = Rc::clone(world);
    world.spawn(Some(life), async move {
        later.sleep(TRIAL_MAX).await;
        let trials = &mut later.lives.borrow_mut()[life].trials;
        if let Some(trials) = trials
            && !trials.silent(number).is_empty()
        {
            trials.reject(number, "a worker says nothing".into());
        }
    });
}

/// Befalls the processes that a host has, and counts them.
fn each_life(world: &World, host: usize, course: Course, mut befalls: impl FnMut(&mut Life)) {
    let mut lives = world.lives.borrow_mut();
    let here = lives
        .iter_mut()
        .filter(|life| life.host == host && life.alive);
    for life in here {
        world.count(course);
        befalls(life);
    }
}

fn has_life(world: &World, host: usize) -> bool {
    let lives = world.lives.borrow();
    lives.iter().any(|life| life.host == host && life.alive)
}

/// Whether it lasts past the session shows when the process goes on: it may be killed before, or all is healed.
fn freeze(world: &World, host: usize, lasts: i64) {
    let (now, elapsed) = (world.now(), world.elapsed());
    each_life(world, host, Course::Frozen, |life| {
        if life.frozen_until <= now {
            life.frozen_since = Some(elapsed);
        }
        life.frozen_until = now + lasts;
    });
}

/// Something that is so for a while, and then `over`, unless all was healed before.
fn last(world: &Rc<World>, fault: Fault, ms: i64, over: impl FnOnce(&World) + 'static) {
    world.weather.borrow_mut().faults.push(fault);
    let later = Rc::clone(world);
    world.spawn(None, async move {
        later.sleep(ms).await;
        let mut weather = later.weather.borrow_mut();
        let there = weather.faults.iter().position(|other| *other == fault);
        if let Some(there) = there {
            weather.faults.remove(there);
            drop(weather);
            over(&later);
        }
    });
}

/// A process of this host starts after a while, unless one runs there.
fn start_later(world: &Rc<World>, host: usize, after: i64) {
    let later = Rc::clone(world);
    world.spawn(None, async move {
        later.sleep(after).await;
        if !has_life(&later, host) {
            spawn_process(&later, host);
        }
    });
}

/// Markers are written one by one, in any order, and all when the time is over.
fn hold_markers(world: &Rc<World>, lasts: i64) {
    world.count(Course::MarkersHeld);
    world.broker.borrow_mut().hold_markers();
    let later = Rc::clone(world);
    let until = world.elapsed() + lasts;
    world.spawn(None, async move {
        while later.elapsed() < until.min(FAULTS_UNTIL) {
            let pause = later.between(1, 40);
            later.sleep(pause).await;
            let outstanding = later.broker.borrow().outstanding_markers();
            if outstanding > 1 {
                later.count(Course::MarkerLate);
            }
            let which = later.below(outstanding);
            later.broker.borrow_mut().write_marker(which);
            later.look();
        }
        later.broker.borrow_mut().write_markers();
        later.look();
    });
}

fn compact(world: &World) {
    let mut broker = world.broker.borrow_mut();
    let compacted = broker.topics().filter(|(_, _, settings)| settings.compact);
    let compacted: Vec<(String, u32)> = compacted
        .map(|(name, partitions, _)| (name.to_owned(), partitions))
        .collect();
    for (name, partitions) in compacted {
        let left = |broker: &Broker, partition| {
            let records = broker.written((&name, partition), 0);
            records.expect("the topic is there").count()
        };
        for partition in 0..partitions {
            let before = left(&broker, partition);
            let done = broker.compact(world.now(), (&name, partition));
            done.expect("the topic is there");
            if left(&broker, partition) < before {
                world.count(Course::Compacted);
            }
        }
    }
}

fn befall_disk(world: &World, host: usize, fault: Fault) {
    let disk = &mut world.disks.borrow_mut()[host];
    let whole = disk
        .snapshots
        .iter_mut()
        .filter(|(_, file)| !file.is_empty());
    for (place, file) in whole {
        let at = world.below(file.len());
        match fault {
            Fault::Tear { .. } => {
                world.count(Course::SnapshotTorn);
                file.truncate(at);
            }
            Fault::Flip { .. } => {
                world.count(Course::SnapshotTorn);
                file[at] ^= 1 << world.below(8);
            }
            _ => {
                let backup = disk.backup.get(place);
                if let Some(backup) = backup.filter(|backup| *backup != file) {
                    world.count(Course::SnapshotReverted);
                    *file = backup.clone();
                }
            }
        }
    }
}
