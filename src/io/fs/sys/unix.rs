//! What unix systems offer beyond std.

use std::ffi::{CString, c_int};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::How;
use crate::sys::c;

/// Opens a name without following a link, and without waiting for whatever holds a pipe's other
/// end. [`settle`] takes the latter back once the file is known to be a regular one.
pub(super) fn set_flags(options: &mut OpenOptions, how: How) {
    options.custom_flags(c::O_NOFOLLOW | c::O_NONBLOCK | c::O_NOCTTY);
    if let Some(mode) = how.new {
        options.mode(mode);
    }
}

/// Makes calls on a file that has been found to be a regular one wait for it.
pub(in super::super) fn settle(file: &File) -> io::Result<()> {
    // SAFETY: a system call on an open descriptor, without pointers.
    let flags = succeeded(unsafe { c::fcntl(file.as_raw_fd(), c::F_GETFL) })?;
    // SAFETY: as above.
    succeeded(unsafe { c::fcntl(file.as_raw_fd(), c::F_SETFL, flags & !c::O_NONBLOCK) }).map(drop)
}

fn succeeded(rc: c_int) -> io::Result<c_int> {
    if rc == -1 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

/// Gives a file another name, which must not exist. `Unsupported`: the system has no such call, or
/// it does not work here, and nothing was changed.
pub(super) fn rename_exclusively(from: &Path, to: &Path) -> io::Result<()> {
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let (from, to) = (name(from)?, name(to)?);
    match exclusive(&from, &to) {
        // ENOSYS, ENOTSUP and EOPNOTSUPP are `Unsupported` already.
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied
            ) =>
        {
            Err(io::ErrorKind::Unsupported.into())
        }
        ended => ended,
    }
}

#[cfg(target_os = "linux")]
fn exclusive(from: &CString, to: &CString) -> io::Result<()> {
    /// AT_FDCWD: the paths are whole.
    const HERE: c_int = -100;
    let number = c::SYS_RENAMEAT2.ok_or(io::ErrorKind::Unsupported)?;
    let (from, to) = (from.as_ptr(), to.as_ptr());
    // SAFETY: two C strings that outlive the call. By number: not every C library has the function.
    let rc = unsafe { c::syscall(number, HERE, from, HERE, to, c::RENAME_NOREPLACE) };
    succeeded(rc as c_int).map(drop)
}

#[cfg(target_vendor = "apple")]
fn exclusive(from: &CString, to: &CString) -> io::Result<()> {
    // SAFETY: two C strings that outlive the call.
    succeeded(unsafe { c::renamex_np(from.as_ptr(), to.as_ptr(), c::RENAME_EXCL) }).map(drop)
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn exclusive(_: &CString, _: &CString) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Makes the file `len` bytes long and gives it the space, which reads as zeros.
pub(in super::super) fn allocate(file: &File, len: u64) -> io::Result<()> {
    let len = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    space(file, len)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn space(file: &File, len: i64) -> io::Result<()> {
    // SAFETY: a system call on an open descriptor, without pointers.
    succeeded(unsafe { c::fallocate64(file.as_raw_fd(), 0, 0, len) }).map(drop)
}

#[cfg(any(target_os = "freebsd", target_os = "dragonfly"))]
fn space(file: &File, len: i64) -> io::Result<()> {
    // SAFETY: a system call on an open descriptor, without pointers. It returns the error.
    match unsafe { c::posix_fallocate(file.as_raw_fd(), 0, len) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

#[cfg(target_vendor = "apple")]
fn space(file: &File, len: i64) -> io::Result<()> {
    let mut wanted = c::fstore_t {
        fst_flags: c::F_ALLOCATEALL,
        fst_posmode: c::F_PEOFPOSMODE,
        fst_offset: 0,
        fst_length: len,
        fst_bytesalloc: 0,
    };
    // SAFETY: a system call on an open descriptor, with a structure that outlives the call.
    succeeded(unsafe { c::fcntl(file.as_raw_fd(), c::F_PREALLOCATE, &raw mut wanted) })?;
    file.set_len(len.unsigned_abs())
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_os = "dragonfly",
    target_vendor = "apple"
)))]
fn space(_: &File, _: i64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Where bytes follow that are not a hole; `offset` where the system does not tell. Only the place
/// that calls without an offset go on at is changed; all calls here have one.
pub(in super::super) fn next_data(file: &File, offset: u64) -> Option<u64> {
    let Ok(from) = i64::try_from(offset) else { return Some(offset) };
    match u64::try_from(seek_data(file, from)) {
        Ok(found) => Some(found),
        Err(_) if io::Error::last_os_error().raw_os_error() == Some(c::ENXIO) => None,
        Err(_) => Some(offset),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn seek_data(file: &File, from: i64) -> i64 {
    // SAFETY: a system call on an open descriptor, without pointers.
    unsafe { c::lseek64(file.as_raw_fd(), from, c::SEEK_DATA) }
}

#[cfg(any(target_os = "freebsd", target_os = "dragonfly", target_vendor = "apple"))]
fn seek_data(file: &File, from: i64) -> i64 {
    // SAFETY: a system call on an open descriptor, without pointers.
    unsafe { c::lseek(file.as_raw_fd(), from, c::SEEK_DATA) }
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_os = "dragonfly",
    target_vendor = "apple"
)))]
fn seek_data(_: &File, from: i64) -> i64 {
    from
}

/// Drops what is cached of a file, where the system can: pages that a writer cached whose sync
/// failed are not trusted.
pub(in super::super) fn drop_cached_pages(file: &File) {
    // Dirty pages are not dropped: written back first, so that only the device's bytes are read.
    let _ = file.sync_data();
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    {
        // SAFETY: a system call on an open descriptor, without pointers. It is advice: errors do no
        // harm.
        unsafe { c::posix_fadvise(file.as_raw_fd(), 0, 0, c::POSIX_FADV_DONTNEED) };
    }
}

#[cfg(all(test, target_os = "linux", not(ringwal_loom)))]
mod tests {
    use super::*;
    use crate::io::fs::hooked::TempPath;

    fn created() -> (TempPath, std::path::PathBuf) {
        let dir = TempPath::new();
        std::fs::create_dir(&*dir).unwrap();
        let file = dir.join("file");
        std::fs::write(&file, b"content").unwrap();
        (dir, file)
    }

    #[test]
    fn open_follows_no_link_waits_for_no_pipe_and_the_file_waits_for_its_calls() {
        let (dir, file) = created();
        let open = |name: &str| {
            let mut options = OpenOptions::new();
            set_flags(options.read(true), How { write: false, new: None, direct: false });
            options.open(dir.join(name))
        };
        std::os::unix::fs::symlink(&file, dir.join("link")).unwrap();
        assert_eq!(open("link").unwrap_err().raw_os_error(), Some(nix::libc::ELOOP));
        nix::unistd::mkfifo(&dir.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        open("pipe").unwrap();
        let opened = open("file").unwrap();
        let flags = |file: &File| nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert_ne!(flags(&opened) & nix::libc::O_NONBLOCK, 0);
        settle(&opened).unwrap();
        assert_eq!(flags(&opened) & nix::libc::O_NONBLOCK, 0);
    }

    #[test]
    fn rename_replaces_nothing() {
        let (dir, file) = created();
        let other = dir.join("other");
        std::fs::write(&other, b"of another").unwrap();
        match rename_exclusively(&file, &other) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => return,
            renamed => assert_eq!(renamed.unwrap_err().kind(), io::ErrorKind::AlreadyExists),
        }
        assert_eq!(std::fs::read(&other).unwrap(), b"of another");
        rename_exclusively(&file, &dir.join("free")).unwrap();
        assert!(!file.exists());
        assert_eq!(std::fs::read(dir.join("free")).unwrap(), b"content");
        let gone = rename_exclusively(&file, &other).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn allocated_file_has_its_length_and_its_space() {
        use std::os::unix::fs::MetadataExt;
        let (_dir, file) = created();
        let file = OpenOptions::new().write(true).open(file).unwrap();
        match allocate(&file, 1 << 20) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => return,
            allocated => allocated.unwrap(),
        }
        let meta = file.metadata().unwrap();
        assert!(meta.len() == 1 << 20 && meta.blocks() * 512 >= 1 << 20, "{meta:?}");
        drop_cached_pages(&file);
    }
}
