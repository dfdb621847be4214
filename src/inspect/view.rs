//! A directory as a survey sees it: as it is, or as a repair would leave it.
//!
//! 1. Nothing here writes.
//! 2. A repair is simulated by reading through its plan: files are hidden, or have another header,
//!    another length, or zeros after some byte. So a plan is judged before any file is moved.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::files::{ListedSegment, Wrong};
use crate::format::{SEGMENT_HEADER, STAMP, SegmentHeader, stamp};
use crate::io::fs::{Access, Dir, Entry, File};
use crate::lsn::align_up;
use crate::segment::Names;

/// A directory with a log, for reading only.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) dir: Arc<dyn Dir>,
    pub(super) names: Names,
}

impl View {
    pub(super) fn path(&self) -> PathBuf {
        self.dir.path_of("").components().collect()
    }
}

/// The replacement of a segment file: its kept bytes, unwritten space after them, and a rebuilt
/// header if its own is damaged.
#[derive(Debug, Clone)]
pub(super) struct Replacement {
    pub(super) name: String,
    pub(super) header: SegmentHeader,
    pub(super) new_header: bool,
    /// Bytes of the file that stay as they are.
    pub(super) kept: u64,
}

impl Replacement {
    /// The file with a rebuilt header and its proper length.
    pub(super) fn rebuilt(file: &ListedSegment) -> Self {
        Replacement {
            name: file.name.clone(),
            header: file.header,
            new_header: matches!(file.wrong, Some(Wrong::Header(_))),
            kept: file.len.min(file.header.size),
        }
    }

    /// The encoded header, for a file whose header is rebuilt.
    pub(super) fn header_bytes(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        self.header.encode(&mut bytes);
        bytes
    }

    /// Addresses of the stamps in what is unwritten.
    pub(super) fn stamps(&self) -> impl Iterator<Item = u64> + '_ {
        let unwritten = |lsn: &u64| lsn - self.header.base >= self.kept;
        self.header.stamps_from_the_end().take_while(unwritten)
    }
}

/// A directory as a repair would leave it.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) dir: Arc<dyn Dir>,
    pub(super) hidden: BTreeSet<String>,
    pub(super) replaced: BTreeMap<String, Replacement>,
}

impl Dir for Planned {
    fn list(&self) -> io::Result<Vec<Entry>> {
        let mut entries = self.dir.list()?;
        entries.retain(|entry| !self.hidden.contains(&entry.name));
        for entry in &mut entries {
            if let Some(replacement) = self.replaced.get(&entry.name) {
                entry.len = replacement.header.size;
            }
        }
        Ok(entries)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        if !matches!(access, Access::Read | Access::ReadDevice) {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if self.hidden.contains(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = self.dir.open(name, access)?;
        Ok(match self.replaced.get(name) {
            Some(replacement) => Arc::new(PlannedFile { file, replacement: replacement.clone() }),
            None => file,
        })
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn block_size(&self) -> u32 {
        self.dir.block_size()
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.dir.path_of(name)
    }
}

#[derive(Debug)]
struct PlannedFile {
    file: Arc<dyn File>,
    replacement: Replacement,
}

impl File for PlannedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let Replacement { header, new_header, kept, .. } = &self.replacement;
        let len = header.size.saturating_sub(offset).min(buf.len() as u64) as usize;
        let buf = &mut buf[..len];
        buf.fill(0);
        let block = u64::from(header.block);
        // Reads whole blocks, so that aligned requests stay aligned. Bytes that are not kept may be
        // unreadable.
        let from = if *new_header { block.saturating_sub(offset).min(len as u64) } else { 0 };
        let to = align_up(*kept, block).saturating_sub(offset).clamp(from, len as u64);
        let mut at = from as usize;
        while at < to as usize {
            match self.file.read_at(&mut buf[at..to as usize], offset + at as u64)? {
                0 => break,
                n => at += n,
            }
        }
        let behind = kept.saturating_sub(offset).min(len as u64) as usize;
        buf[behind.max(from as usize)..].fill(0);
        let end = offset + len as u64;
        if *new_header && offset < SEGMENT_HEADER as u64 {
            put_at(buf, offset, 0, &self.replacement.header_bytes());
        }
        for lsn in self.replacement.stamps() {
            let at = lsn - header.base;
            if at < end && at + STAMP as u64 > offset {
                put_at(buf, offset, at, &stamp(lsn, &header.log_id));
            }
        }
        Ok(len)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.replacement.header.size)
    }

    fn links(&self) -> io::Result<u64> {
        self.file.links()
    }

    fn write_zeroes(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn is_direct(&self) -> bool {
        self.file.is_direct()
    }

    fn raw_fd(&self) -> Option<i32> {
        None
    }
}

/// Copies the part of `bytes`, at `at` in the file, that overlaps a buffer beginning at `offset`.
fn put_at(buf: &mut [u8], offset: u64, at: u64, bytes: &[u8]) {
    for (n, byte) in bytes.iter().enumerate() {
        let place = (at + n as u64).checked_sub(offset).and_then(|n| usize::try_from(n).ok());
        if let Some(to) = place.and_then(|n| buf.get_mut(n)) {
            *to = *byte;
        }
    }
}
