//! Locks of open file descriptions (`F_OFD_SETLK`) as signs of life.
//!
//! 1. A holder keeps a lock for as long as what it stands for is true. The kernel releases the lock
//!    of a process that dies, so that no text can outlive what it says.
//! 2. Asking acquires nothing and changes nothing. It works on a descriptor that may only be read,
//!    and also inside the process of the holder.
//! 3. These locks are independent of those of `flock`.
//! 4. `None` is an answer: the system cannot tell. A caller must take it for neither yes nor no.

#[cfg(ofd_locks)]
mod imp {
    use std::io;

    use crate::sys::c as libc;

    /// One byte of a file, locked with `kind`.
    fn byte(at: u32, kind: i32) -> libc::flock {
        // SAFETY: all-zero is a valid value of this plain C structure; l_pid must be zero.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = i64::from(at);
        lock.l_len = 1;
        lock
    }

    /// Calls the kernel with a lock whose offsets have 64 bits.
    ///
    /// # Safety
    ///
    /// `lock` points to a lock that outlives the call.
    unsafe fn call(fd: i32, command: i32, lock: *mut libc::flock) -> i32 {
        #[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
        // SAFETY: the caller's promise. The C library passes the structure on as it is.
        return unsafe { libc::fcntl(fd, command, lock) };
        #[cfg(any(target_arch = "x86", target_arch = "arm"))]
        // SAFETY: the caller's promise. The structure is the kernel's `flock64`.
        return unsafe { libc::syscall(libc::SYS_FCNTL64, fd, command, lock) as i32 };
    }

    fn set(fd: i32, at: u32, kind: i32) -> io::Result<()> {
        let mut lock = byte(at, kind);
        // SAFETY: the structure outlives the call; a descriptor that is not open is an error.
        let rc = unsafe { call(fd, libc::F_OFD_SETLK, &raw mut lock) };
        if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    pub(crate) fn hold(fd: i32, at: u32) -> io::Result<()> {
        set(fd, at, libc::F_WRLCK)
    }

    pub(crate) fn hold_shared(fd: i32, at: u32) -> io::Result<()> {
        set(fd, at, libc::F_RDLCK)
    }

    pub(crate) fn release(fd: i32, at: u32) {
        let _ = set(fd, at, libc::F_UNLCK);
    }

    pub(crate) fn is_held(fd: i32, at: u32) -> Option<bool> {
        let mut lock = byte(at, libc::F_WRLCK);
        // SAFETY: the structure outlives the call, which writes to it; a descriptor that is not
        // open is an error.
        let rc = unsafe { call(fd, libc::F_OFD_GETLK, &raw mut lock) };
        (rc == 0).then_some(i32::from(lock.l_type) != libc::F_UNLCK)
    }
}

#[cfg(not(ofd_locks))]
mod imp {
    use std::io;

    pub(crate) fn hold(_: i32, _: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn hold_shared(_: i32, _: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn release(_: i32, _: u32) {}

    pub(crate) fn is_held(_: i32, _: u32) -> Option<bool> {
        None
    }
}

/// Holds one byte of the file alone, until it is released or the last descriptor of this
/// description is closed.
pub(crate) fn hold(fd: Option<i32>, at: u32) -> std::io::Result<()> {
    imp::hold(fd.ok_or(std::io::ErrorKind::Unsupported)?, at)
}

/// Holds one byte beside others that do. Needs no right to write.
pub(crate) fn hold_shared(fd: Option<i32>, at: u32) -> std::io::Result<()> {
    imp::hold_shared(fd.ok_or(std::io::ErrorKind::Unsupported)?, at)
}

/// Releases the byte, also for children of `fork` that inherited the description.
pub(crate) fn release(fd: Option<i32>, at: u32) {
    if let Some(fd) = fd {
        imp::release(fd, at);
    }
}

/// Whether another description holds the byte.
pub(crate) fn is_held(fd: Option<i32>, at: u32) -> Option<bool> {
    imp::is_held(fd?, at)
}

/// Device and inode of the file or directory of this descriptor.
pub(crate) fn inode(fd: Option<i32>) -> Option<(u64, u64)> {
    #[cfg(unix)]
    {
        use std::mem::ManuallyDrop;
        use std::os::fd::FromRawFd;
        use std::os::unix::fs::MetadataExt;
        // SAFETY: the descriptor of a file that the caller has open during the call. It is not
        // closed here.
        let file = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(fd?) });
        let meta = file.metadata().ok()?;
        Some((meta.dev(), meta.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = fd;
        None
    }
}
