//! The operating system's files: std, and on Linux the flags that std has no word for.
//!
//! 1. Files are created with mode 0600; the directory, if it is made here, with 0700.
//! 2. A name that is no regular file is refused before it is opened, and again by the flags of the
//!    open itself (no link is followed, no pipe blocks), as it might change in between.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::{Access, Dir, Entry, File};
use crate::format::{MAX_BLOCK, MIN_BLOCK};

#[derive(Debug)]
pub(crate) struct OsDir {
    /// What it is called, for messages.
    path: PathBuf,
    /// The directory itself, where one can be opened: it is synced without another descriptor.
    handle: Option<fs::File>,
    /// How files in it are reached: through the handle, if the system has a way.
    reach: PathBuf,
    block: OnceLock<u32>,
}

#[derive(Debug)]
struct OsFile {
    file: fs::File,
    direct: bool,
}

impl OsDir {
    /// Opens the directory, and makes it and its parents if they are missing.
    pub(crate) fn open_or_create(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true);
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            let missing = missing(path);
            builder.create(path)?;
            // Every new name must survive a crash as surely as what is written below it.
            for made in missing {
                sync_directory(parent_of(made))?;
            }
        }
        OsDir::open(path)
    }

    /// Opens the directory, which must be there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        // Later calls must not depend on the process's working directory.
        let path = fs::canonicalize(path)?;
        // Opening a pipe would wait for somebody.
        if !fs::metadata(&path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let handle = if cfg!(unix) { Some(fs::File::open(&path)?) } else { None };
        let reach = handle.as_ref().and_then(through).unwrap_or_else(|| path.clone());
        Ok(OsDir { path, handle, reach, block: OnceLock::new() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path that leads to the file wherever the directory is moved, while this lives.
    pub(crate) fn reach_of(&self, name: &str) -> PathBuf {
        self.reach.join(name)
    }

    /// Opens or creates the lock file. As the directory's first regular file it also answers which
    /// alignment direct I/O asks for here.
    pub(crate) fn open_lock_file(&self, name: &str) -> io::Result<fs::File> {
        let path = self.reach.join(name);
        match fs::symlink_metadata(&path) {
            Ok(meta) if !meta.is_file() => return Err(not_regular()),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        owner_only(&mut options, false);
        let file = options.open(&path)?;
        if !file.metadata()?.is_file() {
            return Err(not_regular());
        }
        let _ = self.block.set(block_size_of(&self.path, &file));
        Ok(file)
    }
}

/// The directories that are missing on the way to this one, itself first.
fn missing(path: &Path) -> Vec<&Path> {
    path.ancestors().take_while(|at| !at.as_os_str().is_empty() && !at.is_dir()).collect()
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A path that leads to an open directory wherever it is moved, and whatever comes in its place.
fn through(directory: &fs::File) -> Option<PathBuf> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::MetadataExt;
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let (there, here) = (fs::metadata(&path).ok()?, directory.metadata().ok()?);
        ((there.dev(), there.ino()) == (here.dev(), here.ino())).then_some(path)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = directory;
        None
    }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file; move it away")
}

/// Sets the creation mode and the flags that keep links and pipes out.
fn owner_only(options: &mut OpenOptions, direct: bool) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    #[cfg(all(target_os = "linux", feature = "uring"))]
    {
        use nix::libc;
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | if direct { libc::O_DIRECT } else { 0 };
        std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags);
    }
    let _ = direct;
}

const CAN_BE_DIRECT: bool = cfg!(all(target_os = "linux", feature = "uring"));

fn sync_directory(path: &Path) -> io::Result<()> {
    // Windows has no such call: there the filesystem's journal orders names.
    if cfg!(unix) { fs::File::open(path)?.sync_all() } else { Ok(()) }
}

impl Dir for OsDir {
    fn list(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.reach)? {
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

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let path = self.reach.join(name);
        let may_be_missing = match access {
            Access::Create | Access::Cached => true,
            Access::Read | Access::ReadDevice | Access::Write => false,
        };
        match fs::symlink_metadata(&path) {
            Ok(meta) if !meta.is_file() && access != Access::Create => return Err(not_regular()),
            Err(e) if !may_be_missing => return Err(e),
            _ => {}
        }
        let open = |direct: bool| {
            let mut options = OpenOptions::new();
            options.read(true);
            match access {
                Access::Read | Access::ReadDevice => {}
                Access::Write => {
                    options.write(true);
                }
                Access::Create => {
                    options.write(true).create_new(true);
                }
                Access::Cached => {
                    options.write(true).create(true);
                }
            }
            owner_only(&mut options, direct);
            options.open(&path)
        };
        let wants_direct = CAN_BE_DIRECT && !matches!(access, Access::Read | Access::Cached);
        let (file, direct) = if wants_direct {
            match open(true) {
                Ok(file) => (file, true),
                // The filesystem has no direct I/O. A file that was created on the way is empty.
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                    if access == Access::Create {
                        let _ = fs::remove_file(&path);
                    }
                    (open(false)?, false)
                }
                Err(e) => return Err(e),
            }
        } else {
            (open(false)?, false)
        };
        if !file.metadata()?.is_file() {
            return Err(not_regular());
        }
        if access == Access::ReadDevice && !direct {
            drop_cached_pages(&file);
        }
        Ok(Arc::new(OsFile { file, direct }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.reach.join(from), self.reach.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.reach.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.as_ref().map_or(Ok(()), fs::File::sync_all)
    }

    fn block_size(&self) -> u32 {
        *self.block.get_or_init(|| MIN_BLOCK)
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl File for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_at(&self.file, buf, offset);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_read(&self.file, buf, offset);
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::write_at(&self.file, buf, offset);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_write(&self.file, buf, offset);
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn links(&self) -> io::Result<u64> {
        #[cfg(unix)]
        return Ok(std::os::unix::fs::MetadataExt::nlink(&self.file.metadata()?));
        #[cfg(not(unix))]
        return Ok(1);
    }

    fn write_zeroes(&self, len: u64) -> io::Result<()> {
        /// Since Linux 6.17: allocates written extents if the device can zero without writing.
        const FALLOC_FL_WRITE_ZEROES: i32 = 0x80;
        fallocate(&self.file, FALLOC_FL_WRITE_ZEROES, len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        fallocate(&self.file, 0, len)
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        next_data(&self.file, offset)
    }

    fn is_direct(&self) -> bool {
        self.direct
    }

    fn raw_fd(&self) -> Option<i32> {
        #[cfg(unix)]
        return Some(std::os::fd::AsRawFd::as_raw_fd(&self.file));
        #[cfg(not(unix))]
        return None;
    }
}

/// Only the place that calls without an offset go on at is changed; all calls here have one.
fn next_data(file: &fs::File, offset: u64) -> Option<u64> {
    #[cfg(all(target_os = "linux", feature = "uring"))]
    {
        use std::os::fd::AsRawFd;

        use nix::libc::{ENXIO, SEEK_DATA, lseek64};
        let Ok(from) = i64::try_from(offset) else { return Some(offset) };
        // SAFETY: a system call on an open descriptor; no pointers.
        let found = unsafe { lseek64(file.as_raw_fd(), from, SEEK_DATA) };
        match u64::try_from(found) {
            Ok(found) => Some(found),
            Err(_) if io::Error::last_os_error().raw_os_error() == Some(ENXIO) => None,
            Err(_) => Some(offset),
        }
    }
    #[cfg(not(all(target_os = "linux", feature = "uring")))]
    {
        let _ = file;
        Some(offset)
    }
}

/// Of the first `len` bytes.
fn fallocate(file: &fs::File, mode: i32, len: u64) -> io::Result<()> {
    #[cfg(all(target_os = "linux", feature = "uring"))]
    {
        use std::os::fd::AsRawFd;
        let len = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a system call on an open descriptor; no pointers.
        let rc = unsafe { nix::libc::fallocate(file.as_raw_fd(), mode, 0, len) };
        if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
    #[cfg(not(all(target_os = "linux", feature = "uring")))]
    {
        let _ = (file, mode, len);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Without direct reads: what was cached, by a writer whose sync failed for one, is not trusted.
fn drop_cached_pages(file: &fs::File) {
    #[cfg(all(target_os = "linux", feature = "uring"))]
    {
        use nix::libc;
        use std::os::fd::AsRawFd;
        // Dirty pages are not dropped: written back first, so that only the device's bytes are read.
        let _ = file.sync_data();
        // SAFETY: a system call on an open descriptor; no pointers. It is advice: errors do no harm.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
    let _ = file;
}

/// max(4096, the device's physical block, the alignment that direct I/O asks for).
#[cfg(all(target_os = "linux", feature = "uring"))]
fn block_size_of(path: &Path, file: &fs::File) -> u32 {
    let disk = super::Device::under(path).and_then(|d| d.block()).unwrap_or(0);
    let device = disk.max(direct_alignment(file).unwrap_or(0));
    device.next_power_of_two().clamp(MIN_BLOCK, MAX_BLOCK)
}

#[cfg(not(all(target_os = "linux", feature = "uring")))]
fn block_size_of(_: &Path, _: &fs::File) -> u32 {
    MIN_BLOCK.min(MAX_BLOCK)
}

#[cfg(all(target_os = "linux", feature = "uring"))]
fn direct_alignment(file: &fs::File) -> Option<u32> {
    use std::os::fd::AsRawFd;

    use nix::libc;
    // SAFETY: all-zero is a valid value of this plain C structure.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor, an empty path that AT_EMPTY_PATH asks for, and a structure that
    // outlives the call.
    let rc = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut stat,
        )
    };
    (rc == 0 && stat.stx_mask & libc::STATX_DIOALIGN != 0).then_some(stat.stx_dio_offset_align)
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_directory_that_is_made_has_a_parent_to_be_synced() {
        let path = std::env::temp_dir().join(format!("ringwal-os-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let deep = path.join("a/b");
        assert_eq!(missing(&deep), [&*deep, &*path.join("a"), &*path]);
        assert_eq!(missing(&std::env::temp_dir()), [] as [&Path; 0]);
        assert_eq!(missing(Path::new("not-there/x")).len(), 2);
        assert_eq!(parent_of(Path::new("not-there")), Path::new("."));
        OsDir::open_or_create(&deep).unwrap();
        assert!(missing(&deep).is_empty());
        std::fs::remove_dir_all(&path).unwrap();
    }
}
