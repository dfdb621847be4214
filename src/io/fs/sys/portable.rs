//! Unix systems without [`linux`](super::linux)'s calls: what std offers, and the module `unix`.
//!
//! Files are reached by paths. Where the system shows open descriptors as paths they lead through
//! the open directory; elsewhere, or where a change of root or user has taken those away, through
//! the directory's own path while the same directory is there.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::super::Entry;
use super::{How, Identity, unix};

/// An open directory.
#[derive(Debug)]
pub(in super::super) struct Directory {
    path: PathBuf,
    handle: fs::File,
}

impl Directory {
    pub(in super::super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Directory { path: path.into(), handle: fs::File::open(path)? })
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

    /// A path that leads to the open directory, if there is one.
    pub(in super::super) fn reach(&self) -> io::Result<PathBuf> {
        super::path_to(&self.handle, &self.path)
    }

    pub(in super::super) fn list(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.reach()?)? {
            let entry = entry?;
            // A name that is not UTF-8 cannot be one of ours.
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(meta) => {
                    entries.push(Entry { name, regular: meta.is_file(), len: meta.len() });
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(entries)
    }

    /// Which file has that name; `None`: there is none. A link is not followed.
    pub(in super::super) fn identity(&self, name: &str) -> io::Result<Option<Identity>> {
        match fs::symlink_metadata(self.reach()?.join(name)) {
            Ok(meta) => {
                use std::os::unix::fs::MetadataExt;
                Ok(Some((meta.dev(), meta.ino())))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether the name is a regular file's; a link is not followed.
    pub(in super::super) fn is_regular(&self, name: &str) -> io::Result<bool> {
        Ok(fs::symlink_metadata(self.reach()?.join(name))?.is_file())
    }

    pub(in super::super) fn open_file(&self, name: &str, how: How) -> io::Result<fs::File> {
        let mut options = OpenOptions::new();
        options.read(true).write(how.write).create_new(how.new.is_some());
        unix::set_flags(&mut options, how);
        debug_assert!(!how.direct, "std has no word for it");
        options.open(self.reach()?.join(name))
    }

    pub(in super::super) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.reach()?.join(name))
    }

    /// Gives a file another name, which must not exist: `AlreadyExists` if it does, whatever the
    /// filesystem takes for the same name.
    pub(in super::super) fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let reach = self.reach()?;
        let (from, to) = (reach.join(from), reach.join(to));
        match unix::rename_exclusively(&from, &to) {
            // The system or the filesystem cannot.
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {}
            ended => return ended,
        }
        match fs::hard_link(&from, &to) {
            Ok(()) => {
                let removed = fs::remove_file(&from);
                if removed.is_err() {
                    let _ = fs::remove_file(&to);
                }
                return removed;
            }
            Err(e) => match e.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound => return Err(e),
                // The filesystem has no links.
                _ => {}
            },
        }
        match fs::symlink_metadata(&to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => fs::rename(&from, &to),
            Err(e) => Err(e),
        }
    }

    /// Gives a file another name, in place of whatever has that.
    pub(in super::super) fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        let reach = self.reach()?;
        fs::rename(reach.join(from), reach.join(to))
    }
}
