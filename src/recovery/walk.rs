//! Reads the groups of one segment through a window.
//!
//! 1. The window holds bytes of the file from an aligned offset on. It grows only to hold one
//!    group, so at most to the largest group that the segment's header allows.
//! 2. A read error is never taken for the end of the file.
//! 3. The walker writes to the window's memory only while nothing shares it. A shared window stays
//!    as it is, and the walker goes on with new memory.

use std::io;
use std::sync::Arc;

use crate::format::{
    GROUP_HEADER, GroupHeader, GroupInvalid, GroupRecords, RecordInvalid, Seed, SegmentHeader,
    TagFilter, verify_wanted,
};
use crate::io::fs::{AlignedBuf, File, read_full};
use crate::lsn::align_up;
use crate::segment::window::ByteWindow;

/// Bytes of the first read, and of a read after a jump.
const FEW: usize = 16 << 10;
/// Bytes of a read at most, unless a group is larger. Reads of this size reach the device's speed.
const MOST: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Walker {
    file: Arc<dyn File>,
    pub(crate) header: SegmentHeader,
    seed: Seed,
    /// Shared with the records that a reader handed out as [`SharedChunk`].
    window: Arc<AlignedBuf>,
    /// Bytes of the next read. Doubles up to `most` while reads are sequential: a walk over small
    /// groups then reads at the device's speed, and a walk over large groups reads headers only.
    chunk: usize,
    /// Largest `chunk`, in bytes.
    most: usize,
    /// Reading ahead stops at this address: the writer may still be writing what lies above.
    limit: u64,
    /// Offset in the file of the window's first byte.
    start: u64,
    /// Number of valid bytes in the window.
    filled: usize,
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
        // A segment may be larger than the address space.
        let at_most = |bytes: usize| (bytes as u64).min(header.size) as usize;
        let chunk = at_most(chunk);
        Walker {
            file,
            header,
            seed: Seed::new(&header.log_id),
            window: Arc::new(AlignedBuf::new(chunk)),
            chunk,
            most: at_most(MOST).max(chunk),
            limit: u64::MAX,
            start: 0,
            filled: 0,
        }
    }

    /// Limits reading ahead to addresses below `limit`, which never decreases.
    pub(crate) fn read_below(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Drops the window's content. The next call reads the file again.
    pub(crate) fn forget(&mut self) {
        self.filled = 0;
    }

    /// Returns `len` bytes from `lsn` on, or fewer at the end of the file. `lsn` lies in the
    /// segment.
    fn bytes(&mut self, lsn: u64, len: usize) -> io::Result<&[u8]> {
        let offset = lsn - self.header.base;
        let held = offset >= self.start
            && offset + len as u64 <= self.start + self.filled as u64
            && self.filled > 0;
        if !held {
            self.load(offset, len)?;
        }
        let from = (offset - self.start).min(self.filled as u64) as usize;
        let to = (from + len).min(self.filled);
        Ok(&self.window[from..to])
    }

    /// The bytes that the last call left in the window.
    #[inline]
    pub(crate) fn held(&self) -> ByteWindow<'_> {
        ByteWindow { start: self.header.base + self.start, bytes: &self.window[..self.filled] }
    }

    /// The window, which the walker then leaves as it is.
    pub(crate) fn share(&self) -> SharedChunk {
        let start = self.header.base + self.start;
        SharedChunk { start, filled: self.filled, bytes: Arc::clone(&self.window) }
    }

    #[cold]
    fn load(&mut self, offset: u64, len: usize) -> io::Result<()> {
        let block = u64::from(self.header.block);
        let start = offset / block * block;
        if self.filled > 0 {
            let next = self.start + self.filled as u64;
            let follows = start >= self.start && start <= next;
            self.chunk =
                if follows { (self.chunk * 2).min(self.most) } else { self.chunk.min(FEW) };
        }
        let asked = align_up(offset + len as u64 - start, block) as usize;
        let below = self.limit.saturating_sub(self.header.base).saturating_sub(start);
        let below = usize::try_from(below).unwrap_or(usize::MAX) / block as usize * block as usize;
        let want = self.chunk.min(below).max(asked);
        // Bytes that the window already has move to its front. Only the rest is read.
        let (from, kept) = self.kept(start, want, block as usize);
        self.filled = 0;
        match Arc::get_mut(&mut self.window) {
            Some(window) if window.len() >= want => window.copy_within(from..from + kept, 0),
            _ => {
                let mut window = AlignedBuf::new(want);
                window[..kept].copy_from_slice(&self.window[from..from + kept]);
                self.window = Arc::new(window);
            }
        }
        let end = (start + want as u64).min(self.header.size);
        let room = (end - start) as usize;
        let kept = kept.min(room);
        let Some(window) = Arc::get_mut(&mut self.window) else {
            return Err(io::Error::other("the window is shared"));
        };
        let n = read_full(&*self.file, &mut window[kept..room], start + kept as u64)?;
        self.start = start;
        self.filled = kept + n;
        Ok(())
    }

    /// The whole blocks of the window from the file's offset `start` on, up to `most` bytes: their
    /// index in the window, and their number of bytes.
    fn kept(&self, start: u64, most: usize, block: usize) -> (usize, usize) {
        if start < self.start {
            return (0, 0);
        }
        let from = (start - self.start).min(self.filled as u64) as usize;
        let kept = (self.filled - from).min(most) / block * block;
        if from.is_multiple_of(block) { (from, kept) } else { (0, 0) }
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
