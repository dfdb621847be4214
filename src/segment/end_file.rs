//! The end file, in which the writer states its durable end, and the locks that prove a writer.
//!
//! Processes that only read the log use both.
//!
//! 1. The end file is advice. The writer writes it through the page cache, without a sync. A
//!    statement is true when it is written and stays true on this boot: the durable end never
//!    decreases. A closed log's statement holds on every boot, and is synced: the next writer
//!    replaces the file before it appends.
//! 2. A writer that keeps the file up to date holds a lock on its inode. It takes the lock before
//!    the file has its name, and releases it when it stops updating. So a locked file is current,
//!    and one that is not locked may be stale.
//! 3. A writer holds a lock on the directory from before it reads the log until everything is
//!    durable. So a reader knows of a writer that keeps no end file.
//! 4. Each writer replaces the file before its first append, or removes it. So no other name of an
//!    older inode shows a current statement. Another user's file, or one that cannot be written,
//!    does not stop the log.
//! 5. The keeper field names the inode and its directory. So a copy of the file, or another name
//!    for it elsewhere, proves nothing. It is 0 if the writer held no locks.

use std::sync::Arc;

use crate::format::{END_FILE, EVERY_BOOT, StatedEnd, UNKNOWN_BOOT};
use crate::io::fs::{Access, Dir, File, ofd, read_full, write_full};
use crate::segment::Names;

/// Offset of the byte that the writer locks in the end file.
const LOCKED_BYTE: u32 = 0;

/// The writer's handle on the end file.
#[derive(Debug)]
pub(crate) struct EndFile {
    file: Arc<dyn File>,
    stated: StatedEnd,
}

impl EndFile {
    /// Creates the file, for the writer that has the log's lock.
    ///
    /// `None` if it cannot be created: readers then use the segments alone. `presence_held`: the
    /// writer holds the lock on the directory.
    pub(crate) fn create(
        dir: &dyn Dir,
        names: &Names,
        log_id: [u8; 16],
        durable_end: u64,
        newest_cut: u64,
        presence_held: bool,
    ) -> Option<Self> {
        let boot = boot_id().unwrap_or(UNKNOWN_BOOT);
        let stated = StatedEnd { log_id, boot, durable_end, newest_cut, keeper: 0 };
        let made = replace(dir, names, stated, presence_held)
            .or_else(|_| reuse(dir, names, stated, presence_held));
        made.inspect_err(|e| {
            tracing::warn!(error = %e, "no end file: other processes find the durable end in the segments");
            // An earlier writer's statement must not pass for this writer's.
            match dir.remove(&names.end()) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(error = %e, "the end file of an earlier writer stays; readers ignore it");
                }
                _ => {}
            }
        })
        .ok()
    }

    /// States a new durable end. False: the write failed, and no other one must follow.
    pub(crate) fn publish(&mut self, durable_end: u64, newest_cut: u64) -> bool {
        if durable_end == self.stated.durable_end {
            return true;
        }
        self.stated.durable_end = durable_end;
        self.stated.newest_cut = newest_cut;
        write_full(&*self.file, &self.stated.encode(), 0).is_ok()
    }

    /// States the end of a closed log, which holds on every boot until the next writer replaces the
    /// file, and syncs it. If that fails, the earlier statement stays.
    pub(crate) fn seal(&mut self, dir: &dyn Dir) {
        let sealed = StatedEnd { boot: EVERY_BOOT, ..self.stated };
        let written = write_full(&*self.file, &sealed.encode(), 0);
        let synced = written.and_then(|()| self.file.sync_data()).and_then(|()| dir.sync());
        if let Err(e) = synced {
            tracing::debug!(error = %e, "the end file was not sealed: a later boot finds the closed log's end in the segments");
        }
    }
}

impl Drop for EndFile {
    fn drop(&mut self) {
        // Closing is not enough: a child of fork() may have the description too.
        ofd::release(self.file.raw_fd(), LOCKED_BYTE);
    }
}

/// Creates a new inode, which gets the name once it is written and locked.
fn replace(
    dir: &dyn Dir,
    names: &Names,
    stated: StatedEnd,
    presence_held: bool,
) -> std::io::Result<EndFile> {
    let (name, temporary) = (names.end(), names.end_temporary());
    match dir.open(&name, Access::Read) {
        // A directory, a link or a pipe: not a file of this log.
        Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => return Err(e),
        _ => {}
    }
    match dir.remove(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let made = dir.open(&temporary, Access::Cached).and_then(|file| {
        let kept = keep(dir, file, stated, presence_held)?;
        match dir.remove(&name) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => dir.rename(&temporary, &name)?,
        }
        Ok(kept)
    });
    if made.is_err() {
        let _ = dir.remove(&temporary);
    }
    made
}

/// Writes the file that is there, as on a full disk, if it has no other name.
fn reuse(
    dir: &dyn Dir,
    names: &Names,
    stated: StatedEnd,
    presence_held: bool,
) -> std::io::Result<EndFile> {
    let file = dir.open(&names.end(), Access::Cached)?;
    match file.links()? {
        1 => keep(dir, file, stated, presence_held),
        _ => Err(std::io::Error::other("the end file has several links")),
    }
}

fn keep(
    dir: &dyn Dir,
    file: Arc<dyn File>,
    stated: StatedEnd,
    presence_held: bool,
) -> std::io::Result<EndFile> {
    let held = ofd::hold(file.raw_fd(), LOCKED_BYTE);
    match &held {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
            return Err(std::io::Error::other("another process holds the lock of the end file"));
        }
        _ => {}
    }
    let keeper = if held.is_ok() && presence_held { identity(dir, &*file).unwrap_or(0) } else { 0 };
    let stated = StatedEnd { keeper, ..stated };
    let kept = EndFile { file, stated };
    write_full(&*kept.file, &stated.encode(), 0)?;
    Ok(kept)
}

/// The writer's lock on the directory, which proves to readers that there is a writer.
#[derive(Debug)]
pub(crate) struct Presence {
    dir: Arc<dyn Dir>,
    at: u32,
    held: bool,
}

impl Presence {
    /// Takes the lock, before the writer reads the log. If that fails, the writer goes on without
    /// it.
    pub(crate) fn hold(dir: &Arc<dyn Dir>, names: &Names) -> Self {
        let at = lock_offset(names);
        let held = ofd::hold_shared(dir.raw_fd(), at);
        if let Err(e) = &held {
            tracing::debug!(error = %e, "other processes cannot see that the log has a writer");
        }
        Presence { dir: Arc::clone(dir), at, held: held.is_ok() }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if self.held {
            ofd::release(self.dir.raw_fd(), self.at);
        }
    }
}

/// Offset of the byte that the writer locks in the directory. Two logs may share one: then both
/// seem to have a writer while either has.
fn lock_offset(names: &Names) -> u32 {
    crc32fast::hash(names.prefix().as_bytes()) & 0x7fff_ffff
}

/// Whether a writer has the log open. `None`: the system cannot report that.
pub(crate) fn is_written(dir: &dyn Dir, names: &Names) -> Option<bool> {
    ofd::is_held(dir.raw_fd(), lock_offset(names))
}

/// What a process that only reads knows of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriterStatus {
    /// A writer keeps the end file up to date.
    Reporting { stated: StatedEnd, origin: EndFileOrigin },
    /// There may be a writer, which states nothing. An earlier statement of this boot may be known.
    Silent(Option<StatedEnd>),
    /// There is no writer. The last one's statement, of this boot and directory, may be known.
    Absent(Option<StatedEnd>),
}

/// Where the writer of an end file has its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndFileOrigin {
    ThisDirectory,
    /// The file is another name for the end file of another directory.
    Elsewhere,
}

/// A reader's handle on the end file, open while a writer keeps the file up to date.
#[derive(Debug, Default)]
pub(crate) struct EndFileReader {
    boot: Option<[u8; 16]>,
    file: Option<Arc<dyn File>>,
}

impl EndFileReader {
    /// Reads the end file and its locks.
    pub(crate) fn read(&mut self, dir: &dyn Dir, names: &Names) -> WriterStatus {
        let is_locked = |file: &Arc<dyn File>| ofd::is_held(file.raw_fd(), LOCKED_BYTE);
        let is_current = |file: &Arc<dyn File>| {
            is_locked(file) == Some(true) && file.links().is_ok_and(|n| n > 0)
        };
        if !self.file.as_ref().is_some_and(is_current) {
            // The file was removed or released: the next writer creates another.
            self.file = dir.open(&names.end(), Access::Read).ok();
        }
        // A writer locks the directory before the file, and releases the file before the directory.
        // So the file must be read first.
        let (mut locked, mut stated) = (Some(false), None);
        if let Some(file) = &self.file {
            locked = is_locked(file);
            stated = read_statement(&**file);
            if locked == Some(true)
                && let Some(stated) = stated
            {
                let origin = match is_own(dir, &**file, &stated) {
                    true => EndFileOrigin::ThisDirectory,
                    false => EndFileOrigin::Elsewhere,
                };
                return WriterStatus::Reporting { stated, origin };
            }
            if locked == Some(false) {
                // Released: this statement is the last one.
                stated = read_statement(&**file);
            }
        }
        let boot = match self.boot {
            Some(boot) => Some(boot),
            None => boot_id().inspect(|boot| self.boot = Some(*boot)),
        };
        let stated = stated.filter(|stated| stated.holds_on(boot));
        let without_locks = stated.is_some_and(|stated| stated.keeper == 0);
        if locked != Some(false) || is_written(dir, names) != Some(false) || without_locks {
            return WriterStatus::Silent(stated);
        }
        let file = self.file.take();
        let is_own = |stated: &StatedEnd| file.is_some_and(|file| is_own(dir, &*file, stated));
        WriterStatus::Absent(stated.filter(is_own))
    }
}

/// The last writer's statement, of this boot and directory. If the groups do not reach it, they
/// were lost.
///
/// It must be read before the groups, as a writer may add to both.
pub(crate) fn proven_end(dir: &dyn Dir, names: &Names) -> Option<StatedEnd> {
    let file = dir.open(&names.end(), Access::Read).ok()?;
    let stated = read_statement(&*file)?;
    (stated.holds_on(boot_id()) && is_own(dir, &*file, &stated)).then_some(stated)
}

fn is_own(dir: &dyn Dir, file: &dyn File, stated: &StatedEnd) -> bool {
    stated.keeper != 0 && identity(dir, file) == Some(stated.keeper)
}

/// A number for this inode in this directory. It is not 0.
fn identity(dir: &dyn Dir, file: &dyn File) -> Option<u64> {
    let (device, inode) = ofd::inode(file.raw_fd())?;
    let (_, directory) = ofd::inode(dir.raw_fd())?;
    let mix = |h: u64, n: u64| {
        let h = (h ^ n).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        h ^ (h >> 32)
    };
    Some([device, inode, directory].into_iter().fold(0x9E37_79B9_7F4A_7C15, mix).max(1))
}

fn read_statement(file: &dyn File) -> Option<StatedEnd> {
    // A reader may see half of a write that is under way.
    (0..100).find_map(|_| {
        let mut bytes = [0; END_FILE];
        let n = read_full(file, &mut bytes, 0).ok()?;
        (n == END_FILE).then(|| StatedEnd::decode(&bytes)).flatten()
    })
}

/// The id of this boot of the machine.
fn boot_id() -> Option<[u8; 16]> {
    crate::sys::boot::boot_id().filter(|id| *id != UNKNOWN_BOOT && *id != EVERY_BOOT)
}
