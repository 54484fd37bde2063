//! Steps that keep state, on a real Kafka: what they read back, what failures leave of it, and what the next life finds.

use rig::folder::Folder;
use rig::millstream::Millstream;
use serde_json::{Value, json};

use crate::pipelines::{
    WITHIN, dump, run, shared_kafka, start, start_second, values, wait_records, wait_worker,
    write_to, write_values,
};

/// A pipeline of one step that does to its state what its records ask for.
pub fn pipeline(name: &str, on_error: &str) -> String {
    format!(
        r#"
name = "{name}"
sources.in.topics = ["{name}-in"]
steps.keep = {{ inputs = ["in"], plugin = "probe", config = {{ state = "totals" }}, state = {{ totals = "sums" }}, on-error = "{on_error}" }}
sinks.out = {{ inputs = ["keep"], topic = "{name}-out" }}
"#
    )
}

pub fn topics(name: &str, partitions: u32) {
    let kafka = shared_kafka();
    kafka.topic(&format!("{name}-in"), partitions, &[]);
    kafka.topic(&format!("{name}-out"), 1, &[]);
}

/// The entries of a map: key and value, by partition and then as they were first put.
fn entries(life: &mut Millstream, pipeline: &str, map: &str) -> Vec<(String, Value)> {
    let path = format!("/v1/pipelines/{pipeline}/maps/{map}/entries");
    let answer = life.wait_get(&path, WITHIN, |answer| answer.status == 200);
    let list: Value = serde_json::from_str(answer.text()).expect("a list is JSON");
    let entries = list["entries"].as_array().expect("it has entries");
    let key = |entry: &Value| entry["key"].as_str().expect("a text").to_owned();
    entries
        .iter()
        .map(|entry| (key(entry), entry["value"].clone()))
        .collect()
}

fn lines(key: &str, values: &[&str]) -> String {
    values
        .iter()
        .map(|value| format!("{key}\t{value}\n"))
        .collect()
}

#[test]
fn state_is_read_back_within_an_epoch_and_over_lives() {
    let (folder, name) = (Folder::new("states"), "counting");
    topics(name, 2);
    let (input, output) = (format!("{name}-in"), format!("{name}-out"));
    let mut life = run(&folder, &pipeline(name, "fail"));
    let asked = [
        "state get a",
        "state count a",
        "state count a",
        "state count b",
        "state remove b",
        "state get b",
        "state count a",
    ];
    write_values(&folder, &input, &asked);
    wait_records(&mut life, 7);
    let expected = ["nothing", "1", "2", "1", "state remove b", "nothing", "3"];
    assert_eq!(values(&output), expected);
    // The other task's state is another one.
    write_to(&folder, &input, "1", &lines("k", &["state count a"; 2]));
    wait_records(&mut life, 9);
    assert_eq!(values(&output)[7..], ["1", "2"]);
    let held = [("a".into(), json!(3)), ("a".into(), json!(2))];
    assert_eq!(entries(&mut life, name, "sums"), held);
    life.kill();

    write_values(&folder, &input, &["state count a", "state get b"]);
    let mut life = run(&folder, &pipeline(name, "fail"));
    wait_records(&mut life, 2);
    assert_eq!(values(&output)[9..], ["4", "nothing"]);
    assert!(life.terminate(WITHIN).success());

    let changes = dump("counting.sums.changelog");
    let last = |partition: u64| {
        let of = |change: &&Value| change["partition"] == partition && change["key"] == "a";
        changes
            .iter()
            .rfind(of)
            .map(|change| change["value"].clone())
    };
    assert_eq!(
        (last(0), last(1)),
        (Some("4".into()), Some("2".into())),
        "{changes:?}"
    );
}

/// One interval takes all that is written: its changes leave as one of each key.
#[test]
fn changes_of_a_key_within_an_epoch_are_one() {
    const TIMES: usize = 500;
    let (folder, name) = (Folder::new("states"), "coalesced");
    topics(name, 1);
    let text = pipeline(name, "fail");
    write_values(&folder, "coalesced-in", &["state count a"; TIMES]);
    let mut life = run(&folder, &text);
    wait_records(&mut life, TIMES as u64);
    assert!(life.terminate(WITHIN).success());
    assert_eq!(values("coalesced-out").len(), TIMES, "an output of each");
    // An epoch takes 50 ms, in which some hundred are counted on the slowest machine.
    let changes = dump("coalesced.sums.changelog");
    assert!(changes.len() < TIMES / 10, "{} changes", changes.len());
    assert_eq!(
        changes.last().map(|change| &change["value"]),
        Some(&json!("500"))
    );
}

#[test]
fn a_step_keeps_several_maps_as_one() {
    let (folder, name) = (Folder::new("states"), "several-maps");
    topics(name, 1);
    let (input, output) = (format!("{name}-in"), format!("{name}-out"));
    let text = pipeline(name, "skip")
        .replace("state = \"totals\"", "state = \"totals\", other = \"done\"")
        .replace(
            "totals = \"sums\"",
            "totals = \"sums\", done = \"finished\"",
        );
    let mut life = run(&folder, &text);
    let asked = [
        "state count a",
        "state count b",
        "state move a",
        "state move c",
        "state get a",
    ];
    write_values(&folder, &input, &asked);
    wait_records(&mut life, 5);
    assert_eq!(values(&output), ["1", "1", "state move a", "nothing"]);
    let sums = [("b".to_owned(), json!(1))];
    let finished = [("a".to_owned(), json!(1))];
    assert_eq!(entries(&mut life, name, "sums"), sums);
    assert_eq!(entries(&mut life, name, "finished"), finished);
    life.kill();
    let mut life = run(&folder, &text);
    assert_eq!(entries(&mut life, name, "sums"), sums);
    assert_eq!(entries(&mut life, name, "finished"), finished);
    assert!(life.terminate(WITHIN).success());
}

#[test]
fn what_fails_leaves_nothing_in_state() {
    let (folder, name) = (Folder::new("states"), "failing");
    topics(name, 1);
    let (input, output) = (format!("{name}-in"), format!("{name}-out"));
    let asked = [
        "state put a 1",
        "state fail a 2",
        "state get a",
        "state trap-after-put a 3",
        "state get a",
        "state fail-after-put a 4",
        "state get a",
        "state put-null-key",
        "state put-large a 2000000",
        "state get a",
    ];
    write_values(&folder, &input, &asked);
    let mut life = run(&folder, &pipeline(name, "skip"));
    let worker = wait_records(&mut life, 10);
    assert_eq!(values(&output), ["state put a 1", "1", "1", "1", "1"]);
    assert_eq!(worker["failures"]["step \"keep\""], 5);
    life.wait_line("state \"sums\" is changed under a null key", WITHIN);
    let large = "the change of key \"a\" in state \"sums\" has 2000129 bytes as Kafka may frame it";
    life.wait_line(large, WITHIN);
    assert_eq!(entries(&mut life, name, "sums"), [("a".into(), json!(1))]);
    assert!(life.terminate(WITHIN).success());
}

/// The step sees all of a batch in one call; what stands behind the record that stops the task comes again and is counted then.
#[test]
fn what_comes_behind_a_record_that_stops_its_task_is_not_counted_yet() {
    let (folder, name) = (Folder::new("states"), "stopping");
    topics(name, 1);
    let (input, output) = (format!("{name}-in"), format!("{name}-out"));
    let asked = [
        "state count a",
        "state count a",
        "state fail a 9",
        "state count a",
        "state count a",
    ];
    write_values(&folder, &input, &asked);
    let mut life = run(&folder, &pipeline(name, "fail"));
    wait_worker(&mut life, |worker| worker["stopped"] != json!([]));
    wait_records(&mut life, 2);
    assert_eq!(values(&output), ["1", "2"]);
    assert_eq!(entries(&mut life, name, "sums"), [("a".into(), json!(2))]);
    life.kill();
    let mut life = run(&folder, &pipeline(name, "skip"));
    wait_records(&mut life, 3);
    assert_eq!(values(&output), ["1", "2", "3", "4"]);
    assert_eq!(entries(&mut life, name, "sums"), [("a".into(), json!(4))]);
    assert!(life.terminate(WITHIN).success());
}

#[test]
fn state_that_does_not_fit_is_refused() {
    let (folder, name) = (Folder::new("states"), "unfit");
    topics(name, 2);
    let refused = |text: &str, expected: &str| {
        let mut life = start(&folder, text);
        life.wait_line(expected, WITHIN);
        assert_eq!(life.wait_exit(WITHIN).code(), Some(2));
    };
    let text = pipeline(name, "fail");
    let ungiven = text.replace(", state = { totals = \"sums\" }", "");
    refused(&ungiven, "the plugin needs state \"totals\"");
    let compacted = "cleanup.policy=compact";
    let kafka = shared_kafka();
    kafka.topic("unfit.sums.changelog", 2, &[]);
    let words = "steps.keep.state: changelog \"unfit.sums.changelog\" has cleanup.policy=delete: entries would be lost";
    refused(&text, words);
    let repair = "set the topic's cleanup.policy to compact, and nothing else";
    refused(&text, repair);
    kafka.topic("unfit.wide.changelog", 3, &[compacted]);
    let words = "steps.keep.state: changelog \"unfit.wide.changelog\" has 3 partitions, but the sources have 2";
    let wide = text.replace("\"sums\"", "\"wide\"");
    refused(&wide, words);
    let repair = "a map keeps the partitions it was made with: `millstream reset` has the pipeline begin anew; under another name the map \
                  begins empty";
    refused(&wide, repair);
    kafka.topic("unfit.keyed.stream", 3, &[]);
    let streamed = format!("{text}\n[streams.keyed]\ninputs = [\"keep\"]\n");
    let words =
        "streams.keyed: topic \"unfit.keyed.stream\" has 3 partitions, but \"unfit-in\" has 2";
    refused(&streamed.replace("\"sums\"", "\"fine\""), words);
}

/// Entries enough that restoring them would take a while: the one who takes over has them.
#[test]
fn a_standby_takes_over_with_its_copy() {
    const KEYS: usize = 50_000;
    let (folder, name) = (Folder::new("states"), "standby");
    topics(name, 2);
    let (input, output) = (format!("{name}-in"), format!("{name}-out"));
    let put: String = (0..KEYS)
        .map(|key| format!("k\tstate put key-{key} {key}\n"))
        .collect();
    write_to(&folder, &input, "0", &put);
    write_to(&folder, &input, "1", &put);
    let text = format!("standby = 1\n{}", pipeline(name, "fail"));
    let mut first = run(&folder, &text);
    wait_records(&mut first, 2 * KEYS as u64);
    let mut second = start_second(&folder);
    second.wait_line("standby copies of partitions: 0", WITHIN);
    first.wait_line("standby copies of partitions: 1", WITHIN);
    second.wait_get("/metrics", WITHIN, |answer| {
        let mut lines = answer.text().lines();
        lines.any(|line| {
            line.starts_with("millstream_map_standby_partitions{") && line.ends_with(" 1")
        })
    });
    // What changes from now on goes into the copy too.
    write_to(&folder, &input, "0", "k\tstate put key-7 changed\n");
    wait_records(&mut first, 2 * KEYS as u64 + 1);
    first.kill();
    second.wait_line(
        "1 map partitions are taken over from standby copies",
        WITHIN,
    );
    write_to(
        &folder,
        &input,
        "0",
        "k\tstate get key-7\nk\tstate get key-8\nk\tstate count key-9\n",
    );
    wait_records(&mut second, 3);
    assert_eq!(values(&output)[2 * KEYS + 1..], ["changed", "8", "10"]);
    assert!(second.terminate(WITHIN).success());
}

/// A key that hashes to one partition and stands in the other is found; one that stands in both is nobody's to choose.
#[test]
fn every_partition_is_asked_for_a_key_of_state() {
    let (folder, name) = (Folder::new("states"), "asking");
    topics(name, 2);
    let input = format!("{name}-in");
    let asked = ["state put both 0", "state put a 0", "state put b 0"];
    write_to(&folder, &input, "0", &lines("k", &asked));
    let asked = ["state put both 1", "state put c 1", "state put d 1"];
    write_to(&folder, &input, "1", &lines("k", &asked));
    let mut life = run(&folder, &pipeline(name, "fail"));
    wait_records(&mut life, 6);
    let get = |life: &Millstream, key: &str| {
        let answer = life.get(&format!("/v1/pipelines/{name}/maps/sums/entries/{key}"));
        let partition = answer.header("millstream-partition").unwrap_or_default();
        (
            answer.status,
            partition.to_owned(),
            answer.text().to_owned(),
        )
    };
    for (key, partition) in [("a", "0"), ("b", "0"), ("c", "1"), ("d", "1")] {
        let found = (200, partition.to_owned(), partition.to_owned());
        assert_eq!(get(&life, key), found);
    }
    let (status, partitions, error) = get(&life, "both");
    assert_eq!((status, partitions.as_str()), (409, "0,1"));
    assert!(error.contains("?partition=N"), "{error}");
    let found = (200, "1".to_owned(), "1".to_owned());
    assert_eq!(get(&life, "both?partition=1"), found);
    assert_eq!(get(&life, "a?partition=1").0, 404);
    assert_eq!(get(&life, "a?partition=2").0, 400);
    assert_eq!(get(&life, "a?part=1").0, 400);
    let (status, partitions, _) = get(&life, "neither");
    assert_eq!((status, partitions.as_str()), (404, "0,1"));
    assert!(life.terminate(WITHIN).success());
}
