//! Rejects a log that the options do not allow, one that has lost durable records, and one that
//! another writer has. Changes nothing in the directory.

use std::sync::Arc;

use super::{Examined, Request};
use crate::cells::Cells;
use crate::engine::retention::Policy;
use crate::error::{Error, Result};
use crate::format::SegmentHeader;
use crate::io::fs::{Access, Dir, File};
use crate::options::{Creation, Options};
use crate::positions::{Consumers, TagFloors, furthest_position};
use crate::recovery::{FoundEnd, Scan};
use crate::segment::cuts::Cuts;
use crate::segment::{Deadline, Names, newest_segment};

/// A log that this run may write.
pub(super) struct Checked {
    pub(super) scan: Scan,
    /// `None`: the log is to be created.
    pub(super) end: Option<FoundEnd>,
    pub(super) cuts: Cuts,
    pub(super) policy: Policy,
    pub(super) consumers: Consumers,
    pub(super) cells: Cells,
    pub(super) tag_floors: TagFloors,
    /// The segments from the active one on, open and locked.
    pub(super) claimed: Vec<Arc<dyn File>>,
}

/// Checks what was found against the options and the side files, and locks the segments.
pub(super) fn check(request: &Request<'_>, found: Examined) -> Result<Checked> {
    let Request { names, options, .. } = *request;
    let dir = &**request.dir;
    let Examined { scan, end, proven, cuts } = found;
    let oldest = scan.segments.first();
    // Checked before the lock too. Another process may have created or removed the log since then.
    check_creation(dir, names, options, oldest.is_some())?;
    check_log_id(dir, options, oldest.map(|first| first.log_id))?;
    let app_version = application_version(options, &scan.segments)?;
    let log_id = oldest.map_or_else(|| request.new_log_id(), |first| first.log_id);
    let consumers = Consumers::load(dir, names, &scan.positions, log_id, options.consumer_limit)?;
    let cells = Cells::load(dir, names, scan.has_cells, log_id)?;
    let tag_floors = TagFloors::load(dir, names, log_id)?;
    if let Some(found) = &end {
        check_position(found, furthest_position(dir, &scan.positions, &log_id))?;
        check_end(found, names, &scan.segments, proven)?;
    }
    let claimed = match &end {
        Some(found) => claim(request, &scan.segments[found.active..])?,
        None => Vec::new(),
    };
    let policy = policy(request, log_id, app_version);
    Ok(Checked { scan, end, cuts, policy, consumers, cells, tag_floors, claimed })
}

fn policy(request: &Request<'_>, log_id: [u8; 16], app_version: u32) -> Policy {
    let Request { geometry, options, .. } = request;
    Policy {
        log_id,
        segment_size: geometry.segment_size,
        block: geometry.block,
        max_group: geometry.buffer,
        app_version,
        max_segments: options.max_segments,
        max_total_bytes: options.max_total_bytes,
        max_age: options.max_age,
    }
}

/// Rejects a log that the options do not allow, before anything is created. `exists`: the directory
/// has a segment of the log.
pub(crate) fn check_creation(
    dir: &dyn Dir,
    names: &Names,
    options: &Options,
    exists: bool,
) -> Result<()> {
    let (path, prefix) = (dir.path_of(""), names.prefix().to_owned());
    match options.creation {
        Creation::Always if exists => Err(Error::LogExists { path, prefix }),
        _ if !exists && !options.may_create() => Err(Error::NoLog { path, prefix }),
        Creation::IfMissing | Creation::Never | Creation::Always => Ok(()),
    }
}

/// Rejects a log with another id than the options expect.
fn check_log_id(dir: &dyn Dir, options: &Options, found: Option<[u8; 16]>) -> Result<()> {
    match (found, options.log_id) {
        (Some(found), Some(expected)) if found != expected => {
            Err(Error::OtherLog { path: dir.path_of(""), found, expected })
        }
        _ => Ok(()),
    }
}

/// The application version of the log, or of the new log.
fn application_version(options: &Options, segments: &[SegmentHeader]) -> Result<u32> {
    let expected = options.application_version;
    match segments.first().map(|segment| segment.app_version) {
        None => Ok(expected),
        Some(found) if expected == 0 || found == expected => Ok(found),
        Some(found) => Err(Error::ApplicationVersion { found, expected }),
    }
}

/// The log ends below a position that was stored beside it.
const POSITION_ABOVE_THE_END: &str = "the log ends before the position of a consumer, or of the hook on sealed segments, or the floor of a tag, that this file holds: \
     durable records are missing. In a copy of a log that was being written, remove this file; otherwise restore \
     the segments, or run `ringwal repair`, which moves it away";

/// Rejects a log that ends below the furthest position stored beside it. The log was durable up to
/// that position when a consumer, or the hook on sealed segments, stored it.
pub(crate) fn check_position(found: &FoundEnd, furthest: Option<(u64, String)>) -> Result<()> {
    match furthest {
        Some((position, file)) if position > found.end => {
            Err(Error::corruption(file, 0, found.end, POSITION_ABOVE_THE_END))
        }
        _ => Ok(()),
    }
}

/// The log ends below the durable end that the end file states.
pub(crate) const ENDS_EARLY: &str = "the log ends before what its writer made durable on this boot of the machine, or before where it was \
     closed; restore the segments, or run `ringwal repair`, which gives up what is missing";

/// Rejects a log that ends below `proven`, the durable end that its writer stated on this boot or
/// at a close.
pub(crate) fn check_end(
    found: &FoundEnd,
    names: &Names,
    segments: &[SegmentHeader],
    proven: u64,
) -> Result<()> {
    if proven <= found.end {
        return Ok(());
    }
    let base = segments[found.active].base;
    Err(names.corruption(base, found.end, ENDS_EARLY))
}

/// Opens and locks the segments that this writer takes over. The kernel may still be writing to one
/// for a writer that was killed, or another opener may be taking it over.
fn claim(request: &Request<'_>, segments: &[SegmentHeader]) -> Result<Vec<Arc<dyn File>>> {
    let Request { dir, names, options, .. } = request;
    let deadline = Deadline::after(options.lock_wait);
    let mut claimed = Vec::new();
    for header in segments {
        let name = names.segment(header.base);
        let io = |op, e| Error::io(op, dir.path_of(&name), e);
        let file = dir.open(&name, Access::Write).map_err(|e| io("open", e))?;
        while !file.try_lock().map_err(|e| io("lock", e))? {
            if !deadline.pause() {
                return Err(request.locked(&name));
            }
        }
        claimed.push(file);
    }
    // A newer segment was created after the scan, so by another writer.
    let newest = newest_segment(&***dir, names);
    let newest = newest.map_err(|e| Error::io("list", dir.path_of(""), e))?;
    if newest > segments.last().map(|header| header.base) {
        return Err(request.locked(&names.lock()));
    }
    Ok(claimed)
}
