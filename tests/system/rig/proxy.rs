//! A TCP proxy before each broker that reads as much of Kafka's protocol as it takes to know which
//! request passes, so that a test can act at exactly that moment: before the broker sees the n-th
//! EndTxn, or when it has answered it and the client doesn't know yet. It can lose a frame, hold it,
//! and let a request arrive twice, or late, on another connection.
//!
//! Clients come to it because the broker advertises its port
//! ([`crate::kafka::Options::advertised`]). It never changes a frame, and loses, reorders or delays
//! none by itself; at most [`CONNECTIONS_MAX`] connections are open at a time, and [`LATE_MAX`]
//! requests on their way.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::ports;

/// Ports are looked for so often.
const ATTEMPTS: usize = 10;
/// Past this, a new connection is closed at once.
pub const CONNECTIONS_MAX: usize = 256;
/// Past this, a request that was to come late doesn't come at all.
pub const LATE_MAX: usize = 64;
/// How long the broker may take to answer a request that came late; nobody reads what it says.
const LATE_ANSWER: Duration = Duration::from_secs(10);
/// How often whoever holds a frame looks whether the proxy ends.
const LOOK: Duration = Duration::from_millis(10);
/// Kafka's own limit (socket.request.max.bytes) on requests; answers stay below it too.
const FRAME_BYTES_MAX: usize = 100 << 20;
/// Requests of one connection that have had no answer yet. Those that get none (acks=0) stay in the
/// count.
const UNANSWERED_MAX: usize = 100_000;

pub const PRODUCE: i16 = 0;
pub const FETCH: i16 = 1;
pub const OFFSET_FETCH: i16 = 9;
pub const JOIN_GROUP: i16 = 11;
pub const HEARTBEAT: i16 = 12;
pub const INIT_PRODUCER_ID: i16 = 22;
pub const ADD_PARTITIONS_TO_TXN: i16 = 24;
pub const ADD_OFFSETS_TO_TXN: i16 = 25;
pub const END_TXN: i16 = 26;
pub const TXN_OFFSET_COMMIT: i16 = 28;
pub const DELETE_RECORDS: i16 = 21;
pub const DESCRIBE_CONFIGS: i16 = 32;

/// When a hook is called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum When {
    /// The request is whole here, and the broker has seen none of it.
    Before,
    /// The request has been written to the broker, which may not have read it.
    After,
    /// The broker's answer is whole here, and the client has seen none of it.
    Answered,
}

/// What becomes of the frame that a hook was called for. Only a request that the broker has not seen can be late, or come more than once;
/// for others these are a cut, and nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Then {
    Forward,
    /// The connection is closed on both sides; a frame not yet forwarded is lost.
    Cut,
    /// It is lost, and the connection stays.
    Drop,
    /// It waits for so long, and with it what is behind it on its connection.
    Hold(Duration),
    /// The connection is closed on both sides, and the request arrives after so long all the same: on
    /// another connection, as what a broker's socket had of it would.
    Late(Duration),
    /// It is forwarded, and once more right behind itself. The client hears the first answer.
    Twice,
}

#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
    /// Which one of its API key this is since the proxy started, from 1.
    pub number: u64,
    /// The broker that it is for, from 1.
    pub node: u16,
    /// With the four bytes of its length.
    pub bytes: usize,
}

type Hook = Box<dyn FnMut(&Request) -> Then + Send>;

struct Registered {
    api_key: i16,
    when: When,
    hook: Hook,
}

#[derive(Default)]
struct Shared {
    hooks: Mutex<Vec<Registered>>,
    counts: Mutex<HashMap<i16, u64>>,
    /// Both sockets of every open connection, by the connection's number.
    open: Mutex<HashMap<(u16, u64), [TcpStream; 2]>>,
    /// Frames that are held, and requests that are to arrive still.
    pending: AtomicUsize,
    late: Mutex<Vec<JoinHandle<()>>>,
    stopping: AtomicBool,
}

pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    acceptors: Vec<JoinHandle<()>>,
}

/// A proxy's ports, taken: whoever starts brokers that advertise them can be sure that nobody else has them by then.
#[derive(Debug)]
pub struct Listening {
    port: u16,
    listeners: Vec<TcpListener>,
}

impl Listening {
    /// Listens before so many brokers, whose ports follow one another as those here do.
    #[must_use]
    pub fn before(brokers: u16) -> Self {
        let offsets: Vec<u16> = (0..brokers).collect();
        for _ in 0..ATTEMPTS {
            let port = ports::free(&offsets);
            let listen = |offset| TcpListener::bind((Ipv4Addr::LOCALHOST, port + offset));
            // Another test run may have taken one of them between the look and the use.
            if let Ok(listeners) = offsets.iter().map(listen).collect() {
                return Self { port, listeners };
            }
        }
        panic!("a proxy finds no ports");
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Forwards to brokers, the first at this port. They need not be up yet: a connection that finds one down is closed. What is
    /// counted, and hooks, are of all of them.
    #[must_use]
    pub fn forward_to(self, broker: u16) -> Proxy {
        let shared = Arc::new(Shared::default());
        let accept = |(node, listener): (u16, TcpListener)| {
            let state = Arc::clone(&shared);
            let port = broker + node - 1;
            thread::spawn(move || accept(&listener, Broker { node, port }, &state))
        };
        let acceptors = (1..).zip(self.listeners).map(accept).collect();
        Proxy {
            port: self.port,
            shared,
            acceptors,
        }
    }
}

impl Proxy {
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Calls `hook` for every request of that API key. Hooks are called one at a time, in the order
    /// in which they were given; the frame waits meanwhile, and so does every other frame. The
    /// first to say anything but [`Then::Forward`] is the last one asked. A hook may not add hooks.
    pub fn on_request(
        &self,
        api_key: i16,
        when: When,
        hook: impl FnMut(&Request) -> Then + Send + 'static,
    ) {
        locked(&self.shared.hooks).push(Registered {
            api_key,
            when,
            hook: Box::new(hook),
        });
    }

    /// Calls `hook` once: for the `number`-th request, from 1, of that API key since the proxy
    /// started.
    pub fn on_nth(
        &self,
        api_key: i16,
        number: u64,
        when: When,
        hook: impl FnOnce() -> Then + Send + 'static,
    ) {
        let mut hook = Some(hook);
        self.on_request(api_key, when, move |request| {
            if request.number != number {
                return Then::Forward;
            }
            hook.take().map_or(Then::Forward, |hook| hook())
        });
    }

    /// How many requests of that API key have come so far.
    #[must_use]
    pub fn count(&self, api_key: i16) -> u64 {
        locked(&self.shared.counts)
            .get(&api_key)
            .copied()
            .unwrap_or(0)
    }

    /// How many frames are held, and how many requests are to arrive still.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.shared.pending.load(Ordering::SeqCst)
    }

    /// Closes all open connections; new ones are taken as before.
    pub fn cut(&self) {
        self.shared.cut();
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptors, which then see that they have to end.
        for port in (self.port..).take(self.acceptors.len()) {
            let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        }
        self.shared.cut();
        let late = std::mem::take(&mut *locked(&self.shared.late));
        for thread in self.acceptors.drain(..).chain(late) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn cut(&self) {
        for stream in locked(&self.open).values().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn counted(&self, node: u16, frame: &[u8]) -> Option<Request> {
        let api_key = i16::from_be_bytes(frame.get(4..6)?.try_into().ok()?);
        let api_version = i16::from_be_bytes(frame.get(6..8)?.try_into().ok()?);
        let correlation_id = i32::from_be_bytes(frame.get(8..12)?.try_into().ok()?);
        let mut counts = locked(&self.counts);
        let number = counts.entry(api_key).or_insert(0);
        *number += 1;
        Some(Request {
            api_key,
            api_version,
            correlation_id,
            number: *number,
            node,
            bytes: frame.len(),
        })
    }

    fn call(&self, request: &Request, when: When) -> Then {
        let mut hooks = locked(&self.hooks);
        let matching = hooks
            .iter_mut()
            .filter(|h| h.api_key == request.api_key && h.when == when);
        let mut said = matching.map(|registered| (registered.hook)(request));
        said.find(|then| *then != Then::Forward)
            .unwrap_or(Then::Forward)
    }

    /// Waits, unless the proxy ends.
    fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.stopping.load(Ordering::SeqCst) {
            thread::sleep(LOOK);
        }
    }

    /// Whether the frame goes on after what a hook said, None where its connection is to be closed.
    fn passes(&self, then: Then) -> Option<bool> {
        match then {
            Then::Forward | Then::Twice => Some(true),
            Then::Cut | Then::Late(_) => None,
            Then::Drop => Some(false),
            Then::Hold(time) => {
                self.pending.fetch_add(1, Ordering::SeqCst);
                self.wait(time);
                self.pending.fetch_sub(1, Ordering::SeqCst);
                Some(true)
            }
        }
    }

    /// Has a request arrive late.
    fn send_later(self: &Arc<Self>, broker: Broker, frame: &[u8], after: Duration) {
        let mut late = locked(&self.late);
        late.retain(|thread| !thread.is_finished());
        if late.len() >= LATE_MAX {
            eprintln!("proxy: {LATE_MAX} requests are to arrive still: another one is lost");
            return;
        }
        self.pending.fetch_add(1, Ordering::SeqCst);
        let (shared, frame) = (Arc::clone(self), frame.to_vec());
        late.push(thread::spawn(move || {
            shared.wait(after);
            // A broker that is gone by now has what was on its way to it no more.
            if !shared.stopping.load(Ordering::SeqCst) {
                let _ = arrive(broker, &frame);
            }
            shared.pending.fetch_sub(1, Ordering::SeqCst);
        }));
    }
}

/// A request on a connection of its own. Returns once the broker has answered, so that it has carried it out.
fn arrive(broker: Broker, frame: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, broker.port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LATE_ANSWER))?;
    stream.write_all(frame)?;
    read_frame(&mut stream, &mut Vec::new());
    Ok(())
}

#[derive(Clone, Copy)]
struct Broker {
    node: u16,
    port: u16,
}

/// Takes connections until the proxy is dropped, and ends the threads of each before it returns.
fn accept(listener: &TcpListener, broker: Broker, shared: &Arc<Shared>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for number in 0.. {
        let Ok((client, _)) = listener.accept() else {
            continue;
        };
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
        threads.retain(|thread| !thread.is_finished());
        if locked(&shared.open).len() >= CONNECTIONS_MAX {
            continue;
        }
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, broker.port)) else {
            continue;
        };
        let shared = Arc::clone(shared);
        threads.push(thread::spawn(move || {
            if let Err(error) = serve(number, &client, &server, broker, &shared) {
                eprintln!("proxy: connection {number}: {error}");
            }
            locked(&shared.open).remove(&(broker.node, number));
        }));
    }
    shared.cut();
    for thread in threads {
        let _ = thread.join();
    }
}

/// Forwards both ways until one side ends; an error is one of the proxy's own, not of the peers.
fn serve(
    number: u64,
    client: &TcpStream,
    server: &TcpStream,
    broker: Broker,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    locked(&shared.open).insert(
        (broker.node, number),
        [client.try_clone()?, server.try_clone()?],
    );
    if shared.stopping.load(Ordering::SeqCst) {
        return Ok(()); // The last cut may have come before the insertion.
    }
    let unanswered = Mutex::new(Unanswered::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            forward_answers(client, server, shared, &unanswered);
            close(client, server);
        });
        forward_requests(client, server, broker, shared, &unanswered);
        close(client, server);
    });
    Ok(())
}

/// What a connection waits for, by correlation id.
#[derive(Default)]
struct Unanswered {
    requests: HashMap<i32, Request>,
    /// Those that were sent twice, whose second answer is nobody's.
    doubled: HashSet<i32>,
}

fn forward_requests(
    mut client: &TcpStream,
    mut server: &TcpStream,
    broker: Broker,
    shared: &Arc<Shared>,
    unanswered: &Mutex<Unanswered>,
) {
    let mut frame = Vec::new();
    while read_frame(&mut client, &mut frame) {
        let Some(request) = shared.counted(broker.node, &frame) else {
            return;
        };
        {
            let requests = &mut locked(unanswered).requests;
            if requests.len() >= UNANSWERED_MAX {
                eprintln!("proxy: {UNANSWERED_MAX} requests without an answer: connection closed");
                return;
            }
            requests.insert(request.correlation_id, request);
        }
        let then = shared.call(&request, When::Before);
        if let Then::Late(after) = then {
            shared.send_later(broker, &frame, after);
        }
        match shared.passes(then) {
            Some(true) => {}
            Some(false) => continue,
            None => return,
        }
        if then == Then::Twice {
            locked(unanswered).doubled.insert(request.correlation_id);
            if server.write_all(&frame).is_err() {
                return;
            }
        }
        if server.write_all(&frame).is_err()
            || shared.passes(shared.call(&request, When::After)).is_none()
        {
            return;
        }
    }
}

fn forward_answers(
    mut client: &TcpStream,
    mut server: &TcpStream,
    shared: &Shared,
    unanswered: &Mutex<Unanswered>,
) {
    let mut frame = Vec::new();
    while read_frame(&mut server, &mut frame) {
        let Some(id) = frame.get(4..8).and_then(|id| id.try_into().ok()) else {
            return;
        };
        let id = i32::from_be_bytes(id);
        let request = {
            let mut unanswered = locked(unanswered);
            let request = unanswered.requests.remove(&id);
            if request.is_none() && unanswered.doubled.remove(&id) {
                continue;
            }
            request
        };
        let then = request.map_or(Then::Forward, |request| {
            shared.call(&request, When::Answered)
        });
        match shared.passes(then) {
            Some(true) => {}
            Some(false) => continue,
            None => return,
        }
        if client.write_all(&frame).is_err() {
            return;
        }
    }
}

/// One frame with its length, or false where the peer has gone, or doesn't speak Kafka.
fn read_frame(stream: &mut impl Read, frame: &mut Vec<u8>) -> bool {
    let mut length = [0; 4];
    if stream.read_exact(&mut length).is_err() {
        return false;
    }
    let bytes = u32::from_be_bytes(length) as usize;
    if bytes > FRAME_BYTES_MAX {
        eprintln!("proxy: a frame of {bytes} bytes: connection closed");
        return false;
    }
    frame.clear();
    frame.extend_from_slice(&length);
    frame.resize(4 + bytes, 0);
    stream.read_exact(&mut frame[4..]).is_ok()
}

fn close(client: &TcpStream, server: &TcpStream) {
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

/// A hook that panicked has failed its test already; the rest goes on to be taken down in order.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
