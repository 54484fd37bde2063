//! The copies of the tree that a run works with, below the target folder: one of how the work tree was when the run began, and one that
//! bugs are planted in, with a target folder of its own, so that of the next bug only the crates are built that it touches.
//!
//! Invariant: what is the same in both copies keeps its time. What differs is written anew, and so is built anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

pub struct Tree {
    /// Holds copies, target folder and logs.
    folder: PathBuf,
    /// Below the tree.
    files: BTreeSet<PathBuf>,
}

impl Tree {
    /// Of what git tracks, or would. Whoever goes on working in the work tree meanwhile changes nothing here.
    pub fn new(root: &Path, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder.join("logs"))?;
        let mut git = Command::new("git");
        git.current_dir(root)
            .args(["ls-files", "--cached", "--others", "--exclude-standard"]);
        let listed = git.output().context("starting git")?;
        ensure!(listed.status.success(), "git ls-files: {}", listed.status);
        let listed = String::from_utf8(listed.stdout).context("git ls-files")?;
        let files = listed.lines().map(PathBuf::from);
        let tree = Self {
            folder: folder.canonicalize()?,
            files: files.filter(|file| root.join(file).is_file()).collect(),
        };
        copy(root, &tree.clean(), &tree.files)?;
        Ok(tree)
    }

    /// Without any bug.
    pub fn clean(&self) -> PathBuf {
        self.folder.join("clean")
    }

    /// With the bug.
    pub fn path(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// Where cargo puts what it builds.
    pub fn target(&self) -> PathBuf {
        self.folder.join("target")
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(name)
    }

    /// Takes the bug out.
    pub fn renew(&self) -> Result<()> {
        copy(&self.clean(), &self.path(), &self.files)
    }

    pub fn apply(&self, patch: &Path) -> Result<()> {
        let mut git = Command::new("git");
        // The copy stands inside a repository of which it is no part: git would skip what it doesn't track there.
        git.current_dir(self.path())
            .env("GIT_CEILING_DIRECTORIES", &self.folder)
            .arg("apply")
            .arg(patch);
        let applied = git.output().context("starting git")?;
        let said = String::from_utf8_lossy(&applied.stderr);
        ensure!(applied.status.success(), "{}", said.trim());
        Ok(())
    }
}

/// Makes `to` hold these files as they are in `from`, and no others.
fn copy(from: &Path, to: &Path, files: &BTreeSet<PathBuf>) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for file in files {
        let (from, to) = (from.join(file), to.join(file));
        let wanted = std::fs::read(&from)?;
        if std::fs::read(&to).is_ok_and(|found| found == wanted) {
            continue;
        }
        std::fs::create_dir_all(to.parent().context("a file stands in a folder")?)?;
        // With its permissions, and a time of its own.
        std::fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
    }
    remove_others(to, Path::new(""), files)
}

/// Sources that are gone from the work tree would still be built. What builds leave in the copy (plugins of the examples) may stay.
fn remove_others(tree: &Path, below: &Path, files: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(tree.join(below))? {
        let entry = entry?;
        let file = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_others(tree, &file, files)?;
        } else if !files.contains(&file) && file.extension().is_none_or(|kind| kind != "wasm") {
            std::fs::remove_file(tree.join(&file))?;
        }
    }
    Ok(())
}
