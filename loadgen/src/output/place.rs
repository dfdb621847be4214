//! Which file a path leads to, and how a new one gets into its place.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

/// What tells a file apart from all others, by whatever name it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// A file that is there: its device and inode.
    Node(u64, u64),
    /// One that is not: the directory's device and inode, and the name in it.
    Missing(u64, u64, std::ffi::OsString),
}

/// A stream that the process was started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standard {
    Input,
    /// stdout or stderr.
    Output,
}

#[cfg(unix)]
fn numbers(found: &Metadata, _: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (found.dev(), found.ino())
}

/// Without inodes, a canonical path stands for the file.
#[cfg(not(unix))]
fn numbers(_: &Metadata, path: &Path) -> (u64, u64) {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    path.canonicalize().unwrap_or_else(|_| path.into()).hash(&mut hasher);
    (0, hasher.finish())
}

impl Identity {
    /// Of the file behind all links; `None` if there is none.
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

    /// Of a file that is not there, in a directory that must be.
    pub(super) fn of_missing(place: &Path) -> io::Result<Identity> {
        let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "it has no file name");
        let name = place.file_name().ok_or_else(no_name)?;
        let directory = directory_of(place);
        let (device, inode) = numbers(&std::fs::metadata(directory)?, directory);
        Ok(Identity::Missing(device, inode, name.into()))
    }

    /// Whether it is what a stream of this process reads or writes.
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

/// The directory that a path names a file in.
fn directory_of(place: &Path) -> &Path {
    match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Of the file behind all links; `None` if there is none.
pub(super) fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Where a new file comes to lie: behind a link that leads to no file.
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

/// Whether it is written as it is: a pipe, a socket or a character device.
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

/// Gives a written file its name. What it replaces must still be that which was looked at; what was not there must not
/// have appeared.
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

/// The new file has the mode and, where that is allowed, the owner of the old one.
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
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // A filesystem that has no such call.
        Err(Errno::EINVAL | Errno::ENOSYS) => rename_if_missing(from, to),
        renamed => Ok(renamed?),
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
