//! Plans and applies repairs: a damaged log opens again, and no byte is destroyed.
//!
//! 1. Planning only reads. It applies the plan to a view of the directory (`view`), surveys the
//!    view, and repeats until the view is sound. So the kept part that a plan states is what opens
//!    afterwards. Applying takes the log's lock.
//! 2. Files that leave the log are moved, whole, into a directory beside it whose name the log
//!    ignores.
//! 3. Consumers are moved first, then later segments. The segment to be cut comes last: until then
//!    the log stays damaged, so an interrupted repair is visible and can be repeated.
//! 4. Before a file is replaced or moved its other name, or its new content, is durable.
//! 5. A header can be derived from its neighbours. If only a header or a length is wrong, the file
//!    is rebuilt and nothing is lost.
//! 6. Consumers whose position lies beyond the kept part are moved too: they would skip records
//!    appended at those positions.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{ListedSegment, list, medium_errors};
use super::survey::survey_of;
use super::view::{Planned, Replacement, View};
use super::{Damage, Directory, Remedy, Survey, quiet};
use crate::error::{Error, Result};
use crate::format::{SEGMENT_HEADER, STAMP, stamp};
use crate::io::fs::{AlignedBuf, Dir, OsDir, move_file, read_full, sync_directory, write_full};
use crate::lsn::Lsn;
use crate::options::DEFAULT_LOCK_WAIT;
use crate::segment::DirLock;

/// Rounds of planning. Each removes at least one file, or bytes of one.
const ROUNDS: usize = 100;

/// What to keep of a log that is damaged somewhere in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// The part before the first damage. The log continues there: later positions are assigned
    /// again.
    #[default]
    Before,
    /// The segments after the last damage, as if retention had removed the others.
    After,
}

/// A plan.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Repair {
    /// The damage that the plan starts from.
    pub damage: Damage,
    /// The first position that is kept.
    pub from: Lsn,
    /// The first position that is not kept; the log continues here or later.
    pub to: Lsn,
    /// Intact records that are kept, also those that `truncate_from` made void.
    pub records: u64,
    /// Intact records that leave service; the quarantine holds them.
    pub records_leaving: u64,
    /// Ranges that `truncate_from` made void and whose records return, because the group that
    /// recorded this is not kept.
    pub restored: Vec<(Lsn, Lsn)>,
    /// Segment files whose header or length is rebuilt; nothing in them is lost.
    pub rebuilt: Vec<String>,
    /// Segment files and foreign files to be moved away, whole.
    pub moved: Vec<String>,
    /// The segment file to be cut; the quarantine keeps the whole file.
    pub cut: Option<String>,
    /// Files of consumers whose position lies beyond the kept part or is damaged, the file with the
    /// floors of tags for the same reasons, and the file of the cells if that is damaged.
    pub consumers: Vec<String>,
    /// The directory that receives these files.
    pub quarantine: PathBuf,
    log: Directory,
    /// Records before the first kept position are not reported as missing, whether or not a kept
    /// group states their removal.
    front_is_taken: bool,
    /// What takes the place of the files that are rebuilt and of the one that is cut.
    replacements: Vec<Replacement>,
    /// The segment files when this was planned.
    listed: Vec<super::SegmentFile>,
}

/// The result of a repair.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Repaired {
    /// Files now in the quarantine.
    pub quarantined: Vec<PathBuf>,
}

/// The part of the log that is kept.
struct Part<'a> {
    moved: Vec<&'a ListedSegment>,
    cut: Option<&'a ListedSegment>,
    from: u64,
    to: u64,
}

/// A plan while it is made.
#[derive(Debug, Default)]
pub(super) struct Draft {
    from: u64,
    /// `None`: nothing is cut.
    to: Option<u64>,
    rebuilt: Vec<Replacement>,
    cut: Option<Replacement>,
    /// Moved away: segment files, and files with positions.
    moved: Vec<String>,
    positions: Vec<String>,
    pub(super) front_is_taken: bool,
}

pub(super) fn plan(
    log: &Directory,
    survey: &Survey,
    keep: Keep,
    nothing_is_enough: bool,
) -> Result<Option<Repair>> {
    let at = worst(survey, keep);
    let Some(damage) = at.or(survey.damage.first()).cloned() else { return Ok(None) };
    let listed = log.segment_files()?;
    let (draft, _, left) = draft(&log.view, survey, keep)?;
    if left.records == 0 && survey.records > 0 && !nothing_is_enough {
        return Err(nothing(&damage, "none of the intact records would be kept"));
    }
    Ok(Some(draft.finish(log, survey, &left, damage, listed)))
}

/// Drafts a repair until the rest is sound. Returns the draft, the directory as it would leave it,
/// and the survey of that.
pub(super) fn draft(view: &View, survey: &Survey, keep: Keep) -> Result<(Draft, View, Survey)> {
    let (mut draft, mut seen, mut left) = (Draft::default(), view.clone(), survey.clone());
    for _ in 0..ROUNDS {
        if left.damaged_places == 0 {
            return Ok((draft, seen, left));
        }
        draft.add(&seen, &left, keep)?;
        seen = draft.view(view);
        left = survey_of(&seen, None, draft.front_is_taken, &mut quiet)?;
    }
    let reason = "no part of the log could be found that would open";
    Err(left.damage.first().map_or(Error::Closed, |place| nothing(place, reason)))
}

/// The damage that determines the kept part.
fn worst(survey: &Survey, keep: Keep) -> Option<&Damage> {
    match keep {
        Keep::Before => survey.first_cut.as_ref(),
        Keep::After => survey.last_cut.as_ref(),
    }
}

impl Draft {
    /// Extends the draft by remedies for the remaining damage.
    fn add(&mut self, view: &View, survey: &Survey, keep: Keep) -> Result<()> {
        let at = worst(survey, keep);
        let mut files = list(view)?;
        let remedied = |name: &str, remedy| {
            survey.damage.iter().any(|place| place.segment == name && place.remedy == remedy)
        };
        let (positions, strays): (Vec<_>, Vec<_>) = survey
            .damage
            .iter()
            .filter(|place| place.remedy == Remedy::Remove)
            .map(|place| place.segment.clone())
            .partition(|name| view.names.is_of_positions(name) || *name == view.names.cells());
        files.retain(|file| !strays.contains(&file.name));
        let part = match (at, keep) {
            (None, _) => {
                let from = files.first().map_or(0, |file| file.header.base);
                Part { moved: Vec::new(), cut: None, from, to: survey.end.as_u64() }
            }
            (Some(at), Keep::Before) => before(&files, at)?,
            (Some(at), Keep::After) => after(&files, survey, at)?,
        };
        self.from = part.from;
        if at.is_some() && keep == Keep::Before {
            self.to = Some(part.to);
        }
        let stays = |file: &&ListedSegment| {
            !part.moved.iter().any(|moved| moved.name == file.name)
                && part.cut.is_none_or(|cut| cut.name != file.name)
        };
        let rebuilt = files.iter().filter(stays).filter(|f| remedied(&f.name, Remedy::Rebuild));
        self.rebuilt.extend(rebuilt.map(Replacement::rebuilt));
        if let Some(file) = part.cut {
            let mut cut = Replacement::rebuilt(file);
            // The view shows a file that an earlier round rebuilds as rebuilt already.
            let earlier = self.rebuilt.extract_if(.., |other| other.name == file.name).next();
            let earlier = earlier.or(self.cut.take().filter(|other| other.name == file.name));
            cut.new_header |= earlier.is_some_and(|earlier| earlier.new_header);
            cut.kept = cut.kept.min(part.to - file.header.base);
            self.cut = Some(cut);
        }
        let moved: Vec<String> = part.moved.iter().map(|file| file.name.clone()).collect();
        self.rebuilt.retain(|file| !moved.contains(&file.name));
        self.cut.take_if(|cut| moved.contains(&cut.name));
        self.moved.extend(moved.into_iter().chain(strays));
        self.positions.extend(positions);
        let oldest_is_stated = survey.stated_oldest < part.from;
        self.front_is_taken |= at.is_some() && (keep == Keep::After || !oldest_is_stated);
        Ok(())
    }

    fn replacements(&self) -> impl Iterator<Item = &Replacement> {
        self.rebuilt.iter().chain(&self.cut)
    }

    /// The directory as the draft would leave it.
    fn view(&self, of: &View) -> View {
        let replaced = self.replacements().map(|file| (file.name.clone(), file.clone())).collect();
        let hidden = self.moved.iter().chain(&self.positions).cloned().collect();
        let dir = Arc::new(Planned { dir: Arc::clone(&of.dir), hidden, replaced });
        View { dir, names: of.names.clone() }
    }

    fn finish(
        mut self,
        log: &Directory,
        before: &Survey,
        left: &Survey,
        damage: Damage,
        listed: Vec<super::SegmentFile>,
    ) -> Repair {
        self.moved.sort_unstable();
        self.positions.sort_unstable();
        let to = self.to.unwrap_or(left.end.as_u64());
        let restored = before
            .cuts
            .iter()
            .filter(|(from, at)| from.as_u64() < to && at.as_u64() >= to)
            .map(|(from, at)| (*from, Lsn::new(to.min(at.as_u64()))))
            .collect();
        let replacements = self.replacements().cloned().collect();
        Repair {
            damage,
            from: Lsn::new(self.from),
            to: Lsn::new(to),
            records: left.records,
            records_leaving: before.records.saturating_sub(left.records),
            restored,
            rebuilt: self.rebuilt.into_iter().map(|file| file.name).collect(),
            moved: self.moved,
            cut: self.cut.map(|file| file.name),
            consumers: self.positions,
            quarantine: fresh(log),
            log: log.clone(),
            front_is_taken: self.front_is_taken,
            replacements,
            listed,
        }
    }
}

fn nothing(at: &Damage, reason: &'static str) -> Error {
    Error::corruption(at.segment.clone(), at.offset, at.lsn.as_u64(), reason)
}

fn before<'a>(files: &'a [ListedSegment], at: &Damage) -> Result<Part<'a>> {
    let kept = files.iter().filter(|file| file.walkable && file.header.base < at.cut);
    let cut = kept
        .clone()
        .find(|file| (file.header.first_group() + 1..file.header.end()).contains(&at.cut));
    let whole = kept.filter(|file| file.header.end() <= at.cut);
    if cut.is_none() && whole.count() == 0 {
        return Err(nothing(at, "nothing lies before the damage that could be kept"));
    }
    let behind = |file: &&ListedSegment| {
        (!file.walkable || file.header.end() > at.cut)
            && cut.is_none_or(|cut| cut.name != file.name)
    };
    let from = files.first().map_or(0, |file| file.header.base);
    let moved = files.iter().filter(behind).collect();
    Ok(Part { moved, cut, from, to: at.cut })
}

fn after<'a>(files: &'a [ListedSegment], survey: &Survey, at: &Damage) -> Result<Part<'a>> {
    let damaged_to = at.lsn.as_u64().saturating_add(at.bytes.max(1));
    let of = |base: u64| survey.segments.iter().filter(move |s| s.base.as_u64() >= base);
    let kept = |file: &&ListedSegment| {
        let base = file.header.base;
        let here = of(base).next().filter(|s| s.base.as_u64() == base);
        // From one segment to the next there are no bytes of groups.
        file.walkable
            && base > at.lsn.as_u64()
            && file.header.first_group() >= damaged_to
            && here.is_some_and(|s| s.groups + s.control_groups > 0)
    };
    let Some(first) = files.iter().find(kept) else {
        return Err(nothing(at, "no whole segment lies after the damage"));
    };
    let from = first.header.base;
    let moved = files.iter().filter(|file| file.header.base < from).collect();
    Ok(Part { moved, cut: None, from, to: survey.end.as_u64() })
}

/// Chooses an unused name beside the log.
fn fresh(log: &Directory) -> PathBuf {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let prefix = log.names.prefix();
    let plain = format!("{prefix}.quarantine.{}", stamp_of(now.map_or(0, |d| d.as_secs())));
    let names = (1..).map(|n| if n == 1 { plain.clone() } else { format!("{plain}-{n}") });
    let mut paths = names.map(|name| log.dir.path().join(name));
    paths.find(|path| fs::symlink_metadata(path).is_err()).unwrap_or_default()
}

/// A time in UTC as 20261231T235959Z.
fn stamp_of(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    // Years begin in March here, so that a leap day is the last of its year.
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

impl Repair {
    /// Applies the plan. Blocks while one segment is copied, and one more for each that is rebuilt.
    ///
    /// # Errors
    ///
    /// `Locked` while a writer has the log open; `Io` if a system call fails, or if the log has
    /// changed since the plan was made. The kept part of the damaged segment is copied first: if it
    /// cannot be read or written, nothing has been moved. After a later error, survey and plan
    /// again: completed steps stay.
    pub fn apply(&self) -> Result<Repaired> {
        let dir = &self.log.dir;
        if let Some(newest) = self.listed.last() {
            dir.create_like_neighbour(&newest.name);
        }
        let lock = DirLock::acquire(dir, &self.log.names, DEFAULT_LOCK_WAIT)?;
        let io = |op, path: &Path, e| Error::io(op, path, e);
        if self.log.segment_files()? != self.listed {
            let changed =
                std::io::Error::other("the log has changed since this was planned; plan again");
            return Err(io("repair", dir.path(), changed));
        }
        let (cut, rebuilt): (Vec<_>, Vec<_>) =
            self.replacements.iter().partition(|file| self.cut.as_ref() == Some(&file.name));
        let cut = cut.into_iter().next();
        // First: a failed read or a full disk must show before any file is moved.
        if let Some(file) = cut {
            self.prepare(file)?;
        }
        let made = dir.create_private(&self.quarantine);
        made.map_err(|e| io("make", &self.quarantine, e))?;
        sync_dir(dir.path())?;
        let mut quarantined = Vec::new();
        let mut beside = |name: &String| {
            let (from, to) = (dir.path().join(name), self.quarantine.join(name));
            // Where there are no links it is copied.
            let kept = fs::hard_link(&from, &to).or_else(|_| copy(dir, &from, &to));
            kept.map_err(|e| io("keep", &from, e))?;
            quarantined.push(to);
            sync_dir(&self.quarantine)
        };
        for file in rebuilt {
            beside(&file.name)?;
            self.prepare(file)?;
            self.put_in_place(file)?;
        }
        if let Some(file) = cut {
            beside(&file.name)?;
        }
        for name in self.consumers.iter().chain(self.moved.iter().rev()) {
            let (from, to) = (dir.path().join(name), self.quarantine.join(name));
            move_file(&from, &to).map_err(|e| io("move", &from, e))?;
            quarantined.push(to);
        }
        // What was durable is given up: no word of this boot holds the log to it any more.
        let name = self.log.names.end();
        let (from, to) = (dir.path().join(&name), self.quarantine.join(&name));
        match move_file(&from, &to) {
            Ok(()) => quarantined.push(to),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(io("move", &from, e)),
        }
        sync_dir(&self.quarantine)?;
        sync_dir(dir.path())?;
        if let Some(file) = cut {
            self.put_in_place(file)?;
            sync_dir(dir.path())?;
        }
        drop(lock);
        if self.front_is_taken {
            crate::wal::open::state_oldest(dir.path(), &self.log.names)?;
        }
        Ok(Repaired { quarantined })
    }

    /// Makes a segment, under another name and durably, that has the header and the length that
    /// this one should have, the same content in its first `kept` bytes, and unwritten space after
    /// them.
    fn prepare(&self, file: &Replacement) -> Result<()> {
        let made = self.write_replacement(file);
        if made.is_err() {
            let _ = self.log.dir.remove(&self.log.names.temporary(file.header.base));
        }
        made
    }

    fn put_in_place(&self, file: &Replacement) -> Result<()> {
        let (dir, temporary) = (&self.log.dir, self.log.names.temporary(file.header.base));
        let renamed = dir.replace(&temporary, &file.name);
        renamed.map_err(|e| Error::io("rename", dir.path().join(&temporary), e))
    }

    fn write_replacement(&self, file: &Replacement) -> Result<()> {
        let (dir, header) = (&self.log.dir, file.header);
        let temporary = self.log.names.temporary(header.base);
        let io = |op, e| Error::io(op, dir.path().join(&temporary), e);
        let source = medium_errors(&self.log.view, &file.name)?;
        let _ = dir.remove(&temporary);
        let target = dir.create_like(&temporary, &file.name).map_err(|e| io("make", e))?;
        let mut chunk = AlignedBuf::new(1 << 20);
        let mut at = 0;
        while at < header.size {
            let len = (chunk.len() as u64).min(header.size - at) as usize;
            chunk[..len].fill(0);
            let kept = file.kept.saturating_sub(at).min(len as u64) as usize;
            let new_header = at == 0 && file.new_header;
            // It may be the header that the disk cannot read.
            let from = if new_header { kept.min(header.block as usize) } else { 0 };
            read_full(&*source, &mut chunk[from..kept], at + from as u64)
                .map_err(|e| io("copy", e))?;
            // Zeros in place of what the survey could read would be a loss.
            if source.has_lost(at + from as u64..at + kept as u64) {
                let lost =
                    std::io::Error::other("the disk cannot read any more what is to be kept");
                return Err(io("copy", lost));
            }
            if new_header {
                chunk[..SEGMENT_HEADER].copy_from_slice(&file.header_bytes());
            }
            write_full(&*target, &chunk[..len], at).map_err(|e| io("write", e))?;
            at += len as u64;
        }
        let mut block = AlignedBuf::new(header.block as usize);
        for lsn in file.stamps() {
            block[..STAMP].copy_from_slice(&stamp(lsn, &header.log_id));
            write_full(&*target, &block, lsn - header.base).map_err(|e| io("write", e))?;
        }
        target.sync_data().map_err(|e| io("sync", e))
    }
}

fn copy(dir: &OsDir, from: &Path, to: &Path) -> std::io::Result<()> {
    fs::copy(from, to)?;
    // Windows flushes no handle that may only be read.
    let copy = fs::OpenOptions::new().write(true).open(to)?;
    dir.give_to_owner(&copy);
    copy.sync_all()
}

fn sync_dir(path: &Path) -> Result<()> {
    sync_directory(path).map_err(|e| Error::io("sync", path, e))
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (1_709_251_199, "20240229T235959Z"),
            (1_795_844_871, "20261128T054751Z"),
            (4_107_542_399, "21000228T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(stamp_of(seconds), expected);
        }
    }
}
