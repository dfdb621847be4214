//! Linux: files by the descriptor of their directory, direct I/O, and what a filesystem makes of
//! it.

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
use super::{How, Identity};
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

    /// Which file has that name; `None`: there is none. A link is not followed.
    pub(in super::super) fn identity(&self, name: &str) -> io::Result<Option<Identity>> {
        match self.stat(name) {
            Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether the name is a regular file's, and the file's length.
    fn look(&self, name: &str) -> io::Result<(bool, u64)> {
        let stat = self.stat(name)?;
        let regular = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
        Ok((regular, u64::try_from(stat.st_size).unwrap_or(0)))
    }

    fn stat(&self, name: &str) -> io::Result<libc::stat64> {
        let name = std::ffi::CString::new(name)?;
        let mut stat = MaybeUninit::<libc::stat64>::uninit();
        let fd = self.handle.as_raw_fd();
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        again(|| {
            // SAFETY: an open descriptor, a C string and room for the answer, which outlive the
            // call.
            let rc = unsafe { libc::fstatat64(fd, name.as_ptr(), stat.as_mut_ptr(), flags) };
            Errno::result(rc)
        })?;
        // SAFETY: the call succeeded, and so has filled all of it.
        Ok(unsafe { stat.assume_init() })
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
        // SAFETY: an open descriptor and two C strings that outlive the call. By number: not every
        // C library has the function.
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

/// Writes bytes that are durable when this returns. `Unsupported`: the system, or a filter of
/// system calls, does not have the call, and nothing was written.
pub(in super::super) fn write_durable_at(
    file: &fs::File,
    buf: &[u8],
    offset: u64,
) -> io::Result<usize> {
    let vector = libc::iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() };
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // By number, as not every C library has a name for it. The last half of the offset is for
    // registers of 32 bits: there are none where this is built.
    // SAFETY: a system call on an open descriptor that reads `buf` through one vector on the stack;
    // both outlive the call. The kernel does not write through the vector.
    let n = unsafe {
        libc::syscall(
            libc::SYS_pwritev2,
            file.as_raw_fd(),
            &raw const vector,
            1_usize,
            offset,
            0_usize,
            libc::RWF_DSYNC,
        )
    };
    if let Ok(n) = usize::try_from(n) {
        return Ok(n);
    }
    let failed = io::Error::last_os_error();
    match failed.raw_os_error() {
        Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        _ => Err(failed),
    }
}

/// Reads what the page cache holds, without waiting for the device. `WouldBlock`: the first byte is
/// not there. `Unsupported`: the system, the filesystem, or a filter of system calls does not tell.
pub(in super::super) fn read_cached_at(
    file: &fs::File,
    buf: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let vector = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // By number, as in write_durable_at().
    // SAFETY: a system call on an open descriptor that writes `buf`, which is borrowed mutably,
    // through one vector on the stack; both outlive the call.
    let n = unsafe {
        libc::syscall(
            libc::SYS_preadv2,
            file.as_raw_fd(),
            &raw const vector,
            1_usize,
            offset,
            0_usize,
            libc::RWF_NOWAIT,
        )
    };
    if let Ok(n) = usize::try_from(n) {
        return Ok(n);
    }
    let failed = io::Error::last_os_error();
    match failed.raw_os_error() {
        Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM | libc::EINVAL) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        _ => Err(failed),
    }
}

/// Asks for huge pages behind these bytes, which nothing has touched yet.
pub(in super::super) fn advise_huge_pages(start: std::ptr::NonNull<u8>, len: usize) {
    // SAFETY: the bytes are the caller's. The advice changes the size of the pages and nothing of
    // their content; errors do no harm.
    unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
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
    let (empty, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // By number, as not every C library has a name for it.
    // SAFETY: an open descriptor, an empty path that AT_EMPTY_PATH asks for, and a structure that
    // outlives the call.
    let rc = unsafe { libc::syscall(libc::SYS_statx, fd, empty, flags, mask, &raw mut stat) };
    (rc == 0).then_some(stat)
}

/// What direct I/O asks offsets to be aligned to; 0 where the filesystem has none for this file.
fn direct_alignment(file: &fs::File) -> Option<u32> {
    let stat = statx(file, libc::STATX_DIOALIGN)?;
    (stat.stx_mask & libc::STATX_DIOALIGN != 0).then_some(stat.stx_dio_offset_align)
}

/// Whether direct I/O on this file, which was opened for it, is direct. Some filesystems accept the
/// flag and use the page cache all the same: tmpfs; ext4 that journals data; btrfs and bcachefs
/// where they sum or compress what is written; ZFS.
pub(in super::super) fn goes_past_the_cache(file: &fs::File) -> bool {
    if direct_alignment(file) == Some(0) {
        return false;
    }
    match nix::sys::statfs::fstatfs(file).map(|stat| stat.filesystem_type()) {
        Ok(nix::sys::statfs::TMPFS_MAGIC | RAMFS_MAGIC | HUGETLBFS_MAGIC | ZFS_MAGIC) => false,
        Ok(nix::sys::statfs::EXT4_SUPER_MAGIC) => {
            !mount_options(file).is_some_and(|options| has(&options, "data=journal"))
        }
        Ok(nix::sys::statfs::BTRFS_SUPER_MAGIC) => {
            let without_sums =
                |options: &String| has(options, "nodatasum") || has(options, "nodatacow");
            mount_options(file).as_ref().is_some_and(without_sums) || is_not_copied_on_write(file)
        }
        _ => true,
    }
}

/// Why the filesystem of this file does not keep what it has synced, if that is known.
pub(in super::super) fn volatility(file: &fs::File) -> Option<&'static str> {
    match nix::sys::statfs::fstatfs(file).ok()?.filesystem_type() {
        nix::sys::statfs::TMPFS_MAGIC | RAMFS_MAGIC | HUGETLBFS_MAGIC => {
            return Some("the filesystem is in memory: a restart of the machine loses the log");
        }
        _ => {}
    }
    let options = mount_options(file)?;
    if has(&options, "volatile") {
        return Some("overlayfs is mounted with `volatile`: it ignores syncs");
    }
    let without_barriers = ["nobarrier", "barrier=0"].iter().any(|option| has(&options, option));
    without_barriers
        .then_some("the filesystem is mounted without barriers: its syncs do not flush the device")
}

type Magic = nix::sys::statfs::FsType;
const RAMFS_MAGIC: Magic = nix::sys::statfs::FsType(0x8584_58f6_u32 as _);
const HUGETLBFS_MAGIC: Magic = nix::sys::statfs::FsType(0x9584_58f6_u32 as _);
const ZFS_MAGIC: Magic = nix::sys::statfs::FsType(0x2fc1_2fc1_u32 as _);

fn has(options: &str, option: &str) -> bool {
    options.split(',').any(|has| has == option)
}

/// The options of the mount and of the filesystem that the file is on.
fn mount_options(file: &fs::File) -> Option<String> {
    let stat = statx(file, libc::STATX_MNT_ID)?;
    if stat.stx_mask & libc::STATX_MNT_ID == 0 {
        return None;
    }
    let mounts = fs::read("/proc/self/mountinfo").ok()?;
    options_of(&String::from_utf8_lossy(&mounts), stat.stx_mnt_id)
}

/// "36 35 98:0 /root /mount/point rw,noatime master:1 - ext4 /dev/sda rw,data=journal": the options
/// before the dash are the mount's, those at the end the filesystem's.
fn options_of(mounts: &str, id: u64) -> Option<String> {
    let number = id.to_string();
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(&*number))?;
    let (mount, filesystem) = line.split_once(" - ")?;
    let (of_mount, of_filesystem) = (mount.split(' ').nth(5)?, filesystem.split(' ').nth(2)?);
    Some(format!("{of_mount},{of_filesystem}"))
}

/// A file that btrfs writes in place has no sums either.
fn is_not_copied_on_write(file: &fs::File) -> bool {
    const FS_NOCOW_FL: libc::c_long = 0x0080_0000;
    let mut flags: libc::c_long = 0;
    // SAFETY: an open descriptor and room for the answer, which outlives the call. The kernel
    // writes an int there, which fits.
    let rc = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    rc == 0 && flags & FS_NOCOW_FL != 0
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_the_mount_with_that_number() {
        let mounts = "\
            36 35 98:0 / / rw,noatime master:1 - ext4 /dev/root rw,errors=continue\n\
            361 36 98:1 /a\\040- /mnt\\040x rw state:7 - ext4 /dev/b rw,data=journal\n\
            4 36 0:5 / /t rw - tmpfs tmpfs rw,size=1k\n";
        assert_eq!(options_of(mounts, 36).unwrap(), "rw,noatime,rw,errors=continue");
        assert!(has(&options_of(mounts, 361).unwrap(), "data=journal"));
        assert!(!has(&options_of(mounts, 36).unwrap(), "data=journal"));
        assert_eq!(options_of(mounts, 3), None);
        assert_eq!(options_of("", 36), None);
        assert_eq!(options_of("36 garbage", 36), None);
    }
}
