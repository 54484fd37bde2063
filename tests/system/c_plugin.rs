//! A plugin written in C from the contract alone does its work: it sets nothing but origins, and everything else is inherited.

use rig::folder::Folder;
use serde_json::Value;

use crate::pipelines::{WITHIN, dump, plugin, run, shared_kafka, wait_records, write};

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
    for topic in ["c-in", "c-out"] {
        shared_kafka().topic(topic, 1, &[]);
    }
    let folder = Folder::new("c-plugin");
    write(&folder, "c-in", RECORDS);
    let pipeline = format!(
        r#"
name = "c"
sources.in.topics = ["c-in"]
plugins.filter.path = "{plugin}"
steps.adults = {{ inputs = ["in"], plugin = "filter", config = {{ min_age = 18 }}, on-error = "skip" }}
sinks.out = {{ inputs = ["adults"], topic = "c-out" }}
"#,
        plugin = plugin("c-filter.wasm").display()
    );
    let mut life = run(&folder, &pipeline);
    let worker = wait_records(&mut life, 7);
    assert_eq!(worker["failures"]["step \"adults\""], 3, "{worker}");
    assert!(life.terminate(WITHIN).success());
    let kept = dump("c-out");
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
