//! The file beside the log in which the writer says how far it is durable, for processes that only read, and the signs by
//! which these know whether there is a writer.
//!
//! 1. The word is advice. It is written through the page cache and never synced. What it says was true when it was written,
//!    and stays true on this boot: the durable end never goes back.
//!    When the log is closed the word is synced, for every boot: nothing follows until the next writer replaces the file.
//! 2. A writer that keeps the word holds a lock on the very inode, from before the file has its name until it stops
//!    keeping the word. So a locked word is current, and one that is not locked may be stale.
//! 3. A writer holds a lock on the directory from before it looks at the log until everything is durable: so a
//!    reader knows of a writer that keeps no word.
//! 4. Each writer replaces the file before its first append, or removes it: no other name of an older inode sees what is
//!    said now, and a word of another user's, or one that cannot be written, ends nobody's log.
//! 5. The keeper names the inode and its directory. A copy of the file, or another name for it elsewhere, proves nothing.
//!    0: the writer held no locks.

use std::sync::Arc;

use crate::format::{END_FILE, EVERY_BOOT, StatedEnd, UNKNOWN_BOOT};
use crate::io::fs::{Access, Dir, File, ofd, read_full, write_full};
use crate::segment::Names;

/// The byte of the end file that its keeper locks.
const KEPT: u32 = 0;

#[derive(Debug)]
pub(crate) struct EndFile {
    file: Arc<dyn File>,
    said: StatedEnd,
}

impl EndFile {
    /// For the writer, which has the log's lock. `None` where it cannot be: readers then look at the segments alone.
    /// `alive`: the writer holds the directory.
    pub(crate) fn create(
        dir: &dyn Dir,
        names: &Names,
        log_id: [u8; 16],
        durable_end: u64,
        newest_cut: u64,
        alive: bool,
    ) -> Option<Self> {
        let boot = boot_id().unwrap_or(UNKNOWN_BOOT);
        let said = StatedEnd { log_id, boot, durable_end, newest_cut, keeper: 0 };
        let made = replace(dir, names, said, alive).or_else(|_| reuse(dir, names, said, alive));
        made.inspect_err(|e| {
            tracing::warn!(error = %e, "other processes will not be told how far the log is durable");
            // What an earlier writer has said there must not pass for what this one says.
            match dir.remove(&names.end()) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(error = %e, "what an earlier writer said stays; readers ignore it");
                }
                _ => {}
            }
        })
        .ok()
    }

    /// False: it could not be written, and no more will be.
    pub(crate) fn say(&mut self, durable_end: u64, newest_cut: u64) -> bool {
        if durable_end == self.said.durable_end {
            return true;
        }
        self.said.durable_end = durable_end;
        self.said.newest_cut = newest_cut;
        write_full(&*self.file, &self.said.encode(), 0).is_ok()
    }

    /// The log is closed: until the next writer replaces the file, what it says holds on every boot. It is synced, so
    /// that it is there then. Where that fails it says what it said.
    pub(crate) fn seal(&mut self, dir: &dyn Dir) {
        let sealed = StatedEnd { boot: EVERY_BOOT, ..self.said };
        let written = write_full(&*self.file, &sealed.encode(), 0);
        let synced = written.and_then(|()| self.file.sync_data()).and_then(|()| dir.sync());
        if let Err(e) = synced {
            tracing::debug!(error = %e, "a later boot will not know where the closed log ends");
        }
    }
}

impl Drop for EndFile {
    fn drop(&mut self) {
        // Explicitly: a child of fork may have the description too.
        ofd::release(self.file.raw_fd(), KEPT);
    }
}

/// A new inode gets the name when it says something and is locked.
fn replace(dir: &dyn Dir, names: &Names, said: StatedEnd, alive: bool) -> std::io::Result<EndFile> {
    let (name, temporary) = (names.end(), names.end_temporary());
    match dir.open(&name, Access::Read) {
        // A directory, a link, a pipe: not a file of ours.
        Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => return Err(e),
        _ => {}
    }
    match dir.remove(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let made = dir.open(&temporary, Access::Cached).and_then(|file| {
        let kept = keep(dir, file, said, alive)?;
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

/// On a full disk: the file that is there, if it has no other name.
fn reuse(dir: &dyn Dir, names: &Names, said: StatedEnd, alive: bool) -> std::io::Result<EndFile> {
    let file = dir.open(&names.end(), Access::Cached)?;
    match file.links()? {
        1 => keep(dir, file, said, alive),
        _ => Err(std::io::Error::other("the file has several links")),
    }
}

fn keep(
    dir: &dyn Dir,
    file: Arc<dyn File>,
    said: StatedEnd,
    alive: bool,
) -> std::io::Result<EndFile> {
    let held = ofd::hold(file.raw_fd(), KEPT);
    match &held {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
            return Err(std::io::Error::other("another process keeps the file"));
        }
        _ => {}
    }
    let keeper = if held.is_ok() && alive { identity(dir, &*file).unwrap_or(0) } else { 0 };
    let said = StatedEnd { keeper, ..said };
    let kept = EndFile { file, said };
    write_full(&*kept.file, &said.encode(), 0)?;
    Ok(kept)
}

/// The writer's hold on the directory, by which a reader knows that there is one.
#[derive(Debug)]
pub(crate) struct Presence {
    dir: Arc<dyn Dir>,
    at: u32,
    held: bool,
}

impl Presence {
    /// For the writer, before it looks at the log. It goes on where it cannot be held.
    pub(crate) fn hold(dir: &Arc<dyn Dir>, names: &Names) -> Self {
        let at = place(names);
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

/// The byte of the directory that stands for a log in it. Two logs of one byte are seen as written while either is.
fn place(names: &Names) -> u32 {
    crc32fast::hash(names.prefix().as_bytes()) & 0x7fff_ffff
}

/// Whether a writer has the log open. `None`: the system cannot tell.
pub(crate) fn is_written(dir: &dyn Dir, names: &Names) -> Option<bool> {
    ofd::is_held(dir.raw_fd(), place(names))
}

/// What a process that only reads knows of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    /// There is one, and it says this now. `own`: in this directory, and not another name of the file elsewhere.
    Tells { said: StatedEnd, own: bool },
    /// There may be one, and it says nothing. What an earlier moment of this boot said may be known.
    Silent(Option<StatedEnd>),
    /// There is none. What the last one said on this boot in this directory, if it is known.
    Gone(Option<StatedEnd>),
}

/// The file as a reader has it: open, while a writer keeps it.
#[derive(Debug, Default)]
pub(crate) struct EndReader {
    boot: Option<[u8; 16]>,
    file: Option<Arc<dyn File>>,
}

impl EndReader {
    /// Asks who writes the log, and how far it is durable.
    pub(crate) fn ask(&mut self, dir: &dyn Dir, names: &Names) -> Writer {
        let is_kept = |file: &Arc<dyn File>| ofd::is_held(file.raw_fd(), KEPT);
        let kept =
            |file: &Arc<dyn File>| is_kept(file) == Some(true) && file.links().is_ok_and(|n| n > 0);
        if !self.file.as_ref().is_some_and(kept) {
            // Removed or left: the next writer makes another.
            self.file = dir.open(&names.end(), Access::Read).ok();
        }
        // In this order: a writer releases the file before the directory, and holds the directory before the file.
        let (mut held, mut said) = (Some(false), None);
        if let Some(file) = &self.file {
            held = is_kept(file);
            said = read_word(&**file);
            if held == Some(true)
                && let Some(said) = said
            {
                return Writer::Tells { said, own: is_own(dir, &**file, &said) };
            }
            if held == Some(false) {
                // What it says for good, now that nobody changes it.
                said = read_word(&**file);
            }
        }
        let boot = match self.boot {
            Some(boot) => Some(boot),
            None => boot_id().inspect(|boot| self.boot = Some(*boot)),
        };
        let said = said.filter(|said| said.holds_on(boot));
        let unkept = said.is_some_and(|said| said.keeper == 0);
        if held != Some(false) || is_written(dir, names) != Some(false) || unkept {
            return Writer::Silent(said);
        }
        let file = self.file.take();
        Writer::Gone(said.filter(|said| file.is_some_and(|file| is_own(dir, &*file, said))))
    }
}

/// How far the log was durable, as its last writer has said on this boot of the machine and in this directory: if its
/// groups do not reach that far, they were lost. Asked before the groups are looked at, as a writer may add to both.
pub(crate) fn proven_end(dir: &dyn Dir, names: &Names) -> Option<StatedEnd> {
    let file = dir.open(&names.end(), Access::Read).ok()?;
    let said = read_word(&*file)?;
    (said.holds_on(boot_id()) && is_own(dir, &*file, &said)).then_some(said)
}

fn is_own(dir: &dyn Dir, file: &dyn File, said: &StatedEnd) -> bool {
    said.keeper != 0 && identity(dir, file) == Some(said.keeper)
}

/// A number for this inode in this directory, not 0.
fn identity(dir: &dyn Dir, file: &dyn File) -> Option<u64> {
    let (device, inode) = ofd::inode(file.raw_fd())?;
    let (_, directory) = ofd::inode(dir.raw_fd())?;
    let mix = |h: u64, n: u64| {
        let h = (h ^ n).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        h ^ (h >> 32)
    };
    Some([device, inode, directory].into_iter().fold(0x9E37_79B9_7F4A_7C15, mix).max(1))
}

fn read_word(file: &dyn File) -> Option<StatedEnd> {
    // A write that goes on at the same moment may be seen in half.
    (0..100).find_map(|_| {
        let mut bytes = [0; END_FILE];
        let n = read_full(file, &mut bytes, 0).ok()?;
        (n == END_FILE).then(|| StatedEnd::decode(&bytes)).flatten()
    })
}

/// Which boot of the machine this is.
fn boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&digits, 16).ok()?.to_le_bytes();
    (id != UNKNOWN_BOOT && id != EVERY_BOOT).then_some(id)
}
