//! The preparation of a segment file: content, stamps, header, sync, name, directory sync, in
//! order.
//!
//! A prepared file is written from end to end. If its space is only allocated, the first commits
//! turn it into written space, and each sync pays a commit of the filesystem's journal. That is
//! right only in a hurry: when the log writes faster than segments can be written in advance.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{LockLost, Names, Spare};
use crate::format::{ADDRESS_SPACE, SEGMENT_HEADER, STAMP, SegmentHeader, stamp};
use crate::io::fs::{Access, AlignedBuf, Dir, File, Refused, is_no_space, write_full};

/// Bytes written in one step when the log waits for the segment.
const CHUNK_BYTES: u64 = 1 << 20;
/// Bytes written in one step otherwise, so that commits in between are not delayed.
const SMALL_CHUNK_BYTES: u64 = 256 << 10;

/// How fast a segment is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    /// In small steps, with pauses between them.
    Paced,
    /// In large steps, without pauses.
    Full,
    /// Allocated space is not written.
    Hurry,
}

#[derive(Debug)]
enum Stage {
    Start {
        recycle: Option<String>,
    },
    /// `allocated`: the file has all of its space, so no write into it can run out of space.
    Zero {
        file: Arc<dyn File>,
        at: u64,
        allocated: bool,
    },
    Stamps {
        file: Arc<dyn File>,
    },
    Header {
        file: Arc<dyn File>,
    },
}

/// A segment that is being prepared: call [`Preparation::step`] until it returns the spare.
#[derive(Debug)]
pub(crate) struct Preparation {
    header: SegmentHeader,
    temporary: String,
    stage: Stage,
    hurried: bool,
}

impl Preparation {
    /// `recycle`: a file of the same size to use again, which has a temporary name already.
    pub(crate) fn new(names: &Names, header: SegmentHeader, recycle: Option<String>) -> Self {
        let temporary = names.temporary(header.base);
        Preparation { header, temporary, stage: Stage::Start { recycle }, hurried: false }
    }

    /// Does one bounded piece of the work. An error removes the temporary file, and the next step
    /// begins the preparation again.
    pub(crate) fn step(
        &mut self,
        dir: &dyn Dir,
        names: &Names,
        zeroes: &AlignedBuf,
        haste: Haste,
    ) -> Result<Option<Spare>, Refused> {
        let done = self.advance(dir, names, zeroes, haste);
        if done.is_err() {
            // A failed preparation must not keep its space.
            let _ = dir.remove(&self.temporary);
            self.stage = Stage::Start { recycle: None };
        }
        done
    }

    fn advance(
        &mut self,
        dir: &dyn Dir,
        names: &Names,
        zeroes: &AlignedBuf,
        haste: Haste,
    ) -> Result<Option<Spare>, Refused> {
        let temporary = &self.temporary;
        let refused = |op| move |e| Refused::new(op, dir.path_of(temporary), e);
        if self.header.end() > ADDRESS_SPACE {
            // Readers reject positions beyond.
            return Err(refused("give a position to")(io::ErrorKind::StorageFull.into()));
        }
        match &mut self.stage {
            Stage::Start { recycle } => {
                let recycle = recycle.take();
                LockLost::check(dir).map_err(refused("create"))?;
                self.stage = self.start(dir, recycle)?;
            }
            Stage::Zero { file, allocated: true, .. } if haste == Haste::Hurry => {
                self.hurried = true;
                self.stage = Stage::Stamps { file: Arc::clone(file) };
            }
            Stage::Zero { file, at, .. } => {
                let chunk = if haste == Haste::Paced { SMALL_CHUNK_BYTES } else { CHUNK_BYTES };
                let len = chunk.min(self.header.size - *at).min(zeroes.len() as u64);
                let written = write_full(&**file, &zeroes[..len as usize], *at);
                written.map_err(refused("write"))?;
                *at += len;
                if *at == self.header.size {
                    self.stage = Stage::Stamps { file: Arc::clone(file) };
                }
            }
            Stage::Stamps { file } => {
                write_stamps(&**file, &self.header).map_err(refused("write"))?;
                self.stage = Stage::Header { file: Arc::clone(file) };
            }
            Stage::Header { file } => {
                write_header(&**file, &self.header).map_err(refused("write"))?;
                file.sync_data().map_err(refused("sync"))?;
                let name = names.segment(self.header.base);
                LockLost::check(dir).map_err(refused("rename"))?;
                let named = dir.rename(&self.temporary, &name);
                named.map_err(|e| Refused::new("create", dir.path_of(&name), in_its_place(e)))?;
                // The name may not be durable: no error of this sync may be retried.
                dir.sync().map_err(|e| Refused::names_not_synced(dir.path_of(""), e))?;
                return Ok(Some(Spare { header: self.header, file: Arc::clone(file) }));
            }
        }
        Ok(None)
    }

    /// Opens the file and locks it, so a segment is locked as soon as it has its name.
    fn start(&self, dir: &dyn Dir, recycle: Option<String>) -> Result<Stage, Refused> {
        let temporary = &self.temporary;
        let refused = |op| move |e| Refused::new(op, dir.path_of(temporary), e);
        if let Some(name) = recycle {
            if name != *temporary {
                remove_if_there(dir, temporary).map_err(refused("remove"))?;
                dir.rename(&name, temporary).map_err(refused("rename a segment to"))?;
            }
            let file = dir.open(temporary, Access::Write).map_err(refused("open"))?;
            // Otherwise the I/O thread is still leaving it, and another file is created.
            if file.try_lock().map_err(refused("lock"))? {
                let len = file.len().map_err(refused("look at"))?;
                return Ok(match len == self.header.size {
                    true => Stage::Stamps { file },
                    false => Stage::Zero { file, at: 0, allocated: false },
                });
            }
        }
        remove_if_there(dir, temporary).map_err(refused("remove"))?;
        let file = dir.open(temporary, Access::Create).map_err(refused("create"))?;
        if !file.try_lock().map_err(refused("lock"))? {
            return Err(refused("lock")(io::Error::other(LockLost)));
        }
        allocate(file, self.header.size).map_err(refused("allocate"))
    }

    /// The pause between two paced steps, for a preparation that takes `whole` nanoseconds.
    pub(crate) fn pause(&self, whole: u64) -> Duration {
        let steps = self.header.size.div_ceil(SMALL_CHUNK_BYTES);
        Duration::from_nanos(whole / steps.max(1))
    }

    /// Whether some of its space is only allocated.
    pub(crate) fn was_hurried(&self) -> bool {
        self.hurried
    }

    pub(crate) fn base(&self) -> u64 {
        self.header.base
    }
}

/// Allocates the space of a new file, zeroed at once where the system can.
fn allocate(file: Arc<dyn File>, size: u64) -> io::Result<Stage> {
    match file.write_zeroes(size) {
        Ok(()) => return Ok(Stage::Stamps { file }),
        Err(e) if is_no_space(&e) => return Err(e),
        Err(_) => {}
    }
    match file.allocate(size) {
        Err(e) if is_no_space(&e) => Err(e),
        allocated => Ok(Stage::Zero { file, at: 0, allocated: allocated.is_ok() }),
    }
}

fn write_stamps(file: &dyn File, header: &SegmentHeader) -> io::Result<()> {
    let mut block = AlignedBuf::new(header.block as usize);
    for lsn in header.stamps_from_the_end() {
        block[..STAMP].copy_from_slice(&stamp(lsn, &header.log_id));
        write_full(file, &block, lsn - header.base)?;
    }
    Ok(())
}

fn write_header(file: &dyn File, header: &SegmentHeader) -> io::Result<()> {
    let mut block = AlignedBuf::new(header.block as usize);
    let mut bytes = [0; SEGMENT_HEADER];
    header.encode(&mut bytes);
    block[..SEGMENT_HEADER].copy_from_slice(&bytes);
    write_full(file, &block, 0)
}

/// The error of a rename to a segment's name. A log knows all of its segments, so a file of that
/// name is not the log's, or was removed: on Windows such a file may keep its name while a program
/// has it open, and nothing tells it from another one.
fn in_its_place(e: io::Error) -> io::Error {
    match e.kind() {
        io::ErrorKind::AlreadyExists => {
            let why = match cfg!(windows) {
                true => {
                    "a file that is none of this log's, or a removed one that a program still has \
                     open, has that name; close the programs that read the log, or move it away"
                }
                false => "a file that is none of this log's has that name; move it away",
            };
            io::Error::new(io::ErrorKind::AlreadyExists, why)
        }
        _ => e,
    }
}

/// Removes a file that an abandoned preparation may have left.
fn remove_if_there(dir: &dyn Dir, name: &str) -> io::Result<()> {
    match dir.remove(name) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Zeroed bytes for [`Preparation::step`].
pub(crate) fn zeroes(segment_size: u64) -> AlignedBuf {
    AlignedBuf::new(CHUNK_BYTES.min(segment_size) as usize)
}
