//! Compiled code, kept between starts under the digest of its component: to compile a plugin takes up to seconds of all cores, to load what
//! it was compiled to some milliseconds.
//!
//! Invariant: what is loaded was written by this user, and is whole. Compiled code is run as it stands, so that a folder or file which
//! somebody else can write is left alone. A cache that can't be had costs time, and nothing else.

use std::fs::{File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

/// Group and others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Bytes of all files; what was not used for longest goes first.
const BYTES_MAX: u64 = 512 << 20;

/// Somebody who writes for longer has died.
const UNFINISHED_MAX: Duration = Duration::from_secs(3600);

/// A file begins with the digest of the code that follows.
const DIGEST_BYTES: usize = 32;

/// What a file's name ends with, once it is whole.
const KIND: &str = "code";

#[derive(Clone, Debug)]
pub struct CodeCache {
    folder: PathBuf,
    bytes_max: u64,
}

impl CodeCache {
    /// In `$XDG_CACHE_HOME/millstream/code`, else `~/.cache/millstream/code`; none where others can write there.
    pub fn open() -> Option<Self> {
        let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let caches = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
        let folder = caches.join("millstream").join("code");
        match prepare(&folder) {
            Err(why) => {
                tracing::debug!("compiled code is not kept in {}: {why}", folder.display());
                None
            }
            Ok(false) => {
                tracing::warn!(
                    "compiled code is not kept in {}: others can write there",
                    folder.display()
                );
                None
            }
            Ok(true) => Some(Self {
                folder,
                bytes_max: BYTES_MAX,
            }),
        }
    }

    /// What was kept under a name, if it is there and whole.
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.path(name);
        match read(&path) {
            Ok(Some(code)) => Some(code),
            Ok(None) => {
                tracing::warn!(
                    "{} is damaged, or others can write it: it is compiled anew",
                    path.display()
                );
                None
            }
            Err(why) if why.kind() == io::ErrorKind::NotFound => None,
            Err(why) => {
                tracing::debug!("{}: {why}", path.display());
                None
            }
        }
    }

    pub fn put(&self, name: &str, code: &[u8]) {
        if code.len() as u64 + DIGEST_BYTES as u64 > self.bytes_max {
            let bytes = code.len();
            tracing::warn!(
                "{bytes} bytes of compiled code are too many to be kept: every start compiles them anew"
            );
            return;
        }
        let kept = self.write(name, code).and_then(|()| self.make_room());
        if let Err(why) = kept {
            tracing::warn!(
                "compiled code is not kept in {}: {why}",
                self.folder.display()
            );
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name).with_extension(KIND)
    }

    /// Whoever reads meanwhile finds all of the file, or the one before.
    fn write(&self, name: &str, code: &[u8]) -> io::Result<()> {
        // Processes in containers that share the folder may have one number.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos();
        let unfinished = format!("{name}.{}-{now}", std::process::id());
        let unfinished = self.folder.join(unfinished);
        let written = File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&unfinished)
            .and_then(|mut file| {
                file.write_all(&Sha256::digest(code))?;
                file.write_all(code)
            })
            .and_then(|()| std::fs::rename(&unfinished, self.path(name)));
        if written.is_err() {
            // Nothing to be done about it, and nothing comes of it.
            let _ = std::fs::remove_file(&unfinished);
        }
        written
    }

    fn make_room(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            // Another process may be faster.
            let Ok(found) = entry.metadata() else {
                continue;
            };
            let time = found.modified()?;
            if path.extension().is_some_and(|kind| kind == KIND) {
                files.push((time, found.len(), path));
            } else if time.elapsed().is_ok_and(|age| age > UNFINISHED_MAX) {
                let _ = std::fs::remove_file(path);
            }
        }
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, size, path) in files {
            if bytes <= self.bytes_max {
                break;
            }
            bytes -= size;
            match std::fs::remove_file(path) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
                Err(_) | Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// None where it isn't what was written. Its time is made new: it was used.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    if !is_ours(&file.metadata()?)? {
        return Ok(None);
    }
    let mut digest = [0; DIGEST_BYTES];
    let mut code = Vec::new();
    let whole = file.read_exact(&mut digest).is_ok() && file.read_to_end(&mut code).is_ok();
    if !whole || Sha256::digest(&code)[..] != digest {
        return Ok(None);
    }
    // On a file system that is read-only now it stays as it is.
    let _ = file.set_modified(SystemTime::now());
    Ok(Some(code))
}

/// Makes the folder where there is none. Returns whether only this user can write there.
fn prepare(folder: &Path) -> io::Result<bool> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder)?;
    is_ours(&std::fs::metadata(folder)?)
}

fn is_ours(found: &Metadata) -> io::Result<bool> {
    // A process is its user's.
    let user = std::fs::metadata("/proc/self")?.uid();
    Ok(found.uid() == user && found.mode() & WRITABLE_BY_OTHERS == 0)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Gone with what is in it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("millstream-code-cache-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn cache(&self, bytes_max: u64) -> CodeCache {
            let folder = self.0.join("code");
            assert!(prepare(&folder).expect("it can be made"));
            CodeCache { folder, bytes_max }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("it is there");
        }
    }

    #[test]
    fn a_folder_that_others_can_write_is_left_alone() {
        let above = Folder::new("folder");
        let folder = above.0.join("code");
        assert!(prepare(&folder).expect("it can be made"));
        assert!(prepare(&folder).expect("it is there"));
        let allow = |mode| std::fs::set_permissions(&folder, Permissions::from_mode(mode));
        allow(0o720).expect("it is ours");
        assert!(!prepare(&folder).expect("it is there"));
        allow(0o755).expect("it is ours");
        assert!(prepare(&folder).expect("it is there"));
    }

    #[test]
    fn what_is_damaged_or_open_to_others_is_not_loaded() {
        let above = Folder::new("damaged");
        let cache = above.cache(BYTES_MAX);
        assert_eq!(cache.get("a"), None);
        cache.put("a", b"some code");
        assert_eq!(cache.get("a").as_deref(), Some(&b"some code"[..]));
        let path = cache.path("a");
        let sound = std::fs::read(&path).expect("it is there");
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).expect("it is ours");
            assert_eq!(cache.get("a"), None, "byte {at} differs");
            std::fs::write(&path, &sound[..at]).expect("it is ours");
            assert_eq!(cache.get("a"), None, "cut at {at}");
        }
        std::fs::write(&path, &sound).expect("it is ours");
        assert!(cache.get("a").is_some());
        std::fs::set_permissions(&path, Permissions::from_mode(0o620)).expect("it is ours");
        assert_eq!(cache.get("a"), None);
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let above = Folder::new("room");
        let cache = above.cache(300);
        for name in ["a", "b", "c"] {
            cache.put(name, &[0; 60]);
            // Times are no finer than the kernel's tick.
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(cache.get("a").is_some());
        cache.put("d", &[0; 60]);
        let kept = ["a", "b", "c", "d"].map(|name| cache.get(name).is_some());
        assert_eq!(kept, [true, false, true, true]);
    }
}
