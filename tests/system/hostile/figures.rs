//! What the corpus costs those who share a process with it: how long after its deadline a call goes on, and what memory is left behind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rig::folder::Folder;
use rig::http::Answer;
use rig::millstream::{Millstream, memory};

use super::case::{Case, Expected, SHORT_LIMITS};
use super::component;
use super::feed::Feed;
use super::life::{line, pipeline, records};
use crate::limits::metric;
use crate::timings::Timings;

/// Until a round is dealt with, in which all cases misbehave one after the other.
const ROUND: Duration = Duration::from_secs(120);

/// Several cases as steps of one pipeline, with an honest step among them, on records that come when the test says so.
pub struct Together {
    pub life: Millstream,
    feed: Feed,
    records: u64,
    folder: Folder,
}

impl Together {
    pub fn start(cases: &[Case]) -> Self {
        let folder = Folder::new("hostile-together");
        let feed = Feed::new(&folder);
        let lines = cases.iter().map(|case| case.lines(folder.path()));
        let path = folder.join("honest.wasm");
        std::fs::write(&path, component::honest()).expect("the folder can be written");
        let honest = format!(
            "plugins.honest.path = {path:?}\nsteps.honest = {{ inputs = [\"in\"], plugin = \"honest\" }}\n"
        );
        let text = pipeline(
            "together",
            &(lines.collect::<String>() + &honest),
            &["honest"],
        );
        let file = folder.write("pipeline.toml", &text).display().to_string();
        let (taken, out) = (feed.argument(), folder.join("out.jsonl"));
        let out = format!("out={}", out.display());
        let mut arguments = vec!["run", &file, "--embedded", "--http", "127.0.0.1:0"];
        arguments.extend(["--feed", &taken, "--out", &out]);
        let mut life = Millstream::spawn(&folder.join("millstream.log"), &arguments);
        life.wait_ready(ROUND);
        Self {
            life,
            feed,
            records: 0,
            folder,
        }
    }

    /// Gives it these records, and waits until they are dealt with.
    pub fn round(&mut self, values: &[&str]) {
        self.records += values.len() as u64;
        let lines: String = values.iter().map(|value| line(value)).collect();
        self.feed.write(&lines);
        let all = self.records;
        self.life
            .wait_get("/v1/status", ROUND, |answer| records(answer.text()) == all);
    }

    /// Ends it, and sees whether the honest step has passed everything on.
    pub fn end(mut self) {
        assert!(
            self.life.terminate(ROUND).success(),
            "it ends when asked to"
        );
        let out = std::fs::read_to_string(self.folder.join("out.jsonl"));
        let written = out.expect("it was written").lines().count() as u64;
        assert_eq!(written, self.records, "records of the honest step");
    }
}

/// Of each case that misses its deadline: so many calls on the evil record alone, and by how much they were late.
pub fn cut_off(cases: &[Case], rounds: u64) -> BTreeMap<String, Vec<Duration>> {
    const DEADLINE: Duration = Duration::from_millis(100);
    let limits = format!("time = \"{}ms\", memory = \"256MiB\"", DEADLINE.as_millis());
    let evil = &cases.first().expect("there are some").value;
    let limited = cases.iter().cloned();
    let limited: Vec<Case> = limited.map(|case| case.with_limits(&limits)).collect();
    let mut together = Together::start(&limited);
    let mut late: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    let mut before = Calls::of(&together.life.get("/metrics"), cases);
    for _ in 0..rounds {
        together.round(&[evil]);
        let now = Calls::of(&together.life.get("/metrics"), cases);
        for ((case, now), before) in cases.iter().zip(&now).zip(&before) {
            assert_eq!(
                now.calls - before.calls,
                1,
                "{}: one call for a record",
                case.name
            );
            let took = Duration::from_secs_f64(now.seconds - before.seconds);
            assert!(took >= DEADLINE, "{} ended after {took:?}", case.name);
            late.entry(case.name.clone())
                .or_default()
                .push(took - DEADLINE);
        }
        before = now;
    }
    together.end();
    late
}

struct Calls {
    calls: u64,
    seconds: f64,
}

impl Calls {
    fn of(answer: &Answer, cases: &[Case]) -> Vec<Self> {
        let of = |case: &Case| {
            let step = format!("step=\"{}\"", case.name);
            let of = |name: &str| metric(answer.text(), name, &step);
            let calls = of("millstream_step_calls_total").round();
            Self {
                calls: format!("{calls}").parse().expect("it is a whole number"),
                seconds: of("millstream_step_plugin_seconds_total"),
            }
        };
        cases.iter().map(of).collect()
    }
}

/// Resident memory after rounds of everything that isn't refused at the start, the first few rounds aside: after these, and after each that
/// follows. Who loops is cut off sooner than elsewhere; of the cases that are done by the Rust plugin, one has all their records.
pub fn resident(cases: &[Case], rounds: u64) -> Vec<u64> {
    const FIRST: u64 = 2;
    const RUST: &str = "rust-trap-after-put";
    let runs = |case: &&Case| !matches!(case.expected, Expected::Refused(_));
    let is_wat = |case: &Case| case.value.starts_with("evil");
    let (mut steps, rust): (Vec<Case>, Vec<Case>) =
        cases.iter().filter(runs).cloned().partition(is_wat);
    let words: Vec<&str> = rust.iter().map(|case| case.value.as_str()).collect();
    let evil = steps.first().map(|case| case.value.clone());
    let evil = evil.expect("there are some");
    let asked = rust.iter().find(|case| case.name == RUST).cloned();
    steps.extend(asked.map(|case| case.with_limits(SHORT_LIMITS)));
    let hasty = steps.into_iter().map(|case| match case.limit.as_deref() {
        Some("time") => case.with_limits("time = \"20ms\", memory = \"256MiB\""),
        _ => case,
    });
    let mut together = Together::start(&hasty.collect::<Vec<_>>());
    let mut sizes = Vec::new();
    let began = Instant::now();
    for round in 1..=FIRST + rounds {
        together.round(&["before", &evil, "behind"]);
        together.round(&words);
        if round >= FIRST {
            sizes.push(settled(&together.life));
        }
    }
    let (rounds, took) = (FIRST + rounds, began.elapsed());
    println!("{rounds} rounds of {} cases: {took:.1?}", cases.len());
    together.end();
    sizes
}

/// What is resident when nothing happens: memory that was freed is given back a moment later.
fn settled(life: &Millstream) -> u64 {
    const LOOKS: u32 = 10;
    let look = |_| {
        std::thread::sleep(Duration::from_millis(50));
        memory(&life.process())
    };
    let sizes = (0..LOOKS).map(look);
    sizes.min().expect("it was looked at")
}

/// The same in one line.
pub fn timings(late: &BTreeMap<String, Vec<Duration>>) -> Timings {
    let mut timings = Timings::default();
    late.values().flatten().for_each(|late| timings.add(*late));
    timings
}
