//! The faults themselves, as the environment asks for them:
//!
//! - `MILLSTREAM_FAULT_KILL=point:n`: the process kills itself, by SIGKILL, when it reaches that point for the n-th time;
//! - `MILLSTREAM_FAULT_DISK=kind:n`: from the n-th on, what is asked of the disk for snapshots fails. `full`: there is room for half of what
//!   is written; `eio-create`, `eio-write`, `eio-sync`, `eio-rename`, `eio-folder`, `eio-list`, `eio-read`: that fails, and nothing else;
//! - `MILLSTREAM_FAULT_HANG=call:n`: the n-th such call into librdkafka never comes back. `offsets`, `commit`: it was not made; `committed`: it
//!   was, and succeeded;
//! - `MILLSTREAM_FAULT_KEEP_PRODUCER=1`: a producer is kept after an abort, and after requests that were sent twice, as far as librdkafka
//!   lets it: the control, which is to be seen to be wrong;
//! - `MILLSTREAM_FAULT_SCOPE=name`: the process says that it runs on another host.
//!
//! And every record carries the token of its transaction in the header `millstream-token`, in place of one that it has from a stream.
//! What is asked for wrongly ends the process: a test that runs without its fault would prove nothing.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use millstream_engine::commit::ledger::Ledger;
use millstream_engine::commit::token::Token;
use millstream_engine::record::{Headers, Record};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

use super::Disk;
use crate::cluster::Producer;

const TOKEN: &[u8] = b"millstream-token";

/// Something that happens at the n-th of several times.
#[derive(Debug)]
struct Nth {
    times: u64,
    so_far: AtomicU64,
}

impl Nth {
    fn new(times: &str) -> Self {
        let times = times.parse().ok().filter(|&times| times > 0);
        Self {
            times: times.expect("a fault happens at a time from 1 on"),
            so_far: AtomicU64::new(0),
        }
    }

    /// Which one this is, if it is the n-th or a later one.
    fn reached(&self) -> Option<u64> {
        let now = self.so_far.fetch_add(1, Ordering::SeqCst) + 1;
        (now >= self.times).then_some(now)
    }
}

static KILL: LazyLock<Option<(String, Nth)>> = LazyLock::new(|| {
    let asked = std::env::var("MILLSTREAM_FAULT_KILL").ok()?;
    let (point, times) = asked.split_once(':').unwrap_or((&asked, "1"));
    Some((point.to_owned(), Nth::new(times)))
});

/// What fails of a disk, and when.
#[derive(Debug)]
struct BadDisk {
    kind: String,
    what: Disk,
    errno: Errno,
    nth: Nth,
}

static DISK: LazyLock<Option<BadDisk>> = LazyLock::new(|| {
    let asked = std::env::var("MILLSTREAM_FAULT_DISK").ok()?;
    let (kind, times) = asked.split_once(':').unwrap_or((&asked, "1"));
    let (what, errno) = match kind {
        "full" => (Disk::Write, Errno::NOSPC),
        "eio-create" => (Disk::Create, Errno::IO),
        "eio-write" => (Disk::Write, Errno::IO),
        "eio-sync" => (Disk::Sync, Errno::IO),
        "eio-rename" => (Disk::Rename, Errno::IO),
        "eio-folder" => (Disk::SyncFolder, Errno::IO),
        "eio-list" => (Disk::List, Errno::IO),
        "eio-read" => (Disk::Read, Errno::IO),
        _ => panic!("MILLSTREAM_FAULT_DISK={asked} is no fault of a disk"),
    };
    Some(BadDisk {
        kind: kind.to_owned(),
        what,
        errno,
        nth: Nth::new(times),
    })
});

static HANG: LazyLock<Option<(String, Nth)>> = LazyLock::new(|| {
    let asked = std::env::var("MILLSTREAM_FAULT_HANG").ok()?;
    let (call, times) = asked.split_once(':').unwrap_or((&asked, "1"));
    let is_known = ["offsets", "commit", "committed"].contains(&call);
    assert!(
        is_known,
        "MILLSTREAM_FAULT_HANG={asked} is no call that hangs"
    );
    Some((call.to_owned(), Nth::new(times)))
});

static KEEP_PRODUCER: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("MILLSTREAM_FAULT_KEEP_PRODUCER").is_some());

static SCOPE: LazyLock<Option<String>> =
    LazyLock::new(|| std::env::var("MILLSTREAM_FAULT_SCOPE").ok());

thread_local! {
    /// Of the transaction that this worker has open, or had last.
    static STAMP: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A place where a death matters.
pub fn reach(point: &'static str) {
    if let Some((wanted, nth)) = &*KILL
        && wanted == point
        && let Some(time) = nth.reached()
    {
        eprintln!("fault: killed at {point}, reached {time} times");
        let _ = kill_process(getpid(), Signal::KILL);
        loop {
            // The signal may come a moment later.
            std::thread::park();
        }
    }
}

/// Before the disk is asked for something.
pub fn disk(what: Disk) -> io::Result<()> {
    match &*DISK {
        Some(bad) if bad.what == what && bad.nth.reached().is_some() => {
            eprintln!("fault: the disk fails: {}", bad.kind);
            Err(bad.errno.into())
        }
        _ => Ok(()),
    }
}

/// Writes to a disk; a full one takes a half.
pub fn write_all(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    if let Err(why) = disk(Disk::Write) {
        if why.kind() == io::ErrorKind::StorageFull {
            file.write_all(&bytes[..bytes.len() / 2])?;
        }
        return Err(why);
    }
    file.write_all(bytes)
}

/// A call into librdkafka that may not come back. Others of the process do.
pub fn hang(call: &'static str) {
    if let Some((wanted, nth)) = &*HANG
        && wanted == call
        && nth.reached() == Some(nth.times)
    {
        eprintln!("fault: a call does not come back: {call}");
        loop {
            std::thread::park();
        }
    }
}

/// As if the process ran on another host.
pub fn scope() -> Option<&'static str> {
    SCOPE.as_deref()
}

/// Records that this thread sends from now on are of this transaction.
pub fn began(token: &Token) {
    let stamp = token.to_metadata(&Ledger::default());
    STAMP.set(Some(stamp));
}

/// Sends a record with the token of its transaction.
pub fn stamped<T>(record: &Record<'_>, send: impl FnOnce(&Record<'_>) -> T) -> T {
    let mut headers = Headers::default();
    for (name, value) in record.headers.iter().filter(|(name, _)| *name != TOKEN) {
        headers.push(0, name, value);
    }
    STAMP.with_borrow(|stamp| {
        let stamp = stamp.as_ref().expect("records are sent in an open epoch");
        headers.push(0, TOKEN, Some(stamp.as_bytes()));
    });
    send(&Record {
        headers: headers.of(0),
        ..*record
    })
}

/// Whether the producer was kept: it is to be used for another transaction.
pub fn keeps(producer: &mut impl Producer) -> bool {
    *KEEP_PRODUCER && producer.keep()
}
