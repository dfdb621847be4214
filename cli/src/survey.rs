//! `verify` and `stats`, which read everything.

use std::io::Write;
use std::ops::ControlFlow;
use std::time::{Duration, UNIX_EPOCH};

use anstyle::AnsiColor;
use indicatif::{BinaryBytes, HumanCount};
use ringwal::inspect::{Damage, Directory, Finding, Progress, Segment, Survey};
use serde_json::{Value, json};

use crate::args::{Cli, Look};
use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::info::hex;
use crate::stop;

/// So many of something, in words.
pub(crate) fn counted(n: u64, one: &str, more: &str) -> String {
    format!("{} {}", HumanCount(n), if n == 1 { one } else { more })
}

pub(crate) fn look(cli: &Cli, directory: &Directory) -> Result<Survey> {
    look_with(&mut Bar::new(cli.quiet), directory, 1)
}

/// Surveys as the first of `times` passes over the log.
pub(crate) fn look_with(bar: &mut Bar, directory: &Directory, times: u64) -> Result<Survey> {
    let (survey, at) = watched(bar, directory, times, &mut |_| Ok(()))?;
    if survey.interrupted { Err(interrupted(at)) } else { Ok(survey) }
}

/// Surveys until the end or a signal, and returns the progress too. `see` receives each finding at
/// once.
fn watched(
    bar: &mut Bar,
    directory: &Directory,
    times: u64,
    see: &mut dyn FnMut(Finding<'_>) -> Result<()>,
) -> Result<(Survey, Progress)> {
    let (mut at, mut failed) = (Progress::default(), None);
    let survey = directory.survey_with(&mut |found| {
        match found {
            Finding::Progress(now) => {
                at = now;
                bar.set(now.done / times, now.total);
            }
            found => failed = bar.beside(|| see(found)).err().or(failed.take()),
        }
        if stop::asked() || failed.is_some() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    bar.clear();
    failed.map_or(Ok((survey, at)), Err)
}

/// Reports what a survey found before a signal.
fn interrupted(at: Progress) -> Error {
    Error::Interrupted(format!(
        "{} of {} were read; {}, {}",
        BinaryBytes(at.done),
        BinaryBytes(at.total),
        counted(at.records, "intact record", "intact records"),
        counted(at.damaged_places, "damaged place", "damaged places"),
    ))
}

pub(crate) fn damage_json(damage: &Damage) -> Value {
    json!({
        "segment": damage.segment,
        "offset": damage.offset,
        "lsn": damage.lsn.as_u64(),
        "found": damage.found,
        "expected": damage.expected,
        "bytes": damage.bytes,
        "records_before": damage.records_before,
        "records_lost": damage.records_lost,
        "records_after": damage.records_after,
    })
}

pub(crate) fn survey_json(survey: &Survey) -> Value {
    json!({
        "sound": if survey.interrupted && survey.damaged_places == 0 { Value::Null } else { (survey.damaged_places == 0).into() },
        "interrupted": survey.interrupted,
        "log_id": survey.log_id.map(|id| hex(&id)),
        "application_version": survey.application_version,
        "segments": survey.segments.len(),
        "records": survey.records,
        "records_lost": survey.records_lost,
        "end": survey.end.as_u64(),
        "void": survey.cuts.iter().map(|(from, to)| json!([from.as_u64(), to.as_u64()])).collect::<Vec<_>>(),
        "damaged_places": survey.damaged_places,
        "damage": survey.damage.iter().map(damage_json).collect::<Vec<_>>(),
        "removed_meanwhile": survey.removed_meanwhile,
    })
}

/// Writes a damaged place, without the count of records after it.
fn tell_place(out: &mut impl Write, damage: &Damage) -> Result<()> {
    let red = AnsiColor::Red.on_default().bold();
    writeln!(
        out,
        "{red}damaged{red:#}  {}, byte {}, LSN {}: {}",
        damage.segment, damage.offset, damage.lsn, damage.found
    )?;
    writeln!(out, "         expected {}", damage.expected)?;
    let lost = match damage.records_lost {
        Some(n) => counted(n, "record lost", "records lost"),
        None => "it is not known how many records are lost".into(),
    };
    write!(out, "         {} cannot be read; {lost}; ", BinaryBytes(damage.bytes))?;
    Ok(write!(out, "{} before", counted(damage.records_before, "record", "records"))?)
}

fn tell_more(out: &mut impl Write, survey: &Survey) -> Result<()> {
    let more = survey.damaged_places.saturating_sub(survey.damage.len() as u64);
    if more > 0 {
        writeln!(out, "         and {}", counted(more, "place more", "places more"))?;
    }
    Ok(())
}

pub(crate) fn tell_damage(out: &mut impl Write, survey: &Survey) -> Result<()> {
    for damage in &survey.damage {
        tell_place(out, damage)?;
        writeln!(out, " and {} after are intact", HumanCount(damage.records_after))?;
    }
    tell_more(out, survey)
}

pub(crate) fn verify(cli: &Cli, args: &Look) -> Result<()> {
    let directory = Directory::open(&args.dir, &cli.prefix)?;
    let mut out = anstream::AutoStream::auto(std::io::stdout().lock());
    let (survey, at) = watched(&mut Bar::new(cli.quiet), &directory, 1, &mut |found| {
        match found {
            _ if args.json => {}
            Finding::Damage(place) => {
                tell_place(&mut out, place)?;
                writeln!(out, " are intact")?;
                // The operator may end the command after the first damage.
                out.flush()?;
            }
            Finding::Void(place) => writeln!(
                out,
                "void     {}, byte {}: that is no damage, truncate_from made those records void",
                place.segment, place.offset
            )?,
            _ => {}
        }
        Ok(())
    })?;
    if args.json {
        writeln!(out, "{:#}", survey_json(&survey))?;
    } else {
        tell_verified(&mut out, &survey)?;
    }
    out.flush()?;
    if survey.interrupted { Err(interrupted(at)) } else { verdict(args, &survey) }
}

fn tell_verified(out: &mut impl Write, survey: &Survey) -> Result<()> {
    tell_more(out, survey)?;
    let (records, segments) = (
        counted(survey.records, "record", "records"),
        counted(survey.segments.len() as u64, "segment", "segments"),
    );
    if survey.interrupted {
        return Ok(());
    }
    if survey.damaged_places == 0 {
        let green = AnsiColor::Green.on_default().bold();
        writeln!(out, "{green}sound{green:#}    {records} in {segments}, up to {}", survey.end)?;
        return Ok(());
    }
    let known = survey.damage.iter().all(|place| place.records_lost.is_some());
    writeln!(
        out,
        "intact   {records} in {segments}, up to {}; {}{} lost",
        survey.end,
        if known { "" } else { "at least " },
        HumanCount(survey.records_lost),
    )?;
    if let Some(first) = survey.damage.first() {
        writeln!(
            out,
            "         {} before the first damage and {} after are intact",
            counted(first.records_before, "record", "records"),
            HumanCount(first.records_after)
        )?;
    }
    Ok(())
}

fn verdict(args: &Look, survey: &Survey) -> Result<()> {
    match survey.damaged_places {
        0 => Ok(()),
        1 => Err(Error::Damaged(format!("{} is damaged in one place", args.dir.display()))),
        n => Err(Error::Damaged(format!("{} is damaged in {n} places", args.dir.display()))),
    }
}

/// A time as in RFC 3339, in UTC.
pub(crate) fn time(nanoseconds: u64) -> String {
    match nanoseconds {
        0 => "-".into(),
        n => {
            let time = UNIX_EPOCH + Duration::from_nanos(n);
            humantime::format_rfc3339_millis(time).to_string()
        }
    }
}

fn segment_json(segment: &Segment) -> Value {
    json!({
        "name": segment.name,
        "base": segment.base.as_u64(),
        "size": segment.size,
        "block": segment.block,
        "groups": segment.groups,
        "control_groups": segment.control_groups,
        "records": segment.records,
        "group_bytes": segment.group_bytes,
        "record_bytes": segment.record_bytes,
        "epochs": segment.epochs,
        "first_written": (segment.first_written != 0).then(|| time(segment.first_written)),
        "last_written": (segment.last_written != 0).then(|| time(segment.last_written)),
    })
}

pub(crate) fn stats(cli: &Cli, args: &Look) -> Result<()> {
    let directory = Directory::open(&args.dir, &cli.prefix)?;
    let (survey, at) = watched(&mut Bar::new(cli.quiet), &directory, 1, &mut |_| Ok(()))?;
    let verdict = || if survey.interrupted { Err(interrupted(at)) } else { verdict(args, &survey) };
    let mut out = anstream::AutoStream::auto(std::io::stdout().lock());
    if args.json {
        let segments: Vec<_> = survey.segments.iter().map(segment_json).collect();
        writeln!(out, "{:#}", json!({ "segments": segments, "survey": survey_json(&survey) }))?;
        return verdict();
    }
    writeln!(
        out,
        "{:>20}  {:>10}  {:>9}  {:>9}  {:>6}  {:>5}  {:>24}  {:>24}",
        "base",
        "records",
        "groups",
        "per group",
        "filled",
        "lives",
        "first written",
        "last written"
    )?;
    for segment in &survey.segments {
        writeln!(
            out,
            "{:>20}  {:>10}  {:>9}  {:>9}  {:>4.0} %  {:>5}  {:>24}  {:>24}",
            segment.base.as_u64(),
            HumanCount(segment.records).to_string(),
            HumanCount(segment.groups).to_string(),
            segment
                .records
                .checked_div(segment.groups)
                .map_or_else(|| "-".into(), |n| n.to_string()),
            100.0 * segment.group_bytes as f64 / segment.size as f64,
            segment.epochs,
            time(segment.first_written),
            time(segment.last_written),
        )?;
    }
    let (written, used) = survey
        .segments
        .iter()
        .fold((0, 0), |(all, used), s| (all + s.group_bytes, used + s.record_bytes));
    writeln!(
        out,
        "{}; {} written, of which {:.1} % are records",
        counted(survey.records, "record", "records"),
        BinaryBytes(written),
        if written == 0 { 0.0 } else { 100.0 * used as f64 / written as f64 }
    )?;
    tell_damage(&mut out, &survey)?;
    out.flush()?;
    verdict()
}
