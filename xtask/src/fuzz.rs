//! `cargo xtask fuzz`: the targets of `tests/fuzz` under libFuzzer, each for so long, and what that came to.
//!
//! The flags that cargo-fuzz would pass are passed here, without a sanitizer of memory: what is fuzzed is safe Rust, so the stable compiler
//! does, and nothing is needed but crates and a C++ compiler for libFuzzer. Never changes what is committed: what libFuzzer finds of use
//! is kept below the target folder.
//!
//! Invariant: a target that ends otherwise than by its time has crashed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::setup;

/// Those that need the engine only, and build in seconds.
const ENGINE: [&str; 5] = ["changelog", "json", "metadata", "outcome", "snapshot"];

/// Those that need the server.
const SERVER: [&str; 5] = ["cursor", "feed", "pipeline_file", "query", "requests"];

/// Counters at every branch, and what is compared with what: see LLVM's SanitizerCoverage.
const FLAGS: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Of an input, in bytes.
const INPUT_MAX: usize = 8192;

/// For one input, in seconds. All of them take far less than one.
const TIMEOUT: u32 = 20;

#[derive(Args)]
pub struct Arguments {
    /// This target only. May be given several times.
    #[arg(long)]
    target: Vec<String>,
    /// The targets that need the engine only: they build in seconds.
    #[arg(long, conflicts_with = "target")]
    engine: bool,
    /// For how long each is run. With 0, the inputs that are in the tree are run once.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// How many are run side by side.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
}

/// A target that runs.
struct Running {
    target: &'static str,
    process: Child,
    log: PathBuf,
}

/// What a target came to.
struct Ran {
    executions: u64,
    /// What is left to look at, where it crashed.
    crash: Option<String>,
}

pub fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    let targets = chosen(arguments)?;
    setup::compilers(root)?;
    let folder = super::target(root, "target/fuzz");
    let binaries = build(root, &folder, &targets)?;
    let folders = (folder.as_path(), binaries.as_path());
    let (mut executions, mut crashes) = (0, 0);
    for together in targets.chunks(arguments.jobs.max(1)) {
        let start = |target: &&'static str| start(root, folders, target, arguments.minutes);
        let started = together.iter().map(start);
        for running in started.collect::<Result<Vec<Running>>>()? {
            let target = running.target;
            let ran = finish(running)?;
            executions += ran.executions;
            match ran.crash {
                None => println!("{target}: {} executions", ran.executions),
                Some(crash) => {
                    crashes += 1;
                    println!(
                        "{target}: CRASHED after {} executions: {crash}",
                        ran.executions
                    );
                }
            }
        }
    }
    println!(
        "fuzz: {} targets, {executions} executions, {crashes} crashes",
        targets.len()
    );
    ensure!(crashes == 0, "{crashes} targets crashed");
    Ok(())
}

fn chosen(arguments: &Arguments) -> Result<Vec<&'static str>> {
    let all = || ENGINE.into_iter().chain(SERVER);
    if arguments.engine {
        return Ok(ENGINE.into());
    }
    for word in &arguments.target {
        if !all().any(|target| target == word) {
            let known: Vec<&str> = all().collect();
            bail!("no target is named {word}; there are {}", known.join(", "));
        }
    }
    let is_chosen = |target: &&str| {
        let mut words = arguments.target.iter();
        arguments.target.is_empty() || words.any(|word| word == target)
    };
    Ok(all().filter(is_chosen).collect())
}

/// Returns the folder of the binaries. A platform is named, or build scripts would be instrumented too.
fn build(root: &Path, folder: &Path, targets: &[&str]) -> Result<PathBuf> {
    let platform = platform()?;
    lock(root)?;
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(root.join("tests/fuzz"))
        .args(["build", "--release", "--target-dir"])
        .arg(folder)
        .args(["--target", &platform])
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    for target in targets {
        cargo.args(["--bin", target]);
    }
    if targets.iter().any(|target| SERVER.contains(target)) {
        cargo.args(["--features", "server"]);
    }
    super::run(&mut cargo)?;
    Ok(folder.join(platform).join("release"))
}

/// The libraries are to be of the product's versions: its lock file is the beginning of theirs, to which cargo adds libFuzzer.
fn lock(root: &Path) -> Result<()> {
    let (ours, theirs) = (root.join("Cargo.lock"), root.join("tests/fuzz/Cargo.lock"));
    let changed = |path: &Path| path.metadata().and_then(|found| found.modified());
    let is_newer = match changed(&theirs) {
        Ok(theirs) => changed(&ours)? > theirs,
        Err(_) => true,
    };
    if is_newer {
        let copied = std::fs::copy(&ours, &theirs);
        copied.with_context(|| format!("writing {}", theirs.display()))?;
    }
    Ok(())
}

/// The one that the compiler runs on.
fn platform() -> Result<String> {
    let said = Command::new("rustc").arg("-vV").output();
    let said = said.context("starting rustc")?.stdout;
    let said = String::from_utf8(said)?;
    let mut lines = said.lines();
    let platform = lines.find_map(|line| line.strip_prefix("host: "));
    Ok(platform.context("rustc -vV names no host")?.to_owned())
}

fn start(
    root: &Path,
    (folder, binaries): (&Path, &Path),
    target: &'static str,
    minutes: u64,
) -> Result<Running> {
    let found = folder.join("corpus").join(target);
    let crashes = folder.join("crashes");
    for folder in [&found, &crashes] {
        std::fs::create_dir_all(folder)?;
    }
    let home = root.join("tests/fuzz");
    let log = folder.join(format!("{target}.log"));
    let output = File::create(&log)?;
    let mut fuzz = Command::new(binaries.join(target));
    let prefix = crashes.join(format!("{target}-"));
    fuzz.current_dir(root)
        .arg(format!("-artifact_prefix={}", prefix.display()))
        .arg(format!("-max_len={INPUT_MAX}"))
        .arg(format!("-timeout={TIMEOUT}"))
        .arg("-print_final_stats=1")
        .stderr(output.try_clone()?)
        .stdout(output);
    let words = home.join("dictionaries").join(target);
    if words.is_file() {
        fuzz.arg(format!("-dict={}", words.display()));
    }
    match minutes {
        0 => fuzz.arg("-runs=0"),
        minutes => fuzz
            .arg(format!("-max_total_time={}", minutes * 60))
            .arg(&found),
    };
    fuzz.arg(home.join("corpus").join(target));
    let process = fuzz.spawn().with_context(|| format!("starting {fuzz:?}"))?;
    Ok(Running {
        target,
        process,
        log,
    })
}

fn finish(mut running: Running) -> Result<Ran> {
    let status = running.process.wait()?;
    let said = std::fs::read(&running.log)?;
    let said = String::from_utf8_lossy(&said);
    let log = running.log.display();
    let executions = executions(&said).with_context(|| format!("it ran nothing: see {log}"))?;
    let crash = (!status.success()).then(|| {
        let input = input(&said).unwrap_or("no input was kept");
        format!("{status}; {input}; see {log}")
    });
    Ok(Ran { executions, crash })
}

/// How many inputs were run, as libFuzzer says at its end.
fn executions(said: &str) -> Option<u64> {
    let mut lines = said.lines().rev();
    let line = lines.find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    line.trim().parse().ok()
}

/// The file with the input that it ended on.
fn input(said: &str) -> Option<&str> {
    let mut lines = said.lines();
    lines.find_map(|line| Some(line.split_once("Test unit written to ")?.1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_end_of_a_target_is_understood() {
        let said = "#2\tINITED\nartifact_prefix='x'; Test unit written to x-crash-1\n\
                    stat::number_of_executed_units: 1234\nstat::average_exec_per_sec: 5\n";
        assert_eq!(executions(said), Some(1234));
        assert_eq!(input(said), Some("x-crash-1"));
        assert_eq!((executions(""), input("Done")), (None, None));
    }

    /// Each has its file, its place in the manifest, and inputs to begin with.
    #[test]
    fn targets_are_those_in_the_tree() {
        let home = crate::root().unwrap().join("tests/fuzz");
        let listed = |folder: &str| -> BTreeSet<String> {
            let files = std::fs::read_dir(home.join(folder)).unwrap();
            let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
            files.map(|file| stem(file.unwrap().path())).collect()
        };
        let all: BTreeSet<String> = ENGINE
            .iter()
            .chain(&SERVER)
            .map(ToString::to_string)
            .collect();
        assert_eq!(listed("targets"), all);
        assert_eq!(listed("corpus"), all);
        let manifest = std::fs::read_to_string(home.join("Cargo.toml")).unwrap();
        for target in &all {
            assert!(
                manifest.contains(&format!("name = \"{target}\"")),
                "{target}"
            );
        }
    }
}
