//! Finds a place by ordinal or by time, which each group's header states.
//!
//! 1. The headers of the segments' first groups are searched by bisection, and then the headers of
//!    the groups of one segment in order. Records are not read.
//! 2. Ordinals ascend with positions. Times do not if the clock was set back: the answer is then a
//!    group at or after the time whose predecessor is before the time, and there may be several.
//! 3. A group that does not follow its predecessor is `Corruption`: it never moves a place.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Reader;
use super::record::Record;
use crate::engine::log_view::LogView;
use crate::error::{Error, Result};
use crate::format::{GroupHeader, Link, SegmentHeader};
use crate::io::fs::Access;
use crate::lsn::Lsn;
use crate::recovery::Walker;
use crate::segment::{Absent, Pinning};

/// A place in the log that is not given as a position.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LogPlace {
    Ordinal(u64),
    /// Nanoseconds since 1970.
    Time(u64),
}

impl LogPlace {
    /// Times before 1970 count as 1970, and those that no header can state as the last ones.
    pub(crate) fn at_time(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        LogPlace::Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Whether the place is not after the group.
    pub(crate) fn is_reached_by(self, group: &GroupHeader) -> bool {
        match self {
            LogPlace::Ordinal(ordinal) => group.first_ordinal + u64::from(group.records) > ordinal,
            LogPlace::Time(since) => group.wall >= since,
        }
    }
}

/// The segment in which the search for a group begins, of `segments` in the order of the log.
///
/// `reached` says whether the first group of a segment is at or after the place; `None` if it
/// cannot be read. The place lies after the first group of the result, unless the result is 0, and
/// at or before the first group of the next segment that can be read.
pub(crate) fn bisect_segments(
    segments: usize,
    mut reached: impl FnMut(usize) -> Result<Option<bool>>,
) -> Result<usize> {
    let (mut low, mut high, mut start) = (0, segments, 0);
    while low < high {
        let middle = low + (high - low) / 2;
        let mut at = middle;
        let mut answer = reached(at)?;
        while answer.is_none() && at > low {
            at -= 1;
            answer = reached(at)?;
        }
        match answer {
            Some(true) => high = at,
            Some(false) => (low, start) = (middle + 1, at),
            None => low = middle + 1,
        }
    }
    Ok(start)
}

/// The first group at or after the place, below `durable_end`. `None`: every group is before it.
pub(crate) fn find_group(
    view: &Arc<LogView>,
    durable_end: u64,
    place: LogPlace,
) -> Result<Option<GroupHeader>> {
    view.check_not_forked()?;
    // The pin keeps every segment that is searched.
    let pin = loop {
        match view.table.segment(view.table.oldest(), Pinning::Pinned) {
            Ok(pin) => break pin,
            Err(Absent::Pruned { .. }) => {}
            Err(Absent::Beyond) => return Ok(None),
        }
    };
    let mut segments = view.table.headers();
    segments.retain(|s| s.base >= pin.header.base && s.first_group() < durable_end);
    let start = bisect_segments(segments.len(), |at| {
        let mut walker = open(view, &segments[at], durable_end)?;
        let group = group_at(view, &mut walker, segments[at].first_group())?;
        Ok(Some(place.is_reached_by(&group)))
    })?;
    let mut before: Option<Link> = None;
    for (at, header) in segments.iter().enumerate().skip(start) {
        let mut walker = open(view, header, durable_end)?;
        let end = header.end().min(durable_end);
        let mut lsn = header.first_group();
        while lsn < end {
            let group = group_at(view, &mut walker, lsn);
            let follows = |group: &GroupHeader| before.is_none_or(|link| group.follows(&link));
            let group = match group {
                Ok(group) if follows(&group) => group,
                // The writer left the segment here, if the first group of the next one follows.
                Ok(_) | Err(Error::Corruption { .. })
                    if lsn > header.first_group() && at + 1 < segments.len() =>
                {
                    break;
                }
                Ok(_) => return Err(corruption(view, header, lsn, "a group that does not follow")),
                Err(e) => return Err(view.explain(e, header.base)),
            };
            if place.is_reached_by(&group) {
                return Ok(Some(group));
            }
            before = Some(group.link());
            lsn = group.padded_end(header.block);
        }
    }
    Ok(None)
}

/// The position of the first record at or after a time: that of a group, or `durable_end`.
pub(crate) fn position_at(view: &Arc<LogView>, durable_end: u64, time: SystemTime) -> Result<u64> {
    let group = find_group(view, durable_end, LogPlace::at_time(time))?;
    let lsn = group.map_or(durable_end, |group| group.lsn);
    // A reader would go on there.
    Ok(view.cuts.at(lsn).map_or(lsn, |cut| cut.to))
}

/// The record with this ordinal.
pub(crate) fn read_ordinal(view: &Arc<LogView>, durable_end: u64, ordinal: u64) -> Result<Record> {
    let Some(group) = find_group(view, durable_end, LogPlace::Ordinal(ordinal))? else {
        return Err(Error::NoOrdinal { ordinal });
    };
    if group.first_ordinal > ordinal {
        return Err(Error::Pruned { oldest: Lsn::new(view.table.oldest()) });
    }
    let mut reader = Reader::new(Arc::clone(view), group.lsn, durable_end);
    while let Some(record) = reader.next_ref()? {
        if record.ordinal() == ordinal {
            return Ok(record.to_record());
        }
        if record.ordinal() > ordinal {
            break;
        }
    }
    // Readers skip nothing but void records.
    let cuts = &view.cuts;
    let from = cuts.next_from(group.lsn).filter(|_| cuts.at(group.lsn).is_none());
    cuts.check(from.unwrap_or(group.lsn))?;
    Err(Error::NoOrdinal { ordinal })
}

fn open(view: &LogView, header: &SegmentHeader, durable_end: u64) -> Result<Walker> {
    let file = view.open_segment(header.base, Access::Read);
    let mut walker = Walker::ahead(file.map_err(|e| view.explain(e, header.base))?, *header);
    walker.read_below(durable_end);
    Ok(walker)
}

fn group_at(view: &LogView, walker: &mut Walker, lsn: u64) -> Result<GroupHeader> {
    let header = walker.header;
    let read = walker.group(lsn).map_err(|e| view.segment_error("read", header.base, e))?;
    read.map_err(|e| corruption(view, &header, lsn, e.reason()))
}

fn corruption(view: &LogView, header: &SegmentHeader, lsn: u64, reason: &'static str) -> Error {
    view.explain(view.names.corruption(header.base, lsn, reason), header.base)
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::bisect_segments;

    /// Every sequence of up to 7 first groups: before the place, at or after it, or unreadable.
    #[test]
    fn bisection_begins_after_a_group_before_the_place_and_ends_at_one_after_it() {
        for segments in 0..=7_u32 {
            for case in 0..3_usize.pow(segments) {
                let known =
                    |at: usize| [None, Some(false), Some(true)][case / 3_usize.pow(at as u32) % 3];
                let found = bisect_segments(segments as usize, |at| Ok(known(at)));
                let start = found.unwrap();
                assert!(start == 0 || known(start) == Some(false), "{segments} {case}");
                let next = (start + 1..segments as usize).find_map(known);
                let first = known(start.min(segments as usize)).filter(|_| segments > 0);
                assert!(first == Some(true) || next != Some(false), "{segments} {case}");
            }
        }
    }
}
