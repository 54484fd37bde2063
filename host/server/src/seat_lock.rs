//! An instance's name on this host, held as long as the process lives: two processes of one name would fence each other. The file
//! also remembers how many workers the instance had, so that the next life can end what each of them left open, and which process has
//! the lock: `millstream drain` asks that one to end.
//!
//! Its lines: how many workers; the id of the process, or [`DRAINED`] once that has left the group for good. A file beside it asks the
//! process to leave, for this pipeline and not for others that it runs.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Written by a process that has committed everything, left the group, and is about to end.
const DRAINED: &str = "drained";

#[derive(Debug)]
pub struct SeatLock {
    file: File,
    workers: u32,
}

/// Who has an instance's name on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Its id.
    Process(u32),
    /// One that has not written its id.
    Unknown,
    None,
    /// Nobody any more; who had it last left the group.
    Drained,
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
        let path = folder.join(file_name(pipeline, instance, bootstrap));
        let opened = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path);
        let mut file = opened.map_err(|source| failed(&path, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Runs {
                    instance: instance.into(),
                    path,
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(&path, source)),
        }
        let workers = lines(&mut file).map_or(0, |[workers, _]| workers.parse().unwrap_or(0));
        let mut lock = Self { file, workers };
        lock.write(&std::process::id().to_string());
        // Whoever asked meant somebody else.
        DrainRequest::of(pipeline, instance, bootstrap).take();
        ReloadRequest::of(pipeline, instance, bootstrap).clear();
        Ok(lock)
    }

    /// Looks who has the name. For as long as that takes, nobody else can take it.
    pub fn holder(pipeline: &str, instance: &str, bootstrap: &str) -> Result<Holder, LockError> {
        let path = folder().join(file_name(pipeline, instance, bootstrap));
        let failed = |source| LockError::File {
            path: path.clone(),
            source,
        };
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Holder::None),
            opened => opened.map_err(failed)?,
        };
        let is_held = match file.try_lock_shared() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        };
        let [_, who] = lines(&mut file).map_err(failed)?;
        Ok(match (is_held, who.parse()) {
            (true, Ok(process)) => Holder::Process(process),
            (true, Err(_)) => Holder::Unknown,
            (false, _) if who == DRAINED => Holder::Drained,
            (false, _) => Holder::None,
        })
    }

    /// How many workers the last life had, if that is known.
    pub fn workers_before(&self) -> u32 {
        self.workers
    }

    /// Remembers how many there are now.
    pub fn note_workers(&mut self, workers: u32) {
        self.workers = workers;
        self.write(&std::process::id().to_string());
    }

    /// Tells whoever asked this process to leave the group that it has.
    pub fn note_drained(&mut self) {
        self.write(DRAINED);
    }

    /// A failure costs the next life some waiting, and a process that can't be drained, and nothing else.
    fn write(&mut self, who: &str) {
        let written = self
            .file
            .rewind()
            .and_then(|()| self.file.set_len(0))
            .and_then(|()| write!(self.file, "{}\n{who}\n", self.workers));
        if let Err(error) = written {
            tracing::warn!("the lock file can't be written: {error}");
        }
    }
}

/// The file that asks an instance to leave the group.
#[derive(Clone, Debug)]
pub struct DrainRequest(PathBuf);

impl DrainRequest {
    pub fn of(pipeline: &str, instance: &str, bootstrap: &str) -> Self {
        let lock = folder().join(file_name(pipeline, instance, bootstrap));
        Self(lock.with_extension("drain"))
    }

    /// Asks. The process looks when it gets its signal.
    pub fn make(&self) -> std::io::Result<()> {
        File::create(&self.0).map(|_| ())
    }

    /// Whether it was asked, once.
    pub fn take(&self) -> bool {
        std::fs::remove_file(&self.0).is_ok()
    }
}

/// The files by which an instance is asked to reload or roll back, and answers.
#[derive(Clone, Debug)]
pub struct ReloadRequest {
    asked: PathBuf,
    answered: PathBuf,
}

impl ReloadRequest {
    pub fn of(pipeline: &str, instance: &str, bootstrap: &str) -> Self {
        let lock = folder().join(file_name(pipeline, instance, bootstrap));
        Self {
            asked: lock.with_extension("reload"),
            answered: lock.with_extension("reloaded"),
        }
    }

    /// Asks for what the word says. The answer to this request comes with this name.
    pub fn make(&self, name: &str, word: &str) -> std::io::Result<()> {
        replace(&self.asked, &format!("{name}\n{word}"))
    }

    /// Name and word of a request, once.
    pub fn take(&self) -> Option<(String, String)> {
        let asked = std::fs::read_to_string(&self.asked).ok()?;
        std::fs::remove_file(&self.asked).ok()?;
        let (name, word) = asked.split_once('\n')?;
        Some((name.into(), word.into()))
    }

    /// Answers with a word, and why. Nobody waits for ever: a failure is the asker's time-out.
    pub fn answer(&self, name: &str, word: &str, why: Option<&str>) {
        let text = format!("{name}\n{word}\n{}", why.unwrap_or_default());
        if let Err(error) = replace(&self.answered, &text) {
            tracing::warn!("whoever asked for the reload can't be told: {error}");
        }
    }

    /// The answer to this request, once it is there.
    pub fn answered(&self, name: &str) -> Option<(String, String)> {
        let text = std::fs::read_to_string(&self.answered).ok()?;
        let mut parts = text.splitn(3, '\n');
        let is_it = parts.next() == Some(name);
        let (word, why) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        is_it.then_some((word, why))
    }

    fn clear(&self) {
        for file in [&self.asked, &self.answered] {
            // It is mostly not there.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Writes a file whole, or not at all.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let unfinished = path.with_extension(format!("{}", std::process::id()));
    std::fs::write(&unfinished, text)?;
    std::fs::rename(&unfinished, path)
}

/// The first two lines, as far as they are there.
fn lines(file: &mut File) -> std::io::Result<[String; 2]> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    let mut lines = text.lines().map(|line| line.trim().to_owned());
    Ok(std::array::from_fn(|_| lines.next().unwrap_or_default()))
}

fn file_name(pipeline: &str, instance: &str, bootstrap: &str) -> String {
    // The same pipeline may run on two clusters.
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let cluster: String = bootstrap.chars().map(plain).take(60).collect();
    format!("{pipeline}.{instance}.{cluster}.lock")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_once_and_answered_by_its_name() {
        let instance = std::process::id().to_string();
        let lock = SeatLock::take(" reload request", &instance, "nowhere");
        let request = ReloadRequest::of(" reload request", &instance, "nowhere");
        assert_eq!(request.take(), None);
        request.make("one", "rollback").expect("it can be written");
        assert_eq!(request.take(), Some(("one".into(), "rollback".into())));
        assert_eq!(request.take(), None);
        request.answer("one", "refused", Some("it is\ntoo late"));
        assert_eq!(request.answered("two"), None);
        let answer = ("refused".into(), "it is\ntoo late".into());
        assert_eq!(request.answered("one"), Some(answer));
        request.clear();
        assert_eq!(request.answered("one"), None);
        drop(lock);
        let file = folder().join(file_name(" reload request", &instance, "nowhere"));
        std::fs::remove_file(file).expect("it is there");
    }

    #[test]
    fn the_file_says_who_has_the_name() {
        // A name that no pipeline has, and no other run of this test.
        let instance = std::process::id().to_string();
        let names = (" seat lock", instance.as_str(), "nowhere");
        let holder = || SeatLock::holder(names.0, names.1, names.2).expect("the file can be read");
        let take = || SeatLock::take(names.0, names.1, names.2);
        assert_eq!(holder(), Holder::None);
        let mut lock = take().expect("nobody has it");
        assert_eq!(holder(), Holder::Process(std::process::id()));
        assert!(matches!(take(), Err(LockError::Runs { .. })));
        lock.note_workers(3);
        assert_eq!(holder(), Holder::Process(std::process::id()));
        drop(lock);
        assert_eq!(holder(), Holder::None);
        let mut lock = take().expect("nobody has it any more");
        assert_eq!(lock.workers_before(), 3);
        lock.note_drained();
        drop(lock);
        assert_eq!(holder(), Holder::Drained);
        let lock = take().expect("nobody has it any more");
        assert_eq!(lock.workers_before(), 3);
        drop(lock);
        let file = folder().join(file_name(names.0, names.1, names.2));
        std::fs::remove_file(file).expect("it is there");
    }
}
