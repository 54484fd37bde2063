//! What bugs are caught with: tests, the model, the simulator. How each is built, run, and heard.
//!
//! Invariant: a net has failed only where it says what is wrong.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::read;
use super::tree::Tree;

/// How many the simulator runs, unless the bug's head has another number.
pub const SEEDS: u64 = 30_000;

/// What `timeout` ends with where it had to.
const TIMED_OUT: i32 = 124;

/// So many names of failed tests are told.
const TOLD: usize = 2;
const TOLD_BYTES: usize = 240;

/// The same choice for all that needs no server, or the engine would be built for each anew.
const SMALL: [&str; 8] = [
    "--package",
    "millstream-engine",
    "--package",
    "millstream-broker",
    "--package",
    "millstream-sim",
    "--package",
    "millstream-model",
];

/// From the cheapest to the dearest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Net {
    /// Golden scripts, and the walk over the commit machine.
    Scripts,
    Unit(Crate, String),
    /// In worlds of two records: the tests whose names have "records" in them.
    Model,
    /// The simulator, with that one seed.
    Seed(u64),
    Simulator {
        seeds: u64,
    },
    FullModel,
    /// A test with processes, mostly on a real Kafka.
    System(String),
}

/// A crate that bugs are planted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Crate {
    Engine,
    Broker,
    Server,
}

/// What casting a net came to.
pub enum Outcome {
    Held,
    /// What it said was wrong.
    Failed(String),
    Unclear(String),
}

impl Crate {
    pub const ALL: [Self; 3] = [Self::Engine, Self::Broker, Self::Server];

    pub fn folder(self) -> &'static str {
        match self {
            Self::Engine => "host/engine",
            Self::Broker => "host/broker",
            Self::Server => "host/server",
        }
    }

    /// What chooses its unit tests. The server is built with everything, as ever: another choice would build its libraries anew. But not
    /// once more with faults, of the same libraries.
    fn choice(self) -> &'static [&'static str] {
        match self {
            Self::Engine => &["--package", "millstream-engine", "--lib"],
            Self::Broker => &["--package", "millstream-broker", "--lib"],
            Self::Server => &["--workspace", "--exclude", "millstream-faulty", "--lib"],
        }
    }
}

impl Net {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Scripts => "scripts",
            Self::Unit(..) => "unit test",
            Self::Model => "model",
            Self::Seed(_) => "seed",
            Self::Simulator { .. } => "simulator",
            Self::FullModel => "full model",
            Self::System(_) => "system test",
        }
    }

    pub fn needs_server(&self) -> bool {
        matches!(self, Self::Unit(Crate::Server, _) | Self::System(_))
    }

    /// How long it may run, on a busy machine.
    fn seconds_max(&self) -> u64 {
        match self {
            Self::Scripts | Self::Unit(..) | Self::Seed(_) => 120,
            Self::Model => 300,
            Self::Simulator { seeds } => 120 + seeds / 50,
            Self::FullModel | Self::System(_) => 900,
        }
    }

    pub fn build(&self, tree: &Tree) -> Result<()> {
        let small = |verb: &'static str, chosen: [&'static str; 2]| {
            let choice = SMALL.into_iter().chain(chosen);
            [vec![verb], choice.collect()].concat()
        };
        let arguments = match self {
            Self::Scripts => [small("test", ["--test", "sim"]), vec!["--no-run"]].concat(),
            Self::Model => [small("test", ["--test", "rules"]), vec!["--no-run"]].concat(),
            Self::Seed(_) | Self::Simulator { .. } => small("build", ["--bin", "millstream-sim"]),
            Self::FullModel => small("build", ["--bin", "millstream-model"]),
            Self::Unit(home, _) => [&["test"], home.choice(), &["--no-run"]].concat(),
            Self::System(_) => vec!["build", "--workspace", "--all-targets"],
        };
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(tree.path())
            .args(arguments)
            .args(["--release", "--quiet"])
            .envs(surroundings(tree));
        let built = cargo.output().context("starting cargo")?;
        let said = String::from_utf8_lossy(&built.stderr);
        let error = said.lines().find(|line| line.starts_with("error"));
        let error = error.unwrap_or(said.trim());
        ensure!(built.status.success(), "{}: {error}", built.status);
        Ok(())
    }

    /// Runs what was built. `name` is the log's.
    pub fn cast(&self, tree: &Tree, name: &str) -> Result<Outcome> {
        let (command, arguments) = self.command(tree);
        let path = tree.log(&format!("{name}.{}", self.kind().replace(' ', "-")));
        let log = File::create(&path)?;
        let mut run = Command::new("timeout");
        run.arg(self.seconds_max().to_string())
            .arg(command)
            .args(arguments)
            .current_dir(tree.path())
            .envs(surroundings(tree))
            .env_remove("UPDATE_GOLDENFILES")
            .stderr(log.try_clone()?)
            .stdout(log);
        let status = run.status().context("starting timeout")?;
        let said = read(&path)?;
        if status.success() {
            let is_test = matches!(self, Self::Unit(..) | Self::Model | Self::System(_));
            return Ok(match is_test && passed(&said) == 0 {
                true => Outcome::Unclear("there is no such test".into()),
                false => Outcome::Held,
            });
        }
        let log = path.display();
        Ok(match self.wrong(&said) {
            _ if status.code() == Some(TIMED_OUT) => {
                let most = self.seconds_max();
                Outcome::Unclear(format!("it doesn't end within {most} s; see {log}"))
            }
            Some(wrong) => Outcome::Failed(shortened(wrong)),
            None => Outcome::Unclear(format!("{status}, and nothing is named; see {log}")),
        })
    }

    fn command(&self, tree: &Tree) -> (String, Vec<String>) {
        let test = |choice: &[&str], name: &[&str]| {
            let words = [
                &["test", "--release"],
                choice,
                &["--no-fail-fast", "--"],
                name,
            ]
            .concat();
            (
                "cargo".into(),
                words.into_iter().map(String::from).collect(),
            )
        };
        let binary = |name: &str| {
            let path = tree.target().join("release").join(name);
            path.to_string_lossy().into_owned()
        };
        match self {
            Self::Scripts => test(&[&SMALL[..], &["--test", "sim"]].concat(), &[]),
            // The other tests there are of the model itself, and take long where something else is wrong.
            Self::Model => test(&[&SMALL[..], &["--test", "rules"]].concat(), &["records"]),
            Self::Unit(home, name) => test(home.choice(), &[name]),
            Self::Seed(seed) => {
                let words = ["--start", &seed.to_string(), "--seeds", "1"].map(String::from);
                (binary("millstream-sim"), words.into())
            }
            Self::Simulator { seeds } => {
                let words = vec!["--seeds".into(), seeds.to_string()];
                (binary("millstream-sim"), words)
            }
            Self::FullModel => (binary("millstream-model"), Vec::new()),
            // With what it needs beside the server: the copy's own verb.
            Self::System(name) => {
                let words = ["xtask", "test", name].map(String::from);
                ("cargo".into(), words.into())
            }
        }
    }

    /// What it says is wrong.
    fn wrong(&self, said: &str) -> Option<String> {
        let line = |mark: &str| {
            let mut lines = said.lines();
            lines.find(|line| line.starts_with(mark)).map(String::from)
        };
        match self {
            Self::Seed(_) | Self::Simulator { .. } => line("seed "),
            Self::FullModel => line("model: "),
            Self::Scripts => scripts(said).or_else(|| tests(said)),
            Self::Model => tests(said).or_else(|| died(said)),
            Self::Unit(..) | Self::System(_) => {
                let names = tests(said).or_else(|| died(said))?;
                Some(match panicked(said) {
                    Some(words) => format!("{names}: {words}"),
                    None => names,
                })
            }
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit(_, name) | Self::System(name) => write!(f, "{} {name}", self.kind()),
            Self::Seed(seed) => write!(f, "seed {seed}"),
            Self::Simulator { seeds } => write!(f, "simulator, {seeds} seeds"),
            Self::Scripts | Self::Model | Self::FullModel => f.write_str(self.kind()),
        }
    }
}

/// A bug is a line or two: only what is around it is compiled anew.
fn surroundings(tree: &Tree) -> [(&'static str, PathBuf); 2] {
    [
        ("CARGO_TARGET_DIR", tree.target()),
        ("CARGO_INCREMENTAL", "1".into()),
    ]
}

/// How many tests have passed.
fn passed(said: &str) -> u32 {
    let results = said.lines().filter_map(|line| {
        let (_, counts) = line.split_once("test result: ok. ")?;
        counts.split(' ').next()?.parse::<u32>().ok()
    });
    results.sum()
}

fn tests(said: &str) -> Option<String> {
    let failed = said.lines().filter_map(|line| {
        let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
        Some(name.to_owned())
    });
    told(failed.collect())
}

/// A test that takes its process down has no time to say so; cargo does.
fn died(said: &str) -> Option<String> {
    let (_, signal) = said.split_once("(signal: ")?;
    let (signal, _) = signal.split_once(')')?;
    Some(format!("the tests' process died: signal {signal}"))
}

/// What the first panic says, in its first line: a test may fail for another reason than the one that it is there for.
fn panicked(said: &str) -> Option<&str> {
    let (_, behind) = said.split_once(" panicked at ")?;
    behind.lines().nth(1).map(str::trim)
}

/// Scripts are listed by the test that runs them, as paths.
fn scripts(said: &str) -> Option<String> {
    let differing = said.lines().filter_map(|line| {
        let path = line.trim().strip_prefix('"')?.strip_suffix("\",")?;
        let (_, script) = path.split_once("/tests/sim/")?;
        Some(script.to_owned())
    });
    told(differing.collect())
}

fn told(names: Vec<String>) -> Option<String> {
    let more = names.len().saturating_sub(TOLD);
    let first = names.get(..TOLD).unwrap_or(&names).join(", ");
    match more {
        _ if first.is_empty() => None,
        0 => Some(first),
        more => Some(format!("{first} and {more} more")),
    }
}

fn shortened(text: String) -> String {
    if text.len() <= TOLD_BYTES {
        return text;
    }
    let end = (0..=TOLD_BYTES).rev().find(|&at| text.is_char_boundary(at));
    format!("{}…", &text[..end.unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_heard() {
        let check = |net: Net, said: &str, expected: Option<&str>| {
            assert_eq!(net.wrong(said).as_deref(), expected);
        };
        let names =
            "test a::b ... ok\ntest a::c ... FAILED\ntest d ... FAILED\ntest e ... FAILED\n";
        let told = Some("a::c, d and 1 more");
        check(Net::Model, names, told);
        check(Net::Scripts, names, told);
        let listed = "scripts that differ: [\n    \"/x/tests/sim/protocol/aborted\",\n]\n";
        check(
            Net::Scripts,
            &format!("{listed}{names}"),
            Some("protocol/aborted"),
        );
        let seeds = SEEDS;
        let sim = Net::Simulator { seeds };
        check(
            sim.clone(),
            "  3 kills\nseed 7: map: it is wrong\nshrunk: map",
            Some("seed 7: map: it is wrong"),
        );
        check(sim, "Killed", None);
        check(Net::Model, "", None);
        let panic = "thread 'x' (7) panicked at a/b.rs:1:2:\nit is lost\nnote: …\n";
        let system = Net::System("a_test".into());
        check(
            system,
            &format!("{panic}test a_test ... FAILED\n"),
            Some("a_test: it is lost"),
        );
        let ran = "test result: ok. 2 passed; 0 failed\ntest result: ok. 0 passed; 0 failed";
        assert_eq!(passed(ran), 2);
        assert_eq!(shortened("ä".repeat(121)), format!("{}…", "ä".repeat(120)));
    }
}
