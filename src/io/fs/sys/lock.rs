//! The advisory lock of an open file on unix: that of `flock`.
//!
//! It belongs to the open file description: a second description is refused, of this process too,
//! and the lock ends with the last descriptor of the description. std's own lock is the same one,
//! and lacks some systems.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::sys::c::{LOCK_EX, LOCK_NB, LOCK_UN};

/// Locks the file for this handle alone, without waiting. False: another handle holds it.
pub(in super::super) fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, LOCK_EX | LOCK_NB) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}

/// Ends the lock, also for children of `fork` that inherited the description.
pub(in super::super) fn unlock(file: &File) {
    // Of an open file of ours: fails for nothing that is held.
    let _ = flock(file, LOCK_UN);
}

fn flock(file: &File, operation: c_int) -> io::Result<()> {
    loop {
        // SAFETY: a system call on an open descriptor, without pointers.
        if unsafe { crate::sys::c::flock(file.as_raw_fd(), operation) } == 0 {
            return Ok(());
        }
        let failed = io::Error::last_os_error();
        if failed.kind() != io::ErrorKind::Interrupted {
            return Err(failed);
        }
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;
    use crate::io::fs::hooked::TempPath;

    #[test]
    fn lock_belongs_to_the_open_file_and_is_stds() {
        let path = TempPath::new();
        let open = || File::options().create(true).append(true).open(&*path).unwrap();
        let (first, second) = (open(), open());
        assert!(try_lock(&first).unwrap() && try_lock(&first).unwrap());
        assert!(!try_lock(&second).unwrap());
        // A version of the library that locks by std excludes this one.
        assert!(second.try_lock().is_err());
        unlock(&first);
        second.try_lock().unwrap();
        assert!(!try_lock(&first).unwrap());
        drop(second);
        assert!(try_lock(&first).unwrap());
        drop(first);
        std::fs::remove_file(&*path).unwrap();
    }
}
