//! Restores a log from an archive.
//!
//! 1. The target is a new or an empty directory, or one in which a restore was killed. Segments are
//!    written and judged in a directory inside it, `<prefix>.restoring`, and moved out when the log
//!    is whole.
//! 2. They are moved newest first. The last group of a restored log states the first position that
//!    the log has, so a log without its first segments does not open: an interrupted restore is
//!    never taken for a shorter log.
//! 3. Each part is compared with its manifest, and the whole log is surveyed as `ringwal verify`
//!    does before it is moved.
//! 4. A segment is synced while the next ones are read. All are synced before the log is surveyed.
//! 5. Nothing in the store changes. If restoring fails, what it created is removed.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use ringwal::Lsn;
use ringwal::inspect::{Directory, Finding, Survey};

use crate::block_on::block_on;
use crate::error::{Error, Result};
use crate::list::Index;
use crate::manifest::{Manifest, nanos};
use crate::store::{Archive, IN_FLIGHT};
use crate::target::{SegmentWriter, Target, is_whole};

/// Segments that are synced at once while the next one is read.
const SYNCED_AT_ONCE: usize = 2;

/// Where a restored log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Until {
    /// With the newest archived record.
    #[default]
    Newest,
    /// Before this position.
    Lsn(Lsn),
    /// Before the first group that was written at this time or later, by the clock of its writer.
    /// Where the clock was set back, the order of the log counts. If no group was, with the newest.
    Time(SystemTime),
}

/// Progress of a restore, or of [`Archive::verify`], in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RestoreProgress {
    /// Bytes that were read from the store; in a restore then those that were verified again.
    pub done: u64,
    /// The bytes of the segments; in a restore twice.
    pub total: u64,
}

/// A restored log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The id of the log, in hexadecimal.
    pub log_id: String,
    /// The first position that the log has.
    pub from: Lsn,
    /// The end of its last group.
    pub end: Lsn,
    /// Segments.
    pub segments: u64,
    /// Records, those included that `truncate_from` made void.
    pub records: u64,
    /// Bytes that were read from the store.
    pub bytes: u64,
    /// When its last group was written, by the clock of its writer.
    pub last_written: SystemTime,
    /// Manifests after the end of the archive that are torn or damaged: what they are of was not
    /// restored. Empty if the log ends where it was told to.
    pub left_out: Vec<String>,
}

type OnProgress<'a> = Box<dyn FnMut(RestoreProgress) -> ControlFlow<()> + Send + 'a>;

/// Restores a log, from [`Archive::restore`].
#[must_use = "nothing is restored until into() is called"]
pub struct Restore<'a> {
    archive: &'a Archive,
    prefix: String,
    from: Option<Lsn>,
    until: Until,
    progress: OnProgress<'a>,
}

impl std::fmt::Debug for Restore<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restore").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Archive {
    /// Returns the settings of a restore: without any, of everything that is archived.
    pub fn restore(&self) -> Restore<'_> {
        Restore {
            archive: self,
            prefix: "wal".into(),
            from: None,
            until: Until::Newest,
            progress: Box::new(|_| ControlFlow::Continue(())),
        }
    }
}

impl<'a> Restore<'a> {
    /// Start of the restored log's file names. Default `wal`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Leaves out the segments that end at or below this position.
    pub fn from(mut self, lsn: Lsn) -> Self {
        self.from = Some(lsn);
        self
    }

    /// Where the restored log ends.
    pub fn until(mut self, until: Until) -> Self {
        self.until = until;
        self
    }

    /// Calls `progress` often. If it returns [`ControlFlow::Break`], the restore ends with
    /// [`Error::Stopped`] and leaves nothing.
    pub fn progress(
        mut self,
        progress: impl FnMut(RestoreProgress) -> ControlFlow<()> + Send + 'a,
    ) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Restores into this directory, which is empty or does not exist. What a restore that was
    /// killed has left there is continued. Blocks until the log is whole, verified and durable. The
    /// log then opens as any other, and has exactly the archived records of the range. Consumers,
    /// cells and floors of tags are not archived.
    ///
    /// # Errors
    ///
    /// [`Error::NotEmpty`]; [`Error::Restoring`]; [`Error::NoArchive`] and [`Error::NoSegment`];
    /// [`Error::MissingObject`] and [`Error::DamagedObject`], which name the object;
    /// [`Error::BeyondEnd`] and [`Error::BeforeStart`]; [`Error::AnotherHistory`] if the range has
    /// segments of two histories; [`Error::Store`]; [`Error::Io`]; [`Error::Unsupported`];
    /// [`Error::AnotherLog`]; [`Error::Stopped`].
    pub fn into(mut self, dir: impl AsRef<Path>) -> Result<Restored> {
        let dir = dir.as_ref();
        // Before the store is asked: the user can resolve this at once.
        Target::check(dir, &self.prefix)?;
        let index = block_on(self.archive.index())?;
        let chosen = self.choose(&index)?;
        let target = Target::create(dir, &self.prefix)?;
        let restored = self.fill(&target, &chosen).and_then(|restored| {
            target.publish(&chosen, restored.end)?;
            let left_out = self.left_out(&index);
            Ok(Restored { log_id: index.log_id, left_out, ..restored })
        });
        if restored.is_err() {
            target.remove(&chosen);
        }
        restored
    }

    /// The segments that the log needs.
    fn choose(&self, index: &Index) -> Result<Vec<Manifest>> {
        let all = &index.manifests;
        let (Some(first), Some(last)) = (all.first(), all.last()) else {
            let none = Error::NoSegment { place: self.archive.place() };
            return Err(index.invalid.first().map_or(none, |b| self.archive.damaged_manifest(*b)));
        };
        let start = Lsn::new(first.base);
        let from = self.from.unwrap_or(start);
        if from < start {
            return Err(Error::BeforeStart { first: start });
        }
        let end = match self.until {
            Until::Newest => last.end(),
            Until::Lsn(lsn) if lsn.as_u64() > last.end() => {
                return Err(Error::BeyondEnd { asked: lsn, end: Lsn::new(last.end()) });
            }
            Until::Lsn(lsn)
                if self.from.is_some() && (lsn..Lsn::new(last.end())).contains(&from) =>
            {
                return Err(Error::Setting("the range ends before it begins, or where it begins"));
            }
            Until::Lsn(lsn) => lsn.as_u64(),
            Until::Time(time) => {
                let reached = all.iter().find(|manifest| manifest.latest_written >= nanos(time));
                reached.map_or(last.end(), Manifest::end)
            }
        };
        let wanted = |m: &&Manifest| m.end() > from.as_u64() && m.base < end;
        let chosen: Vec<Manifest> = all.iter().filter(wanted).cloned().collect();
        let Some((first, last)) = chosen.first().zip(chosen.last()) else {
            let archived = Lsn::new(last.end());
            return Err(match end < from.as_u64() {
                _ if from >= archived => Error::BeyondEnd { asked: from, end: archived },
                true => Error::Setting("the range ends before it begins, or where it begins"),
                false => Error::BeforeStart { first: start },
            });
        };
        let is_whole = self.from.is_none();
        let inside = |gap: &&crate::list::Gap| {
            let is_before = is_whole && gap.to.as_u64() == first.base;
            is_before || gap.to.as_u64() > first.base && gap.from.as_u64() < last.end()
        };
        if let Some(gap) = index.gaps.iter().find(inside) {
            let (object, from, to) = (gap.missing.clone(), gap.from, gap.to);
            return Err(Error::MissingObject { object, from, to });
        }
        let is_inside = |base: &&u64| (first.base + 1..last.end()).contains(*base);
        if let Some(base) = index.breaks.iter().find(is_inside) {
            let (object, base) = (self.archive.manifest_path(*base), Lsn::new(*base));
            return Err(Error::AnotherHistory { object, base });
        }
        Ok(chosen)
    }

    /// Manifests that could have been part of a log that was asked for up to the newest record.
    fn left_out(&self, index: &Index) -> Vec<String> {
        let last = index.manifests.last();
        let reaches_end = match self.until {
            Until::Newest => true,
            Until::Lsn(_) => false,
            Until::Time(time) => last.is_none_or(|last| last.latest_written < nanos(time)),
        };
        let end = last.map_or(0, Manifest::end);
        let after = index.invalid.iter().filter(|base| reaches_end && **base >= end);
        after.map(|base| self.archive.manifest_path(*base)).collect()
    }

    /// Fills the target's inner directory with a log that is whole.
    fn fill(&mut self, target: &Target, chosen: &[Manifest]) -> Result<Restored> {
        let bytes = chosen.iter().map(|manifest| manifest.bytes).sum();
        let mut progress = RestoreProgress { done: 0, total: 2 * bytes };
        self.tell(progress)?;
        target.keep_only(chosen)?;
        let archive = self.archive;
        block_on(async {
            let mut syncing = VecDeque::new();
            for manifest in chosen {
                let path = target.segment(manifest.base);
                let file = fetch(archive, manifest, &path, |more| {
                    progress.done += more;
                    self.tell(progress)
                });
                if let Some(file) = file.await? {
                    syncing.push_back(tokio::task::spawn_blocking(|| file.finish()));
                }
                if syncing.len() > SYNCED_AT_ONCE {
                    finished(syncing.pop_front()).await?;
                }
            }
            while !syncing.is_empty() {
                finished(syncing.pop_front()).await?;
            }
            Ok(())
        })?;
        let (Some(first), Some(last)) = (chosen.first(), chosen.last()) else {
            return Err(Error::Stopped);
        };
        let log = Directory::open(&target.inner, &self.prefix)?;
        let end = match self.until {
            Until::Newest => Lsn::new(last.groups_end),
            Until::Lsn(lsn) => lsn.min(Lsn::new(last.groups_end)),
            Until::Time(time) => log.position_at(time)?.min(Lsn::new(last.groups_end)),
        };
        let located = |e| located(archive, chosen, e);
        let end = match log.end_copy_before(end) {
            Err(ringwal::Error::NoRecord { .. }) => {
                return Err(Error::BeforeStart { first: Lsn::new(first.base) });
            }
            ended => ended.map_err(located)?,
        };
        let survey = self.survey(&log, bytes)?;
        if let Some(damage) = survey.damage.first() {
            let before = chosen.iter().rev().find(|m| m.base <= damage.lsn.as_u64());
            let object = before.map_or_else(|| archive.place(), |m| path(archive, m));
            let before = Lsn::new(before.map_or(first.base, |m| m.base));
            let (offset, found) = (damage.offset, damage.found.to_owned());
            return Err(Error::DamagedObject { object, offset, found, before });
        }
        let last = survey.segments.iter().rev().find(|segment| segment.last_written > 0);
        let written = last.map_or(0, |segment| segment.last_written);
        Ok(Restored {
            log_id: String::new(),
            from: Lsn::new(first.base),
            end,
            segments: survey.segments.len() as u64,
            records: survey.records,
            bytes,
            last_written: UNIX_EPOCH + std::time::Duration::from_nanos(written),
            left_out: Vec::new(),
        })
    }

    fn tell(&mut self, progress: RestoreProgress) -> Result<()> {
        match (self.progress)(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Stopped),
        }
    }

    /// Reads the restored log as `ringwal verify` does.
    fn survey(&mut self, log: &Directory, bytes: u64) -> Result<Survey> {
        let mut told = Ok(());
        let survey = log.survey_with(&mut |found| {
            if let Finding::Progress(at) = found {
                let done = bytes + at.done.min(bytes);
                told = self.tell(RestoreProgress { done, total: 2 * bytes });
            }
            if told.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        told.and(Ok(survey?))
    }
}

fn path(archive: &Archive, manifest: &Manifest) -> String {
    archive.path(&manifest.object).to_string()
}

/// Names the object instead of the file.
fn located(archive: &Archive, chosen: &[Manifest], e: ringwal::Error) -> Error {
    let ringwal::Error::Corruption { lsn, offset, reason, .. } = &e else { return e.into() };
    let of = chosen.iter().rev().find(|m| m.base <= lsn.as_u64());
    match of {
        Some(manifest) => Error::DamagedObject {
            object: path(archive, manifest),
            offset: *offset,
            found: (*reason).into(),
            before: Lsn::new(manifest.base),
        },
        None => e.into(),
    }
}

/// Waits until a segment's file is durable.
async fn finished(syncing: Option<tokio::task::JoinHandle<Result<()>>>) -> Result<()> {
    let Some(syncing) = syncing else { return Ok(()) };
    // No task is cancelled, and none panics.
    syncing.await.unwrap_or(Err(Error::Stopped))
}

/// Reads a segment's object into a file, unless the whole segment is there. The file is not
/// finished: it may be shorter than the segment, and is not durable.
async fn fetch(
    archive: &Archive,
    manifest: &Manifest,
    path: &Path,
    mut told: impl FnMut(u64) -> Result<()>,
) -> Result<Option<SegmentWriter>> {
    if is_whole(path, manifest)? {
        told(manifest.bytes)?;
        return Ok(None);
    }
    let mut file = SegmentWriter::create(path, manifest.size)?;
    let crcs = manifest.crcs().unwrap_or_default();
    let parts = manifest.ranges().into_iter().zip(crcs);
    let reads = parts.map(|(range, crc)| part(archive, manifest, crc, range));
    let mut reads = futures_util::stream::iter(reads).buffered(IN_FLIGHT);
    while let Some(bytes) = reads.next().await {
        let bytes = bytes?;
        file.write(&bytes)?;
        told(bytes.len() as u64)?;
    }
    Ok(Some(file))
}

/// Reads a part, and again if that fails: it may have been damaged on its way.
pub(crate) async fn part(
    archive: &Archive,
    manifest: &Manifest,
    crc: u32,
    range: std::ops::Range<u64>,
) -> Result<bytes::Bytes> {
    let mut pause = std::time::Duration::from_millis(100);
    for _ in 0..3 {
        match archive.part(manifest, crc, range.clone()).await {
            Err(Error::MissingObject { object, from, to }) => {
                return Err(Error::MissingObject { object, from, to });
            }
            Err(e) => tracing::warn!(error = %e, "a part is read again"),
            read => return read,
        }
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause *= 4;
    }
    match archive.part(manifest, crc, range).await {
        // Some stores answer so where the object is too short.
        Err(e @ Error::Store { .. }) => match archive.size(&manifest.object).await {
            Ok(Some(size)) if size < manifest.bytes => Err(archive.of_another_size(manifest, size)),
            _ => Err(e),
        },
        read => read,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::io;

    #[test]
    fn a_segment_that_cannot_be_synced_fails_the_restore() {
        let lost = || Err(io("sync", Path::new("wal"))(std::io::Error::other("lost")));
        let outcomes = block_on(async {
            let failed = finished(Some(tokio::task::spawn_blocking(lost))).await;
            let synced = finished(Some(tokio::task::spawn_blocking(|| Ok(())))).await;
            Ok((failed, synced, finished(None).await))
        });
        let (failed, synced, none) = outcomes.unwrap();
        assert!(matches!(failed, Err(Error::Io { op: "sync", .. })), "{failed:?}");
        assert!(synced.is_ok() && none.is_ok());
    }
}
