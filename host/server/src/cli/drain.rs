//! `millstream drain`: has a pipeline that runs on this host commit, leave the group and end, so that others have its partitions at once.
//! Its process ends with it, unless it runs others too.
//!
//! HTTP changes nothing, so it is a signal that asks, and a file that says for which pipeline. The process is found by the file lock of its
//! instance. Invariant: no signal goes to a process that is not the one that holds the lock.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::here::{Here, NOBODY, Named};
use crate::seat_lock::{DrainRequest, Holder};
use crate::supervisor::{Failure, SHUTDOWN_MAX};

/// A process that was asked to gives up its workers after a while; this long afterwards it must have ended.
const GRACE: Duration = Duration::from_secs(10);
/// How often it is looked whether it has left.
const LOOK: Duration = Duration::from_millis(50);
/// A process that has nothing else to do ends within this time.
const ENDING_MAX: Duration = Duration::from_millis(500);
/// How long a process that has just started may take to write its id down.
const STARTING_MAX: Duration = Duration::from_secs(2);
const STARTING_LOOK: Duration = Duration::from_millis(50);

pub fn main(named: Named) -> Result<(), Failure> {
    let here = named.read()?;
    let Here {
        pipeline,
        instance,
        bootstrap,
    } = &here;
    let failed = |why: String| Failure::Drain {
        pipeline: pipeline.clone(),
        instance: instance.clone(),
        why,
    };
    let find = || here.holder().map_err(|why| failed(why.to_string()));
    let (process, id) = find_process(&find)?.map_err(&failed)?;
    let request = DrainRequest::of(pipeline, instance, bootstrap);
    let asked = request.make().and_then(|()| {
        let asked = pidfd_send_signal(&process, Signal::USR1);
        asked.map_err(std::io::Error::from)
    });
    asked.map_err(|why| failed(format!("it can't be asked to end: {why}")))?;
    println!("asked; waiting until it has committed, left the group and ended");
    let holds = || Ok(find()? == Holder::Process(id));
    if !wait(&process, holds)? {
        return Err(failed("it was asked to, and is still running".into()));
    }
    match find()? {
        Holder::Drained => {
            println!("instance {instance} of {pipeline} is drained: it has left, and others take its partitions over");
            Ok(())
        }
        Holder::None => Err(failed(
            "it ended, and did not say that it had committed everything and left the group: see its log. What was not committed comes \
             again"
                .into(),
        )),
        Holder::Process(_) | Holder::Unknown => {
            Err(failed("it ended, and has been started again".into()))
        }
    }
}

/// The process that holds the lock.
fn find_process(
    find: &dyn Fn() -> Result<Holder, Failure>,
) -> Result<Result<(OwnedFd, u32), String>, Failure> {
    let began = Instant::now();
    loop {
        let pid = match find()? {
            Holder::Process(pid) => pid,
            Holder::Unknown if began.elapsed() < STARTING_MAX => {
                std::thread::sleep(STARTING_LOOK);
                continue;
            }
            Holder::Unknown => {
                return Ok(Err(
                    "it runs, and does not say under which process id: it is of an earlier version"
                        .into(),
                ));
            }
            Holder::None | Holder::Drained => {
                return Ok(Err(NOBODY.into()));
            }
        };
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let Some(id) = id else {
            return Ok(Err(format!("{pid} is no process id")));
        };
        let opened = match pidfd_open(id, PidfdFlags::empty()) {
            Err(Errno::SRCH) => continue,
            opened => opened,
        };
        // Held still, by the same id: it is the process that was opened, for another of this id would not have the lock.
        if find()? == Holder::Process(pid) {
            let opened = opened.map(|process| (process, pid));
            return Ok(opened.map_err(|why| format!("process {pid} can't be opened: {why}")));
        }
    }
}

/// Waits until the process has given the name up, and for a moment more, in which it ends if it runs nothing else. Returns whether it has in
/// time.
fn wait(process: &OwnedFd, holds: impl Fn() -> Result<bool, Failure>) -> Result<bool, Failure> {
    let until = Instant::now() + SHUTDOWN_MAX + GRACE;
    while !has_ended(process, LOOK)? {
        if !holds()? {
            has_ended(process, ENDING_MAX)?;
            return Ok(true);
        }
        if Instant::now() > until {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the process ends within this time.
fn has_ended(process: &OwnedFd, within: Duration) -> Result<bool, Failure> {
    let until = Instant::now() + within;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut ended = [PollFd::new(process, PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(0),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut ended, Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(why) => {
                return Err(Failure::System {
                    what: "the process can't be waited for".into(),
                    source: why.into(),
                });
            }
        }
    }
}
