//! Several pipelines in one process: each for itself, and where one ends the others go on.

use std::process::Command;

use rig::folder::Folder;
use rig::millstream::{self, Millstream};
use serde_json::Value;

use crate::pipelines::{
    WITHIN, plugin, shared_kafka, told, values, wait_records, workers, write_values,
};

/// A pipeline file of that name, which reads `NAME-in` and writes `NAME-out` and a map.
fn file(folder: &Folder, name: &str) -> String {
    let text = format!(
        r#"name = "{name}"
kafka.bootstrap.servers = "{}"
plugins.probe.path = "{}"
checkpoint.interval = "50ms"
sources.in.topics = ["{name}-in"]
steps.probe = {{ inputs = ["in"], plugin = "probe" }}
sinks.out = {{ inputs = ["probe"], topic = "{name}-out" }}
maps.kept = {{}}
sinks.kept = {{ inputs = ["probe"], map = "kept" }}
"#,
        shared_kafka().bootstrap(),
        plugin("probe.wasm").display()
    );
    let file = format!("{name}.toml");
    folder.write(&file, &text).display().to_string()
}

fn topics(name: &str) {
    for topic in [format!("{name}-in"), format!("{name}-out")] {
        shared_kafka().topic(&topic, 1, &[]);
    }
}

fn run(folder: &Folder, files: &[&str]) -> Millstream {
    let mut command = Command::new(millstream::binary());
    command.arg("run").args(files);
    command.args(["--instance", "a", "--http", "127.0.0.1:0"]);
    Millstream::spawn_command(&folder.join("millstream.log"), command)
}

/// How a pipeline stands, and why if it has failed.
fn standing(body: &str, name: &str) -> (String, String) {
    let pipelines = told(body);
    let found = pipelines.iter().find(|pipeline| pipeline["name"] == name);
    let found = found.expect("the process has the pipeline");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&found["state"]), text(&found["error"]))
}

fn wait_ended(life: &mut Millstream, name: &str) -> String {
    let answer = life.wait_get("/v1/status", WITHIN, |answer| {
        standing(answer.text(), name).0 == "ended"
    });
    standing(answer.text(), name).1
}

#[test]
fn one_that_cannot_run_leaves_the_others_running() {
    let folder = Folder::new("several");
    let files = ["several-a", "several-b", "several-c"].map(|name| file(&folder, name));
    // c's topics are missing.
    ["several-a", "several-b"].into_iter().for_each(topics);
    let mut life = run(&folder, &files.each_ref().map(String::as_str));
    let why = wait_ended(&mut life, "several-c");
    assert!(why.contains("several-c-in"), "{why}");
    for name in ["several-a", "several-b"] {
        let path = format!("/v1/pipelines/{name}/readyz");
        life.wait_get(&path, WITHIN, |answer| answer.status == 200);
        write_values(&folder, &format!("{name}-in"), &[name, "x"]);
    }
    wait_records(&mut life, 4);
    for name in ["several-a", "several-b"] {
        assert_eq!(values(&format!("{name}-out")), [name, "x"]);
        let entry = format!("/v1/pipelines/{name}/maps/kept/entries/k");
        assert_eq!(life.get(&entry).text(), "x");
    }

    // Who asks for what has ended is told so, and the process as a whole is not ready.
    let gone = life.get("/v1/pipelines/several-c/maps");
    assert_eq!(gone.status, 503, "{gone:?}");
    assert!(gone.text().contains("has ended here"), "{gone:?}");
    assert_eq!(life.get("/readyz").status, 503);
    let metrics = life.get("/metrics");
    for (name, up) in [("a", 1), ("b", 1), ("c", 0)] {
        let line = format!("millstream_up{{pipeline=\"several-{name}\"}} {up}");
        assert!(metrics.text().contains(&line), "{metrics:?}");
    }
    let families = metrics.text().matches("# TYPE millstream_source_records ");
    assert_eq!(families.count(), 1, "{metrics:?}");

    // One is drained; the other one goes on.
    let drained = millstream::run(&["drain", &files[0], "--instance", "a"]);
    assert!(drained.status.success(), "{drained:?}");
    assert_eq!(wait_ended(&mut life, "several-a"), "");
    write_values(&folder, "several-b-in", &["y"]);
    life.wait_get("/v1/status", WITHIN, |answer| {
        let workers = workers(answer.text());
        workers.iter().any(|worker| worker["records"] == 3)
    });
    assert_eq!(values("several-b-out"), ["several-b", "x", "y"]);

    // The exit code is of the one that failed, and so are the words.
    assert_eq!(life.terminate(WITHIN).code(), Some(1));
    let lines = life.lines();
    let said = |words: &str| lines.iter().any(|line| line.contains(words));
    assert!(said("millstream: pipeline \"several-c\": "), "{lines:#?}");
    assert!(
        said("pipeline{name=\"several-b\"}"),
        "lines of the log say whose they are: {lines:#?}"
    );
}

#[test]
fn files_that_do_not_fit_together_are_refused() {
    let folder = Folder::new("several-bad");
    let one = file(&folder, "twice");
    let other = folder.write(
        "other.toml",
        &std::fs::read_to_string(&one).expect("it is there"),
    );
    let other = other.display().to_string();
    let refused = |files: &[&str], words: &[&str]| {
        let output = millstream::run(&[&["run"], files].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        for words in words {
            assert!(text.contains(words), "{words:?} is not in {text}");
        }
    };
    let twice = "other.toml: another of the files has a pipeline \"twice\" too";
    refused(&[&one, &other], &[twice]);
    // All that is wrong with any of them is said at once.
    let bad = folder.write("bad.toml", "name = 1\n").display().to_string();
    let worse = folder
        .write("worse.toml", "names = 1\n")
        .display()
        .to_string();
    refused(&[&bad, &one, &worse], &["bad.toml:1", "worse.toml:1"]);
    refused(
        &[&one, &bad, "--embedded"],
        &["--embedded runs one pipeline"],
    );
}
