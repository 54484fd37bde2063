//! HTTP for the targets of `tests/fuzz`: cursors, queries, and whole connections to a process that never changes.
//!
//! Invariant: a function panics where a promise is broken, and nowhere else. No request leaves the process: all that is asked for is held
//! here, or is a replicated map's.

use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as BlockingStream;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum::serve::Listener;
use millstream_engine::json::Pointer;
use millstream_engine::pipeline::{Guarantee, Kept, Map, MapId, Pipeline};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use super::connection::Connection;
use super::cursor::Cursor;
use super::parameters::{self, LIMIT_MAX};
use super::{Hosted, Routing, Served, Standing, path, router};
use crate::directory::{Directory, MapPlace, SharedPartition};
use crate::map_memory::MapMemory;
use crate::reload::Plugins;
use crate::snapshots;

const MAP: MapId = MapId(0);
const PARTITIONS: u32 = 4;

/// What is sent to a connection, at most: it goes into a socket before anybody reads.
const SENT_MAX: usize = 64 << 10;

/// What is answered here. 500 is none of them: it stands for a bug.
const STATUSES: [u16; 9] = [200, 400, 404, 405, 409, 414, 421, 431, 503];

/// A cursor as a client sends it, and the same bytes as what a cursor consists of: one that is read is the one that was written.
pub fn cursor(bytes: &[u8]) {
    if let Ok(cursor) = Cursor::read(bytes, MAP) {
        assert_eq!(cursor.map, MAP);
        assert_eq!(cursor.write().as_bytes(), bytes, "{cursor:?}");
    }
    let mut numbers = bytes.chunks_exact(4).map(|chunk| {
        let chunk = chunk.try_into().expect("chunks have four bytes");
        u32::from_le_bytes(chunk)
    });
    let mut next = || numbers.next().unwrap_or_default();
    let cursor = Cursor {
        map: MapId(next() as usize),
        partition: next(),
        slot: next(),
        life: u64::from(next()) << 32 | u64::from(next()),
    };
    let written = cursor.write();
    let read = Cursor::read(written.as_bytes(), cursor.map);
    assert_eq!(read.ok(), Some(cursor));
    let other = MapId(cursor.map.0 ^ 1);
    assert!(Cursor::read(written.as_bytes(), other).is_err());
}

/// A query of a listing or of an entry, and a path: what is read is within its limits, and is passed on to another instance as it is.
pub fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(asked) = parameters::read(text, MAP, PARTITIONS) {
        assert!((1..=LIMIT_MAX).contains(&asked.limit));
        assert!(asked.partition.is_none_or(|number| number < PARTITIONS));
        assert!(asked.after.is_none_or(|cursor| cursor.map == MAP));
        let rest = parameters::for_partition(text, 7, 2, asked.after);
        let again = parameters::read(&rest, MAP, PARTITIONS).expect("it is passed on sound");
        assert_eq!((again.limit, again.partition), (7, Some(2)), "{rest}");
        assert_eq!(again.after, asked.after, "{rest}");
        let search = |asked: &parameters::Parameters| format!("{:?}", asked.search);
        assert_eq!(search(&again), search(&asked), "{rest}");
    }
    if let Ok(only) = parameters::of_entry(text, PARTITIONS) {
        assert!(only.is_none_or(|number| number < PARTITIONS));
    }
    let _ = path::parts(text);
    if let Ok(decoded) = path::decoded(text) {
        let encoded = percent_encode(&decoded, NON_ALPHANUMERIC).to_string();
        assert_eq!(path::decoded(&encoded).ok(), Some(decoded));
    }
}

/// The bytes of a connection, be they requests or not: each answer is whole, of a status that the interface has, and says in JSON what
/// is wrong.
pub fn requests(bytes: &[u8]) {
    thread_local! {
        static PROCESS: (Runtime, Hosted) = (
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made"),
            hosted(),
        );
    }
    let sent = bytes.get(..SENT_MAX).unwrap_or(bytes);
    let answers = PROCESS.with(|(runtime, hosted)| {
        let exchanged = exchange(sent, hosted.clone());
        runtime.block_on(async { exchanged.await.expect("a pair of sockets works") })
    });
    check_answers(sent, &answers);
}

/// A listener of one connection.
struct Lone(Option<UnixStream>);

impl Listener for Lone {
    type Io = Connection<UnixStream>;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, ()) {
        match self.0.take() {
            Some(stream) => (Connection::new(stream), ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends everything, and says that nothing more comes; returns all that is answered.
async fn exchange(sent: &[u8], hosted: Hosted) -> io::Result<Vec<u8>> {
    let (mut client, server) = BlockingStream::pair()?;
    client.write_all(sent)?;
    client.shutdown(Shutdown::Write)?;
    client.set_nonblocking(true)?;
    server.set_nonblocking(true)?;
    let (client, server) = (UnixStream::from_std(client)?, UnixStream::from_std(server)?);
    let serving = axum::serve(Lone(Some(server)), router(hosted));
    tokio::select! {
        served = async { serving.await } => panic!("the server ended: {served:?}"),
        answers = read_all(&client) => answers,
    }
}

async fn read_all(client: &UnixStream) -> io::Result<Vec<u8>> {
    let mut answers = Vec::new();
    loop {
        client.readable().await?;
        let mut bytes = [0; 16 << 10];
        match client.try_read(&mut bytes) {
            Ok(0) => return Ok(answers),
            Ok(count) => answers.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // It was closed with something of ours unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(answers),
            Err(error) => return Err(error),
        }
    }
}

fn check_answers(sent: &[u8], answers: &[u8]) {
    // An answer to HEAD has the length of a body, and none: where one may be, only the first answer's head can be told for sure.
    let may_lack_bodies = sent.windows(4).any(|word| word == b"HEAD");
    let mut rest = answers;
    while !rest.is_empty() {
        let end = rest.windows(4).position(|end| end == b"\r\n\r\n");
        let (head, after) = rest.split_at(end.expect("an answer's head ends") + 4);
        let head = std::str::from_utf8(head).expect("an answer's head is text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status: u16 = status.and_then(|word| word.parse().ok()).expect("a status");
        assert!(STATUSES.contains(&status), "{head}");
        let header = |name: &str| {
            let mut headers = lines.clone().filter_map(|line| line.split_once(": "));
            headers
                .find(|(found, _)| *found == name)
                .map(|found| found.1)
        };
        let by_hyper = matches!(status, 400 | 414 | 431);
        assert!(
            by_hyper || header("millstream-instance") == Some("here"),
            "{head}"
        );
        if may_lack_bodies {
            return;
        }
        let length = header("content-length").and_then(|length| length.parse().ok());
        let body = after.get(..length.expect("a length"));
        let body = body.expect("the whole body is there");
        if header("content-type") == Some("application/json") {
            let read: serde_json::Value = serde_json::from_slice(body).expect("JSON");
            assert!(status == 200 || read["error"].is_string() || read["ready"].is_boolean());
        } else {
            assert_eq!(status, 200, "a refusal is JSON: {head}");
        }
        rest = &after[body.len()..];
    }
}

/// Pipelines that run, start, and have ended. The one that runs holds a map of users, one partition of which is being restored, counts
/// of which a key may stand in several partitions, and a table of which one partition is not there yet.
fn hosted() -> Hosted {
    let names = ["p", "starting", "ended"].map(String::from);
    let hosted = Hosted::new("here", "127.0.0.1:1", names.into_iter());
    let pipeline = Arc::new(pipeline());
    let memory = Arc::new(MapMemory::new(&pipeline, 1 << 30, 1, 1));
    let directory = Arc::new(Directory::default());
    for (map, number) in [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (2, 0)] {
        let end = if (map, number) == (0, 3) { 1000 } else { 0 };
        let mut partition = memory.partition(MapId(map), 0, end);
        for (offset, (key, value)) in (0..).zip(ENTRIES) {
            let folded = partition.fold(offset, key, Some(value));
            folded.expect("there is memory for a few entries");
        }
        let held: (MapPlace, SharedPartition) =
            ((MapId(map), number), Arc::new(RwLock::new(partition)));
        directory.add([(&held.0, &held.1)]);
    }
    let group = Arc::new(|| Err("there are no brokers".to_owned()));
    let served = Served {
        instance: "here".into(),
        plugins: Arc::new(Plugins::new(Arc::default(), 0, 0)),
        partitions_of: vec![PARTITIONS, 2, 2],
        directory,
        memory,
        standbys: Arc::default(),
        workers: Vec::new(),
        routing: Arc::new(Routing::new("here", &pipeline, group)),
        snapshots: snapshots::counts(&pipeline),
        pipeline,
    };
    hosted.note("p", Standing::Running(Arc::new(served)));
    hosted.note("ended", Standing::Ended(Some("of \"itself\"".into())));
    hosted
}

const ENTRIES: [(&[u8], &[u8]); 6] = [
    (b"", b"the empty key"),
    (b"1", br#"{"country":"DE","age":30}"#),
    (b"2", br#"{"country":"\u00e4","age":-1.5e3}"#),
    (b"a/b c", b"[1,2,{\"country\":null}]"),
    (b"\xff\x00", b"\xff"),
    (b"\"quoted\"\n", b"null"),
];

fn pipeline() -> Pipeline {
    let index = ["/country", "/age"];
    let index = index.map(|text| Pointer::parse(text).expect("a pointer"));
    let map = |name: &str, kept, replicated| Map {
        name: name.into(),
        kept,
        replicated,
        index: index.to_vec(),
    };
    Pipeline {
        name: "p".into(),
        guarantee: Guarantee::ExactlyOnce,
        interval: Duration::from_secs(1),
        sources: Vec::new(),
        topics: Vec::new(),
        steps: Vec::new(),
        sinks: Vec::new(),
        maps: vec![
            map("users", Kept::Changelog, false),
            map("counts", Kept::State, false),
            map("countries", Kept::Topic("countries".into()), true),
        ],
    }
}
