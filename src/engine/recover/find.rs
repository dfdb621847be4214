//! Finds the segments of a log, its end, and the cuts in it. Reads only.
//!
//! 1. A survey and the plan of a repair call [`examine`] too, so they reject what opening rejects.

use crate::error::{Error, Result};
use crate::format::{Flags, SegmentHeader};
use crate::io::fs::{Access, Dir};
use crate::recovery::{FoundEnd, Scan, Walker, find_end, find_end_of_rest, scan};
use crate::segment::Names;
use crate::segment::cuts::{Cut, Cuts};
use crate::segment::end_file::proven_end;

/// What the directory holds.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) scan: Scan,
    /// `None`: there is no segment.
    pub(crate) end: Option<FoundEnd>,
    /// The durable end that the writer stated on this boot or at a close. If it lies above the end,
    /// groups are missing.
    pub(crate) proven: u64,
    pub(crate) cuts: Cuts,
}

/// Finds what the directory holds. `front_was_taken`: a repair removed the first segments, and no
/// group states that yet.
///
/// # Errors
///
/// Corruption in the segments, and failures of the system.
pub(crate) fn examine(dir: &dyn Dir, names: &Names, front_was_taken: bool) -> Result<Examined> {
    // Read first: if a writer runs, the groups found later reach at least this far.
    let stated = proven_end(dir, names);
    let scan = scan(dir, names, &[])?;
    if scan.segments.is_empty() {
        return Ok(Examined { scan, end: None, proven: 0, cuts: Cuts::new() });
    }
    let found = match front_was_taken {
        true => find_end_of_rest(dir, names, &scan.segments)?,
        false => find_end(dir, names, &scan.segments)?,
    };
    check_counters(&found, names, &scan.segments)?;
    let stated = stated.filter(|stated| stated.log_id == scan.segments[0].log_id);
    let proven = stated.map_or(0, |stated| stated.durable_end);
    let cuts = Cuts::new();
    let live = &scan.segments[..=found.active];
    load_cuts(dir, names, live, found.link.last_cut, 0)?.into_iter().for_each(|cut| cuts.add(cut));
    Ok(Examined { scan, end: Some(found), proven, cuts })
}

/// Rejects counters near their end: no writer has counted that far.
fn check_counters(found: &FoundEnd, names: &Names, segments: &[SegmentHeader]) -> Result<()> {
    const MOST: u64 = 1 << 63;
    let reason = match (found.highest_epoch < MOST, found.link.next_ordinal < MOST) {
        (true, true) => return Ok(()),
        (false, _) => "epoch counter",
        (true, false) => "ordinal",
    };
    let base = segments[found.active].base;
    Err(names.corruption(base, found.link.lsn, reason))
}

/// Reads the cuts that concern the kept segments, in ascending order, without those at or below
/// `known`. `last` is the newest cut. Each cut states the one before it.
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
                // A valid header states only a cut below itself, so this ends.
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
