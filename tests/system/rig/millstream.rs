//! The `millstream` binary as a child process: as a server that is waited for, asked, killed and
//! ended, or as a command that runs to its end.
//!
//! It is `MILLSTREAM_BIN`, or else `millstream` in cargo's release folder: the tests never build
//! it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, fs};

use crate::http::{self, Answer};
use crate::process::Process;
use crate::repository;

/// Lines kept in memory; past it the oldest go. The file has them all.
const LINES_MAX: usize = 100_000;
/// Of them, how many are shown when something fails.
const LINES_SHOWN: usize = 60;
const LISTENING: &str = "listening on http://";
const ADMIN: &str = "reloads and rollbacks: http://";
const LISTENING_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os("MILLSTREAM_BIN") {
        return path.into();
    }
    built("millstream")
}

/// The same server with faults that its environment asks for: see `host/server/src/fault.rs`.
#[must_use]
pub fn faulty() -> PathBuf {
    built("millstream-faulty")
}

fn built(name: &str) -> PathBuf {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    target.join("release").join(name)
}

/// Where all tests keep compiled code: apart from that of whoever runs them.
fn caches() -> PathBuf {
    env::temp_dir().join("millstream-tests-cache")
}

/// Runs it to its end, as a command-line tool. Its exit code is the caller's to judge.
pub fn run(arguments: &[impl AsRef<OsStr>]) -> Output {
    let result = Command::new(binary())
        .args(arguments)
        .env(
            "XDG_STATE_HOME",
            env::temp_dir().join("millstream-tests-state"),
        )
        .env("XDG_CACHE_HOME", caches())
        .stdin(Stdio::null())
        .output();
    result.unwrap_or_else(|error| panic!("{}: {error}", binary().display()))
}

/// A running server. Dropped, it is killed; when the test is failing, the end of its log is
/// printed.
#[derive(Debug)]
pub struct Millstream {
    child: Child,
    process: Process,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
}

impl Millstream {
    /// Starts it with these arguments, such as `run`, a pipeline's path, `--http` and
    /// `127.0.0.1:0`. What it says on stdout and stderr goes to the file `log`, which is appended
    /// to, so that a restart continues it.
    #[must_use]
    pub fn spawn(log: &Path, arguments: &[impl AsRef<OsStr>]) -> Self {
        Self::spawn_with(log, |command| {
            command.args(arguments);
        })
    }

    /// The same, with anything that a command can be given: environment, current folder.
    #[must_use]
    pub fn spawn_with(log: &Path, configure: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(binary());
        configure(&mut command);
        Self::spawn_command(log, command)
    }

    /// The same for another binary: what the rig's own tests use.
    #[must_use]
    pub fn spawn_command(log: &Path, mut command: Command) -> Self {
        // Never the folder of whoever runs the tests: what is left there would be found by the next run.
        let state = log.parent().map(|folder| folder.join("state-home"));
        command.env("XDG_STATE_HOME", state.unwrap_or_default());
        if !command.get_envs().any(|(name, _)| name == "XDG_CACHE_HOME") {
            command.env("XDG_CACHE_HOME", caches());
        }
        let file = File::options().create(true).append(true).open(log);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let log = Arc::new(Log {
            state: Mutex::new(Lines::new(file)),
            changed: Condvar::new(),
        });
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let readers = vec![capture(stdout, &log), capture(stderr, &log)];
        let process = Process::of(child.id());
        Self {
            child,
            process,
            log,
            readers,
        }
    }

    /// To be frozen, continued or killed from elsewhere, such as a proxy's hook.
    #[must_use]
    pub fn process(&self) -> Process {
        self.process.clone()
    }

    /// The lines so far (see [`LINES_MAX`]).
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.log.locked().kept.iter().cloned().collect()
    }

    /// The first line, from the start, that contains `text`; waits for it, and panics if there is
    /// none `within` or if the process ends without having said it.
    pub fn wait_line(&self, text: &str, within: Duration) -> String {
        self.wait_line_after(0, text, within).1
    }

    /// The same from line `from` (0 is the first) on, and with the number of the line after the one
    /// found: to wait for the next of several.
    pub fn wait_line_after(&self, from: usize, text: &str, within: Duration) -> (usize, String) {
        let deadline = Instant::now() + within;
        let mut next = from;
        let mut lines = self.log.locked();
        loop {
            let ended = lines.ended == 2;
            if let Some((number, line)) = lines.find(next, text) {
                return (number + 1, line);
            }
            next = lines.count().max(next);
            let left = deadline.saturating_duration_since(Instant::now());
            if ended || left.is_zero() {
                let why = if ended {
                    "before it ended".to_owned()
                } else {
                    format!("within {within:?}")
                };
                panic!("no line with {text:?} {why}:\n{}", lines.tail());
            }
            lines = self
                .log
                .changed
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Where it serves HTTP, as its log says: "listening on http://127.0.0.1:PORT".
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.address_behind(LISTENING)
    }

    /// Where it may be asked for reloads and rollbacks, as its log says.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.address_behind(ADMIN)
    }

    fn address_behind(&self, words: &str) -> SocketAddr {
        let line = self.wait_line(words, LISTENING_WITHIN);
        address(&line, words).unwrap_or_else(|| panic!("no address in {line:?}"))
    }

    /// The same as soon as it is known, without waiting for it.
    #[must_use]
    pub fn http_address_so_far(&self) -> Option<SocketAddr> {
        let (_, line) = self.log.locked().find(0, LISTENING)?;
        address(&line, LISTENING)
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.http_address())
    }

    /// GET; panics if it can't be reached.
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        http::get(self.http_address(), path)
            .unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", self.tail()))
    }

    /// Any method, with a body; panics if it can't be reached.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let answer = http::request(self.http_address(), method, path, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.tail()))
    }

    /// Waits until `/readyz` answers 200.
    pub fn wait_ready(&mut self, within: Duration) {
        self.wait_get("/readyz", within, |answer| answer.status == 200);
    }

    /// Waits until the answer to GET `path` is as wanted, and returns it; panics if it isn't
    /// `within`, or if the process ends.
    pub fn wait_get(
        &mut self,
        path: &str,
        within: Duration,
        wanted: impl Fn(&Answer) -> bool,
    ) -> Answer {
        let deadline = Instant::now() + within;
        let address = self.http_address();
        loop {
            let last = http::get(address, path);
            match last {
                Ok(answer) if wanted(&answer) => return answer,
                last => {
                    let ended = self.exited();
                    let waited = Instant::now() >= deadline;
                    assert!(
                        ended.is_none() && !waited,
                        "GET {path} within {within:?} (exited: {ended:?}), last {last:?}\n{}",
                        self.tail()
                    );
                }
            }
            thread::sleep(POLL);
        }
    }

    /// None while it runs.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .unwrap_or_else(|error| panic!("process {}: {error}", self.child.id()))
    }

    /// Waits for its end; panics if it still runs after `within`.
    pub fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.exited() {
                self.join_readers();
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "still running after {within:?}\n{}",
                self.tail()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.process.terminate();
        self.wait_exit(within)
    }

    /// kill -9.
    pub fn kill(&mut self) {
        // An error means that it had ended by itself, which is what was wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.join_readers();
    }

    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }

    fn tail(&self) -> String {
        self.log.locked().tail()
    }
}

impl Drop for Millstream {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!(
                "the log of process {} ends with:\n{}",
                self.child.id(),
                self.tail()
            );
        }
    }
}

/// Peak resident memory in bytes, of a running process.
#[must_use]
pub fn peak_memory(process: &Process) -> u64 {
    status(process, "VmHWM:")
}

/// Resident memory in bytes, of a running process.
#[must_use]
pub fn memory(process: &Process) -> u64 {
    status(process, "VmRSS:")
}

/// A line of `/proc/ID/status` that is a size.
fn status(process: &Process, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse::<u64>().ok());
    kilobytes.unwrap_or_else(|| panic!("process {} has no {name}", process.id())) * 1024
}

#[derive(Debug)]
struct Log {
    state: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug)]
struct Lines {
    file: File,
    kept: VecDeque<String>,
    /// Lines that are in the file only.
    dropped: usize,
    /// Of stdout and stderr.
    ended: usize,
}

impl Log {
    fn locked(&self) -> MutexGuard<'_, Lines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn new(file: File) -> Self {
        Self {
            file,
            kept: VecDeque::new(),
            dropped: 0,
            ended: 0,
        }
    }

    fn count(&self) -> usize {
        self.dropped + self.kept.len()
    }

    fn add(&mut self, line: String) {
        writeln!(self.file, "{line}").expect("the log file can be written");
        if self.kept.len() == LINES_MAX {
            self.kept.pop_front();
            self.dropped += 1;
        }
        self.kept.push_back(line);
    }

    fn find(&self, from: usize, text: &str) -> Option<(usize, String)> {
        let skipped = from.saturating_sub(self.dropped);
        let found = self
            .kept
            .iter()
            .enumerate()
            .skip(skipped)
            .find(|(_, line)| line.contains(text))?;
        Some((self.dropped + found.0, found.1.clone()))
    }

    fn tail(&self) -> String {
        let skipped = self.kept.len().saturating_sub(LINES_SHOWN);
        self.kept
            .iter()
            .skip(skipped)
            .fold(String::new(), |tail, line| tail + line + "\n")
    }
}

fn capture(stream: impl Read + Send + 'static, log: &Arc<Log>) -> JoinHandle<()> {
    let log = Arc::clone(log);
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream
            .read_until(b'\n', &mut line)
            .is_ok_and(|bytes| bytes > 0)
        {
            let text = String::from_utf8_lossy(&line);
            log.locked()
                .add(text.trim_end_matches(['\r', '\n']).to_owned());
            log.changed.notify_all();
            line.clear();
        }
        log.locked().ended += 1;
        log.changed.notify_all();
    })
}

/// What follows these words, whatever the log's format puts behind it.
fn address(line: &str, words: &str) -> Option<SocketAddr> {
    let rest = &line[line.find(words)? + words.len()..];
    let end = rest.find(|c: char| !c.is_ascii_hexdigit() && !matches!(c, '.' | ':' | '[' | ']'));
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{LISTENING, address};

    fn check(line: &str, expected: Option<&str>) {
        assert_eq!(
            address(line, LISTENING)
                .map(|address| address.to_string())
                .as_deref(),
            expected,
            "{line}"
        );
    }

    #[test]
    fn the_address_is_found_in_any_log_format() {
        check("listening on http://127.0.0.1:8080", Some("127.0.0.1:8080"));
        check(
            "\u{1b}[32mINFO\u{1b}[0m listening on http://127.0.0.1:80\u{1b}[0m",
            Some("127.0.0.1:80"),
        );
        check(
            r#"{"message":"listening on http://127.0.0.1:9","level":"INFO"}"#,
            Some("127.0.0.1:9"),
        );
        check("listening on http://[::1]:9/ and waiting", Some("[::1]:9"));
        check("listening on http://localhost", None);
    }
}
