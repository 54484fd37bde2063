//! A case's life in a process of its own, from the start to its end, and what has to hold of every one: it is refused or lives, answers all
//! the time, costs its own record and no other, says what it was in bounded words, and ends when it is asked to.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rig::folder::Folder;
use rig::millstream::{self, Millstream, peak_memory};
use serde_json::{Value, json};

use super::case::{Case, Expected};
use crate::limits::metric;
use crate::pipelines::{WITHIN, workers};

/// The evil record stands in their middle.
const HONEST: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// How long a question about how the process is may take, on a machine that others share.
const ANSWERED: Duration = Duration::from_secs(2);

/// What a process may say of all that a plugin can do to it: standard output and error together.
const SAID_BYTES_MAX: usize = 256 << 10;

/// What a process of ours takes where no plugin may have more than 64 MiB; and what the host copies of an answer, and holds of it until it is
/// written.
const MEMORY_MAX: u64 = 1 << 30;

const POLL: Duration = Duration::from_millis(10);

/// A pipeline with these lines, whose steps are read by the sink `out`.
pub fn pipeline(name: &str, lines: &str, steps: &[&str]) -> String {
    format!(
        "name = \"{name}\"\nkafka.bootstrap.servers = \"localhost:9092\"\ncheckpoint.interval = \"20ms\"\n\
         sources.in.topics = [\"in\"]\n{lines}\nsinks.out = {{ inputs = {}, topic = \"out\" }}\n",
        json!(steps)
    )
}

/// A record of partition 0, as it is fed: so that all come as one batch, and go out in order.
pub fn line(value: &str) -> String {
    json!({"key": "k", "value": value, "partition": 0}).to_string() + "\n"
}

/// Runs a case, and panics where it isn't contained.
pub fn run(case: &Case) {
    let folder = Folder::new(&format!("hostile-{}", case.name));
    let text = pipeline("hostile", &case.lines(folder.path()), &[&case.name]);
    let file = folder.write("pipeline.toml", &text).display().to_string();
    let (before, after) = HONEST.split_at(HONEST.len() / 2);
    let fed = [before, &[&case.value], after].concat();
    let fed: String = fed.iter().map(|value| line(value)).collect();
    let feed = format!("in={}", folder.write("in.jsonl", &fed).display());
    let out = folder.join("out.jsonl");
    let taken = format!("out={}", out.display());
    let mut arguments = vec!["run", &file, "--embedded", "--http", "127.0.0.1:0"];
    arguments.extend(["--feed", &feed, "--out", &taken]);
    if let Expected::Refused(words) = &case.expected {
        check_words(&refused(&folder, &arguments), words);
        return;
    }
    let mut life = Millstream::spawn(&folder.join("millstream.log"), &arguments);
    life.wait_ready(WITHIN);
    wait_done(&mut life);
    check_counts(&mut life, case);
    let peak = peak_memory(&life.process());
    assert!(peak < MEMORY_MAX, "{} MiB", peak >> 20);
    assert!(life.terminate(WITHIN).success(), "it ends when asked to");
    check_log(&life.lines(), case);
    check_output(&out, case);
}

/// What it says where it doesn't start. (One that ends at once can't be watched as a server is.)
fn refused(folder: &Folder, arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("timeout");
    command
        .arg(WITHIN.as_secs().to_string())
        .arg(millstream::binary())
        .args(arguments)
        .env("XDG_CACHE_HOME", folder.join("caches"));
    let ended = command.output().expect("it can be run");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{said}");
    said.lines().map(str::to_owned).collect()
}

/// Until all records are dealt with; it answers meanwhile.
fn wait_done(life: &mut Millstream) {
    let deadline = Instant::now() + WITHIN;
    let all = HONEST.len() as u64 + 1;
    loop {
        let asked = Instant::now();
        assert_eq!(life.get("/livez").status, 200);
        assert!(asked.elapsed() < ANSWERED, "{:?}", asked.elapsed());
        let status = life.get("/v1/status");
        if records(status.text()) == all {
            return;
        }
        assert!(Instant::now() < deadline, "{}", status.text());
        std::thread::sleep(POLL);
    }
}

/// How many records the workers have dealt with.
pub fn records(status: &str) -> u64 {
    let counts = workers(status).into_iter();
    counts.filter_map(|worker| worker["records"].as_u64()).sum()
}

fn check_counts(life: &mut Millstream, case: &Case) {
    let step = format!("step=\"{}\"", case.name);
    if let Some(limit) = &case.limit {
        let label = format!("limit=\"{limit}\"");
        life.wait_get("/metrics", WITHIN, |answer| {
            let text = answer.text();
            let lines: Vec<&str> = text.lines().filter(|line| line.contains(&step)).collect();
            metric(
                &lines.join("\n"),
                "millstream_step_limit_hits_total",
                &label,
            ) >= 1.0
        });
    }
    let (call, refused) = match case.expected {
        Expected::Fails(_) => (1, 0),
        Expected::AllFail(_) => (HONEST.len() + 1, 0),
        Expected::Refuses(_) => (0, 1),
        Expected::Refused(_) | Expected::Passes => (0, 0),
    };
    let metrics = life.get("/metrics");
    for (reason, expected) in [("call", call), ("refused", refused)] {
        let label = format!("reason=\"{reason}\"");
        let found = metric(metrics.text(), "millstream_failed_records_total", &label);
        assert!(
            (found - expected as f64).abs() < 0.5,
            "{found} records failed by {reason}, not {expected}"
        );
    }
}

fn check_log(lines: &[String], case: &Case) {
    if let Expected::Fails(words) | Expected::AllFail(words) | Expected::Refuses(words) =
        &case.expected
    {
        let said = format!("step \"{}\" skipped a record: ", case.name);
        let told: Vec<String> = lines
            .iter()
            .filter(|line| line.contains(&said))
            .cloned()
            .collect();
        assert!(!told.is_empty(), "no record was told of: {lines:#?}");
        check_words(&told, words);
    }
    check_words(lines, "");
}

/// Some line has the words, no line has what would take a terminal over, and they aren't many.
fn check_words(lines: &[String], words: &str) {
    let start = lines.len().saturating_sub(30);
    let shown = || -> Vec<String> {
        let cut = |line: &String| line.chars().take(400).collect();
        lines[start..].iter().map(cut).collect()
    };
    let has = lines.iter().any(|line| line.contains(words));
    assert!(
        has || words.is_empty(),
        "{words:?} is not in {:#?}",
        shown()
    );
    let bytes: usize = lines.iter().map(String::len).sum();
    assert!(
        bytes <= SAID_BYTES_MAX,
        "it said {bytes} bytes: {:#?}",
        shown()
    );
    let control = lines.iter().find(|line| line.contains(char::is_control));
    assert_eq!(control, None, "control characters");
    let forged = lines
        .iter()
        .find(|line| line.trim_start().starts_with("ERROR all is lost"));
    assert_eq!(forged, None, "a line of the plugin's own making");
}

/// The honest records come out, each once and in order; the evil one where it passes.
fn check_output(out: &Path, case: &Case) {
    let written = std::fs::read_to_string(out).expect("it was written");
    let records = written.lines().map(|line| {
        let record: Value = serde_json::from_str(line).expect("lines of JSON");
        record["value"].as_str().unwrap_or_default().to_owned()
    });
    let records: Vec<String> = records.collect();
    let honest: Vec<&String> = records
        .iter()
        .filter(|value| HONEST.contains(&value.as_str()))
        .collect();
    let (all, evil) = match case.expected {
        Expected::AllFail(_) => (&[][..], 0),
        Expected::Passes => (&HONEST[..], 1),
        _ => (&HONEST[..], 0),
    };
    assert_eq!(honest, all);
    assert_eq!(records.len(), all.len() + evil, "and the evil record");
}
