//! `salvage`: every intact record of a damaged log, in order, in a new log.
//!
//! 1. The damaged log is only read.
//! 2. The new log is read back before success is reported. An unfinished one is removed.
//! 3. Its positions are new. `<prefix>.positions.tsv` in it maps old positions to new ones.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ringwal::inspect::{Directory, StoredConsumer, Survey};
use ringwal::{Lsn, TagFloor, Wal, WalBuilder};
use serde_json::{Value, json};

use crate::args::{Cli, Salvage};
use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::import::Appender;
use crate::owner::{make_like, mode_of};
use crate::stop;
use crate::survey::{counted, look, look_with, survey_json, tell_damage};

/// The result of a salvage.
pub(crate) struct Salvaged {
    pub(crate) records: u64,
    /// The file with old and new positions.
    pub(crate) positions: PathBuf,
    pub(crate) consumers: Vec<String>,
    /// Consumers whose position is damaged: the new log lacks them.
    pub(crate) consumers_left: Vec<String>,
    /// Cells of the new log. `None`: they are damaged, and the new log lacks them.
    pub(crate) cells: Option<usize>,
    /// Floors of tags in the new log. `None`: they are damaged, and the new log lacks them.
    pub(crate) tag_floors: Option<usize>,
    pub(crate) after: Survey,
}

/// Default directory of a new log: inside that of the damaged one.
pub(crate) fn beside(cli: &Cli, dir: &Path) -> PathBuf {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let now: String = now.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let plain = format!("{}.salvaged.{now}", cli.prefix);
    let name = |n: u32| if n == 1 { plain.clone() } else { format!("{plain}-{n}") };
    let mut places = (1..).map(|n| dir.join(name(n)));
    places.find(|place| place.symlink_metadata().is_err()).unwrap_or_default()
}

/// Counts the intact records that are not void.
pub(crate) fn count(directory: &Directory, survey: &Survey) -> Result<u64> {
    let mut records = 0;
    directory.intact_records(survey, &mut |_, _| {
        records += 1;
        !stop::asked()
    })?;
    if stop::asked() { Err(Error::Interrupted("nothing was changed".into())) } else { Ok(records) }
}

/// Options of the new log: the largest segment size, and the mode of the newest segment.
fn builder(cli: &Cli, dir: &Path, dest: &Path, survey: &Survey) -> WalBuilder {
    let wal = Wal::builder(dest).prefix(cli.prefix.clone());
    let wal = wal.application_version(survey.application_version);
    let sizes = survey.segments.iter().map(|segment| segment.size);
    let size = sizes.filter(|size| *size >= 16 << 10 && size.is_multiple_of(4096)).max();
    let wal = match size {
        Some(size) => wal.segment_size(size),
        None => wal,
    };
    let mode = survey.segments.last().and_then(|segment| mode_of(&dir.join(&segment.name)));
    match mode {
        Some(mode) => wal.file_mode(mode | 0o600),
        None => wal,
    }
}

/// Creates the new log. `dest` must be missing, or an empty directory.
pub(crate) fn make(
    cli: &Cli,
    directory: &Directory,
    dir: &Path,
    dest: &Path,
    survey: &Survey,
) -> Result<Salvaged> {
    let wrong = |op| move |source| Error::File { op, path: dest.into(), source };
    let made = match std::fs::create_dir(dest) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let mut entries = std::fs::read_dir(dest).map_err(wrong("list"))?;
            if entries.next().is_some() {
                return Err(Error::Usage(format!(
                    "{} is not empty; name a directory that is not there yet",
                    dest.display()
                )));
            }
            false
        }
        created => created.map(|()| true).map_err(wrong("create"))?,
    };
    if made && let Ok(model) = std::fs::metadata(dir) {
        make_like(dest, &model);
    }
    let salvaged = fill(cli, directory, dir, dest, survey);
    if salvaged.is_err() {
        // It holds only files created here.
        for entry in std::fs::read_dir(dest).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
        if made {
            let _ = std::fs::remove_dir(dest);
        }
    }
    salvaged
}

fn fill(
    cli: &Cli,
    directory: &Directory,
    dir: &Path,
    dest: &Path,
    survey: &Survey,
) -> Result<Salvaged> {
    let stored = directory.stored_consumers()?;
    let floors = directory.stored_tag_floors()?;
    let positions = dest.join(format!("{}.positions.tsv", cli.prefix));
    let wrong = |op| {
        let path = positions.clone();
        move |source| Error::File { op, path, source }
    };
    let file = OpenOptions::new().write(true).create_new(true).open(&positions);
    let file = file.map_err(wrong("create"))?;
    let mut map = BufWriter::with_capacity(1 << 20, file);
    let mut log = Appender::new(Box::new(|| builder(cli, dir, dest, survey)))?;
    let mut bar = Bar::new(cli.quiet);
    let first = survey.segments.first().map_or(0, |segment| segment.base.as_u64());
    let all = survey.end.as_u64().saturating_sub(first);
    let (mut records, mut failed) = (0_u64, None);
    // For each consumer, the new position of the last record that it processed.
    let mut done: Vec<Option<Lsn>> = vec![None; stored.len()];
    // For each floor, the new position of the first record at or above it.
    let mut kept: Vec<Option<Lsn>> = vec![None; floors.as_ref().map_or(0, Vec::len)];
    directory.intact_tagged_records(survey, &mut |record| {
        let old = record.lsn;
        let appended = log.append(record.tag, record.payload).and_then(|new| {
            let floors = floors.iter().flatten().zip(&mut kept);
            let above = floors.filter(|(floor, _)| old >= floor.floor);
            above.for_each(|(_, kept)| _ = kept.get_or_insert(new));
            for (one, done) in stored.iter().zip(&mut done) {
                if one.position.is_some_and(|position| old < position) {
                    *done = Some(new);
                }
            }
            writeln!(map, "{old}\t{new}").map_err(wrong("write"))
        });
        failed = appended.err();
        records += 1;
        bar.set(old.as_u64().saturating_sub(first), all);
        failed.is_none() && !stop::asked()
    })?;
    if let Some(e) = failed {
        return Err(e);
    }
    if stop::asked() {
        return Err(Error::Interrupted("nothing was kept of the new log".into()));
    }
    log.wal.sync()?;
    let (consumers, consumers_left) = continue_consumers(&log.wal, &stored, done)?;
    let cells = store_cells(&log.wal, directory)?;
    continue_floors(&log.wal, floors.as_deref().unwrap_or_default(), &kept)?;
    let tag_floors = floors.map(|floors| floors.len());
    log.wal.close()?;
    let file: File = map.into_inner().map_err(|e| wrong("write")(e.into_error()))?;
    file.sync_all().map_err(wrong("sync"))?;
    own(dir, dest, survey);
    bar.clear();
    let after = look(cli, &Directory::open(dest, &cli.prefix)?)?;
    if after.damaged_places > 0 || after.records != records {
        return Err(Error::Damaged(format!(
            "the new log in {} holds {} of {records} records as it is read back, and was removed",
            dest.display(),
            after.records
        )));
    }
    Ok(Salvaged { records, positions, consumers, consumers_left, cells, tag_floors, after })
}

/// Stores the consumers in the new log. Returns the names of those that are in it, and of those
/// that are left out because their position is damaged.
fn continue_consumers(
    wal: &Wal,
    stored: &[StoredConsumer],
    done: Vec<Option<Lsn>>,
) -> Result<(Vec<String>, Vec<String>)> {
    let (mut continued, mut left_out) = (Vec::new(), Vec::new());
    for (StoredConsumer { name, position, .. }, done) in stored.iter().zip(done) {
        if position.is_none() {
            left_out.push(name.clone());
            continue;
        }
        let mut consumer = wal.consumer(name)?;
        if let Some(done) = done {
            consumer.commit(done)?;
        }
        continued.push(name.clone());
    }
    Ok((continued, left_out))
}

/// Stores the cells in the new log. Returns their number. `None`: they are damaged.
fn store_cells(wal: &Wal, directory: &Directory) -> Result<Option<usize>> {
    let Some(stored) = directory.stored_cells()? else { return Ok(Some(0)) };
    let Some(cells) = stored.cells else { return Ok(None) };
    for (name, value) in &cells {
        wal.cell(name).store(value)?;
    }
    Ok(Some(cells.len()))
}

/// Stores the floors of tags in the new log, each at the first record that it keeps.
fn continue_floors(wal: &Wal, floors: &[TagFloor], kept: &[Option<Lsn>]) -> Result<()> {
    let end = wal.durable_end();
    let kept = floors.iter().zip(kept);
    let floors: Vec<_> = kept.map(|(floor, kept)| (floor.tag, kept.unwrap_or(end))).collect();
    if floors.is_empty() { Ok(()) } else { Ok(wal.hold_tags(&floors)?) }
}

/// Gives the new files the owner and the mode of the damaged log's files.
fn own(dir: &Path, dest: &Path, survey: &Survey) {
    let newest = survey.segments.iter().rev();
    let model =
        newest.filter_map(|segment| std::fs::symlink_metadata(dir.join(&segment.name)).ok());
    let Some(model) = model.into_iter().find(|meta| meta.is_file()) else { return };
    for entry in std::fs::read_dir(dest).into_iter().flatten().flatten() {
        make_like(&entry.path(), &model);
    }
}

impl Salvaged {
    pub(crate) fn json(&self, dest: &Path) -> Value {
        json!({
            "into": dest.display().to_string(),
            "records": self.records,
            "positions": self.positions.display().to_string(),
            "consumers": self.consumers,
            "consumers_left": self.consumers_left,
            "cells": self.cells,
            "tag_floors": self.tag_floors,
        })
    }

    pub(crate) fn tell(&self, out: &mut impl Write, dest: &Path) -> Result<()> {
        let records = counted(self.records, "record", "records");
        writeln!(out, "salvaged {records} into {}", dest.display())?;
        writeln!(
            out,
            "         {} leads from old positions to new ones",
            self.positions.display()
        )?;
        for name in &self.consumers_left {
            writeln!(
                out,
                "         the position of the consumer {name} is damaged: it is left out"
            )?;
        }
        if self.cells.is_none() {
            writeln!(out, "         the cells are damaged: they are left out")?;
        }
        if self.tag_floors.is_none() {
            writeln!(
                out,
                "         the floors of tags are damaged: they are left out, and the new log keeps nothing for a tag"
            )?;
        }
        let what = "the damaged log was left as it is; put the new one in its place once the writer is stopped";
        Ok(writeln!(out, "         {what}")?)
    }
}

pub(crate) fn salvage(cli: &Cli, args: &Salvage) -> Result<()> {
    let directory = Directory::open(&args.dir, &cli.prefix)?;
    let survey = look_with(&mut Bar::new(cli.quiet), &directory, 2)?;
    let salvaged = make(cli, &directory, &args.dir, &args.dest, &survey)?;
    let mut out = anstream::AutoStream::auto(std::io::stdout().lock());
    if args.json {
        let all = json!({
            "survey": survey_json(&survey),
            "salvage": salvaged.json(&args.dest),
            "after": survey_json(&salvaged.after),
        });
        writeln!(out, "{all:#}")?;
    } else {
        tell_damage(&mut out, &survey)?;
        salvaged.tell(&mut out, &args.dest)?;
        if let Some(pid) = directory.writer() {
            writeln!(
                out,
                "         process {pid} has the log open: what it appends is not in the new one"
            )?;
        }
    }
    Ok(out.flush()?)
}
