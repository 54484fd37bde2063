//! Records that a step can't process, set aside in a topic: each once, as the step was given it, with where it comes from and why.

use std::collections::BTreeMap;

use rig::folder::Folder;
use serde_json::Value;

use crate::pipelines::{
    WITHIN, dump, run, shared_kafka, values, wait_records, wait_worker, write_values,
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
}
