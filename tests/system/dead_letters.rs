//! Records that a step can't process, set aside in a topic: each once, as the step was given it, with where it comes from and why.

use std::collections::BTreeMap;

use rig::folder::Folder;
use rig::millstream;
use serde_json::Value;

use crate::hostile::component;
use crate::pipelines::{
    WITHIN, dump, run, shared_kafka, values, wait_records, wait_worker, write_to, write_values,
};

const PIPELINE: &str = r#"
name = "letters"
plugins.probe.limits.output-bytes = "1MiB"
sources.in.topics = ["letters-in"]

[steps.probe]
inputs = ["in"]
plugin = "probe"
on-error = "dead-letter"

[sinks.out]
inputs = ["probe"]
topic = "letters-out"

[sinks.dead]
inputs = ["probe.failed"]
topic = "letters-dead"
"#;

fn headers(letter: &Value) -> BTreeMap<&str, &str> {
    let pairs = letter["headers"].as_array().expect("a letter has headers");
    pairs
        .iter()
        .map(|header| {
            let text = |at: usize| header[at].as_str().expect("names and values are text");
            (text(0), text(1))
        })
        .collect()
}

#[test]
fn letters_say_where_they_come_from_and_why() {
    let kafka = shared_kafka();
    let folder = Folder::new("letters");
    for topic in ["letters-in", "letters-out", "letters-dead"] {
        kafka.topic(topic, 1, &[]);
    }
    let sent = ["a", "fail", "b", "trap", "c", "loop", "big 1100000", "d"];
    write_values(&folder, "letters-in", &sent);
    let mut life = run(&folder, PIPELINE);
    let worker = wait_records(&mut life, sent.len() as u64);
    assert_eq!(worker["failures"]["step \"probe\""], 4, "{worker}");
    assert_eq!(worker["stopped"], serde_json::json!([]));
    wait_worker(&mut life, |worker| {
        worker["partitions"][0]["committed_offset"] == sent.len()
    });
    assert!(life.terminate(WITHIN).success());
    assert_eq!(values("letters-out"), ["a", "b", "c", "d"]);

    let letters = dump("letters-dead");
    let expected = [
        ("fail", "1", "refused", "asked to fail"),
        ("trap", "3", "call", "unreachable"),
        ("loop", "5", "call", "it missed its deadline"),
        ("big 1100000", "6", "call", "more than its 1MiB of output"),
    ];
    assert_eq!(letters.len(), expected.len(), "{letters:#?}");
    for (letter, (value, offset, kind, reason)) in letters.iter().zip(expected) {
        assert_eq!(
            (&letter["key"], &letter["value"]),
            (&"k".into(), &value.into())
        );
        let headers = headers(letter);
        let said = |name: &str| headers.get(name).copied().unwrap_or_default();
        assert_eq!(said("millstream-topic"), "letters-in");
        assert_eq!(said("millstream-partition"), "0");
        assert_eq!(said("millstream-offset"), offset);
        assert_eq!(said("millstream-step"), "probe");
        assert_eq!(said("millstream-plugin").len(), 64);
        assert_eq!(said("millstream-kind"), kind);
        assert!(said("millstream-reason").contains(reason), "{headers:?}");
    }
    let log = life.lines().join("\n");
    assert!(log.contains("set a record aside as a dead letter"), "{log}");
    list_and_show(&folder.join("pipeline.toml").display().to_string());
}

/// What the command line says of the letters above.
fn list_and_show(file: &str) {
    let ask = |arguments: &[&str]| {
        let output = millstream::run(&[&["dead-letters"], arguments].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, listed, errors) = ask(&["list", file, "--step", "probe"]);
    assert_eq!(code, Some(0), "{errors}");
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 4, "{listed}");
    let (place, rest) = lines[0].split_once("  ").expect("it begins with a place");
    assert_eq!(
        rest,
        "step probe  refused  from letters-in[0]@1  asked to fail"
    );
    let (_, shown, _) = ask(&["show", file, place]);
    for words in [
        "kind       refused",
        "value      fail",
        "from       letters-in[0]@1",
    ] {
        assert!(shown.contains(words), "{words:?} is not in\n{shown}");
    }
    let (_, json, _) = ask(&["show", file, place, "--json"]);
    let line: Value = serde_json::from_str(&json).expect("a line is JSON");
    assert_eq!(line["value"], "fail");
    let (_, last, _) = ask(&["list", file, "--limit", "2", "--json"]);
    assert!(last.lines().count() <= 2, "{last}");

    for (arguments, words) in [
        (
            ["show", file, "letters-dead[0]@99999"],
            "no committed record",
        ),
        (
            ["show", file, "letters-in[0]@0"],
            "they are in letters-dead",
        ),
        (
            ["show", file, "letters-dead"],
            "topic, partition and offset",
        ),
        (["list", file, "--step=other"], "there are probe"),
    ] {
        let (code, _, errors) = ask(&arguments);
        assert_eq!(code, Some(2), "{errors}");
        assert!(errors.contains(words), "{words:?} is not in {errors}");
    }
}

const REPLAYING: &str = r#"
name = "replaying"
sources.in.topics = ["replaying-in"]
plugins.honest.path = "HONEST"
plugins.probe.limits.time = "200ms"

[steps.first]
inputs = ["in"]
plugin = "honest"

[steps.probe]
inputs = ["first"]
plugin = "probe"
on-error = "dead-letter"
replay = true

[sinks.seen]
inputs = ["first"]
topic = "replaying-seen"

[sinks.out]
inputs = ["probe"]
topic = "replaying-out"

[sinks.dead]
inputs = ["probe.failed"]
topic = "replaying-dead"
"#;

/// What is said on standard output, of a command that has to succeed; on standard error, of one that has to be refused.
fn ask(arguments: &[&str], code: i32) -> String {
    let output = millstream::run(&[&["dead-letters"], arguments].concat());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    match code {
        0 => String::from_utf8_lossy(&output.stdout).into_owned(),
        _ => errors,
    }
}

/// The step's plugin is mended meanwhile: letters come to it, each once, and not to the step before it.
#[test]
fn letters_come_back_to_their_step_once() {
    let kafka = shared_kafka();
    let folder = Folder::new("replaying");
    for topic in ["in", "seen", "out", "dead"] {
        kafka.topic(&format!("replaying-{topic}"), 2, &[]);
    }
    let honest = folder.join("honest.wasm");
    std::fs::write(&honest, component::honest()).expect("the folder can be written");
    let pipeline = REPLAYING.replace("HONEST", &honest.display().to_string());
    write_values(&folder, "replaying-in", &["a", "fail"]);
    write_to(&folder, "replaying-in", "1", "k\ttrap\nk\tb\nk\tloop\n");
    let mut life = run(&folder, &pipeline);
    let file = folder.join("pipeline.toml").display().to_string();
    wait_records(&mut life, 5);
    assert!(life.terminate(WITHIN).success());
    assert_eq!(values("replaying-dead").len(), 3);

    let mended = pipeline.replace("plugin = \"probe\"", "plugin = \"honest\"");
    let mut life = run(
        &folder,
        &mended.replace("plugins.probe.limits.time = \"200ms\"", ""),
    );
    let said = ask(&["replay", &file], 0);
    assert_eq!(said, "3 dead letters of step \"probe\" come to it again\n");
    wait_records(&mut life, 3);
    let none = "0 dead letters of step \"probe\" come to it again\n";
    assert_eq!(ask(&["replay", &file, "--step", "probe"], 0), none);
    let list = ask(&["list", &file], 0);
    let (place, _) = list.split_once("  ").expect("it begins with a place");
    let one = "1 dead letters of step \"probe\" come to it again\n";
    assert_eq!(ask(&["replay", &file, place], 0), one);
    wait_records(&mut life, 4);
    assert!(life.terminate(WITHIN).success());

    let mut out = values("replaying-out");
    let again = out.pop().expect("the one that was named");
    assert!(
        ["fail", "trap", "loop"].contains(&again.as_str()),
        "{again}"
    );
    out.sort_unstable();
    assert_eq!(out, ["a", "b", "fail", "loop", "trap"]);
    assert_eq!(
        values("replaying-seen").len(),
        5,
        "the first step is not entered again"
    );
    let back = dump("replaying.probe.replay");
    let has_headers = |record: &Value| {
        record["headers"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    };
    assert!(!back.iter().any(has_headers), "{back:#?}");

    for (arguments, words) in [
        (
            ["replay", &file, "--step=first"],
            "`replay = true` in a step's table",
        ),
        (
            ["replay", &file, "replaying-dead[0]@99"],
            "no committed record",
        ),
    ] {
        let said = ask(&arguments, 2);
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
}
