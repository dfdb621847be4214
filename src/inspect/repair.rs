//! Making a damaged log open again, without destroying a byte.
//!
//! 1. Planning reads only. Applying takes the log's lock.
//! 2. What is taken out of the log is moved, whole files, into a directory beside it whose name the log does not know.
//! 3. Later segments go first, and the one that is cut last: until that is done the log does not open, so that a repair that
//!    was interrupted is seen, and can be made again.
//! 4. Before a file is replaced or moved its other name, or its new content, is durable.
//! 5. Consumers that have done with more than is kept are taken out too: they would skip what is appended in its
//!    place.

use std::fs;
use std::path::{Path, PathBuf};

use super::files::{SegmentFile, list, open};
use super::{Damage, Directory, Survey};
use crate::error::{Error, Result};
use crate::format::{STAMP, stamp};
use crate::lsn::Lsn;
use crate::positions::position_in;
use crate::segment::DirLock;
use crate::storage::{Access, AlignedBuf, Dir, read_full, write_full};

/// What to keep of a log that is damaged somewhere in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// What lies before the first damage. The log goes on from there: positions behind it are given out again.
    #[default]
    Before,
    /// What lies in the segments behind the last damage, as if retention had removed the others.
    After,
}

/// A plan.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Repair {
    /// The damage that it is for.
    pub damage: Damage,
    /// The first position that is kept.
    pub from: Lsn,
    /// The first position that is not kept any more; the log goes on here, or behind it.
    pub to: Lsn,
    /// Segment files to be moved away, whole.
    pub moved: Vec<String>,
    /// The segment file to be cut; the whole file is kept beside.
    pub cut: Option<String>,
    /// Files of consumers that have done with more than is kept.
    pub consumers: Vec<String>,
    /// Where all of this goes.
    pub quarantine: PathBuf,
    log: Directory,
    keep: Keep,
}

/// What was done.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Repaired {
    /// Files that are in the quarantine now.
    pub quarantined: Vec<PathBuf>,
}

pub(super) fn plan(log: &Directory, survey: &Survey, keep: Keep) -> Result<Option<Repair>> {
    let (Some(first), Some(last)) = (survey.damage.first(), survey.damage.last()) else {
        return Ok(None);
    };
    let files = list(log)?;
    let at = match keep {
        Keep::Before => first,
        Keep::After => last,
    };
    let nothing = |reason| Error::Corruption {
        segment: at.segment.clone(),
        offset: at.offset,
        lsn: at.lsn,
        reason,
    };
    let (moved, cut, from, to): (Vec<&SegmentFile>, Option<&SegmentFile>, _, _) = match keep {
        Keep::Before => {
            let kept = files.iter().filter(|file| file.header.base < at.cut);
            let cut = kept
                .clone()
                .find(|file| (file.header.first_group() + 1..file.header.end()).contains(&at.cut));
            let whole = kept.filter(|file| file.header.end() <= at.cut);
            if cut.is_none() && whole.count() == 0 {
                return Err(nothing("nothing lies before the damage that could be kept"));
            }
            let behind = |file: &&SegmentFile| {
                file.header.end() > at.cut && cut.is_none_or(|cut| cut.name != file.name)
            };
            let from = files.first().map_or(0, |file| file.header.base);
            (files.iter().filter(behind).collect(), cut, from, at.cut)
        }
        Keep::After => {
            let damaged_to = at.lsn.as_u64() + at.bytes.max(1);
            let kept = |file: &&SegmentFile| {
                file.header.base >= damaged_to
                    && survey.segments.iter().any(|s| {
                        s.base.as_u64() == file.header.base && s.groups + s.control_groups > 0
                    })
            };
            let Some(first) = files.iter().find(kept) else {
                return Err(nothing("no whole segment lies behind the damage"));
            };
            let from = first.header.base;
            let before = files.iter().filter(|file| file.header.base < from).collect();
            (before, None, from, survey.end.as_u64())
        }
    };
    let end = match cut {
        Some(_) => to,
        None => kept_end(survey, to),
    };
    let mut consumers = Vec::new();
    for entry in log.dir.list().map_err(|e| Error::io("list", log.dir.path(), e))? {
        if log.names.parse_consumer(&entry.name).is_some() || entry.name == log.names.sealed() {
            let position = survey.log_id.and_then(|id| position_in(&*log.dir, &entry.name, &id));
            if keep == Keep::Before && position.is_none_or(|position| position > end) {
                consumers.push(entry.name);
            }
        }
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let quarantine =
        format!("{}.quarantine.{}", log.names.prefix(), now.map_or(0, |d| d.as_secs()));
    Ok(Some(Repair {
        damage: at.clone(),
        from: Lsn::new(from),
        to: Lsn::new(to),
        moved: moved.into_iter().map(|file| file.name.clone()).collect(),
        cut: cut.map(|file| file.name.clone()),
        consumers,
        quarantine: log.dir.path().join(quarantine),
        log: log.clone(),
        keep,
    }))
}

/// Where the last group lies that is kept, if all segments below `to` are.
fn kept_end(survey: &Survey, to: u64) -> u64 {
    let kept =
        survey.segments.iter().rev().find(|segment| {
            segment.base.as_u64() < to && segment.groups + segment.control_groups > 0
        });
    kept.map_or(to, |s| s.base.as_u64() + u64::from(s.block) + s.group_bytes)
}

impl Repair {
    /// Carries the plan out. Blocks for as long as copying one segment takes.
    ///
    /// # Errors
    ///
    /// `Locked` while a writer has the log, `Io` for what the system refuses. What was done until then can be made again.
    pub fn apply(&self) -> Result<Repaired> {
        let dir = &self.log.dir;
        let lock = DirLock::acquire(dir, &self.log.names.lock())?;
        let io = |op, path: &Path, e| Error::io(op, path, e);
        fs::create_dir_all(&self.quarantine).map_err(|e| io("make", &self.quarantine, e))?;
        sync_dir(dir.path())?;
        let mut quarantined = Vec::new();
        for name in self.moved.iter().rev().chain(&self.consumers) {
            let (from, to) = (dir.path().join(name), self.quarantine.join(name));
            fs::rename(&from, &to).map_err(|e| io("move", &from, e))?;
            quarantined.push(to);
        }
        if let Some(name) = &self.cut {
            let (from, to) = (dir.path().join(name), self.quarantine.join(name));
            fs::hard_link(&from, &to).map_err(|e| io("link", &from, e))?;
            sync_dir(&self.quarantine)?;
            self.replace(name)?;
            quarantined.push(to);
        }
        sync_dir(&self.quarantine)?;
        sync_dir(dir.path())?;
        drop(lock);
        if self.keep == Keep::After {
            crate::start::state_oldest(dir.path(), self.log.names.prefix())?;
        }
        Ok(Repaired { quarantined })
    }

    /// Puts a segment in a segment's place that is the same up to the cut, and unwritten behind it.
    fn replace(&self, name: &str) -> Result<()> {
        let (dir, to) = (&self.log.dir, self.to.as_u64());
        let files = list(&self.log)?;
        let Some(file) = files.iter().find(|file| file.name == name) else {
            return Err(Error::io(
                "find",
                dir.path().join(name),
                std::io::ErrorKind::NotFound.into(),
            ));
        };
        let header = file.header;
        let temporary = self.log.names.temporary(header.base);
        let io = |op, e| Error::io(op, dir.path().join(&temporary), e);
        let source = open(&self.log, name)?;
        let _ = dir.remove(&temporary);
        let target = dir.open(&temporary, Access::Create).map_err(|e| io("make", e))?;
        let mut chunk = AlignedBuf::new(1 << 20);
        let mut at = 0;
        while at < header.size {
            let len = (chunk.len() as u64).min(header.size - at) as usize;
            chunk[..len].fill(0);
            let kept = (to - header.base).saturating_sub(at).min(len as u64) as usize;
            read_full(&*source, &mut chunk[..kept], at).map_err(|e| io("copy", e))?;
            write_full(&*target, &chunk[..len], at).map_err(|e| io("write", e))?;
            at += len as u64;
        }
        let mut block = AlignedBuf::new(header.block as usize);
        for lsn in header.stamps_from_the_end().take_while(|lsn| *lsn >= to) {
            block[..STAMP].copy_from_slice(&stamp(lsn, &header.log_id));
            write_full(&*target, &block, lsn - header.base).map_err(|e| io("write", e))?;
        }
        target.sync_data().map_err(|e| io("sync", e))?;
        dir.rename(&temporary, name).map_err(|e| io("rename", e))
    }
}

fn sync_dir(path: &Path) -> Result<()> {
    let synced = fs::File::open(path).and_then(|dir| dir.sync_all());
    synced.map_err(|e| Error::io("sync", path, e))
}
