//! Sources of several topics, where they start, and graphs of more than one step, on a real Kafka.

use rig::folder::Folder;

use crate::pipelines::{WITHIN, run, shared_kafka, values, wait_records, write_values};

#[test]
fn latest_means_what_comes_after_the_first_start_and_only_that() {
    for topic in ["latest-in", "latest-out"] {
        shared_kafka().topic(topic, 1, &[]);
    }
    let folder = Folder::new("latest");
    let pipeline = r#"
name = "latest"
sources.in = { topics = ["latest-in"], start = "latest" }
steps.pass = { inputs = ["in"], plugin = "probe" }
sinks.out = { inputs = ["pass"], topic = "latest-out" }
"#;
    write_values(&folder, "latest-in", &["before 1", "before 2"]);
    let mut life = run(&folder, pipeline);
    // Ended before anything was processed: where it starts was settled all the same.
    assert!(life.terminate(WITHIN).success());
    write_values(&folder, "latest-in", &["between"]);
    let mut life = run(&folder, pipeline);
    write_values(&folder, "latest-in", &["after"]);
    wait_records(&mut life, 2);
    assert!(life.terminate(WITHIN).success());
    assert_eq!(values("latest-out"), ["between", "after"]);
}

#[test]
fn ports_lead_apart_and_branches_meet_in_order() {
    for topic in [
        "ports-in",
        "ports-more",
        "ports-odd",
        "ports-all",
        "ports-raw",
    ] {
        shared_kafka().topic(topic, 1, &[]);
    }
    let folder = Folder::new("ports");
    write_values(
        &folder,
        "ports-in",
        &["odd", "1", "even", "odd", "drop", "2"],
    );
    let mut life = run(
        &folder,
        r#"
name = "ports"
sources.in.topics = ["ports-in", "ports-more"]

[steps.split]
inputs = ["in"]
plugin = "probe"

[steps.again]
inputs = ["split.even", "split"]
plugin = "probe"

[sinks.odd]
inputs = ["split.odd"]
topic = "ports-odd"

[sinks.all]
inputs = ["again", "split.odd", "again.even"]
topic = "ports-all"

[sinks.raw]
inputs = ["in"]
topic = "ports-raw"
"#,
    );
    wait_records(&mut life, 6);
    write_values(&folder, "ports-more", &["odd", "3"]);
    wait_records(&mut life, 8);
    assert!(life.terminate(WITHIN).success());
    assert_eq!(values("ports-odd"), ["odd", "odd", "odd"]);
    assert_eq!(
        values("ports-all"),
        ["odd", "1", "even", "odd", "2", "odd", "3"]
    );
    assert_eq!(
        values("ports-raw"),
        ["odd", "1", "even", "odd", "drop", "2", "odd", "3"]
    );
}
