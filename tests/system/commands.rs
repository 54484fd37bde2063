//! `status`, `check --connect` and `reset`, against a pipeline on a real Kafka.

use std::process::Output;

use rig::folder::Folder;
use rig::millstream;

use crate::pipelines::{WITHIN, run, shared_kafka, values, wait_records, write_values};

const PIPELINE: &str = r#"
name = "again"
sources.in.topics = ["again-in"]
steps.pass = { inputs = ["in"], plugin = "probe" }
sinks.out = { inputs = ["pass"], topic = "again-out" }
sinks.kept = { inputs = ["pass"], map = "kept" }
"#;

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn a_pipeline_that_was_reset_begins_anew() {
    for topic in ["again-in", "again-out"] {
        shared_kafka().topic(topic, 2, &[]);
    }
    let folder = Folder::new("again");
    write_values(&folder, "again-in", &["a", "b"]);
    let mut life = run(&folder, PIPELINE);
    wait_records(&mut life, 2);
    let file = folder.join("pipeline.toml").display().to_string();

    let address = life.http_address().to_string();
    let status = millstream::run(&["status", "--http", &address]);
    let text = said(&status);
    assert!(status.status.success(), "{text}");
    assert!(text.contains("pipeline again, instance a"), "{text}");
    assert!(text.contains("again-in[0] committed up to"), "{text}");
    assert!(life.terminate(WITHIN).success());
    let status = millstream::run(&["status", "--http", &address]);
    assert_eq!(status.status.code(), Some(1), "{}", said(&status));
    assert!(
        said(&status).contains("does not answer"),
        "{}",
        said(&status)
    );

    // Nobody is at a terminal to be asked.
    let asked = millstream::run(&["reset", &file]);
    let text = said(&asked);
    assert_eq!(asked.status.code(), Some(2), "{text}");
    assert!(
        text.contains("committed offsets of 2 partitions of topic again-in"),
        "{text}"
    );
    assert!(
        text.contains("topic again.kept.changelog: 2 partitions"),
        "{text}"
    );
    assert!(text.contains("say --yes"), "{text}");
    let done = millstream::run(&["reset", &file, "--yes"]);
    assert!(done.status.success(), "{}", said(&done));
    let nothing = millstream::run(&["reset", &file, "--yes"]);
    assert!(
        said(&nothing).contains("has left nothing"),
        "{}",
        said(&nothing)
    );

    let mut life = run(&folder, PIPELINE);
    wait_records(&mut life, 2);
    assert!(life.terminate(WITHIN).success());
    assert_eq!(values("again-out"), ["a", "b", "a", "b"]);
}

#[test]
fn check_asks_the_brokers_if_it_is_to() {
    shared_kafka().topic("asked-in", 1, &[]);
    let folder = Folder::new("asked");
    let pipeline = |sink: &str| {
        format!(
            "name = \"asked\"\nkafka.bootstrap.servers = \"{}\"\nsources.in.topics = [\"asked-in\"]\nsinks.out = {{ inputs = [\"in\"], topic = \"{sink}\" }}\n",
            shared_kafka().bootstrap()
        )
    };
    let file = folder
        .write("pipeline.toml", &pipeline("nowhere"))
        .display()
        .to_string();
    let check = |more: &[&str]| millstream::run(&[&["check", &file], more].concat());
    assert!(check(&[]).status.success(), "no broker is asked");
    let asked = check(&["--connect"]);
    assert_eq!(asked.status.code(), Some(2), "{}", said(&asked));
    assert!(
        said(&asked).contains("topic \"nowhere\" does not exist"),
        "{}",
        said(&asked)
    );
    let nobody = check(&[
        "--connect",
        "--bootstrap",
        "127.0.0.1:1",
        "--connect-timeout",
        "1s",
    ]);
    assert_eq!(nobody.status.code(), Some(1), "{}", said(&nobody));
    let file = folder
        .write("pipeline.toml", &pipeline("asked-in-2"))
        .display()
        .to_string();
    shared_kafka().topic("asked-in-2", 1, &[]);
    let fine = millstream::run(&["check", &file, "--connect"]);
    assert!(fine.status.success(), "{}", said(&fine));
}
