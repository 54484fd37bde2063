//! An example's pipeline on a real Kafka: records that are there or coming, any number of Millstream processes on them, and the judge over
//! what they leave. What happens to them is the tests' own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rig::folder::Folder;
use rig::kafka::{Kafka, Options};
use rig::millstream::{self, Millstream};
use rig::proxy::{self, Listening, Proxy, Then, When};
use rig::{http, judge, ports};
use serde_json::Value;

use crate::example::{Example, Half};
use crate::pipelines::{make_countries, workers};

pub const PARTITIONS: u32 = 4;
pub const READY: Duration = Duration::from_secs(90);
/// Until everything is processed, restarts and session time-outs included.
pub const DONE: Duration = Duration::from_secs(600);

/// More records than any test writes.
const ENDLESS: u64 = 1_000_000_000;

/// How many records the tests take.
pub fn events() -> u64 {
    number("MILLSTREAM_TEST_EVENTS", 100_000)
}

/// A number that the environment may set.
pub fn number(name: &str, otherwise: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(otherwise, |set| {
        set.parse()
            .unwrap_or_else(|_| panic!("{name}={set} is not a number"))
    })
}

/// Which server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    Product,
    /// With the faults that its environment asks for, a token on every record, and snapshots as often as may be.
    Faulty,
}

/// What the environment of a life asks for, by name.
pub type Faults = Vec<(&'static str, String)>;

/// Records that come while a test runs. Dropped, they stop.
struct Feed {
    writer: Option<JoinHandle<u64>>,
    /// They come while it is there, where there is one.
    wanted: Option<PathBuf>,
}

impl Feed {
    /// Waits for the last one, and says how many they were.
    fn end(mut self) -> u64 {
        self.stop();
        let writer = self.writer.take().expect("it is taken here only");
        writer.join().expect("the records come")
    }

    fn stop(&self) {
        if let Some(file) = &self.wanted {
            // It may have gone with its folder.
            let _ = std::fs::remove_file(file);
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A topic that is read.
struct Input {
    half: Half,
    /// So many records are in it, or will be by themselves.
    sent: u64,
    feed: Option<Feed>,
}

impl Input {
    fn feed(&self, broker: &str, count: u64, rate: u64, wanted: Option<PathBuf>) -> Feed {
        let mut arguments = self.half.generation(broker, self.sent, count);
        arguments.extend(["--rate".to_owned(), rate.to_string()]);
        if let Some(file) = &wanted {
            arguments.extend(["--while".to_owned(), file.display().to_string()]);
        }
        let writer = std::thread::spawn(move || judge::count(&judged(&arguments), "records"));
        Feed {
            writer: Some(writer),
            wanted,
        }
    }
}

/// A broker with some of the records in it, more of them coming, and what runs on it.
pub struct Stage {
    pub kafka: Kafka,
    pub example: Example,
    inputs: Vec<Input>,
    pub folder: Folder,
    /// How many copies of each map partition other processes keep.
    pub standby: u32,
    /// Of each instance.
    pub workers: u32,
    pub build: Build,
    /// Whether streams have all that was ever written to them.
    pub keeps_streams: bool,
    /// How many records a call of a plugin may return, if not as many as it likes: a call on more fails, and is tried in halves.
    pub records_max: Option<u32>,
    lives: u32,
    /// Where the instances have their HTTP: one that comes back is to be found where it was.
    ports: BTreeMap<String, u16>,
}

impl Stage {
    /// All records are there from the start.
    pub fn full(example: Example, kafka: Kafka) -> Self {
        Self::new(example, kafka, events())
    }

    /// A quarter of the records is there, the others come in half a minute or more.
    pub fn fed(example: Example, kafka: Kafka) -> Self {
        let mut stage = Self::new(example, kafka, events() - events() / 4 * 3);
        let rate = (stage.sent() / 10).max(100);
        stage.feed_more(events() - stage.sent(), rate);
        stage
    }

    /// Some of the records are there, and more come at this rate until [`Stage::wait_done`]: there is always something to do.
    pub fn endless(example: Example, kafka: Kafka, rate: u64) -> Self {
        let mut stage = Self::new(example, kafka, example.first());
        let each = rate.div_ceil(stage.inputs.len() as u64);
        let broker = stage.kafka.direct();
        for input in &mut stage.inputs {
            let wanted = stage
                .folder
                .write(&format!("wanted-{}", input.half.input()), "");
            input.feed = Some(input.feed(&broker, ENDLESS, each, Some(wanted)));
        }
        stage
    }

    fn new(example: Example, kafka: Kafka, sent: u64) -> Self {
        let folder = Folder::new("stage");
        if example.has(Half::Users) {
            make_countries(&kafka, &folder);
        }
        for topic in example.outputs() {
            kafka.topic(topic, PARTITIONS, &[]);
        }
        let mut inputs = Vec::new();
        for half in example.halves() {
            kafka.topic(half.input(), PARTITIONS, &[]);
            inputs.push(Input {
                half: *half,
                sent: 0,
                feed: None,
            });
        }
        let mut stage = Self {
            kafka,
            example,
            inputs,
            folder,
            standby: 0,
            workers: 1,
            build: Build::Product,
            keeps_streams: false,
            records_max: None,
            lives: 0,
            ports: BTreeMap::new(),
        };
        stage.write(sent);
        stage
    }

    /// So many records are in the topics that are read, or will be by themselves.
    pub fn sent(&self) -> u64 {
        self.inputs.iter().map(|input| input.sent).sum()
    }

    /// So many more, at this rate, from now on.
    pub fn feed_more(&mut self, count: u64, rate: u64) {
        let broker = self.kafka.direct();
        let inputs = self.inputs.len() as u64;
        for input in &mut self.inputs {
            let count = count / inputs;
            input.feed = Some(input.feed(&broker, count, rate.div_ceil(inputs), None));
            input.sent += count;
        }
    }

    /// Adds some more, at once.
    pub fn add(&mut self) {
        self.write(events() / 10);
    }

    fn write(&mut self, count: u64) {
        let broker = self.kafka.direct();
        let inputs = self.inputs.len() as u64;
        for input in &mut self.inputs {
            let count = count / inputs;
            judged(&input.half.generation(&broker, input.sent, count));
            input.sent += count;
        }
    }

    /// An instance, at the address that it had if it was there before.
    pub fn spawn(&mut self, instance: &str, interval: &str) -> Millstream {
        self.spawn_with(instance, interval, &Vec::new())
    }

    /// The same with faults.
    pub fn spawn_with(&mut self, instance: &str, interval: &str, faults: &Faults) -> Millstream {
        let known = self.ports.get(instance).copied();
        let port = known.unwrap_or_else(|| ports::free(&[0]));
        self.ports.insert(instance.to_owned(), port);
        self.lives += 1;
        let pipeline = self
            .example
            .pipeline(&self.kafka.bootstrap(), interval, self.standby);
        let pipeline = match self.records_max {
            Some(most) => with_plugins(
                &pipeline,
                &format!("limits = {{ output-records = {most} }}"),
            ),
            None => pipeline,
        };
        let file = self.folder.write("pipeline.toml", &pipeline);
        let log = self
            .folder
            .join(&format!("{:03}-{instance}.log", self.lives));
        let mut command = match self.build {
            Build::Product => {
                assert!(faults.is_empty(), "the product has no faults");
                Command::new(millstream::binary())
            }
            Build::Faulty => Command::new(millstream::faulty()),
        };
        command.arg("run").arg(file);
        command.args(["--instance", instance, "--http"]);
        command.arg(format!("127.0.0.1:{port}"));
        command.args(["--workers", &self.workers.to_string()]);
        if self.build == Build::Faulty {
            command.args(["--snapshot-interval", "1s"]);
        }
        command.envs(faults.iter().map(|(name, value)| (name, value)));
        Millstream::spawn_command(&log, command)
    }

    /// Has all instances find another version of their plugins: lines that each plugin's table gets.
    pub fn change_plugins(&self, lines: &str) {
        let file = self.folder.join("pipeline.toml");
        let text = std::fs::read_to_string(&file).expect("an instance was started with it");
        let unfinished = self
            .folder
            .write("pipeline.new", &with_plugins(&text, lines));
        std::fs::rename(unfinished, file).expect("the folder can be written");
    }

    /// The snapshots of all instances go, as with a lost disk.
    pub fn remove_snapshots(&self) {
        // Somebody may be writing one, and there may be none.
        let _ = std::fs::remove_dir_all(self.folder.join("state-home/millstream/snapshots"));
    }

    /// Adds what is missing of the records that the tests take, once no more come by themselves.
    pub fn top_up(&mut self) {
        let missing = events().saturating_sub(self.sent());
        if missing > 0 {
            self.write(missing);
        }
    }

    /// SIGKILL for the only broker, with transactions open, but none in the moment of its end: a Kafka 4.3.1 that starts again on its own
    /// has no leaders yet when it goes on with what was to be committed. It says "Couldn't find leader endpoint for partitions …, skip
    /// sending", notes the transaction as complete, and its records stay pending for ever, whatever a client does.
    pub fn crash_the_only_broker(&self, lives: &[&Millstream]) {
        const MARKED_WITHIN: Duration = Duration::from_millis(300);
        lives.iter().for_each(|life| life.process().freeze());
        std::thread::sleep(MARKED_WITHIN);
        self.kafka.kill();
        lives.iter().for_each(|life| life.process().thaw());
    }

    /// Waits until the group has committed all that is in the input topic, whichever instances run.
    pub fn wait_done(&mut self, instances: &[&Millstream]) {
        for input in &mut self.inputs {
            if let Some(feed) = input.feed.take() {
                let endless = feed.wanted.is_some();
                let fed = feed.end();
                input.sent += if endless { fed } else { 0 };
            }
        }
        let (began, sent) = (Instant::now(), self.sent());
        while committed(self.example, instances) < sent {
            assert!(
                began.elapsed() < DONE,
                "not done in time: {} of {sent}",
                committed(self.example, instances),
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Output and changelog against the reference, every entry over HTTP.
    pub fn judge(&self, instances: &[&Millstream]) {
        let broker = self.kafka.direct();
        let urls: Vec<String> = instances.iter().map(|instance| instance.url()).collect();
        let questions = self.example.questions(&broker, &urls.join(","), PARTITIONS);
        for question in questions {
            println!("{}", judged(&question).trim());
        }
        if self.build == Build::Faulty {
            println!("{}", self.tokens(judge::run).trim());
        }
    }

    /// Whether all transactions are whole that have come to their end.
    pub fn are_whole(&self) -> judge::Verdict {
        self.tokens(judge::verdict)
    }

    fn tokens<T>(&self, ask: fn(&[&str]) -> T) -> T {
        let mut topics = self.example.written();
        topics.extend(self.example.stream().filter(|_| self.keeps_streams));
        let broker = self.kafka.direct();
        let mut question = vec!["tokens", &broker];
        question.extend(topics.iter().map(String::as_str));
        ask(&question)
    }
}

fn judged(arguments: &[String]) -> String {
    judge::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A pipeline file in which each plugin's table gets these lines, in place of those of an earlier version.
fn with_plugins(text: &str, lines: &str) -> String {
    let mut changed = String::new();
    for line in text.lines() {
        let is_old = line.starts_with("limits = ") || line.starts_with("sha256 = ");
        if !is_old {
            changed += line;
            changed.push('\n');
        }
        if line.starts_with("path = ") {
            changed += lines;
            changed.push('\n');
        }
    }
    changed
}

/// Topic and partition.
pub type Place = (String, u64);

/// What a process says of itself.
pub struct Told {
    pub held: BTreeMap<Place, u64>,
    pub epochs: u64,
}

/// The answer of `/v1/status`, where there is one.
pub fn told(address: SocketAddr) -> Option<Told> {
    let answer = http::get(address, "/v1/status").ok()?;
    let workers = workers(answer.text());
    let held = workers
        .iter()
        .filter_map(|worker| worker["partitions"].as_array())
        .flatten();
    let place = |partition: &Value| {
        let number = |name: &str| partition[name].as_u64().expect("a number");
        let topic = partition["topic"].as_str().expect("a topic").to_owned();
        ((topic, number("partition")), number("committed_offset"))
    };
    let committed = |worker: &Value| worker["epochs"]["committed"].as_u64();
    Some(Told {
        held: held.map(place).collect(),
        epochs: workers
            .iter()
            .map(|worker| committed(worker).expect("a count"))
            .sum(),
    })
}

pub fn asked(instance: &Millstream) -> Told {
    told(instance.http_address()).expect("the process answers")
}

/// The committed offsets of all input partitions that these instances hold.
pub fn committed(example: Example, instances: &[&Millstream]) -> u64 {
    let mut offsets = BTreeMap::<Place, u64>::new();
    for (place, offset) in instances.iter().flat_map(|instance| asked(instance).held) {
        // While partitions move, two may believe that they hold one.
        let known = offsets.entry(place).or_default();
        *known = offset.max(*known);
    }
    let inputs: Vec<&str> = example.halves().iter().map(|half| half.input()).collect();
    let read = offsets
        .iter()
        .filter(|((topic, _), _)| inputs.contains(&topic.as_str()));
    read.map(|(_, offset)| offset).sum()
}

/// Of places that were somebody else's, each with the committed offset that was seen first since, leaves those of which nothing was
/// committed since. `held` is what somebody holds now.
pub fn keep_uncommitted(left: &mut BTreeMap<Place, Option<u64>>, held: &BTreeMap<Place, u64>) {
    left.retain(|place, known| match held.get(place) {
        None => true,
        Some(offset) => known.replace(*offset).is_none_or(|known| *offset <= known),
    });
}

pub fn epochs(instance: &Millstream) -> u64 {
    asked(instance).epochs
}

pub fn wait(what: &str, within: Duration, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < within, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Of a broker that is to stand still: it isn't fenced for it. One that is alone and is fenced as it goes on has no leaders for a moment,
/// and what was to be marked then stays pending, as in [`Stage::crash_the_only_broker`].
pub fn stands_still() -> Vec<String> {
    vec!["broker.session.timeout.ms=120000".into()]
}

/// A broker that clients reach through a proxy only.
pub fn behind_proxy() -> (Kafka, Proxy) {
    let listening = Listening::before(1);
    let kafka = Kafka::start_with(Options {
        advertised: Some(listening.port()),
        properties: stands_still(),
        ..Options::default()
    });
    let proxy = listening.forward_to(kafka.port());
    (kafka, proxy)
}

/// What a process asks for as it starts is lost: it asks again, and ends for nothing of it.
pub fn lose_what_a_start_asks_for(example: Example) {
    let (kafka, proxy) = behind_proxy();
    let mut stage = Stage::full(example, kafka);
    proxy.on_nth(proxy::DESCRIBE_CONFIGS, 1, When::Before, || Then::Drop);
    let mut life = stage.spawn("a", "200ms");
    life.wait_line("the cluster can't be looked at", READY);
    life.wait_ready(READY);
    stage.wait_done(&[&life]);
    stage.judge(&[&life]);
}

/// The broker stops right before the end of a transaction reaches it, for longer than the commit is tried.
pub fn doubt_a_commit(example: Example) {
    let (kafka, proxy) = behind_proxy();
    let mut stage = Stage::fed(example, kafka);
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
    let at = committed(example, &[&life]);
    println!(
        "broker stopped at the end of a transaction, offset {at} of {}",
        stage.sent()
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

/// The answers to some requests that close a transaction are lost: they were carried out, and nobody here knows. They are sent again, and a
/// producer that has sent one twice is not used for another transaction.
pub fn lose_answers(example: Example, api_key: i16) {
    let (kafka, proxy) = behind_proxy();
    let mut stage = Stage::fed(example, kafka);
    for n in [2, 5, 6, 9] {
        proxy.on_nth(api_key, n, When::Answered, || Then::Cut);
    }
    let mut life = stage.spawn("a", "200ms");
    life.wait_ready(READY);
    stage.wait_done(&[&life]);
    assert!(
        proxy.count(api_key) >= 9,
        "too few epochs for the test to mean anything"
    );
    life.wait_line("committed after several tries", READY);
    stage.judge(&[&life]);
}
