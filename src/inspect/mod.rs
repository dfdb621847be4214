//! Surveys and repairs a log segment by segment, in whatever state it is.
//!
//! Opening a log refuses damage, and reading ends at it. A survey continues after damage and
//! reports what is there. Everything here only reads, takes no lock, and may be used beside a
//! writer, except [`Repair::apply`] and [`Directory::remove_consumer`].
//!
//! ```
//! # let dir = std::env::temp_dir().join(format!("ringwal-doc-inspect-{}", std::process::id()));
//! # let wal = ringwal::Wal::open(&dir)?;
//! # wal.append_durable(b"one")?; wal.close()?;
//! let log = ringwal::inspect::Directory::open(&dir, "wal")?;
//! let survey = log.survey(&mut |_| {})?;
//! assert!(survey.damage.is_empty());
//! assert_eq!(survey.records, 1);
//! # std::fs::remove_dir_all(&dir).unwrap();
//! # Ok::<(), ringwal::Error>(())
//! ```

mod cells;
mod consumers;
mod excerpt;
mod files;
#[cfg(all(any(test, fuzzing), not(ringwal_loom)))]
pub(crate) mod judged;
mod medium_errors;
mod repair;
mod sealed;
mod survey;
mod times;
mod view;
mod walk;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

pub use cells::StoredCells;
pub use consumers::StoredConsumer;
pub use repair::{Keep, Repair, Repaired};
pub use sealed::SealedContent;

use crate::error::{Error, Result};
use crate::format::SegmentHeader;
use crate::io::fs::{Dir, OsDir};
use crate::lsn::Lsn;
use crate::positions::{ConsumerInfo, TagFloor, position_in};
use crate::read::outside::ReadOnlyWal;
use crate::segment::{Names, SegmentName};
use view::View;

/// A directory with a log in it.
#[derive(Debug, Clone)]
pub struct Directory {
    dir: Arc<OsDir>,
    names: Names,
    view: View,
}

/// An intact record, as [`Directory::intact_tagged_records`] finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct IntactRecord<'a> {
    /// Its position in the log.
    pub lsn: Lsn,
    /// The tag that it was appended with, if any.
    pub tag: Option<u64>,
    /// The bytes that were appended.
    pub payload: &'a [u8],
}

/// A segment file, as the directory lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentFile {
    /// Its name.
    pub name: String,
    /// The first position in it, by its name.
    pub base: Lsn,
    /// Its bytes.
    pub size: u64,
}

/// Progress of a survey, in bytes of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes read.
    pub done: u64,
    /// Bytes to read.
    pub total: u64,
    /// Intact records so far.
    pub records: u64,
    /// Damaged places so far.
    pub damaged_places: u64,
}

/// What a survey finds while it is made.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Finding<'a> {
    /// Progress.
    Progress(Progress),
    /// A damaged place, once for each that the survey lists. The intact records after it are not
    /// counted yet.
    Damage(&'a Damage),
    /// A place that was reported before is no damage: `truncate_from` made its records void.
    Void(&'a Damage),
}

/// Watches a survey, and may end it.
type Watch<'a> = dyn FnMut(Finding<'_>) -> ControlFlow<()> + 'a;

fn quiet(_: Finding<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The result of a survey.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Survey {
    /// Segment by segment, oldest first.
    pub segments: Vec<Segment>,
    /// What is damaged, in the order of the log. At most [`MOST_DAMAGE`] places;
    /// [`Survey::damaged_places`] counts all.
    pub damage: Vec<Damage>,
    /// Places that are damaged.
    pub damaged_places: u64,
    /// Intact records, including those after damage and those that `truncate_from` made void.
    pub records: u64,
    /// Records known to be lost: their numbers are missing between intact groups.
    pub records_lost: u64,
    /// Ranges that `truncate_from` made void.
    pub cuts: Vec<(Lsn, Lsn)>,
    /// The first position after the last intact group.
    pub end: Lsn,
    /// The log's id, if any segment has a sound header.
    pub log_id: Option<[u8; 16]>,
    /// The application's version of its record format.
    pub application_version: u32,
    /// Segments that retention removed during the survey.
    pub removed_meanwhile: u64,
    /// The survey was ended before everything was read: nothing is known of what follows.
    pub interrupted: bool,
    /// The durable end, if it could be established. Bytes after it are not read.
    limit: Option<u64>,
    /// The oldest position that is kept, as the groups state it.
    stated_oldest: u64,
    /// Number of the first record of the first intact group.
    first_ordinal: Option<u64>,
    /// An unreadable place that may hold a group.
    unreadable: Option<Damage>,
    /// The oldest and the newest damage that requires a cut, including places that are not listed.
    first_cut: Option<Damage>,
    last_cut: Option<Damage>,
}

/// Places of damage that a [`Survey`] lists at most.
pub const MOST_DAMAGE: usize = 1000;

/// What one segment holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// The file's name.
    pub name: String,
    /// The first position in it.
    pub base: Lsn,
    /// Bytes of the file.
    pub size: u64,
    /// What its groups are aligned to, in bytes.
    pub block: u32,
    /// Intact groups with records.
    pub groups: u64,
    /// Intact groups without records: an epoch, a mark, retention.
    pub control_groups: u64,
    /// Intact records.
    pub records: u64,
    /// Bytes of groups, with headers and padding.
    pub group_bytes: u64,
    /// Bytes of records, with their headers.
    pub record_bytes: u64,
    /// Writer lives (epochs) that began in it.
    pub epochs: u64,
    /// When the first group was written, in nanoseconds since 1970; 0 without a group.
    pub first_written: u64,
    /// The last.
    pub last_written: u64,
}

/// One damaged place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub segment: String,
    /// Bytes from its beginning.
    pub offset: u64,
    /// The position in the log.
    pub lsn: Lsn,
    /// What is wrong there.
    pub found: &'static str,
    /// What should be there.
    pub expected: String,
    /// Bytes from there to the next intact group, or to where the log was durable.
    pub bytes: u64,
    /// Intact records before it.
    pub records_before: u64,
    /// Records that were in those bytes, by the numbers of the records around them; unknown if no
    /// intact record follows.
    pub records_lost: Option<u64>,
    /// Intact records after it.
    pub records_after: u64,
    /// Where a cut must lie to keep the log before it: the start of the group, or of the segment.
    cut: u64,
    /// Intact records before that cut.
    kept: u64,
    /// The group, if its header is intact and one of its records is damaged.
    records_of: Option<u64>,
    remedy: Remedy,
    /// It was passed to the watcher of the survey.
    reported: bool,
}

/// The remedy for a damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// The log is cut before or after it.
    Cut,
    /// The header or the length is rebuilt; the content is whole.
    Rebuild,
    /// The file is moved away: it is none of the log's segments, or holds no valid content.
    Remove,
}

impl Directory {
    /// Opens the directory without reading any file.
    ///
    /// # Errors
    ///
    /// `Options` for a prefix that makes no plain file name, `Io` if there is no such directory.
    pub fn open(dir: impl AsRef<Path>, prefix: &str) -> Result<Self> {
        crate::options::validate_prefix(prefix)?;
        let path = dir.as_ref();
        let dir = OsDir::open(path).map_err(|e| Error::io("open directory", path, e))?;
        let (dir, names) = (Arc::new(dir), Names::new(prefix));
        let view = View { dir: Arc::<OsDir>::clone(&dir), names: names.clone() };
        Ok(Directory { dir, names, view })
    }

    /// Lists the segment files, oldest first, without reading them.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn segment_files(&self) -> Result<Vec<SegmentFile>> {
        let mut found = Vec::new();
        for entry in self.dir.list().map_err(|e| Error::io("list", self.dir.path(), e))? {
            if let SegmentName::Segment(base) = self.names.parse(&entry.name) {
                let base = Lsn::new(base);
                found.push(SegmentFile { name: entry.name, base, size: entry.len });
            }
        }
        found.sort_unstable_by_key(|file| file.base);
        Ok(found)
    }

    /// Lists the consumers and their positions. `attached` is unknown here, and false. A consumer
    /// whose position is damaged has [`Lsn::ZERO`]; [`Directory::stored_consumers`] tells the two
    /// apart.
    ///
    /// # Errors
    ///
    /// `Io`; as [`ReadOnlyWal::open`](crate::ReadOnlyWal::open), from which the durable end is.
    pub fn consumers(&self) -> Result<Vec<ConsumerInfo>> {
        let mut found = Vec::new();
        for entry in self.dir.list().map_err(|e| Error::io("list", self.dir.path(), e))? {
            let Some(name) = self.names.parse_consumer(&entry.name) else { continue };
            found.push((name.to_owned(), entry.name));
        }
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let log = ReadOnlyWal::open_with_prefix(self.dir.path(), self.names.prefix())?;
        let (end, id) = (log.durable_end()?.as_u64(), self.header()?.map(|header| header.log_id));
        found.sort_unstable();
        let position = |file: &str| id.and_then(|id| position_in(&*self.dir, file, &id));
        let info = |(name, file): (String, String)| {
            let position = position(&file).unwrap_or(0);
            let lag = end.saturating_sub(position);
            ConsumerInfo { name, position: Lsn::new(position), lag_bytes: lag, attached: false }
        };
        Ok(found.into_iter().map(info).collect())
    }

    /// Returns the log's id and the application version, from the first sound header.
    ///
    /// # Errors
    ///
    /// `Io`, `Unsupported`.
    pub fn identity(&self) -> Result<Option<([u8; 16], u32)>> {
        Ok(self.header()?.map(|header| (header.log_id, header.app_version)))
    }

    /// Returns the process that has the log open for appending, from the kernel's list of locks.
    /// Takes no lock. Linux only, and only for processes visible to this one.
    #[must_use]
    pub fn writer(&self) -> Option<u32> {
        files::holder(&self.dir.reach_of(&self.names.lock()))
    }

    fn header(&self) -> Result<Option<SegmentHeader>> {
        let files = files::list(&self.view)?;
        Ok(files.into_iter().find(|file| file.wrong.is_none()).map(|file| file.header))
    }

    /// Reads everything, in order, and verifies every checksum, link and record. Needs memory for
    /// one group.
    ///
    /// # Errors
    ///
    /// `Io` with `NotFound` if there is no segment, or for what the system refuses; `Unsupported`
    /// for a newer format. Damage is no error: it is in the [`Survey`]; neither is what the disk
    /// cannot read.
    pub fn survey(&self, progress: &mut dyn FnMut(Progress)) -> Result<Survey> {
        self.survey_with(&mut |found| {
            if let Finding::Progress(at) = found {
                progress(at);
            }
            ControlFlow::Continue(())
        })
    }

    /// As [`Directory::survey`], and calls `found` with each damaged place when its segment has
    /// been read. If `found` returns [`ControlFlow::Break`], the survey ends there and holds what
    /// was found until then: [`Survey::interrupted`] is true.
    ///
    /// # Errors
    ///
    /// As [`Directory::survey`].
    pub fn survey_with(
        &self,
        found: &mut dyn FnMut(Finding<'_>) -> ControlFlow<()>,
    ) -> Result<Survey> {
        survey::survey(self, found)
    }

    /// The position of the first group that was written at `time` or later, by the wall clock of
    /// its writer; the durable end if there is none. The clock may have been set back: what counts
    /// is the order of the log. Reads the first group of segments, and the groups of one.
    ///
    /// # Errors
    ///
    /// As [`Directory::survey`].
    pub fn position_at(&self, time: SystemTime) -> Result<Lsn> {
        times::position_at(self, time)
    }

    /// When the group was written that `lsn` lies in, by the wall clock of its writer. `None`: no
    /// intact group lies there.
    ///
    /// # Errors
    ///
    /// As [`Directory::survey`].
    pub fn written_at(&self, lsn: Lsn) -> Result<Option<SystemTime>> {
        times::written_at(self, lsn)
    }

    /// The consumers that have a file, in order of their names, also of a log that is damaged.
    ///
    /// # Errors
    ///
    /// `Io`, `Unsupported`.
    pub fn stored_consumers(&self) -> Result<Vec<StoredConsumer>> {
        consumers::stored(self)
    }

    /// Reads the cells, also of a log that is damaged. `None`: no cell was ever stored.
    ///
    /// A value that a writer is just storing may be among them.
    ///
    /// # Errors
    ///
    /// `Io`, `Unsupported`.
    pub fn stored_cells(&self) -> Result<Option<StoredCells>> {
        cells::stored(&self.view)
    }

    /// Removes a consumer for good, also one whose position is damaged, and returns what was
    /// stored. Retention no longer waits for it.
    ///
    /// # Errors
    ///
    /// `NoConsumer`; `Locked` while a writer has the log open: there
    /// [`Wal::remove_consumer`](crate::Wal::remove_consumer) does it; `Io`.
    pub fn remove_consumer(&self, name: &str) -> Result<StoredConsumer> {
        consumers::remove(self, name)
    }

    /// The floors of tags as stored: see [`Wal::hold_tag`](crate::Wal::hold_tag). `None`: no copy
    /// of them in their file is sound. No file: there are none.
    ///
    /// # Errors
    ///
    /// `Io`, `Unsupported`.
    pub fn stored_tag_floors(&self) -> Result<Option<Vec<TagFloor>>> {
        consumers::stored_floors(self)
    }

    /// Calls `each` with every intact record that is not void, in order, including those after
    /// damage, until it returns false. `survey` is an earlier survey of the log; its cuts are void.
    ///
    /// # Errors
    ///
    /// As [`Directory::survey`].
    pub fn intact_records(
        &self,
        survey: &Survey,
        each: &mut dyn FnMut(Lsn, &[u8]) -> bool,
    ) -> Result<Survey> {
        survey::records(self, survey, &mut |record| each(record.lsn, record.payload))
    }

    /// As [`Directory::intact_records`], and passes the tag of each record too.
    ///
    /// # Errors
    ///
    /// As [`Directory::survey`].
    pub fn intact_tagged_records(
        &self,
        survey: &Survey,
        each: &mut dyn FnMut(IntactRecord<'_>) -> bool,
    ) -> Result<Survey> {
        survey::records(self, survey, each)
    }

    /// Reads the segment at `base`, which the log has left, verifies all of it, and returns what it
    /// holds. May be called beside a writer, while the segment stays.
    ///
    /// ```
    /// # let name = format!("ringwal-doc-content-{}", std::process::id());
    /// # let dir = std::env::temp_dir().join(name);
    /// # let wal = ringwal::Wal::builder(&dir).segment_size(64 << 10).open()?;
    /// # for _ in 0..100 { wal.append(&[7; 1000])?; }
    /// # wal.close()?;
    /// let log = ringwal::inspect::Directory::open(&dir, "wal")?;
    /// let content = log.sealed_content(ringwal::Lsn::ZERO)?;
    /// assert!(content.records > 0 && content.groups_end.as_u64() <= 64 << 10);
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Io` with `NotFound` if the segment or the next one is gone, or if the log has not left it;
    /// `Corruption` for damage, and if the next segment does not continue it; `Unsupported`;
    /// `ForeignSegment`.
    pub fn sealed_content(&self, base: Lsn) -> Result<SealedContent> {
        sealed::sealed_content(self, base)
    }

    /// Makes the segments in this directory, which are a copy, a log that begins with the oldest of
    /// them and ends before `end`. Returns the end of its last group.
    ///
    /// The log then has exactly the copied records below `end`. A batch that reaches to `end` is
    /// left out as a whole, and so is a cut of `truncate_from` that was made later. Later segments
    /// are removed from the directory. `end` is at most the end of the last copied group.
    ///
    /// # Errors
    ///
    /// `Io`, also if a log was ever opened in the directory: then nothing has changed; `Corruption`
    /// if a segment is missing, or the groups do not reach `end`; `NoRecord` if no group lies
    /// before `end`; `Unsupported`; `ForeignSegment`.
    pub fn end_copy_before(&self, end: Lsn) -> Result<Lsn> {
        excerpt::end_copy_before(self, end)
    }

    /// Plans what makes a damaged log open again. `None`: the log is sound. Changes nothing. The
    /// plan is tried on a view of the files first, and reports what that view holds. This reads the
    /// kept part once more.
    ///
    /// # Errors
    ///
    /// As [`Directory::survey`]; `Corruption` if there is nothing that `keep` could keep, or if no
    /// intact record would be kept of those that there are:
    /// [`Directory::plan_repair_keeping_nothing`] plans that.
    pub fn plan_repair(&self, survey: &Survey, keep: Keep) -> Result<Option<Repair>> {
        repair::plan(self, survey, keep, false)
    }

    /// Plans a repair as [`Directory::plan_repair`] does, also if no intact record stays in
    /// service.
    ///
    /// # Errors
    ///
    /// As [`Directory::survey`]; `Corruption` if there is no segment that `keep` could keep.
    pub fn plan_repair_keeping_nothing(
        &self,
        survey: &Survey,
        keep: Keep,
    ) -> Result<Option<Repair>> {
        repair::plan(self, survey, keep, true)
    }
}
