//! Windows: files by their path, with the calls that std has no word for.
//!
//! 1. A handle shares reading, writing and deleting: a segment may be renamed or removed while
//!    readers have it open.
//! 2. A lock is one byte far beyond the end of the file. Locks are mandatory here: one over the
//!    content would keep readers and copies out.
//! 3. A rename is written through. A directory is flushed too, where its filesystem can; NTFS
//!    writes its journal in order, so that each flush of a file also keeps earlier names.
//! 4. The name of a removed file is free at once, also while readers have the file open. No list
//!    shows the file.

use std::fs::{self, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::fs::{MetadataExt, OpenOptionsExt};
use std::os::windows::io::AsRawHandle;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_INVALID_FUNCTION, ERROR_INVALID_HANDLE, ERROR_INVALID_PARAMETER,
    ERROR_IO_PENDING, ERROR_LOCK_VIOLATION, ERROR_NOT_SUPPORTED, HANDLE,
};
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, DELETE, FILE_ATTRIBUTE_REPARSE_POINT, FILE_DISPOSITION_FLAG_DELETE,
    FILE_DISPOSITION_FLAG_POSIX_SEMANTICS, FILE_DISPOSITION_INFO_EX, FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT, FileDispositionInfoEx, GetFileInformationByHandle,
    LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY, LockFileEx, MOVE_FILE_FLAGS,
    MOVEFILE_REPLACE_EXISTING, MOVEFILE_WRITE_THROUGH, MoveFileExW, SetFileInformationByHandle,
    UnlockFileEx,
};
use windows_sys::Win32::System::IO::OVERLAPPED;

use super::super::Entry;
use super::{How, Identity};

/// The byte that a lock covers: no file is as long.
const LOCKED_BYTE: u64 = 1 << 62;

/// An open directory.
#[derive(Debug)]
pub(in super::super) struct Directory {
    path: PathBuf,
    handle: fs::File,
}

impl Directory {
    pub(in super::super) fn open(path: &Path) -> io::Result<Self> {
        let handle = match open_directory(path)? {
            Some(handle) => handle,
            None => return Err(io::ErrorKind::PermissionDenied.into()),
        };
        Ok(Directory { path: path.into(), handle })
    }

    pub(in super::super) fn raw_fd(&self) -> Option<i32> {
        None
    }

    pub(in super::super) fn metadata(&self) -> io::Result<fs::Metadata> {
        self.handle.metadata()
    }

    pub(in super::super) fn sync(&self) -> io::Result<()> {
        sync_open_directory(&self.handle)
    }

    /// A path that leads to the directory.
    pub(in super::super) fn reach(&self) -> io::Result<PathBuf> {
        Ok(self.path.clone())
    }

    pub(in super::super) fn list(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // A name that is not Unicode cannot be one of ours.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if is_removed(&name) {
                continue;
            }
            // The list itself shows the length that an open file had before.
            match fs::symlink_metadata(self.path.join(&name)).or_else(|_| entry.metadata()) {
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
        let mut options = OpenOptions::new();
        options
            .access_mode(0)
            .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_BACKUP_SEMANTICS);
        match options.open(self.path.join(name)) {
            Ok(file) => identity(&file).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether the name is a regular file's; a link is not followed.
    pub(in super::super) fn is_regular(&self, name: &str) -> io::Result<bool> {
        Ok(fs::symlink_metadata(self.path.join(name))?.is_file())
    }

    /// Opens a name without following a link.
    pub(in super::super) fn open_file(&self, name: &str, how: How) -> io::Result<fs::File> {
        debug_assert!(!how.direct, "not offered here");
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(how.write).create_new(how.new.is_some());
        if how.new.is_some() {
            return options.open(path);
        }
        let file = options.clone().custom_flags(FILE_FLAG_OPEN_REPARSE_POINT).open(&path)?;
        let meta = file.metadata()?;
        let is_placeholder = meta.file_attributes() & FILE_ATTRIBUTE_REPARSE_POINT != 0
            && !meta.file_type().is_symlink();
        // A compressed or offloaded file is no link: its filter has the content.
        if is_placeholder { options.open(path) } else { Ok(file) }
    }

    /// Removes the name at once, also while the file is open.
    pub(in super::super) fn remove(&self, name: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.access_mode(DELETE).custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
        // Without another flag a directory is not opened, and so neither removed nor renamed.
        let file = options.open(self.path.join(name))?;
        let info = FILE_DISPOSITION_INFO_EX {
            Flags: FILE_DISPOSITION_FLAG_DELETE | FILE_DISPOSITION_FLAG_POSIX_SEMANTICS,
        };
        // SAFETY: an open handle, and a structure of the class's type that outlives the call, with
        // its size.
        let done = unsafe {
            SetFileInformationByHandle(
                handle(&file),
                FileDispositionInfoEx,
                (&raw const info).cast(),
                size_of::<FILE_DISPOSITION_INFO_EX>() as u32,
            )
        };
        if done != 0 {
            return Ok(());
        }
        drop(file);
        self.remove_renamed(name)
    }

    /// Removes a file before Windows 10, and on filesystems other than NTFS: there a removed file
    /// keeps its name until its last handle is closed. So the file gets another name first.
    fn remove_renamed(&self, name: &str) -> io::Result<()> {
        static REMOVED: AtomicU64 = AtomicU64::new(0);
        // A crash may have left such files.
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(is_removed) {
                // It is open, or its removal is refused: a later removal tries again.
                drop(fs::remove_file(entry.path()));
            }
        }
        let number = REMOVED.fetch_add(1, Ordering::Relaxed);
        let removed = format!("{name}{REMOVED_MARK}{}-{number}", std::process::id());
        if self.rename_new(name, &removed).is_err() {
            // The new name is too long, or taken.
            return fs::remove_file(self.path.join(name));
        }
        match fs::remove_file(self.path.join(&removed)) {
            // Another process has removed it after a removal of its own.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            // The file is not removed, and so has its name.
            Err(e) => self.rename_new(&removed, name).and(Err(e)),
            Ok(()) => Ok(()),
        }
    }

    /// Gives a file another name, which must not exist: `AlreadyExists` if it does, whatever the
    /// filesystem takes for the same name.
    pub(in super::super) fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        move_file(&self.path.join(from), &self.path.join(to))
    }

    /// Gives a file another name, in place of whatever has that.
    pub(in super::super) fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path.join(from), self.path.join(to));
        match rename(&from, &to, MOVEFILE_REPLACE_EXISTING) {
            // The file in its place is open. std asks for the semantics of POSIX.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => fs::rename(from, to),
            renamed => renamed,
        }
    }
}

/// In the name of a removed file that is still open: the log's names have nothing like it.
const REMOVED_MARK: &str = ".removed.";

/// Whether the name is of a removed file that is still open.
fn is_removed(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.rsplit_once(REMOVED_MARK)
        .and_then(|(_, rest)| rest.split_once('-'))
        .is_some_and(|(process, number)| is_number(process) && is_number(number))
}

fn handle(file: &fs::File) -> HANDLE {
    file.as_raw_handle()
}

/// True of the return value of a call that succeeded.
fn succeeded(done: i32) -> io::Result<()> {
    if done != 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The path as users write it: without `\\?\`, which canonical paths begin with, if it is one of a
/// drive and short enough for every program.
pub(in super::super) fn shown(path: PathBuf) -> PathBuf {
    const MAX_PATH: usize = 260;
    let plain = path.to_str().and_then(|text| text.strip_prefix(r"\\?\"));
    let is_drive = |text: &&str| text.as_bytes().get(1) == Some(&b':') && text.len() < MAX_PATH;
    plain.filter(is_drive).map(PathBuf::from).unwrap_or(path)
}

/// Gives a file a name in another directory of the same volume, which no file has.
pub(in super::super) fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    rename(from, to, 0)
}

fn rename(from: &Path, to: &Path, flags: MOVE_FILE_FLAGS) -> io::Result<()> {
    let wide = |path: &Path| -> Vec<u16> {
        // Only a canonical path may be longer than 260 characters.
        let parent = path.parent().and_then(|parent| fs::canonicalize(parent).ok());
        let long = parent.zip(path.file_name()).map(|(parent, name)| parent.join(name));
        long.as_deref().unwrap_or(path).as_os_str().encode_wide().chain([0]).collect()
    };
    let (from, to) = (wide(from), wide(to));
    // SAFETY: two strings that end with zero and outlive the call.
    let done = unsafe { MoveFileExW(from.as_ptr(), to.as_ptr(), flags | MOVEFILE_WRITE_THROUGH) };
    succeeded(done)
}

fn information(file: &fs::File) -> io::Result<BY_HANDLE_FILE_INFORMATION> {
    let mut info = MaybeUninit::<BY_HANDLE_FILE_INFORMATION>::uninit();
    // SAFETY: an open handle and room for the answer, which outlive the call.
    succeeded(unsafe { GetFileInformationByHandle(handle(file), info.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, and so has filled all of it.
    Ok(unsafe { info.assume_init() })
}

pub(in super::super) fn identity(file: &fs::File) -> io::Result<Identity> {
    let info = information(file)?;
    let index = u64::from(info.nFileIndexHigh) << 32 | u64::from(info.nFileIndexLow);
    Ok((u64::from(info.dwVolumeSerialNumber), index))
}

/// Names that the file has.
pub(in super::super) fn links(file: &fs::File) -> io::Result<u64> {
    Ok(u64::from(information(file)?.nNumberOfLinks))
}

/// The place of [`LOCKED_BYTE`], as the lock calls take it.
fn locked_byte() -> OVERLAPPED {
    let mut place = OVERLAPPED::default();
    place.Anonymous.Anonymous.Offset = LOCKED_BYTE as u32;
    place.Anonymous.Anonymous.OffsetHigh = (LOCKED_BYTE >> 32) as u32;
    place
}

/// Locks the file for this handle alone, without waiting. False: another handle holds it.
pub(in super::super) fn try_lock(file: &fs::File) -> io::Result<bool> {
    let mut place = locked_byte();
    let flags = LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY;
    // SAFETY: an open handle for synchronous calls, and a structure that outlives the call.
    let done = unsafe { LockFileEx(handle(file), flags, 0, 1, 0, &raw mut place) };
    match succeeded(done) {
        Ok(()) => Ok(true),
        Err(e) if is_one_of(&e, &[ERROR_LOCK_VIOLATION, ERROR_IO_PENDING]) => Ok(false),
        Err(e) => Err(e),
    }
}

pub(in super::super) fn unlock(file: &fs::File) {
    let mut place = locked_byte();
    // SAFETY: an open handle for synchronous calls, and a structure that outlives the call. It
    // fails for nothing that is held.
    unsafe { UnlockFileEx(handle(file), 0, 1, 0, &raw mut place) };
}

fn is_one_of(e: &io::Error, codes: &[u32]) -> bool {
    e.raw_os_error().is_some_and(|code| codes.contains(&(code as u32)))
}

/// Opens a directory to flush it or to ask after it: with the right to write if this user has it,
/// which a flush needs.
pub(in super::super) fn open_directory(path: &Path) -> io::Result<Option<fs::File>> {
    let open = |write| {
        let mut options = OpenOptions::new();
        options.read(true).write(write).custom_flags(FILE_FLAG_BACKUP_SEMANTICS).open(path)
    };
    match open(true).or_else(|_| open(false)) {
        Ok(directory) => Ok(Some(directory)),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(e) => Err(e),
    }
}

/// Makes the names in an open directory durable, if its filesystem flushes directories. One that
/// does not is no error: renames are written through.
pub(in super::super) fn sync_open_directory(directory: &fs::File) -> io::Result<()> {
    const NOT_OFFERED: [u32; 5] = [
        ERROR_INVALID_FUNCTION,
        ERROR_ACCESS_DENIED,
        ERROR_INVALID_HANDLE,
        ERROR_NOT_SUPPORTED,
        ERROR_INVALID_PARAMETER,
    ];
    match directory.sync_all() {
        Err(e) if is_one_of(&e, &NOT_OFFERED) => Ok(()),
        synced => synced,
    }
}

/// Nothing was asked for that would have to be taken back.
pub(in super::super) fn settle(_: &fs::File) -> io::Result<()> {
    Ok(())
}

pub(in super::super) fn next_data(_: &fs::File, offset: u64) -> Option<u64> {
    Some(offset)
}

pub(in super::super) fn allocate(_: &fs::File, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(in super::super) fn drop_cached_pages(_: &fs::File) {}

/// Not where the system cannot be asked who this is and what is locked.
pub(in super::super) fn is_forgotten_lock(_: &fs::Metadata, _: &fs::Metadata) -> bool {
    false
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::io::fs::hooked::TempPath;

    fn opened() -> (TempPath, Directory) {
        let path = TempPath::new();
        fs::create_dir(&*path).unwrap();
        let directory = Directory::open(&fs::canonicalize(&*path).unwrap()).unwrap();
        (path, directory)
    }

    fn created(directory: &Directory, name: &str) -> fs::File {
        directory.open_file(name, How { write: true, new: Some(0o600), direct: false }).unwrap()
    }

    const READ: How = How { write: false, new: None, direct: false };

    #[test]
    fn lock_excludes_another_handle_and_hides_no_content() {
        let (path, directory) = opened();
        let holder = created(&directory, "lock");
        assert!(try_lock(&holder).unwrap());
        (&holder).write_all(b"17\n").unwrap();
        let other = directory.open_file("lock", READ).unwrap();
        assert!(!try_lock(&other).unwrap());
        assert_eq!(fs::read(path.join("lock")).unwrap(), b"17\n");
        fs::copy(path.join("lock"), path.join("copy")).unwrap();
        unlock(&holder);
        assert!(try_lock(&other).unwrap());
        assert!(!try_lock(&holder).unwrap());
        // Closing the handle is enough, as when a process ends.
        drop(other);
        assert!(try_lock(&holder).unwrap());
    }

    #[test]
    fn paths_are_shown_as_users_write_them() {
        for (path, expected) in [
            (r"\\?\C:\logs\a", r"C:\logs\a"),
            (r"C:\logs", r"C:\logs"),
            (r"\\?\UNC\server\share\a", r"\\?\UNC\server\share\a"),
        ] {
            assert_eq!(shown(path.into()), Path::new(expected));
        }
        let long = format!(r"\\?\C:\{}", "x".repeat(300));
        assert_eq!(shown(long.clone().into()), Path::new(&long));
    }

    #[test]
    fn links_and_identities_are_those_of_the_file() {
        let (path, directory) = opened();
        let file = created(&directory, "a");
        assert_eq!(links(&file).unwrap(), 1);
        fs::hard_link(path.join("a"), path.join("archived")).unwrap();
        assert_eq!(links(&file).unwrap(), 2);
        let same = directory.identity("archived").unwrap();
        assert_eq!(same, Some(identity(&file).unwrap()));
        assert_eq!(directory.identity("none").unwrap(), None);
        drop(created(&directory, "b"));
        assert_ne!(directory.identity("b").unwrap(), same);
    }

    #[test]
    fn rename_replaces_nothing_unless_asked_and_works_on_open_files() {
        let (path, directory) = opened();
        let (a, b) = (created(&directory, "a"), created(&directory, "b"));
        (&a).write_all(b"a").unwrap();
        for taken in ["b", "B"] {
            let e = directory.rename_new("a", taken).unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::AlreadyExists, "{taken}");
        }
        directory.rename_new("a", "c").unwrap();
        (&a).write_all(b"b").unwrap();
        assert_eq!(fs::read(path.join("c")).unwrap(), b"ab");
        drop(b);
        directory.replace("c", "b").unwrap();
        assert_eq!(fs::read(path.join("b")).unwrap(), b"ab");
        directory.sync().unwrap();
    }

    #[test]
    fn list_shows_the_length_of_a_file_that_is_being_written() {
        let (_path, directory) = opened();
        let file = created(&directory, "a");
        for len in [5, 70_000] {
            file.set_len(len).unwrap();
            let entries = directory.list().unwrap();
            assert_eq!(entries, [Entry { name: "a".into(), regular: true, len }]);
        }
        fs::create_dir(directory.path.join("d")).unwrap();
        assert!(directory.list().unwrap().iter().any(|e| e.name == "d" && !e.regular));
        assert!(!directory.is_regular("d").unwrap());
    }

    #[test]
    fn removed_file_can_be_read_by_those_who_have_it_open_and_has_no_name() {
        let (path, directory) = opened();
        let file = created(&directory, "a");
        (&file).write_all(b"kept").unwrap();
        let reader = directory.open_file("a", READ).unwrap();
        drop(file);
        directory.remove("a").unwrap();
        assert!(directory.list().unwrap().is_empty());
        assert_eq!(directory.open_file("a", READ).unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(created(&directory, "a"));
        assert_eq!(directory.list().unwrap().len(), 1);
        directory.remove("a").unwrap();
        let mut found = [0; 4];
        assert_eq!(std::os::windows::fs::FileExt::seek_read(&reader, &mut found, 0).unwrap(), 4);
        assert_eq!(&found, b"kept");
        drop(reader);
        assert!(!path.join("a").exists());
        let missing = directory.remove("a").unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
    #[test]
    fn removal_on_another_filesystem_frees_the_name_and_removes_what_a_crash_left() {
        let (path, directory) = opened();
        let reader = created(&directory, "a");
        fs::write(path.join("b.removed.7-0"), b"left").unwrap();
        fs::write(path.join("c.removed.log"), b"none of the log's").unwrap();
        fs::create_dir(path.join("d")).unwrap();
        directory.remove("d").unwrap_err();
        assert!(path.join("d").is_dir());
        fs::remove_dir(path.join("d")).unwrap();
        directory.remove_renamed("a").unwrap();
        let names = |entries: Vec<Entry>| entries.into_iter().map(|e| e.name).collect::<Vec<_>>();
        assert_eq!(names(directory.list().unwrap()), ["c.removed.log"]);
        assert!(!path.join("b.removed.7-0").exists());
        drop(reader);
        assert_eq!(fs::read_dir(&*path).unwrap().count(), 1);
    }
}
