//! Makes a copy of some segments a log that ends at a chosen position.
//!
//! 1. Only for a copy: a directory in which a log was ever opened has a lock file, and is refused.
//! 2. The last group that stays is the only one that changes. No group repeats the hash of its
//!    header, so the chain stays whole. Records do not depend on the header of their group.
//! 3. That group states the copy's first position as the oldest one that is kept. Otherwise opening
//!    would finish a removal that the log had begun, or miss segments that were not copied.
//! 4. Everything after the last group is removed or zero, so no later group is evidence of loss.
//! 5. The segments after the end go before the last group changes. Until then the copy is the log's
//!    with another end.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use super::Directory;
use super::sealed::{first_group, own_header, walker};
use crate::error::{Error, Result};
use crate::format::{Flags, GROUP_HEADER, GroupHeader, Link, SegmentHeader};
use crate::io::fs::{Dir, sync_directory};
use crate::lsn::Lsn;
use crate::recovery::{Walker, follows};

/// Zeros written at once.
const ZEROS: usize = 1 << 20;

pub(super) fn end_copy_before(log: &Directory, end: Lsn) -> Result<Lsn> {
    refuse_a_log(log)?;
    let headers = headers(log)?;
    let end = end.as_u64();
    let Some(first) = headers.first().copied() else {
        let none = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no segment in it");
        return Err(Error::io("end a copy", log.dir.path(), none));
    };
    let candidates = headers.iter().filter(|header| header.first_group() < end);
    for (at, header) in candidates.enumerate().collect::<Vec<_>>().into_iter().rev() {
        let found = last_before(log, header, headers.get(at + 1), end)?;
        let Some(mut group) = found else { continue };
        group.oldest = first.base;
        // From the last one on: an interrupted call leaves a copy without a gap.
        for after in headers[at + 1..].iter().rev() {
            let name = log.names.segment(after.base);
            log.dir.remove(&name).map_err(|e| Error::io("remove", log.dir.path_of(&name), e))?;
        }
        write_end(log, header, &group)?;
        return Ok(Lsn::new(group.padded_end(header.block)));
    }
    Err(Error::NoRecord { lsn: Lsn::new(end) })
}

/// Refuses a directory that holds, or held, a log with a writer.
fn refuse_a_log(log: &Directory) -> Result<()> {
    let lock = log.dir.path().join(log.names.lock());
    match fs::symlink_metadata(&lock) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("look at", lock, e)),
        Ok(_) => {
            let opened = std::io::Error::new(
                std::io::ErrorKind::AlreadyExists,
                "a log was opened here; only a copy that was never opened can be ended",
            );
            Err(Error::io("end a copy", lock, opened))
        }
    }
}

/// The headers of the segments, which follow each other without a gap.
fn headers(log: &Directory) -> Result<Vec<SegmentHeader>> {
    let mut headers: Vec<SegmentHeader> = Vec::new();
    for file in log.segment_files()? {
        let header = own_header(log, file.base.as_u64())?;
        if let Some(before) = headers.last() {
            follows(&log.names, before, &header)?;
        }
        headers.push(header);
    }
    Ok(headers)
}

/// The last group of a segment that lies before `end`, without its records from there on. `None`:
/// nothing would be left of the only one.
///
/// # Errors
///
/// `Corruption` if the groups do not reach `end`, or the next segment.
fn last_before(
    log: &Directory,
    header: &SegmentHeader,
    next: Option<&SegmentHeader>,
    end: u64,
) -> Result<Option<GroupHeader>> {
    let name = log.names.segment(header.base);
    let io = |e| Error::io("read", log.dir.path_of(&name), e);
    let damaged =
        |lsn: u64, reason| Error::corruption(name.clone(), lsn - header.base, lsn, reason);
    let mut walker = walker(log, *header)?;
    let mut lsn = header.first_group();
    let mut kept: Option<GroupHeader> = None;
    let mut before: Option<Link> = None;
    while lsn < end {
        let group = match walker.group(lsn).map_err(io)? {
            Ok(group) if before.is_none_or(|link| group.follows(&link)) => group,
            // The log has left the segment here.
            found => {
                let successor = next.map(|next| first_group(log, *next)).transpose()?;
                match (before, successor) {
                    (Some(link), Some(successor)) if successor.follows(&link) => break,
                    _ => {
                        let reason =
                            found.err().map_or("a group that does not follow", |e| e.reason());
                        return Err(damaged(lsn, reason));
                    }
                }
            }
        };
        before = Some(group.link());
        lsn = group.padded_end(header.block);
        match shortened(&mut walker, &group, end).map_err(io)? {
            Ok(Some(group)) => kept = Some(group),
            Ok(None) => {}
            Err((lsn, reason)) => return Err(damaged(lsn, reason)),
        }
    }
    Ok(kept)
}

type Damaged = (u64, &'static str);

/// The group without its records from `end` on. A batch stays as a whole or not at all. `None`: the
/// group held records and makes no cut, and nothing is left of it.
fn shortened(
    walker: &mut Walker,
    group: &GroupHeader,
    end: u64,
) -> std::io::Result<std::result::Result<Option<GroupHeader>, Damaged>> {
    if group.lsn + u64::from(group.used) <= end {
        return Ok(Ok(Some(*group)));
    }
    let (mut used, mut records) = (GROUP_HEADER, 0);
    for record in walker.records(group)? {
        let record = match record {
            Ok(record) => record,
            Err((lsn, e)) => return Ok(Err((lsn, e.reason()))),
        };
        let (mut last, mut count) = (record.lsn, 0);
        for item in record.items() {
            match item {
                Ok(item) => (last, count) = (item.lsn, count + 1),
                Err(e) => return Ok(Err((record.lsn, e.reason()))),
            }
        }
        if last >= end {
            break;
        }
        let stored = u32::try_from(record.stored).unwrap_or(u32::MAX);
        (used, records) = (used.saturating_add(stored), records + count);
    }
    let is_empty = used == GROUP_HEADER && group.used > GROUP_HEADER;
    let left = GroupHeader { used, records, ..*group };
    Ok(Ok((!is_empty || group.flags.has(Flags::CUT)).then_some(left)))
}

/// Writes the header of the last group, and zeros from its last record on, durably.
fn write_end(log: &Directory, header: &SegmentHeader, group: &GroupHeader) -> Result<()> {
    let path = log.dir.path().join(log.names.segment(header.base));
    write_end_of(&path, header, group).map_err(|e| Error::io("write", &path, e))?;
    sync_directory(log.dir.path()).map_err(|e| Error::io("sync", log.dir.path(), e))
}

fn write_end_of(path: &Path, header: &SegmentHeader, group: &GroupHeader) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    let at = group.lsn - header.base;
    let mut zeros_from = at + u64::from(group.used);
    file.seek(SeekFrom::Start(zeros_from))?;
    let zeros = vec![0; ZEROS];
    while zeros_from < header.size {
        let len = (header.size - zeros_from).min(ZEROS as u64) as usize;
        file.write_all(&zeros[..len])?;
        zeros_from += len as u64;
    }
    let mut bytes = [0; GROUP_HEADER as usize];
    group.encode(&mut bytes);
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&bytes)?;
    file.sync_all()
}
