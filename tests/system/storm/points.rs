//! The failpoints of the server, read from its source: which there are, which come next, and where they were met.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use rig::{millstream, repository};

use crate::dice::Dice;

const REACH: &str = "fault::reach(\"";

/// Every failpoint in the server's source, as often as it stands there.
pub fn in_source() -> Vec<String> {
    let mut found = Vec::new();
    collect(&repository().join("host/server/src"), &mut found);
    found.sort();
    found
}

fn collect(folder: &Path, found: &mut Vec<String>) {
    let entries = std::fs::read_dir(folder).expect("the source is there");
    for entry in entries {
        let path = entry.expect("the folder can be listed").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file is UTF-8");
            let named = text.split(REACH).skip(1);
            found.extend(named.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
}

/// What a process is told that is to kill itself at the n-th time it comes to a point.
pub fn doom((point, times): (String, u64)) -> (&'static str, String) {
    ("MILLSTREAM_FAULT_KILL", format!("{point}:{times}"))
}

/// Goes round: each is tried once before any is tried again, as far as things let it be.
pub struct Points {
    queue: VecDeque<String>,
    deaths: BTreeMap<String, u64>,
}

impl Points {
    pub fn all(dice: &mut Dice) -> Self {
        let mut left = in_source();
        let deaths = left.iter().map(|point| (point.clone(), 0)).collect();
        let mut queue = VecDeque::new();
        while !left.is_empty() {
            let next = dice.between(0, left.len() as u64 - 1);
            let next = usize::try_from(next).expect("a vector's length is one");
            queue.push_back(left.swap_remove(next));
        }
        Self { queue, deaths }
    }

    /// The next one that can be met as things are, and the how-manieth time it is to be. Where nobody has died yet comes first.
    pub fn next(&mut self, dice: &mut Dice, can_be: impl Fn(&str) -> bool) -> (String, u64) {
        let is_new = |point: &String| can_be(point) && self.deaths.get(point) == Some(&0);
        let at = self.queue.iter().position(is_new);
        let at = at.or_else(|| self.queue.iter().position(|point| can_be(point)));
        let point = at.and_then(|at| self.queue.remove(at));
        let point = point.expect("some points can always be met");
        self.queue.push_back(point.clone());
        let times = dice.between(1, most_times(&point));
        (point, times)
    }

    /// This one, unless somebody died there.
    pub fn take(&self, point: &str) -> Option<(String, u64)> {
        (self.deaths.get(point) == Some(&0)).then(|| (point.to_owned(), 1))
    }

    pub fn died_at(&mut self, point: &str) {
        *self.deaths.entry(point.to_owned()).or_default() += 1;
    }

    pub fn deaths(&self) -> &BTreeMap<String, u64> {
        &self.deaths
    }
}

/// What a process comes to often it may die at later.
fn most_times(point: &str) -> u64 {
    match point {
        "epoch-output-sending" => 1500,
        "epoch-change-sending" => 1000,
        "epoch-batch-run" => 100,
        point if point.starts_with("epoch-") => 12,
        "restore-folding" => 4,
        "snapshot-half-written" => 3,
        _ => 1,
    }
}

/// Names are told apart by whoever asks for one, and there are enough of them.
#[test]
fn failpoints_have_names_of_their_own() {
    const LEAST: usize = 40;
    let points = in_source();
    assert!(points.len() >= LEAST, "{} failpoints", points.len());
    let twice = points.windows(2).find(|two| two[0] == two[1]);
    assert_eq!(twice, None, "a failpoint's name stands twice");
    let is_plain = |name: &String| name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    assert!(points.iter().all(is_plain), "{points:?}");
}

#[test]
fn the_product_has_nothing_of_the_faults() {
    const ASKED: &[u8] = b"MILLSTREAM_FAULT_";
    let names_faults = |binary: &Path| {
        let bytes = std::fs::read(binary).expect("the binary is built");
        bytes.windows(ASKED.len()).any(|window| window == ASKED)
    };
    assert!(names_faults(&millstream::faulty()));
    assert!(!names_faults(&millstream::binary()));
}
