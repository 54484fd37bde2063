//! The vectors of `plugins/sdk/vectors`, without WebAssembly.

use std::path::Path;

use millstream_plugin::testing::{Emitted, Harness, Input, Table};
use serde_json::Value;
use vectors::Vectors;

/// A string of the vectors: text, null, or a text that is repeated.
fn text(given: &Value) -> Option<String> {
    match given["times"].as_u64() {
        Some(times) => {
            let part = |name: &str| given[name].as_str().expect("it is a text");
            let times = usize::try_from(times).expect("it fits into memory");
            Some(part("before").to_owned() + &part("repeat").repeat(times))
        }
        None => given.as_str().map(str::to_owned),
    }
}

fn bytes(given: &Value) -> Option<Vec<u8>> {
    text(given).map(String::into_bytes)
}

fn timestamp(record: &Value) -> i64 {
    let given = record.get("timestamp");
    given.map_or(1000, |given| given.as_i64().unwrap_or(-1))
}

fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of[name].as_array().map_or(&[], Vec::as_slice)
}

fn input(record: &Value) -> Input {
    let mut input = Input::null().at(timestamp(record));
    if let Some(key) = bytes(&record["key"]) {
        input = input.with_key(key);
    }
    if let Some(value) = bytes(&record["value"]) {
        input = input.with_value(value);
    }
    for header in list(record, "headers") {
        let name = header[0].as_str().expect("a name is text");
        input = match bytes(&header[1]) {
            Some(value) => input.with_header(name, value),
            None => input.with_null_header(name),
        };
    }
    input
}

fn table(name: &str, entries: &Value) -> Table {
    let entries = entries.as_object().into_iter().flatten();
    entries.fold(Table::new(name), |table, (key, value)| {
        table.with(key.as_str(), value.as_str().expect("a value is text"))
    })
}

fn origin(expected: &Value) -> u64 {
    expected["origin"].as_u64().expect("an index")
}

fn check(found: &Emitted, expected: &Value) {
    let name = expected["port"].as_str().unwrap_or_default();
    assert_eq!(
        (found.port.as_str(), found.origin as u64),
        (name, origin(expected))
    );
    assert_eq!(found.key, bytes(&expected["key"]));
    match expected.get("json") {
        Some(json) => assert_eq!(&found.json(), json),
        None => assert!(found.value == bytes(&expected["value"]), "{expected:.300}"),
    }
    assert_eq!(found.timestamp, timestamp(expected));
    let headers = list(expected, "headers").iter();
    let headers = headers.map(|header| (text(&header[0]).unwrap_or_default(), bytes(&header[1])));
    assert_eq!(found.headers, headers.collect::<Vec<_>>());
}

#[test]
fn vectors() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/vectors.json");
    let suite = std::fs::read_to_string(file).expect("the vectors are there");
    let suite: Value = serde_json::from_str(&suite).expect("they are JSON");
    for case in list(&suite, "cases") {
        println!("{}", case["name"]);
        let words = table("words", &suite["lookups"]["words"]);
        let config = suite["config"].clone();
        let mut harness =
            Harness::with_tables::<Vectors>(config, [words]).expect("it is configured");
        harness.set_state(table("totals", &case["before"]));
        let records: Vec<Input> = list(case, "records").iter().map(input).collect();
        let mut processed = harness.process(&records);
        // By the default port last.
        processed
            .records
            .sort_by_key(|record| record.port.is_empty());
        let outputs = list(case, "outputs");
        assert_eq!(processed.records.len(), outputs.len());
        processed
            .records
            .iter()
            .zip(outputs)
            .for_each(|(found, expected)| check(found, expected));
        let failures = list(case, "failures");
        assert_eq!(processed.failures.len(), failures.len());
        for ((index, reason), expected) in processed.failures.iter().zip(failures) {
            assert_eq!(*index as u64, origin(expected));
            assert!(
                reason.contains(expected["reason"].as_str().expect("a text")),
                "{reason}"
            );
        }
        let after = table("totals", &case["after"]);
        assert_eq!(harness.state("totals").texts(), after.texts());
    }
}
