//! A process of ours as something that can be frozen, continued and killed from any thread, such as
//! a proxy's hook.
//!
//! Invariant: no signal goes to a process that is not the one meant, even if its id has been given
//! to another since.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const GONE_WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Process {
    id: u32,
    /// Clock ticks since boot at which it started: with the id, unique.
    started: String,
}

impl Process {
    /// The running process of that id.
    #[must_use]
    pub fn of(id: u32) -> Self {
        let started = started(id).unwrap_or_else(|| panic!("process {id} is gone"));
        Self { id, started }
    }

    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// False once it has exited, reaped or not.
    #[must_use]
    pub fn alive(&self) -> bool {
        started(self.id).as_ref() == Some(&self.started)
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        self.wait_gone();
    }

    /// SIGTERM; returns at once.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn wait_gone(&self) {
        let deadline = Instant::now() + GONE_WITHIN;
        while self.alive() {
            assert!(
                Instant::now() < deadline,
                "process {} is still there after {GONE_WITHIN:?}",
                self.id
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        if !self.alive() {
            return;
        }
        let id = i32::try_from(self.id)
            .ok()
            .and_then(Pid::from_raw)
            .expect("the id is of a running process");
        match kill_process(id, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => panic!("{signal:?} to process {}: {error}", self.id),
        }
    }
}

/// Field 22 of /proc/ID/stat, None for a process that is gone or a zombie. The name, field 2, may
/// hold blanks.
fn started(id: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        None
    } else {
        fields.nth(18).map(str::to_owned)
    }
}
