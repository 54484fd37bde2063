//! A planted bug: a unified diff in `tests/seeded-bugs`, with a head that says what it is, what it would do, and what should catch it.
//!
//! ```text
//! A line that names it
//!
//! Prose.
//!
//! caught-by: model, sim
//! seeds: 100000
//! seed: 87
//!
//! diff --git …
//! ```
//!
//! `caught-by` takes `scripts`, `model`, `full model`, `sim`, `unit NAME` and `system NAME`; `seeds` is for bugs that the simulator doesn't
//! meet in the usual number; `seed` is one of `tests/sim/seeds` which this bug failed, and still has to fail, whatever else catches it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::net::{Crate, Net, SEEDS};
use super::read;

pub const FOLDER: &str = "tests/seeded-bugs";

pub struct Bug {
    pub path: PathBuf,
    /// The file's, without its ending.
    pub name: String,
    pub title: String,
    /// From the cheapest on.
    pub nets: Vec<Net>,
    /// The seed that is kept because of it.
    pub seed: Option<Net>,
    /// It is planted in what nets are made of, and shows whether these convict. The product is as it was.
    pub is_of_nets: bool,
}

/// What a bug's file says before its diff.
struct Head {
    title: String,
    nets: Vec<Net>,
    seed: Option<Net>,
    is_of_nets: bool,
}

impl Bug {
    pub fn all(root: &Path) -> Result<Vec<Self>> {
        let folder = root.join(FOLDER);
        let files =
            std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        let mut paths = Vec::new();
        for file in files {
            let path = file?.path();
            if path.extension().is_some_and(|ending| ending == "patch") {
                paths.push(path);
            }
        }
        paths.sort();
        paths.into_iter().map(Self::read).collect()
    }

    fn read(path: PathBuf) -> Result<Self> {
        let text = read(&path)?;
        let name = path.file_stem().context("a file has a name")?;
        let name = name.to_string_lossy().into_owned();
        let head = parse(&text).with_context(|| format!("the head of {name}.patch"))?;
        Ok(Self {
            path,
            name,
            title: head.title,
            nets: head.nets,
            seed: head.seed,
            is_of_nets: head.is_of_nets,
        })
    }

    pub fn number(&self) -> &str {
        self.name.split('-').next().unwrap_or_default()
    }
}

fn parse(text: &str) -> Result<Head> {
    let (head, diff) = text.split_once("\ndiff --git ").context("it has no diff")?;
    let mut lines = head.lines();
    let title = lines.next().unwrap_or_default();
    ensure!(!title.is_empty(), "its first line is to name the bug");
    let (mut words, mut seeds, mut seed, mut prose) = (None, SEEDS, None, false);
    for line in lines {
        if let Some(list) = line.strip_prefix("caught-by: ") {
            words = Some(list);
        } else if let Some(number) = line.strip_prefix("seeds: ") {
            seeds = number.parse().context("seeds")?;
        } else if let Some(number) = line.strip_prefix("seed: ") {
            seed = Some(Net::Seed(number.parse().context("seed")?));
        } else {
            prose |= !line.is_empty();
        }
    }
    ensure!(prose, "it is to say what the bug would do");
    let words = words.context("it has no line caught-by: …")?.split(", ");
    let nets = words.map(|word| net(word, seeds, diff));
    let mut nets = nets.collect::<Result<Vec<_>>>()?;
    nets.sort();
    Ok(Head {
        title: title.into(),
        nets,
        seed,
        is_of_nets: is_of_nets(diff),
    })
}

/// The broker in memory is the simulator's, above all.
fn is_of_nets(diff: &str) -> bool {
    let mut changed = diff.lines().filter_map(|line| line.strip_prefix("+++ b/"));
    changed.all(|path| path.starts_with("tests/") || path.starts_with("host/broker/"))
}

fn net(word: &str, seeds: u64, diff: &str) -> Result<Net> {
    Ok(match word.split_once(' ') {
        None if word == "scripts" => Net::Scripts,
        None if word == "model" => Net::Model,
        None if word == "sim" => Net::Simulator { seeds },
        Some(("full", "model")) => Net::FullModel,
        Some(("unit", test)) => Net::Unit(home(diff)?, test.into()),
        Some(("system", test)) => Net::System(test.into()),
        _ => bail!("caught-by: {word}"),
    })
}

/// The crate whose unit tests are meant: the one that the bug is planted in.
fn home(diff: &str) -> Result<Crate> {
    let found = Crate::ALL
        .into_iter()
        .find(|home| diff.contains(&format!("b/{}/", home.folder())));
    found.context("it changes none of the crates that have the protocol")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let diff = "diff --git a/host/engine/src/x b/host/engine/src/x";
        let check = |head: &str, expected: Option<&[Net]>| {
            let found = parse(&format!("{head}\n\n{diff}")).ok();
            assert_eq!(found.map(|head| head.nets).as_deref(), expected, "{head}");
        };
        let unit = Net::Unit(Crate::Engine, "a_test".into());
        let seeds = SEEDS;
        check(
            "It\n\ndoes\n\ncaught-by: sim, unit a_test, scripts",
            Some(&[Net::Scripts, unit, Net::Simulator { seeds }]),
        );
        let seeds = 7;
        check(
            "It\n\ndoes\n\ncaught-by: sim\nseeds: 7",
            Some(&[Net::Simulator { seeds }]),
        );
        for head in [
            "It\n\ndoes",
            "It\n\ncaught-by: sim",
            "It\n\ndoes\n\ncaught-by: luck",
            "It\n\ndoes\n\ncaught-by: sim\nseeds: many",
            "It\n\ndoes\n\ncaught-by: sim\nseed: some",
        ] {
            check(head, None);
        }
    }

    #[test]
    fn every_planted_bug_has_a_head() {
        let root = crate::root().unwrap();
        assert!(!Bug::all(&root).unwrap().is_empty());
    }

    #[test]
    fn what_is_planted_in_a_net_is_none_of_the_products_bugs() {
        let check = |paths: &[&str], expected: bool| {
            let diff: String = paths.iter().map(|path| format!("+++ b/{path}\n")).collect();
            assert_eq!(is_of_nets(&diff), expected, "{paths:?}");
        };
        check(&["tests/sim/simulator/member.rs"], true);
        check(&["host/broker/src/transaction.rs"], true);
        check(&["host/server/src/twin.rs"], false);
        check(
            &["tests/sim/simulator/member.rs", "host/engine/src/lib.rs"],
            false,
        );
    }

    /// Or nobody would know whether they still show anything.
    #[test]
    fn every_seed_that_is_kept_has_its_bug() {
        let root = crate::root().unwrap();
        let bugs = Bug::all(&root).unwrap();
        let mut held: Vec<u64> = bugs
            .iter()
            .filter_map(|bug| match bug.seed {
                Some(Net::Seed(seed)) => Some(seed),
                _ => None,
            })
            .collect();
        let list = read(&root.join("tests/sim/seeds")).unwrap();
        let lines = list.lines().filter(|line| !line.starts_with('#'));
        let numbers = lines.filter_map(|line| line.split_whitespace().next());
        let mut kept: Vec<u64> = numbers.map(|number| number.parse().unwrap()).collect();
        held.sort_unstable();
        kept.sort_unstable();
        assert_eq!(held, kept);
    }
}
