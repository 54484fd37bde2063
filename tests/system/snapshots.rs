//! Snapshots beside a real Kafka: a map is restored from one and the changelog's tail after a kill; damaged ones and those of a
//! changelog that was made anew are not used, and the map is right all the same. Nor does a disk cost anything that fails beneath them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use rig::folder::Folder;
use rig::http::Answer;
use rig::judge;
use rig::millstream::{self, Millstream};
use serde_json::Value;

use crate::pipelines::{WITHIN, shared_kafka, wait_records, write_to};

const RESTORED: &str = "came from snapshots";

struct Stage {
    name: &'static str,
    folder: Folder,
    /// What the map is to hold.
    expected: BTreeMap<String, String>,
}

impl Stage {
    fn new(name: &'static str) -> Self {
        let stage = Self {
            name,
            folder: Folder::new(name),
            expected: BTreeMap::new(),
        };
        let (topic, bootstrap) = (stage.topic(), shared_kafka().bootstrap());
        shared_kafka().topic(&topic, 2, &[]);
        let pipeline = format!(
            "name = \"{name}\"\nkafka.bootstrap.servers = \"{bootstrap}\"\ncheckpoint.interval = \"50ms\"\n\
             sources.in.topics = [\"{topic}\"]\nsinks.kept = {{ inputs = [\"in\"], map = \"kept\" }}\n"
        );
        let _ = stage.folder.write("pipeline.toml", &pipeline);
        stage
    }

    fn topic(&self) -> String {
        format!("{}-in", self.name)
    }

    /// Keys from some number on; each third value is null.
    fn write(&mut self, from: u32, count: u32, turn: &str) {
        let mut lines = String::new();
        for id in from..from + count {
            let (key, value) = (format!("k{}", id % 700), format!("\"{turn}-{id}\""));
            if id % 3 == 0 {
                lines += &format!("{key}\t\\N\n");
                self.expected.remove(&key);
            } else {
                lines += &format!("{key}\t{value}\n");
                self.expected.insert(key, format!("{turn}-{id}"));
            }
        }
        write_to(&self.folder, &self.topic(), "hash", &lines);
    }

    /// Keys that come and go: so many changes of each partition that another snapshot of it is due. None is written meanwhile.
    fn make_due(&self) {
        const KEYS: u64 = 12_000;
        let mut life = self.start_with("60m");
        for (turn, value) in (1..).zip(["\"soon gone\"", "\\N"]) {
            let lines: String = (0..KEYS).map(|id| format!("n{id}\t{value}\n")).collect();
            write_to(&self.folder, &self.topic(), "hash", &lines);
            wait_records(&mut life, turn * KEYS);
        }
        assert!(life.terminate(WITHIN).success());
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn start(&self) -> Millstream {
        self.start_with("300ms")
    }

    /// So long after a snapshot the next one may be written.
    fn start_with(&self, interval: &str) -> Millstream {
        let mut life = self.spawn(interval);
        life.wait_ready(WITHIN);
        life
    }

    fn spawn(&self, interval: &str) -> Millstream {
        self.spawn_command(Command::new(millstream::binary()), interval)
    }

    /// On a disk that fails.
    fn start_on(&self, fault: &str) -> Millstream {
        let mut life = self.spawn_command(on(fault), "300ms");
        life.wait_ready(WITHIN);
        life
    }

    fn spawn_command(&self, mut command: Command, interval: &str) -> Millstream {
        let (file, state) = (self.path("pipeline.toml"), self.path("state"));
        command.args(["run", &file, "--instance", "a", "--http", "127.0.0.1:0"]);
        command.args(["--state-dir", &state, "--snapshot-interval", interval]);
        Millstream::spawn_command(&self.folder.join("log"), command)
    }

    /// What is committed is read back from the changelog before it is answered: a moment may pass.
    fn check(&self, life: &mut Millstream) {
        let entries = format!("/v1/pipelines/{}/maps/kept/entries?limit=1000", self.name);
        life.wait_get(&entries, WITHIN, |answer| {
            entries_of(answer) == self.expected
        });
    }

    /// Waits until each partition has a snapshot.
    fn wait_snapshots(&self, life: &mut Millstream) {
        life.wait_get("/metrics", WITHIN, |_| self.files("snapshot").len() >= 2);
    }

    fn snapshots(&self) -> Vec<PathBuf> {
        let mut files = self.files("snapshot");
        files.sort();
        files
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.join("state")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|found| found == extension) {
                    found.push(path);
                }
            }
        }
        found
    }

    fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let (file, state) = (self.path("pipeline.toml"), self.path("state"));
        said(&millstream::run(
            &[arguments, &[&file, "--state-dir", &state]].concat(),
        ))
    }

    /// What the snapshots are found to be on a disk that fails.
    fn look_on(&self, fault: &str) -> (Option<i32>, String) {
        let (file, state) = (self.path("pipeline.toml"), self.path("state"));
        let mut command = on(fault);
        command.args(["state", "snapshots", &file, "--state-dir", &state]);
        said(&command.output().expect("the server can be run"))
    }
}

fn entries_of(answer: &Answer) -> BTreeMap<String, String> {
    let page: Value = serde_json::from_str(answer.text()).expect("a page is JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let entries = page["entries"].as_array().expect("a page has entries");
    let found = entries
        .iter()
        .map(|entry| (text(&entry["key"]), text(&entry["value"])));
    found.collect()
}

fn on(fault: &str) -> Command {
    let mut command = Command::new(millstream::faulty());
    command.env("MILLSTREAM_FAULT_DISK", fault);
    command
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.code(), said)
}

fn metric(life: &Millstream, name: &str) -> u64 {
    let answer = life.get("/metrics");
    let start = format!("millstream_{name}{{");
    let line = answer.text().lines().find(|line| line.starts_with(&start));
    let number = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no {name} in {}", answer.text()))
}

#[test]
fn a_map_is_restored_from_a_snapshot_and_the_tail() {
    let mut stage = Stage::new("snapped");
    stage.write(0, 2000, "first");
    let mut life = stage.start();
    assert_eq!(metric(&life, "snapshots_restored_entries_total"), 0);
    wait_records(&mut life, 2000);
    stage.wait_snapshots(&mut life);
    stage.write(150, 300, "tail");
    wait_records(&mut life, 2300);
    life.kill();

    let mut life = stage.start();
    life.wait_line(RESTORED, WITHIN);
    assert!(metric(&life, "snapshots_restored_entries_total") > 0);
    stage.check(&mut life);
    assert!(life.terminate(WITHIN).success());
    let (code, said) = stage.command(&["state", "snapshots"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("map kept partition 1 of 2: "), "{said}");

    // A byte of each is changed.
    for file in stage.files("snapshot") {
        let mut bytes = fs::read(&file).expect("it can be read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&file, bytes).expect("it can be written");
    }
    let (code, said) = stage.command(&["state", "snapshots"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("not valid: it is damaged at byte"), "{said}");
    let mut life = stage.start();
    life.wait_line("is not used: it is damaged at byte", WITHIN);
    assert_eq!(metric(&life, "snapshots_restored_entries_total"), 0);
    assert!(metric(&life, "snapshots_refused_total") >= 2);
    stage.check(&mut life);
    assert_eq!(stage.files("rejected").len(), 2);
    stage.wait_snapshots(&mut life);
    life.kill();

    for file in stage.files("snapshot") {
        fs::write(&file, b"garbage").expect("it can be written");
    }
    let mut life = stage.start();
    life.wait_line("is not used: it is no snapshot", WITHIN);
    stage.check(&mut life);
    stage.wait_snapshots(&mut life);
    assert!(life.terminate(WITHIN).success());
    changelog_made_anew(&mut stage);
}

/// The snapshots are sound, but of a topic that is gone. Offsets that were committed beside that one are refused first.
fn changelog_made_anew(stage: &mut Stage) {
    let changelog = "snapped.kept.changelog";
    judge::run(&["delete", &shared_kafka().direct(), changelog]);
    let mut life = stage.spawn("60m");
    let words = "topic snapped.kept.changelog was deleted, or made anew, since snapped-in[";
    life.wait_line(words, WITHIN);
    assert_eq!(life.wait_exit(WITHIN).code(), Some(1));
    let (file, elsewhere) = (stage.path("pipeline.toml"), stage.path("no-state"));
    let reset = millstream::run(&["reset", &file, "--yes", "--state-dir", &elsewhere]);
    assert!(reset.status.success(), "{reset:?}");

    // As long as the new changelog is empty, there is nothing to restore; and no newer snapshot takes the place of the old ones.
    let mut life = stage.start_with("60m");
    wait_records(&mut life, 2300);
    life.kill();
    let mut life = stage.start();
    life.wait_line("is not used: it is of a topic with id", WITHIN);
    stage.check(&mut life);
    assert!(life.terminate(WITHIN).success());

    let (code, said) = stage.command(&["reset", "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("snapshots on this host: "), "{said}");
    assert_eq!(stage.files("snapshot"), [] as [PathBuf; 0]);
    assert_eq!(stage.files("rejected"), [] as [PathBuf; 0]);
}

/// In whatever it fails that is asked for as a snapshot is written: epochs are committed, and the snapshot of before is all that there is.
#[test]
fn a_disk_that_fails_as_snapshots_are_written_costs_nothing_else() {
    const KINDS: [&str; 5] = [
        "full:1",
        "eio-create:1",
        "eio-write:2",
        "eio-sync:1",
        "eio-rename:1",
    ];
    let mut stage = Stage::new("unwritten");
    stage.write(0, 2000, "first");
    let mut life = stage.start();
    wait_records(&mut life, 2000);
    stage.wait_snapshots(&mut life);
    assert!(life.terminate(WITHIN).success());
    let before = stage.snapshots();
    stage.make_due();
    for kind in KINDS {
        println!("{kind}");
        let mut life = stage.start_on(kind);
        life.wait_line(RESTORED, WITHIN);
        let line = life.wait_line("can't be written in ", WITHIN);
        let why = if kind.starts_with("full") {
            "No space left on device"
        } else {
            "Input/output error"
        };
        assert!(line.contains(why), "{line}");
        assert!(line.contains("or name another folder with --state-dir"));
        stage.write(17, 70, kind);
        wait_records(&mut life, 70);
        stage.check(&mut life);
        assert!(metric(&life, "snapshots_failed_total") > 0);
        assert!(life.terminate(WITHIN).success());
        assert_eq!(stage.snapshots(), before);
        assert_eq!(stage.files("draft"), [] as [PathBuf; 0]);
        let (code, said) = stage.command(&["state", "snapshots"]);
        assert_eq!(code, Some(0), "{said}");
    }
    // The snapshot has its name already, and is whole.
    let mut life = stage.start_on("eio-folder:1");
    life.wait_line("can't be written in ", WITHIN);
    stage.check(&mut life);
    life.kill();
    assert_ne!(stage.snapshots(), before);
    let (code, said) = stage.command(&["state", "snapshots"]);
    assert_eq!(code, Some(0), "{said}");
}

/// Nor is anything of a snapshot in the map that can't be read to its end.
#[test]
fn a_snapshot_that_cannot_be_read_is_done_without() {
    let mut stage = Stage::new("unread");
    // Of two partitions, each more than is read at a time.
    let long = "x".repeat(3000);
    stage.write(0, 1400, &long);
    let mut life = stage.start_with("60m");
    wait_records(&mut life, 1400);
    assert!(life.terminate(WITHIN).success());
    let mut life = stage.start();
    stage.wait_snapshots(&mut life);
    stage.write(1, 350, "tail");
    wait_records(&mut life, 350);
    assert!(life.terminate(WITHIN).success());
    let before = stage.snapshots();
    for (kind, words) in [
        ("eio-read:1", ", can't be read: Input/output error"),
        ("eio-read:3", ", can't be read: Input/output error"),
        ("eio-list:1", " can't be listed: Input/output error"),
    ] {
        println!("{kind}");
        let mut life = stage.start_on(kind);
        let line = life.wait_line(words, WITHIN);
        assert!(line.contains("see to the disk"), "{line}");
        stage.check(&mut life);
        assert_eq!(metric(&life, "snapshots_restored_entries_total"), 0);
        assert!(life.terminate(WITHIN).success());
        let there = stage.snapshots();
        assert!(before.iter().all(|file| there.contains(file)), "{there:?}");
        assert_eq!(stage.files("rejected"), [] as [PathBuf; 0]);
    }
    let (code, said) = stage.look_on("eio-read:1");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("can't be read: Input/output error"), "{said}");
    let (code, said) = stage.look_on("eio-list:1");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("Input/output error"), "{said}");
    let mut life = stage.start();
    life.wait_line(RESTORED, WITHIN);
    stage.check(&mut life);
}

#[test]
fn a_state_folder_that_is_named_must_be_usable() {
    let folder = Folder::new("unusable");
    let pipeline = "name = \"p\"\nkafka.bootstrap.servers = \"127.0.0.1:1\"\nsources.in.topics = [\"t\"]\nsinks.out = { inputs = [\"in\"], topic = \"u\" }\n";
    let file = folder
        .write("pipeline.toml", pipeline)
        .display()
        .to_string();
    let output = millstream::run(&["run", &file, "--state-dir", &file]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("--state-dir: snapshots of maps can't be kept in"),
        "{said}"
    );
}
