//! The directory of a run: its creation, its removal, and its free space.
//!
//! 1. Only a directory that this process created is removed, and only without `--keep`.
//! 2. The directory is removed on every exit: at the end, on an error, on a panic, at a second
//!    signal. It stays if its content is the evidence of a failure.
//! 3. A measurement without a log gets a new directory, also inside a given one. It touches no
//!    other file there.

pub mod device;

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
    /// Missing parents that were created, the innermost first.
    above: Vec<PathBuf>,
    keep: bool,
    stop: Arc<Stop>,
}

impl RunDir {
    /// Creates a new directory below the current one.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`].
    pub fn fresh(keep: bool, stop: &Arc<Stop>) -> Result<Self, Error> {
        let path = std::env::current_dir().map_err(|e| Error::directory(Path::new("."), e))?;
        Self::create(&path.join(fresh_name()), keep, stop)
    }

    /// Uses the given directory, and creates it if it is missing.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`].
    pub fn given(path: &Path, keep: bool, stop: &Arc<Stop>) -> Result<Self, Error> {
        if !exists(path)? {
            return Self::create(path, keep, stop);
        }
        let stop = Arc::clone(stop);
        Ok(RunDir { path: path.into(), created: false, above: Vec::new(), keep, stop })
    }

    /// Creates a new directory: the given one if it is missing, a new one inside it if it exists,
    /// or one below the current directory.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`].
    pub fn own(dir: Option<&Path>, keep: bool, stop: &Arc<Stop>) -> Result<Self, Error> {
        match dir {
            None => Self::fresh(keep, stop),
            Some(path) if exists(path)? => Self::create(&path.join(fresh_name()), keep, stop),
            Some(path) => Self::create(path, keep, stop),
        }
    }

    fn create(path: &Path, keep: bool, stop: &Arc<Stop>) -> Result<Self, Error> {
        let wrong = |e: io::Error| {
            Error::directory(path, format!("{e}; give a directory that can be written to"))
        };
        let mut above = Vec::new();
        let missing = |p: &&Path| !p.as_os_str().is_empty() && !p.exists();
        for parent in path.ancestors().skip(1).take_while(missing) {
            above.push(std::path::absolute(parent).map_err(wrong)?);
        }
        let made = match path.parent() {
            Some(parent) => std::fs::create_dir_all(parent),
            None => Ok(()),
        };
        let made =
            made.and_then(|()| std::fs::create_dir(path)).and_then(|()| std::path::absolute(path));
        // An absolute path, so that the removal does not depend on the current directory. On
        // Windows a canonical one begins with `\\?\`.
        let path = match made {
            Ok(path) => path,
            Err(e) => {
                remove_empty(&above);
                return Err(wrong(e));
            }
        };
        if !keep {
            stop.doom(path.clone());
        }
        Ok(RunDir { path, created: true, above, keep, stop: Arc::clone(stop) })
    }

    /// Keeps the directory in any case.
    pub fn leave(&mut self) {
        self.keep = true;
        self.stop.spare(&self.path);
    }

    /// Returns the path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if this process created the directory.
    #[must_use]
    pub fn created(&self) -> bool {
        self.created
    }

    /// True if the directory remains after the run.
    #[must_use]
    pub fn stays(&self) -> bool {
        self.keep || !self.created
    }

    /// True if the directory already holds a log, which must lose no record.
    #[must_use]
    pub fn holds_log(&self) -> bool {
        // An unreadable directory may hold a log.
        let Ok(entries) = std::fs::read_dir(&self.path) else { return true };
        entries.flatten().any(|e| e.file_name().as_encoded_bytes().ends_with(b".wal"))
    }

    /// Returns the writable bytes of the filesystem; `None` if unknown.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        free_bytes(&self.path)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if !self.stays() {
            let _ = std::fs::remove_dir_all(&self.path);
            remove_empty(&self.above);
            self.stop.spare(&self.path);
        }
    }
}

fn fresh_name() -> String {
    let random = RandomState::new().hash_one(std::process::id());
    format!("ringwal-loadgen-{}-{:08x}", std::process::id(), random as u32)
}

/// True if it is a directory. An error if it is something else.
fn exists(path: &Path) -> Result<bool, Error> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => {
            Err(Error::directory(path, "it is a file; give a directory, or a new name"))
        }
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::directory(path, e)),
    }
}

/// Parents that hold other files stay.
fn remove_empty(directories: &[PathBuf]) {
    for directory in directories {
        let _ = std::fs::remove_dir(directory);
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
        let path = std::env::temp_dir().join(format!("loadgen-dir-{name}-{}", std::process::id()));
        // A killed process with the same number left it.
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn only_a_created_directory_is_removed() {
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
    fn measurement_in_a_given_directory_touches_no_other_file() {
        let stop = Arc::new(Stop::default());
        let theirs = place("own");
        std::fs::create_dir(&theirs).unwrap();
        let mine = RunDir::own(Some(&theirs), false, &stop).unwrap();
        assert!(mine.path().starts_with(&theirs) && mine.created());
        assert_ne!(mine.path(), theirs);
        let mut evidence = RunDir::own(Some(&theirs), false, &stop).unwrap();
        evidence.leave();
        let stays = evidence.path().to_owned();
        drop((mine, evidence));
        assert_eq!(std::fs::read_dir(&theirs).unwrap().count(), 1);
        assert!(stays.exists());
        std::fs::remove_dir_all(&theirs).unwrap();
    }

    #[test]
    fn created_parents_are_removed_unless_in_use() {
        let stop = Arc::new(Stop::default());
        let top = place("top");
        drop(RunDir::given(&top.join("a/b"), false, &stop).unwrap());
        assert!(!top.exists());
        let dir = RunDir::given(&top.join("a/b"), false, &stop).unwrap();
        std::fs::write(top.join("somebody-elses"), b"x").unwrap();
        drop(dir);
        assert!(top.join("somebody-elses").exists() && !top.join("a").exists());
        std::fs::remove_dir_all(&top).unwrap();
    }

    #[test]
    fn file_is_rejected_and_existing_log_is_detected() {
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
