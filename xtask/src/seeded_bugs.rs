//! `cargo xtask seeded-bugs`: plants the bugs of `tests/seeded-bugs` one after another, each in a copy of the tree, and says which net
//! catches it. It measures the nets: a bug that none catches is one that could be in the product.
//!
//! Never touches the work tree. Invariant: only a net that holds without the bug, and fails with it, has caught it. What doesn't apply,
//! doesn't build, doesn't come to an end, or fails without saying what, is an error and no catch.

mod bug;
mod net;
mod tree;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use bug::Bug;
use net::{Net, Outcome};
use tree::Tree;

#[derive(Args)]
pub struct Arguments {
    /// Of the bugs, those with this in their file's name. May be given several times.
    #[arg(long)]
    only: Vec<String>,
    /// Those whose nets need neither server nor Kafka.
    #[arg(long)]
    engine: bool,
    /// The others: an hour and a half of processes and Kafka, alone on the machine.
    #[arg(long, conflicts_with = "engine")]
    server: bool,
    /// Of each kind of net that needs no server the first bug that names it, with that net alone: shows in a minute or two that all of
    /// this works.
    #[arg(long, conflicts_with_all = ["only", "server"])]
    short: bool,
}

/// What became of a bug.
enum Fate {
    Caught {
        net: Net,
        by: String,
    },
    Missed,
    /// Nothing was learnt of the nets.
    Error(String),
}

pub fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    let tree = Tree::new(root, &super::target(root, "target/seeded-bugs"))?;
    let bugs = chosen(Bug::all(&tree.clean())?, arguments);
    ensure!(!bugs.is_empty(), "no planted bug is meant");
    hold_without(&tree, &bugs)?;
    let mut rows = Vec::new();
    for bug in &bugs {
        let began = Instant::now();
        let fate = plant(&tree, bug)?;
        rows.push((bug, fate, began.elapsed()));
        println!("{}", last(&rows));
    }
    tree.renew()?;
    println!("\n| bug | caught by | which | after |\n| --- | --- | --- | --- |");
    for row in &rows {
        println!("{}", markdown(row));
    }
    let counted = |of_nets: bool| {
        let all = rows.iter().filter(|(bug, ..)| bug.is_of_nets == of_nets);
        let fates: Vec<&Fate> = all.map(|(_, fate, _)| fate).collect();
        let caught = fates.iter().filter(|fate| is_caught(fate)).count();
        (caught, fates.len())
    };
    let [(caught, all), (convicted, in_nets)] = [false, true].map(counted);
    println!("\n{convicted} of {in_nets} bugs planted in the nets themselves convicted");
    println!("{caught} of {all} planted bugs caught");
    let through = rows.len() - caught - convicted;
    ensure!(through == 0, "{through} went through");
    Ok(())
}

fn is_caught(fate: &Fate) -> bool {
    matches!(fate, Fate::Caught { .. })
}

fn chosen(all: Vec<Bug>, arguments: &Arguments) -> Vec<Bug> {
    let mut kinds = BTreeSet::new();
    let meant = |bug: &Bug| {
        let mut words = arguments.only.iter();
        arguments.only.is_empty() || words.any(|word| bug.name.contains(word))
    };
    let meant = all.into_iter().filter(meant);
    let meant = meant.filter_map(|mut bug| {
        let needs_server = bug.nets.iter().any(Net::needs_server);
        if arguments.engine && needs_server || arguments.server && !needs_server {
            return None;
        }
        if arguments.short {
            let mut nets = bug.nets.into_iter();
            let new = nets.find(|net| !net.needs_server() && !kinds.contains(net.kind()));
            kinds.extend(new.iter().map(Net::kind));
            bug.nets = Vec::from_iter(new);
        }
        (!bug.nets.is_empty()).then_some(bug)
    });
    meant.collect()
}

/// A net that fails by itself would catch everything.
fn hold_without(tree: &Tree, bugs: &[Bug]) -> Result<()> {
    tree.renew()?;
    let nets: BTreeSet<&Net> = bugs
        .iter()
        .flat_map(|bug| bug.seed.iter().chain(&bug.nets))
        .collect();
    for net in nets {
        let began = Instant::now();
        net.build(tree)?;
        let built = began.elapsed();
        let held = match net.cast(tree, "without")? {
            Outcome::Held => Ok(()),
            Outcome::Failed(by) => Err(format!("fails without any bug: {by}")),
            Outcome::Unclear(why) => Err(why),
        };
        held.map_err(|why| anyhow::anyhow!("{net}: {why}; nothing would count"))?;
        println!(
            "holds without a bug: {net} (built in {}, ran for {})",
            seconds(built),
            seconds(began.elapsed() - built)
        );
    }
    Ok(())
}

/// The seed that is kept because of it must fail, and then nets are cast from the cheapest on, until one catches the bug.
fn plant(tree: &Tree, bug: &Bug) -> Result<Fate> {
    tree.renew()?;
    if let Err(why) = tree.apply(&bug.path) {
        return Ok(Fate::Error(format!("it doesn't apply: {why:#}")));
    }
    for net in bug.seed.iter().chain(&bug.nets) {
        if let Err(why) = net.build(tree) {
            return Ok(Fate::Error(format!("it doesn't build: {why:#}")));
        }
        match (net.cast(tree, &bug.name)?, net) {
            (Outcome::Held, Net::Seed(seed)) => {
                let why = format!("seed {seed} holds with it: it shows nothing any more");
                return Ok(Fate::Error(why));
            }
            (Outcome::Held, _) | (Outcome::Failed(_), Net::Seed(_)) => {}
            (Outcome::Failed(by), net) => {
                let net = net.clone();
                return Ok(Fate::Caught { net, by });
            }
            (Outcome::Unclear(why), net) => return Ok(Fate::Error(format!("{net}: {why}"))),
        }
    }
    Ok(Fate::Missed)
}

type Row<'a> = (&'a Bug, Fate, Duration);

fn last(rows: &[Row<'_>]) -> String {
    let (bug, fate, took) = rows.last().expect("the caller has just pushed one");
    let took = seconds(*took);
    match fate {
        Fate::Caught { net, by } => format!("caught  {} by {net}, {by} ({took})", bug.name),
        Fate::Missed => format!("MISSED  {} ({took})", bug.name),
        Fate::Error(why) => format!("ERROR   {}: {why}", bug.name),
    }
}

fn markdown((bug, fate, took): &Row<'_>) -> String {
    let cells = match fate {
        Fate::Caught { net, by } => [net.kind().into(), by.clone()],
        Fate::Missed => ["**nothing**".into(), listed(&bug.nets)],
        Fate::Error(why) => ["**error**".into(), why.clone()],
    };
    let [net, by] = cells.map(|cell| cell.replace('|', "\\|").replace('\n', " "));
    let (number, title, took) = (bug.number(), &bug.title, seconds(*took));
    format!("| {number} {title} | {net} | {by} | {took} |")
}

fn listed(nets: &[Net]) -> String {
    let nets: Vec<String> = nets.iter().map(Net::to_string).collect();
    nets.join(", ")
}

fn seconds(took: Duration) -> String {
    format!("{:.0} s", took.as_secs_f64())
}

/// Reads a file, and says which.
fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_casts_each_net_once_that_needs_no_server() {
        let arguments = Arguments {
            only: Vec::new(),
            engine: false,
            server: false,
            short: true,
        };
        let bugs = chosen(Bug::all(&crate::root().unwrap()).unwrap(), &arguments);
        let nets = bugs.iter().flat_map(|bug| &bug.nets);
        let mut kinds: Vec<&str> = nets.map(Net::kind).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["model", "scripts", "simulator", "unit test"]);
    }
}
