//! Finds when groups were written: each carries the wall clock of its writer.
//!
//! 1. Positions order the log, the clock does not: it may have been set back.
//! 2. Only group headers are read; reading records verifies them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Directory;
use super::files::{ListedSegment, list, medium_errors};
use super::survey::durable_end;
use super::view::View;
use crate::error::{Error, Result};
use crate::format::{GroupHeader, Link, SegmentHeader};
use crate::io::fs::File;
use crate::lsn::Lsn;
use crate::read::places::{LogPlace, bisect_segments};
use crate::recovery::Walker;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

pub(super) fn position_at(log: &Directory, time: SystemTime) -> Result<Lsn> {
    let place = LogPlace::at_time(time);
    let limit = durable_end(log).ok();
    let files = list(&log.view)?;
    let start = bisect_segments(files.len(), |at| {
        let mut first = None;
        groups(&log.view, &files[at], limit, &mut |group, _| {
            first = Some(place.is_reached_by(group));
            false
        })?;
        Ok(first)
    })?;
    let (mut found, mut last) = (None, 0);
    for file in files.iter().skip(start) {
        groups(&log.view, file, limit, &mut |group, end| {
            last = end;
            found = place.is_reached_by(group).then_some(group.lsn);
            found.is_none()
        })?;
        if found.is_some() {
            break;
        }
    }
    Ok(Lsn::new(found.or(limit).unwrap_or(last)))
}

pub(super) fn written_at(log: &Directory, lsn: Lsn) -> Result<Option<SystemTime>> {
    let (lsn, limit) = (lsn.as_u64(), durable_end(log).ok());
    let files = list(&log.view)?;
    let inside = |file: &&ListedSegment| (file.header.base..file.header.end()).contains(&lsn);
    let mut found = None;
    if let Some(file) = files.iter().find(inside) {
        groups(&log.view, file, limit, &mut |group, end| {
            if (group.lsn..end).contains(&lsn) {
                found = Some(group.wall);
            }
            end <= lsn
        })?;
    }
    Ok(found.map(|wall| UNIX_EPOCH + Duration::from_nanos(wall)))
}

/// Calls `each` with each group of a segment and its end, until it returns false. Continues after
/// damage, as a survey does. A segment that retention has removed meanwhile has no groups.
fn groups(
    log: &View,
    file: &ListedSegment,
    limit: Option<u64>,
    each: &mut dyn FnMut(&GroupHeader, u64) -> bool,
) -> Result<()> {
    if !file.walkable {
        return Ok(());
    }
    let opened = match medium_errors(log, &file.name) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(());
        }
        opened => opened?,
    };
    let SegmentHeader { base, block, .. } = file.header;
    let mut walker = Walker::ahead_with_chunk(opened as Arc<dyn File>, file.header, CHUNK);
    if let Some(limit) = limit {
        walker.read_below(limit);
    }
    let written = base.saturating_add(file.len).min(limit.unwrap_or(u64::MAX));
    let (end, mut lsn) = (file.header.end().min(written), file.header.first_group());
    let mut before: Option<Link> = None;
    while lsn < end {
        let read = walker.group(lsn).map_err(|e| Error::io("read", log.dir.path_of(&file.name), e));
        match read? {
            Ok(group) if before.is_none_or(|link| is_later(&group, &link)) => {
                before = Some(group.link());
                lsn = group.padded_end(block);
                if !each(&group, lsn) {
                    break;
                }
            }
            _ => lsn += u64::from(block),
        }
    }
    Ok(())
}

/// Returns whether a group belongs to the log, and not to a former life of its segment file.
fn is_later(group: &GroupHeader, link: &Link) -> bool {
    group.first_ordinal >= link.next_ordinal
        && group.epoch.counter >= link.epoch.counter
        && group.prev >= link.lsn
}
