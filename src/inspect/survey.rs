//! Finds all damage: what the walk over the groups finds, and what only opening the log refuses.
//!
//! 1. A survey first calls the function that opening calls (`examine`). The log ends where opening
//!    would end it. What opening refuses is damage, whether or not the walk finds the cause.
//! 2. Beside a writer, a survey may see the middle of a change. A refusal counts only if the
//!    durable end has not moved meanwhile: if it moves, a writer has the log open.
//! 3. Consumers' positions are read before the end is established. Each was durable when it was
//!    stored, so one above the end is damage also beside a writer.

use std::time::Duration;

use super::cells;
use super::files::{ListedSegment, damage, list};
use super::medium_errors;
use super::view::View;
use super::walk::{EachRecord, walk};
use super::{Damage, Directory, IntactRecord, Remedy, Survey, Watch, quiet};
use crate::engine::recover::{ENDS_EARLY, examine};
use crate::error::{Error, Result};
use crate::io::fs::Access;
use crate::lsn::Lsn;
use crate::positions::position_in;
use crate::read::outside::ReadOnlyWal;
use crate::segment::end_file::proven_end;
use crate::segment::is_streams;
use crate::sys::os_error::is_refusal;

/// Examinations of a refused log before the refusal counts.
const LOOKS: u32 = 3;
/// Attempts on a log whose segments are removed while they are read.
const GONE: u32 = 20;
/// After this time a writer has made its groups above the durable end durable, or is stuck.
const PAUSE: Duration = Duration::from_millis(50);

/// Returns the durable end that a process that only reads can establish.
type DurableEnd<'a> = &'a dyn Fn() -> Result<u64>;

/// The result of examining the log as opening does.
#[derive(Debug, Default)]
struct Standing {
    /// The end that opening would find, or the durable end of a running writer.
    limit: Option<u64>,
    /// The durable end that the writer published last.
    told: Option<u64>,
    refused: Option<Error>,
}

/// Surveys the directory, including what opening the log would refuse.
pub(super) fn survey(log: &Directory, watch: &mut Watch<'_>) -> Result<Survey> {
    survey_of(&log.view, Some(&|| durable_end(log)), false, watch)
}

/// Surveys a view. Without `durable_end` there is no writer, and the log ends where opening would
/// end it. If `front_was_taken`, no group needs to state that the records before the oldest segment
/// were removed.
pub(super) fn survey_of(
    view: &View,
    durable_end: Option<DurableEnd<'_>>,
    front_was_taken: bool,
    watch: &mut Watch<'_>,
) -> Result<Survey> {
    let stored = positions(view)?;
    let proven = proven(view)?;
    let standing = standing(view, durable_end, front_was_taken);
    let mut survey = walk(view, &mut |_| true, &[], standing.limit, watch)?;
    let walked_over = survey.damage.is_empty() && !survey.interrupted;
    if standing.refused.is_some() && walked_over && standing.limit.is_some() {
        // The damage lies after the known durable end.
        survey = walk(view, &mut |_| true, &[], None, watch)?;
    }
    if !survey.interrupted {
        if !front_was_taken && survey.removed_meanwhile == 0 {
            missing_front(view, durable_end, standing.told, &mut survey)?;
        }
        if let Some(e) = standing.refused.filter(|_| survey.damage.is_empty()) {
            refused(view, &mut survey, e)?;
        }
        side_files(view, &mut survey, stored)?;
        cells_file(view, &mut survey)?;
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

/// Walks over the intact records up to the durable end of the earlier survey.
pub(super) fn records(
    log: &Directory,
    survey: &Survey,
    each: &mut EachRecord<'_>,
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
            // Retention has removed a segment since it was listed.
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
        // A log whose end cannot be established has no writer that could move it.
        let now = if examined.is_ok() || before.is_none() { before } else { told() };
        let refused = match examined {
            Ok(examined) => {
                let judged = examined.end.map(|found| found.end);
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

/// Handles groups above the published durable end: the writer is about to publish them, or was
/// killed before.
fn beyond(told: u64, judged: u64, durable_end: Option<DurableEnd<'_>>) -> Option<u64> {
    std::thread::sleep(PAUSE);
    match durable_end.and_then(|end| end().ok()) {
        Some(now) if now != told => Some(now),
        _ => Some(judged),
    }
}

/// Enters the damage for which opening refuses the log and which the walk does not find.
fn refused(view: &View, survey: &mut Survey, e: Error) -> Result<()> {
    let place = match e {
        Error::Corruption { segment, offset, lsn, reason } => {
            let expected = "a group that a later one says was durable".into();
            let base = lsn.as_u64().saturating_sub(offset);
            let mut place = damage(&segment, base, lsn.as_u64(), reason, expected);
            let mut before = 0;
            let each = &mut |record: IntactRecord<'_>| {
                before += u64::from(record.lsn < lsn);
                record.lsn < lsn
            };
            walk(view, each, &[], survey.limit, &mut quiet)?;
            (place.records_before, place.kept) = (before, before);
            place
        }
        e => match survey.unreadable.take() {
            // After the last group: the log may have ended before it.
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

/// Enters missing first segments whose removal no group states.
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

/// The files of consumers, of the hook on sealed segments, and of tags.
fn position_files(view: &View) -> Result<Vec<String>> {
    let entries = view.dir.list().map_err(|e| Error::io("list", view.path(), e))?;
    let mut names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
    names.retain(|name| view.names.is_of_positions(name));
    names.sort_unstable();
    Ok(names)
}

pub(super) fn log_id(files: &[ListedSegment]) -> Option<[u8; 16]> {
    let sound = files.iter().find(|file| file.wrong.is_none()).or(files.first());
    sound.map(|file| file.header.log_id)
}

/// Reads the stored positions.
fn positions(view: &View) -> Result<Vec<(String, Option<u64>)>> {
    let id = log_id(&list(view)?);
    let read = |name: String| {
        let position = id.and_then(|id| position_in(&*view.dir, &name, &id));
        if position.is_none() {
            check_rights(view, &name)?;
        }
        Ok((name, position))
    };
    position_files(view)?.into_iter().map(read).collect()
}

/// Refuses to judge a file that this process may not read: what it holds is not known.
fn check_rights(view: &View, name: &str) -> Result<()> {
    match view.dir.open(name, Access::Read) {
        Err(e) if is_refusal(&e) => Err(Error::io("open", view.dir.path_of(name), e)),
        _ => Ok(()),
    }
}

/// Returns the durable end that the writer published on this boot in this directory.
fn proven(view: &View) -> Result<u64> {
    let id = log_id(&list(view)?);
    let said = proven_end(&*view.dir, &view.names).filter(|said| Some(said.log_id) == id);
    Ok(said.map_or(0, |said| said.durable_end))
}

/// Enters damage if the groups end before the published durable end.
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

/// Enters positions that cannot be read or lie above the log's end.
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
                let found = match is_streams(&name) {
                    true => "the floors of tags are damaged",
                    false => "the consumer's position is damaged",
                };
                Damage { records_lost: Some(0), ..damage(&name, end, end, found, expected) }
            }
            Some(position) if position > end && still => {
                let expected = format!(
                    "records up to {position}, which were durable; or, in a copy, no such file"
                );
                let found = match is_streams(&name) {
                    true => "the floor of a tag lies above the log's end",
                    false => "the consumer's position lies above the log's end",
                };
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

/// Enters damage if the cells cannot be read.
fn cells_file(view: &View, survey: &mut Survey) -> Result<()> {
    if survey.log_id.is_none() {
        return Ok(());
    }
    let is_damaged = match cells::stored(view) {
        Ok(stored) => stored.is_some_and(|stored| stored.cells.is_none()),
        // Opening cannot read it either.
        Err(_) => {
            check_rights(view, &view.names.cells())?;
            true
        }
    };
    if is_damaged {
        let end = survey.limit.unwrap_or(survey.end.as_u64());
        let expected = "cells of this log in one of the two places".into();
        let found = "the cells are damaged";
        let mut place = damage(&view.names.cells(), end, end, found, expected);
        place.records_lost = Some(0);
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
