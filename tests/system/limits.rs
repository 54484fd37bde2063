//! What a plugin may take, by the pipeline file: whoever takes more is told of and counted, and costs the records that did it, no others.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use rig::folder::Folder;
use rig::millstream::{self, Millstream};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::pipelines::{WITHIN, plugin, wait_records};

/// Values, and whether they come through.
const VALUES: [(&str, bool); 8] = [
    ("a", true),
    ("loop", false),
    // All at once: one that takes more and more may be late before it has too much.
    ("hold 80000000", false),
    ("big 1100000", false),
    ("many 10001", false),
    ("log 20", true),
    ("hold 33554432", true),
    ("b", true),
];

fn pipeline(plugin_lines: &str) -> String {
    format!(
        r#"
name = "limits"
kafka.bootstrap.servers = "localhost:9092"
checkpoint.interval = "50ms"
sources.in.topics = ["in"]

[plugins.probe]
path = {path}
{plugin_lines}

[steps.probe]
inputs = ["in"]
plugin = "probe"
on-error = "skip"

[sinks.out]
inputs = ["probe"]
topic = "out"
"#,
        path = json!(plugin("probe.wasm"))
    )
}

/// The sum of a metric's lines that have this label.
pub fn metric(text: &str, name: &str, label: &str) -> f64 {
    let lines = text
        .lines()
        .filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    let values = lines.map(|line| {
        let (_, value) = line.rsplit_once(' ').expect("a value stands last");
        value.parse::<f64>().expect("it is a number")
    });
    values.sum()
}

#[test]
fn who_runs_into_a_limit_is_told_of_and_counted() {
    let folder = Folder::new("limits");
    let limits = "limits = { memory = \"64MiB\", memory-mark = \"24MiB\", time = \"1600ms\", output-bytes = \"1MiB\", \
                  output-records = 10000, log-lines = 5 }";
    let file = folder.write("pipeline.toml", &pipeline(limits));
    let mut feed = Vec::new();
    for (value, _) in VALUES {
        // One partition and key, so that they come as one batch, and go out in order.
        let line = json!({"key": "k", "value": value, "partition": 0});
        writeln!(feed, "{line}").expect("it is memory");
    }
    let feed = folder.write("in.jsonl", &String::from_utf8(feed).expect("it is JSON"));
    let out = folder.join("out.jsonl");
    let (file, feed, taken) = (
        file.display().to_string(),
        format!("in={}", feed.display()),
        format!("out={}", out.display()),
    );
    let mut arguments = vec!["run", &file, "--embedded", "--http", "127.0.0.1:0"];
    arguments.extend(["--feed", &feed, "--out", &taken]);
    let mut life = Millstream::spawn(&folder.join("millstream.log"), &arguments);
    life.wait_ready(WITHIN);
    let worker = wait_records(&mut life, VALUES.len() as u64);
    assert_eq!(worker["failures"]["step \"probe\""], 4, "{worker}");

    let limits = ["memory", "time", "output-bytes", "output-records"];
    let answer = life.wait_get("/metrics", WITHIN, |answer| {
        metric(answer.text(), "millstream_step_log_lines_total", "probe") > 0.0
    });
    let text = answer.text();
    for limit in limits {
        let label = format!("limit=\"{limit}\"");
        let hits = metric(text, "millstream_step_limit_hits_total", &label);
        assert!(hits >= 1.0, "{limit}: {hits} in\n{text}");
    }
    let left_out = metric(text, "millstream_step_limit_hits_total", "log-lines");
    assert!(left_out >= 10.0, "{left_out} lines left out:\n{text}");
    let replaced = metric(text, "millstream_step_replaced_instances_total", "probe");
    assert!(replaced >= 1.0, "{text}");
    let allowed = metric(text, "millstream_step_call_limit_seconds", "probe");
    assert!((allowed - 1.6).abs() < 1e-9, "{text}");

    assert!(life.terminate(WITHIN).success());
    let digest = digest();
    let log = life.lines();
    for limit in limits {
        let told = log.iter().find(|line| {
            line.contains("the plugin ran into its limit")
                && line.contains(&format!("limit=\"{limit}\""))
        });
        let told = told.unwrap_or_else(|| panic!("{limit} isn't told of: {log:#?}"));
        for field in [
            "step=\"probe\"",
            "plugin=\"probe\"",
            "topic=\"in\"",
            "partition=0",
            "first_offset=",
            "last_offset=",
            &digest,
        ] {
            assert!(told.contains(field), "{field} in {told}");
        }
    }
    let expected = VALUES.iter().filter(|(_, passes)| *passes);
    assert_eq!(
        values(&out),
        Vec::from_iter(expected.map(|(value, _)| *value))
    );
}

/// Of the records that were written out.
fn values(out: &Path) -> Vec<String> {
    let written = std::fs::read_to_string(out).expect("it was written");
    let value = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).expect("lines of JSON");
        record["value"].as_str().expect("a text").to_owned()
    };
    written.lines().map(value).collect()
}

fn digest() -> String {
    let bytes = std::fs::read(plugin("probe.wasm")).expect("it was built");
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn only_the_bytes_that_are_meant_are_run() {
    let folder = Folder::new("digests");
    let check = |plugin_lines: &str| {
        let file = folder.write("pipeline.toml", &pipeline(plugin_lines));
        let output = millstream::run(&["check", &file.display().to_string()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let digest = digest();
    assert_eq!(check(&format!("sha256 = \"{digest}\"")).0, Some(0));
    let (code, said) = check(&format!("sha256 = \"{}\"", "0".repeat(64)));
    assert_eq!(code, Some(2), "{said}");
    let hint = format!("if it is meant to be this file, write sha256 = \"{digest}\"");
    for expected in ["plugins.probe.sha256", "is not what `sha256` says", &hint] {
        assert!(said.contains(expected), "{expected:?} in\n{said}");
    }
    let small = "limits = { memory = \"2MiB\", memory-mark = \"1MiB\" }";
    let (code, said) = check(small);
    assert_eq!(code, Some(2), "{said}");
    let expected = "plugins.probe.limits.memory-mark: configured for step \"probe\"";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn compiled_code_is_kept_and_damage_is_found() {
    let folder = Folder::new("code");
    let file = folder.write("pipeline.toml", &pipeline(""));
    let check = || {
        let output = Command::new(millstream::binary())
            .arg("check")
            .arg(&file)
            .env("XDG_CACHE_HOME", folder.join("caches"))
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    let kept = || {
        let files = std::fs::read_dir(folder.join("caches/millstream/code"));
        let files = files.expect("it was made");
        let paths = files.map(|entry| entry.expect("it can be read").path());
        paths.collect::<Vec<_>>()
    };
    check();
    let files = kept();
    let [code] = &files[..] else {
        panic!("one file is kept, not {files:?}");
    };
    let name = code.file_name().expect("it has one").to_string_lossy();
    assert!(name.starts_with(&digest()), "{name}");
    let sound = std::fs::read(code).expect("it is ours");
    let mut changed = sound.clone();
    *changed.last_mut().expect("it is not empty") ^= 1;
    for damaged in [&changed, &sound[..sound.len() / 2], b"", b"something else"] {
        std::fs::write(code, damaged).expect("it is ours");
        let said = check();
        assert!(said.contains("it is compiled anew"), "{said}");
        let made = std::fs::read(code).expect("it is ours");
        assert_eq!(made.len(), sound.len());
    }
    let said = check();
    assert!(!said.contains("compiled anew"), "{said}");
    assert_eq!(kept(), files);
}

/// Another process compiles: what it says of a file that is none, and under limits that are tighter than its own.
#[test]
fn the_process_that_compiles_is_limited() {
    let compile = |limits: &str, component: &Path| {
        let mut shell = Command::new("sh");
        let line = format!("{limits} exec \"$0\" compile-component");
        let shell = shell.args(["-c", &line]).arg(millstream::binary());
        let file = File::open(component).expect("it is there");
        shell.stdin(file).output().expect("it can be run")
    };
    let probe = plugin("probe.wasm");
    let compiled = compile("ulimit -v 3000000; ulimit -t 200;", &probe);
    assert!(compiled.status.success(), "{compiled:?}");
    assert!(compiled.stdout.len() > 10_000);
    let folder = Folder::new("compiler");
    let broken = folder.write("broken.wasm", "\0asm\x0d\0\x01\0 and no more than that");
    let refused = compile("", &broken);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(!refused.stderr.is_empty());
    // So little that nothing can be compiled in it: it ends, and says something.
    let starved = compile("ulimit -v 100000;", &probe);
    assert!(!starved.status.success());
}

/// Steps that loop on every record cost a deadline for each record and step, in which a transaction of them all would time out. It is run
/// again with fewer, until all have had their turn.
#[test]
fn steps_that_loop_on_all_records_get_through() {
    const RECORDS: usize = 200;
    let folder = Folder::new("all-loop");
    let mut text = pipeline("limits.time = \"100ms\"");
    for step in ["second", "third"] {
        text += &format!(
            "[steps.{step}]\ninputs = [\"in\"]\nplugin = \"probe\"\non-error = \"skip\"\n"
        );
    }
    let text = text.replace(
        "inputs = [\"probe\"]",
        "inputs = [\"probe\", \"second\", \"third\"]",
    );
    let file = folder.write("pipeline.toml", &text).display().to_string();
    let line = |value: &str| json!({"key": "k", "value": value, "partition": 0}).to_string() + "\n";
    let feed = line("a") + &line("loop").repeat(RECORDS) + &line("b");
    let feed = format!("in={}", folder.write("in.jsonl", &feed).display());
    let out = folder.join("out.jsonl");
    let taken = format!("out={}", out.display());
    let mut arguments = vec!["run", &file, "--embedded", "--http", "127.0.0.1:0"];
    arguments.extend(["--feed", &feed, "--out", &taken, "--until-end"]);
    let mut life = Millstream::spawn(&folder.join("millstream.log"), &arguments);
    assert!(life.wait_exit(2 * WITHIN).success());
    let log = life.lines().join("\n");
    assert!(log.contains("fewer records at a time"), "{log}");
    assert_eq!(values(&out), ["a", "a", "a", "b", "b", "b"]);
}
