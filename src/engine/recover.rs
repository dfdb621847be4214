//! Putting a log together: recover, prepare. `start.rs` takes the lock before, and starts the threads.

use std::sync::Arc;

use crate::durable::Durable;
use crate::engine::io_thread::Start;
use crate::engine::log_view::LogView;
use crate::engine::retention::{Policy, Retention, times_left};
use crate::engine::state::LogState;
use crate::error::{Error, Result};
use crate::format::{EpochId, Flags, GROUP_HEADER, GroupHeader, SegmentHeader};
use crate::io::fs::{Access, AlignedBuf, Dir, File, Refused, is_no_space, write_full};
use crate::lsn::Lsn;
use crate::options::{Creation, Durability, Geometry, Options};
use crate::positions::{Consumers, furthest_position};
use crate::recovery::{
    FoundEnd, RecoveryCase, RecoveryReport, Scan, Walker, find_end, find_end_of_rest, make_durable,
    read_header, scan,
};
use crate::ring::{Memory, Placement, Ring};
use crate::segment::cuts::{Cut, Cuts};
use crate::segment::end_file::proven_end;
use crate::segment::recent::RecentGroups;
use crate::segment::{
    Deadline, Haste, LockLost, Names, Preparation, SealTime, SegmentTable, Spare, newest_segment,
    zeroes,
};
use crate::sys::clock::Clock;

/// A log that has been recovered and not been started.
#[derive(Debug)]
pub(crate) struct RecoveredLog {
    pub(crate) state: Arc<LogState>,
    pub(crate) policy: Policy,
    pub(crate) report: RecoveryReport,
    pub(crate) start: Start,
    pub(crate) geometry: Geometry,
}

/// What opening finds before it changes anything.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) found: Scan,
    /// `None`: there is no segment.
    pub(crate) judged: Option<FoundEnd>,
    /// How far the log was durable, as its writer has said on this boot or at a close. Above the end, groups are missing.
    pub(crate) proven: u64,
    pub(crate) cuts: Cuts,
}

/// What of the segments opening may refuse. The survey, and the plan of a repair, judge by this too. Reads only.
pub(crate) fn examine(dir: &dyn Dir, names: &Names, front_was_taken: bool) -> Result<Examined> {
    // First: beside a writer the groups reach at least as far as it had said.
    let said = proven_end(dir, names);
    let found = scan(dir, names, &[])?;
    if found.segments.is_empty() {
        return Ok(Examined { found, judged: None, proven: 0, cuts: Cuts::new() });
    }
    let judged = match front_was_taken {
        true => find_end_of_rest(dir, names, &found.segments)?,
        false => find_end(dir, names, &found.segments)?,
    };
    check_counters(&judged, names, &found.segments)?;
    let said = said.filter(|said| said.log_id == found.segments[0].log_id);
    let proven = said.map_or(0, |said| said.durable_end);
    let cuts = Cuts::new();
    let live = &found.segments[..=judged.active];
    load_cuts(dir, names, live, judged.link.last_cut, 0)?.into_iter().for_each(|cut| cuts.add(cut));
    Ok(Examined { found, judged: Some(judged), proven, cuts })
}

/// Everything up to the threads: also what a simulation starts from.
pub(crate) fn recover(
    dir: &Arc<dyn Dir>,
    names: &Names,
    options: &Options,
    clock: &dyn Clock,
    random: [u8; 24],
) -> Result<RecoveredLog> {
    let geometry = options.geometry(dir.block_size())?;
    let memory = Memory::new(geometry.buffer as usize, geometry.buffers);
    let memory = memory.ok_or_else(|| {
        let e = std::io::ErrorKind::OutOfMemory.into();
        Error::io("allocate ring_capacity bytes for", dir.path_of(""), e)
    })?;
    // Everything that may be refused is looked at before anything is changed.
    let Examined { found, judged, proven, cuts } = examine(&**dir, names, options.front_was_taken)?;
    // Again: another process may have created or removed the log until its lock was this one's.
    check_creation(&**dir, names, options, !found.segments.is_empty())?;
    check_log_id(&**dir, options, found.segments.first().map(|first| first.log_id))?;
    let app_version = application_version(options, &found.segments)?;
    let log_id = match found.segments.first() {
        Some(header) => header.log_id,
        None => *random.last_chunk().unwrap_or(&[0; 16]),
    };
    let consumers =
        Consumers::load(&**dir, names, &found.positions, log_id, options.consumer_limit)?;
    if let Some(judged) = &judged {
        check_position(judged, furthest_position(&**dir, &found.positions, &log_id))?;
        check_end(judged, names, &found.segments, proven)?;
    }
    let claimed = match &judged {
        Some(judged) => claim(&**dir, names, &found.segments[judged.active..], options)?,
        None => Vec::new(),
    };
    let removed =
        make_durable(&**dir, names, &found.segments, judged.as_ref(), &found.temporaries)?;
    let policy = Policy {
        log_id,
        segment_size: geometry.segment_size,
        block: geometry.block,
        max_group: geometry.buffer,
        app_version,
        max_segments: options.max_segments,
        max_total_bytes: options.max_total_bytes,
        max_age: options.max_age,
    };
    let io = |op, name: &str, e: std::io::Error| match is_no_space(&e) {
        true => Error::NoSpace,
        false => Error::io(op, dir.path_of(name), e),
    };
    let prepare = |base: u64| {
        let mut preparation = Preparation::new(names, policy.header(base, clock.wall()), None);
        let zeroes = zeroes(policy.segment_size);
        loop {
            match preparation.step(&**dir, names, &zeroes, Haste::Full) {
                Ok(Some(spare)) => return Ok(spare),
                Ok(None) => {}
                Err(e) if is_no_space(&e.source) => return Err(Error::NoSpace),
                Err(e) if LockLost::is_in(&e.source) => {
                    return Err(locked(&**dir, &names.lock()));
                }
                Err(e) if e.source.kind() == std::io::ErrorKind::AlreadyExists => {
                    return Err(in_the_way(&**dir, names, base, log_id, e));
                }
                Err(Refused { op, path, source, .. }) => return Err(Error::io(op, path, source)),
            }
        }
    };
    let mut spares = Vec::new();
    let mut claimed = claimed.into_iter();
    let (mut live, active_file, judged) = match judged {
        // Nothing was ever written, and groups would begin in the next segment: readers, which begin in
        // the first one, would find none there.
        Some(judged)
            if judged.case == RecoveryCase::Unwritten && !policy.fits(&found.segments[0]) =>
        {
            let none = &mut spares;
            let claimed: Vec<_> = found.segments.iter().copied().zip(claimed).collect();
            keep_spares(&**dir, names, &policy, geometry.segment_size, &claimed, none)?;
            let first = prepare(found.segments[0].base)?;
            let judged = FoundEnd { end: first.header.first_group(), ..judged };
            (vec![first.header], Some(first.file), judged)
        }
        Some(judged) => {
            let (live, beyond) = found.segments.split_at(judged.active + 1);
            let active_file = claimed.next();
            let beyond: Vec<_> = beyond.iter().copied().zip(claimed).collect();
            keep_spares(&**dir, names, &policy, geometry.segment_size, &beyond, &mut spares)?;
            (live.to_vec(), active_file, judged)
        }
        None => {
            let first = prepare(0)?;
            let judged = FoundEnd::new_log(&first.header);
            (vec![first.header], Some(first.file), judged)
        }
    };
    let (Some(active), Some(active_file)) = (live.last().copied(), active_file) else {
        return Err(Error::Io {
            op: "open",
            path: dir.path_of(""),
            source: Arc::new(std::io::ErrorKind::NotFound.into()),
        });
    };
    // A consumer that came after that was stated holds what was still there.
    let held = consumers.holds(judged.end).unwrap_or(u64::MAX);
    finish_retention(&**dir, names, &mut live, judged.stated_oldest.min(held))?;
    // A segment of another block size, or for smaller groups, is left.
    let next = if policy.fits(&active) {
        judged.end
    } else {
        let unlinked = unlink(&active_file, &active, &judged);
        unlinked.map_err(|e| io("write", &names.segment(active.base), e))?;
        active.end()
    };
    // Proven durable by the mark, and nothing behind it that a new epoch would have to void.
    let mark = judged.last.filter(GroupHeader::is_mark);
    // A segment that is left for one of other settings needs another for the mark of a close, unless there is one.
    let stays = policy.fits(&active) || judged.clean;
    let mut epoch_waits =
        mark.is_some() && stays && judged.case != RecoveryCase::Torn && !options.front_was_taken;
    // The last block is for what makes room on a full disk; opening goes without one.
    let blocks = (active.end() - next) / u64::from(geometry.block);
    let is_new = judged.last.is_none();
    if spares.is_empty() && blocks < if epoch_waits || is_new { 1 } else { 2 } {
        match prepare(active.end()) {
            Ok(spare) => spares.push(spare),
            Err(Error::NoSpace) if !is_new => epoch_waits = true,
            Err(e) => return Err(e),
        }
    }
    let prepared_end = spares.last().map_or(active.end(), |s| s.header.end());
    let placement = Placement {
        next,
        segment_end: active.end(),
        prepared_end,
        segment_size: geometry.segment_size,
        block: u64::from(geometry.block),
    };
    let epoch = EpochId {
        counter: judged.highest_epoch + 1,
        nonce: u64::from_le_bytes(*random.first_chunk().unwrap_or(&[0; 8])),
    };
    let oldest = live[0].base;
    let report = RecoveryReport {
        case: judged.case,
        oldest: Lsn::new(oldest),
        durable_end: Lsn::new(judged.end),
        next_ordinal: judged.link.next_ordinal,
        segments: live.len(),
        clean: judged.clean,
        cut: judged.case == RecoveryCase::Torn,
        discarded_bytes: judged.discarded,
        epoch: epoch.counter,
        application_version: policy.app_version,
        temporaries_removed: removed,
    };
    let closed_at = closing_times(
        &**dir,
        names,
        options,
        &live,
        judged.last.map(|group| group.wall),
        clock.wall(),
    )?;
    let ring = Ring::over(memory, geometry.buffer, geometry.buffers, placement);
    let table = SegmentTable::new(live.iter().copied().zip(closed_at), spares);
    let files =
        LogView::new(table, dir, names, RecentGroups::new(tail_limit(ring.capacity())), cuts);
    let durable = Durable::new(judged.end, options.durability != Durability::EveryGroup);
    let state = LogState::new(ring, durable, files, consumers, oldest);
    state.retention.set_newest_record(newest_record(&**dir, names, &live, &judged)?);
    if options.on_sealed.is_none() {
        // Stated by the first group that is written, in however short a life.
        state.want_retired(Retention::new(policy.clone(), clock).target(&state, clock));
    }
    let replaceable = mark.filter(|_| policy.fits(&active));
    let (link, clean) = (judged.link, judged.clean);
    let start =
        Start { log_id, epoch, link, active, active_file, oldest, epoch_waits, replaceable, clean };
    Ok(RecoveredLog { state: Arc::new(state), policy, report, start, geometry })
}

/// What keeps a segment from getting its name.
fn in_the_way(dir: &dyn Dir, names: &Names, base: u64, log_id: [u8; 16], e: Refused) -> Error {
    let segment = names.segment(base);
    match read_header(dir, &segment) {
        Ok(Ok(header)) if header.log_id != log_id => Error::ForeignSegment { segment },
        _ => Error::io(e.op, e.path, e.source),
    }
}

/// Removes what the last group states to be retired, and the writer had no time to remove. The oldest first, so that no
/// crash leaves a gap.
fn finish_retention(
    dir: &dyn Dir,
    names: &Names,
    live: &mut Vec<SegmentHeader>,
    stated_oldest: u64,
) -> Result<()> {
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

/// The newest group that holds records: 0 if there is none. The log ends with a few marks at most that its writer has
/// written of its own accord; one of an earlier version may end with many.
fn newest_record(
    dir: &dyn Dir,
    names: &Names,
    live: &[SegmentHeader],
    judged: &FoundEnd,
) -> Result<u64> {
    let Some(mut group) = judged.last else { return Ok(0) };
    let mut walker: Option<(usize, Walker)> = None;
    while group.records == 0 {
        let before = group.prev;
        let at = live.partition_point(|s| s.end() <= before);
        // Of what has been removed, or is damaged, nothing is known.
        if before == 0 || live.get(at).is_none_or(|s| before < s.first_group()) {
            return Ok(0);
        }
        let walker = match &mut walker {
            Some((open, walker)) if *open == at => walker,
            other => {
                let name = names.segment(live[at].base);
                let file = dir.open(&name, Access::Read);
                let file = file.map_err(|e| Error::io("open", dir.path_of(&name), e))?;
                &mut other.insert((at, Walker::new(file, live[at]))).1
            }
        };
        let name = names.segment(live[at].base);
        let read = walker.group(before).map_err(|e| Error::io("read", dir.path_of(&name), e))?;
        match read {
            Ok(found) => group = found,
            // Kept until it is known better.
            Err(_) => return Ok(before),
        }
    }
    Ok(group.lsn)
}

/// Bytes of copies kept for followers: what comes in while one is not let run, which is some 10 ms.
fn tail_limit(ring: usize) -> usize {
    const MOST: usize = 64 << 20;
    ring.max(ring.saturating_mul(4).min(MOST))
}

/// Refuses a log that the options do not allow, before anything is created. `exists`: the directory has a segment of it.
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

/// Refuses another log than the one that the options expect.
fn check_log_id(dir: &dyn Dir, options: &Options, found: Option<[u8; 16]>) -> Result<()> {
    match (found, options.log_id) {
        (Some(found), Some(expected)) if found != expected => {
            Err(Error::OtherLog { path: dir.path_of(""), found, expected })
        }
        _ => Ok(()),
    }
}

/// The log's, or that of a new log.
fn application_version(options: &Options, segments: &[SegmentHeader]) -> Result<u32> {
    let expected = options.application_version;
    match segments.first().map(|segment| segment.app_version) {
        None => Ok(expected),
        Some(found) if expected == 0 || found == expected => Ok(found),
        Some(found) => Err(Error::ApplicationVersion { found, expected }),
    }
}

/// Counters that this writer could count to their end are not what a writer has written.
fn check_counters(judged: &FoundEnd, names: &Names, segments: &[SegmentHeader]) -> Result<()> {
    const MOST: u64 = 1 << 63;
    let reason = match (judged.highest_epoch < MOST, judged.link.next_ordinal < MOST) {
        (true, true) => return Ok(()),
        (false, _) => "epoch counter",
        (true, false) => "ordinal",
    };
    let base = segments[judged.active].base;
    Err(names.corruption(base, judged.link.lsn, reason))
}

/// Why a log is refused whose end lies below the position that a file beside it holds.
pub(crate) const POSITION_ABOVE_THE_END: &str = "the log ends before the position of a consumer, or of the hook on sealed segments, that this file holds: \
     durable records are missing. In a copy of a log that was being written, remove this file; otherwise restore \
     the segments, or run `ringwal repair`, which moves it away";

/// A position that a consumer, or the hook on sealed segments, has stored was durable then: a log that ends
/// below has lost what was.
pub(crate) fn check_position(judged: &FoundEnd, furthest: Option<(u64, String)>) -> Result<()> {
    match furthest {
        Some((position, file)) if position > judged.end => {
            Err(Error::corruption(file, 0, judged.end, POSITION_ABOVE_THE_END))
        }
        _ => Ok(()),
    }
}

/// The end file of this boot says more than the groups do.
pub(crate) const ENDS_EARLY: &str = "the log ends before what its writer made durable on this boot of the machine, or before where it was \
     closed; restore the segments, or run `ringwal repair`, which gives up what is missing";

/// A log that ends below what its writer has said on this boot to be durable has lost what was.
pub(crate) fn check_end(
    judged: &FoundEnd,
    names: &Names,
    segments: &[SegmentHeader],
    proven: u64,
) -> Result<()> {
    if proven <= judged.end {
        return Ok(());
    }
    let base = segments[judged.active].base;
    Err(names.corruption(base, judged.end, ENDS_EARLY))
}

/// The cuts that concern what is kept, ascending: each states the one before it, the last group the last. Those at or
/// below `known` are left out.
pub(crate) fn load_cuts(
    dir: &dyn Dir,
    names: &Names,
    live: &[SegmentHeader],
    last: u64,
    known: u64,
) -> Result<Vec<Cut>> {
    let mut found = Vec::new();
    let mut next = last;
    let mut open: Option<Walker> = None;
    while next > known && live.first().is_some_and(|oldest| next >= oldest.base) {
        let at = live.partition_point(|s| s.end() <= next).min(live.len() - 1);
        let name = names.segment(live[at].base);
        let io = |op, e| Error::io(op, dir.path_of(&name), e);
        let walker = match &mut open {
            Some(walker) if walker.header == live[at] => walker,
            other => {
                let file = dir.open(&name, Access::Read).map_err(|e| io("open", e))?;
                other.insert(Walker::new(file, live[at]))
            }
        };
        match walker.group(next).map_err(|e| io("read", e))? {
            Ok(group) if group.flags.has(Flags::CUT) => {
                found.push(Cut { from: group.cut_from, to: group.lsn });
                // Below it: the header would not be valid otherwise.
                next = group.last_cut;
            }
            _ => {
                return Err(names.corruption(live[at].base, next, "a cut group is missing"));
            }
        }
    }
    found.reverse();
    Ok(found)
}

/// A group that was cut at the end, and that no other will be written over, would still be the successor
/// of the one before it: its header gets another link. Its mark stays, for an open that comes after a
/// crash of this one.
fn unlink(file: &Arc<dyn File>, segment: &SegmentHeader, judged: &FoundEnd) -> std::io::Result<()> {
    let group = Walker::new(Arc::clone(file), *segment).group(judged.end)?;
    let Ok(group) = group else { return Ok(()) };
    if !group.follows(&judged.link) {
        return Ok(());
    }
    let mut header = [0; GROUP_HEADER as usize];
    GroupHeader { prev_hash: !group.prev_hash, ..group }.encode(&mut header);
    let mut block = AlignedBuf::new(segment.block as usize);
    block[..header.len()].copy_from_slice(&header);
    write_full(&**file, &block, judged.end - segment.base)?;
    file.sync_data()
}

/// Segments beyond the end hold nothing: kept as spares if they are as this open wants them, removed
/// from the last on if not.
fn keep_spares(
    dir: &dyn Dir,
    names: &Names,
    policy: &Policy,
    size: u64,
    beyond: &[(SegmentHeader, Arc<dyn File>)],
    spares: &mut Vec<Spare>,
) -> Result<()> {
    let usable = beyond.iter().take_while(|(h, _)| policy.fits(h) && h.size == size).count();
    for (header, _) in beyond[usable..].iter().rev() {
        let name = names.segment(header.base);
        let removed = dir.remove(&name).and_then(|()| dir.sync());
        removed.map_err(|e| Error::io("remove", dir.path_of(&name), e))?;
    }
    for (header, file) in &beyond[..usable] {
        spares.push(Spare { header: *header, file: Arc::clone(file) });
    }
    Ok(())
}

/// Opens the segments that this writer takes over and locks them: those that the kernel may still write
/// to for one that was killed, and those that another opener is taking over.
fn claim(
    dir: &dyn Dir,
    names: &Names,
    segments: &[SegmentHeader],
    options: &Options,
) -> Result<Vec<Arc<dyn File>>> {
    let deadline = Deadline::after(options.lock_wait);
    let mut claimed = Vec::new();
    for header in segments {
        let name = names.segment(header.base);
        let io = |op, e| Error::io(op, dir.path_of(&name), e);
        let file = dir.open(&name, Access::Write).map_err(|e| io("open", e))?;
        while !file.try_lock().map_err(|e| io("lock", e))? {
            if !deadline.pause() {
                return Err(locked(dir, &name));
            }
        }
        claimed.push(file);
    }
    // A segment that came meanwhile is another writer's.
    let newest = newest_segment(dir, names).map_err(|e| Error::io("list", dir.path_of(""), e))?;
    if newest > segments.last().map(|header| header.base) {
        return Err(locked(dir, &names.lock()));
    }
    Ok(claimed)
}

/// By a writer whose lock file was removed, or by one that came after this one's was.
fn locked(dir: &dyn Dir, name: &str) -> Error {
    Error::Locked { path: dir.path_of(name), pid: None }
}

/// When each segment was left, for retention by age.
fn closing_times(
    dir: &dyn Dir,
    names: &Names,
    options: &Options,
    live: &[SegmentHeader],
    last: Option<u64>,
    now: u64,
) -> Result<Vec<Option<SealTime>>> {
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
        for (time, left) in times.iter_mut().zip(times_left(&begun, last, now)) {
            *time = Some(SealTime::EarlierRun(left));
        }
    }
    Ok(times)
}

/// Bytes for the log id and the epoch's nonce. They need to differ, not to be secret.
pub(crate) fn entropy() -> [u8; 24] {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut bytes = [0; 24];
    for chunk in bytes.chunks_mut(8) {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        hasher.write_u128(now.map_or(0, |d| d.as_nanos()));
        chunk.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    bytes
}
