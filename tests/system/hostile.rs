//! Plugins that do what they can to harm: each is refused, or costs the records that it misbehaves on and no others. The corpus is in the
//! folder of this name, a file a case (`hostile/case.rs` says what stands in it), and in `hostile/generated.rs`.
//!
//! What a run takes is short; `MILLSTREAM_HOSTILE_REPEATS` and `MILLSTREAM_HOSTILE_SECONDS` make the figures those that are reported.

mod case;
pub mod component;
pub mod feed;
mod figures;
mod generated;
mod life;
mod neighbours;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rig::folder::Folder;

use crate::stage::number;
use crate::timings::Timings;
use case::{Case, Expected};
use generated::Bomb;

/// The corpus may grow.
const CASES_MIN: usize = 80;

/// How much later than its deadline every second call of a case may be in a test: machines are shared, and a thread may have to wait for its
/// turn. What it is on one at rest is printed.
const LATE_MAX: Duration = Duration::from_millis(500);

/// How late a neighbour's records may be in a test, at p99: of two processors, with the broker on them, a hostile pipeline takes one, as a thread
/// does that only counts.
const NEIGHBOUR_MAX: Duration = Duration::from_secs(3);

/// Runs all of them, as many at a time as there are processors, and says which ones failed.
fn each<T: Sync>(all: &[T], name: impl Fn(&T) -> String + Sync, run: impl Fn(&T) + Sync) {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if catch_unwind(AssertUnwindSafe(|| run(one))).is_err() {
                        failed
                            .lock()
                            .expect("nobody panics with it held")
                            .push(name(one));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics with it held");
    assert!(
        failed.is_empty(),
        "{} of {} failed: {}",
        failed.len(),
        all.len(),
        failed.join(", ")
    );
}

/// The cases that the environment names, or all.
fn cases(wanted: impl Fn(&Case) -> bool) -> Vec<Case> {
    let word = std::env::var("MILLSTREAM_HOSTILE").unwrap_or_default();
    let mut cases = case::all();
    assert!(
        cases.len() + generated::CASES >= CASES_MIN,
        "{} cases",
        cases.len()
    );
    cases.retain(|case| wanted(case) && case.name.contains(&word));
    cases
}

fn is_refused(case: &Case) -> bool {
    matches!(case.expected, Expected::Refused(_))
}

#[test]
fn hostile_plugins_are_refused_with_words() {
    each(&cases(is_refused), |case| case.name.clone(), life::run);
}

#[test]
fn hostile_calls_cost_their_own_records() {
    let cases = cases(|case| !is_refused(case));
    each(&cases, |case| case.name.clone(), life::run);
}

#[test]
fn hostile_files_are_refused_with_words() {
    each(
        &generated::FILES,
        |made| made.name.into(),
        |made| {
            let folder = Folder::new("hostile-made");
            let path = folder.join("made.wasm");
            (made.make)(&path);
            let (code, said) = generated::run(&folder, &path, "");
            assert_eq!(code, Some(2), "{}: {said}", made.name);
            assert!(said.contains(made.words), "{}: {said}", made.name);
        },
    );
}

#[test]
fn hostile_components_do_not_keep_the_compiler() {
    let run = |bomb: &Bomb| {
        let folder = Folder::new("hostile-bomb");
        let path = folder.join("bomb.wasm");
        std::fs::write(&path, bomb.component()).expect("the folder can be written");
        let (code, said) = generated::run(&folder, &path, &generated::hurried());
        assert_eq!(code, Some(2), "{}: {said}", bomb.name);
        let words = "can't be compiled: it took more than";
        assert!(said.contains(words), "{}: {said}", bomb.name);
    };
    each(&generated::BOMBS, |bomb| bomb.name.into(), run);
}

#[test]
fn hostile_sizes_are_no_harm() {
    let folder = Folder::new("hostile-large");
    let path = folder.join("large.wasm");
    generated::large(&path);
    let (code, said) = generated::run(&folder, &path, "");
    assert_eq!(code, Some(0), "it is sound: {said}");
    for depth in [100, 20_000] {
        std::fs::write(&path, generated::nested(depth)).expect("the folder can be written");
        let (code, said) = generated::run(&folder, &path, "");
        assert!(matches!(code, Some(0 | 2)), "{depth}: {code:?} {said}");
    }
}

/// What comes of it is the plugin's affair: it may be sound, or refused, or fail on its records. It is no panic, and no signal.
#[test]
fn hostile_bits_are_no_harm() {
    let turned: Vec<(usize, Vec<u8>)> = generated::turned().enumerate().collect();
    let (refused, ran) = (AtomicUsize::new(0), AtomicUsize::new(0));
    each(
        &turned,
        |(number, _)| number.to_string(),
        |(number, bytes)| {
            let folder = Folder::new("hostile-bits");
            let path = folder.join("turned.wasm");
            std::fs::write(&path, bytes).expect("the folder can be written");
            let (code, said) = generated::run(&folder, &path, "");
            match code {
                Some(0) => ran.fetch_add(1, Ordering::Relaxed),
                Some(2) => refused.fetch_add(1, Ordering::Relaxed),
                other => panic!("plugin {number}: {other:?}\n{said}"),
            };
        },
    );
    let (refused, ran) = (refused.into_inner(), ran.into_inner());
    println!(
        "{} plugins with a bit turned: {refused} refused, {ran} run",
        turned.len()
    );
    assert!(refused > 0, "nothing was turned");
}

#[test]
fn hostile_calls_are_cut_off_at_their_deadline() {
    let is_late = |case: &Case| {
        let fails = matches!(case.expected, Expected::Fails(_) | Expected::AllFail(_));
        fails && case.limit.as_deref() == Some("time") && case.value.starts_with("evil")
    };
    let late = figures::cut_off(&cases(is_late), number("MILLSTREAM_HOSTILE_REPEATS", 3));
    figures::timings(&late).print("calls went on after their deadline for");
    for (name, mut late) in late {
        late.sort();
        let (median, worst) = (late[late.len() / 2], late[late.len() - 1]);
        println!(
            "{name}: {median:.1?} late, at most {worst:.1?}, {} times",
            late.len()
        );
        assert!(median < LATE_MAX, "{name}: {median:?}");
    }
}

#[test]
fn hostile_plugins_leave_no_memory_behind() {
    let sizes = figures::resident(&cases(|_| true), number("MILLSTREAM_HOSTILE_REPEATS", 3));
    let mebibytes: Vec<u64> = sizes.iter().map(|size| size >> 20).collect();
    println!("resident memory in MiB: {mebibytes:?}");
    // It goes up and down by a fifth, with what the largest answers took: what grows shows in the least.
    let (first, last) = sizes.split_at(sizes.len() / 2);
    let mean = |sizes: &[u64]| sizes.iter().sum::<u64>() / sizes.len() as u64;
    let least = |sizes: &[u64]| sizes.iter().min().copied().unwrap_or_default();
    let (before, after) = (least(first), least(last));
    println!(
        "MiB at first and at last: means {} and {}, least {} and {}",
        mean(first) >> 20,
        mean(last) >> 20,
        before >> 20,
        after >> 20
    );
    assert!(
        after < before + before / 4,
        "{before} bytes at first, {after} at last"
    );
}

#[test]
fn hostile_pipelines_leave_their_neighbours_alone() {
    let seconds = number("MILLSTREAM_HOSTILE_SECONDS", 5);
    let beside = [
        "loop-process",
        "loop-process-log",
        "loop-process-fill",
        "memory-grow-and-trap",
        "output-10-million-records",
        "recursion",
        "log-flood",
        "state-flood",
        "trap-unreachable",
    ];
    let hostile = cases(|case| beside.contains(&case.name.as_str()));
    let mut alone = neighbours::run("neighbour-alone", &[], seconds);
    let mut busy = neighbours::beside_a_thread("neighbour-busy", seconds);
    let mut among = neighbours::run("neighbour-among", &hostile, seconds);
    let all = [
        ("alone", &mut alone),
        ("beside a thread that counts", &mut busy),
        ("beside hostile plugins", &mut among),
    ];
    for (name, seen) in all {
        seen.records.print(&format!(
            "{name}, records from their being written to their being written out"
        ));
        seen.questions
            .print(&format!("{name}, questions about a key"));
    }
    let p99 = |timings: &Timings| timings.at(99).as_secs_f64();
    for (name, other) in [("alone", &alone), ("beside a thread", &busy)] {
        let records = p99(&among.records) / p99(&other.records);
        let questions = p99(&among.questions) / p99(&other.questions);
        println!(
            "p99 beside hostile plugins by p99 {name}: records {records:.2}, questions {questions:.2}"
        );
    }
    let late = among.records.at(99);
    assert!(late < NEIGHBOUR_MAX, "{late:?}");
}
