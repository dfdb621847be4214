//! Files of one directory, as the segments, recovery and the readers use them.
//!
//! 1. Every call is synchronous; what the commit path does goes through a backend instead.
//! 2. A name is a plain file name; no call follows a symbolic link.
//! 3. Nothing here is durable before `sync_data` (content) or `Dir::sync` (names) has returned.

pub(crate) mod ahead;
mod buffer;
#[cfg(linux_calls)]
mod device;
#[cfg(all(test, not(ringwal_loom)))]
pub(crate) mod hooked;
pub(crate) mod ofd;
mod os;
mod refused;
#[cfg(simulated)]
pub(crate) mod sim;
mod sys;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use crate::sys::os_error;

pub(crate) use buffer::AlignedBuf;
#[cfg(linux_calls)]
pub(crate) use device::{Device, WriteCache};
pub(crate) use os::{DEFAULT_MODE, OsDir, move_file, sync_directory, try_lock, unlock};
pub(crate) use refused::Refused;

/// What a handle is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads through the page cache.
    Read,
    /// Reads past the page cache where the system can.
    ReadDevice,
    /// Writes, past the page cache where the system can; reads too.
    Write,
    /// The same, of a new file that must not exist yet.
    Create,
    /// Writes and reads through the page cache; made if it is missing.
    Cached,
    /// Writes and reads through the page cache, of which nothing is believed that was there before:
    /// the first read is the device's answer.
    WriteCached,
    /// The same, of a new file that must not exist yet.
    CreateCached,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Not a directory, link, pipe or socket.
    pub(crate) regular: bool,
    pub(crate) len: u64,
}

pub(crate) trait Dir: Send + Sync + Debug {
    fn list(&self) -> io::Result<Vec<Entry>>;
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>>;
    /// Never replaces anything: `AlreadyExists` if `to`, or what the filesystem takes for the same
    /// name, exists.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
    /// What direct I/O and the device ask writes to be aligned to; a power of two.
    fn block_size(&self) -> u32;
    /// Why the filesystem does not keep what it has synced, if that is known.
    fn volatility(&self) -> Option<&'static str> {
        None
    }
    /// The descriptor of the directory itself, where it has one.
    fn raw_fd(&self) -> Option<i32> {
        None
    }
    /// Whether the lock file that was locked through this directory still has its name: if not,
    /// another writer can lock a new one. True where nothing was locked, and where the system does
    /// not tell.
    fn holds_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
    /// The name in words, for errors.
    fn path_of(&self, name: &str) -> std::path::PathBuf;
}

pub(crate) trait File: Send + Sync + Debug {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Reads what the page cache holds, without waiting for the device. `WouldBlock`: the first
    /// byte is not there. `Unsupported`: the system does not tell.
    fn read_cached_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let _ = (buf, offset);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// The same file, opened again to be read past the page cache. `None`: it cannot be.
    fn past_the_cache(&self) -> Option<Arc<dyn File>> {
        None
    }
    /// Whether a helper thread may read it.
    fn allows_helper(&self) -> bool {
        false
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    /// Writes bytes that are durable when this returns, if the system can do both in one call. An
    /// error of kind `Unsupported`: it cannot, and nothing was written.
    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let _ = (buf, offset);
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync_data(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn links(&self) -> io::Result<u64>;
    /// Allocates and zeroes the first `len` bytes at once, where the system can do that without
    /// leaving extents that must be converted at the first write.
    fn write_zeroes(&self, len: u64) -> io::Result<()>;
    /// Makes the file `len` bytes long and gives it the space, which reads as zeros and must be
    /// converted at the first write.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Where bytes follow that are not a hole, at `offset` or after it; `offset` where the system
    /// does not tell. `None`: only a hole follows, which reads as zeros.
    fn next_data(&self, offset: u64) -> Option<u64> {
        Some(offset)
    }
    fn is_direct(&self) -> bool;
    /// Takes the advisory lock of this open file without waiting. False: another open file has it.
    /// The lock ends with [`File::unlock`], or when the last reference to the open file is gone,
    /// the kernel's for operations in flight too. True where there are no such locks.
    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
    /// Ends the lock. No operation on the file is in flight.
    fn unlock(&self) {}
    #[cfg_attr(not(linux_calls), allow(dead_code, reason = "std submits by handle"))]
    /// The descriptor, for a backend that submits by descriptor.
    fn raw_fd(&self) -> Option<i32>;
    /// For the simulated backend.
    #[cfg(simulated)]
    fn as_sim(&self) -> Option<&sim::SimFile> {
        None
    }
}

/// Interruptions in a row after which a call is taken to have failed: no signal comes that often.
const INTERRUPTIONS: u32 = 1000;

/// Makes `call` again while it is interrupted before it has done anything.
fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let mut interruptions = 0;
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted && interruptions < INTERRUPTIONS => {
                interruptions += 1;
            }
            ended => return ended,
        }
    }
}

/// Reads until `buf` is full or the file ends; returns the bytes read.
pub(crate) fn read_full(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match uninterrupted(|| file.read_at(&mut buf[done..], offset + done as u64))? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// Writes all of `buf`. An interrupted call wrote nothing and is made again; a short one goes on.
pub(crate) fn write_full(file: &dyn File, buf: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        match uninterrupted(|| file.write_at(&buf[done..], offset + done as u64))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => done += n,
        }
    }
    Ok(())
}

/// Writes all of `buf`, which is durable when this returns. A short write made durable what it
/// wrote; the rest is written the same way.
pub(crate) fn write_durable(file: &dyn File, buf: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset + done as u64;
        match uninterrupted(|| file.write_durable_at(&buf[done..], at)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {
                write_full(file, &buf[done..], at)?;
                return file.sync_data();
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Whether an error means that the filesystem, or the user's share of it, is full.
pub(crate) fn is_no_space(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || e.raw_os_error().is_some_and(os_error::is_no_space)
}
