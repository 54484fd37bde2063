//! The judge (kafka/judge.sh) and what it says. An acquittal is returned, a conviction can be
//! expected; what it could not judge at all always panics.

use std::process::Command;

use crate::repository;

/// Runs a verb that must succeed, and returns its output: for most verbs one line, "judge: OK ...".
pub fn run(arguments: &[&str]) -> String {
    match verdict(arguments) {
        Verdict::Right(output) => output,
        Verdict::Wrong(output) => panic!("judge {}:\n{output}", arguments.join(" ")),
    }
}

/// Runs a verb that must find something wrong, and returns its findings.
pub fn convict(arguments: &[&str]) -> String {
    match verdict(arguments) {
        Verdict::Wrong(output) => output,
        Verdict::Right(output) => panic!("judge {} found nothing:\n{output}", arguments.join(" ")),
    }
}

/// All that the judge printed.
#[derive(Debug)]
pub enum Verdict {
    Right(String),
    Wrong(String),
}

#[must_use]
pub fn verdict(arguments: &[&str]) -> Verdict {
    let script = repository().join("tests/system/kafka/judge.sh");
    let result = Command::new(&script).args(arguments).output();
    let result = result.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    let output = String::from_utf8_lossy(&result.stdout).into_owned();
    match result.status.code() {
        Some(0) => Verdict::Right(output),
        Some(1) if output.contains("judge: WRONG") => Verdict::Wrong(output),
        _ => panic!(
            "judge {}:\n{output}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&result.stderr)
        ),
    }
}

/// A count in a verdict's line: `count("judge: OK adults events=5 lost=1", "lost")` is 1.
#[must_use]
pub fn count(output: &str, name: &str) -> u64 {
    let words = output.split_ascii_whitespace();
    let found = words
        .filter_map(|word| word.split_once('='))
        .find(|(word, _)| *word == name);
    let (_, number) = found.unwrap_or_else(|| panic!("no {name}= in {output}"));
    number
        .parse()
        .unwrap_or_else(|_| panic!("{name}={number} is no count in {output}"))
}
