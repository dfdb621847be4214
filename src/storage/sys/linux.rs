//! Linux: files by the descriptor of their directory, direct I/O, and what a filesystem makes of it.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, fcntl, openat};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::super::{Device, Entry};
use super::How;
use crate::format::{MAX_BLOCK, MIN_BLOCK};

pub(in super::super) const CAN_BE_DIRECT: bool = true;

/// An open directory.
#[derive(Debug)]
pub(in super::super) struct Directory {
    path: PathBuf,
    handle: fs::File,
}

/// Makes a call again that a signal interrupted before it did anything.
fn again<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            ended => return ended.map_err(io::Error::from),
        }
    }
}

impl Directory {
    pub(in super::super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Directory { path: path.into(), handle: fs::File::open(path)? })
    }

    /// A path that leads to the open directory, for the calls that take no descriptor.
    pub(in super::super) fn reach(&self) -> io::Result<PathBuf> {
        super::path_to(&self.handle, &self.path)
    }

    pub(in super::super) fn raw_fd(&self) -> Option<i32> {
        Some(std::os::fd::AsRawFd::as_raw_fd(&self.handle))
    }

    pub(in super::super) fn metadata(&self) -> io::Result<fs::Metadata> {
        self.handle.metadata()
    }

    pub(in super::super) fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    /// Reads the directory. Each call has a descriptor of its own, and so a place of its own.
    pub(in super::super) fn list(&self) -> io::Result<Vec<Entry>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut entries = Vec::new();
        let opened = again(|| nix::dir::Dir::openat(&self.handle, ".", flags, Mode::empty()))?;
        for entry in opened {
            let entry = entry.map_err(io::Error::from)?;
            // A name that is not UTF-8 cannot be one of ours.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if matches!(name, "." | "..") {
                continue;
            }
            match self.look(name) {
                Ok((regular, len)) => {
                    entries.push(Entry { name: name.to_owned(), regular, len });
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(entries)
    }

    /// Whether the name is a regular file's; a link is not followed.
    pub(in super::super) fn is_regular(&self, name: &str) -> io::Result<bool> {
        self.look(name).map(|(regular, _)| regular)
    }

    /// The same, and the file's length.
    fn look(&self, name: &str) -> io::Result<(bool, u64)> {
        let name = std::ffi::CString::new(name)?;
        let mut stat = MaybeUninit::<libc::stat64>::uninit();
        let fd = self.handle.as_raw_fd();
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        again(|| {
            // SAFETY: an open descriptor, a C string and room for the answer, which outlive the call.
            let rc = unsafe { libc::fstatat64(fd, name.as_ptr(), stat.as_mut_ptr(), flags) };
            Errno::result(rc)
        })?;
        // SAFETY: the call succeeded, and so has filled all of it.
        let stat = unsafe { stat.assume_init() };
        let regular = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
        Ok((regular, u64::try_from(stat.st_size).unwrap_or(0)))
    }

    /// Opens a name without following a link, and without waiting for whatever holds a pipe's other
    /// end. [`settle`] takes the latter back once the file is known to be a regular one.
    pub(in super::super) fn open_file(&self, name: &str, how: How) -> io::Result<fs::File> {
        let mut flags = OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_CLOEXEC
            | OFlag::O_NOCTTY
            | OFlag::O_LARGEFILE;
        flags |= if how.write { OFlag::O_RDWR } else { OFlag::O_RDONLY };
        flags.set(OFlag::O_CREAT | OFlag::O_EXCL, how.new.is_some());
        flags.set(OFlag::O_DIRECT, how.direct);
        let mode = Mode::from_bits_truncate(how.new.unwrap_or(0));
        again(|| openat(&self.handle, name, flags, mode)).map(fs::File::from)
    }

    pub(in super::super) fn remove(&self, name: &str) -> io::Result<()> {
        again(|| unlinkat(&self.handle, name, UnlinkatFlags::NoRemoveDir))
    }

    /// Gives a file another name, which must not exist: `AlreadyExists` if it does, whatever the
    /// filesystem takes for the same name.
    pub(in super::super) fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        match self.rename_no_replace(from, to) {
            // The filesystem does not know the flag, or the kernel or a sandbox the call.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM | Errno::EOPNOTSUPP) => {}
            ended => return ended.map_err(io::Error::from),
        }
        match linkat(&self.handle, from, &self.handle, to, AtFlags::empty()) {
            Ok(()) => {
                let removed = self.remove(from);
                if removed.is_err() {
                    let _ = self.remove(to);
                }
                return removed;
            }
            // The filesystem has no links.
            Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::EMLINK | Errno::ENOSYS) => {}
            Err(e) => return Err(e.into()),
        }
        match self.look(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.replace(from, to),
            Err(e) => Err(e),
        }
    }

    fn rename_no_replace(&self, from: &str, to: &str) -> nix::Result<()> {
        let fd = self.handle.as_raw_fd();
        let name = |name: &str| std::ffi::CString::new(name).map_err(|_| Errno::EINVAL);
        let (from, to) = (name(from)?, name(to)?);
        let flags = libc::RENAME_NOREPLACE;
        // SAFETY: an open descriptor and two C strings that outlive the call. By number: not every C
        // library has the function.
        let rc = unsafe {
            libc::syscall(libc::SYS_renameat2, fd, from.as_ptr(), fd, to.as_ptr(), flags)
        };
        Errno::result(rc).map(drop)
    }

    /// Gives a file another name, in place of whatever has that.
    pub(in super::super) fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        again(|| nix::fcntl::renameat(&self.handle, from, &self.handle, to))
    }
}

/// Makes calls on a file that has been found to be a regular one wait for it: io_uring takes
/// `O_NONBLOCK` at its word and fails with `EAGAIN` where a device cannot promise not to wait.
pub(in super::super) fn settle(file: &fs::File) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(again(|| fcntl(file, FcntlArg::F_GETFL))?);
    let waits = flags.difference(OFlag::O_NONBLOCK);
    again(|| fcntl(file, FcntlArg::F_SETFL(waits))).map(drop)
}

/// Only the place that calls without an offset go on at is changed; all calls here have one.
pub(in super::super) fn next_data(file: &fs::File, offset: u64) -> Option<u64> {
    let Ok(from) = i64::try_from(offset) else { return Some(offset) };
    // SAFETY: a system call on an open descriptor; no pointers.
    let found = unsafe { libc::lseek64(file.as_raw_fd(), from, libc::SEEK_DATA) };
    match u64::try_from(found) {
        Ok(found) => Some(found),
        Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO) => None,
        Err(_) => Some(offset),
    }
}

/// Allocates and zeroes the first `len` bytes without leaving extents that must be converted.
pub(in super::super) fn write_zeroes(file: &fs::File, len: u64) -> io::Result<()> {
    /// Since Linux 6.17: allocates written extents if the device can zero without writing.
    const FALLOC_FL_WRITE_ZEROES: i32 = 0x80;
    fallocate(file, FALLOC_FL_WRITE_ZEROES, len)
}

/// Allocates the first `len` bytes.
pub(in super::super) fn allocate(file: &fs::File, len: u64) -> io::Result<()> {
    fallocate(file, 0, len)
}

fn fallocate(file: &fs::File, mode: i32, len: u64) -> io::Result<()> {
    let len = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: a system call on an open descriptor; no pointers.
    let rc = unsafe { libc::fallocate64(file.as_raw_fd(), mode, 0, len) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Drops what is cached of a file: pages that a writer cached whose sync failed are not trusted.
pub(in super::super) fn drop_cached_pages(file: &fs::File) {
    // Dirty pages are not dropped: written back first, so that only the device's bytes are read.
    let _ = file.sync_data();
    // SAFETY: a system call on an open descriptor; no pointers. It is advice: errors do no harm.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// max(4096, the device's physical block, the alignment that direct I/O asks for).
pub(in super::super) fn block_size_of(path: &Path, file: &fs::File) -> u32 {
    let disk = Device::under(path).and_then(|d| d.block()).unwrap_or(0);
    let device = disk.max(direct_alignment(file).unwrap_or(0));
    device.next_power_of_two().clamp(MIN_BLOCK, MAX_BLOCK)
}

fn statx(file: &fs::File, mask: u32) -> Option<libc::statx> {
    // SAFETY: all-zero is a valid value of this plain C structure.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: an open descriptor, an empty path that AT_EMPTY_PATH asks for, and a structure that
    // outlives the call.
    let rc = unsafe { libc::statx(fd, c"".as_ptr(), libc::AT_EMPTY_PATH, mask, &raw mut stat) };
    (rc == 0).then_some(stat)
}

/// What direct I/O asks offsets to be aligned to; 0 where the filesystem has none for this file.
fn direct_alignment(file: &fs::File) -> Option<u32> {
    let stat = statx(file, libc::STATX_DIOALIGN)?;
    (stat.stx_mask & libc::STATX_DIOALIGN != 0).then_some(stat.stx_dio_offset_align)
}
