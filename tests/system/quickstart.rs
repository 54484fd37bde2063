//! The README's first two commands, without the wait for the build: what they show is what the events say.

use std::process::{Command, Output};

use rig::folder::Folder;
use rig::{millstream, repository};

/// `cargo xtask quickstart -- --once` and more: what it prints.
fn quickstart(more: &[&str]) -> Output {
    let binary = millstream::binary();
    let xtask = binary.with_file_name("xtask");
    let mut command = Command::new(&xtask);
    command.current_dir(repository());
    command.args(["quickstart", "--", "--once"]).args(more);
    let output = command.output();
    output.unwrap_or_else(|error| panic!("{}: {error}", xtask.display()))
}

fn check(output: &Output, expected: &[&str]) {
    let said = String::from_utf8_lossy(&output.stdout);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}{log}");
    for text in expected {
        assert!(said.contains(text), "{text:?} in\n{said}{log}");
    }
}

#[test]
fn quickstart_shows_its_own_events_and_others() {
    check(
        &quickstart(&[]),
        &[
            "Feeding it 2400 events",
            "It has read 2400 of them and left out 48 that are no such event",
            "The map holds 411 users.",
            r#""country_name":"Germany""#,
            r#"{"name":"Japan"}"#,
        ],
    );
    let folder = Folder::new("quickstart");
    let lines = [
        r#"{"key":"a b/ü","value":{"id":"a b/ü","name":"Zoë","age":61,"country":"DE","ts":1,"email":"z@example.org"}}"#,
        r#"{"key":"young","value":{"id":"young","name":"Kim","age":17,"country":"DE","ts":2,"email":"k@example.org"}}"#,
        "no event",
        r#"{"key":"far","value":{"id":"far","name":"Ann","age":44,"country":"ZZ","ts":3,"email":"a@example.org"}}"#,
        r#"{"key":"half","value":{"id":"half","name":"Bo","age":44,"country":"ZZ","ts":4}}"#,
    ];
    let file = folder.write("events.jsonl", &lines.join("\n"));
    let file = file.to_str().expect("the folder has a plain name");
    let fed = quickstart(&["--feed", file]);
    let log = String::from_utf8_lossy(&fed.stderr);
    assert!(log.contains("missing field `email`"), "{log}");
    check(
        &fed,
        &[
            "It has read 4 of them and left out 1 that are no such event",
            "The map holds 2 users.",
            r#""name":"ZOË","age":61,"country":"DE","country_name":"Germany","ts":1"#,
        ],
    );
    let empty = folder.write("empty.jsonl", "");
    let empty = empty.to_str().expect("the folder has a plain name");
    check(
        &quickstart(&["--feed", empty]),
        &["None of it was a record: the map stays empty."],
    );
    let nowhere = quickstart(&["--feed", "/nowhere/events.jsonl"]);
    assert_eq!(nowhere.status.code(), Some(1));
    let said = String::from_utf8_lossy(&nowhere.stderr);
    assert!(said.contains("/nowhere/events.jsonl"), "{said}");
}
