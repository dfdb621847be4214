//! Makes what was found durable, and prepares the segments that this run begins with.
//!
//! 1. Segments at the end are removed from the last on, and those at the front from the oldest on:
//!    a crash between two removals leaves no gap.
//! 2. A segment whose block size or largest group differs from this run's is left: the next group
//!    goes to the next segment.

use std::sync::Arc;

use super::Request;
use super::check::Checked;
use crate::cells::Cells;
use crate::engine::retention::Policy;
use crate::error::{Error, Result};
use crate::format::{GROUP_HEADER, GroupHeader, SegmentHeader};
use crate::io::fs::{AlignedBuf, File, Refused, is_no_space, write_full};
use crate::positions::{Consumers, TagFloors};
use crate::recovery::{FoundEnd, RecoveryCase, Walker, make_durable, read_header};
use crate::segment::cuts::Cuts;
use crate::segment::{Haste, LockLost, Preparation, Spare, zeroes};

/// The segments on the disk, as this run begins with them.
pub(super) struct Prepared {
    pub(super) segments: Segments,
    /// LSN of the next group.
    pub(super) next: u64,
    /// The log ends with a mark, which proves it durable, or has no block for the epoch group: that
    /// group is written when something is written after it.
    pub(super) epoch_waits: bool,
    pub(super) cuts: Cuts,
    pub(super) policy: Policy,
    pub(super) consumers: Consumers,
    pub(super) cells: Cells,
    pub(super) tag_floors: TagFloors,
    pub(super) temporaries_removed: usize,
}

pub(super) struct Segments {
    /// At least one; the last is the active one.
    pub(super) live: Vec<SegmentHeader>,
    pub(super) active: SegmentHeader,
    pub(super) active_file: Arc<dyn File>,
    /// Prepared segments after the active one.
    pub(super) spares: Vec<Spare>,
    pub(super) end: FoundEnd,
}

pub(super) fn prepare(request: &Request<'_>, checked: Checked) -> Result<Prepared> {
    let Checked { scan, end, cuts, policy, consumers, cells, tag_floors, claimed } = checked;
    let dir = &**request.dir;
    let temporaries_removed =
        make_durable(dir, request.names, &scan.segments, end.as_ref(), &scan.temporaries)?;
    let mut segments = match end {
        Some(found) => take_over(request, &policy, &scan.segments, claimed, found)?,
        None => create(request, &policy)?,
    };
    // A consumer or a floor added after the last group stated the oldest LSN holds the segments of
    // that time.
    let held = consumers.holds(segments.end.end).unwrap_or(u64::MAX);
    let floor = tag_floors.lowest().map_or(u64::MAX, |(floor, _)| floor);
    let oldest = segments.end.stated_oldest.min(held).min(floor);
    finish_retention(request, &mut segments.live, oldest)?;
    let next = next_group(request, &policy, &segments)?;
    let epoch_waits = reserve_blocks(request, &policy, &mut segments, next)?;
    Ok(Prepared {
        segments,
        next,
        epoch_waits,
        cuts,
        policy,
        consumers,
        cells,
        tag_floors,
        temporaries_removed,
    })
}

/// The first segment of a new log.
fn create(request: &Request<'_>, policy: &Policy) -> Result<Segments> {
    let first = prepare_segment(request, policy, 0)?;
    let end = FoundEnd::new_log(&first.header);
    Ok(Segments {
        live: vec![first.header],
        active: first.header,
        active_file: first.file,
        spares: Vec::new(),
        end,
    })
}

/// Takes over the segments of a log. `claimed` has the files from the active segment on.
fn take_over(
    request: &Request<'_>,
    policy: &Policy,
    found_segments: &[SegmentHeader],
    claimed: Vec<Arc<dyn File>>,
    found: FoundEnd,
) -> Result<Segments> {
    let (left, from_active) = found_segments.split_at(found.active);
    let mut claimed = from_active.iter().copied().zip(claimed);
    // Nothing was ever written, and the first group would go to the next segment. Readers begin in
    // the first segment and would find nothing there, so it is created again.
    if found.case == RecoveryCase::Unwritten && !policy.fits(&found_segments[0]) {
        let spares = keep_spares(request, policy, claimed.collect())?;
        let first = prepare_segment(request, policy, found_segments[0].base)?;
        return Ok(Segments {
            live: vec![first.header],
            active: first.header,
            active_file: first.file,
            spares,
            end: FoundEnd { end: first.header.first_group(), ..found },
        });
    }
    let Some((active, active_file)) = claimed.next() else {
        let missing = std::io::ErrorKind::NotFound.into();
        return Err(Error::io("open", request.dir.path_of(""), missing));
    };
    let spares = keep_spares(request, policy, claimed.collect())?;
    let live = [left, &[active]].concat();
    Ok(Segments { live, active, active_file, spares, end: found })
}

/// Prepares the segment at `base` in full.
fn prepare_segment(request: &Request<'_>, policy: &Policy, base: u64) -> Result<Spare> {
    let Request { dir, names, clock, .. } = request;
    let mut preparation = Preparation::new(names, policy.header(base, clock.wall()), None);
    let zeroes = zeroes(policy.segment_size);
    loop {
        match preparation.step(&***dir, names, &zeroes, Haste::Full) {
            Ok(Some(spare)) => return Ok(spare),
            Ok(None) => {}
            Err(e) if is_no_space(&e.source) => return Err(Error::NoSpace),
            Err(e) if LockLost::is_in(&e.source) => return Err(request.locked(&names.lock())),
            Err(e) if e.source.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(name_taken(request, base, policy.log_id, e));
            }
            Err(Refused { op, path, source, .. }) => return Err(Error::io(op, path, source)),
        }
    }
}

/// Why a segment cannot have its name.
fn name_taken(request: &Request<'_>, base: u64, log_id: [u8; 16], e: Refused) -> Error {
    let segment = request.names.segment(base);
    match read_header(&**request.dir, &segment) {
        Ok(Ok(header)) if header.log_id != log_id => Error::ForeignSegment { segment },
        _ => Error::io(e.op, e.path, e.source),
    }
}

/// Keeps segments beyond the end as spares, up to the first that this run cannot use. Removes the
/// rest. None of them holds a group.
fn keep_spares(
    request: &Request<'_>,
    policy: &Policy,
    mut beyond: Vec<(SegmentHeader, Arc<dyn File>)>,
) -> Result<Vec<Spare>> {
    let Request { dir, names, .. } = request;
    let is_usable =
        |header: &SegmentHeader| policy.fits(header) && header.size == policy.segment_size;
    let usable = beyond.iter().take_while(|(header, _)| is_usable(header)).count();
    for (header, file) in beyond.drain(usable..).rev() {
        // Some filesystems free the name of a removed file only when it is closed.
        drop(file);
        let name = names.segment(header.base);
        let removed = dir.remove(&name).and_then(|()| dir.sync());
        removed.map_err(|e| Error::io("remove", dir.path_of(&name), e))?;
    }
    Ok(beyond.into_iter().map(|(header, file)| Spare { header, file }).collect())
}

/// Removes the segments that the last group states to be retired, and that its writer had no time
/// to remove.
fn finish_retention(
    request: &Request<'_>,
    live: &mut Vec<SegmentHeader>,
    stated_oldest: u64,
) -> Result<()> {
    let Request { dir, names, .. } = request;
    while live.len() > 1 && live[0].end() <= stated_oldest {
        let name = names.segment(live[0].base);
        let removed = match dir.remove(&name) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => dir.sync(),
        };
        removed.map_err(|e| Error::io("remove", dir.path_of(&name), e))?;
        live.remove(0);
    }
    Ok(())
}

/// LSN of the next group: the end of the log, or the end of its active segment if that is left.
fn next_group(request: &Request<'_>, policy: &Policy, segments: &Segments) -> Result<u64> {
    let Segments { active, active_file, end, .. } = segments;
    if policy.fits(active) {
        return Ok(end.end);
    }
    unlink(active_file, active, end).map_err(|e| match is_no_space(&e) {
        true => Error::NoSpace,
        false => {
            let name = request.names.segment(active.base);
            Error::io("write", request.dir.path_of(&name), e)
        }
    })?;
    Ok(active.end())
}

/// Gives the torn group at the end another link, if no group will be written over it: it would
/// still be the successor of the last whole one. Its durable mark stays, for an opening after a
/// crash of this one.
fn unlink(file: &Arc<dyn File>, segment: &SegmentHeader, found: &FoundEnd) -> std::io::Result<()> {
    let group = Walker::new(Arc::clone(file), *segment).group(found.end)?;
    let Ok(group) = group else { return Ok(()) };
    if !group.follows(&found.link) {
        return Ok(());
    }
    let mut header = [0; GROUP_HEADER as usize];
    GroupHeader { prev_hash: !group.prev_hash, ..group }.encode(&mut header);
    let mut block = AlignedBuf::new(segment.block as usize);
    block[..header.len()].copy_from_slice(&header);
    write_full(&**file, &block, found.end - segment.base)?;
    file.sync_data()
}

/// Prepares a spare if the active segment has too few blocks for what this run writes first. True:
/// the epoch group waits until something is written after it.
fn reserve_blocks(
    request: &Request<'_>,
    policy: &Policy,
    segments: &mut Segments,
    next: u64,
) -> Result<bool> {
    let Segments { active, spares, end, .. } = segments;
    // A mark proves the log durable, and no group after it needs a new epoch to be void.
    let is_marked = end.last.is_some_and(|last| last.is_mark());
    // If the active segment is left, the mark of a close needs the next one, unless the log ends
    // with such a mark.
    let stays = policy.fits(active) || end.clean;
    let mut epoch_waits =
        is_marked && stays && end.case != RecoveryCase::Torn && !request.options.front_was_taken;
    // The last block is kept for the group that makes space on a full disk. Opening does not take
    // it.
    let blocks = (active.end() - next) / u64::from(policy.block);
    let is_new = end.last.is_none();
    if spares.is_empty() && blocks < if epoch_waits || is_new { 1 } else { 2 } {
        match prepare_segment(request, policy, active.end()) {
            Ok(spare) => spares.push(spare),
            Err(Error::NoSpace) if !is_new => epoch_waits = true,
            Err(e) => return Err(e),
        }
    }
    Ok(epoch_waits)
}
