//! The simulator's own tests: seeds hold, those that once didn't hold still, and a seed is a run.

#![forbid(unsafe_code)]

use millstream_sim::{Course, Courses, Orders, Report, run};

/// A few seconds' worth; `cargo xtask sim` runs more.
const SEEDS: u64 = 3_000;

fn check(seed: u64) -> Report {
    let report = run(seed, &Orders::default());
    let again = format!("cargo xtask sim --start {seed} --seeds 1");
    assert_eq!(report.violation, None, "{again}");
    report
}

#[test]
fn seeds_hold() {
    let mut courses = Courses::default();
    for seed in 0..SEEDS {
        courses.add(&check(seed).courses);
    }
    // These meet every course but a rare one, or they show nothing of it.
    let all = Course::ALL.iter();
    for course in all.filter(|course| **course != Course::InDoubtRevoked) {
        assert!(courses.of(*course) > 0, "never: {}", course.words());
    }
}

/// Each line of `seeds` is one, and what it showed.
#[test]
fn seeds_that_once_failed_hold() {
    let seeds = include_str!("seeds").lines();
    let seeds = seeds.filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in seeds {
        let seed = line.split_whitespace().next().unwrap_or_default();
        check(seed.parse().expect("a line begins with a seed"));
    }
}

#[test]
fn a_seed_is_a_run() {
    let orders = Orders {
        trace: true,
        ..Orders::default()
    };
    for seed in 0..50 {
        let (first, second) = (run(seed, &orders), run(seed, &orders));
        assert!(first.trace.lines().count() > 20, "seed {seed} has a trace");
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}
