//! The faults themselves, as the environment asks for them:
//!
//! - `MILLSTREAM_FAULT_KILL=point:n`: the process kills itself, by SIGKILL, when it reaches that point for the n-th time;
//! - `MILLSTREAM_FAULT_DISK=full:n` or `eio:n`: from the n-th on, what is written of snapshots fails, for want of room or by the disk;
//! - `MILLSTREAM_FAULT_KEEP_PRODUCER=1`: a producer is kept after an abort, and after requests that were sent twice, as far as librdkafka
//!   lets it: the control, which is to be seen to be wrong;
//! - `MILLSTREAM_FAULT_SCOPE=name`: the process says that it runs on another host.
//!
//! And every record carries the token of its transaction in the header `millstream-token`, in place of one that it has from a stream.
//! What is asked for wrongly ends the process: a test that runs without its fault would prove nothing.

use std::cell::RefCell;
use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use millstream_engine::commit::ledger::Ledger;
use millstream_engine::commit::token::Token;
use millstream_engine::record::{Headers, Record};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

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

static DISK: LazyLock<Option<(Errno, Nth)>> = LazyLock::new(|| {
    let asked = std::env::var("MILLSTREAM_FAULT_DISK").ok()?;
    let (kind, times) = asked.split_once(':').unwrap_or((&asked, "1"));
    let errno = match kind {
        "full" => Errno::NOSPC,
        "eio" => Errno::IO,
        _ => panic!("MILLSTREAM_FAULT_DISK={asked} is no fault of a disk"),
    };
    Some((errno, Nth::new(times)))
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

/// Before something of a snapshot goes to the disk.
pub fn write_to_disk() -> io::Result<()> {
    match &*DISK {
        Some((errno, nth)) if nth.reached().is_some() => {
            eprintln!("fault: the disk fails");
            Err((*errno).into())
        }
        _ => Ok(()),
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
