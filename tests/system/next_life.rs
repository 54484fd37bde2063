//! A process comes back as another than it was: with topics that came into the pipeline file or went out of it, with fewer workers, on
//! another host.

use std::process::Command;
use std::time::Instant;

use rig::folder::Folder;
use rig::millstream::{self, Millstream};
use rig::ports;

use crate::pipelines::{WITHIN, shared_kafka, values, wait_records, write_to, write_values};
use crate::storm::points;

/// Sources, and a sink of all of them.
fn pipeline(name: &str, topics: &[&str]) -> String {
    let bootstrap = shared_kafka().bootstrap();
    let topics: Vec<String> = topics
        .iter()
        .map(|topic| format!("\"{name}-{topic}\""))
        .collect();
    format!(
        r#"
name = "{name}"
kafka.bootstrap.servers = "{bootstrap}"
checkpoint.interval = "50ms"
sources.in = {{ topics = [{}], start = "earliest" }}
sinks.out = {{ inputs = ["in"], topic = "{name}-out" }}
"#,
        topics.join(", ")
    )
}

fn make_topics(name: &str, partitions: u32) {
    for topic in ["t", "u", "out"] {
        shared_kafka().topic(&format!("{name}-{topic}"), partitions, &[]);
    }
}

fn command(folder: &Folder, text: &str, more: &[&str]) -> Command {
    let file = folder.write("pipeline.toml", text).display().to_string();
    let mut command = Command::new(millstream::faulty());
    command.args([&["run", &file], more].concat());
    command
}

fn spawn(folder: &Folder, log: &str, command: Command) -> Millstream {
    Millstream::spawn_command(&folder.join(log), command)
}

/// A static member that comes back for other topics is told what it had.
#[test]
fn a_topic_that_comes_back_into_the_file_is_read() {
    let (folder, name) = (Folder::new("next-life"), "topic-back");
    make_topics(name, 1);
    // The same address: with another one, the group is left in any case.
    let address = format!("127.0.0.1:{}", ports::free(&[0]));
    let run = |topics: &[&str], log: &str| {
        let arguments = ["--instance", "a", "--http", &address];
        let mut life = spawn(
            &folder,
            log,
            command(&folder, &pipeline(name, topics), &arguments),
        );
        life.wait_ready(WITHIN);
        life
    };
    let mut life = run(&["t", "u"], "both.log");
    write_values(&folder, "topic-back-u", &["1"]);
    wait_records(&mut life, 1);
    // It has left: the group knows nothing of it any more.
    let file = folder.join("pipeline.toml").display().to_string();
    let drained = millstream::run(&["drain", &file, "--instance", "a"]);
    assert!(drained.status.success(), "{drained:?}");
    assert!(life.wait_exit(WITHIN).success());
    let mut life = run(&["t"], "one.log");
    write_values(&folder, "topic-back-t", &["2"]);
    wait_records(&mut life, 1);
    write_values(&folder, "topic-back-u", &["3"]);
    assert!(life.terminate(WITHIN).success());
    let mut life = run(&["t", "u"], "both-again.log");
    wait_records(&mut life, 1);
    assert!(life.terminate(WITHIN).success());
    assert_eq!(values("topic-back-out"), ["1", "2", "3"]);
}

/// Where it begins is committed as nobody of the group, which the group takes from nobody while it has members.
#[test]
fn a_topic_that_is_new_in_the_file_waits_for_those_that_do_not_read_it() {
    let (folder, name) = (Folder::new("next-life"), "topic-new");
    make_topics(name, 1);
    let arguments = ["--instance", "a", "--http", "127.0.0.1:0"];
    let mut old = spawn(
        &folder,
        "old.log",
        command(&folder, &pipeline(name, &["t"]), &arguments),
    );
    old.wait_ready(WITHIN);
    write_values(&folder, "topic-new-t", &["1"]);
    wait_records(&mut old, 1);
    write_values(&folder, "topic-new-u", &["2"]);
    let arguments = ["--instance", "b", "--http", "127.0.0.1:0"];
    let both = pipeline(name, &["t", "u"]);
    let mut new = spawn(&folder, "new.log", command(&folder, &both, &arguments));
    let words =
        "where topic topic-new-u begins can't be settled while processes run that don't read it";
    new.wait_line(words, WITHIN);
    assert!(old.terminate(WITHIN).success());
    new.wait_ready(WITHIN);
    wait_records(&mut new, 1);
    assert!(new.terminate(WITHIN).success());
    assert_eq!(values("topic-new-out"), ["1", "2"]);
}

/// Nothing on the host says how many workers there were.
#[test]
fn what_a_worker_left_open_is_ended_by_who_comes_back_with_fewer() {
    let (folder, name) = (Folder::new("next-life"), "fewer");
    make_topics(name, 2);
    let arguments = ["--instance", "a", "--http", "127.0.0.1:0", "--workers"];
    let run = |workers: &str, host: &str, doom: Option<(&str, String)>| {
        let arguments = [&arguments[..], &[workers]].concat();
        let mut command = command(&folder, &pipeline(name, &["t"]), &arguments);
        command.env("XDG_RUNTIME_DIR", folder.join(host)).envs(doom);
        spawn(&folder, &format!("{host}.log"), command)
    };
    let doom = points::doom(("epoch-offsets-added".to_owned(), 3));
    let mut life = run("2", "here", Some(doom));
    life.wait_ready(WITHIN);
    let mut written = Vec::new();
    let began = Instant::now();
    while life.exited().is_none() {
        assert!(began.elapsed() < WITHIN, "it lives on");
        written.push(written.len().to_string());
        // The second worker's partition.
        write_to(
            &folder,
            "fewer-t",
            "1",
            &format!("k\t{}\n", written.len() - 1),
        );
    }
    let mut life = run("1", "there", None);
    life.wait_line(
        "fewer.a.1 is gone: what it may have left open is ended",
        WITHIN,
    );
    let began = Instant::now();
    while values("fewer-out") != written {
        assert!(began.elapsed() < WITHIN, "{:?}", values("fewer-out"));
    }
    assert!(life.terminate(WITHIN).success());
    assert_eq!(values("fewer-out"), written);
}
