//! The directory of a run: made, found, removed; and how much room it has.
//!
//! 1. Only a directory that this process created is ever removed, and only without `--keep`.
//! 2. It goes on every way out: at the end, with an error, with a panic, at a second signal.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::stop::Stop;

/// The directory of a run. Dropping it removes what it created.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    created: bool,
    keep: bool,
    stop: Arc<Stop>,
}

impl RunDir {
    /// A fresh directory below the current one.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`].
    pub fn fresh(keep: bool, stop: &Arc<Stop>) -> Result<Self, Error> {
        let random = RandomState::new().hash_one(std::process::id());
        let name = format!("ringwal-loadgen-{}-{:08x}", std::process::id(), random as u32);
        let path = std::env::current_dir().map_err(|e| Error::directory(Path::new("."), e))?;
        Self::create(&path.join(name), keep, stop)
    }

    /// The given directory, created if it is missing.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`].
    pub fn given(path: &Path, keep: bool, stop: &Arc<Stop>) -> Result<Self, Error> {
        match std::fs::metadata(path) {
            Ok(found) if !found.is_dir() => {
                Err(Error::directory(path, "it is a file; give a directory, or a new name"))
            }
            Ok(_) => Ok(RunDir { path: path.into(), created: false, keep, stop: Arc::clone(stop) }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::create(path, keep, stop),
            Err(e) => Err(Error::directory(path, e)),
        }
    }

    fn create(path: &Path, keep: bool, stop: &Arc<Stop>) -> Result<Self, Error> {
        let wrong = |e: io::Error| Error::directory(path, format!("{e}; give another --dir"));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(wrong)?;
        }
        std::fs::create_dir(path).map_err(wrong)?;
        // What is removed later must not depend on the current directory.
        let path = path.canonicalize().map_err(wrong)?;
        if !keep {
            stop.doom(Some(path.clone()));
        }
        Ok(RunDir { path, created: true, keep, stop: Arc::clone(stop) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this process created it.
    #[must_use]
    pub fn created(&self) -> bool {
        self.created
    }

    /// Whether it will be there afterwards.
    #[must_use]
    pub fn stays(&self) -> bool {
        self.keep || !self.created
    }

    /// Whether a log is in it already, which must lose nothing.
    #[must_use]
    pub fn holds_log(&self) -> bool {
        // What cannot be looked at may hold one.
        let Ok(entries) = std::fs::read_dir(&self.path) else { return true };
        entries.flatten().any(|e| e.file_name().as_encoded_bytes().ends_with(b".wal"))
    }

    /// Bytes that may still be written on its filesystem; `None` where that is unknown.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        free_bytes(&self.path)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if !self.stays() {
            let _ = std::fs::remove_dir_all(&self.path);
            self.stop.doom(None);
        }
    }
}

#[cfg(unix)]
fn free_bytes(path: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    #[allow(clippy::useless_conversion, reason = "the types differ between systems")]
    u64::from(stat.blocks_available()).checked_mul(u64::from(stat.fragment_size()))
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("loadgen-dir-{name}-{}", std::process::id()))
    }

    #[test]
    fn only_what_was_created_is_removed() {
        let stop = Arc::new(Stop::default());
        let (mine, theirs, kept) = (place("mine"), place("theirs"), place("kept"));
        std::fs::create_dir(&theirs).unwrap();
        let dir = RunDir::given(&mine, false, &stop).unwrap();
        assert!(dir.created() && !dir.stays() && dir.free_bytes() > Some(0));
        std::fs::write(dir.path().join("x"), b"x").unwrap();
        drop(dir);
        assert!(!mine.exists());
        drop(RunDir::given(&theirs, false, &stop).unwrap());
        drop(RunDir::given(&kept, true, &stop).unwrap());
        assert!(theirs.exists() && kept.exists());
        std::fs::remove_dir(&theirs).unwrap();
        std::fs::remove_dir(&kept).unwrap();
    }

    #[test]
    fn a_file_is_no_directory_and_a_log_is_noticed() {
        let stop = Arc::new(Stop::default());
        let path = place("log");
        let dir = RunDir::given(&path, false, &stop).unwrap();
        assert!(!dir.holds_log());
        let file = path.join("wal.00000000000000000000.wal");
        std::fs::write(&file, b"").unwrap();
        assert!(dir.holds_log());
        assert_eq!(RunDir::given(&file, false, &stop).unwrap_err().exit_status(), 2);
        assert!(RunDir::given(&file.join("below"), false, &stop).is_err());
    }
}
