//! Records that are fed one round after the other, each when the test says so.

use std::fs::File;
use std::io::Write as _;
use std::process::Command;

use rig::folder::Folder;

/// A named pipe, which `--feed` reads as a file that doesn't end.
pub struct Feed {
    path: String,
    pipe: File,
}

impl Feed {
    pub fn new(folder: &Folder) -> Self {
        let path = folder.join("in.pipe");
        let made = Command::new("mkfifo").arg(&path).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        // Open both ways, it waits for nobody, and has no end for whoever reads.
        let pipe = File::options().read(true).write(true).open(&path);
        Self {
            path: path.display().to_string(),
            pipe: pipe.expect("it was made here"),
        }
    }

    /// What `--feed` takes for the source `in`.
    pub fn argument(&self) -> String {
        format!("in={}", self.path)
    }

    pub fn write(&mut self, lines: &str) {
        let written = self.pipe.write_all(lines.as_bytes());
        written.expect("the process reads");
    }
}
