//! `cargo xtask chaos`: the long form of the tests that `test` runs small, on a real Kafka. The tests do it all; this says to them for how
//! long, and has their last word stand last.

use std::path::Path;

use anyhow::{Result, ensure};
use clap::Args;

use super::{target, test};

#[derive(Debug, Args)]
pub struct Arguments {
    /// For how long, about.
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// Records a second.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Draws what an earlier run drew; it prints its own.
    #[arg(long)]
    seed: Option<u64>,
    /// A build that keeps its producers instead: it is to be convicted.
    #[arg(long, conflicts_with = "only")]
    control: bool,
    /// One kind of fault alone, and how long it takes to commit again. Those with this in their name: kills_while_users,
    /// kills_while_orders, scaling, takeovers, rolling, only_broker, three_brokers, stands_still; or all of them, with `all`.
    #[arg(long)]
    only: Option<String>,
    /// With `--only`, of processes; for each of two pipelines.
    #[arg(long, default_value_t = 100, requires = "only")]
    kills: u32,
    /// With `--only`, how often processes come and go, are restarted in turn, and a broker crashes.
    #[arg(long, default_value_t = 10, requires = "only")]
    rounds: u32,
}

pub fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    let summary = target(root, "target/chaos");
    // That of an earlier run is not this one's.
    if summary.exists() {
        std::fs::remove_file(&summary)?;
    }
    let mut environment = vec![
        (
            "MILLSTREAM_CHAOS_SECONDS",
            (arguments.minutes * 60).to_string(),
        ),
        ("MILLSTREAM_CHAOS_RATE", arguments.rate.to_string()),
        ("MILLSTREAM_CHAOS_KILLS", arguments.kills.to_string()),
        ("MILLSTREAM_CHAOS_ROUNDS", arguments.rounds.to_string()),
        ("MILLSTREAM_CHAOS_SUMMARY", summary.display().to_string()),
    ];
    environment.extend(
        arguments
            .seed
            .map(|seed| ("MILLSTREAM_CHAOS_SEED", seed.to_string())),
    );
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let filter = match (&arguments.only, arguments.control) {
        (Some(only), _) if only == "all" => "chaos::",
        (Some(only), _) => only,
        (None, true) => "a_build_that_keeps_its_producers",
        (None, false) => "storm_of_all_faults",
    };
    if arguments.only.is_some() {
        check_name(root, filter)?;
    }
    // One run after the other: each has the machine to itself.
    let rest = [filter, "--nocapture", "--test-threads=1"].map(String::from);
    let tested = test(root, &environment, &rest);
    let line = std::fs::read_to_string(&summary);
    if let Ok(line) = &line {
        println!("{line}");
    }
    tested?;
    let said = arguments.only.is_some() || line.is_ok();
    ensure!(said, "nothing was run");
    Ok(())
}

/// A filter that finds no test would succeed.
fn check_name(root: &Path, filter: &str) -> Result<()> {
    let tests = std::fs::read_to_string(root.join("tests/system/chaos.rs"))?;
    let names = tests.lines().filter_map(|line| line.strip_prefix("fn "));
    let names = names.filter_map(|line| line.split_once("()"));
    let names = names.map(|(name, _)| format!("chaos::{name}"));
    let names: Vec<String> = names.filter(|name| name.contains("chaos_of_")).collect();
    ensure!(
        names.iter().any(|name| name.contains(filter)),
        "no kind of fault has \"{filter}\" in its name; there are\n{}",
        names.join("\n")
    );
    Ok(())
}
