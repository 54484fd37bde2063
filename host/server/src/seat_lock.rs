//! An instance's name on this host, held as long as the process lives: two processes of one name would fence each other. The file
//! also remembers how many workers the instance had, so that the next life can end what each of them left open.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub struct SeatLock {
    file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(
        "instance \"{instance}\" of this pipeline runs on this host already (it holds {path}); give this one another \
         --instance", path = path.display()
    )]
    Runs { instance: String, path: PathBuf },
    #[error("the lock file {path} can't be used: {source}", path = path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl SeatLock {
    /// Takes the name. The file stands in `$XDG_RUNTIME_DIR`, else in the folder for temporary files.
    pub fn take(pipeline: &str, instance: &str, bootstrap: &str) -> Result<Self, LockError> {
        let folder = folder();
        let failed = |path: &Path, source| LockError::File {
            path: path.into(),
            source,
        };
        std::fs::create_dir_all(&folder).map_err(|source| failed(&folder, source))?;
        // The same pipeline may run on two clusters.
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let cluster: String = bootstrap.chars().map(plain).take(60).collect();
        let path = folder.join(format!("{pipeline}.{instance}.{cluster}.lock"));
        let opened = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path);
        let file = opened.map_err(|source| failed(&path, source))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Runs {
                instance: instance.into(),
                path,
            }),
            Err(TryLockError::Error(source)) => Err(failed(&path, source)),
        }
    }

    /// How many workers the last life had, if that is known.
    pub fn workers_before(&mut self) -> u32 {
        let mut text = String::new();
        let read = self
            .file
            .rewind()
            .and_then(|()| self.file.read_to_string(&mut text));
        read.ok()
            .and_then(|_| text.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Remembers how many there are now. A failure costs the next life some waiting and nothing else.
    pub fn note_workers(&mut self, workers: u32) {
        let written = self
            .file
            .rewind()
            .and_then(|()| self.file.set_len(0))
            .and_then(|()| writeln!(self.file, "{workers}"));
        if let Err(error) = written {
            tracing::warn!("the lock file can't be written: {error}");
        }
    }
}

/// Where this user's locks stand.
fn folder() -> PathBuf {
    if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR") {
        return PathBuf::from(runtime).join("millstream");
    }
    // A process is its user's.
    let user = std::fs::metadata("/proc/self").map_or(0, |process| process.uid());
    std::env::temp_dir().join(format!("millstream-locks-{user}"))
}
