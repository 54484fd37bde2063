//! `cargo xtask sim`: runs seeds, and says what they met. On a violation it says which seed, shrinks it, prints the command that repeats
//! it, and fails. It fails as well where enough whole seeds were run to have met every course, and one was not.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use millstream_sim::{Course, Courses, Orders, Report, run, shrink};

const USAGE: &str = "\
cargo xtask sim [--start SEED] [--seeds N] [--seconds S] [--threads T]
                [--faults 0,3,…] [--batches N] [--trace] [--keep-going]

  --start, --seeds   which seeds: N from SEED on (0, 10000)
  --seconds          as many seeds as go into this time
  --threads          over disjoint seeds (2)
  --faults           only these faults of each seed's schedule; `--faults none`
  --batches          only so many batches of each seed's input
  --trace            with one seed: everything that happens
  --keep-going       all violations, without shrinking them";

const SEEDS: u64 = 10_000;

/// Seeds that a thread takes at a time.
const PORTION: u64 = 64;

struct Arguments {
    start: u64,
    seeds: u64,
    seconds: Option<u64>,
    threads: u64,
    orders: Orders,
    keep_going: bool,
}

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let arguments = match arguments(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if arguments.orders.trace {
        let report = run(arguments.start, &arguments.orders);
        print!("{}", report.trace);
        println!(
            "{}",
            summary(1, report.steps, u64::from(report.violation.is_some()))
        );
        return ExitCode::from(u8::from(report.violation.is_some()));
    }
    // What panics in a run is told as its violation; with a trace also where.
    std::panic::set_hook(Box::new(|_| ()));
    let found = Found::default();
    run_all(&arguments, &found);
    found.tell(&arguments)
}

fn arguments(given: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        start: 0,
        seeds: SEEDS,
        seconds: None,
        threads: 2,
        orders: Orders::default(),
        keep_going: false,
    };
    let mut given = given;
    while let Some(word) = given.next() {
        let mut number = || {
            let value = given.next().ok_or(format!("{word} wants a number"))?;
            let parsed = value.replace('_', "").parse::<u64>();
            parsed.map_err(|_| format!("{word} {value}: not a number"))
        };
        match word.as_str() {
            "--start" => arguments.start = number()?,
            "--seeds" => arguments.seeds = number()?,
            "--seconds" => arguments.seconds = Some(number()?),
            "--threads" => arguments.threads = number()?.clamp(1, 64),
            "--batches" => arguments.orders.batches = usize::try_from(number()?).ok(),
            "--faults" => {
                let list = given.next().unwrap_or_default();
                let numbers = list.split(',').filter(|text| *text != "none");
                let numbers = numbers.map(|text| text.parse::<usize>());
                let numbers: Result<_, _> = numbers.collect();
                let numbers = numbers.map_err(|_| format!("--faults {list}: not a list"))?;
                arguments.orders.faults = Some(numbers);
            }
            "--trace" => arguments.orders.trace = true,
            "--keep-going" => arguments.keep_going = true,
            _ => return Err(format!("{word}: unknown")),
        }
    }
    Ok(arguments)
}

/// What all threads have found so far.
#[derive(Default)]
struct Found {
    next: AtomicU64,
    stop: AtomicBool,
    sum: Mutex<Sum>,
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    steps: u64,
    courses: Courses,
    violations: Vec<(u64, Report)>,
}

fn run_all(arguments: &Arguments, found: &Found) {
    let until = arguments
        .seconds
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                while !found.stop.load(Ordering::Relaxed) {
                    let first = found.next.fetch_add(PORTION, Ordering::Relaxed);
                    let most = until.map_or(arguments.seeds, |_| u64::MAX);
                    let over = until.is_some_and(|until| Instant::now() > until);
                    if first >= most || over {
                        return;
                    }
                    let last = (first + PORTION).min(most);
                    run_some(arguments, found, first..last);
                }
            });
        }
    });
}

fn run_some(arguments: &Arguments, found: &Found, portion: std::ops::Range<u64>) {
    let mut sum = Sum::default();
    for number in portion {
        let seed = arguments.start + number;
        let report = run(seed, &arguments.orders);
        sum.seeds += 1;
        sum.steps += report.steps;
        sum.courses.add(&report.courses);
        if report.violation.is_some() {
            sum.violations.push((seed, report));
            if !arguments.keep_going {
                found.stop.store(true, Ordering::Relaxed);
                break;
            }
        }
    }
    let mut all = found.sum.lock().unwrap_or_else(PoisonError::into_inner);
    all.seeds += sum.seeds;
    all.steps += sum.steps;
    all.courses.add(&sum.courses);
    all.violations.extend(sum.violations);
}

impl Found {
    fn tell(self, arguments: &Arguments) -> ExitCode {
        let sum = self
            .sum
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        for course in Course::ALL {
            let count = sum.courses.of(*course);
            if count > 0 {
                println!("{count:>12} {}", course.words());
            }
        }
        // Parts of seeds meet what they are cut down to.
        let unmet = match arguments.orders == Orders::default() {
            true => sum.courses.unmet(sum.seeds),
            false => Vec::new(),
        };
        for course in &unmet {
            println!("never: {}", course.words());
        }
        for (seed, report) in &sum.violations {
            let Some(violation) = &report.violation else {
                continue;
            };
            println!("seed {seed}: {}: {}", violation.name, violation.what);
        }
        if let (Some((seed, report)), false) = (sum.violations.first(), arguments.keep_going) {
            tell_least(*seed, report);
        }
        let violations = sum.violations.len() as u64;
        let summary = summary(sum.seeds, sum.steps, violations);
        match unmet.len() {
            0 => println!("{summary}"),
            count => println!("{summary}, {count} courses never met"),
        }
        ExitCode::from(u8::from(violations > 0 || !unmet.is_empty()))
    }
}

fn tell_least(seed: u64, report: &Report) {
    let (orders, least) = shrink(seed, report);
    let faults = orders.faults.unwrap_or_default();
    let faults: Vec<String> = faults.iter().map(usize::to_string).collect();
    let faults = if faults.is_empty() {
        "none".into()
    } else {
        faults.join(",")
    };
    let batches = orders.batches.unwrap_or(0);
    if let Some(violation) = least.violation {
        println!("shrunk: {}: {}", violation.name, violation.what);
    }
    println!(
        "again: cargo xtask sim --start {seed} --seeds 1 --faults {faults} --batches {batches} --trace"
    );
}

fn summary(seeds: u64, steps: u64, violations: u64) -> String {
    format!("sim: {seeds} seeds, {steps} steps, {violations} violations")
}
