//! The plugin of the vectors (`plugins/sdk/vectors`) in each language, as a component in the host: what goes in, and what has to come out.
//! State is seen by what it is counted on to.

use std::fs;
use std::path::Path;
use std::process::Command;

use rig::folder::Folder;
use rig::{millstream, repository};
use serde_json::{Value, json};

use crate::pipelines::built;

const NONE: i64 = -1;
/// No time in the vectors is later; whatever is written now is.
const ANY: i64 = 1_750_000_000_000;

/// So much of what differs is told: some records are large.
const TOLD: usize = 300;

#[test]
fn vectors_in_rust() {
    check("rust");
}

#[test]
fn vectors_in_c() {
    check("c");
}

#[test]
fn vectors_in_go() {
    check("go");
}

#[test]
fn vectors_in_python() {
    check("python");
}

#[test]
fn vectors_in_javascript() {
    check("js");
}

fn check(language: &str) {
    let component = built(&format!("vectors-{language}.wasm"));
    if !component.exists() {
        let what = format!("{} is missing: cargo xtask sdks", component.display());
        assert!(std::env::var_os("CI").is_none(), "{what}");
        println!("left out: {what}");
        return;
    }
    let suite = repository().join("plugins/sdk/vectors/vectors.json");
    let suite = fs::read_to_string(suite).expect("the vectors are there");
    let suite: Value = serde_json::from_str(&suite).expect("the vectors are JSON");
    let (records, mut expected) = (fed(&suite), expected(&suite));
    let folder = Folder::new(&format!("vectors-{language}"));
    let mut found = run(&folder, &component, &suite, &records);
    for all in [&mut found, &mut expected] {
        all.iter_mut()
            .for_each(|lines| lines.sort_by(|one, other| one.among.cmp(&other.among)));
    }
    for ((found, expected), what) in found.iter().zip(&expected).zip(["out", "other"]) {
        for (Line { line: found, .. }, Line { line: expected, .. }) in found.iter().zip(expected) {
            assert_eq!(told(found), told(expected), "{language}, {what}");
            assert_eq!(found, expected, "{language}, {what}");
        }
        assert_eq!(found.len(), expected.len(), "{language}, {what}");
    }
    check_failures(&folder, &suite);
}

/// A record in a shape of which two can be compared: JSON as JSON, whoever wrote it.
struct Line {
    /// Of records that have this in common the order counts: those of a key are in one partition. Of those without one, it doesn't.
    among: String,
    line: String,
}

fn told(line: &str) -> String {
    line.chars().take(TOLD).collect()
}

fn cases(suite: &Value) -> impl Iterator<Item = &Value> {
    suite["cases"].as_array().expect("there are cases").iter()
}

fn list<'a>(case: &'a Value, name: &str) -> &'a [Value] {
    case[name].as_array().map_or(&[], Vec::as_slice)
}

/// A string of the vectors; one that is repeated is written out.
fn text(given: &Value) -> Value {
    let Some(times) = given["times"].as_u64() else {
        return given.clone();
    };
    let part = |name: &str| given[name].as_str().expect("it is a text");
    let times = usize::try_from(times).expect("it fits into memory");
    (part("before").to_owned() + &part("repeat").repeat(times)).into()
}

/// A state's keys and numbers.
fn state<'a>(case: &'a Value, when: &str) -> Vec<(&'a str, u64)> {
    let entries = case[when].as_object().into_iter().flatten();
    let number = |value: &Value| value.as_str()?.parse().ok();
    entries
        .map(|(key, value)| (key.as_str(), number(value).expect("a number")))
        .collect()
}

fn counted(key: &str) -> Value {
    json!({"key": key, "value": "count"})
}

/// What is fed: all in one partition, so that the order is that of the file. Before the records of a case its state is counted up to what
/// it is to be, and behind them each key is counted once more.
fn fed(suite: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for case in cases(suite) {
        for (key, count) in state(case, "before") {
            all.extend((0..count).map(|_| counted(key)));
        }
        all.extend(list(case, "records").iter().cloned());
        all.extend(touched(case).map(counted));
    }
    all.iter_mut().for_each(|record| {
        let mut fed =
            json!({"partition": 0, "key": text(&record["key"]), "value": text(&record["value"])});
        fed["timestamp"] = timestamp(record);
        if let Value::Array(_) = record["headers"] {
            fed["headers"] = record["headers"].clone();
        }
        *record = fed;
    });
    all
}

/// Keys that a case begins or ends with.
fn touched(case: &Value) -> impl Iterator<Item = &str> {
    let before = state(case, "before").into_iter();
    let mut keys: Vec<&str> = before
        .chain(state(case, "after"))
        .map(|(key, _)| key)
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter()
}

/// A record that has none gets the time at which it is written.
fn timestamp(record: &Value) -> Value {
    match record.get("timestamp") {
        None => 1000.into(),
        Some(Value::Null) => NONE.into(),
        Some(given) if given.as_i64() > Some(ANY) => NONE.into(),
        Some(given) => given.clone(),
    }
}

/// Of the default port, and of the other one.
fn expected(suite: &Value) -> [Vec<Line>; 2] {
    let (mut out, mut other) = (Vec::new(), Vec::new());
    let count = |key: &str, number: u64| line(&json!({"key": key, "json": number}));
    for case in cases(suite) {
        for (key, number) in state(case, "before") {
            out.extend((1..=number).map(|number| count(key, number)));
        }
        for output in list(case, "outputs") {
            let into = if output["port"] == "other" {
                &mut other
            } else {
                &mut out
            };
            into.push(line(output));
        }
        let after = state(case, "after");
        out.extend(touched(case).map(|key| {
            let number = after.iter().find(|(other, _)| *other == key);
            count(key, number.map_or(1, |(_, number)| number + 1))
        }));
    }
    [out, other]
}

fn line(record: &Value) -> Line {
    let value = match record.get("json") {
        Some(value) => value.clone(),
        None => text(&record["value"]),
    };
    let value = match &value {
        Value::String(text) => serde_json::from_str(text).unwrap_or(value),
        _ => value,
    };
    let key = text(&record["key"]);
    let headers = list(record, "headers");
    let line = json!([key, timestamp(record), headers, value]).to_string();
    let among = key.as_str().map_or_else(|| line.clone(), str::to_owned);
    Line { among, line }
}

/// What comes out of a run to the end: by the default port, and by the other one.
fn run(folder: &Folder, component: &Path, suite: &Value, records: &[Value]) -> [Vec<Line>; 2] {
    let pipeline = format!(
        r#"
name = "vectors"
sources.in.topics = ["in"]
plugins.vectors.path = {component}
steps.vectors = {{ inputs = ["in"], plugin = "vectors", config = {{ greeting = {greeting} }}, lookups = ["words"], state = ["totals"], on-error = "dead-letter" }}
maps.words = {{ topic = "words", replicated = true }}
sinks.out = {{ inputs = ["vectors"], topic = "out" }}
sinks.other = {{ inputs = ["vectors.other"], topic = "other" }}
sinks.failed = {{ inputs = ["vectors.failed"], topic = "failed" }}
"#,
        component = json!(component),
        greeting = suite["config"]["greeting"],
    );
    let lines = |records: &[Value]| {
        let lines = records.iter().map(|record| format!("{record}\n"));
        lines.collect::<String>()
    };
    let words = suite["lookups"]["words"].as_object().expect("it is there");
    let words = words
        .iter()
        .map(|(key, value)| json!({"key": key, "value": value}));
    let words: Vec<Value> = words.collect();
    let mut command = Command::new(millstream::binary());
    command.args(["run", "--embedded", "--until-end"]);
    command.args(["--instance", "a", "--http", "127.0.0.1:0"]);
    for (name, lines) in [("in", lines(records)), ("words", lines(&words))] {
        let file = folder.write(name, &lines);
        command.args(["--feed", &format!("{name}={}", file.display())]);
    }
    for name in ["out", "other", "failed"] {
        let file = folder.join(name);
        command.args(["--out", &format!("{name}={}", file.display())]);
    }
    command.arg(folder.write("pipeline.toml", &pipeline));
    let ended = command.output().expect("the server can be run");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    ["out", "other"].map(|name| read(folder, name).iter().map(line).collect())
}

fn read(folder: &Folder, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(name)).expect("it was written");
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("lines of JSON"))
        .collect()
}

/// What failed, in the order of the records, and why.
fn check_failures(folder: &Folder, suite: &Value) {
    let expected: Vec<(Value, &Value)> = cases(suite)
        .flat_map(|case| {
            let failures = list(case, "failures").iter();
            failures.map(|failure| {
                let origin = failure["origin"].as_u64().expect("an index");
                let origin = usize::try_from(origin).expect("it fits");
                (text(&case["records"][origin]["value"]), &failure["reason"])
            })
        })
        .collect();
    let header = |letter: &Value, name: &str| {
        let headers = list(letter, "headers").iter();
        let mut named = headers.filter(|header| header[0] == name);
        named.next().map(|header| header[1].clone())
    };
    let mut letters = read(folder, "failed");
    letters.sort_by_key(|letter| {
        let offset = header(letter, "millstream-offset");
        offset.and_then(|offset| offset.as_str()?.parse::<u64>().ok())
    });
    assert_eq!(letters.len(), expected.len(), "{letters:#?}");
    for (letter, (value, words)) in letters.iter().zip(expected) {
        assert_eq!(letter["value"], value, "{letter}");
        let kind = header(letter, "millstream-kind");
        assert_eq!(kind, Some("refused".into()), "{letter}");
        let reason = header(letter, "millstream-reason").unwrap_or_default();
        let reason = reason.as_str().unwrap_or_default();
        let words = words.as_str().expect("it is a text");
        assert!(reason.contains(words) && !reason.is_empty(), "{letter}");
    }
}
