//! Reads one segment that the log has left, for a copy of it elsewhere.
//!
//! 1. Only reads, and takes no lock. Retention may remove and reuse the file meanwhile, unless the
//!    caller keeps it: a hook on sealed segments does while it runs.
//! 2. The first group of the next segment repeats the hash of the segment's last group. So the end
//!    of the groups is known, and damage is never taken for it.

use std::sync::Arc;

use super::{Directory, SegmentFile};
use crate::error::{Error, Result};
use crate::format::{GroupHeader, Link, SegmentHeader};
use crate::io::fs::{Access, Dir, File};
use crate::lsn::Lsn;
use crate::recovery::{Walker, follows, sound_header};

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// What a segment holds that the log has left.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SealedContent {
    /// The file. Its size is the segment's: the next segment begins at base plus size.
    pub file: SegmentFile,
    /// The log's id.
    pub log_id: [u8; 16],
    /// The application's version of its record format.
    pub application_version: u32,
    /// The first position after the last group. The rest of the file holds nothing.
    pub groups_end: Lsn,
    /// Number of application records in the log before this segment.
    pub first_ordinal: u64,
    /// Application records in it, void ones included.
    pub records: u64,
    /// The oldest position that its last group states as kept.
    pub oldest: Lsn,
    /// A hash of the header of the last group. It covers the headers of all groups before it, so
    /// two segments with one base and one hash are of the same history.
    pub chain_hash: u64,
    /// The same hash of the segment before, as the first group states it. A segment continues
    /// another one if it begins at its end and states its hash.
    pub previous_hash: u64,
    /// When the first group was written, in nanoseconds since 1970, by the clock of its writer.
    pub first_written: u64,
    /// When the last group was written.
    pub last_written: u64,
    /// The latest such time: the clock may have been set back between.
    pub latest_written: u64,
}

/// The header of the segment that begins at `base`.
pub(super) fn own_header(log: &Directory, base: u64) -> Result<SegmentHeader> {
    sound_header(&*log.dir, &log.names, base)
}

/// Opens a segment to read it from its beginning to its end.
pub(super) fn walker(log: &Directory, header: SegmentHeader) -> Result<Walker> {
    let name = log.names.segment(header.base);
    let opened = log.dir.open(&name, Access::Read);
    let file: Arc<dyn File> = opened.map_err(|e| Error::io("open", log.dir.path_of(&name), e))?;
    Ok(Walker::with_chunk(file, header, CHUNK))
}

/// The first group of a segment.
pub(super) fn first_group(log: &Directory, header: SegmentHeader) -> Result<GroupHeader> {
    let name = log.names.segment(header.base);
    let mut walker = walker(log, header)?;
    let group = walker.group(header.first_group());
    let group = group.map_err(|e| Error::io("read", log.dir.path_of(&name), e))?;
    let offset = u64::from(header.block);
    group.map_err(|e| Error::corruption(name, offset, header.first_group(), e.reason()))
}

pub(super) fn sealed_content(log: &Directory, base: Lsn) -> Result<SealedContent> {
    let header = own_header(log, base.as_u64())?;
    let next = own_header(log, header.end())?;
    let name = log.names.segment(header.base);
    follows(&log.names, &header, &next)?;
    let successor = first_group(log, next)?;
    let io = |e| Error::io("read", log.dir.path_of(&name), e);
    let damaged =
        |lsn: u64, reason| Error::corruption(name.clone(), lsn - header.base, lsn, reason);
    let mut walker = walker(log, header)?;
    let mut content = SealedContent {
        file: SegmentFile { name: name.clone(), base, size: header.size },
        log_id: header.log_id,
        application_version: header.app_version,
        groups_end: Lsn::new(header.first_group()),
        first_ordinal: 0,
        records: 0,
        oldest: Lsn::ZERO,
        chain_hash: 0,
        previous_hash: 0,
        first_written: 0,
        last_written: 0,
        latest_written: 0,
    };
    let mut before: Option<Link> = None;
    loop {
        let lsn = content.groups_end.as_u64();
        let group = walker.group(lsn).map_err(io)?;
        let group = match group {
            Ok(group) if before.is_none_or(|link| group.follows(&link)) => group,
            _ if before.is_some_and(|link| successor.follows(&link)) => return Ok(content),
            Ok(_) => return Err(damaged(lsn, "a group that does not follow")),
            Err(e) => return Err(damaged(lsn, e.reason())),
        };
        let verified = walker.verify(&group).map_err(io)?;
        verified.map_err(|(lsn, e)| damaged(lsn, e.reason()))?;
        content.add(&group, before.is_none(), header.block);
        before = Some(group.link());
    }
}

impl SealedContent {
    fn add(&mut self, group: &GroupHeader, is_first: bool, block: u32) {
        if is_first {
            (self.first_ordinal, self.first_written) = (group.first_ordinal, group.wall);
            self.previous_hash = group.prev_hash;
        }
        self.groups_end = Lsn::new(group.padded_end(block));
        self.records += u64::from(group.records);
        self.oldest = Lsn::new(group.oldest);
        self.chain_hash = group.link().hash;
        self.last_written = group.wall;
        self.latest_written = self.latest_written.max(group.wall);
    }
}
