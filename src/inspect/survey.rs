//! All that is damaged: what the walk over the groups finds, and what it does not show and opening the log refuses all the
//! same.
//!
//! 1. What opening would say is asked first, of the function that opening asks (`open::examine`): where the log ends is where
//!    opening would end it, and what opening refuses is damage, whether or not the walk sees why.
//! 2. Beside a writer this may be looked at in the middle of a change: a refusal counts only if the durable end has not
//!    moved meanwhile. Where it moves a writer has the log open, and it is not refused.
//! 3. The positions of consumers are read before the end is looked for: each was durable when it was stored, so that one
//!    above the end is damage also beside a writer.

use std::time::Duration;

use super::files::{SegmentFile, damage, list};
use super::medium_errors;
use super::view::View;
use super::walk::walk;
use super::{Damage, Directory, Remedy, Survey, Watch, quiet};
use crate::engine::recover::{ENDS_EARLY, examine};
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::positions::position_in;
use crate::read::outside::ReadOnlyWal;
use crate::segment::end_file::proven_end;

/// Looks at a log that is refused, until it is believed.
const LOOKS: u32 = 3;
/// Looks at a log whose segments go while they are looked at.
const GONE: u32 = 20;
/// After this a writer whose groups lie above the durable end has made them durable, or is stuck.
const PAUSE: Duration = Duration::from_millis(50);

/// How far the log is durable, as its writer or its groups say to a process that only reads.
type DurableEnd<'a> = &'a dyn Fn() -> Result<u64>;

/// What opening the log would say.
#[derive(Debug, Default)]
struct Standing {
    /// Where it would end, or how far a writer has made it durable.
    limit: Option<u64>,
    /// What its writer has said last.
    told: Option<u64>,
    refused: Option<Error>,
}

/// Everything in the directory, and what opening the log would refuse.
pub(super) fn survey(log: &Directory, watch: &mut Watch<'_>) -> Result<Survey> {
    survey_of(&log.view, Some(&|| durable_end(log)), false, watch)
}

/// The same for what is seen of a directory that nobody writes to: without `durable_end` the log ends where opening
/// would end it. `front_was_taken`: no group need state that what was before the oldest segment was removed.
pub(super) fn survey_of(
    view: &View,
    durable_end: Option<DurableEnd<'_>>,
    front_was_taken: bool,
    watch: &mut Watch<'_>,
) -> Result<Survey> {
    let stored = positions(view)?;
    let proven = proven(view)?;
    let standing = standing(view, durable_end, front_was_taken);
    let mut survey = walk(view, &mut |_, _| true, &[], standing.limit, watch)?;
    let walked_over = survey.damage.is_empty() && !survey.interrupted;
    if standing.refused.is_some() && walked_over && standing.limit.is_some() {
        // What is wrong lies behind what is known to be durable.
        survey = walk(view, &mut |_, _| true, &[], None, watch)?;
    }
    if !survey.interrupted {
        if !front_was_taken && survey.removed_meanwhile == 0 {
            missing_front(view, durable_end, standing.told, &mut survey)?;
        }
        if let Some(e) = standing.refused.filter(|_| survey.damage.is_empty()) {
            refused(view, &mut survey, e)?;
        }
        side_files(view, &mut survey, stored)?;
        end_file(view, &mut survey, proven);
    }
    survey.damage.sort_by_key(|place| place.lsn);
    let all = survey.records;
    for place in &mut survey.damage {
        place.records_after = all - place.records_before;
    }
    survey.report(watch);
    Ok(survey)
}

/// The intact records up to where the log was durable when it was surveyed.
pub(super) fn records(
    log: &Directory,
    survey: &Survey,
    each: &mut dyn FnMut(Lsn, &[u8]) -> bool,
) -> Result<Survey> {
    walk(&log.view, each, &survey.cuts, survey.limit, &mut quiet)
}

pub(super) fn durable_end(log: &Directory) -> Result<u64> {
    let look = || {
        let log = ReadOnlyWal::open_with_prefix(log.dir.path(), log.names.prefix())?;
        log.durable_end().map(Lsn::as_u64)
    };
    for _ in 1..GONE {
        match look() {
            // A segment that was there a moment ago: retention was faster.
            Err(e) if is_gone(&e) => {
                if log.segment_files()?.is_empty() {
                    break;
                }
            }
            looked => return looked,
        }
    }
    look()
}

fn standing(view: &View, durable_end: Option<DurableEnd<'_>>, front_was_taken: bool) -> Standing {
    let told = || durable_end.and_then(|end| end().ok());
    let mut before = told();
    let (mut looks, mut gone) = (0, 0);
    loop {
        let examined = examine(&*view.dir, &view.names, front_was_taken);
        // A log that nobody can say the end of has no writer that could move it.
        let now = if examined.is_ok() || before.is_none() { before } else { told() };
        let refused = match examined {
            Ok(examined) => {
                let judged = examined.judged.map(|judged| judged.end);
                let limit = match (judged, before) {
                    (Some(judged), Some(told)) if judged > told => {
                        beyond(told, judged, durable_end)
                    }
                    (judged, told) => told.or(judged),
                };
                return Standing { limit, told: before, refused: None };
            }
            Err(e) => e,
        };
        if before != now {
            return Standing { limit: now, told: now, refused: None };
        }
        let again = if is_gone(&refused) { &mut gone } else { &mut looks };
        *again += 1;
        if looks >= LOOKS || gone >= GONE || before.is_none() && !is_gone(&refused) {
            return Standing { limit: before, told: before, refused: Some(refused) };
        }
        before = now;
    }
}

/// The groups go on above what the writer has said: it is about to say more, or was killed before it could.
fn beyond(told: u64, judged: u64, durable_end: Option<DurableEnd<'_>>) -> Option<u64> {
    std::thread::sleep(PAUSE);
    match durable_end.and_then(|end| end().ok()) {
        Some(now) if now != told => Some(now),
        _ => Some(judged),
    }
}

/// The walk sees nothing wrong, and opening refuses the log.
fn refused(view: &View, survey: &mut Survey, e: Error) -> Result<()> {
    let place = match e {
        Error::Corruption { segment, offset, lsn, reason } => {
            let expected = "a group that a later one says was durable".into();
            let base = lsn.as_u64().saturating_sub(offset);
            let mut place = damage(&segment, base, lsn.as_u64(), reason, expected);
            let mut before = 0;
            let each = &mut |at: Lsn, _: &[u8]| {
                before += u64::from(at < lsn);
                at < lsn
            };
            walk(view, each, &[], survey.limit, &mut quiet)?;
            (place.records_before, place.kept) = (before, before);
            place
        }
        e => match survey.unreadable.take() {
            // Behind the last group: the log may have ended before it, or not.
            Some(place) if is_of_the_medium(&e) => Damage {
                cut: survey.end.as_u64(),
                records_before: survey.records,
                kept: survey.records,
                ..place
            },
            _ => return Err(e),
        },
    };
    survey.enter(place);
    Ok(())
}

/// The first segments are gone, and no group states that retention removed them.
fn missing_front(
    view: &View,
    durable_end: Option<DurableEnd<'_>>,
    told: Option<u64>,
    survey: &mut Survey,
) -> Result<()> {
    let stated = survey.stated_oldest;
    let first = survey.segments.first().map_or(0, |segment| segment.base.as_u64());
    // Without a group there is no log that could miss anything.
    if first <= stated || survey.first_ordinal.is_none() {
        return Ok(());
    }
    let same = list(view)?.first().is_some_and(|file| file.header.base == first);
    let now = durable_end.and_then(|end| end().ok());
    let moved = matches!((told, now), (Some(told), Some(now)) if told != now);
    if !same || moved {
        return Ok(());
    }
    let name = view.names.segment(stated);
    let mut place = damage(&name, stated, stated, "the segment is missing", name.clone());
    place.bytes = first - stated;
    place.records_lost = survey.first_ordinal.filter(|_| stated == 0);
    survey.enter(place);
    Ok(())
}

/// The files of consumers, and of the hook on sealed segments.
fn position_files(view: &View) -> Result<Vec<String>> {
    let entries = view.dir.list().map_err(|e| Error::io("list", view.path(), e))?;
    let mut names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
    let sealed = view.names.sealed();
    names.retain(|name| view.names.parse_consumer(name).is_some() || *name == sealed);
    names.sort_unstable();
    Ok(names)
}

pub(super) fn log_id(files: &[SegmentFile]) -> Option<[u8; 16]> {
    let sound = files.iter().find(|file| file.wrong.is_none()).or(files.first());
    sound.map(|file| file.header.log_id)
}

/// What they hold. Which log they are of is known later.
fn positions(view: &View) -> Result<Vec<(String, Option<u64>)>> {
    let id = log_id(&list(view)?);
    let read = |name: String| {
        let position = id.and_then(|id| position_in(&*view.dir, &name, &id));
        (name, position)
    };
    Ok(position_files(view)?.into_iter().map(read).collect())
}

/// How far the log was durable, as its writer has said on this boot in this directory.
fn proven(view: &View) -> Result<u64> {
    let id = log_id(&list(view)?);
    let said = proven_end(&*view.dir, &view.names).filter(|said| Some(said.log_id) == id);
    Ok(said.map_or(0, |said| said.durable_end))
}

/// Groups do not lead to where the log was durable: their end is gone.
fn end_file(view: &View, survey: &mut Survey, proven: u64) {
    let end = survey.limit.unwrap_or(survey.end.as_u64());
    if proven <= end {
        return;
    }
    let expected = format!("groups up to {proven}, which were durable on this boot of the machine");
    let mut place = damage(&view.names.end(), end, end, ENDS_EARLY, expected);
    place.bytes = proven - end;
    (place.records_before, place.kept) = (survey.records, survey.records);
    place.remedy = Remedy::Remove;
    survey.enter(place);
}

/// Positions that cannot be read, and such that lie above the log's end.
fn side_files(view: &View, survey: &mut Survey, stored: Vec<(String, Option<u64>)>) -> Result<()> {
    if survey.log_id.is_none() || stored.is_empty() {
        return Ok(());
    }
    let there = position_files(view)?;
    let end = survey.limit.unwrap_or(survey.end.as_u64());
    for (name, position) in stored {
        // Removed, or replaced by one that is whole.
        let still = there.contains(&name);
        let mut place = match position {
            None if still => {
                let expected = "a position of this log in one of the two places".into();
                let found = "the consumer's position is damaged";
                Damage { records_lost: Some(0), ..damage(&name, end, end, found, expected) }
            }
            Some(position) if position > end && still => {
                let expected = format!(
                    "records up to {position}, which were durable; or, in a copy, no such file"
                );
                let found = "the consumer's position lies above the log's end";
                Damage { bytes: position - end, ..damage(&name, end, end, found, expected) }
            }
            _ => continue,
        };
        (place.records_before, place.kept) = (survey.records, survey.records);
        place.remedy = Remedy::Remove;
        survey.enter(place);
    }
    Ok(())
}

fn is_gone(e: &Error) -> bool {
    matches!(e, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

fn is_of_the_medium(e: &Error) -> bool {
    matches!(e, Error::Io { source, .. } if medium_errors::is_of_the_medium(source))
}
