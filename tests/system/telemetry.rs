//! Metrics say what happened, under the names that their page has; logs in JSON carry what they should. No Kafka is needed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rig::folder::Folder;
use rig::millstream::{self, Millstream};
use rig::process::Process;
use rig::repository;
use serde_json::{Value, json};

use crate::pipelines::{WITHIN, plugin, told, wait_records};

/// A pipeline of the probe plugin, fed with these values.
fn run(folder: &Folder, values: &[&str], more: &[&str]) -> Millstream {
    let pipeline = format!(
        r#"
name = "seen"
checkpoint.interval = "20ms"
sources.in.topics = ["in"]
plugins.probe.path = "{}"
steps.probe = {{ inputs = ["in"], plugin = "probe", on-error = "skip" }}
sinks.out = {{ inputs = ["probe"], topic = "out" }}
sinks.kept = {{ inputs = ["probe"], map = "kept", on-error = "skip" }}
"#,
        plugin("probe.wasm").display()
    );
    let line = |value: &&str| json!({"key": "k", "value": value}).to_string() + "\n";
    let lines: String = values.iter().map(line).collect();
    let file = folder
        .write("pipeline.toml", &pipeline)
        .display()
        .to_string();
    let feed = format!("in={}", folder.write("lines.jsonl", &lines).display());
    let arguments = [
        "run",
        &file,
        "--embedded",
        "--feed",
        &feed,
        "--http",
        "127.0.0.1:0",
    ];
    Millstream::spawn(&folder.join("log"), &[&arguments[..], more].concat())
}

#[test]
fn metrics_say_what_happened_under_documented_names() {
    let folder = Folder::new("metrics");
    let mut life = run(
        &folder,
        &["a", "fail", "trap", "null-key", "twice", "drop"],
        &[],
    );
    life.wait_ready(WITHIN);
    wait_records(&mut life, 6);
    let has = |text: &str, line: &str| text.lines().any(|known| known == line);
    let entries = "millstream_map_entries{pipeline=\"seen\",map=\"kept\"} 1";
    let answer = life.wait_get("/metrics", WITHIN, |answer| has(answer.text(), entries));
    let text = answer.text();
    for line in [
        "millstream_source_records_total{pipeline=\"seen\"} 6",
        "millstream_sink_records_total{pipeline=\"seen\",sink=\"out\"} 4",
        "millstream_sink_records_total{pipeline=\"seen\",sink=\"kept\"} 3",
        "millstream_failed_records_total{pipeline=\"seen\",at=\"step \\\"probe\\\"\",reason=\"refused\"} 1",
        "millstream_failed_records_total{pipeline=\"seen\",at=\"step \\\"probe\\\"\",reason=\"call\"} 1",
        "millstream_failed_records_total{pipeline=\"seen\",at=\"sink \\\"kept\\\"\",reason=\"null-key\"} 1",
        "millstream_epochs_total{pipeline=\"seen\",outcome=\"aborted\"} 0",
        "millstream_stopped_tasks{pipeline=\"seen\"} 0",
        "# EOF",
    ] {
        assert!(has(text, line), "{line}\nis not in\n{text}");
    }
    let lag = |line: &&str| line.starts_with("millstream_source_lag{");
    assert!(
        text.lines().filter(lag).all(|line| line.ends_with(" 0")),
        "{text}"
    );

    let page =
        std::fs::read_to_string(repository().join("docs/metrics.md")).expect("the page is there");
    let documented = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<&str> = documented.collect();
    let told = text
        .lines()
        .filter_map(|line| line.split(['{', ' ']).next());
    let told = told.filter(|name| name.starts_with("millstream_"));
    let part = |name: &'static str| ["_bucket", "_sum", "_count"].map(|end| name.to_owned() + end);
    let histogram = part("millstream_commit_seconds");
    let whole = |name| {
        if histogram.iter().any(|part| part == name) {
            "millstream_commit_seconds"
        } else {
            name
        }
    };
    assert_eq!(told.map(whole).collect::<BTreeSet<&str>>(), documented);
}

#[test]
fn a_log_that_nobody_reads_any_more_ends_nothing() {
    let folder = Folder::new("logs");
    let pipeline = "name = \"unread\"\nsources.in.topics = [\"in\"]\nsinks.out = { inputs = [\"in\"], topic = \"out\" }\n";
    let mut child = Command::new(millstream::binary())
        .arg("run")
        .arg(folder.write("pipeline.toml", pipeline))
        .args(["--embedded", "--http", "127.0.0.1:0"])
        .env("MILLSTREAM_LOG", "debug")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let log = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut lines = log.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("assigned: ")));
    drop(lines);
    Process::of(child.id()).terminate();
    let ended = child.wait().expect("it ends");
    assert!(ended.success(), "{ended}");
}

#[test]
fn logs_in_json_carry_their_fields() {
    let folder = Folder::new("logs");
    let mut life = run(&folder, &["a", "trap"], &["--log", "json"]);
    life.wait_ready(WITHIN);
    wait_records(&mut life, 2);
    let status = told(life.get("/v1/status").text()).swap_remove(0);
    assert!(life.terminate(WITHIN).success());
    let lines: Vec<Value> = life
        .lines()
        .iter()
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .collect();
    let skipped = lines.iter().find(|line| line["fields"]["offset"] == 1);
    let skipped = skipped.expect("the record that was left out is logged");
    assert_eq!(
        (&skipped["level"], &skipped["fields"]["topic"]),
        (&json!("WARN"), &json!("in"))
    );
    // What a plugin says itself: here the panic that its trap comes with.
    let own = lines
        .iter()
        .find(|line| line["target"] == "millstream::plugin");
    let own = own.expect("the plugin says why it panics");
    assert_eq!(own["fields"]["step"], "probe");
    assert_eq!(own["fields"]["revision"], status["revision"]);
}
