//! A folder of a test's own. It goes when the value does, unless the test is failing: then it
//! stays, and its path is printed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process, thread};

static NEXT: AtomicU32 = AtomicU32::new(0);

#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// A new, empty folder in the system's temporary one, with `name` in its name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("millstream-{name}-{}-{number}", process::id()));
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file of that name, in one step (somebody may be reading the one before), and returns its path.
    #[must_use]
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let (path, new) = (self.join(name), self.join(&format!("{name}.new")));
        let written = fs::write(&new, content).and_then(|()| fs::rename(&new, &path));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("kept for a look: {}", self.path.display());
        } else {
            // A leftover in the temporary folder is no reason to fail a test that passed.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
