//! The walk-through of example 03, from end to end: it judges itself, and its exit code says whether what it saw was right.

use std::process::Command;

use rig::{millstream, repository};

#[test]
fn three_processes_come_and_go_while_a_reader_watches() {
    let xtask = millstream::binary().with_file_name("xtask");
    let mut command = Command::new(&xtask);
    command.current_dir(repository()).arg("walkthrough");
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", xtask.display()));
    let said = String::from_utf8_lossy(&output.stdout);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}{log}");
    println!("{said}");
    for text in [
        "they hold: a 0 and 1; b 2 and 3; c 4 and 5.",
        "Every country was answered again by a and c",
        "US: instance b holds partition 2 and can't be asked at",
        "They hold: a 0, 1 and 2; c 3, 4 and 5.",
        "b had its share, and every country was answered,",
        "d had its share, and every country was answered,",
        "They hold: a 0 and 1; b 2 and 3; d 4 and 5.",
        "SIGTERM.",
        "Asked at a, b, d, every country has the count and sum that were written of it.",
        "counted, each once",
        " × 503, 0 × 404, ",
        "No total ever went down, and none was ever gone.",
        "Kafka has ended, and its folder is gone.",
    ] {
        assert!(said.contains(text), "{text:?} in\n{said}{log}");
    }
    // Until the others have its partitions, nobody may answer for b's.
    let not_ready = said.matches("US 503").count();
    assert!(not_ready >= 3, "{not_ready} in\n{said}");
}
