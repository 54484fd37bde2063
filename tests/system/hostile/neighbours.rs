//! An honest pipeline in one process with hostile ones, on a real Kafka: how late its records are, and its answers to questions.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rig::folder::Folder;
use rig::judge;
use rig::millstream::{self, Millstream};
use serde_json::Value;

use super::case::Case;
use crate::pipelines::{WITHIN, dump, plugin, shared_kafka, write};
use crate::timings::Timings;

/// Records of the honest pipeline, a second.
const RATE: u64 = 500;

/// Evil records that the hostile pipeline finds: more than it can deal with while the honest one is watched.
const EVIL_RECORDS: usize = 2_000;

/// What was seen of the honest pipeline.
pub struct Seen {
    /// From a record's being written to its being written out.
    pub records: Timings,
    /// Questions about a key.
    pub questions: Timings,
}

/// Runs the honest pipeline for so many seconds, beside a pipeline of these cases, if there are any.
pub fn run(name: &str, hostile: &[Case], seconds: u64) -> Seen {
    let folder = Folder::new(name);
    let (input, output) = (format!("{name}-in"), format!("{name}-out"));
    for topic in [&input, &output] {
        shared_kafka().topic(topic, 1, &["message.timestamp.type=LogAppendTime"]);
    }
    let mut files = vec![honest(&folder, name)];
    if !hostile.is_empty() {
        files.push(beside(&folder, &format!("{name}-evil"), hostile));
    }
    let mut command = Command::new(millstream::binary());
    command.arg("run").args(&files);
    command.args(["--instance", "a", "--http", "127.0.0.1:0"]);
    let mut life = Millstream::spawn_command(&folder.join("millstream.log"), command);
    life.wait_ready(WITHIN);
    let count = RATE * seconds;
    let questions = ask_while_written(&mut life, name, &input, count);
    let path = format!("/v1/pipelines/{name}");
    life.wait_get("/v1/status", WITHIN, |answer| {
        dealt_with(answer.text(), name) == count
    });
    assert_eq!(life.get(&format!("{path}/readyz")).status, 200);
    // The hostile one is in the middle of a batch that takes it minutes.
    life.kill();
    Seen {
        records: compare(&dump(&input), &dump(&output)),
        questions,
    }
}

/// The same beside a thread that takes a processor and does nothing with it: what of a difference is the machine's.
pub fn beside_a_thread(name: &str, seconds: u64) -> Seen {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let seen = run(name, &[], seconds);
        over.store(true, Ordering::Relaxed);
        seen
    })
}

/// The honest pipeline: what comes in goes out, and into a map.
fn honest(folder: &Folder, name: &str) -> String {
    let text = format!(
        "name = \"{name}\"\nkafka.bootstrap.servers = \"{}\"\nplugins.probe.path = {:?}\ncheckpoint.interval = \"100ms\"\n\
         sources.in.topics = [\"{name}-in\"]\nsteps.probe = {{ inputs = [\"in\"], plugin = \"probe\" }}\n\
         sinks.out = {{ inputs = [\"probe\"], topic = \"{name}-out\" }}\nmaps.kept = {{}}\n\
         sinks.kept = {{ inputs = [\"probe\"], map = \"kept\" }}\n",
        shared_kafka().bootstrap(),
        plugin("probe.wasm")
    );
    let file = folder.write("honest.toml", &text);
    file.display().to_string()
}

/// The hostile one, with its records waiting for it.
fn beside(folder: &Folder, name: &str, cases: &[Case]) -> String {
    for topic in ["in", "out"] {
        shared_kafka().topic(&format!("{name}-{topic}"), 1, &[]);
    }
    let evil = &cases.first().expect("there are some").value;
    let records = format!("k\t{evil}\n").repeat(EVIL_RECORDS);
    write(folder, &format!("{name}-in"), &records);
    let steps: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    let lines = cases.iter().map(|case| case.lines(folder.path()));
    let text = format!(
        "name = \"{name}\"\nkafka.bootstrap.servers = \"{}\"\ncheckpoint.interval = \"100ms\"\n\
         sources.in.topics = [\"{name}-in\"]\n{}\nsinks.out = {{ inputs = {steps:?}, topic = \"{name}-out\" }}\n",
        shared_kafka().bootstrap(),
        lines.collect::<String>(),
    );
    let file = folder.write("evil.toml", &text);
    file.display().to_string()
}

/// Has the records written, and asks for keys meanwhile.
fn ask_while_written(life: &mut Millstream, name: &str, topic: &str, count: u64) -> Timings {
    const IDS: u64 = 100;
    let mut questions = Timings::default();
    let bootstrap = shared_kafka().direct();
    let (count, ids, rate) = (count.to_string(), IDS.to_string(), RATE.to_string());
    std::thread::scope(|scope| {
        let arguments = [
            "generate", &bootstrap, topic, &count, &ids, "0", "--rate", &rate,
        ];
        let written = scope.spawn(move || judge::run(&arguments));
        let mut at = 0;
        while !written.is_finished() {
            let path = format!("/v1/pipelines/{name}/maps/kept/entries/u{}", at % IDS);
            let asked = Instant::now();
            let answer = life.get(&path);
            questions.add(asked.elapsed());
            assert!(matches!(answer.status, 200 | 404), "{answer:?}");
            at += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    questions
}

fn dealt_with(status: &str, name: &str) -> u64 {
    let pipelines = crate::pipelines::told(status);
    let own = pipelines.iter().find(|pipeline| pipeline["name"] == name);
    let workers = own.and_then(|own| own["workers"].as_array());
    let workers = workers.into_iter().flatten();
    workers
        .filter_map(|worker| worker["records"].as_u64())
        .sum()
}

/// How late each record came out; each came out once, in order.
fn compare(input: &[Value], output: &[Value]) -> Timings {
    let what = |records: &[Value]| -> Vec<(Value, Value)> {
        let records = records.iter();
        records
            .map(|record| (record["key"].clone(), record["value"].clone()))
            .collect()
    };
    assert!(
        what(input) == what(output),
        "{} records in, {} out",
        input.len(),
        output.len()
    );
    let mut late = Timings::default();
    let time = |record: &Value| record["timestamp"].as_u64().expect("it has one");
    for (before, after) in input.iter().zip(output) {
        late.add(Duration::from_millis(
            time(after).saturating_sub(time(before)),
        ));
    }
    late
}
