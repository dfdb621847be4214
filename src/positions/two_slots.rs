//! A file of two slots, which survives a crash: the form of positions and of cells.
//!
//! 1. A store writes one slot and syncs it. The other slot stays as it is. So one of the two is
//!    sound at any moment.
//! 2. The file gets its name once it is whole and synced.
//! 3. A block has 4096 bytes on every device, so the page cache must be between: direct I/O may ask
//!    for larger blocks. Opening reads past what was cached before.
//! 4. After a failed write or sync every further store fails: the slot's content is unknown. A
//!    write for which the disk has no space was not synced: the next store writes that slot again.

use std::io;
use std::sync::Arc;

use crate::io::fs::{Access, AlignedBuf, Dir, File, Refused, is_no_space, read_full, write_full};

/// Bytes that are written together.
const BLOCK: usize = 4096;

/// The writer's end of a file of two slots.
#[derive(Debug)]
pub(crate) struct TwoSlots {
    file: Arc<dyn File>,
    /// Bytes of a slot: a multiple of the block.
    slot: usize,
    /// A write or a sync has failed.
    failed: bool,
}

impl TwoSlots {
    /// Creates the file `name` with `first` in slot 0. It is called `temporary` until it is
    /// durable. After an error that is not half done, the directory is as it was.
    pub(crate) fn create(
        dir: &dyn Dir,
        name: &str,
        temporary: &str,
        slot: usize,
        first: &[u8],
    ) -> Result<Self, Refused> {
        let refused = |op, e| Refused::new(op, dir.path_of(name), e);
        match dir.remove(temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(refused("replace", e)),
            _ => {}
        }
        let file = dir.open(temporary, Access::CreateCached).map_err(|e| refused("create", e))?;
        let mut both = AlignedBuf::new(2 * slot);
        both[..first.len()].copy_from_slice(first);
        let named = write_full(&*file, &both, 0)
            .map_err(|e| refused("write", e))
            .and_then(|()| file.sync_data().map_err(|e| refused("sync", e)))
            .and_then(|()| dir.rename(temporary, name).map_err(|e| refused("rename", e)));
        if let Err(e) = named {
            let _ = dir.remove(temporary);
            return Err(e);
        }
        dir.sync().map_err(|e| Refused {
            op: "sync the directory of",
            ..Refused::names_not_synced(dir.path_of(name), e)
        })?;
        Ok(TwoSlots { file, slot, failed: false })
    }

    /// Opens the file and reads both slots past the page cache.
    pub(crate) fn open(
        dir: &dyn Dir,
        name: &str,
        slot: usize,
    ) -> Result<(Self, ReadSlots), Refused> {
        let refused = |op, e| Refused::new(op, dir.path_of(name), e);
        let file = dir.open(name, Access::WriteCached).map_err(|e| refused("open", e))?;
        let both = ReadSlots::read(&*file, slot).map_err(|e| refused("read", e))?;
        Ok((TwoSlots { file, slot, failed: false }, both))
    }

    /// Makes durable what was read. A killed process may have written a slot without syncing it.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Stores `bytes` in the slot of `counter`, durably.
    pub(crate) fn store(&mut self, counter: u64, bytes: &[u8]) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier write or sync of the file has failed"));
        }
        let mut blocks = AlignedBuf::new(bytes.len().next_multiple_of(BLOCK));
        blocks[..bytes.len()].copy_from_slice(bytes);
        let offset = counter % 2 * self.slot as u64;
        if let Err(e) = write_full(&*self.file, &blocks, offset) {
            self.failed = !is_no_space(&e);
            return Err(e);
        }
        let synced = self.file.sync_data();
        self.failed = synced.is_err();
        synced
    }

    /// Whether every further store fails.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }
}

/// Both slots of a file, as they were read.
#[derive(Debug)]
pub(crate) struct ReadSlots {
    both: AlignedBuf,
    len: usize,
}

impl ReadSlots {
    pub(crate) fn read(file: &dyn File, slot: usize) -> io::Result<Self> {
        let mut both = AlignedBuf::new(2 * slot);
        let len = read_full(file, &mut both, 0)?;
        Ok(ReadSlots { both, len })
    }

    /// The bytes that the file has, up to those of two slots.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.both[..self.len]
    }
}
