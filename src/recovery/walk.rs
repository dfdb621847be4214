//! Reads the groups of one segment through a window (`read_window.rs`).
//!
//! 1. A read error is never taken for the end of the file.

use std::io;
use std::sync::Arc;

use super::read_window::{FEW, ReadWindow};
use crate::format::{
    GROUP_HEADER, GroupHeader, GroupInvalid, GroupRecords, RecordInvalid, Seed, SegmentHeader,
    TagFilter, verify_wanted,
};
use crate::io::fs::{AlignedBuf, File};
use crate::segment::window::ByteWindow;

#[derive(Debug)]
pub(crate) struct Walker {
    pub(crate) header: SegmentHeader,
    seed: Seed,
    window: ReadWindow,
}

/// Bytes of a segment that their holders share.
#[derive(Debug, Clone)]
pub(crate) struct SharedChunk {
    /// Address of the first byte.
    start: u64,
    /// Number of valid bytes.
    filled: usize,
    bytes: Arc<AlignedBuf>,
}

impl SharedChunk {
    #[inline]
    pub(crate) fn held(&self) -> ByteWindow<'_> {
        ByteWindow { start: self.start, bytes: &self.bytes[..self.filled] }
    }
}

impl Walker {
    /// Creates a walker that reads little at first: for one group, or for jumps.
    pub(crate) fn new(file: Arc<dyn File>, header: SegmentHeader) -> Self {
        Walker::with_chunk(file, header, FEW)
    }

    /// Creates a walker that reads everything, `chunk` bytes at once: a multiple of the block.
    pub(crate) fn with_chunk(file: Arc<dyn File>, header: SegmentHeader, chunk: usize) -> Self {
        Walker::over(ReadWindow::new(file, &header, chunk), header)
    }

    /// Creates a walker that reads little at first, and ahead once it has read enough in sequence.
    pub(crate) fn ahead(file: Arc<dyn File>, header: SegmentHeader) -> Self {
        Walker::ahead_with_chunk(file, header, FEW)
    }

    /// Creates a walker that reads `chunk` bytes at first, and ahead once it has read enough in
    /// sequence.
    pub(crate) fn ahead_with_chunk(
        file: Arc<dyn File>,
        header: SegmentHeader,
        chunk: usize,
    ) -> Self {
        Walker::over(ReadWindow::reading_ahead(file, &header, chunk), header)
    }

    fn over(window: ReadWindow, header: SegmentHeader) -> Self {
        Walker { header, seed: Seed::new(&header.log_id), window }
    }

    /// Goes on reading ahead where `before`, the walker of the segment before, ended. What that has
    /// in memory may be gone.
    pub(crate) fn go_on_from(&mut self, before: &mut Walker) {
        self.window.go_on_from(&mut before.window);
    }

    /// Frees what reading ahead takes. The walker may read on.
    pub(crate) fn rest(&mut self) {
        self.window.rest();
    }

    /// Limits reading ahead to addresses below `limit`, which never decreases.
    pub(crate) fn read_below(&mut self, limit: u64) {
        self.window.read_below(limit.saturating_sub(self.header.base));
    }

    /// Drops what is in memory. The next call reads the file again.
    pub(crate) fn forget(&mut self) {
        self.window.forget();
    }

    /// Returns `len` bytes from `lsn` on, or fewer at the end of the file. `lsn` lies in the
    /// segment.
    fn bytes(&mut self, lsn: u64, len: usize) -> io::Result<&[u8]> {
        self.window.bytes(lsn - self.header.base, len)
    }

    /// The bytes that the last call left in the window.
    #[inline]
    pub(crate) fn held(&self) -> ByteWindow<'_> {
        ByteWindow { start: self.header.base + self.window.start(), bytes: self.window.held() }
    }

    /// The window, which the walker then leaves as it is.
    pub(crate) fn share(&self) -> SharedChunk {
        let start = self.header.base + self.window.start();
        SharedChunk { start, filled: self.window.held().len(), bytes: self.window.share() }
    }

    /// Decodes the group header at `lsn`.
    pub(crate) fn group(&mut self, lsn: u64) -> io::Result<Result<GroupHeader, GroupInvalid>> {
        // `lsn` may come from a file, so check its range before any addition.
        let header = self.header.base..=self.header.end() - u64::from(GROUP_HEADER);
        if !header.contains(&lsn) {
            return Ok(Err(GroupInvalid::NoHeader));
        }
        let header = self.header;
        let bytes = self.bytes(lsn, GROUP_HEADER as usize)?;
        Ok(GroupHeader::decode(bytes, lsn, &header))
    }

    /// Returns the records of a group.
    pub(crate) fn records(&mut self, group: &GroupHeader) -> io::Result<GroupRecords<'_>> {
        let (seed, tag) = (self.seed.clone(), group.epoch.tag());
        let bytes = self.bytes(group.lsn, group.used as usize)?;
        let body = bytes.get(GROUP_HEADER as usize..).unwrap_or_default();
        Ok(GroupRecords::new(body, group.lsn + u64::from(GROUP_HEADER), &seed, tag))
    }

    /// Checks that valid records fill the group exactly. The inner error says where they do not,
    /// and why.
    pub(crate) fn verify(
        &mut self,
        group: &GroupHeader,
    ) -> io::Result<Result<(), (u64, RecordInvalid)>> {
        if self.bytes(group.lsn, group.used as usize)?.len() != group.used as usize {
            return Ok(Err((group.lsn, RecordInvalid::Length)));
        }
        Ok(self.records(group)?.verify(group.records))
    }

    /// Checks that records fill the group exactly, and that those that `wanted` passes are valid.
    /// Sums no payload of a record that it can skip by its tag.
    pub(crate) fn verify_wanted(
        &mut self,
        group: &GroupHeader,
        wanted: &TagFilter,
    ) -> io::Result<Result<(), (u64, RecordInvalid)>> {
        let (seed, epoch_tag) = (self.seed.clone(), group.epoch.tag());
        let bytes = self.bytes(group.lsn, group.used as usize)?;
        if bytes.len() != group.used as usize {
            return Ok(Err((group.lsn, RecordInvalid::Length)));
        }
        let body = bytes.get(GROUP_HEADER as usize..).unwrap_or_default();
        let lsn = group.lsn + u64::from(GROUP_HEADER);
        Ok(verify_wanted(body, lsn, &seed, epoch_tag, group.records, wanted))
    }
}
