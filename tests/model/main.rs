//! Checks the commit protocol in a world of three records, and says what it came to. It must not end well when something is violated, did
//! not come to be, or was not looked at.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use model::Protocol;
use model::action::Action;
use model::check::Report;
use model::healing::Healing;

/// Of each partition.
const RECORDS: [u8; 2] = [2, 1];

const HEALS: &str = "from everywhere, all records can be committed without another fault";

fn main() -> ExitCode {
    let protocol = Protocol::new(RECORDS);
    // Beside the check: it goes through the same worlds by itself.
    let healing = std::thread::spawn(move || protocol.heals());
    let report = protocol.check();
    if !is_whole(&report) {
        print_violation(&report, protocol);
        return ExitCode::FAILURE;
    }
    for finding in &report.findings {
        println!("holds     {}", finding.property);
    }
    let healing = healing
        .join()
        .expect("a panic has been told where it came about");
    print_healing(&healing);
    let unmet = print_courses(&protocol.look_for_courses());
    println!("checked in {} s", report.took.as_secs());
    let (states, depth) = (report.states, report.depth);
    if healing.worlds != states {
        println!(
            "model: {states} unique states by one count, {} by the other",
            healing.worlds
        );
    } else if healing.stuck.is_some() {
        println!("model: \"{HEALS}\" is violated");
    } else if unmet > 0 {
        println!("model: {unmet} courses are never met");
    } else {
        let properties = report.findings.len() + 1;
        println!("model: {states} unique states, depth {depth}, {properties} properties hold");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

/// Whether nothing is violated, and so every world was looked at.
fn is_whole(report: &Report) -> bool {
    let mut findings = report.findings.iter();
    findings.all(|finding| finding.course.is_none())
}

/// With the shortest course to a violation.
fn print_violation(report: &Report, protocol: Protocol) {
    for finding in &report.findings {
        match finding.course {
            Some(_) => println!("VIOLATED  {}", finding.property),
            // There are worlds that nobody has looked at.
            None => println!("open      {}", finding.property),
        }
    }
    let violation = protocol.counterexample();
    let violation = violation.expect("what was violated once is again");
    print_course(violation.course.iter().flatten());
    println!("model: \"{}\" is violated", violation.property);
}

fn print_healing(healing: &Healing) {
    match &healing.stuck {
        None => println!("holds     {HEALS}"),
        Some(stuck) => {
            println!("VIOLATED  {HEALS}: not from {} worlds", stuck.worlds);
            print_course(stuck.course.iter());
        }
    }
}

/// Returns how many never came to be.
fn print_courses(report: &Report) -> usize {
    let mut unmet = 0;
    for finding in &report.findings {
        match finding.course {
            Some(_) => println!("met       {}", finding.property),
            None => {
                println!("NEVER MET {}", finding.property);
                unmet += 1;
            }
        }
    }
    unmet
}

fn print_course<'a>(course: impl Iterator<Item = &'a Action>) {
    for (number, action) in (1..).zip(course) {
        println!("{number:>4}. {action}");
    }
}
