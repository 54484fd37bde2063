//! Records that a step or a sink can't take, and plugins that misbehave: the pipeline's `on-error` decides, nothing is lost in silence,
//! nothing stops that wasn't asked to.

use std::time::Duration;

use rig::folder::Folder;
use rig::judge;
use rig::millstream::Millstream;
use serde_json::Value;

use crate::pipelines::{plugin, shared_kafka};

const READY: Duration = Duration::from_secs(60);

/// One topic of one partition, written by a script, and a pipeline with the probe plugin on it.
struct Probe {
    folder: Folder,
    name: String,
    on_error: &'static str,
    sink: String,
}

impl Probe {
    fn new(name: &str, on_error: &'static str) -> Self {
        let kafka = shared_kafka();
        let probe = Self {
            folder: Folder::new(name),
            name: name.into(),
            on_error,
            sink: "topic".into(),
        };
        kafka.topic(&probe.input(), 1, &[]);
        kafka.topic(&probe.output(), 1, &["max.message.bytes=100000"]);
        probe
    }

    fn input(&self) -> String {
        format!("{}-in", self.name)
    }

    fn output(&self) -> String {
        format!("{}-out", self.name)
    }

    /// Writes values under the key `k`, in order; `null` is the null value.
    fn write(&self, values: &[&str]) {
        let lines = values.iter().map(|value| {
            if *value == "null" {
                "k\\t\\N\n".into()
            } else {
                format!("k\t{value}\n")
            }
        });
        self.write_lines(&lines.collect::<String>());
    }

    /// Lines of key, tab, value; `\N` for null.
    fn write_lines(&self, lines: &str) {
        let file = self
            .folder
            .write("records.tsv", &lines.replace("\\t", "\t"));
        judge::run(&[
            "write",
            &shared_kafka().direct(),
            &self.input(),
            &file.display().to_string(),
        ]);
    }

    fn run(&self) -> Millstream {
        let (input, output, plugin) = (self.input(), self.output(), plugin("probe.wasm"));
        let (name, bootstrap, on_error) = (&self.name, shared_kafka().bootstrap(), self.on_error);
        let target = if self.sink == "map" {
            "map = \"kept\"".into()
        } else {
            format!("topic = \"{output}\"")
        };
        let pipeline = format!(
            r#"
name = "{name}"
kafka.bootstrap.servers = "{bootstrap}"
checkpoint.interval = "50ms"
sources.in.topics = ["{input}"]
plugins.probe.path = "{plugin}"

[steps.probe]
inputs = ["in"]
plugin = "probe"
on-error = "{on_error}"

[sinks.out]
inputs = ["probe"]
{target}
on-error = "{on_error}"
"#,
            plugin = plugin.display()
        );
        let file = self
            .folder
            .write("pipeline.toml", &pipeline)
            .display()
            .to_string();
        let log = self.folder.join("millstream.log");
        let mut life = Millstream::spawn(
            &log,
            &["run", &file, "--instance", "a", "--http", "127.0.0.1:0"],
        );
        life.wait_ready(READY);
        life
    }

    /// Committed output values, in order.
    fn outputs(&self) -> Vec<String> {
        let lines = judge::run(&["dump", &shared_kafka().direct(), &self.output()]);
        let records = lines.lines().filter(|line| line.starts_with('{'));
        let records =
            records.map(|line| serde_json::from_str::<Value>(line).expect("a dump is JSON lines"));
        records
            .map(|record| {
                record["value"]
                    .as_str()
                    .map_or_else(|| record["value"].to_string(), Into::into)
            })
            .collect()
    }
}

fn worker(life: &Millstream) -> Value {
    let status: Value =
        serde_json::from_str(life.get("/v1/status").text()).expect("status is JSON");
    status["workers"][0].clone()
}

fn wait_for(life: &mut Millstream, pointer: &str, expected: &Value) -> Value {
    let found = |body: &str| {
        let status: Value = serde_json::from_str(body).ok()?;
        let worker = status["workers"][0].clone();
        (worker.pointer(pointer) == Some(expected)).then_some(worker)
    };
    life.wait_get("/v1/status", READY, |answer| found(answer.text()).is_some());
    worker(life)
}

#[test]
fn skipped_records_are_counted_and_the_others_come_through_in_order() {
    let probe = Probe::new("skips", "skip");
    let values = [
        "a", "fail", "b", "trap", "c", "null", "loop", "d", "grow", "twice", "drop", "e",
    ];
    probe.write(&values);
    let mut life = probe.run();
    let worker = wait_for(&mut life, "/records", &values.len().into());
    assert_eq!(worker["failures"]["step \"probe\""], 4, "{worker}");
    assert_eq!(worker["stopped"], serde_json::json!([]));
    assert!(life.terminate(READY).success());
    assert_eq!(
        probe.outputs(),
        ["a", "b", "c", "null", "d", "twice", "twice", "e"]
    );
    let log = life.lines().join("\n");
    // One that takes memory without end is stopped by whichever limit comes first.
    let reasons = [
        (1, "asked to fail"),
        (3, "unreachable"),
        (6, "it missed its deadline"),
        (8, ""),
    ];
    for (offset, reason) in reasons {
        let line = log
            .lines()
            .find(|line| line.contains(&format!("offset={offset}")));
        assert!(
            line.is_some_and(|line| line.contains(reason)),
            "offset {offset}: {line:?}"
        );
    }
}

#[test]
fn a_record_that_stops_its_task_stops_nothing_else_and_nothing_after_it_comes_out() {
    let probe = Probe::new("stops", "fail");
    probe.write(&["a", "b", "trap", "c", "d"]);
    let mut life = probe.run();
    let worker = wait_for(&mut life, "/partitions/0/committed_offset", &2.into());
    let stopped = &worker["stopped"][0];
    assert_eq!(
        (stopped["partition"].as_u64(), stopped["offset"].as_u64()),
        (Some(0), Some(2)),
        "{worker}"
    );
    assert_eq!(stopped["topic"], "stops-in");
    probe.write(&["e"]);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(life.exited(), None, "the process goes on");
    assert!(life.terminate(READY).success());
    assert_eq!(probe.outputs(), ["a", "b"]);
    // Whoever mends the plugin loses nothing: the record is still there to be taken.
    let mended = Probe {
        on_error: "skip",
        ..probe
    };
    let mut life = mended.run();
    wait_for(&mut life, "/partitions/0/committed_offset", &6.into());
    assert!(life.terminate(READY).success());
    assert_eq!(mended.outputs(), ["a", "b", "c", "d", "e"]);
}

#[test]
fn records_too_large_for_the_sinks_topic_are_its_failures() {
    let probe = Probe::new("large", "skip");
    probe.write(&["a", "big 200000", "b", "big 99000", "c"]);
    let mut life = probe.run();
    let worker = wait_for(&mut life, "/records", &5.into());
    assert_eq!(worker["failures"]["sink \"out\""], 1, "{worker}");
    assert_eq!(worker["epochs"]["aborted"], 0, "{worker}");
    assert!(life.terminate(READY).success());
    let lengths: Vec<usize> = probe.outputs().iter().map(String::len).collect();
    assert_eq!(lengths, [1, 1, 99000, 1]);
}

#[test]
fn null_keys_fail_at_a_map_and_empty_ones_do_not() {
    let probe = Probe {
        sink: "map".into(),
        ..Probe::new("keys", "skip")
    };
    probe.write_lines(
        "\\N\tnobody's\n\tthe empty key's\nk\tsome\nk\tnull-key\ngone\t1\ngone\t\\N\na/b%2F\tslashes\n",
    );
    let mut life = probe.run();
    let worker = wait_for(&mut life, "/records", &7.into());
    assert_eq!(worker["failures"]["sink \"out\""], 2, "{worker}");
    let entry = |key: &str| format!("/v1/pipelines/keys/maps/kept/entries/{key}");
    life.wait_get(&entry("k"), READY, |answer| {
        answer.status == 200 && answer.text() == "some"
    });
    life.wait_get(&entry(""), READY, |answer| {
        answer.status == 200 && answer.text() == "the empty key's"
    });
    for key in ["a/b%252F", "a%2fb%252f", "%61%2Fb%252F"] {
        let answer = life.get(&entry(key));
        let found = if key == "a%2fb%252f" { 404 } else { 200 };
        assert_eq!(answer.status, found, "{key}: {}", answer.text());
    }
    assert_eq!(life.get(&entry("gone")).status, 404);
    assert_eq!(life.get(&entry("%ff")).status, 404);
    assert_eq!(
        life.get("/v1/pipelines/other/maps/kept/entries/k").status,
        404
    );
    assert_eq!(
        life.get("/v1/pipelines/keys/maps/other/entries/k").status,
        404
    );
}
