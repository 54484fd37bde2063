//! A plugin written in C from the contract alone does its work: it sets nothing but origins, and everything else is inherited.

use std::time::Duration;

use rig::folder::Folder;
use rig::judge;
use rig::millstream::Millstream;
use serde_json::Value;

use crate::pipelines::{plugin, shared_kafka};

const READY: Duration = Duration::from_secs(60);

const RECORDS: &str = "a\t{\"age\":17,\"n\":1}
b\t{\"n\":2,\"age\":18}
c\tnot JSON
\\N\t{\"nested\":{\"age\":3},\"age\":44}
d\t\\N
e\t{\"age\":\"19\"}
f\t{ \"text\": \"\\\"age\\\":1\", \"age\" : 90 }
";

#[test]
fn a_plugin_in_c_filters_by_age() {
    let kafka = shared_kafka();
    for topic in ["c-in", "c-out"] {
        kafka.topic(topic, 1, &[]);
    }
    let folder = Folder::new("c-plugin");
    let records = folder.write("records.tsv", RECORDS).display().to_string();
    judge::run(&["write", &kafka.direct(), "c-in", &records]);
    let pipeline = format!(
        r#"
name = "c"
kafka.bootstrap.servers = "{bootstrap}"
checkpoint.interval = "50ms"
sources.in.topics = ["c-in"]
plugins.filter.path = "{plugin}"
steps.adults = {{ inputs = ["in"], plugin = "filter", config = {{ min_age = 18 }}, on-error = "skip" }}
sinks.out = {{ inputs = ["adults"], topic = "c-out" }}
"#,
        bootstrap = kafka.bootstrap(),
        plugin = plugin("c-filter.wasm").display()
    );
    let file = folder
        .write("pipeline.toml", &pipeline)
        .display()
        .to_string();
    let arguments = ["run", &file, "--instance", "a", "--http", "127.0.0.1:0"];
    let mut life = Millstream::spawn(&folder.join("millstream.log"), &arguments);
    life.wait_ready(READY);
    let status = |text: &str| serde_json::from_str::<Value>(text).expect("status is JSON");
    life.wait_get("/v1/status", READY, |answer| {
        status(answer.text())["workers"][0]["records"] == 7
    });
    let worker = status(life.get("/v1/status").text())["workers"][0].clone();
    assert_eq!(worker["failures"]["step \"adults\""], 3, "{worker}");
    assert!(life.terminate(READY).success());
    let lines = judge::run(&["dump", &kafka.direct(), "c-out"]);
    let kept: Vec<Value> = lines
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(status)
        .collect();
    let kept: Vec<(&Value, &Value)> = kept
        .iter()
        .map(|record| (&record["key"], &record["value"]))
        .collect();
    let expected = [
        ("b".into(), "{\"n\":2,\"age\":18}".into()),
        (Value::Null, "{\"nested\":{\"age\":3},\"age\":44}".into()),
        (
            "f".into(),
            "{ \"text\": \"\\\"age\\\":1\", \"age\" : 90 }".into(),
        ),
    ];
    assert_eq!(
        kept,
        expected
            .iter()
            .map(|(key, value)| (key, value))
            .collect::<Vec<_>>()
    );
}
