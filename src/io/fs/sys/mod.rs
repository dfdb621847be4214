//! The system's calls on the files of one directory: one file a platform, chosen here.
//!
//! The files have the same items. [`linux`] reaches every file by the descriptor of the open
//! directory, so that no change of the process (root directory, user, working directory) and no
//! move of the directory comes between the log and its files. Every other unix has [`portable`], by
//! what std offers, and [`unix`]; Windows has [`windows`]. [`not_offered`] completes these two.

#[cfg(linux_calls)]
mod linux;
#[cfg(unix)]
mod lock;
#[cfg(not(linux_calls))]
mod not_offered;
#[cfg(all(unix, not(linux_calls)))]
mod portable;
#[cfg(all(unix, not(linux_calls)))]
mod unix;
#[cfg(windows)]
mod windows;

use std::fs;
#[cfg(unix)]
use std::io;
use std::path::Path;
#[cfg(unix)]
use std::path::PathBuf;

#[cfg(linux_calls)]
pub(super) use linux::*;
#[cfg(unix)]
pub(super) use lock::{try_lock, unlock};
#[cfg(not(linux_calls))]
pub(super) use not_offered::*;
#[cfg(all(unix, not(linux_calls)))]
pub(super) use portable::*;
#[cfg(all(unix, not(linux_calls)))]
pub(super) use unix::{allocate, drop_cached_pages, next_data, settle};
#[cfg(windows)]
pub(super) use windows::*;

/// How a file is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub(super) write: bool,
    /// The file must not exist, and is created with this mode.
    pub(super) new: Option<u32>,
    /// Past the page cache.
    pub(super) direct: bool,
}

/// Gives a file or directory that this process has created the owner and the group of another, most
/// often of the directory that it lies in, if that belongs to another user. Only a privileged
/// process can: for any other the file stays its own.
pub(super) fn give_to_owner(made: &fs::File, directory: &fs::Metadata) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        if made.metadata().is_ok_and(|own| own.uid() != directory.uid()) {
            // Refused without the privilege, and by filesystems that store no owner.
            let _ = fchown(made, Some(directory.uid()), Some(directory.gid()));
        }
    }
    let _ = (made, directory);
}

/// Whether the file belongs to the superuser, where there is one.
pub(super) fn belongs_to_superuser(meta: &fs::Metadata) -> bool {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::uid(meta) == 0;
    #[cfg(not(unix))]
    {
        let _ = meta;
        false
    }
}

/// Sets the permission bits of what this process has created, whatever its umask is.
pub(super) fn set_mode(made: &fs::File, mode: u32) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let has = made.metadata().map(|meta| meta.permissions().mode() & 0o777);
        if has.is_ok_and(|has| has != mode) {
            // Refused by filesystems that store no mode.
            let _ = made.set_permissions(fs::Permissions::from_mode(mode));
        }
    }
    let _ = (made, mode);
}

/// Which file it is: its device and inode, or its volume and file index.
pub(super) type Identity = (u64, u64);

#[cfg(unix)]
pub(super) fn identity(file: &fs::File) -> io::Result<Identity> {
    let meta = file.metadata()?;
    Ok((std::os::unix::fs::MetadataExt::dev(&meta), std::os::unix::fs::MetadataExt::ino(&meta)))
}

/// Names that the file has.
#[cfg(unix)]
pub(super) fn links(file: &fs::File) -> io::Result<u64> {
    Ok(std::os::unix::fs::MetadataExt::nlink(&file.metadata()?))
}

/// Gives a file a name in another directory of the same filesystem, which no file has.
#[cfg(unix)]
pub(super) fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Opens the directory that this process has just created. `None` if something else is in its place
/// by now, of which the mode and the owner are not this process's to change.
pub(super) fn open_created_directory(path: &Path) -> Option<fs::File> {
    let opened = open_directory(path).ok()??;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let (there, here) = (fs::symlink_metadata(path).ok()?, opened.metadata().ok()?);
        let same = there.is_dir() && (there.dev(), there.ino()) == (here.dev(), here.ino());
        let is_new = fs::read_dir(path).ok()?.next().is_none();
        (same && is_new).then_some(opened)
    }
    #[cfg(not(unix))]
    Some(opened)
}

/// The permission bits of a file, where there are such.
pub(super) fn mode_of(meta: &fs::Metadata) -> Option<u32> {
    #[cfg(unix)]
    return Some(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777);
    #[cfg(not(unix))]
    {
        let _ = meta;
        None
    }
}

/// A path that leads to the open directory: through the descriptor, wherever the directory has been
/// moved, or the one that it was opened by.
#[cfg(unix)]
fn path_to(handle: &fs::File, path: &Path) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    let through = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    let here = handle.metadata()?;
    let leads_here = |path: &&Path| {
        let there = fs::metadata(path);
        there.is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino()))
    };
    let found = [&*through, path].into_iter().find(leads_here).map(Path::to_path_buf);
    found.ok_or_else(|| {
        let why = "no path leads to the log's directory any more";
        io::Error::new(io::ErrorKind::NotFound, why)
    })
}

/// How a path is shown that the system has made canonical.
#[cfg(unix)]
pub(super) fn shown(path: PathBuf) -> PathBuf {
    path
}

/// Opens a directory to sync it or to ask after it.
#[cfg(unix)]
pub(super) fn open_directory(path: &Path) -> io::Result<Option<fs::File>> {
    fs::File::open(path).map(Some)
}

/// Makes the names in an open directory durable.
#[cfg(unix)]
pub(super) fn sync_open_directory(directory: &fs::File) -> io::Result<()> {
    directory.sync_all()
}

/// Whether a lock file was left by another user in a directory of this process's user, and the
/// system shows no lock on it. Not where the system does not list locks.
#[cfg(unix)]
pub(super) fn is_forgotten_lock(file: &fs::Metadata, directory: &fs::Metadata) -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        // SAFETY: a question, without pointers.
        let us = unsafe { crate::sys::c::geteuid() };
        if directory.uid() != us || file.uid() == us {
            return false;
        }
        // On some filesystems the list names another device than their files do: the inode decides.
        let inode = format!(":{}", file.ino());
        let locks = fs::read_to_string("/proc/locks");
        locks.is_ok_and(|locks| !locks.split_whitespace().any(|word| word.ends_with(&inode)))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, directory);
        false
    }
}
