//! Records that a step or a sink can't take, and plugins that misbehave: the pipeline's `on-error` decides, nothing is lost in silence,
//! nothing stops that wasn't asked to.

use std::time::Duration;

use rig::folder::Folder;
use rig::judge;
use rig::millstream::Millstream;

use crate::pipelines::{
    self, WITHIN, shared_kafka, values, wait_records, wait_worker, write, write_compressed,
    write_values,
};

/// One topic of one partition, written by a script, and a pipeline with the probe plugin on it.
struct Probe {
    folder: Folder,
    name: String,
    on_error: &'static str,
    sink: String,
    /// Further lines of the pipeline file, before its tables.
    more: String,
}

impl Probe {
    fn new(name: &str, on_error: &'static str) -> Self {
        let kafka = shared_kafka();
        let probe = Self {
            folder: Folder::new(name),
            name: name.into(),
            on_error,
            sink: format!("topic = \"{name}-out\""),
            more: String::new(),
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
        write_values(&self.folder, &self.input(), values);
    }

    fn start(&self) -> Millstream {
        let Self {
            name,
            on_error,
            sink,
            more,
            ..
        } = self;
        let input = self.input();
        let pipeline = format!(
            r#"{more}
name = "{name}"
sources.in.topics = ["{input}"]

[steps.probe]
inputs = ["in"]
plugin = "probe"
on-error = "{on_error}"

[sinks.out]
inputs = ["probe"]
{sink}
on-error = "{on_error}"
"#
        );
        pipelines::start(&self.folder, &pipeline)
    }

    fn run(&self) -> Millstream {
        let mut life = self.start();
        life.wait_ready(WITHIN);
        life
    }

    /// Committed output values, in order.
    fn outputs(&self) -> Vec<String> {
        values(&self.output())
    }
}

fn committed(worker: &serde_json::Value) -> i64 {
    worker["partitions"][0]["committed_offset"]
        .as_i64()
        .unwrap_or(-1)
}

#[test]
fn skipped_records_are_counted_and_the_others_come_through_in_order() {
    let probe = Probe::new("skips", "skip");
    let values = [
        "a", "fail", "b", "trap", "c", "null", "loop", "d", "grow", "twice", "drop", "e",
    ];
    probe.write(&values);
    let mut life = probe.run();
    let worker = wait_records(&mut life, values.len() as u64);
    assert_eq!(worker["failures"]["step \"probe\""], 4, "{worker}");
    assert_eq!(worker["stopped"], serde_json::json!([]));
    assert!(life.terminate(WITHIN).success());
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
            .find(|line| line.contains(&format!(" offset={offset}")));
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
    let worker = wait_worker(&mut life, |worker| committed(worker) == 2);
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
    assert!(life.terminate(WITHIN).success());
    assert_eq!(probe.outputs(), ["a", "b"]);
    // Whoever mends the plugin loses nothing: the record is still there to be taken.
    let mended = Probe {
        on_error: "skip",
        ..probe
    };
    let mut life = mended.run();
    wait_worker(&mut life, |worker| committed(worker) == 6);
    assert!(life.terminate(WITHIN).success());
    assert_eq!(mended.outputs(), ["a", "b", "c", "d", "e"]);
}

#[test]
fn records_too_large_for_the_sinks_topic_are_its_failures() {
    let probe = Probe::new("large", "skip");
    probe.write(&["a", "big 200000", "b", "big 99000", "c"]);
    let mut life = probe.run();
    let worker = wait_records(&mut life, 5);
    assert_eq!(worker["failures"]["sink \"out\""], 1, "{worker}");
    assert_eq!(worker["epochs"]["aborted"], 0, "{worker}");
    assert!(life.terminate(WITHIN).success());
    let lengths: Vec<usize> = probe.outputs().iter().map(String::len).collect();
    assert_eq!(lengths, [1, 1, 99000, 1]);
}

#[test]
fn null_keys_fail_at_a_map_and_empty_ones_do_not() {
    let probe = Probe {
        sink: "map = \"kept\"".into(),
        ..Probe::new("keys", "skip")
    };
    let input = probe.input();
    write(
        &probe.folder,
        &input,
        "\\N\tnobody's\n\tthe empty key's\nk\tsome\nk\tnull-key\ngone\t1\ngone\t\\N\na/b%2F\tslashes\n",
    );
    let mut life = probe.run();
    let worker = wait_records(&mut life, 7);
    assert_eq!(worker["failures"]["sink \"out\""], 2, "{worker}");
    let entry = |key: &str| format!("/v1/pipelines/keys/maps/kept/entries/{key}");
    life.wait_get(&entry("k"), WITHIN, |answer| {
        answer.status == 200 && answer.text() == "some"
    });
    life.wait_get(&entry(""), WITHIN, |answer| {
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

/// Large enough to be worth compressing, small enough to be quick.
const COMPRESSIBLE: usize = 40_000;

#[test]
fn every_codec_is_read_and_written() {
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let probe = Probe {
            more: format!("kafka.producer.compression.codec = \"{codec}\""),
            ..Probe::new(codec, "fail")
        };
        let value = codec.repeat(COMPRESSIBLE / codec.len());
        let lines: String = (0..5).map(|key| format!("{key}\t{value}\n")).collect();
        write_compressed(&probe.folder, &probe.input(), &lines, codec);
        let mut life = probe.run();
        wait_records(&mut life, 5);
        assert!(life.terminate(WITHIN).success());
        assert_eq!(probe.outputs(), vec![value; 5], "{codec}");
        for topic in [probe.input(), probe.output()] {
            let said = judge::run(&["size", &shared_kafka().direct(), &topic]);
            let bytes = judge::count(&said, "bytes");
            assert!(bytes > 0, "{topic} holds something");
            let plain = 5 * COMPRESSIBLE as u64;
            assert!(
                bytes < plain / 4,
                "{topic} takes {bytes} of {plain} bytes: not compressed"
            );
        }
    }
}

#[test]
fn what_retention_took_before_it_was_read_stops_its_task_and_is_named() {
    let probe = Probe::new("trimmed", "skip");
    probe.write(&["a", "b"]);
    let mut life = probe.run();
    wait_records(&mut life, 2);
    assert!(life.terminate(WITHIN).success());
    probe.write(&["c", "d", "e", "f"]);
    judge::run(&["trim", &shared_kafka().direct(), &probe.input(), "4"]);
    let mut life = probe.run();
    let worker = wait_worker(&mut life, |worker| !worker["stopped"][0].is_null());
    let stopped = &worker["stopped"][0];
    assert_eq!(stopped["topic"], "trimmed-in", "{worker}");
    assert_eq!(
        (stopped["partition"].as_i64(), stopped["offset"].as_i64()),
        (Some(0), Some(2)),
        "{worker}"
    );
    let reason = stopped["reason"].as_str().unwrap_or_default();
    for words in [
        "out of range",
        "set the group's offset to one that there is",
    ] {
        assert!(reason.contains(words), "{worker}");
    }
    life.wait_line("the source can't be read on", WITHIN);
    assert_eq!(life.exited(), None, "the process goes on");
    assert!(life.terminate(WITHIN).success());
    assert_eq!(probe.outputs(), ["a", "b"]);
}

#[test]
fn a_sink_topic_that_is_deleted_is_named_and_what_was_for_it_comes_once_it_is_back() {
    let probe = Probe::new("deleted", "fail");
    probe.write(&["a"]);
    let mut life = probe.run();
    wait_records(&mut life, 1);
    judge::run(&["delete", &shared_kafka().direct(), &probe.output()]);
    probe.write(&["b", "c"]);
    let worker = wait_worker(&mut life, |worker| {
        let reason = worker["retrying"]["reason"].as_str().unwrap_or_default();
        reason.contains("deleted-out")
    });
    assert_eq!(worker["records"], 1, "{worker}");
    life.wait_line(
        "can't be delivered: the topic does not exist any more",
        WITHIN,
    );
    // Whoever ends it now is told that something is left to do.
    assert_eq!(life.terminate(WITHIN).code(), Some(1));
    life.wait_line("the last epoch could not be committed", WITHIN);
    shared_kafka().topic(&probe.output(), 1, &[]);
    let mut life = probe.run();
    let worker = wait_records(&mut life, 2);
    assert!(worker["retrying"].is_null(), "{worker}");
    assert!(life.terminate(WITHIN).success());
    assert_eq!(probe.outputs(), ["b", "c"]);
}
