//! Steps that read tables, on a real Kafka: what they find, what they are refused, and when they may start.

use std::time::Duration;

use rig::folder::Folder;
use rig::millstream::Millstream;

use crate::pipelines::{
    WITHIN, dump, run, shared_kafka, start, start_second, values, wait_records, wait_worker, write,
    write_open, write_to, write_values,
};

const COMPACTED: &[&str] = &["cleanup.policy=compact"];

/// A pipeline of one step that looks up what its records ask for.
fn pipeline(name: &str, map: &str, on_error: &str) -> String {
    format!(
        r#"
name = "{name}"
sources.in.topics = ["{name}-in"]
maps.table = {{ topic = "{name}-table"{map} }}
steps.look = {{ inputs = ["in"], plugin = "probe", config = {{ lookup = "capitals" }}, lookups = {{ capitals = "table" }}, on-error = "{on_error}" }}
sinks.out = {{ inputs = ["look"], topic = "{name}-out" }}
"#
    )
}

fn topics(name: &str, partitions: u32, table_partitions: u32) {
    let kafka = shared_kafka();
    kafka.topic(&format!("{name}-in"), partitions, &[]);
    kafka.topic(&format!("{name}-out"), 1, &[]);
    kafka.topic(&format!("{name}-table"), table_partitions, COMPACTED);
}

/// Waits until the table has this value for a key; `""` for none.
fn wait_entry(life: &mut Millstream, pipeline: &str, map: &str, key: &str, value: &str) {
    let path = format!("/v1/pipelines/{pipeline}/maps/{map}/entries/{key}");
    life.wait_get(&path, WITHIN, |answer| match answer.status {
        200 => answer.text() == value,
        404 => value.is_empty(),
        _ => false,
    });
}

#[test]
fn a_replicated_table_is_read_as_it_changes() {
    let folder = Folder::new("lookups");
    topics("replicated", 2, 3);
    let lines = "DE\tBonn\nFR\tParis\nIT\tRoma\nSE\tStockholm\nnone\t\\N\n";
    write_to(&folder, "replicated-table", "hash", lines);
    // Written by somebody who partitions otherwise: it is there all the same.
    write_to(&folder, "replicated-table", "2", "XX\tnowhere\n");
    write_to(&folder, "replicated-table", "1", "YY\tnowhere\n");
    let mut life = run(
        &folder,
        &pipeline("replicated", ", replicated = true", "fail"),
    );
    let asked = [
        "look DE",
        "look FR",
        "look XX",
        "look YY",
        "look none",
        "look ZZ",
    ];
    write_values(&folder, "replicated-in", &asked);
    wait_records(&mut life, 6);
    let expected = ["Bonn", "Paris", "nowhere", "nowhere", "nothing", "nothing"];
    assert_eq!(values("replicated-out"), expected);

    write_to(&folder, "replicated-table", "hash", "DE\tBerlin\nFR\t\\N\n");
    wait_entry(&mut life, "replicated", "table", "DE", "Berlin");
    wait_entry(&mut life, "replicated", "table", "FR", "");
    wait_entry(&mut life, "replicated", "table", "XX", "nowhere");
    // A null key and an empty value, and a value that goes by.
    write_to(
        &folder,
        "replicated-in",
        "1",
        "\\N\tlook DE\nk\tlook FR\nk\tstays\n",
    );
    wait_records(&mut life, 9);
    assert_eq!(
        values("replicated-out")[6..],
        ["Berlin", "nothing", "stays"]
    );
    assert!(life.terminate(WITHIN).success());
}

#[test]
fn a_key_of_another_partition_fails_its_record_and_no_other() {
    let folder = Folder::new("lookups");
    topics("shared-out", 2, 2);
    // By murmur2, of two partitions: told by where Java's client puts them.
    let keys: Vec<String> = (b'a'..=b'h')
        .map(|key| char::from(key).to_string())
        .collect();
    let lines: String = keys
        .iter()
        .map(|key| format!("{key}\tof-{key}\n"))
        .collect();
    write_to(&folder, "shared-out-table", "hash", &lines);
    let table = dump("shared-out-table");
    let of = |number: u64| {
        let mut keys = table.iter().filter(|record| record["partition"] == number);
        keys.next().expect("eight keys are in two partitions")["key"]
            .as_str()
            .expect("a text")
            .to_owned()
    };
    let (here, there) = (of(0), of(1));
    let mut life = run(&folder, &pipeline("shared-out", "", "skip"));
    let asked = [
        format!("look {here}"),
        format!("look {there}"),
        "stays".into(),
        format!("look {here}"),
    ];
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    write_values(&folder, "shared-out-in", &asked);
    let worker = wait_records(&mut life, 4);
    let found = format!("of-{here}");
    assert_eq!(values("shared-out-out"), [&found, "stays", &found]);
    assert_eq!(worker["failures"]["step \"look\""], 1);
    let expected = format!(
        "the table \"table\" has key \"{there}\" in partition 1, but this record is of partition 0"
    );
    life.wait_line(&expected, WITHIN);

    // The task of the other partition has it.
    write_to(&folder, "shared-out-in", "1", &format!("k\tlook {there}\n"));
    wait_records(&mut life, 5);
    assert_eq!(values("shared-out-out")[3], format!("of-{there}"));
    assert!(life.terminate(WITHIN).success());
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let folder = Folder::new("lookups");
    topics("narrow", 2, 3);
    let mut life = start(&folder, &pipeline("narrow", "", "fail"));
    life.wait_line(
        "maps.table.topic: topic \"narrow-table\" has 3 partitions, but the sources have 2",
        WITHIN,
    );
    assert_eq!(life.wait_exit(WITHIN).code(), Some(2));
    let text = pipeline("narrow", ", replicated = true", "fail");
    let elsewhere = text.replace("\"narrow-table\"", "\"narrow-nowhere\"");
    let mut life = start(&folder, &elsewhere);
    life.wait_line(
        "maps.table.topic: topic \"narrow-nowhere\" does not exist",
        WITHIN,
    );
    assert_eq!(life.wait_exit(WITHIN).code(), Some(2));
    let ungranted = text.replace(", lookups = { capitals = \"table\" }", "");
    let mut life = start(&folder, &ungranted);
    life.wait_line("the plugin needs lookups \"capitals\"", WITHIN);
    assert_eq!(life.wait_exit(WITHIN).code(), Some(2));
}

/// The last key of a large table is asked for from the first record on: whoever didn't wait would find nothing.
fn check_start_gate(name: &str, map: &str, partitions: u32) {
    const ENTRIES: u32 = 200_000;
    let folder = Folder::new("lookups");
    topics(name, partitions, partitions);
    let key = |number: u32| format!("{number:06}");
    let lines: String = (0..ENTRIES)
        .map(|number| format!("{}\tx\n", key(number)))
        .collect();
    write(&folder, &format!("{name}-table"), &lines);
    write(&folder, &format!("{name}-table"), "last\tfound\n");
    let (input, output) = (format!("{name}-in"), format!("{name}-out"));
    write_values(&folder, &input, &["look last"; 100]);
    let text = pipeline(name, map, "fail");
    let mut life = start(&folder, &text);
    wait_records(&mut life, 100);
    assert_eq!(values(&output), ["found"; 100]);
    life.kill();

    write(&folder, &format!("{name}-table"), "last\tfound again\n");
    write_values(&folder, &input, &["look last"; 100]);
    let mut life = start(&folder, &text);
    wait_records(&mut life, 100);
    assert_eq!(values(&output)[100..], ["found again"; 100]);

    // Partitions that go and come again: a second instance joins.
    let mut second = start_second(&folder);
    life.wait_line("all partitions given up", WITHIN);
    second.wait_ready(WITHIN);
    life.wait_ready(WITHIN);
    write_values(&folder, &input, &["look last"; 10]);
    let count = |life: &mut Millstream| {
        let worker = wait_worker(life, |_| true);
        worker["records"].as_u64().expect("a count")
    };
    while count(&mut life) + count(&mut second) < 110 {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(values(&output)[200..], ["found again"; 10]);
    assert!(second.terminate(WITHIN).success());
    assert!(life.terminate(WITHIN).success());
}

#[test]
fn no_step_runs_before_its_replicated_table_is_restored() {
    check_start_gate("gate-all", ", replicated = true", 2);
}

#[test]
fn no_step_runs_before_its_own_partition_of_a_table_is_restored() {
    check_start_gate("gate-own", "", 1);
}

/// An open transaction of somebody else hides what was committed behind it, under keys that belong to other partitions too.
fn check_hidden(name: &str, map: &str, table_partitions: u32) {
    let folder = Folder::new("lookups");
    topics(name, 1, table_partitions);
    let (table, elsewhere) = (format!("{name}-table"), format!("{name}-elsewhere"));
    shared_kafka().topic(&elsewhere, 1, &[]);
    write(&folder, &table, "DE\tBonn\n");
    write_open(&folder, &table, name, "IT\tRoma\n");
    let keys: Vec<char> = ('a'..='h').collect();
    let lines: String = keys
        .iter()
        .map(|key| format!("{key}\tof-{key}\n"))
        .collect();
    write(&folder, &table, &lines);
    write_values(&folder, &format!("{name}-in"), &["look a"]);
    let mut life = start(&folder, &pipeline(name, map, "fail"));
    let entry = |key: &str| format!("/v1/pipelines/{name}/maps/table/entries/{key}");
    life.wait_get(&entry("a"), WITHIN, |answer| {
        answer.status == 503 && answer.text().contains("restor")
    });
    for _ in 0..10 {
        for key in &keys {
            assert_eq!(life.get(&entry(&key.to_string())).status, 503, "{key}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let output = format!("{name}-out");
    assert_eq!(values(&output), Vec::<String>::new());
    // The next life of a producer aborts what the last one left open.
    write_open(&folder, &elsewhere, name, "any\tthing\n");
    wait_records(&mut life, 1);
    assert_eq!(values(&output), ["of-a"]);
    wait_entry(&mut life, name, "table", "h", "of-h");
    wait_entry(&mut life, name, "table", "IT", "");
    assert!(life.terminate(WITHIN).success());
}

#[test]
fn what_an_open_transaction_hides_is_not_absent() {
    check_hidden("hidden", "", 1);
}

#[test]
fn what_an_open_transaction_hides_of_a_replicated_table_is_not_absent() {
    check_hidden("hidden-all", ", replicated = true", 2);
}

/// Its process would look for keys where they don't stand any more.
#[test]
fn a_table_that_grows_ends_who_reads_it() {
    let (folder, name) = (Folder::new("lookups"), "growing");
    topics(name, 1, 1);
    write(&folder, "growing-table", "DE\tBonn\n");
    let text = pipeline(name, ", replicated = true", "fail");
    let mut life = run(&folder, &text);
    let more = ["--alter", "--topic", "growing-table", "--partitions", "2"];
    shared_kafka().tool("TopicCommand", &more);
    life.wait_line(
        "topic growing-table, from which map \"table\" is made, has 2 partitions now, but had 1",
        WITHIN,
    );
    assert_eq!(life.wait_exit(WITHIN).code(), Some(1));
    write_to(&folder, "growing-table", "1", "FR\tParis\n");
    let mut life = run(&folder, &text);
    wait_entry(&mut life, name, "table", "FR", "Paris");
    assert!(life.terminate(WITHIN).success());
}

#[test]
fn a_map_of_the_pipeline_is_a_table_too() {
    let folder = Folder::new("lookups");
    for topic in ["own-map-in", "own-map-users", "own-map-out"] {
        shared_kafka().topic(topic, 1, &[]);
    }
    for replicated in [false, true] {
        let name = format!("own-map-{replicated}");
        let text = format!(
            r#"
name = "{name}"
sources.in.topics = ["own-map-in"]
sources.users = {{ topics = ["own-map-users"], start = "latest" }}
maps.users.replicated = {replicated}
steps.look = {{ inputs = ["in"], plugin = "probe", config = {{ lookup = "users" }}, lookups = ["users"] }}
sinks.users = {{ inputs = ["users"], map = "users" }}
sinks.out = {{ inputs = ["look"], topic = "own-map-out" }}
"#
        )
        .replace("sources.in.topics = [\"own-map-in\"]", "sources.in = { topics = [\"own-map-in\"], start = \"latest\" }");
        let mut life = run(&folder, &text);
        write(
            &folder,
            "own-map-users",
            &format!("u1\tAnna {replicated}\n"),
        );
        wait_entry(
            &mut life,
            &name,
            "users",
            "u1",
            &format!("Anna {replicated}"),
        );
        write_values(&folder, "own-map-in", &["look u1", "look u2"]);
        wait_records(&mut life, 3);
        life.kill();
        // Nobody but the changelog knows it now.
        write_values(&folder, "own-map-in", &["look u1"]);
        let mut life = run(&folder, &text);
        wait_records(&mut life, 1);
        assert!(life.terminate(WITHIN).success());
    }
    let expected = [
        "Anna false",
        "nothing",
        "Anna false",
        "Anna true",
        "nothing",
        "Anna true",
    ];
    assert_eq!(values("own-map-out"), expected);
}
