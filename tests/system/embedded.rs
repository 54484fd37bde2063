//! The broker in memory: the same pipeline gives the same outputs and maps as on a real Kafka, and lines that are fed and written out
//! are what they should be.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rig::folder::Folder;
use rig::millstream::{self, Millstream};
use rig::{judge, repository};
use serde_json::{Value, json};

use crate::pipelines::{
    COUNTRY_LINES, WITHIN, dump, make_countries, materialize_users, plugin, replace, shared_kafka,
    wait_records,
};

const EVENTS: u32 = 3_000;
const USERS: u32 = 700;
const PARTITIONS: u32 = 4;

/// Key and value of each event; some are malformed.
fn events() -> Vec<(String, String)> {
    let event = |number: u32| {
        let id = format!("u{}", number * 11 % USERS);
        let (age, country) = (number * 13 % 90, ["DE", "US", "JP"][number as usize % 3]);
        let ts = 1_767_225_600_000_u64 + u64::from(number);
        let event = format!(
            r#"{{"id":"{id}","name":"Émile {number}","age":{age},"country":"{country}","ts":{ts},"email":"{id}@example.org"}}"#
        );
        let cut = event.len() / 2;
        let value = if number.is_multiple_of(40) {
            event[..cut].to_owned()
        } else {
            event
        };
        (id, value)
    };
    (0..EVENTS).map(event).collect()
}

/// Of each partition in order: key, value and headers. (Offsets and the time of writing are the broker's.)
fn by_partition(records: &[Value]) -> Vec<Vec<Value>> {
    let of = |partition: u32| {
        let own = records
            .iter()
            .filter(move |record| record["partition"] == partition);
        own.map(|record| {
            let headers = match &record["headers"] {
                Value::Null => json!([]),
                headers => headers.clone(),
            };
            // What is written out shows JSON as JSON.
            let value = match &record["value"] {
                Value::String(text) => {
                    serde_json::from_str(text).unwrap_or(record["value"].clone())
                }
                value => value.clone(),
            };
            json!([record["key"], value, headers])
        })
        .collect()
    };
    (0..PARTITIONS).map(of).collect()
}

/// All entries of the map, sorted.
fn entries(life: &Millstream) -> Vec<(String, String)> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/pipelines/materialize-users/maps/users/entries?limit=1000{after}");
        let answer: Value = serde_json::from_str(life.get(&path).text()).expect("entries are JSON");
        for entry in answer["entries"].as_array().expect("a list") {
            all.push((entry["key"].to_string(), entry["value"].to_string()));
        }
        match answer["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    all.sort();
    all
}

/// Lines of the judge as lines to feed.
fn as_json(lines: &str) -> String {
    let line = |line: &str| {
        let (key, value) = line.split_once('\t').expect("a tab between key and value");
        let value = (value != "\\N").then_some(value);
        json!({"key": key, "value": value}).to_string() + "\n"
    };
    lines.lines().map(line).collect()
}

#[test]
fn a_pipeline_gives_the_same_on_the_broker_in_memory_as_on_kafka() {
    let kafka = shared_kafka();
    let folder = Folder::new("embedded");
    let tsv: String = events()
        .iter()
        .map(|(key, value)| format!("{key}\t{value}\n"))
        .collect();
    let feed = folder
        .write("events.jsonl", &as_json(&tsv))
        .display()
        .to_string();
    let tsv = folder.write("events.tsv", &tsv).display().to_string();
    let countries = folder.write("countries.jsonl", &as_json(COUNTRY_LINES));
    let out = folder.join("adults.jsonl");
    make_countries(kafka, &folder);

    for topic in ["same-events", "same-adults"] {
        kafka.topic(topic, PARTITIONS, &[]);
    }
    judge::run(&[
        "write",
        &kafka.direct(),
        "same-events",
        &tsv,
        "--partition",
        "hash",
    ]);
    let pipeline = replace(
        &materialize_users(&kafka.bootstrap(), "100ms"),
        &[
            ("\"user-events\"", "\"same-events\""),
            ("\"adults\"", "\"same-adults\""),
        ],
    );
    let file = folder
        .write("pipeline.toml", &pipeline)
        .display()
        .to_string();
    let arguments = ["run", &file, "--instance", "a", "--http", "127.0.0.1:0"];

    let mut real = Millstream::spawn(&folder.join("real.log"), &arguments);
    real.wait_ready(WITHIN);
    let counts = wait_records(&mut real, u64::from(EVENTS));
    let (feed, taken) = (
        format!("events={feed}"),
        format!("adults={}", out.display()),
    );
    let countries = format!("countries={}", countries.display());
    let embedded = [
        "--embedded",
        "--feed",
        &countries,
        "--feed",
        &feed,
        "--out",
        &taken,
    ];
    let arguments = [&arguments[..], &embedded].concat();
    let mut model = Millstream::spawn(&folder.join("model.log"), &arguments);
    model.wait_ready(WITHIN);
    let model_counts = wait_records(&mut model, u64::from(EVENTS));
    assert_eq!(model_counts["failures"], counts["failures"]);
    assert_eq!(model_counts["sinks"], counts["sinks"]);

    compare(real, model, &out);
}

/// Maps and outputs of the two; then they end.
fn compare(mut real: Millstream, mut model: Millstream, out: &Path) {
    // A commit is read back a moment later.
    std::thread::sleep(Duration::from_secs(1));
    let expected = entries(&real);
    assert!(expected.len() > 300, "{} entries", expected.len());
    assert_eq!(entries(&model), expected);
    assert!(real.terminate(WITHIN).success());
    assert!(model.terminate(WITHIN).success());
    let written = std::fs::read_to_string(out).expect("it was written");
    let written: Vec<Value> = written
        .lines()
        .map(|line| serde_json::from_str(line).expect("lines of JSON"))
        .collect();
    let expected = by_partition(&dump("same-adults"));
    assert!(expected.iter().all(|partition| partition.len() > 100));
    assert_eq!(by_partition(&written), expected);
}

const PASS: &str = r#"
name = "pass"
checkpoint.interval = "20ms"
sources.in.topics = ["in"]
sinks.out = { inputs = ["in"], topic = "out" }
"#;

/// Runs a pipeline that passes everything on, on these lines, to its end: what it writes out, and what it says.
fn pass(lines: &[u8], more: &[&str]) -> (Vec<Value>, String, Option<i32>) {
    pass_through(PASS, lines, more)
}

fn pass_through(pipeline: &str, lines: &[u8], more: &[&str]) -> (Vec<Value>, String, Option<i32>) {
    let folder = Folder::new("pass");
    let file = folder.write("pipeline.toml", pipeline);
    let mut child = Command::new(millstream::binary())
        .arg("run")
        .arg(file)
        .args(["--embedded", "--http", "127.0.0.1:0"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = child.stdin.take().expect("it is piped");
    // It may end without reading.
    let _ = std::io::Write::write_all(&mut input, lines);
    drop(input);
    let ended = child.wait_with_output().expect("it ends");
    let written = String::from_utf8_lossy(&ended.stdout).into_owned();
    let written = written
        .lines()
        .map(|line| serde_json::from_str(line).expect("lines of JSON"));
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    (written.collect(), said, ended.status.code())
}

const THROUGH: [&str; 5] = ["--feed", "in=-", "--out", "out=-", "--until-end"];

/// Through a keyed stream and a step's state: as the example's own page has it.
#[test]
fn example_02_counts_and_adds_up_per_country() {
    let example = repository().join("examples/02-count-by-country");
    let text = |name: &str| {
        let path = example.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
    };
    let (file, orders) = (example.join("pipeline.toml"), example.join("orders.jsonl"));
    let arguments = [
        "run",
        &file.display().to_string(),
        "--embedded",
        "--until-end",
    ];
    let taps = [
        "--feed",
        &format!("orders={}", orders.display()),
        "--out",
        "country-totals=-",
    ];
    let more = ["--http", "127.0.0.1:0"];
    let output = millstream::run(&[&arguments[..], &taps, &more].concat());
    assert!(output.status.success(), "{output:?}");
    let parse = |line: &str| serde_json::from_str::<Value>(line).expect("a line of JSON");
    let mut totals = BTreeMap::new();
    let mut counted = 0;
    for record in String::from_utf8_lossy(&output.stdout).lines().map(parse) {
        let key = record["key"].as_str().expect("a country").to_owned();
        totals.insert(key, record["value"].clone());
        counted += 1;
    }
    let expected = text("expected.jsonl");
    let expected = expected.lines().map(parse);
    let expected = expected.map(|line| {
        let key = line["key"].as_str().expect("a country").to_owned();
        (key, line["value"].clone())
    });
    assert_eq!(totals, expected.collect::<BTreeMap<_, _>>());
    assert_eq!(counted, 14);
}

#[test]
fn broken_lines_are_told_with_their_number_and_the_others_go_on() {
    let lines = b"{\"key\":\"a\",\"value\":1}\n{\"key\": oops\n\n\xff\xfe\n{\"key\":\"a\",\"value\":\"text\",\"timestamp\":\"now\"}\n{\"key\":\"a\",\"value\":null}\n\"bare\"";
    let (written, said, code) = pass(lines, &THROUGH);
    assert_eq!(code, Some(0), "{said}");
    for expected in [
        "standard input:2: is not JSON",
        "standard input:4: is not UTF-8",
        "standard input:5: `timestamp` is no whole number",
        "3 records for in; 3 broken lines left out",
    ] {
        assert!(said.contains(expected), "{expected:?} in\n{said}");
    }
    let keyed = written.iter().filter(|record| record["key"] == "a");
    let keyed: Vec<&Value> = keyed.map(|record| &record["value"]).collect();
    assert_eq!(keyed, [&json!(1), &Value::Null]);
    assert!(
        written
            .iter()
            .any(|record| record["value"] == "bare" && record["key"].is_null())
    );
}

#[test]
fn a_task_that_stops_does_not_hold_up_the_end() {
    // A step fails what isn't JSON, unless it is told otherwise.
    let probe = plugin("probe.wasm");
    let pipeline = format!(
        "name = \"pass\"\ncheckpoint.interval = \"20ms\"\nsources.in.topics = [\"in\"]\nplugins.probe.path = {probe}\n\
         steps.probe = {{ inputs = [\"in\"], plugin = \"probe\", config = {{}} }}\n\
         sinks.out = {{ inputs = [\"probe\"], topic = \"out\" }}\n",
        probe = json!(probe)
    );
    let lines = [
        json!({"value": "one", "partition": 0}),
        json!({"value": "fail", "partition": 0}),
        json!({"value": "left", "partition": 0}),
        json!({"value": "two", "partition": 1}),
    ];
    let lines = lines.map(|line| line.to_string()).join("\n");
    let (written, said, code) = pass_through(&pipeline, lines.as_bytes(), &THROUGH);
    let values: Vec<&str> = written
        .iter()
        .filter_map(|record| record["value"].as_str())
        .collect();
    assert!(
        values.len() == 2 && values.contains(&"one") && values.contains(&"two"),
        "{values:?}\n{said}"
    );
    assert_eq!(code, Some(1), "{said}");
    let expected = "not everything that was fed is processed: in partition 0 stopped at offset 1: step \"probe\"";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn large_records_come_through_and_too_large_ones_are_told() {
    let record = |bytes: usize| json!({"key": "same", "value": "z".repeat(bytes)}).to_string();
    let mut lines: Vec<String> = (0..300).map(|_| record(20_000)).collect();
    lines[100] = record(1_100_000);
    lines.extend((0..20).map(|_| record(600_000)));
    let (written, said, code) = pass(lines.join("\n").as_bytes(), &THROUGH);
    assert_eq!((written.len(), code), (319, Some(0)), "{said}");
    assert!(said.contains("standard input:101: takes 11000"), "{said}");
    assert!(
        said.contains("319 records for in; 1 broken lines left out"),
        "{said}"
    );
}

#[test]
fn halves_of_characters_are_told_and_a_byte_order_mark_is_none_of_the_line() {
    let lines = b"\xef\xbb\xbf{\"key\":\"a\",\"value\":1}\n\"\\ud800\"\n{\"value\":2}\r\n";
    let (written, said, code) = pass(lines, &THROUGH);
    assert_eq!((written.len(), code), (2, Some(0)), "{said}");
    assert!(said.contains("standard input:2: is no text"), "{said}");
}

#[test]
fn what_can_not_be_read_or_written_ends_it_with_words() {
    let check = |more: &[&str], lines: &[u8], code: i32, expected: &str| {
        let (_, said, found) = pass(lines, more);
        assert_eq!(found, Some(code), "{said}");
        assert!(said.contains(expected), "{expected:?} in\n{said}");
    };
    check(
        &["--feed", "in=.", "--until-end"],
        b"",
        1,
        "can't be read on",
    );
    let full = ["--feed", "in=-", "--out", "out=/dev/full", "--until-end"];
    check(
        &full,
        b"1\n2\n",
        1,
        "an output can't be written: No space left",
    );
    let folder = Folder::new("overwritten");
    let file = folder.write("lines.jsonl", "1\n");
    let (feed, out) = (
        format!("in={}", file.display()),
        format!("out={}", file.display()),
    );
    let both = ["--feed", &feed, "--out", &out, "--until-end"];
    check(&both, b"", 2, "would overwrite what --feed reads");
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "1\n");
}

#[test]
fn what_was_written_out_can_be_fed_again() {
    let lines = [
        json!({"key": "k", "value": {"n": [1, 2]}, "headers": {"h": "1"}, "timestamp": 5}),
        json!({"key_base64": "/wA=", "value_base64": "AAE=", "timestamp": 6, "partition": 3}),
        json!({"key": "k", "value": "null", "timestamp": 7}),
    ];
    let lines = lines.map(|line| line.to_string()).join("\n");
    let (first, said, code) = pass(lines.as_bytes(), &THROUGH);
    assert_eq!((first.len(), code), (3, Some(0)), "{said}");
    let again: Vec<String> = first.iter().map(Value::to_string).collect();
    let (second, _, _) = pass(again.join("\n").as_bytes(), &THROUGH);
    assert_eq!(second, first);
}

#[test]
fn a_tap_that_leads_nowhere_is_said() {
    let check = |more: &[&str], expected: &str| {
        let (_, said, code) = pass(b"", more);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(expected), "{expected:?} in\n{said}");
    };
    check(
        &["--feed", "inn=-"],
        "--feed: no source, and no map made from a topic, is named \"inn\"; there are: in",
    );
    check(
        &["--feed", "in=/nowhere/x.jsonl"],
        "--feed: /nowhere/x.jsonl: No such file",
    );
    check(
        &["--out", "in=-"],
        "--out: no sink that writes a topic is named \"in\"; there are: out",
    );
    check(
        &["--feed", "in"],
        "a name of the pipeline file, =, and a file or -",
    );
    check(&["--until-end"], "--feed");
    check(&["--bootstrap", "localhost:1"], "--bootstrap");
}
