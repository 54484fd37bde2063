//! Sources of several topics, where they start, and graphs of more than one step, on a real Kafka.

use std::time::Duration;

use rig::folder::Folder;
use rig::judge;
use rig::millstream::Millstream;
use serde_json::Value;

use crate::pipelines::{plugin, shared_kafka};

const READY: Duration = Duration::from_secs(60);

fn write(folder: &Folder, topic: &str, values: &[&str]) {
    let lines: String = values.iter().map(|value| format!("k\t{value}\n")).collect();
    let file = folder.write("records.tsv", &lines).display().to_string();
    judge::run(&["write", &shared_kafka().direct(), topic, &file]);
}

fn values(topic: &str) -> Vec<String> {
    let lines = judge::run(&["dump", &shared_kafka().direct(), topic]);
    let records = lines.lines().filter(|line| line.starts_with('{'));
    let value = |line: &str| {
        let record: Value = serde_json::from_str(line).expect("a dump is JSON lines");
        record["value"]
            .as_str()
            .expect("values are text here")
            .to_owned()
    };
    records.map(value).collect()
}

fn run(folder: &Folder, pipeline: &str) -> Millstream {
    let kafka = format!(
        "kafka.bootstrap.servers = \"{}\"",
        shared_kafka().bootstrap()
    );
    let probe = format!(
        "plugins.probe.path = \"{}\"",
        plugin("probe.wasm").display()
    );
    let text = format!("{kafka}\n{probe}\ncheckpoint.interval = \"50ms\"\n{pipeline}");
    let file = folder.write("pipeline.toml", &text).display().to_string();
    let arguments = ["run", &file, "--instance", "a", "--http", "127.0.0.1:0"];
    let mut life = Millstream::spawn(&folder.join("millstream.log"), &arguments);
    life.wait_ready(READY);
    life
}

fn wait_records(life: &mut Millstream, records: u64) {
    life.wait_get("/v1/status", READY, |answer| {
        let status: Value = serde_json::from_str(answer.text()).expect("status is JSON");
        status["workers"][0]["records"] == records
    });
}

#[test]
fn latest_means_what_comes_after_the_first_start_and_only_that() {
    for topic in ["latest-in", "latest-out"] {
        shared_kafka().topic(topic, 1, &[]);
    }
    let folder = Folder::new("latest");
    let pipeline = r#"
name = "latest"
sources.in = { topics = ["latest-in"], start = "latest" }
steps.pass = { inputs = ["in"], plugin = "probe" }
sinks.out = { inputs = ["pass"], topic = "latest-out" }
"#;
    write(&folder, "latest-in", &["before 1", "before 2"]);
    let mut life = run(&folder, pipeline);
    // Ended before anything was processed: where it starts was settled all the same.
    assert!(life.terminate(READY).success());
    write(&folder, "latest-in", &["between"]);
    let mut life = run(&folder, pipeline);
    write(&folder, "latest-in", &["after"]);
    wait_records(&mut life, 2);
    assert!(life.terminate(READY).success());
    assert_eq!(values("latest-out"), ["between", "after"]);
}

#[test]
fn ports_lead_apart_and_branches_meet_in_order() {
    for topic in [
        "ports-in",
        "ports-more",
        "ports-odd",
        "ports-all",
        "ports-raw",
    ] {
        shared_kafka().topic(topic, 1, &[]);
    }
    let folder = Folder::new("ports");
    write(
        &folder,
        "ports-in",
        &["odd", "1", "even", "odd", "drop", "2"],
    );
    let mut life = run(
        &folder,
        r#"
name = "ports"
sources.in.topics = ["ports-in", "ports-more"]

[steps.split]
inputs = ["in"]
plugin = "probe"

[steps.again]
inputs = ["split.even", "split"]
plugin = "probe"

[sinks.odd]
inputs = ["split.odd"]
topic = "ports-odd"

[sinks.all]
inputs = ["again", "split.odd", "again.even"]
topic = "ports-all"

[sinks.raw]
inputs = ["in"]
topic = "ports-raw"
"#,
    );
    wait_records(&mut life, 6);
    write(&folder, "ports-more", &["odd", "3"]);
    wait_records(&mut life, 8);
    assert!(life.terminate(READY).success());
    assert_eq!(values("ports-odd"), ["odd", "odd", "odd"]);
    assert_eq!(
        values("ports-all"),
        ["odd", "1", "even", "odd", "2", "odd", "3"]
    );
    assert_eq!(
        values("ports-raw"),
        ["odd", "1", "even", "odd", "drop", "2", "odd", "3"]
    );
}
