//! The spine, judged: example 01 on a real Kafka, alone and under every kind of disturbance, with a judge that shares no code with us.
//!
//! `MILLSTREAM_TEST_EVENTS` sets how many events each test takes; `cargo xtask prove` runs a million.

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rig::folder::Folder;
use rig::kafka::{Kafka, Options};
use rig::millstream::{self, Millstream};
use rig::proxy::{self, Proxy, Then, When};
use rig::{judge, ports};

use crate::pipelines::{
    ADULTS, CHANGELOG, COUNTRIES, EVENTS, MAP, MIN_AGE, NAME, make_countries, materialize_users,
    workers,
};

const PARTITIONS: u32 = 4;
const READY: Duration = Duration::from_secs(90);
/// Until everything is processed, restarts and session time-outs included.
const DONE: Duration = Duration::from_secs(600);
const KILLS: u32 = 10;

/// How many events the tests take.
fn events() -> u64 {
    let set = std::env::var("MILLSTREAM_TEST_EVENTS").ok();
    set.map_or(100_000, |set| {
        set.parse().expect("MILLSTREAM_TEST_EVENTS is a number")
    })
}

/// A broker with some of the events in it, more of them coming, and what runs on it.
struct Stage {
    kafka: Kafka,
    folder: Folder,
    events: u64,
    feed: Option<JoinHandle<()>>,
    lives: u32,
}

impl Stage {
    /// All events are there from the start.
    fn full(kafka: Kafka) -> Self {
        Self::new(kafka, 0)
    }

    /// A quarter of the events is there, the others come in half a minute or more: there is always something to do.
    fn fed(kafka: Kafka) -> Self {
        let mut stage = Self::new(kafka, events() / 4 * 3);
        let (from, rate) = (stage.events, (stage.events / 10).max(100));
        let count = events() - from;
        let generate = stage.generation(from, count, Some(rate));
        stage.feed = Some(std::thread::spawn(generate));
        stage.events += count;
        stage
    }

    fn new(kafka: Kafka, later: u64) -> Self {
        for topic in [EVENTS, ADULTS] {
            kafka.topic(topic, PARTITIONS, &[]);
        }
        let folder = Folder::new("exactly-once");
        make_countries(&kafka, &folder);
        let stage = Self {
            kafka,
            folder,
            events: events() - later,
            feed: None,
            lives: 0,
        };
        stage.generation(0, stage.events, None)();
        stage
    }

    /// Writes events `from..from + count`. One in a hundred is malformed.
    fn generation(&self, from: u64, count: u64, rate: Option<u64>) -> impl FnOnce() + Send + use<> {
        let ids = (events() / 5).max(1);
        let mut arguments = vec!["generate".to_owned(), self.kafka.direct(), EVENTS.into()];
        arguments.extend([count, ids, 10].map(|number| number.to_string()));
        arguments.extend(["--from".to_owned(), from.to_string()]);
        arguments.extend(
            rate.into_iter()
                .flat_map(|rate| ["--rate".to_owned(), rate.to_string()]),
        );
        move || {
            judge::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    /// Adds some more, at once.
    fn add(&mut self) {
        let more = events() / 10;
        self.generation(self.events, more, None)();
        self.events += more;
    }

    /// So many more, at this rate, from now on.
    fn feed(&mut self, count: u64, rate: u64) {
        let generate = self.generation(self.events, count, Some(rate));
        self.feed = Some(std::thread::spawn(generate));
        self.events += count;
    }

    fn spawn(&mut self, instance: &str, interval: &str) -> Millstream {
        self.spawn_at(instance, interval, 0)
    }

    /// The same with HTTP at this port.
    fn spawn_at(&mut self, instance: &str, interval: &str, port: u16) -> Millstream {
        self.lives += 1;
        let file = self.folder.write(
            "pipeline.toml",
            &materialize_users(&self.kafka.bootstrap(), interval),
        );
        let log = self.folder.join(&format!("{instance}-{}.log", self.lives));
        let file = file.display().to_string();
        Millstream::spawn(
            &log,
            &[
                "run",
                &file,
                "--instance",
                instance,
                "--http",
                &format!("127.0.0.1:{port}"),
            ],
        )
    }

    /// Waits until the group has committed all that is in the topic, whichever instances run.
    fn wait_done(&mut self, instances: &[&Millstream]) {
        if let Some(feed) = self.feed.take() {
            feed.join().expect("the events come");
        }
        let began = Instant::now();
        while total_committed(instances) < self.events {
            assert!(
                began.elapsed() < DONE,
                "not done in time: {} of {}",
                total_committed(instances),
                self.events
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Output and changelog against the reference, every entry over HTTP.
    fn judge(&self, instances: &[&Millstream]) {
        let broker = self.kafka.direct();
        let table = ["--countries", COUNTRIES];
        let adults = ["adults", &broker, EVENTS, ADULTS, MIN_AGE];
        println!("{}", judge::run(&[&adults[..], &table[..]].concat()).trim());
        let urls: Vec<String> = instances.iter().map(|instance| instance.url()).collect();
        let (urls, partitions) = (urls.join(","), PARTITIONS.to_string());
        let arguments = [
            "changelog",
            &broker,
            EVENTS,
            CHANGELOG,
            MIN_AGE,
            &partitions,
        ];
        let queries = ["--http", &urls, "--pipeline", NAME, "--map", MAP];
        println!(
            "{}",
            judge::run(&[&arguments[..], &queries[..], &table[..]].concat()).trim()
        );
    }
}

/// The committed offsets of all partitions that these instances hold.
fn total_committed(instances: &[&Millstream]) -> u64 {
    instances.iter().map(|instance| committed(instance)).sum()
}

fn committed(instance: &Millstream) -> u64 {
    let workers = workers(instance.get("/v1/status").text());
    let held = workers
        .iter()
        .filter_map(|worker| worker["partitions"].as_array())
        .flatten();
    held.map(|partition| partition["committed_offset"].as_u64().expect("an offset"))
        .sum()
}

fn epochs(instance: &Millstream) -> u64 {
    let workers = workers(instance.get("/v1/status").text());
    let committed = |worker: &serde_json::Value| worker["epochs"]["committed"].as_u64();
    workers
        .iter()
        .map(|worker| committed(worker).expect("a count"))
        .sum()
}

/// A broker that clients reach through a proxy only.
fn behind_proxy() -> (Kafka, Proxy) {
    let port = ports::free(&[0]);
    let kafka = Kafka::start_with(Options {
        advertised: Some(port),
        ..Options::default()
    });
    let proxy = Proxy::start(port, kafka.port());
    (kafka, proxy)
}

fn wait(what: &str, within: Duration, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < within, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn exactly_once_undisturbed_and_over_a_clean_restart() {
    let mut stage = Stage::full(Kafka::start());
    let mut first = stage.spawn("a", "1s");
    first.wait_ready(READY);
    let half = stage.events / 2;
    wait("half of the events", DONE, || committed(&first) >= half);
    assert!(first.terminate(READY).success());
    let mut second = stage.spawn("a", "1s");
    second.wait_ready(READY);
    stage.wait_done(&[&second]);
    stage.judge(&[&second]);
}

/// Each kill comes with a transaction open, after at least one epoch of that life was committed.
#[test]
fn exactly_once_over_ten_kills() {
    let mut stage = Stage::fed(Kafka::start());
    for kill in 1..=KILLS {
        let began = Instant::now();
        let mut life = stage.spawn("a", "200ms");
        life.wait_line("listening on", READY);
        wait("an epoch", READY, || epochs(&life) > 0);
        let resumed = began.elapsed();
        let before = epochs(&life);
        wait("another epoch", READY, || epochs(&life) > before);
        // Half an epoch later there is a transaction open.
        std::thread::sleep(Duration::from_millis(100));
        let (at, epochs) = (committed(&life), epochs(&life));
        println!(
            "kill {kill}: offset {at}, {epochs} epochs; first commit seen {resumed:.1?} after the start"
        );
        life.kill();
    }
    let mut last = stage.spawn("a", "200ms");
    last.wait_ready(READY);
    stage.wait_done(&[&last]);
    stage.judge(&[&last]);
}

#[test]
fn exactly_once_over_a_broker_restart() {
    let mut stage = Stage::full(Kafka::start());
    let mut life = stage.spawn("a", "20ms");
    life.wait_ready(READY);
    wait("some epochs", READY, || epochs(&life) >= 2);
    let at = committed(&life);
    // Killed, not stopped: a Kafka 4.3.1 that is the only broker was seen to note a transaction as committed, while it shut down,
    // without having written the marker to the group's offsets. These are pending for ever then, whatever a client does.
    stage.kafka.kill();
    // Longer than the session: the worker is thrown out of the group before it can know.
    std::thread::sleep(Duration::from_secs(10));
    stage.kafka.restart();
    println!("broker restarted at offset {at} of {}", stage.events);
    assert_eq!(life.exited(), None, "a broker that is away ends nothing");
    stage.add();
    stage.wait_done(&[&life]);
    stage.judge(&[&life]);
}

#[test]
fn exactly_once_with_a_second_instance_joining_and_leaving() {
    let mut stage = Stage::fed(Kafka::start());
    let mut first = stage.spawn("a", "200ms");
    first.wait_ready(READY);
    wait("some epochs", READY, || epochs(&first) >= 2);
    println!(
        "second instance at offset {} of {}",
        committed(&first),
        stage.events
    );
    let mut second = stage.spawn("b", "200ms");
    second.wait_ready(READY);
    stage.add();
    stage.wait_done(&[&first, &second]);
    assert!(
        committed(&second) > 0,
        "the second instance was given partitions"
    );
    stage.judge(&[&first, &second]);
    // Killed for good: the first one takes its partitions over once the session is over.
    stage.add();
    let before = committed(&second);
    wait("an epoch of the second", READY, || {
        committed(&second) > before
    });
    let taken = first.lines().len();
    second.kill();
    let killed = Instant::now();
    stage.add();
    let gone = ".b.0 is gone: what it may have left open is ended";
    first.wait_line_after(taken, gone, READY);
    let epoch = epochs(&first);
    wait("an epoch of all partitions", READY, || {
        epochs(&first) > epoch
    });
    println!(
        "taken over, and committed, {:.1} s after the kill",
        killed.elapsed().as_secs_f64()
    );
    stage.wait_done(&[&first]);
    stage.judge(&[&first]);
}

/// The broker stops right before the end of a transaction reaches it, for longer than the commit is tried.
#[test]
fn exactly_once_with_a_commit_left_in_doubt() {
    let (kafka, proxy) = behind_proxy();
    let mut stage = Stage::fed(kafka);
    let mut life = stage.spawn("a", "200ms");
    life.wait_ready(READY);
    wait("some epochs", READY, || epochs(&life) >= 2);
    let broker = stage.kafka.process(1);
    let (frozen, is_frozen) = std::sync::mpsc::channel();
    let next = proxy.count(proxy::END_TXN) + 2;
    proxy.on_nth(proxy::END_TXN, next, When::Before, move || {
        broker.freeze();
        // All its threads have to have stopped before the request comes.
        std::thread::sleep(Duration::from_millis(100));
        let _ = frozen.send(());
        Then::Forward
    });
    is_frozen
        .recv_timeout(READY)
        .expect("a transaction comes to its end");
    let at = committed(&life);
    println!(
        "broker stopped at the end of a transaction, offset {at} of {}",
        stage.events
    );
    life.wait_line("the commit is in doubt", Duration::from_secs(60));
    stage.kafka.thaw();
    stage.wait_done(&[&life]);
    let status = life.get("/v1/status");
    assert!(
        status.text().contains("\"in_doubt\":1"),
        "{}",
        status.text()
    );
    stage.judge(&[&life]);
}

/// The answer to the end of a transaction is lost: it was committed, and nobody here knows.
#[test]
fn exactly_once_when_the_answer_to_a_commit_is_lost() {
    let (kafka, proxy) = behind_proxy();
    let mut stage = Stage::fed(kafka);
    for n in [2, 5, 6, 9] {
        proxy.on_nth(proxy::END_TXN, n, When::Answered, || Then::Cut);
    }
    let mut life = stage.spawn("a", "200ms");
    life.wait_ready(READY);
    stage.wait_done(&[&life]);
    assert!(
        proxy.count(proxy::END_TXN) >= 9,
        "too few epochs for the test to mean anything"
    );
    stage.judge(&[&life]);
}

/// By partition.
fn offsets(instance: &Millstream) -> BTreeMap<u64, u64> {
    let workers = workers(instance.get("/v1/status").text());
    let held = workers
        .iter()
        .filter_map(|worker| worker["partitions"].as_array())
        .flatten();
    held.map(|partition| {
        let number = |field: &str| partition[field].as_u64().expect("a number");
        (number("partition"), number("committed_offset"))
    })
    .collect()
}

/// SIGTERM keeps the seat: a process that comes back in time finds its partitions where they were. Drained, it leaves them to others at
/// once.
#[test]
fn exactly_once_over_a_restart_that_moves_nothing_and_a_drain_that_moves_all() {
    let mut stage = Stage::full(Kafka::start());
    let mut first = stage.spawn("a", "200ms");
    first.wait_ready(READY);
    let port = ports::free(&[0]);
    let mut second = stage.spawn_at("b", "200ms", port);
    second.wait_ready(READY);
    let half = PARTITIONS as usize / 2;
    wait("half of the partitions each", READY, || {
        offsets(&first).len() == half && offsets(&second).len() == half
    });
    stage.feed(events(), events() / 25);
    let (held, lines) = (offsets(&second), first.lines().len());
    wait("epochs of both", READY, || {
        let moved = |before: &BTreeMap<u64, u64>, now: &BTreeMap<u64, u64>| {
            before.iter().all(|(at, offset)| now.get(at) > Some(offset))
        };
        moved(&held, &offsets(&second)) && epochs(&first) > 0
    });

    let stopped = Instant::now();
    assert!(second.terminate(READY).success());
    let mut second = stage.spawn_at("b", "200ms", port);
    second.wait_ready(READY);
    println!("restarted within {:.1?}", stopped.elapsed());
    assert!(offsets(&second).keys().eq(held.keys()));
    let moved = |line: &&String| line.contains("assigned:") || line.contains("given up");
    let said = first.lines();
    assert_eq!(said[lines..].iter().find(moved), None, "partitions moved");
    wait("an epoch of the second", READY, || epochs(&second) > 0);

    let before = offsets(&second);
    let file = stage.folder.join("pipeline.toml").display().to_string();
    let drain = |instance: &str| millstream::run(&["drain", &file, "--instance", instance]);
    let asked = Instant::now();
    let output = drain("b");
    let drained = asked.elapsed();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("is drained"),
        "{output:?}"
    );
    wait("epochs of all partitions", READY, || {
        let now = offsets(&first);
        before.iter().all(|(at, offset)| now.get(at) > Some(offset))
    });
    println!(
        "drained in {drained:.1?}; the other one had committed epochs of all partitions {:.1?} after it was asked for",
        asked.elapsed()
    );
    assert!(
        asked.elapsed() < Duration::from_secs(7),
        "as slow as a session time-out"
    );
    assert!(second.wait_exit(READY).success());
    let output = drain("b");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no such process runs on this host"), "{text}");
    stage.wait_done(&[&first]);
    stage.judge(&[&first]);
}
