//! Ports for servers that must know theirs before they start. They lie below the range from which
//! the system gives ports to connecting sockets, so that no client can take one between the look
//! and the use; two test runs may still collide, and whoever starts a server tries another port
//! then.

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 20_000;
const LAST: u32 = 32_000;
/// From one candidate to the next: room for all ports of one Kafka (see kafka.sh).
const STRIDE: u32 = 200;
const CANDIDATES: u32 = (LAST - FIRST) / STRIDE;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port P such that P+o is free for every offset o, each under 200.
#[must_use]
pub fn free(offsets: &[u16]) -> u16 {
    for _ in 0..CANDIDATES {
        // Each run of tests starts somewhere else.
        let candidate = process::id()
            .wrapping_mul(7)
            .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))
            % CANDIDATES;
        let port = u16::try_from(FIRST + candidate * STRIDE).expect("LAST fits in a u16");
        if offsets
            .iter()
            .all(|offset| TcpListener::bind((Ipv4Addr::LOCALHOST, port + offset)).is_ok())
        {
            return port;
        }
    }
    panic!("no free ports at offsets {offsets:?} between {FIRST} and {LAST}");
}
