//! Places the ring at the end of the log, and builds the state of the engine over it. Reads only.

use std::sync::Arc;

use super::prepare::{Prepared, Segments};
use super::{RecoveredLog, Request};
use crate::durable::Durable;
use crate::engine::io_thread::Start;
use crate::engine::log_view::LogView;
use crate::engine::retention::{Policy, Retention, times_left};
use crate::engine::spares::SpareNeed;
use crate::engine::state::LogState;
use crate::error::{Error, Result};
use crate::format::{EpochId, GroupHeader, SegmentHeader};
use crate::io::fs::Access;
use crate::lsn::Lsn;
use crate::options::Durability;
use crate::recovery::{FoundEnd, RecoveryCase, RecoveryReport, Walker};
use crate::ring::{Memory, Placement, Ring};
use crate::segment::recent::RecentGroups;
use crate::segment::{SealTime, SegmentTable};

pub(super) fn place(
    request: &Request<'_>,
    prepared: Prepared,
    memory: Memory,
) -> Result<RecoveredLog> {
    let Request { dir, names, options, clock, geometry, .. } = *request;
    let epoch =
        EpochId { counter: prepared.segments.end.highest_epoch + 1, nonce: request.nonce() };
    let report = report(&prepared, epoch);
    let placement = placement(request, &prepared);
    let Prepared { segments, epoch_waits, cuts, policy, consumers, cells, tag_floors, .. } =
        prepared;
    let Segments { live, active, active_file, spares, end } = segments;
    let closed_at = closing_times(request, &live, end.last.map(|group| group.wall))?;
    let ring = Ring::over(memory, geometry.buffer, geometry.buffers, placement);
    let table = SegmentTable::new(live.iter().copied().zip(closed_at), spares);
    let recent = RecentGroups::new(recent_limit_bytes(ring.capacity()));
    let view = LogView::new(table, dir, names, recent, cuts);
    let durable = Durable::new(end.end, options.durability != Durability::EveryGroup);
    let oldest = live[0].base;
    let state = LogState::new(ring, durable, view, (consumers, tag_floors, cells), oldest);
    state.retention.set_newest_record(newest_record(request, &live, &end)?);
    if options.on_sealed.is_none() {
        // Stated by the first group of this run, so that short runs retire segments too.
        let mut need = SpareNeed::new(&policy, state.ring.capacity() as u64);
        need.look(&state, clock.now());
        let mut retention = Retention::new(policy.clone(), clock);
        state.want_retired(retention.target(&state, clock, need.wanted()));
    }
    let start = Start {
        log_id: policy.log_id,
        epoch,
        link: end.link,
        active,
        active_file,
        oldest,
        epoch_waits,
        replaceable: replaceable(&policy, &active, &end),
        clean: end.clean,
    };
    Ok(RecoveredLog { state: Arc::new(state), policy, report, start, geometry })
}

fn placement(request: &Request<'_>, prepared: &Prepared) -> Placement {
    let Segments { active, spares, .. } = &prepared.segments;
    Placement {
        next: prepared.next,
        segment_end: active.end(),
        prepared_end: spares.last().map_or(active.end(), |spare| spare.header.end()),
        segment_size: request.geometry.segment_size,
        block: u64::from(request.geometry.block),
    }
}

fn report(prepared: &Prepared, epoch: EpochId) -> RecoveryReport {
    let Segments { live, end, .. } = &prepared.segments;
    RecoveryReport {
        case: end.case,
        oldest: Lsn::new(live[0].base),
        durable_end: Lsn::new(end.end),
        next_ordinal: end.link.next_ordinal,
        segments: live.len(),
        clean: end.clean,
        cut: end.case == RecoveryCase::Torn,
        discarded_bytes: end.discarded,
        epoch: epoch.counter,
        application_version: prepared.policy.app_version,
        temporaries_removed: prepared.temporaries_removed,
    }
}

/// The mark at the end of the log, if the epoch group may take its place.
fn replaceable(policy: &Policy, active: &SegmentHeader, found: &FoundEnd) -> Option<GroupHeader> {
    found.last.filter(|last| last.is_mark() && policy.fits(active))
}

/// Bytes of copies that are kept for followers: what is written while a follower is not scheduled,
/// which is some 10 ms.
fn recent_limit_bytes(ring: usize) -> usize {
    const MOST: usize = 64 << 20;
    ring.max(ring.saturating_mul(4).min(MOST))
}

/// When the log left each segment, for retention by age.
fn closing_times(
    request: &Request<'_>,
    live: &[SegmentHeader],
    last: Option<u64>,
) -> Result<Vec<Option<SealTime>>> {
    let Request { dir, names, options, clock, .. } = request;
    let mut times = vec![Some(SealTime::EarlierRun(None)); live.len()];
    if let Some(active) = times.last_mut() {
        *active = None;
    }
    if options.max_age.is_some() {
        let mut begun = Vec::with_capacity(live.len());
        for segment in live {
            let name = names.segment(segment.base);
            let io = |e| Error::io("read", dir.path_of(&name), e);
            let file = dir.open(&name, Access::Read).map_err(io)?;
            let mut walker = Walker::new(file, *segment);
            begun.push(walker.group(segment.first_group()).map_err(io)?.ok().map(|g| g.wall));
        }
        for (time, left) in times.iter_mut().zip(times_left(&begun, last, clock.wall())) {
            *time = Some(SealTime::EarlierRun(left));
        }
    }
    Ok(times)
}

/// LSN of the newest group that holds records: 0 if there is none. A writer ends the log with a few
/// marks at most; a writer of an earlier version may have ended it with many.
fn newest_record(request: &Request<'_>, live: &[SegmentHeader], found: &FoundEnd) -> Result<u64> {
    let Request { dir, names, .. } = request;
    let Some(mut group) = found.last else { return Ok(0) };
    let mut walker: Option<(usize, Walker)> = None;
    while group.records == 0 {
        let before = group.prev;
        let at = live.partition_point(|s| s.end() <= before);
        // That group was removed, or is not in a segment.
        if before == 0 || live.get(at).is_none_or(|s| before < s.first_group()) {
            return Ok(0);
        }
        let name = names.segment(live[at].base);
        let walker = match &mut walker {
            Some((open, walker)) if *open == at => walker,
            other => {
                let file = dir.open(&name, Access::Read);
                let file = file.map_err(|e| Error::io("open", dir.path_of(&name), e))?;
                &mut other.insert((at, Walker::new(file, live[at]))).1
            }
        };
        let read = walker.group(before).map_err(|e| Error::io("read", dir.path_of(&name), e))?;
        match read {
            Ok(found) => group = found,
            // A damaged group may hold records: its segment is kept.
            Err(_) => return Ok(before),
        }
    }
    Ok(group.lsn)
}
