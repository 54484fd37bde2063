//! The rules of the code base that no compiler checks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::repository;

/// Lines of a source file, its tests aside.
const FILE_LINES_MAX: usize = 600;

struct Source {
    /// Below the repository.
    path: PathBuf,
    text: String,
}

impl Source {
    fn is_generated(&self) -> bool {
        self.text
            .lines()
            .take(5)
            .any(|line| line.contains("@generated"))
    }

    fn under(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    /// Lines that are not in a test module at the end of the file, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = |line: &&str| line.trim() == "#[cfg(test)]";
        let end = self
            .text
            .lines()
            .position(|line| tests(&line))
            .unwrap_or(usize::MAX);
        self.text
            .lines()
            .enumerate()
            .take(end)
            .map(|(at, line)| (at + 1, line))
    }
}

/// Every file that git tracks or would track.
fn files() -> Vec<PathBuf> {
    let mut git = Command::new("git");
    git.current_dir(repository())
        .args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let listed = git.output().expect("git runs");
    assert!(listed.status.success(), "git ls-files failed");
    let listed = String::from_utf8(listed.stdout).expect("paths are UTF-8");
    listed
        .lines()
        .map(PathBuf::from)
        .filter(|path| repository().join(path).is_file())
        .collect()
}

fn sources(extension: &str) -> Vec<Source> {
    let named = files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|found| found == extension));
    let read = |path: PathBuf| {
        let text =
            std::fs::read_to_string(repository().join(&path)).expect("a source file is UTF-8");
        Source { path, text }
    };
    let sources: Vec<Source> = named.map(read).collect();
    assert!(
        !sources.is_empty(),
        "no .{extension} file was found: this would check nothing"
    );
    sources
}

fn report(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn files_say_what_they_are_for_and_stay_short() {
    let mut found = Vec::new();
    for source in sources("rs").iter().filter(|source| !source.is_generated()) {
        let path = source.path.display();
        if !source.text.starts_with("//!") {
            found.push(format!("{path}: does not open with what it is for"));
        }
        let lines = source.code().count();
        if lines > FILE_LINES_MAX {
            found.push(format!("{path}: {lines} lines; {FILE_LINES_MAX} at most"));
        }
    }
    report(&found, "source files");
}

/// A name that may stand in one folder (or file) only.
fn check_home(name: &str, home: &str, crate_folder: &str) {
    let mut found = Vec::new();
    for source in sources("rs")
        .iter()
        .filter(|source| source.under(crate_folder) && !source.under(home))
    {
        for (line, text) in source.code() {
            if !text.trim_start().starts_with("//") && text.contains(name) {
                found.push(format!("{}:{line}: {}", source.path.display(), text.trim()));
            }
        }
    }
    report(&found, &format!("{name} belongs into {home}"));
}

#[test]
fn libraries_stay_behind_their_adapters() {
    check_home("rdkafka::", "host/server/src/kafka", "host/server");
    check_home("rdkafka_sys", "host/server/src/kafka", "host/server");
    check_home("wasmtime::", "host/server/src/wasm", "host/server");
    check_home(
        "increment_epoch",
        "host/server/src/wasm/deadline.rs",
        "host/server",
    );
    check_home(
        "epoch_deadline",
        "host/server/src/wasm/deadline.rs",
        "host/server",
    );
}

#[test]
fn adapters_do_not_know_each_other() {
    let mut found = Vec::new();
    let adapters = ["config", "embedded", "kafka", "query", "wasm"];
    for source in sources("rs") {
        let home = |adapter: &&str| source.under(&format!("host/server/src/{adapter}"));
        let Some(own) = adapters.iter().find(|adapter| home(adapter)) else {
            continue;
        };
        for (line, text) in source.code() {
            let other = adapters.iter().filter(|other| *other != own);
            if other
                .into_iter()
                .any(|other| text.contains(&format!("crate::{other}")))
            {
                found.push(format!("{}:{line}: {}", source.path.display(), text.trim()));
            }
        }
    }
    report(
        &found,
        "worker_thread, supervisor, load and cli join the adapters",
    );
}

/// The engine's modules, as `lib.rs` lists them, import only what is listed above them.
#[test]
fn the_engine_is_layered() {
    let root = "host/engine/src";
    let lib = std::fs::read_to_string(repository().join(root).join("lib.rs"))
        .expect("the engine has a lib.rs");
    let modules = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let layers: BTreeMap<&str, usize> = modules.zip(0..).collect();
    assert!(layers.len() >= 5, "the list of modules was not understood");
    let mut found = Vec::new();
    for source in sources("rs").iter().filter(|source| source.under(root)) {
        let Some(own) = layer(&source.path, root, &layers) else {
            continue;
        };
        for (line, text) in source.code() {
            let imported = text.split("crate::").skip(1).filter_map(|rest| {
                let name = rest
                    .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .next()?;
                layers.get(name)
            });
            if imported.into_iter().any(|imported| *imported > own) {
                found.push(format!("{}:{line}: {}", source.path.display(), text.trim()));
            }
        }
    }
    report(
        &found,
        "the engine's modules import only modules listed above them in lib.rs",
    );
}

fn layer(path: &Path, root: &str, layers: &BTreeMap<&str, usize>) -> Option<usize> {
    let first = path.strip_prefix(root).ok()?.components().next()?;
    let name = Path::new(first.as_os_str()).file_stem()?.to_str()?;
    layers.get(name).copied()
}

#[test]
fn nothing_is_left_for_later() {
    let mut found = Vec::new();
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
        concat!("unimpl", "emented!"),
    ];
    let ignored = concat!("#[", "ignore]");
    for extension in ["rs", "c", "java", "sh", "toml", "wit"] {
        for source in sources(extension)
            .iter()
            .filter(|source| !source.is_generated())
        {
            for (line, text) in (1..).zip(source.text.lines()) {
                if marks.iter().any(|mark| text.contains(mark)) || text.contains(ignored) {
                    found.push(format!("{}:{line}: {}", source.path.display(), text.trim()));
                }
            }
        }
    }
    report(&found, "do it now, or say in an issue why not");
}

#[test]
fn nothing_names_a_machine() {
    let mut found = Vec::new();
    let homes = [
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
    ];
    for path in files() {
        let Ok(text) = std::fs::read_to_string(repository().join(&path)) else {
            continue;
        };
        for (line, text) in (1..).zip(text.lines()) {
            if homes.iter().any(|home| text.contains(home)) {
                found.push(format!("{}:{line}: {}", path.display(), text.trim()));
            }
        }
    }
    report(&found, "a path of somebody's machine");
}

/// The protocol's page says which test holds which rule.
#[test]
fn tests_that_the_protocol_names_exist() {
    let page = std::fs::read_to_string(repository().join("docs/protocol.md"));
    let page = page.expect("the page is there");
    let rust: String = sources("rs")
        .into_iter()
        .map(|source| source.text)
        .collect();
    let is_word = |name: &str, mark: char| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == mark;
        name.contains(mark) && name.chars().all(plain)
    };
    let (mut scripts, mut tests, mut missing) = (0, 0, Vec::new());
    for name in page.split('`').skip(1).step_by(2) {
        let there = if is_word(name, '-') {
            scripts += 1;
            let folders = [
                "tests/sim/protocol",
                "tests/sim/graph",
                "tests/conformance/scripts",
            ];
            let mut folders = folders.iter().map(|folder| repository().join(folder));
            folders.any(|folder| folder.join(name).is_file())
        } else if is_word(name, '_') {
            tests += 1;
            rust.contains(&format!("fn {name}()"))
        } else {
            continue;
        };
        if !there {
            missing.push(name.to_owned());
        }
    }
    report(&missing, "docs/protocol.md names tests that don't exist");
    assert!(
        scripts > 20 && tests > 5,
        "{scripts} scripts, {tests} tests"
    );
}

/// A planted bug that doesn't apply any more measures nothing.
#[test]
fn planted_bugs_can_be_planted() {
    const BUGS_MIN: usize = 36;
    let is_bug = |path: &PathBuf| path.starts_with("tests/seeded-bugs");
    let bugs: Vec<PathBuf> = files().into_iter().filter(is_bug).collect();
    assert!(bugs.len() >= BUGS_MIN, "{} planted bugs", bugs.len());
    let mut found = Vec::new();
    for bug in bugs {
        let mut git = Command::new("git");
        git.current_dir(repository())
            .args(["apply", "--check"])
            .arg(&bug);
        let checked = git.output().expect("git runs");
        if !checked.status.success() {
            let said = String::from_utf8_lossy(&checked.stderr);
            found.push(format!("{}: {}", bug.display(), said.trim()));
        }
    }
    report(&found, "patches that git apply doesn't take");
}
