//! The files of one map partition: what there is, a new one put beside them, old ones and wrong ones taken away.
//!
//! Invariant: a snapshot gets its name once all of it is on the disk. What a crash left of one that was being written is removed later.

use std::fs::{DirBuilder, File};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fault::{self, Disk};

/// How many snapshots of a partition stay: should the newest turn out damaged, there is another.
const KEPT: usize = 2;

const SNAPSHOT: &str = "snapshot";
const DRAFT: &str = "draft";
const REJECTED: &str = "rejected";

/// Drafts older than this are a dead process's.
const DRAFT_MAX: Duration = Duration::from_secs(3600);

/// So many bytes go to the disk at a time: the system's cache never has a large file to write at once.
const SYNC_BYTES: usize = 8 << 20;

#[derive(Clone, Debug)]
pub struct Shelf {
    folder: PathBuf,
}

/// A snapshot by its name; nothing of it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub path: PathBuf,
    pub begun: i64,
    pub from: i64,
}

impl Shelf {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The snapshots, the newest first. None where there is no folder.
    pub fn files(&self) -> io::Result<Vec<Named>> {
        let named = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.strip_suffix(SNAPSHOT)?;
            let (begun, from) = name.strip_suffix('.')?.split_once('-')?;
            let (begun, from) = (begun.parse().ok()?, from.parse().ok()?);
            Some(Named { path, begun, from })
        };
        let mut files: Vec<Named> = self.paths()?.into_iter().filter_map(named).collect();
        files.sort_by_key(|named| std::cmp::Reverse((named.begun, named.from)));
        Ok(files)
    }

    /// Files that were set aside.
    pub fn rejected(&self) -> io::Result<Vec<PathBuf>> {
        let rejected = |path: &PathBuf| path.extension().is_some_and(|found| found == REJECTED);
        Ok(self.paths()?.into_iter().filter(rejected).collect())
    }

    fn paths(&self) -> io::Result<Vec<PathBuf>> {
        fault::disk(Disk::List)?;
        match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Keeps a wrong file for somebody to look at, under another name and in place of the one kept before. Returns where it is.
    pub fn set_aside(&self, file: &Path) -> io::Result<PathBuf> {
        for before in self.rejected()? {
            remove(&before)?;
        }
        let mut aside = file.as_os_str().to_owned();
        aside.push(".");
        aside.push(REJECTED);
        let aside = PathBuf::from(aside);
        std::fs::rename(file, &aside)?;
        Ok(aside)
    }

    /// Begins a snapshot.
    pub fn draft(&self, begun: i64, from: i64) -> io::Result<Draft> {
        make_folder(&self.folder)?;
        fault::disk(Disk::Create)?;
        let name = format!("{begun:013}-{from}");
        let path = self
            .folder
            .join(format!("{name}.{}.{DRAFT}", std::process::id()));
        Ok(Draft {
            file: File::create(&path)?,
            folder: self.folder.clone(),
            path,
            name: self.folder.join(format!("{name}.{SNAPSHOT}")),
            bytes: 0,
            unsynced: 0,
        })
    }

    /// Removes what nobody needs: all but the newest snapshots, those that were begun before these times, and drafts of dead processes.
    /// One that was begun after them (a clock was set back, or somebody renamed it) is set aside.
    pub fn sweep(&self, usable: RangeInclusive<i64>) -> io::Result<()> {
        let files = self.files()?;
        for file in files.iter().filter(|file| file.begun > *usable.end()) {
            let aside = self.set_aside(&file.path)?;
            tracing::warn!(
                "{} is dated in the future: it is not used, and set aside as {}",
                file.path.display(),
                aside.display()
            );
        }
        let old = files.iter().filter(|file| file.begun < *usable.start());
        let usable = files.iter().filter(|file| usable.contains(&file.begun));
        for useless in old.chain(usable.skip(KEPT)) {
            remove(&useless.path)?;
        }
        let is_draft = |path: &PathBuf| path.extension().is_some_and(|found| found == DRAFT);
        for path in self.paths()?.into_iter().filter(is_draft) {
            let touched = std::fs::metadata(&path).and_then(|file| file.modified());
            let age = touched.ok().and_then(|touched| touched.elapsed().ok());
            if age.is_some_and(|age| age > DRAFT_MAX) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// Removes a file; another process may have done so already.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a folder, and those above it, for this user only: what maps hold is nobody else's business.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A snapshot that is being written. Dropped before it is published, it is gone.
#[derive(Debug)]
pub struct Draft {
    file: File,
    folder: PathBuf,
    path: PathBuf,
    name: PathBuf,
    bytes: u64,
    unsynced: usize,
}

impl Draft {
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        fault::write_all(&mut self.file, bytes)?;
        self.bytes += bytes.len() as u64;
        self.unsynced += bytes.len();
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            fault::disk(Disk::Sync)?;
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Gives it its name, once it is on the disk. Returns its bytes.
    pub fn publish(self) -> io::Result<u64> {
        fault::disk(Disk::Sync)?;
        self.file.sync_all()?;
        fault::reach("snapshot-synced");
        fault::disk(Disk::Rename)?;
        std::fs::rename(&self.path, &self.name)?;
        fault::reach("snapshot-renamed");
        fault::disk(Disk::SyncFolder)?;
        File::open(&self.folder)?.sync_all()?;
        Ok(self.bytes)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone already, where it was published.
        let _ = std::fs::remove_file(&self.path);
    }
}
