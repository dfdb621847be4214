//! The operating system's files.
//!
//! 1. Files are created with the mode that the options say (0600), the directory, if it is created
//!    here, with the one that follows from it (0700).
//! 2. A name that is no regular file is refused before it is opened, and again by the flags of the
//!    open itself (no link is followed, no pipe blocks), as it might change in between.
//! 3. What a privileged process creates in another user's directory belongs to that user.
//! 4. A directory that is created here has a durable name before anything is created in it; one
//!    that is found gets one, as its creator may have been stopped before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::sys::{self, Directory, How};
use super::{Access, Dir, Entry, File};
use crate::format::MIN_BLOCK;
use crate::sys::os_error::NOT_A_DIRECTORY;

/// What files are created with where nothing else is asked for.
pub(crate) const DEFAULT_MODE: u32 = 0o600;

#[derive(Debug)]
pub(crate) struct OsDir {
    /// What it is called, for messages.
    path: PathBuf,
    directory: Arc<Directory>,
    mode: u32,
    block: OnceLock<u32>,
    /// Why the filesystem does not keep what it has synced, if that is known.
    volatility: OnceLock<Option<&'static str>>,
    /// Whether what is opened for direct I/O is written and read past the page cache.
    past_the_cache: Arc<OnceLock<bool>>,
    /// The lock file that was locked: its name and which file it is.
    lock: OnceLock<(String, sys::Identity)>,
    /// A file of the log that others are created like: they get its owner.
    neighbour: OnceLock<fs::Metadata>,
}

#[derive(Debug)]
struct OsFile {
    file: fs::File,
    direct: bool,
    /// Of a file that is read through the page cache.
    again: Option<Again>,
}

/// How a file is opened again.
#[derive(Debug)]
struct Again {
    directory: Arc<Directory>,
    name: String,
    past_the_cache: Arc<OnceLock<bool>>,
}

impl Again {
    /// Opens `file` past the page cache. `None`: it has another name by now, or cannot be.
    fn past_the_cache(&self, file: &fs::File) -> Option<OsFile> {
        if !sys::CAN_BE_DIRECT || self.past_the_cache.get() == Some(&false) {
            return None;
        }
        let how = How { write: false, new: None, direct: true };
        let again = checked(self.directory.open_file(&self.name, how).ok()?).ok()?;
        if sys::identity(&again).ok()? != sys::identity(file).ok()? {
            return None;
        }
        let is_past = *self.past_the_cache.get_or_init(|| sys::goes_past_the_cache(&again));
        is_past.then_some(OsFile { file: again, direct: true, again: None })
    }
}

impl OsDir {
    /// Opens the directory, and creates it and its parents if they are missing.
    #[cfg(test)]
    pub(crate) fn open_or_create(path: &Path) -> io::Result<Self> {
        OsDir::open_or_create_with(path, DEFAULT_MODE)
    }

    /// The same, where files that are created in the directory get this mode.
    pub(crate) fn open_or_create_with(path: &Path, mode: u32) -> io::Result<Self> {
        create_durably(path, directory_mode(mode), &sync_directory)?;
        Ok(OsDir { mode, ..OsDir::open(path)? })
    }

    /// Opens the directory, which must exist. Files that are created in it get this mode.
    pub(crate) fn open_with(path: &Path, mode: u32) -> io::Result<Self> {
        Ok(OsDir { mode, ..OsDir::open(path)? })
    }

    /// Opens the directory, which must be there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        // Later calls must not depend on the process's working directory.
        let path = fs::canonicalize(path)?;
        // Opening a pipe would wait for its other end.
        if !fs::metadata(&path)?.is_dir() {
            return Err(io::Error::from_raw_os_error(NOT_A_DIRECTORY));
        }
        let directory = Arc::new(Directory::open(&path)?);
        Ok(OsDir {
            path: sys::shown(path),
            directory,
            mode: DEFAULT_MODE,
            block: OnceLock::new(),
            volatility: OnceLock::new(),
            past_the_cache: Arc::new(OnceLock::new()),
            lock: OnceLock::new(),
            neighbour: OnceLock::new(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path that leads to the file, for calls that take no descriptor. Wherever the directory is
    /// moved, if the system has such a path.
    pub(crate) fn reach_of(&self, name: &str) -> PathBuf {
        self.directory.reach().unwrap_or_else(|_| self.path.clone()).join(name)
    }

    /// Opens or creates the lock file, for reading only if it may not be written: that is enough
    /// for a lock. As the directory's first regular file it also answers which alignment direct I/O
    /// asks for here.
    pub(crate) fn open_lock_file(&self, name: &str) -> io::Result<fs::File> {
        let file = match self.open_or_create_file(name) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                let how = How { write: false, new: None, direct: false };
                self.open_existing(name, how).map_err(|_| e)?
            }
            opened => opened?,
        };
        let _ = self.block.set(sys::block_size_of(&self.path, &file));
        let _ = self.volatility.set(sys::volatility(&file));
        Ok(file)
    }

    /// Whether `name` is this open file.
    pub(crate) fn is_named(&self, name: &str, file: &fs::File) -> io::Result<bool> {
        Ok(self.directory.identity(name)? == Some(sys::identity(file)?))
    }

    /// Remembers that this open file is the lock file, for [`Dir::holds_lock`].
    pub(crate) fn set_lock(&self, name: &str, file: &fs::File) -> io::Result<()> {
        let _ = self.lock.set((name.into(), sys::identity(file)?));
        Ok(())
    }

    /// Whether a lock file that may not be opened can be replaced: this process owns the directory
    /// and another user the file, as after a command that ran as root, and the system shows no lock
    /// on it.
    pub(crate) fn may_replace_lock_file(&self, name: &str) -> bool {
        let directory = self.directory.metadata();
        let file = fs::symlink_metadata(self.reach_of(name));
        directory.is_ok_and(|directory| {
            file.is_ok_and(|file| file.is_file() && sys::is_forgotten_lock(&file, &directory))
        })
    }

    /// The permission bits of a file, where there are such.
    pub(crate) fn mode_of(&self, name: &str) -> Option<u32> {
        let how = How { write: false, new: None, direct: false };
        let file = self.open_existing(name, how).ok()?;
        sys::mode_of(&file.metadata().ok()?)
    }

    /// Gives this mode to the files that the log has already. One that belongs to another user, or
    /// has several links, keeps its own.
    pub(crate) fn set_modes(&self, of_the_log: impl Fn(&str) -> bool, mode: u32) -> io::Result<()> {
        let how = How { write: false, new: None, direct: false };
        for entry in self.list()?.iter().filter(|entry| entry.regular && of_the_log(&entry.name)) {
            // Under another name it may be the file of another owner too.
            if let Ok(file) = self.open_existing(&entry.name, how)
                && sys::links(&file).is_ok_and(|links| links == 1)
            {
                sys::set_mode(&file, mode);
            }
        }
        Ok(())
    }

    /// Creates a file with the owner and the mode of another one.
    pub(crate) fn create_like(&self, name: &str, model: &str) -> io::Result<Arc<dyn File>> {
        let (file, direct) = self.open_direct(name, Access::Create)?;
        let how = How { write: false, new: None, direct: false };
        if let Ok(model) = self.open_existing(model, how).and_then(|model| model.metadata()) {
            sys::give_to_owner(&file, &model);
            // Last: a change of the owner may take bits away.
            if let Some(mode) = sys::mode_of(&model) {
                sys::set_mode(&file, mode);
            }
        }
        Ok(Arc::new(OsFile { file, direct, again: None }))
    }

    /// Gives a file another name, in place of the file that has it.
    pub(crate) fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        self.directory.replace(from, to)
    }

    fn open_or_create_file(&self, name: &str) -> io::Result<fs::File> {
        /// Rounds in which another process creates and removes the file in between.
        const ROUNDS: u32 = 100;
        let mut round = 0;
        loop {
            round += 1;
            let how = How { write: true, new: None, direct: false };
            match self.open_existing(name, how) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                opened => return opened,
            }
            match self.create(name, false) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && round < ROUNDS => {}
                created => return created,
            }
        }
    }

    fn open_existing(&self, name: &str, how: How) -> io::Result<fs::File> {
        if !self.directory.is_regular(name)? {
            return Err(not_regular());
        }
        checked(self.directory.open_file(name, how)?)
    }

    fn create(&self, name: &str, direct: bool) -> io::Result<fs::File> {
        let how = How { write: true, new: Some(self.mode), direct };
        let file = checked(self.directory.open_file(name, how)?)?;
        sys::set_mode(&file, self.mode);
        self.give_to_owner(&file);
        Ok(file)
    }

    /// Files that a privileged process creates from now on belong to the owner of this one, unless
    /// that is the superuser: the directory may belong to another user than the log in it.
    pub(crate) fn create_like_neighbour(&self, name: &str) {
        let how = How { write: false, new: None, direct: false };
        if let Ok(file) = self.open_existing(name, how).and_then(|file| file.metadata())
            && !sys::belongs_to_superuser(&file)
        {
            let _ = self.neighbour.set(file);
        }
    }

    /// What this process has created here belongs to the owner of its neighbour, or of the
    /// directory.
    pub(crate) fn give_to_owner(&self, made: &fs::File) {
        match self.neighbour.get() {
            Some(neighbour) => sys::give_to_owner(made, neighbour),
            None => {
                if let Ok(directory) = self.directory.metadata() {
                    sys::give_to_owner(made, &directory);
                }
            }
        }
    }

    /// Creates a directory below this one, for its owner alone.
    pub(crate) fn create_private(&self, path: &Path) -> io::Result<()> {
        create_directory(path, 0o700, &self.path)
    }

    /// Opens past the page cache where the filesystem can. True: it does.
    fn open_direct(&self, name: &str, access: Access) -> io::Result<(fs::File, bool)> {
        let write = access != Access::ReadDevice;
        let open = |direct| match access {
            Access::Create => self.create(name, direct),
            _ => self.open_existing(name, How { write, new: None, direct }),
        };
        match open(sys::CAN_BE_DIRECT) {
            Ok(file) => {
                let past = || sys::CAN_BE_DIRECT && sys::goes_past_the_cache(&file);
                let past = *self.past_the_cache.get_or_init(past);
                Ok((file, past))
            }
            // The filesystem has no direct I/O. A file that was created on the way is empty.
            Err(e) if e.raw_os_error().is_some() && e.kind() == io::ErrorKind::InvalidInput => {
                if access == Access::Create {
                    let _ = self.directory.remove(name);
                }
                Ok((open(false)?, false))
            }
            Err(e) => Err(e),
        }
    }
}

/// The file, if it is a regular one, set to wait for what it is asked for.
fn checked(file: fs::File) -> io::Result<fs::File> {
    if !file.metadata()?.is_file() {
        return Err(not_regular());
    }
    sys::settle(&file)?;
    Ok(file)
}

/// A directory may be entered by those who may read the files in it.
fn directory_mode(mode: u32) -> u32 {
    mode | (mode & 0o444) >> 2
}

/// Creates the directories that are missing on the way to this one, and this one. Each has a
/// durable name before the next is created in it, so that only the last that is found may have none
/// yet.
fn create_durably(
    path: &Path,
    mode: u32,
    sync: &dyn Fn(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let missing = missing(path);
    let found = missing.last().map_or(path, |first| parent_of(first));
    if let Ok(found) = fs::canonicalize(found)
        && let Some(parent) = found.parent()
        && shares_filesystem(&found, parent)
    {
        match sync(parent) {
            // What may be entered and not be read was created by another user.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    for made in missing.into_iter().rev() {
        let parent = parent_of(made);
        match create_directory(made, mode, parent) {
            // Another process was faster.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && made.is_dir() => {}
            created => created?,
        }
        sync(parent)?;
    }
    Ok(())
}

fn create_directory(path: &Path, mode: u32, parent: &Path) -> io::Result<()> {
    let builder = &mut fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(builder, mode);
    builder.create(path)?;
    if let Some(made) = sys::open_created_directory(path) {
        sys::set_mode(&made, mode);
        if let Ok(parent) = fs::metadata(parent) {
            sys::give_to_owner(&made, &parent);
        }
    }
    Ok(())
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

/// False for a mount point: its name is nothing that its parent's filesystem stores.
fn shares_filesystem(path: &Path, parent: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let device = |path| fs::metadata(path).map(|meta| meta.dev()).ok();
        device(path) == device(parent)
    }
    #[cfg(not(unix))]
    {
        let _ = (path, parent);
        true
    }
}

/// Makes the names in a directory durable, as far as the system can.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    sys::open_directory(path)?.map_or(Ok(()), |directory| sys::sync_open_directory(&directory))
}

/// Gives a file a name in another directory of the same filesystem, which no file has.
pub(crate) fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    sys::move_file(from, to)
}

/// Locks the file for this handle alone, without waiting. False: another handle holds it.
pub(crate) fn try_lock(file: &fs::File) -> io::Result<bool> {
    sys::try_lock(file)
}

pub(crate) fn unlock(file: &fs::File) {
    sys::unlock(file);
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file; move it away")
}

impl Dir for OsDir {
    fn list(&self) -> io::Result<Vec<Entry>> {
        self.directory.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let (file, direct) = match access {
            Access::Cached => (self.open_or_create_file(name)?, false),
            Access::Read => {
                let how = How { write: false, new: None, direct: false };
                (self.open_existing(name, how)?, false)
            }
            Access::WriteCached => {
                let how = How { write: true, new: None, direct: false };
                (self.open_existing(name, how)?, false)
            }
            Access::CreateCached => (self.create(name, false)?, false),
            Access::ReadDevice | Access::Write | Access::Create => {
                self.open_direct(name, access)?
            }
        };
        if access == Access::WriteCached || access == Access::ReadDevice && !direct {
            sys::drop_cached_pages(&file);
        }
        let again = (access == Access::Read).then(|| Again {
            directory: Arc::clone(&self.directory),
            name: name.to_owned(),
            past_the_cache: Arc::clone(&self.past_the_cache),
        });
        Ok(Arc::new(OsFile { file, direct, again }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.directory.rename_new(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.directory.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.directory.sync()
    }

    fn volatility(&self) -> Option<&'static str> {
        self.volatility.get().copied().flatten()
    }

    fn block_size(&self) -> u32 {
        *self.block.get_or_init(|| MIN_BLOCK)
    }

    fn raw_fd(&self) -> Option<i32> {
        self.directory.raw_fd()
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn holds_lock(&self) -> io::Result<bool> {
        let Some((name, locked)) = self.lock.get() else { return Ok(true) };
        Ok(self.directory.identity(name)?.as_ref() == Some(locked))
    }
}

impl File for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_at(&self.file, buf, offset);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_read(&self.file, buf, offset);
    }

    fn read_cached_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        sys::read_cached_at(&self.file, buf, offset)
    }

    fn past_the_cache(&self) -> Option<Arc<dyn File>> {
        Some(Arc::new(self.again.as_ref()?.past_the_cache(&self.file)?))
    }

    // Elsewhere a read moves the handle's position.
    fn allows_helper(&self) -> bool {
        cfg!(unix)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::write_at(&self.file, buf, offset);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_write(&self.file, buf, offset);
    }

    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        sys::write_durable_at(&self.file, buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn links(&self) -> io::Result<u64> {
        sys::links(&self.file)
    }

    fn write_zeroes(&self, len: u64) -> io::Result<()> {
        sys::write_zeroes(&self.file, len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        sys::allocate(&self.file, len)
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        sys::next_data(&self.file, offset)
    }

    fn is_direct(&self) -> bool {
        self.direct
    }

    fn try_lock(&self) -> io::Result<bool> {
        sys::try_lock(&self.file)
    }

    fn unlock(&self) {
        sys::unlock(&self.file);
    }

    fn raw_fd(&self) -> Option<i32> {
        #[cfg(unix)]
        return Some(std::os::fd::AsRawFd::as_raw_fd(&self.file));
        #[cfg(not(unix))]
        return None;
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    /// A process that is killed before the sync, or whose sync fails, leaves a directory whose name
    /// may be lost with all that is written below it.
    #[test]
    fn a_directory_whose_parent_was_never_synced_is_synced_by_the_next_open() {
        use std::sync::Mutex;
        let top = crate::io::fs::hooked::TempPath::new();
        std::fs::create_dir(&*top).unwrap();
        let top = std::fs::canonicalize(&*top).unwrap();
        let (a, b) = (top.join("a"), top.join("a/b"));
        let synced = Mutex::new(Vec::new());
        let sync = |path: &Path| {
            synced.lock().unwrap().push(path.to_path_buf());
            Ok(())
        };
        let refuse = |at: &Path| {
            let at = at.to_path_buf();
            move |path: &Path| match path == at {
                true => Err(io::Error::other("stopped here")),
                false => Ok(()),
            }
        };
        let taken = || std::mem::take(&mut *synced.lock().unwrap());
        // Nothing is created below a directory whose name is not durable.
        create_durably(&b, 0o700, &refuse(&top)).unwrap_err();
        assert!(!b.exists());
        std::fs::create_dir_all(&a).unwrap();
        create_durably(&b, 0o700, &refuse(&a)).unwrap_err();
        assert!(b.is_dir());
        // Both were created and neither name is known to be durable: the last one found gets one.
        create_durably(&b, 0o700, &sync).unwrap();
        assert_eq!(taken(), [&*a]);
        std::fs::remove_dir(&b).unwrap();
        create_durably(&b, 0o700, &sync).unwrap();
        assert_eq!(taken(), [&*top, &*a]);
        std::fs::remove_dir_all(&a).unwrap();
        create_durably(&b, 0o700, &sync).unwrap();
        assert_eq!(taken().last_chunk(), Some(&[top.clone(), a.clone()]));
    }

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
