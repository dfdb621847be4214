//! One writer a directory and prefix: an advisory lock on `<prefix>.lock`.
//!
//! 1. The lock belongs to the open file description, so that a backend that keeps the descriptor
//!    registered keeps the lock until the kernel has finished every write of a killed process.
//! 2. The lock file is never removed: a lock on a removed file would exclude nobody.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::storage::{Dir, OsDir};

/// How long a dead holder's lock is waited for: the kernel lets go of it once the last write of
/// that process is done.
const DEAD_HOLDER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct DirLock {
    file: File,
}

impl DirLock {
    pub(crate) fn acquire(dir: &OsDir, name: &str) -> Result<Self> {
        let io = |op, e| Error::io(op, dir.path_of(name), e);
        let mut file = dir.open_lock_file(name).map_err(|e| io("open", e))?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(e)) => return Err(io("lock", e)),
                Err(TryLockError::WouldBlock) => {
                    let pid = read_pid(&mut file);
                    if !pid.is_some_and(is_dead) || started.elapsed() > DEAD_HOLDER {
                        return Err(Error::Locked { path: dir.path_of(name), pid });
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        // The pid helps whoever finds the lock held; the lock itself does not depend on it.
        let written = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        written.map_err(|e| io("write", e))?;
        Ok(DirLock { file })
    }

    #[cfg(unix)]
    pub(crate) fn raw_fd(&self) -> i32 {
        std::os::fd::AsRawFd::as_raw_fd(&self.file)
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Explicitly: the kernel may keep a reference to the description for a moment longer.
        let _ = self.file.unlock();
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Whether that process has ended, as far as the system tells; a zombie has.
fn is_dead(pid: u32) -> bool {
    if !cfg!(target_os = "linux") || !std::path::Path::new("/proc/self/stat").exists() {
        return false;
    }
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        // "pid (name) state ...", where the name may hold anything but ends at the last ')'.
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
    }
}
