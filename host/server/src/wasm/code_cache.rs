//! Compiled code, kept between starts: to compile a plugin takes up to seconds of all cores, to load what it was compiled to some
//! milliseconds.
//!
//! Invariant: what is loaded was written by this user. Compiled code is run as it stands, so that a folder which somebody else can write
//! is left alone. A cache that can't be had costs time, and nothing else.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use wasmtime::{Cache, CacheConfig};

/// Group and others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// In `$XDG_CACHE_HOME/millstream/code`, else `~/.cache/millstream/code`. Which code is whose, versions of wasmtime and settings
/// included, and what is thrown away when, is wasmtime's affair.
pub fn open() -> Option<Cache> {
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
        Ok(true) => {
            let mut config = CacheConfig::new();
            config.with_directory(folder);
            let opened = Cache::new(config);
            opened
                .inspect_err(|why| tracing::warn!("compiled code is not kept: {why:#}"))
                .ok()
        }
    }
}

/// Makes the folder where there is none. Returns whether only this user can write there.
fn prepare(folder: &Path) -> io::Result<bool> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder)?;
    let found = std::fs::metadata(folder)?;
    // A process is its user's.
    let user = std::fs::metadata("/proc/self")?.uid();
    Ok(found.uid() == user && found.mode() & WRITABLE_BY_OTHERS == 0)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_that_others_can_write_is_left_alone() {
        let name = format!("millstream-code-cache-{}", std::process::id());
        let above = std::env::temp_dir().join(name);
        let folder = above.join("code");
        assert!(prepare(&folder).expect("it can be made"));
        assert!(prepare(&folder).expect("it is there"));
        let allow = |mode| std::fs::set_permissions(&folder, Permissions::from_mode(mode));
        allow(0o720).expect("it is ours");
        assert!(!prepare(&folder).expect("it is there"));
        allow(0o755).expect("it is ours");
        assert!(prepare(&folder).expect("it is there"));
        std::fs::remove_dir_all(above).expect("it is there");
    }
}
