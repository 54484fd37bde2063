//! `cargo xtask <verb>`: what people and CI do with this repository, each with its own set-up. A verb never changes what is
//! committed, and says which command failed.

mod chaos;
mod fuzz;
mod languages;
mod plugin_build;
mod quickstart;
mod seeded_bugs;
mod setup;
mod walkthrough;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

/// Rust plugins that examples and tests load: package, and the file that it becomes.
const PLUGINS: [(&str, &str); 6] = [
    (
        "materialize-users",
        "examples/01-materialize-users/users.wasm",
    ),
    ("orders-parse", "examples/02-count-by-country/parse.wasm"),
    ("orders-count", "examples/02-count-by-country/count.wasm"),
    ("probe", "target/plugins/probe.wasm"),
    ("counter", "target/plugins/counter.wasm"),
    ("vectors", "target/plugins/vectors-rust.wasm"),
];

/// The plugin in C, and the script that builds it.
const C_PLUGIN: (&str, &str) = (
    "tests/system/plugins/c-filter/build.sh",
    "target/plugins/c-filter.wasm",
);

/// How many events the proof takes in the long form.
const PROOF_EVENTS: u32 = 1_000_000;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Set everything up, build, and run all tests, on a real Kafka too.
    Test {
        /// Passed on to the tests: a filter, for one.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Formatting, clippy with warnings denied, and whether the SDK's bindings match the contract.
    Lint,
    /// Build Millstream and the plugins of the examples.
    Plugins,
    /// Test the SDKs in other languages than Rust, each by its language's own runner, and build the plugin of the vectors in each.
    Sdks,
    /// Build everything needed, and show example 01 at work: no Kafka, no set-up.
    Quickstart(quickstart::Arguments),
    /// Example 03 on a Kafka of its own: three processes, killed, added, drained and restarted while orders come and a reader watches.
    Walkthrough(walkthrough::Arguments),
    /// Exactly once under kills, restarts and doubt, with a million events: the long form of what `test` runs small.
    Prove {
        #[arg(long, default_value_t = PROOF_EVENTS)]
        events: u32,
    },
    /// The commit protocol, checked exhaustively: two workers, two partitions, three records, and every interleaving of what they, the
    /// brokers and the network do. It takes two minutes and 2 GiB.
    Model,
    /// Everything goes wrong that can, one thing after the other, with records coming all the time and the judge after each round: processes
    /// die at each failpoint, freeze, come and go, brokers are killed, requests are lost, held and come late, disks are full.
    Chaos(chaos::Arguments),
    /// The engine on the broker in memory, under faults that a seed draws, with a judge who looks after every step: needs nothing, and
    /// builds in seconds.
    Sim {
        /// Passed on: see `cargo xtask sim --help` at the end of `--`. By default the seeds 0 to 9,999.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Plants the bugs of tests/seeded-bugs one by one, in a copy of the tree, and says which net catches each: a measure of simulator,
    /// model and tests. Those of the engine need nothing; the server's a build of everything, and Kafka.
    SeededBugs(seeded_bugs::Arguments),
    /// Everything that is read of plugins, pipeline files, snapshots, changelogs, feeds and HTTP, under libFuzzer: a target each, and what
    /// must hold of all that it accepts.
    Fuzz(fuzz::Arguments),
    /// Millstream beside a hand-written loop: throughput, CPU, memory.
    Bench {
        /// Passed on: see `cargo xtask bench --help` at the end of `--`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Point queries asked by wrk beside the stream: how soon they are answered, and what they cost.
    BenchQueries {
        /// Passed on: see `cargo xtask bench-queries --help` at the end of `--`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Commits and throughput beside snapshots of a map of a million keys, and without.
    BenchSnapshots {
        /// Passed on: see `cargo xtask bench-snapshots --help` at the end of `--`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// A map partition of a million entries: memory, folds, searches.
    BenchMaps,
}

fn main() -> ExitCode {
    match run_verb(Arguments::parse_from(arguments(std::env::args())).verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_verb(verb: Verb) -> Result<()> {
    let root = root()?;
    match verb {
        Verb::Test { rest } => test(&root, &[], &rest),
        Verb::Lint => lint(&root),
        Verb::Plugins => {
            setup::compilers(&root)?;
            build_examples(&root).map(drop)
        }
        Verb::Sdks => {
            setup::compilers(&root)?;
            build(&root)?;
            build_plugins(&root)?;
            build_c_plugin(&root)?;
            languages::all(&root, true)
        }
        Verb::Quickstart(arguments) => {
            setup::compilers(&root)?;
            quickstart::run(&root, &build_examples(&root)?, &arguments)
        }
        Verb::Walkthrough(arguments) => {
            setup::system(&root)?;
            walkthrough::run(&root, &build_examples(&root)?, &arguments)
        }
        Verb::Prove { events } => {
            let events = events.to_string();
            let only = ["exactly_once", "--nocapture", "--test-threads=1"].map(String::from);
            test(&root, &[("MILLSTREAM_TEST_EVENTS", &events)], &only)
        }
        Verb::Model => model(&root),
        Verb::Chaos(arguments) => chaos::run(&root, &arguments),
        Verb::Sim { rest } => sim(&root, &rest),
        Verb::SeededBugs(arguments) => seeded_bugs::run(&root, &arguments),
        Verb::Fuzz(arguments) => fuzz::run(&root, &arguments),
        Verb::Bench { rest } => bench(&root, "bench", &rest),
        Verb::BenchQueries { rest } => {
            setup::load(&root)?;
            bench(&root, "bench-queries", &rest)
        }
        Verb::BenchSnapshots { rest } => bench(&root, "bench-snapshots", &rest),
        Verb::BenchMaps => {
            setup::compilers(&root)?;
            build(&root)?;
            run(&mut Command::new(target(
                &root,
                "target/release/bench-maps",
            )))
        }
    }
}

/// What stands behind the verb may be set apart by `--`, as other tools want it: `cargo xtask quickstart -- --once`.
fn arguments(given: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    const BEHIND_THE_VERB: usize = 2;
    let apart = |(place, word): &(usize, String)| *place == BEHIND_THE_VERB && word == "--";
    let kept = given.enumerate().filter(move |given| !apart(given));
    kept.map(|(_, word)| word)
}

fn test(root: &Path, environment: &[(&str, &str)], rest: &[String]) -> Result<()> {
    setup::system(root)?;
    build(root)?;
    build_plugins(root)?;
    build_c_plugin(root)?;
    // Whoever wants some of the tests mostly wants others.
    let wanted = |word: &String| word.contains("vectors");
    if rest.is_empty() || rest.iter().any(wanted) {
        languages::all(root, rest.is_empty())?;
    }
    let mut tests = Command::new("cargo");
    tests
        .current_dir(root)
        .args(["test", "--release", "--workspace", "--no-fail-fast", "--"])
        .args(rest);
    tests.envs(environment.iter().copied());
    run(&mut tests)
}

/// Alone: who changes the protocol wants to know in seconds, without librdkafka and wasmtime.
fn sim(root: &Path, rest: &[String]) -> Result<()> {
    cargo(
        root,
        &[
            "build",
            "--quiet",
            "--release",
            "--package",
            "millstream-sim",
        ],
    )?;
    run(Command::new(target(root, "target/release/millstream-sim")).args(rest))
}

/// Everything at once and always alike: cargo picks the libraries' features by what is built together, and would build them again
/// for another choice.
fn build(root: &Path) -> Result<()> {
    cargo(
        root,
        &["build", "--release", "--workspace", "--all-targets"],
    )
}

/// Millstream, and the plugins that examples load. Returns its binary.
fn build_examples(root: &Path) -> Result<PathBuf> {
    build(root)?;
    build_plugins(root)?;
    Ok(target(root, "target/release/millstream"))
}

fn lint(root: &Path) -> Result<()> {
    setup::compilers(root)?;
    cargo(root, &["fmt", "--all", "--check"])?;
    cargo(
        root,
        &[
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ],
    )?;
    build(root)?;
    let mut guests = Command::new(target(root, "target/release/guests"));
    run(guests.current_dir(root).args(["rust-bindings", "--check"]))
}

fn build_plugins(root: &Path) -> Result<()> {
    for (package, file) in PLUGINS {
        let built = plugin_build::build(root, package)?;
        copy(&built, &target(root, file))?;
    }
    Ok(())
}

/// With whatever clang there is that makes WebAssembly; Debian's packages are asked for where none does.
fn build_c_plugin(root: &Path) -> Result<()> {
    let (script, file) = C_PLUGIN;
    let built = target(root, file);
    std::fs::create_dir_all(built.parent().context("a file stands in a folder")?)?;
    let build = || {
        let mut script = Command::new(root.join(script));
        script
            .current_dir(root)
            .arg(&built)
            .env("GUESTS", target(root, "target/release/guests"));
        run(&mut script)
    };
    build().or_else(|_| {
        setup::c_toolchain()?;
        build()
    })
}

/// Rust is all it takes, and only what it needs is built.
fn model(root: &Path) -> Result<()> {
    cargo(
        root,
        &["build", "--release", "--package", "millstream-model"],
    )?;
    run(&mut Command::new(target(
        root,
        "target/release/millstream-model",
    )))
}

fn bench(root: &Path, binary: &str, rest: &[String]) -> Result<()> {
    setup::system(root)?;
    build(root)?;
    let plugin = plugin_build::build(root, "materialize-users")?;
    let binaries = target(root, "target/release");
    let mut bench = Command::new(binaries.join(binary));
    run(bench
        .arg("--binaries")
        .arg(&binaries)
        .arg("--plugin")
        .arg(plugin)
        .args(rest))
}

/// A path below the repository; what stands under `target` there is where cargo puts it.
fn target(root: &Path, file: &str) -> PathBuf {
    match (
        file.strip_prefix("target/"),
        std::env::var_os("CARGO_TARGET_DIR"),
    ) {
        (Some(file), Some(folder)) => root.join(folder).join(file),
        _ => root.join(file),
    }
}

/// Replaces a file in one step: a pipeline that runs may be watching it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a file stands in a folder")?;
    std::fs::create_dir_all(folder)?;
    let new = to.with_extension("new");
    std::fs::copy(from, &new)
        .with_context(|| format!("copying {} to {}", from.display(), new.display()))?;
    std::fs::rename(&new, to)?;
    println!("{}", to.display());
    Ok(())
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    run(Command::new("cargo").current_dir(root).args(arguments))
}

fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command
        .status()
        .with_context(|| format!("starting {shown}"))?;
    ensure!(status.success(), "{shown}: {status}");
    Ok(())
}

fn root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(manifest
        .parent()
        .context("xtask stands in the repository")?
        .to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_may_be_set_apart() {
        let parse = |words: &[&str]| {
            let given = words.iter().map(|word| (*word).to_owned());
            Arguments::try_parse_from(arguments(given)).map(|arguments| arguments.verb)
        };
        for words in [
            &["xtask", "quickstart", "--once", "--feed", "f"][..],
            &["xtask", "quickstart", "--", "--once", "--feed", "f"],
        ] {
            assert!(matches!(parse(words), Ok(Verb::Quickstart(_))), "{words:?}");
        }
        let bench = parse(&["xtask", "bench", "--", "--records", "5"]);
        assert!(matches!(bench, Ok(Verb::Bench { rest }) if rest == ["--records", "5"]));
    }
}
