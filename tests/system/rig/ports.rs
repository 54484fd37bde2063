//! Ports for servers that must know theirs before they start. They lie below the range from which
//! the system gives ports to connecting sockets, so that no client can take one between the look
//! and the use. Runs of tests that go on at the same time have ports apart: what was one's, and is
//! not listened on for a while, is not found free by another.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// So many runs at the same time have ports of their own; more share theirs.
const RUNS: u32 = 4;

/// Ports of which one is asked for alone.
static ALONE: Range = Range::new(14_000, 20_000, 1);
/// Room, from one to the next, for all ports of one Kafka (see kafka.sh).
static TOGETHER: Range = Range::new(20_000, 32_000, 200);

struct Range {
    first: u32,
    stride: u32,
    /// Of each run.
    candidates: u32,
    next: AtomicU32,
}

impl Range {
    const fn new(first: u32, end: u32, stride: u32) -> Self {
        Self {
            first,
            stride,
            candidates: (end - first) / stride / RUNS,
            next: AtomicU32::new(0),
        }
    }
}

/// Which of the runs this one is. It is for as long as its file is locked.
fn run() -> u32 {
    static RUN: OnceLock<(u32, Option<File>)> = OnceLock::new();
    let (run, _) = RUN.get_or_init(|| {
        let lock = |run: u32| {
            let name = format!("millstream-test-ports-{run}");
            let file = File::create(std::env::temp_dir().join(name)).ok()?;
            file.try_lock().ok()?;
            Some((run, Some(file)))
        };
        let free = (0..RUNS).find_map(lock);
        free.unwrap_or((process::id() % RUNS, None))
    });
    *run
}

/// A port P such that P+o is free for every offset o, each under 200.
#[must_use]
pub fn free(offsets: &[u16]) -> u16 {
    let range = if offsets == [0] { &ALONE } else { &TOGETHER };
    for _ in 0..range.candidates {
        // Each run of tests starts somewhere else.
        let candidate = process::id()
            .wrapping_mul(7)
            .wrapping_add(range.next.fetch_add(1, Ordering::Relaxed))
            % range.candidates;
        let candidate = run() * range.candidates + candidate;
        let port = u16::try_from(range.first + candidate * range.stride);
        let port = port.expect("the last one fits in a u16");
        if offsets
            .iter()
            .all(|offset| TcpListener::bind((Ipv4Addr::LOCALHOST, port + offset)).is_ok())
        {
            return port;
        }
    }
    panic!(
        "no free ports at offsets {offsets:?} from {} on",
        range.first
    );
}
