//! One writer a directory and prefix.
//!
//! 1. A writer holds an advisory lock on `<prefix>.lock`. The lock belongs to the open file
//!    description. A backend that keeps the descriptor registered keeps the lock until the kernel
//!    has finished every write of a killed process. Only the lock proves a writer: the process id
//!    in the file is for messages.
//! 2. The log never removes the lock file. A lock on a file without its name excludes no writer. So
//!    an opener that gets one opens the file again, and a writer that has one prepares no further
//!    segment.
//! 3. A writer also locks each segment that it has open for writing. It locks the file before the
//!    file gets a segment's name, until it has left the segment. So the newest segment of a log
//!    with a writer is always locked, even if the lock file is gone. An opener checks the newest
//!    segment before it changes the directory, and locks the segments that it takes over.
//! 4. While the kernel may still write, the lock is released by closing the descriptor only.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use super::{Names, SegmentName};
use crate::error::{Error, Result};
use crate::io::backend::Hold;
use crate::io::fs::{self, Access, Dir, OsDir};

/// The pause between two tries at a lock.
const PAUSE: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(crate) struct DirLock {
    file: File,
    hold: Hold,
}

/// The lock file has lost its name while the log was open.
#[derive(Debug, thiserror::Error)]
#[error(
    "the lock file was removed or replaced while the log was open, so another writer can open it: \
     close this log, make sure that no other process writes it, and open it again"
)]
pub(crate) struct LockLost;

impl LockLost {
    pub(crate) fn is_in(e: &io::Error) -> bool {
        e.get_ref().is_some_and(|inner| inner.is::<LockLost>())
    }

    /// Fails unless the directory's lock file is still the one that was locked.
    pub(crate) fn check(dir: &dyn Dir) -> io::Result<()> {
        if dir.holds_lock()? { Ok(()) } else { Err(io::Error::other(LockLost)) }
    }
}

/// The end of a wait for a lock. A killed process holds its lock until the kernel has finished its
/// last operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    pub(crate) fn after(time: Duration) -> Self {
        Deadline(Instant::now().checked_add(time))
    }

    /// Sleeps for 1 ms. False: the deadline has passed.
    pub(crate) fn pause(self) -> bool {
        if self.0.is_some_and(|until| Instant::now() >= until) {
            return false;
        }
        std::thread::sleep(PAUSE);
        true
    }
}

impl DirLock {
    /// Locks the log for writing. Waits for `wait` at most, whatever process id the file holds.
    pub(crate) fn acquire(dir: &OsDir, names: &Names, wait: Duration) -> Result<Self> {
        let deadline = Deadline::after(wait);
        let file = lock_file(dir, names, deadline)?;
        while let Some(name) = held_segment(dir, names)? {
            if !deadline.pause() {
                return Err(Error::Locked { path: dir.path_of(&name), pid: None });
            }
        }
        write_pid(&file);
        let hold = Hold::new(raw_fd(&file));
        Ok(DirLock { file, hold })
    }

    pub(crate) fn hold(&self) -> Hold {
        self.hold.clone()
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing is too late: the kernel may keep a reference to the description for longer. While
        // it may still write, the lock must end with that reference.
        if !self.hold.is_kept() {
            fs::unlock(&self.file);
        }
    }
}

/// Locks the file that has the lock file's name.
fn lock_file(dir: &OsDir, names: &Names, deadline: Deadline) -> Result<File> {
    let name = &names.lock();
    let io = |op, e| Error::io(op, dir.path_of(name), e);
    loop {
        let file = open_lock_file(dir, names).map_err(|e| io("open", e))?;
        loop {
            let locked = fs::try_lock(&file).map_err(|e| io("lock", e))?;
            let named = dir.is_named(name, &file).map_err(|e| io("look at", e))?;
            if locked && named {
                dir.set_lock(name, &file).map_err(|e| io("look at", e))?;
                return Ok(file);
            }
            if !deadline.pause() {
                return Err(Error::Locked { path: dir.path_of(name), pid: read_pid(&file) });
            }
            if !named {
                // The file was removed or replaced: a lock on it excludes no writer.
                break;
            }
        }
    }
}

fn open_lock_file(dir: &OsDir, names: &Names) -> io::Result<File> {
    let name = &names.lock();
    match dir.open_lock_file(name) {
        Err(e)
            if e.kind() == io::ErrorKind::PermissionDenied
                && dir.may_replace_lock_file(name)
                && is_free(dir, names) =>
        {
            tracing::warn!(lock = name, "another user's lock file is replaced");
            dir.remove(name).map_err(|_| e)?;
            dir.open_lock_file(name)
        }
        opened => opened,
    }
}

/// Whether the segments prove that the log has no writer. False if they cannot be read.
fn is_free(dir: &OsDir, names: &Names) -> bool {
    let Ok(newest) = newest_segment(dir, names) else { return false };
    let readable = newest.is_none_or(|base| dir.open(&names.segment(base), Access::Read).is_ok());
    readable && matches!(held_segment(dir, names), Ok(None))
}

/// The newest segment, if a writer holds it.
fn held_segment(dir: &OsDir, names: &Names) -> Result<Option<String>> {
    let mut free = None;
    loop {
        let newest = newest_segment(dir, names);
        let Some(base) = newest.map_err(|e| Error::io("list", dir.path_of(""), e))? else {
            return Ok(None);
        };
        if free == Some(base) {
            // It is still the newest, so a writer would have held it since.
            return Ok(None);
        }
        let name = names.segment(base);
        match dir.open(&name, Access::Read) {
            Ok(file) => {
                if !file.try_lock().map_err(|e| Error::io("lock", dir.path_of(&name), e))? {
                    return Ok(Some(name));
                }
                file.unlock();
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            // Opening the log reports this error.
            Err(_) => return Ok(None),
        }
        free = Some(base);
    }
}

/// The base of the newest segment file.
pub(crate) fn newest_segment(dir: &dyn Dir, names: &Names) -> io::Result<Option<u64>> {
    let entries = dir.list()?;
    let bases = entries.iter().filter_map(|entry| match names.parse(&entry.name) {
        SegmentName::Segment(base) => Some(base),
        SegmentName::Temporary | SegmentName::Foreign => None,
    });
    Ok(bases.max())
}

fn raw_fd(file: &File) -> i32 {
    #[cfg(unix)]
    return std::os::fd::AsRawFd::as_raw_fd(file);
    #[cfg(not(unix))]
    {
        let _ = file;
        -1
    }
}

/// Writes the holder for messages: its process id, and the namespace of that id.
///
/// The file is overwritten before it is truncated: a full disk may have no block for an empty file.
/// The lock holds even if this fails.
fn write_pid(file: &File) {
    let text = format!("{}\n{}\n", std::process::id(), namespace().unwrap_or_default());
    let mut at: &File = file;
    let written = io::Seek::seek(&mut at, io::SeekFrom::Start(0))
        .and_then(|_| io::Write::write_all(&mut at, text.as_bytes()))
        .and_then(|()| file.set_len(text.len() as u64));
    if written.is_err() {
        // Another holder's id would mislead.
        let _ = file.set_len(0);
    }
}

/// The holder's process id, if it is of this process's namespace.
fn read_pid(file: &File) -> Option<u32> {
    let mut text = String::new();
    let mut at: &File = file;
    io::Seek::seek(&mut at, io::SeekFrom::Start(0)).ok()?;
    io::Read::read_to_string(&mut io::Read::take(at, 128), &mut text).ok()?;
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok()?;
    let theirs = lines.next().filter(|line| !line.is_empty());
    match (theirs, namespace()) {
        (Some(theirs), Some(ours)) if theirs != ours => None,
        _ => Some(pid),
    }
}

/// The namespace of this process's id.
fn namespace() -> Option<String> {
    let link = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(link.to_string_lossy().into_owned())
}

#[cfg(all(test, unix, not(ringwal_loom)))]
mod tests {
    use super::*;
    use crate::io::fs::hooked::TempPath;

    #[test]
    fn dropped_lock_is_released_unless_the_kernel_may_still_write() {
        let (path, names) = (TempPath::new(), Names::new("wal"));
        let acquire =
            || DirLock::acquire(&OsDir::open_or_create(&path).unwrap(), &names, Duration::ZERO);
        for kept in [false, true] {
            let lock = acquire().unwrap();
            // The kernel's reference.
            let reference = lock.file.try_clone().unwrap();
            if kept {
                lock.hold().keep();
            }
            drop(lock);
            assert_eq!(matches!(acquire(), Err(Error::Locked { .. })), kept);
            drop(reference);
            acquire().unwrap();
        }
    }

    #[test]
    fn process_id_of_another_namespace_is_ignored() {
        let path = TempPath::new();
        std::fs::create_dir(&*path).unwrap();
        let name = path.join("lock");
        let pid = |text: &str| {
            std::fs::write(&name, text).unwrap();
            read_pid(&File::open(&name).unwrap())
        };
        assert_eq!(pid("17\n"), Some(17));
        assert_eq!(pid("17\n\n"), Some(17));
        for nothing in ["", "\n17\n", "no number\n", "-1", "99999999999999999999"] {
            assert_eq!(pid(nothing), None, "{nothing:?}");
        }
        if let Some(here) = namespace() {
            assert_eq!(pid(&format!("17\n{here}\n")), Some(17));
            assert_eq!(pid("17\npid:[1]\n"), None);
        }
    }
}
