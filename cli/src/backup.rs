//! `backup`: a consistent copy, also beside a writer.
//!
//! 1. The copy ends at the durable end of one moment. Groups below it never change.
//! 2. A segment gets its name in the copy when it is whole there and synced, in ascending order: a
//!    backup that is interrupted leaves the earlier copy, longer by some segments.
//! 3. If retention removes or reuses a segment while it is copied, the copy starts again at the
//!    oldest segment.
//! 4. The whole copy is read at the end. `<prefix>.backup.json` in it is advice: it lists the
//!    segments that need no second copy.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use indicatif::BinaryBytes;
use ringwal::inspect::{Directory, SegmentFile, Survey};
use ringwal::{Lsn, ReadOnlyWal};
use serde_json::{Value, json};

use crate::args::{Backup, Cli};
use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::info::hex;
use crate::owner::make_like;
use crate::stop;
use crate::survey::{counted, look, survey_json};

/// Attempts to copy a log whose segments are removed meanwhile.
const ROUNDS: u32 = 20;

struct Copier<'a> {
    cli: &'a Cli,
    args: &'a Backup,
    log: Directory,
    log_id: String,
    /// Segments of the copy that are whole, with their lengths.
    whole: BTreeMap<String, u64>,
    bar: Bar,
    copied: u64,
    copied_bytes: u64,
    kept: u64,
}

/// Whether the segments were copied before retention removed one.
enum Ended {
    Whole,
    /// Retention removed a segment first.
    Overtaken,
}

pub(crate) fn backup(cli: &Cli, args: &Backup) -> Result<()> {
    let log = Directory::open(&args.dir, &cli.prefix)?;
    let Some((id, _)) = log.identity()? else {
        return Err(Error::Damaged(format!(
            "no segment in {} has a sound header",
            args.dir.display()
        )));
    };
    let log_id = hex(&id);
    let made = prepare(cli, args, &log_id)?;
    let whole = manifest(&manifest_path(cli, args), &log_id);
    let bar = Bar::new(cli.quiet);
    let mut copier =
        Copier { cli, args, log, log_id, whole, bar, copied: 0, copied_bytes: 0, kept: 0 };
    let taken = copier.take();
    copier.bar.clear();
    if taken.is_err() && made {
        // The directory was created here; removing it fails if it is not empty.
        let _ = fs::remove_dir(&args.dest);
    }
    let (end, survey) = taken?;
    report(&copier, end, &survey)
}

fn report(copier: &Copier<'_>, end: Lsn, survey: &Survey) -> Result<()> {
    let mut out = io::stdout().lock();
    if copier.args.json {
        let all = json!({
            "durable_end": end.as_u64(),
            "copied_segments": copier.copied,
            "copied_bytes": copier.copied_bytes,
            "kept_segments": copier.kept,
            "verified": survey_json(survey),
        });
        writeln!(out, "{all:#}")?;
        return Ok(out.flush()?);
    }
    writeln!(
        out,
        "copied   {}, {}; {} needed no second copy",
        counted(copier.copied, "segment", "segments"),
        BinaryBytes(copier.copied_bytes),
        counted(copier.kept, "segment", "segments"),
    )?;
    let records = counted(survey.records, "record", "records");
    writeln!(out, "verified {records} up to {end}, in {}", copier.args.dest.display())?;
    Ok(out.flush()?)
}

fn manifest_path(cli: &Cli, args: &Backup) -> PathBuf {
    args.dest.join(format!("{}.backup.json", cli.prefix))
}

/// Reads which segments need no second copy: none without the file, or if it is of another log.
fn manifest(path: &Path, log_id: &str) -> BTreeMap<String, u64> {
    let text = fs::read(path).unwrap_or_default();
    let said: Value = serde_json::from_slice(&text).unwrap_or_default();
    if said["log_id"] != log_id {
        return BTreeMap::new();
    }
    let whole = said["whole"].as_object().into_iter().flatten();
    whole.filter_map(|(name, size)| Some((name.clone(), size.as_u64()?))).collect()
}

/// Creates the directory, or checks that it holds a backup of this log. Returns whether it was
/// created.
fn prepare(cli: &Cli, args: &Backup, log_id: &str) -> Result<bool> {
    let wrong = |op| move |source| Error::File { op, path: args.dest.clone(), source };
    match fs::create_dir(&args.dest) {
        Ok(()) => {
            if let Ok(model) = fs::metadata(&args.dir) {
                make_like(&args.dest, &model);
            }
            return Ok(true);
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(wrong("create")(e)),
    }
    let same = |path: &Path| fs::canonicalize(path).ok();
    if same(&args.dir) == same(&args.dest) {
        return Err(Error::Usage("DEST is the log itself; name another directory".into()));
    }
    let copy = Directory::open(&args.dest, &cli.prefix)?;
    if copy.segment_files()?.is_empty() {
        return Ok(false);
    }
    if args.dest.join(format!("{}.lock", cli.prefix)).exists() {
        return Err(Error::Usage(format!(
            "{} was opened as a log, and may have gone on since; name another directory",
            args.dest.display()
        )));
    }
    if copy.identity()?.is_some_and(|(id, _)| hex(&id) != log_id) {
        return Err(Error::Usage(format!(
            "{} holds another log; name another directory",
            args.dest.display()
        )));
    }
    Ok(false)
}

impl Copier<'_> {
    fn take(&mut self) -> Result<(Lsn, Survey)> {
        for _ in 0..ROUNDS {
            // Before the durable end is read: each position was durable when it was stored.
            let positions = self.positions()?;
            let log = ReadOnlyWal::open_with_prefix(&self.args.dir, &self.cli.prefix)?;
            let (end, oldest) = (log.durable_end()?, log.oldest_lsn()?);
            drop(log);
            self.check_history(end, oldest)?;
            if let Ended::Overtaken = self.segments(end)? {
                continue;
            }
            self.store(positions)?;
            if let Some(done) = self.verified(end)? {
                return Ok(done);
            }
        }
        Err(Error::Damaged(
            "retention removes segments faster than they are copied; try again".into(),
        ))
    }

    /// Verifies that the copy is a sound log up to the end. `None`: retention overtook the copy.
    fn verified(&mut self, end: Lsn) -> Result<Option<(Lsn, Survey)>> {
        let copy = Directory::open(&self.args.dest, &self.cli.prefix)?;
        for again in [true, false] {
            let survey = look(self.cli, &copy)?;
            let Some(first) = survey.damage.first() else {
                if survey.end >= end {
                    self.remember()?;
                    return Ok(Some((end, survey)));
                }
                return Ok(None);
            };
            // A segment that was reused while it was copied, or one that the copy's disk has lost.
            let damaged: Vec<_> = survey.damage.iter().map(|place| place.segment.clone()).collect();
            self.whole.retain(|name, _| !damaged.contains(name));
            if !again {
                return Err(Error::Damaged(format!(
                    "the copy is damaged ({}, byte {}: {}); `ringwal verify {}` says whether the log is, too, and a log that was \
                     repaired needs a new directory",
                    first.segment,
                    first.offset,
                    first.found,
                    self.args.dir.display()
                )));
            }
            if let Ended::Overtaken = self.segments(end)? {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Checks that the copy is an earlier state of this log.
    fn check_history(&mut self, end: Lsn, oldest: Lsn) -> Result<()> {
        let copy = Directory::open(&self.args.dest, &self.cli.prefix)?;
        let files = copy.segment_files()?;
        let dest = self.args.dest.display();
        if files.last().is_some_and(|file| file.base >= end) {
            return Err(Error::Usage(format!(
                "{dest} continues beyond the end of the log, {end}: the log was cut by a repair; name another directory"
            )));
        }
        let gone = |file: &&SegmentFile| file.base < oldest;
        let reaches = files.iter().any(|file| file.base.as_u64() + file.size >= oldest.as_u64());
        if !files.is_empty() && !reaches && !self.args.prune {
            return Err(Error::Usage(format!(
                "{dest} ends before the log begins, {oldest}: retention was faster; name another directory, or drop the old \
                 segments with --prune"
            )));
        }
        if self.args.prune {
            for file in files.iter().filter(gone) {
                let path = self.args.dest.join(&file.name);
                fs::remove_file(&path).map_err(|source| Error::File {
                    op: "remove",
                    path,
                    source,
                })?;
                self.whole.remove(&file.name);
            }
        }
        Ok(())
    }

    fn segments(&mut self, end: Lsn) -> Result<Ended> {
        let files = self.log.segment_files()?;
        let wanted: Vec<_> = files.iter().filter(|file| file.base < end).collect();
        let total = wanted.iter().map(|file| file.size).sum();
        let (mut done, mut kept) = (0, 0);
        for (at, file) in wanted.iter().enumerate() {
            if stop::asked() {
                let copied = counted(self.copied, "segment was copied", "segments were copied");
                return Err(Error::Interrupted(format!("{copied}; the backup can be resumed")));
            }
            let there = fs::metadata(self.args.dest.join(&file.name)).map(|meta| meta.len());
            let is_whole = self.whole.get(&file.name) == Some(&file.size);
            if is_whole && there.is_ok_and(|size| size == file.size) {
                kept += 1;
            } else {
                match self.segment(file, end) {
                    Err(Error::File { op: "open", source, .. })
                        if source.kind() == io::ErrorKind::NotFound =>
                    {
                        return Ok(Ended::Overtaken);
                    }
                    copied => copied?,
                }
                // The log has left this segment: a later one holds groups.
                if at + 1 < wanted.len() {
                    self.whole.insert(file.name.clone(), file.size);
                }
            }
            done += file.size;
            self.bar.set(done, total);
        }
        self.kept = kept;
        let first = self.log.segment_files()?.first().map(|file| file.base);
        let overtaken = first != files.first().map(|file| file.base);
        Ok(if overtaken { Ended::Overtaken } else { Ended::Whole })
    }

    fn segment(&mut self, file: &SegmentFile, end: Lsn) -> Result<()> {
        let from = self.args.dir.join(&file.name);
        let failed = |op, path: &Path| {
            let path = path.to_owned();
            move |source| Error::File { op, path, source }
        };
        let source = File::open(&from).map_err(failed("open", &from))?;
        let model = source.metadata().map_err(failed("look at", &from))?;
        // Bytes after the end may be in the middle of a write.
        let len = file.size.min(end.as_u64() - file.base.as_u64());
        let part = self.args.dest.join(format!("{}.part", file.name));
        let mut target = new_file(&part).map_err(failed("create", &part))?;
        let fill = || -> Result<u64> {
            let copied = io::copy(&mut source.take(len), &mut target);
            let copied = copied.map_err(failed("copy", &from))?;
            target.set_len(file.size).map_err(failed("write", &part))?;
            make_like(&part, &model);
            target.sync_all().map_err(failed("sync", &part))?;
            Ok(copied)
        };
        let copied = fill().inspect_err(|_| {
            // It takes room that the disk may lack.
            let _ = fs::remove_file(&part);
        })?;
        let to = self.args.dest.join(&file.name);
        fs::rename(&part, &to).map_err(failed("rename", &part))?;
        sync(&self.args.dest)?;
        self.copied += 1;
        self.copied_bytes += copied;
        Ok(())
    }

    /// Reads the files of consumers, of the hook on sealed segments, of the floors of tags, and of
    /// the cells. Each has a slot that is sound at any moment.
    fn positions(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut names: Vec<_> =
            self.log.stored_consumers()?.into_iter().map(|consumer| consumer.file).collect();
        names.push(format!("{}.sealed", self.cli.prefix));
        names.push(format!("{}.streams", self.cli.prefix));
        let mut found = Vec::new();
        for name in names {
            let path = self.args.dir.join(&name);
            match fs::read(&path) {
                Ok(bytes) => found.push((name, bytes)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::File { op: "read", path, source }),
            }
        }
        let cells = self.log.stored_cells()?;
        found.extend(cells.map(|cells| (cells.file, cells.bytes)));
        Ok(found)
    }

    /// Stores the positions in the copy, and removes consumers that the log no longer has. Floors
    /// of tags stay once there are any.
    fn store(&self, positions: Vec<(String, Vec<u8>)>) -> Result<()> {
        let copy = Directory::open(&self.args.dest, &self.cli.prefix)?;
        for old in copy.stored_consumers()? {
            if !positions.iter().any(|(name, _)| *name == old.file) {
                let path = self.args.dest.join(&old.file);
                fs::remove_file(&path).map_err(|source| Error::File {
                    op: "remove",
                    path,
                    source,
                })?;
            }
        }
        // The log has no cells, or not any more.
        let cells = self.args.dest.join(format!("{}.cells", self.cli.prefix));
        if cells.exists() && !positions.iter().any(|(name, _)| cells.ends_with(name)) {
            fs::remove_file(&cells).map_err(|source| Error::File {
                op: "remove",
                path: cells,
                source,
            })?;
        }
        for (name, bytes) in positions {
            self.put(&name, &bytes)?;
        }
        Ok(())
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (part, to) = (self.args.dest.join(format!("{name}.part")), self.args.dest.join(name));
        let written = new_file(&part).and_then(|mut file| {
            file.write_all(bytes)?;
            if let Ok(model) = fs::metadata(self.args.dir.join(name)) {
                make_like(&part, &model);
            } else if let Some(newest) =
                self.log.segment_files().ok().and_then(|files| files.into_iter().next_back())
                && let Ok(model) = fs::metadata(self.args.dir.join(newest.name))
            {
                make_like(&part, &model);
            }
            file.sync_all()?;
            fs::rename(&part, &to)
        });
        written.map_err(|source| {
            let _ = fs::remove_file(&part);
            Error::File { op: "write", path: to, source }
        })?;
        sync(&self.args.dest)
    }

    fn remember(&self) -> Result<()> {
        let said = json!({ "log_id": self.log_id, "whole": self.whole });
        self.put(&format!("{}.backup.json", self.cli.prefix), format!("{said:#}\n").as_bytes())
    }
}

/// Creates the file, in place of one that an interrupted backup left.
fn new_file(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).open(path)
}

fn sync(dir: &Path) -> Result<()> {
    sync_names(dir).map_err(|source| Error::File { op: "sync", path: dir.into(), source })
}

#[cfg(unix)]
fn sync_names(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Flushes the directory if its filesystem and this user's rights allow it. Windows has no other
/// way to make a name durable; NTFS also writes names before the content that is flushed later.
#[cfg(windows)]
fn sync_names(dir: &Path) -> io::Result<()> {
    use std::os::windows::fs::OpenOptionsExt;
    const FILE_FLAG_BACKUP_SEMANTICS: u32 = 0x0200_0000;
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(FILE_FLAG_BACKUP_SEMANTICS);
    if let Ok(directory) = options.open(dir) {
        let _ = directory.sync_all();
    }
    Ok(())
}
