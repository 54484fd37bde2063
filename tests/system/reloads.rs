//! New plugins, configurations and limits while records flow: good ones are taken by all workers, bad ones cost nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rig::folder::Folder;
use rig::millstream::{self, Millstream};
use rig::proxy::JOIN_GROUP;
use rig::repository;
use serde_json::Value;

use crate::example::Example;
use crate::pipelines::{
    WITHIN, replace, run, shared_kafka, told, values, wait_records, write_values,
};
use crate::stage::{READY, Stage, behind_proxy, epochs, number, wait};
use crate::timings::Timings;

const RATE: u64 = 2000;

/// What may be wrong with a version: lines of the pipeline file that give way to others, and what is said.
fn bad(text: &str, round: u64) -> (String, &'static str) {
    let change = |from: &str, to: &str| replace(text, &[(from, to)]);
    let config = "config = { min_age = 18 }";
    match round % 5 {
        0 => (
            change(config, "config = { min_age = \"old\" }"),
            "refused, and the old version runs on",
        ),
        // A plugin for other records: it refuses all of these.
        1 => {
            let other = repository().join("examples/02-count-by-country/parse.wasm");
            let other = format!("path = {:?}", other.display().to_string());
            let text = change(config, "config = {}");
            (
                replace(&text, &[(plugin_line(&text), &other)]),
                "records failed",
            )
        }
        2 => (
            change("topic = \"adults\"", "topic = \"minors\""),
            "sinks can't be changed while the pipeline runs",
        ),
        3 => (
            replace(text, &[(plugin_line(text), "path = \"missing.wasm\"")]),
            "build the plugin, or mend the path",
        ),
        _ => (format!("{text}\n[["), "refused"),
    }
}

fn plugin_line(text: &str) -> &str {
    let mut lines = text.lines();
    let line = lines.find(|line| line.starts_with("path = "));
    line.expect("the pipeline has a plugin")
}

/// The same pipeline with another limit, which makes another version of it.
fn good(text: &str, round: u64, watch: bool) -> String {
    let line = plugin_line(text);
    let limits = format!("{line}\nlimits = {{ time = \"{}ms\" }}", 2000 + round);
    let text = replace(text, &[(line, &limits)]);
    format!("{text}\n[reload]\nwatch = {watch}\n")
}

/// Exit code, and all that is said.
fn reload(file: &Path) -> (Option<i32>, String) {
    ask("reload", file)
}

fn ask(command: &str, file: &Path) -> (Option<i32>, String) {
    let file = file.display().to_string();
    let output = millstream::run(&[command, &file, "--instance", "a"]);
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn pipeline(life: &Millstream) -> Value {
    told(life.get("/v1/status").text()).swap_remove(0)
}

#[test]
fn reloads_under_load_lose_nothing() {
    let (kafka, proxy) = behind_proxy();
    let mut stage = Stage::endless(Example::Users, kafka, RATE);
    stage.workers = 2;
    let mut life = stage.spawn("a", "200ms");
    life.wait_ready(READY);
    wait("some epochs", READY, || epochs(&life) > 4);
    let file = stage.folder.join("pipeline.toml");
    let text = fs::read_to_string(&file).expect("the stage has written it");
    let write = |text: &str| {
        let unfinished = file.with_extension("new");
        fs::write(&unfinished, text).expect("the folder can be written");
        fs::rename(&unfinished, &file).expect("the folder can be written");
    };
    let joins = proxy.count(JOIN_GROUP);
    let (mut taken, mut memory) = (0, 0);
    let rounds = number("MILLSTREAM_TEST_RELOADS", 12);
    for round in 0..rounds {
        if round == rounds.div_ceil(10) {
            memory = millstream::peak_memory(&life.process());
        }
        let version = good(&text, round, false);
        write(&version);
        let (code, said) = reload(&file);
        assert_eq!(code, Some(0), "{said}");
        taken += 1;
        let before = pipeline(&life)["revision"].clone();
        let (version, words) = bad(&version, round);
        write(&version);
        let (code, said) = reload(&file);
        // What isn't a pipeline file can't name a process either.
        if round % 5 != 4 {
            assert_eq!(code, Some(1), "{said}");
        }
        assert!(
            said.contains(words) || round % 5 == 4,
            "{words:?} is not in {said}"
        );
        assert_eq!(pipeline(&life)["revision"], before, "{said}");
        wait("the next epoch", READY, {
            let before = epochs(&life);
            let life = &life;
            move || epochs(life) > before
        });
    }
    assert_eq!(proxy.count(JOIN_GROUP), joins, "a reload is no rebalance");

    // Nobody has to ask.
    write(&good(&text, 1000, true));
    let (code, said) = reload(&file);
    assert_eq!(code, Some(0), "{said}");
    let before = pipeline(&life)["revision"].clone();
    write(&good(&text, 1001, true));
    wait("a version that nobody asked for", READY, || {
        pipeline(&life)["revision"] != before
    });
    let reloads = reloads(life.get("/v1/status").text());
    let last = reloads.last().expect("there were some");
    assert_eq!(
        (&last["by"], &last["verdict"]),
        (&"file".into(), &"taken".into())
    );
    let grown = millstream::peak_memory(&life.process()) - memory;
    println!(
        "{taken} versions taken, {rounds} others refused or rejected; after the first tenth the peak of its memory grew by {} KiB",
        grown >> 10
    );
    print_pauses(&life);

    stage.wait_done(&[&life]);
    stage.judge(&[&life]);
}

/// For how long workers held epochs, where the log has it: `MILLSTREAM_LOG=info,millstream::worker_thread=debug`.
fn print_pauses(life: &Millstream) {
    let mut held = Timings::default();
    for line in life.lines() {
        let Some((_, rest)) = line.split_once("an epoch was held for ") else {
            continue;
        };
        let (number, unit) = match rest.split_once("ms") {
            Some((number, _)) => (number, 1e-3),
            None => (rest.split("µs").next().unwrap_or_default(), 1e-6),
        };
        let number: f64 = number.parse().expect("a length of time");
        held.add(Duration::from_secs_f64(number * unit));
    }
    held.print("epochs held for what others say");
}

fn reloads(body: &str) -> Vec<Value> {
    let pipeline = told(body).swap_remove(0);
    pipeline["reloads"].as_array().expect("a list").clone()
}

const QUIET: &str = r#"
name = "quiet"
sources.in.topics = ["quiet-in"]
steps.probe = { inputs = ["in"], plugin = "probe", on-error = "skip" }
sinks.out = { inputs = ["probe"], topic = "quiet-out" }
"#;

/// A version for which there are no records is tried with the next ones, and nothing that it makes of them is seen before.
#[test]
fn a_version_waits_for_records_to_be_tried_with() {
    let folder = Folder::new("quiet");
    for topic in ["quiet-in", "quiet-out"] {
        shared_kafka().topic(topic, 1, &[]);
    }
    let mut life = run(&folder, QUIET);
    write_values(&folder, "quiet-in", &["a"]);
    wait_records(&mut life, 1);
    let file = folder.join("pipeline.toml");
    let text = fs::read_to_string(&file).expect("it is there");
    let mut decided = 0;
    let mut next = |time: u32, value: &str| {
        let version = format!("plugins.probe.limits.time = \"{time}ms\"\n{text}");
        let file = folder.write("pipeline.toml", &version);
        let (code, said) = reload(&file);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("no records to try it with"), "{said}");
        write_values(&folder, "quiet-in", &[value]);
        let answer = life.wait_get("/v1/status", WITHIN, |answer| {
            reloads(answer.text()).len() > decided
        });
        decided += 1;
        // By the old version, where the new one is rejected.
        wait_records(&mut life, 1 + decided as u64);
        reloads(answer.text()).swap_remove(decided - 1)
    };
    let rejected = next(1001, "trap");
    assert_eq!(rejected["verdict"], "rejected", "{rejected}");
    let why = rejected["why"].as_str().expect("it says why");
    assert!(why.contains("1 calls failed"), "{why}");
    let taken = next(1002, "b");
    assert_eq!(taken["verdict"], "taken", "{taken}");
    assert_eq!(values("quiet-out"), ["a", "b"]);
    assert!(life.terminate(WITHIN).success());
}

const BACK: &str = r#"
name = "back"
sources.in.topics = ["back-in"]
steps.probe = { inputs = ["in"], plugin = "probe", on-error = "skip" }
sinks.out = { inputs = ["probe"], topic = "back-out" }
"#;

/// Rollback goes to the version before, which bytes on disk have nothing to do with, and takes it as any version is taken.
#[test]
fn a_version_is_gone_back_to() {
    let folder = Folder::new("back");
    for topic in ["back-in", "back-out"] {
        shared_kafka().topic(topic, 1, &[]);
    }
    let mut life = run(&folder, BACK);
    write_values(&folder, "back-in", &["a"]);
    wait_records(&mut life, 1);
    let file = folder.join("pipeline.toml");
    let text = fs::read_to_string(&file).expect("it is there");
    let first = pipeline(&life)["revision"].clone();
    let (code, said) = ask("rollback", &file);
    assert_eq!(code, Some(1), "{said}");
    let words = "is not rolled back: refused, and the old version runs on: there is no version to go back to";
    assert!(said.contains(words), "{said}");

    // A version that takes small answers only.
    let small = format!("plugins.probe.limits.output-records = 10\n{text}");
    let _ = folder.write("pipeline.toml", &small);
    let (code, said) = reload(&file);
    assert!(code == Some(0) && said.contains("no records"), "{said}");
    decide(&mut life, &folder, "b", 2);
    write_values(&folder, "back-in", &["many 20"]);
    wait_records(&mut life, 3);
    assert_eq!(values("back-out"), ["a", "b"], "it is skipped");
    let (code, said) = ask("rollback", &file);
    assert!(code == Some(0) && said.starts_with("going back"), "{said}");
    let back = decide(&mut life, &folder, "many 20", 4);
    assert_eq!(back["revision"], first, "{back}");
    assert_eq!(
        (&back["action"], &back["by"]),
        (&"rollback".into(), &"request".into())
    );
    assert_eq!(pipeline(&life)["revision"], first);
    assert_eq!(values("back-out").len(), 22, "a large answer came through");
    assert!(life.terminate(WITHIN).success());
}

/// Writes a record, by which what is being tried is taken: what is remembered of that, once so many records are through.
fn decide(life: &mut Millstream, folder: &Folder, value: &str, records: u64) -> Value {
    let before = reloads(life.get("/v1/status").text()).len();
    write_values(folder, "back-in", &[value]);
    let answer = life.wait_get("/v1/status", WITHIN, |answer| {
        reloads(answer.text()).len() > before
    });
    wait_records(life, records);
    let last = reloads(answer.text()).pop().expect("one more");
    assert_eq!(last["verdict"], "taken", "{last}");
    last
}
