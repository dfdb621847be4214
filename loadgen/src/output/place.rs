//! Identity of files behind paths, and the replacement of a file.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

/// The identity of a file, independent of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// An existing file: its device and inode.
    Node(u64, u64),
    /// A missing file: device and inode of its directory, and its name there.
    Missing(u64, u64, std::ffi::OsString),
}

/// A stream that the process inherited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(unix), allow(dead_code, reason = "no path leads to a stream there"))]
pub(super) enum Standard {
    Input,
    /// True for stdout and stderr.
    Output,
}

#[cfg(unix)]
fn numbers(found: &Metadata, _: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (found.dev(), found.ino())
}

/// Without inodes, a canonical path identifies the file.
#[cfg(not(unix))]
fn numbers(_: &Metadata, path: &Path) -> (u64, u64) {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    path.canonicalize().unwrap_or_else(|_| path.into()).hash(&mut hasher);
    (0, hasher.finish())
}

impl Identity {
    /// Identifies the file behind all links; `None` if it does not exist.
    pub(super) fn of(path: &Path) -> io::Result<Option<Identity>> {
        Ok(metadata(path)?.map(|found| {
            let (device, inode) = numbers(&found, path);
            Identity::Node(device, inode)
        }))
    }

    pub(super) fn of_metadata(found: &Metadata) -> Identity {
        let (device, inode) = numbers(found, Path::new(""));
        Identity::Node(device, inode)
    }

    /// Identifies a missing file. Its directory must exist.
    pub(super) fn of_missing(place: &Path) -> io::Result<Identity> {
        let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "it has no file name");
        let name = place.file_name().ok_or_else(no_name)?;
        let directory = directory_of(place);
        let (device, inode) = numbers(&std::fs::metadata(directory)?, directory);
        Ok(Identity::Missing(device, inode, name.into()))
    }

    /// Returns the inherited stream that reads or writes this file.
    #[cfg(unix)]
    pub(super) fn standard(&self) -> Option<Standard> {
        use std::os::fd::AsFd;
        let is = |stream: std::os::fd::BorrowedFd<'_>| {
            let found = stream.try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
            found.is_ok_and(|found| Identity::of_metadata(&found) == *self)
        };
        if is(io::stdin().as_fd()) {
            Some(Standard::Input)
        } else if is(io::stdout().as_fd()) || is(io::stderr().as_fd()) {
            Some(Standard::Output)
        } else {
            None
        }
    }

    #[cfg(not(unix))]
    pub(super) fn standard(&self) -> Option<Standard> {
        None
    }
}

/// Returns the directory of the file that a path names.
fn directory_of(place: &Path) -> &Path {
    match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Returns the metadata of the file behind all links; `None` if it does not exist.
pub(super) fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Returns the path of a new file: the target of a dangling link.
pub(super) fn behind_links(path: &Path) -> io::Result<PathBuf> {
    const MOST: usize = 40;
    let mut place = path.to_owned();
    for _ in 0..MOST {
        match std::fs::read_link(&place) {
            Ok(target) => place = directory_of(&place).join(target),
            Err(_) => return Ok(place),
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a link to itself"))
}

/// True if the file is written in place: a pipe, a socket or a character device.
#[cfg(unix)]
pub(super) fn is_stream(found: &Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let kind = found.file_type();
    kind.is_fifo() || kind.is_char_device() || kind.is_socket()
}

#[cfg(not(unix))]
pub(super) fn is_stream(_: &Metadata) -> bool {
    false
}

#[cfg(unix)]
pub(super) fn is_character_device(found: &Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_char_device(&found.file_type())
}

#[cfg(not(unix))]
pub(super) fn is_character_device(_: &Metadata) -> bool {
    false
}

/// Renames a written file to its place. The file there must be the one that was checked before; a
/// missing file must still be missing.
pub(super) fn put(
    file: &File,
    temporary: &Path,
    place: &Path,
    replaces: Option<&Identity>,
) -> io::Result<()> {
    let appeared = || {
        let text = "another file has taken this name meanwhile";
        io::Error::new(io::ErrorKind::AlreadyExists, text)
    };
    let Some(replaces) = replaces else {
        return rename_without_replacing(temporary, place).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => appeared(),
            _ => e,
        });
    };
    match std::fs::symlink_metadata(place) {
        Ok(found) => {
            let (device, inode) = numbers(&found, place);
            if Identity::Node(device, inode) != *replaces {
                return Err(appeared());
            }
            keep_access(file, &found);
            std::fs::rename(temporary, place)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => rename_without_replacing(temporary, place),
        Err(e) => Err(e),
    }
}

/// Copies the mode of the old file and, where permitted, its owner.
fn keep_access(file: &File, old: &Metadata) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let _ = std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid()));
    }
    let _ = file.set_permissions(old.permissions());
}

#[cfg(target_os = "linux")]
fn rename_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    use nix::errno::Errno;
    use nix::libc;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    let [old, new] = [from, to].map(|path| CString::new(path.as_os_str().as_bytes()));
    let (old, new) = (old?, new?);
    let (here, flags) = (libc::AT_FDCWD, libc::RENAME_NOREPLACE);
    // By its number: older releases of musl have no function for the call.
    // SAFETY: both paths are C strings that live until the call has returned.
    let done = unsafe {
        libc::syscall(libc::SYS_renameat2, here, old.as_ptr(), here, new.as_ptr(), flags)
    };
    match Errno::result(done) {
        Ok(_) => Ok(()),
        // The filesystem does not support the call.
        Err(Errno::EINVAL | Errno::ENOSYS) => rename_if_missing(from, to),
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn rename_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    rename_if_missing(from, to)
}

fn rename_if_missing(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => std::fs::rename(from, to),
        Err(e) => Err(e),
    }
}
