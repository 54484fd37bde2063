//! What stands between the coordinator of transactions and the partitions: a proxy that holds markers back, one partition's and not
//! another's, while the broker goes on and can be asked.
//!
//! A coordinator sends markers to the leaders of partitions over the network, to its own broker too, at the address that brokers are
//! told of each other. Here that is the proxy's. It takes what is held back out of the request, and answers in the leader's name that it
//! timed out; the coordinator then asks for it again, as it would ask a slow leader. Everything else passes as it is.
//!
//! Who asks before the broker listens is kept waiting until it does, and then turned away. Where Kafka 4.3.1 runs alone and comes back, its
//! coordinator asks for markers earlier than that; and once the session of the broker's last life ends, no partition has a leader for a
//! moment. What the coordinator, refused, would ask for again just then, it takes for deleted, and the transaction for complete: its markers
//! are never written.
//!
//! Invariant: whoever finds a producer's markers held back ([`Markers::hold_back`]) finds its other ones written.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::PAUSE;
use super::codec::{Fields, Form, Request};

const WRITE_TXN_MARKERS: i16 = 27;
const REQUEST_TIMED_OUT: i16 = 7;

/// From this version on a marker says of which kind its transaction is (KIP-1228).
const VERSION_WITH_KIND: i16 = 2;

/// Longer than the requests of one broker to itself.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// Past this, a new connection is closed at once. A broker has a handful to itself.
const CONNECTIONS_MAX: usize = 64;

/// For so long a broker that was started again may take no connections.
const BACK_WITHIN: Duration = Duration::from_secs(30);

/// A topic's name and a partition of it.
type Place = (String, u32);

#[derive(Debug, Default)]
struct State {
    /// Where the broker listens, once it is there.
    broker: Option<String>,
    held: BTreeSet<Place>,
    /// How often the broker went down.
    lives: u32,
    /// By the producer's id: which markers of its last transaction were not written when they were last asked for.
    missing: BTreeMap<i64, BTreeSet<Place>>,
}

impl State {
    fn holds_back(&self, producer_id: i64) -> bool {
        let missing = self.missing.get(&producer_id);
        missing.is_some_and(|all| !all.is_empty() && all.is_subset(&self.held))
    }
}

#[derive(Clone, Debug)]
pub struct Markers {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Markers {
    /// A proxy on a port of its own, before the broker is there that has to be told of it.
    ///
    /// # Panics
    /// If there is no port.
    #[must_use]
    pub fn listen() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.expect("there is a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::default();
        let markers = Self { port, state };
        let accepts = markers.clone();
        thread::spawn(move || accepts.accept(&listener));
        markers
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on what comes is forwarded to that address.
    pub fn forward_to(&self, broker: &str) {
        self.state().broker = Some(broker.into());
    }

    /// The broker is down. What it had asked for is forgotten.
    pub fn lost_broker(&self) {
        let mut state = self.state();
        state.lives += 1;
        state.missing.clear();
    }

    /// Whatever was held back may pass.
    pub(super) fn release_all(&self) {
        self.state().held.clear();
    }

    pub(super) fn hold(&self, place: Place) {
        self.state().held.insert(place);
    }

    pub(super) fn release(&self, place: &Place) {
        self.state().held.remove(place);
    }

    /// Whether a marker that is to be written there is not.
    pub(super) fn are_missing(&self, place: &Place) -> bool {
        self.state().missing.values().any(|all| all.contains(place))
    }

    /// The ids of producers whose markers are held back.
    pub(super) fn waiting(&self) -> Vec<i64> {
        let state = self.state();
        let ids = state.missing.keys().copied();
        ids.filter(|id| state.holds_back(*id)).collect()
    }

    /// The coordinator asks for no marker in a topic that is gone, but for what it is asking for at the moment: nothing is held back
    /// there any more, so that nobody waits for what this leaves behind.
    pub(super) fn forget(&self, topic: &str) {
        let mut state = self.state();
        state.held.retain(|(name, _)| name != topic);
        for all in state.missing.values_mut() {
            all.retain(|(name, _)| name != topic);
        }
    }

    /// Whether this producer's transaction waits for markers that are held back, and for nothing else.
    pub(super) fn hold_back(&self, producer_id: i64) -> bool {
        self.state().holds_back(producer_id)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, listener: &TcpListener) {
        let open = Arc::new(AtomicUsize::new(0));
        for client in listener.incoming().flatten() {
            let (markers, open) = (self.clone(), Arc::clone(&open));
            if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            thread::spawn(move || {
                // However a connection ends, the broker opens another.
                let _ = markers.serve(client);
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    /// One request after the other, as a broker serves a connection.
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let (address, life) = {
            let state = self.state();
            (state.broker.clone(), state.lives)
        };
        let mut broker = self.reach(&address.ok_or(io::ErrorKind::NotConnected)?, life)?;
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        loop {
            let request = receive(&mut client)?;
            let answer = if request.starts_with(&WRITE_TXN_MARKERS.to_be_bytes()) {
                self.pass(&request, life, &mut broker)?
            } else {
                call(&mut broker, &request)?
            };
            send(&mut client, &answer)?;
        }
    }

    /// A connection to the broker; an error, once it listens or goes down again, where it didn't listen at first.
    fn reach(&self, address: &str, life: u32) -> io::Result<TcpStream> {
        let began = Instant::now();
        let reached = TcpStream::connect(address);
        while reached.is_err()
            && TcpStream::connect(address).is_err()
            && began.elapsed() < BACK_WITHIN
            && self.state().lives == life
        {
            thread::sleep(PAUSE);
        }
        reached
    }

    /// Forwards the markers that are not held back, and answers for all. `life` is the broker's that asked.
    fn pass(&self, request: &[u8], life: u32, broker: &mut TcpStream) -> io::Result<Vec<u8>> {
        let request = MarkersRequest::decode(request);
        let held = self.state().held.clone();
        let mut codes: Codes = BTreeMap::new();
        for marker in &request.markers {
            let refused = marker.places.iter().filter(|place| held.contains(place));
            let refused = refused.map(|place| (place.clone(), REQUEST_TIMED_OUT));
            codes.entry(marker.producer_id).or_default().extend(refused);
        }
        if codes.values().any(|refused| !refused.is_empty()) {
            thread::sleep(PAUSE);
        }
        if let Some(rest) = request.without(&held) {
            for (producer_id, written) in decode_codes(call(broker, &rest)?) {
                codes.entry(producer_id).or_default().extend(written);
            }
        }
        let mut state = self.state();
        if state.lives != life {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        for (producer_id, all) in &codes {
            let missing = all.iter().filter(|(_, code)| **code != 0);
            let missing = missing.map(|(place, _)| place.clone()).collect();
            state.missing.insert(*producer_id, missing);
        }
        Ok(encode_codes(&request.head, &codes))
    }
}

/// What became of each marker, by the producer's id.
type Codes = BTreeMap<i64, BTreeMap<Place, i16>>;

#[derive(Debug)]
struct MarkersRequest {
    version: i16,
    /// As it came, from the API key to the tags.
    head: Vec<u8>,
    markers: Vec<Marker>,
}

/// The markers of one transaction.
#[derive(Debug)]
struct Marker {
    producer_id: i64,
    epoch: i16,
    is_commit: bool,
    places: Vec<Place>,
    coordinator_epoch: i32,
    kind: i8,
}

impl MarkersRequest {
    fn decode(request: &[u8]) -> Self {
        let mut head = Fields::new(Form::Plain, request.to_vec());
        let (_, version, _) = (head.i16(), head.i16(), head.i32());
        let client_id = head.string();
        // API key, version, correlation id, length of the client id, no tags.
        let length = 2 + 2 + 4 + 2 + client_id.len() + 1;
        let mut fields = Fields::new(Form::Compact, request[length..].to_vec());
        let markers = (0..fields.array()).map(|_| Marker::decode(&mut fields, version));
        Self {
            version,
            markers: markers.collect(),
            head: request[..length].to_vec(),
        }
    }

    /// The same without what is held, if anything is left.
    fn without(&self, held: &BTreeSet<Place>) -> Option<Vec<u8>> {
        let goes = |marker: &&Marker| marker.places.iter().any(|place| !held.contains(place));
        let markers: Vec<&Marker> = self.markers.iter().filter(goes).collect();
        let mut body = Request::new(WRITE_TXN_MARKERS, self.version, Form::Compact);
        body.array(markers.len());
        for marker in &markers {
            marker.encode(&mut body, held);
        }
        body.tags();
        (!markers.is_empty()).then(|| [self.head.as_slice(), &body.body].concat())
    }
}

impl Marker {
    fn decode(fields: &mut Fields, version: i16) -> Self {
        let (producer_id, epoch, is_commit) = (fields.i64(), fields.i16(), fields.bool());
        let mut places = Vec::new();
        for _ in 0..fields.array() {
            let topic = fields.string();
            let partitions = (0..fields.array()).map(|_| fields.i32().cast_unsigned());
            places.extend(partitions.map(|partition| (topic.clone(), partition)));
            fields.tags();
        }
        let coordinator_epoch = fields.i32();
        let has_kind = version >= VERSION_WITH_KIND;
        let kind = if has_kind { fields.i8() } else { 0 };
        fields.tags();
        Self {
            producer_id,
            epoch,
            is_commit,
            places,
            coordinator_epoch,
            kind,
        }
    }

    fn encode(&self, out: &mut Request, held: &BTreeSet<Place>) {
        out.i64(self.producer_id).i16(self.epoch);
        out.bool(self.is_commit);
        let places = self.places.iter().filter(|place| !held.contains(place));
        let places: Vec<&Place> = places.collect();
        out.array(places.len());
        for (topic, partition) in places {
            out.string(topic).array(1).partition(*partition).tags();
        }
        out.i32(self.coordinator_epoch);
        if out.api_version >= VERSION_WITH_KIND {
            out.i8(self.kind);
        }
        out.tags();
    }
}

fn decode_codes(answer: Vec<u8>) -> Codes {
    let mut fields = Fields::new(Form::Compact, answer);
    fields.i32();
    fields.tags();
    let mut codes = Codes::new();
    for _ in 0..fields.array() {
        let of = codes.entry(fields.i64()).or_default();
        for _ in 0..fields.array() {
            let topic = fields.string();
            for _ in 0..fields.array() {
                let partition = fields.i32().cast_unsigned();
                of.insert((topic.clone(), partition), fields.i16());
                fields.tags();
            }
            fields.tags();
        }
        fields.tags();
    }
    codes
}

/// The answer to the request with that head.
fn encode_codes(head: &[u8], codes: &Codes) -> Vec<u8> {
    let mut answer = Request::new(WRITE_TXN_MARKERS, 0, Form::Compact);
    // Its correlation id.
    answer.body.extend_from_slice(&head[4..8]);
    answer.tags().array(codes.len());
    for (producer_id, all) in codes {
        answer.i64(*producer_id).array(all.len());
        for ((topic, partition), code) in all {
            answer.string(topic).array(1).partition(*partition);
            answer.i16(*code).tags().tags();
        }
        answer.tags();
    }
    answer.tags();
    answer.body
}

fn call(broker: &mut TcpStream, request: &[u8]) -> io::Result<Vec<u8>> {
    send(broker, request)?;
    receive(broker)
}

fn send(to: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    to.write_all(&[&length.to_be_bytes(), frame].concat())
}

fn receive(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame)?;
    Ok(frame)
}
