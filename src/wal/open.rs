//! Opening a log on a real disk: lock -> find -> check -> prepare -> place -> start.
//!
//! The lock is taken here. `engine/recover/` has the four steps in the middle, and
//! `engine/threads.rs` the start.

use std::path::Path;
use std::sync::Arc;

use crate::engine::recover::{check_creation, entropy, recover};
use crate::engine::threads::{self, RunningEngine};
use crate::error::{Error, Result};
use crate::io::fs::{DEFAULT_MODE, Dir, OsDir, is_no_space};
use crate::options::Options;
use crate::recovery::{find_end_of_rest, scan};
use crate::segment::end_file::Presence;
use crate::segment::{DirLock, Names, check_names, newest_segment};
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::os_error::NOT_A_DIRECTORY;
use crate::wal::Wal;

pub(crate) fn open(path: &Path, options: &Options) -> Result<Wal> {
    open_here(path, options).map_err(|e| match e {
        // The file that found no space does not matter.
        Error::Io { source, .. } if is_no_space(&source) => Error::NoSpace,
        e => e,
    })
}

fn open_here(path: &Path, options: &Options) -> Result<Wal> {
    let names = Names::new(&options.prefix);
    let dir = open_directory(path, options)?;
    let span = tracing::info_span!("open", dir = %dir.path().display(), prefix = options.prefix);
    let _entered = span.enter();
    let lock = take_lock(&dir, &names, options)?;
    let dir: Arc<dyn Dir> = Arc::new(dir);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let presence = Presence::hold(&dir, &names);
    let recovered = {
        let _recovery = tracing::info_span!("recovery").entered();
        recover(&dir, &names, options, &*clock, entropy())?
    };
    tracing::info!(report = %recovered.report, "recovered");
    let RunningEngine { state, opened, info, threads } =
        threads::start(recovered, options, lock, presence, &clock)?;
    Wal::started(state, opened, info, Box::new(threads))
}

/// Takes the lock of the log, unless the names in the directory or the options forbid to open it.
/// Sets the modes of its files.
fn take_lock(dir: &OsDir, names: &Names, options: &Options) -> Result<DirLock> {
    check_names(dir, names)?;
    let newest = newest_segment(dir, names).map_err(|e| Error::io("list", dir.path(), e))?;
    check_creation(dir, names, options, newest.is_some())?;
    if let Some(newest) = newest {
        dir.create_like_neighbour(&names.segment(newest));
    }
    let lock = DirLock::acquire(dir, names, options.lock_wait)?;
    if let Some(mode) = options.file_mode {
        let is_of_the_log = |name: &str| names.are_of(name);
        let set = dir.set_modes(is_of_the_log, mode);
        set.map_err(|e| Error::io("set the modes in", dir.path(), e))?;
    }
    Ok(lock)
}

/// Opens the log's directory, and creates it if the options allow a new log.
fn open_directory(path: &Path, options: &Options) -> Result<OsDir> {
    let mode = options.file_mode.unwrap_or(DEFAULT_MODE);
    if path.as_os_str().is_empty() {
        let reason = "the path is empty; name the directory, for instance `.`";
        let e = std::io::Error::new(std::io::ErrorKind::InvalidInput, reason);
        return Err(Error::io("open directory", "\"\"", e));
    }
    let opened = match options.may_create() {
        true => OsDir::open_or_create_with(path, mode),
        false => OsDir::open_with(path, mode),
    };
    opened.map_err(|e| match e.kind() {
        // The creation of the directory found a file of its name, or of that of a parent, or a link
        // that cannot be followed.
        std::io::ErrorKind::AlreadyExists => {
            let unfollowed =
                path.symlink_metadata().ok().and_then(|_| std::fs::metadata(path).err());
            let no_directory = || std::io::Error::from_raw_os_error(NOT_A_DIRECTORY);
            Error::io("open directory", path, unfollowed.unwrap_or_else(no_directory))
        }
        std::io::ErrorKind::NotFound if !options.may_create() => {
            Error::NoLog { path: path.into(), prefix: options.prefix.clone() }
        }
        _ => Error::io("open directory", path, e),
    })
}

/// Opens and closes the log once, so that an epoch group states the oldest LSN. A repair removed
/// the groups that stated it.
pub(crate) fn state_oldest(path: &Path, names: &Names) -> Result<()> {
    let dir = OsDir::open(path).map_err(|e| Error::io("open directory", path, e))?;
    let segments = scan(&dir, names, &[])?.segments;
    let Some(last) = segments.last() else { return Ok(()) };
    if find_end_of_rest(&dir, names, &segments)?.stated_oldest >= segments[0].base {
        return Ok(());
    }
    let options = Options {
        prefix: names.prefix().into(),
        segment_size: last.size,
        file_mode: dir.mode_of(&names.segment(last.base)).map(|mode| mode | DEFAULT_MODE),
        front_was_taken: true,
        ..Options::default()
    };
    open(path, &options)?.close()
}
