//! All that is damaged: what the walk over the groups finds, and what it does not show and opening the log refuses all the
//! same.
//!
//! 1. Beside a writer this may be looked at in the middle of a change: what is found counts only if the durable end has not
//!    moved meanwhile. Where it moves somebody has the log open, and it is not refused.

use super::files::{damage, list};
use super::readable;
use super::walk::walk;
use super::{Damage, Directory, Progress, Remedy, Survey};
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::open::check_position;
use crate::positions::{furthest_position, position_in};
use crate::read_only::ReadOnlyWal;
use crate::recovery::{judge, scan};
use crate::storage::Dir;

/// Looks at a log that is refused, until it is believed.
const LOOKS: u32 = 3;
/// Looks at a log whose segments go while they are looked at.
const GONE: u32 = 20;

/// Everything, and what opening the log would refuse.
pub(super) fn survey(log: &Directory, progress: &mut dyn FnMut(Progress)) -> Result<Survey> {
    // First: what is durable now lies in the segments that are listed then.
    let end = durable_end(log);
    let limit = end.as_ref().ok().copied();
    let mut survey = walk(log, &mut |_, _| true, &[], limit, progress)?;
    if survey.removed_meanwhile == 0 {
        missing_front(log, &mut survey)?;
    }
    if survey.damage.is_empty() && survey.removed_meanwhile == 0 {
        // Nothing is wrong but where the log ends.
        let refused = match end {
            Ok(end) => by_judging(log, end),
            Err(e) => Ok(Some(e)),
        };
        let place = match refused {
            Ok(None) => None,
            Ok(Some(Error::Corruption { segment, offset, lsn, reason })) => {
                let expected = "a group that a later one says was durable".into();
                let base = lsn.as_u64().saturating_sub(offset);
                Some(damage(&segment, base, lsn.as_u64(), reason, expected))
            }
            Ok(Some(e)) | Err(e) => match survey.unreadable.take() {
                // Behind the last group: the log may have ended before it, or not.
                Some(place) if is_of_the_medium(&e) => {
                    Some(Damage { cut: survey.end.as_u64(), ..place })
                }
                _ => return Err(e),
            },
        };
        if let Some(mut place) = place {
            (place.records_before, place.kept) = (survey.records, survey.records);
            survey.enter(place);
        }
    }
    consumers(log, &mut survey)?;
    survey.damage.sort_by_key(|place| place.lsn);
    let all = survey.records;
    for place in &mut survey.damage {
        place.records_after = all - place.records_before;
    }
    Ok(survey)
}

/// The intact records up to where the log was durable when it was surveyed.
pub(super) fn records(
    log: &Directory,
    survey: &Survey,
    each: &mut dyn FnMut(Lsn, &[u8]) -> bool,
) -> Result<Survey> {
    walk(log, each, &survey.cuts, survey.limit, &mut |_| {})
}

fn durable_end(log: &Directory) -> Result<u64> {
    let look = || {
        let log = ReadOnlyWal::open_with_prefix(log.dir.path(), log.names.prefix())?;
        log.durable_end().map(Lsn::as_u64)
    };
    for _ in 1..GONE {
        match look() {
            // A segment that was there a moment ago: retention was faster.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                if log.segment_files()?.is_empty() {
                    break;
                }
            }
            looked => return looked,
        }
    }
    look()
}

/// The first segments are gone, and no group states that retention removed them.
fn missing_front(log: &Directory, survey: &mut Survey) -> Result<()> {
    let stated = survey.stated_oldest;
    let first = survey.segments.first().map_or(0, |segment| segment.base.as_u64());
    // Without a group there is no log that could miss anything.
    if first <= stated || survey.first_ordinal.is_none() {
        return Ok(());
    }
    let same = list(log)?.first().is_some_and(|file| file.header.base == first);
    let quiet = survey.limit.is_none_or(|limit| durable_end(log).is_ok_and(|end| end == limit));
    if !same || !quiet {
        return Ok(());
    }
    let name = log.names.segment(stated);
    let mut place = damage(&name, stated, stated, "the segment is missing", name.clone());
    place.bytes = first - stated;
    place.records_lost = survey.first_ordinal.filter(|_| stated == 0);
    survey.enter(place);
    Ok(())
}

/// Why the log would not be opened, though its writer has said on this boot that it is durable up to `end`
/// and the groups lead there.
fn by_judging(log: &Directory, end: u64) -> Result<Option<Error>> {
    let look = || {
        let found = scan(&*log.dir, &log.names, &[])?;
        // First: what is stored meanwhile may lie behind the end that is found.
        let id = found.segments.first().map(|header| header.log_id).unwrap_or_default();
        let furthest = furthest_position(&*log.dir, &found.positions, &id);
        let judged = judge(&*log.dir, &log.names, &found.segments)?;
        check_position(&judged, &log.names, &found.segments, furthest)
    };
    let mut refused = None;
    for _ in 0..LOOKS {
        match look() {
            Ok(_) => return Ok(None),
            Err(e @ Error::Corruption { .. }) => refused = Some(e),
            // Retention takes segments away.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(e) => return Err(e),
        }
        if !durable_end(log).is_ok_and(|now| now == end) {
            return Ok(None);
        }
    }
    Ok(refused)
}

/// Positions of consumers, and of the hook on sealed segments, that cannot be read.
fn consumers(log: &Directory, survey: &mut Survey) -> Result<()> {
    let Some(id) = survey.log_id else { return Ok(()) };
    let io = |e| Error::io("list", log.dir.path(), e);
    let mut names: Vec<String> = log.dir.list().map_err(io)?.into_iter().map(|e| e.name).collect();
    names.retain(|name| log.names.parse_consumer(name).is_some() || *name == log.names.sealed());
    names.sort_unstable();
    for name in names {
        let there = || log.dir.has(&name);
        if position_in(&*log.dir, &name, &id).is_some() || !there() {
            continue;
        }
        let end = survey.end.as_u64();
        let expected = "a position of this log in one of the two places".into();
        let mut place = damage(&name, end, end, "the consumer's position is damaged", expected);
        (place.records_before, place.kept) = (survey.records, survey.records);
        place.records_lost = Some(0);
        place.remedy = Remedy::Remove;
        survey.enter(place);
    }
    Ok(())
}

fn is_of_the_medium(e: &Error) -> bool {
    matches!(e, Error::Io { source, .. } if readable::is_of_the_medium(source))
}
