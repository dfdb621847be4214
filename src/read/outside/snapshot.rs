//! The snapshot that a reading process has of the directory, and how it is brought up to date.
//!
//! The log is in one of three states (`segment/end_file.rs`):
//!
//! 1. A writer states the durable end. Its statement is checked against the groups once, and
//!    against the list of segments each time. If these do not reach it, records were lost.
//! 2. There is no writer: the end is where opening would find it. A statement of the last writer,
//!    of this boot and directory, is damage if it lies above that end, and stale if it lies below.
//!    The end is kept until a group follows.
//! 3. Neither is snapshot: the end is what the groups' durable marks prove.
//!
//! The end that is reported never decreases.

use std::sync::Arc;
use std::time::Duration;

use super::tip::{Tip, TipBasis, TipChange};
use crate::engine::log_view::LogView;
use crate::engine::recover::{ENDS_EARLY, check_end, check_position, load_cuts};
use crate::error::{Error, Result};
use crate::format::{SegmentHeader, StatedEnd};
use crate::io::fs::{Access, Dir, OsDir};
use crate::positions::furthest_position;
use crate::recovery::{
    MISSING, Scan, Walker, find_end, find_end_beside_a_writer, is_gone, read_header, scan,
    states_oldest,
};
use crate::segment::cuts::Cuts;
use crate::segment::end_file::{EndFileOrigin, EndFileReader, WriterStatus, is_written};
use crate::segment::recent::RecentGroups;
use crate::segment::{Names, SegmentTable};

/// Tries at reading a directory that the writer changes meanwhile.
const TRIES: u32 = 60;
/// Tries while no writer is there that could change it. More than one: a writer may have been there
/// during one of them only.
const TRIES_WITHOUT_WRITER: u32 = 4;
/// The pause between two tries. It doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// Reads of the end file until the list of segments has caught up with it.
const END_READS: u32 = 5;

/// What a reading process knows of a log's directory.
#[derive(Debug)]
pub(super) struct Snapshot {
    segments: Vec<SegmentHeader>,
    /// Names of the files that hold positions.
    positions: Vec<String>,
    end: u64,
    /// The durable end before the segments were listed.
    listed_end: u64,
    end_file: EndFileReader,
    newest_cut: u64,
    end_file_check: EndFileCheck,
    /// The chain's end, while no writer states the durable end.
    tip: Option<Tip>,
}

/// Whether the groups have confirmed an end file: its writer writes this directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndFileCheck {
    Pending,
    Confirmed,
}

pub(super) fn open(dir: &Arc<OsDir>, prefix: &str) -> Result<(Arc<LogView>, Snapshot)> {
    let names = Names::new(prefix);
    let table = SegmentTable::new([], []);
    let state: Arc<dyn Dir> = Arc::<OsDir>::clone(dir);
    let view = Arc::new(LogView::new(table, &state, &names, RecentGroups::new(0), Cuts::new()));
    view.leave();
    if view.oldest_there().map_err(|e| Error::io("list", dir.path(), e))?.is_none() {
        return Err(no_log(&view));
    }
    let mut snapshot = Snapshot {
        segments: Vec::new(),
        positions: Vec::new(),
        end: 0,
        listed_end: 0,
        end_file: EndFileReader::default(),
        newest_cut: 0,
        end_file_check: EndFileCheck::Pending,
        tip: None,
    };
    retry(&view, || update(&view, &mut snapshot, Listing::Stale))?;
    Ok((view, snapshot))
}

fn no_log(view: &LogView) -> Error {
    let none = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no log in it");
    Error::io("read", view.dir.path_of(""), none)
}

pub(super) fn application_version(snapshot: &Snapshot) -> u32 {
    snapshot.segments.first().map_or(0, |segment| segment.app_version)
}

/// The id of the log.
pub(super) fn log_id(snapshot: &Snapshot) -> [u8; 16] {
    snapshot.segments.first().map_or([0; 16], |segment| segment.log_id)
}

/// Whether a writer stated the durable end when it was read last.
#[cfg(linux_calls)]
pub(super) fn has_reporting_writer(snapshot: &Snapshot) -> bool {
    snapshot.tip.is_none()
}

/// Reads which segments the directory has.
pub(super) fn list(view: &LogView, snapshot: &mut Snapshot) -> Result<()> {
    retry(view, || list_once(view, snapshot))
}

fn list_once(view: &LogView, snapshot: &mut Snapshot) -> Result<()> {
    let Scan { segments, positions, .. } =
        scan(&*view.dir, &view.names, snapshot.final_segments())?;
    let Some(first) = segments.first() else { return Err(no_log(view)) };
    // Reading the durable end does not check the front of the log again.
    if let Some(before) = snapshot.segments.first()
        && snapshot.end > 0
        && first.base > before.base
        && !states_oldest(&*view.dir, &view.names, first.base)?
    {
        return Err(view.names.corruption(before.base, before.base, MISSING));
    }
    view.table.replace(&segments);
    view.cuts.forget_below(first.base);
    snapshot.segments = segments;
    snapshot.positions = positions;
    Ok(())
}

/// Finds the oldest known segment that is still there, by its name: listing many segments takes
/// longer than retention takes to remove some. False: all are gone.
///
/// Only readers begin there. The list keeps what it knows, so the next one still asks who removed
/// the segments.
pub(super) fn skip_removed(view: &LogView, snapshot: &Snapshot) -> bool {
    let is_removed = |segment: &SegmentHeader| {
        read_header(&*view.dir, &view.names.segment(segment.base)).is_err_and(|e| is_gone(&e))
    };
    // Retention removes the oldest first.
    let rest = &snapshot.segments[snapshot.segments.partition_point(is_removed)..];
    if !rest.is_empty() {
        view.table.replace(rest);
    }
    !rest.is_empty()
}

/// Reads the durable end.
pub(super) fn refresh(view: &LogView, snapshot: &mut Snapshot) -> Result<u64> {
    let mut listing = Listing::Current;
    retry(view, || update(view, snapshot, std::mem::replace(&mut listing, Listing::Stale)))
}

/// Whether the list of segments may differ from the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    Current,
    Stale,
}

fn update(view: &LogView, snapshot: &mut Snapshot, mut listing: Listing) -> Result<u64> {
    for _ in 0..END_READS {
        let writer = snapshot.end_file.read(&*view.dir, &view.names);
        if listing == Listing::Stale {
            list_beside(view, snapshot, &writer)?;
            listing = Listing::Current;
            if matches!(writer, WriterStatus::Reporting { .. }) {
                // The statement is older than the list, so retention may have removed its segment.
                continue;
            }
        }
        let of_this_log = |stated: &StatedEnd| {
            snapshot.segments.first().is_some_and(|segment| segment.log_id == stated.log_id)
        };
        let done = match writer {
            WriterStatus::Reporting { stated, origin } if of_this_log(&stated) => {
                match follow_end_file(view, snapshot, &stated, origin)? {
                    EndFileVerdict::Followed => true,
                    EndFileVerdict::Beyond => {
                        listing = Listing::Stale;
                        false
                    }
                    EndFileVerdict::Elsewhere => {
                        find_end_by_marks(view, snapshot, None)?;
                        true
                    }
                }
            }
            WriterStatus::Reporting { .. } => {
                find_end_by_marks(view, snapshot, None)?;
                true
            }
            WriterStatus::Silent(stated) => {
                let stated = stated.filter(of_this_log);
                find_end_by_marks(view, snapshot, stated)?;
                true
            }
            WriterStatus::Absent(stated) => {
                let stated = stated.filter(of_this_log);
                find_end_by_recovery(view, snapshot, stated)?
            }
        };
        if done {
            return Ok(snapshot.end);
        }
    }
    // The stated end stays beyond the segments. Finding the end may show what is missing.
    find_end(&*view.dir, &view.names, &snapshot.segments)?;
    let last = snapshot.segments.last().map(SegmentHeader::end);
    Err(last.map_or_else(|| no_log(view), |end| view.names.corruption(end, end, MISSING)))
}

/// Lists the segments after the end file was read: what that states was durable before the list.
fn list_beside(view: &LogView, snapshot: &mut Snapshot, writer: &WriterStatus) -> Result<()> {
    let WriterStatus::Reporting { stated, .. } = writer else { return list_once(view, snapshot) };
    let is_foreign =
        |snapshot: &Snapshot| snapshot.segments.first().is_none_or(|s| s.log_id != stated.log_id);
    if snapshot.segments.is_empty() || !is_foreign(snapshot) {
        snapshot.listed_end = snapshot.listed_end.max(stated.durable_end);
    }
    list_once(view, snapshot)?;
    if is_foreign(snapshot) {
        snapshot.listed_end = snapshot.end;
    }
    Ok(())
}

/// How a statement in the end file compares with the directory.
enum EndFileVerdict {
    Followed,
    /// It lies beyond the segments that can be found.
    Beyond,
    /// The groups do not reach it, and need not: it is about another directory.
    Elsewhere,
}

fn follow_end_file(
    view: &LogView,
    snapshot: &mut Snapshot,
    stated: &StatedEnd,
    origin: EndFileOrigin,
) -> Result<EndFileVerdict> {
    let is_own = origin == EndFileOrigin::ThisDirectory;
    if stated.durable_end > snapshot.end || snapshot.end_file_check == EndFileCheck::Pending {
        if !extend(view, snapshot, stated.durable_end)? {
            return Ok(if is_own { EndFileVerdict::Beyond } else { EndFileVerdict::Elsewhere });
        }
        if snapshot.end_file_check == EndFileCheck::Pending {
            match check_reach(view, &snapshot.segments, stated.durable_end)? {
                Ok(oldest) => check_front(view, snapshot, oldest)?,
                Err((segment, at)) if is_own => {
                    return Err(view.names.corruption(segment.base, at, ENDS_EARLY));
                }
                Err(_) => return Ok(EndFileVerdict::Elsewhere),
            }
            snapshot.end_file_check = EndFileCheck::Confirmed;
        }
        advance(view, snapshot, stated.durable_end, stated.newest_cut)?;
    }
    snapshot.tip = None;
    Ok(EndFileVerdict::Followed)
}

/// Checks that no segment at or above `oldest`, the oldest that the groups state, is missing.
fn check_front(view: &LogView, snapshot: &Snapshot, oldest: u64) -> Result<()> {
    match snapshot.segments.first() {
        Some(first) if first.base > oldest => Err(view.names.corruption(oldest, oldest, MISSING)),
        _ => Ok(()),
    }
}

/// Finds the end that the groups' durable marks prove.
fn find_end_by_marks(
    view: &LogView,
    snapshot: &mut Snapshot,
    stated: Option<StatedEnd>,
) -> Result<()> {
    let mut tip = match snapshot.tip.take() {
        Some(mut tip) => match tip.advance(view)? {
            TipChange::Lost => find_tip(view, snapshot)?,
            TipChange::Unchanged | TipChange::Extended => tip,
        },
        None => find_tip(view, snapshot)?,
    };
    tip.basis = TipBasis::DurableMarks;
    let first = snapshot.segments.first().map_or(0, SegmentHeader::first_group);
    let mut end = tip.mark().max(first);
    if let Some(stated) = stated
        && stated.durable_end <= tip.end()
        && stated.durable_end > end
    {
        // The statement was true on this boot. It still is, if the groups reach it.
        if snapshot.end_file_check == EndFileCheck::Pending
            && extend(view, snapshot, stated.durable_end)?
            && check_reach(view, &snapshot.segments, stated.durable_end)?.is_ok()
        {
            snapshot.end_file_check = EndFileCheck::Confirmed;
        }
        if snapshot.end_file_check == EndFileCheck::Confirmed {
            end = stated.durable_end;
        }
    }
    let last_cut = tip.last_cut();
    snapshot.tip = Some(tip);
    if !extend(view, snapshot, end)? {
        list_once(view, snapshot)?;
        snapshot.listed_end = snapshot.listed_end.max(end);
    }
    advance(view, snapshot, end, last_cut)
}

fn find_tip(view: &LogView, snapshot: &mut Snapshot) -> Result<Tip> {
    list_once(view, snapshot)?;
    let judged = find_end_beside_a_writer(&*view.dir, &view.names, &snapshot.segments)?;
    Tip::new(view, snapshot.segments[judged.active], &judged, TipBasis::DurableMarks)
}

/// Finds the end as opening the log would. False: a writer came meanwhile, and may have written.
fn find_end_by_recovery(
    view: &LogView,
    snapshot: &mut Snapshot,
    stated: Option<StatedEnd>,
) -> Result<bool> {
    let proven = stated.map_or(0, |stated| stated.durable_end).max(snapshot.end);
    if let Some(tip) = &mut snapshot.tip
        && tip.basis == TipBasis::Recovery
        && tip.end() >= proven
        && tip.advance(view)? == TipChange::Unchanged
    {
        return Ok(true);
    }
    snapshot.tip = None;
    // Before the end: a position that is stored later may lie above the end that is found.
    let id = snapshot.segments.first().map(|header| header.log_id).unwrap_or_default();
    let furthest = furthest_position(&*view.dir, &snapshot.positions, &id);
    list_once(view, snapshot)?;
    let judged = find_end(&*view.dir, &view.names, &snapshot.segments)?;
    check_position(&judged, furthest)?;
    check_end(&judged, &view.names, &snapshot.segments, proven)?;
    let tip = Tip::new(view, snapshot.segments[judged.active], &judged, TipBasis::Recovery)?;
    if is_written(&*view.dir, &view.names) != Some(false) {
        return Ok(false);
    }
    snapshot.tip = Some(tip);
    snapshot.listed_end = snapshot.listed_end.max(judged.end);
    advance(view, snapshot, judged.end, judged.link.last_cut)?;
    Ok(true)
}

/// Reads the headers of the segments up to `end`, which is durable. False: one is missing.
///
/// A writer may have created again a segment that held nothing durable when it was listed. The name
/// of each segment follows from the one before.
fn extend(view: &LogView, snapshot: &mut Snapshot, end: u64) -> Result<bool> {
    let mut at = snapshot.final_segments().len();
    if at == 0 {
        return Ok(false);
    }
    let mut changed = false;
    while snapshot.segments[at - 1].end() < end {
        let before = snapshot.segments[at - 1];
        let base = before.end();
        match read_header(&*view.dir, &view.names.segment(base)) {
            Ok(Ok(header)) if header.base == base && header.log_id == before.log_id => {
                if snapshot.segments.get(at) != Some(&header) {
                    snapshot.segments.truncate(at);
                    snapshot.segments.push(header);
                    changed = true;
                }
                at += 1;
            }
            Ok(_) => return Ok(false),
            Err(e) if is_gone(&e) => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    if changed {
        view.table.replace(&snapshot.segments);
    }
    snapshot.listed_end = snapshot.listed_end.max(end);
    Ok(true)
}

/// Raises the end. The cuts below it come first, so a reader below the end knows of all of them.
fn advance(view: &LogView, snapshot: &mut Snapshot, end: u64, last_cut: u64) -> Result<()> {
    if last_cut > snapshot.newest_cut {
        let (dir, segments) = (&*view.dir, &snapshot.segments);
        // One at or above the end is not durable yet.
        for cut in load_cuts(dir, &view.names, segments, last_cut, snapshot.newest_cut)? {
            if cut.to < end {
                view.cuts.add(cut);
                snapshot.newest_cut = cut.to;
            }
        }
    }
    snapshot.end = snapshot.end.max(end);
    Ok(())
}

impl Snapshot {
    /// The segments that held something durable when their headers were read: these are final.
    fn final_segments(&self) -> &[SegmentHeader] {
        let is_final = |header: &SegmentHeader| header.first_group() < self.listed_end;
        &self.segments[..self.segments.partition_point(is_final)]
    }
}

/// Whether the groups of the segment of `end` reach it.
///
/// If they do, returns the oldest position that the last of them states, and otherwise where they
/// end.
fn check_reach(
    view: &LogView,
    segments: &[SegmentHeader],
    end: u64,
) -> Result<std::result::Result<u64, (SegmentHeader, u64)>> {
    let at = segments.partition_point(|header| header.end() < end);
    let Some(header) = segments.get(at).or(segments.last()) else { return Err(no_log(view)) };
    let mut walker = Walker::ahead(view.open_segment(header.base, Access::Read)?, *header);
    walker.read_below(end);
    let (mut lsn, mut link) = (header.first_group(), None);
    let mut oldest = None;
    while lsn < end {
        match walker.group(lsn).map_err(|e| view.segment_error("read", header.base, e))? {
            Ok(group) if link.is_none_or(|link| group.follows(&link)) => {
                lsn = group.padded_end(header.block);
                link = Some(group.link());
                oldest = Some(group.oldest);
            }
            _ => return Ok(Err((*header, lsn))),
        }
    }
    Ok(oldest.filter(|_| lsn == end).ok_or((*header, lsn)))
}

/// Calls `read` again while it fails in a way that a change of the directory may explain.
fn retry<T>(view: &LogView, mut read: impl FnMut() -> Result<T>) -> Result<T> {
    let mut pause = FIRST_PAUSE;
    let mut without_writer = 0;
    for _ in 1..TRIES {
        let e = match read() {
            Err(e @ Error::Corruption { .. }) => e,
            Err(e) if is_gone(&e) => e,
            other => return other,
        };
        if is_written(&*view.dir, &view.names) == Some(false) {
            without_writer += 1;
            if without_writer == TRIES_WITHOUT_WRITER {
                return Err(e);
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    read()
}

#[cfg(all(test, ofd_locks))]
mod tests {
    use super::*;
    use crate::segment::end_file::Presence;

    #[test]
    fn log_without_a_writer_is_read_again_a_few_times_and_beside_a_writer_often() {
        let path = std::env::temp_dir().join(format!("ringwal-tries-{}", std::process::id()));
        let names = Names::new("wal");
        let dir: Arc<dyn Dir> = Arc::new(OsDir::open_or_create(&path).unwrap());
        let table = SegmentTable::new([], []);
        let view = LogView::new(table, &dir, &names, RecentGroups::new(0), Cuts::new());
        let tries = |e: fn(&Names) -> Error| {
            let mut tries = 0;
            let read: Result<()> = retry(&view, || {
                tries += 1;
                Err(e(&names))
            });
            assert!(read.is_err());
            tries
        };
        let damaged = |names: &Names| names.corruption(0, 0, MISSING);
        let gone = |_: &Names| Error::io("read", "wal", std::io::ErrorKind::NotFound.into());
        assert_eq!([tries(damaged), tries(gone)], [TRIES_WITHOUT_WRITER; 2]);
        // Through a description of its own, as another process has it.
        let of_writer: Arc<dyn Dir> = Arc::new(OsDir::open(&path).unwrap());
        let writer = Presence::hold(&of_writer, &names);
        assert!(writer.is_held());
        assert_eq!(tries(damaged), TRIES);
        drop(writer);
        std::fs::remove_dir_all(&path).unwrap();
    }
}
