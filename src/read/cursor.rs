//! The cursor under every reader: it finds the next record below an end.
//!
//! 1. The cursor pins the next segment before it drops the pin of the one before.
//! 2. A window never holds bytes at or above the end: the writer may still write there.
//! 3. The cursor has the file open that holds its last group, and no other.

use std::sync::Arc;

use super::CHUNK_BYTES;
use super::group_cursor::{GroupCursor, RecordSpan};
use super::record::{RecordRef, Records};
use super::segment_cursor::SegmentCursor;
use super::shared::SharedRecords;
use crate::engine::log_view::LogView;
use crate::error::{Error, Result};
use crate::format::{GROUP_HEADER, GroupHeader, GroupInvalid, SegmentHeader, TagFilter};
use crate::io::fs::{Access, File};
use crate::lsn::Lsn;
use crate::recovery::Walker;
use crate::segment::recent::RecentReader;
use crate::segment::{Absent, Pinning, SegmentRef};

/// Finds the records of a log in order, up to an end.
#[derive(Debug)]
pub(super) struct Cursor {
    view: Arc<LogView>,
    /// Records below this address are skipped; 0 skips none.
    from: u64,
    /// Tags of the records that are not skipped; `None` skips none for its tag.
    wanted: Option<TagFilter>,
    /// Records at or above this address need no further check: `from`, or none if tags count.
    plain_from: u64,
    end: u64,
    progress: Progress,
    /// `None` until a segment holds something below the end.
    segment: Option<SegmentCursor>,
    pinning: Pinning,
    /// A follower's access to groups that are still in memory.
    recent: Option<RecentReader>,
    /// The segment to begin in, until `segment` is there.
    start: Option<SegmentRef>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The cursor has not looked for its first segment below the current end.
    Unopened,
    Opened,
    /// At the end, or after an error: no record follows.
    Ended,
}

/// A group that is neither at its place nor at the start of the next segment.
struct MissingGroup {
    header: SegmentHeader,
    lsn: u64,
    found: Result<GroupHeader, GroupInvalid>,
}

impl Cursor {
    pub(super) fn new(view: Arc<LogView>, from: u64, end: u64, pinning: Pinning) -> Self {
        Cursor {
            view,
            from,
            wanted: None,
            plain_from: from,
            end,
            progress: Progress::Unopened,
            segment: None,
            pinning,
            recent: None,
            start: None,
        }
    }

    /// A follower's cursor, which reads recent groups from memory.
    ///
    /// If it pins, retention keeps everything that the cursor has not read from this call on.
    pub(super) fn following(
        view: Arc<LogView>,
        from: u64,
        durable_end: u64,
        pinning: Pinning,
    ) -> Result<Self> {
        let mut cursor = Cursor::new(view, from, 0, pinning);
        cursor.view.check_not_forked()?;
        cursor.recent = Some(RecentReader::new(&cursor.view.tail));
        loop {
            let oldest = cursor.view.table.oldest();
            if from != 0 && from < oldest {
                return Err(Error::Pruned { oldest: Lsn::new(oldest) });
            }
            // The next record may lie after the last durable byte, in a segment without a group.
            let last = durable_end - 1;
            match cursor.segment_of(from.min(last).max(oldest)) {
                // Retention has just removed it.
                Err(Error::Pruned { .. }) if from == 0 => {}
                segment => {
                    cursor.start = Some(segment?);
                    return Ok(cursor);
                }
            }
        }
    }

    /// Skips records of other tags from now on. Returns the filter, which an earlier one narrows.
    ///
    /// The group that the cursor is in was verified for the earlier filter, which passes more.
    pub(super) fn want(&mut self, tags: TagFilter) -> TagFilter {
        let tags = tags.within(self.wanted.as_ref());
        self.wanted = Some(tags.clone());
        self.plain_from = u64::MAX;
        tags
    }

    fn is_wanted(&self, span: &RecordSpan) -> bool {
        span.lsn >= self.from && self.wanted.as_ref().is_none_or(|tags| tags.passes(span.tag))
    }

    pub(super) fn view(&self) -> &LogView {
        &self.view
    }

    pub(super) fn from(&self) -> u64 {
        self.from
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn segment(&mut self) -> Option<&mut SegmentCursor> {
        self.segment.as_mut()
    }

    /// Raises the end to `end`. A lower one changes nothing.
    pub(super) fn raise_end(&mut self, end: u64) {
        if end <= self.end {
            return;
        }
        self.end = end;
        if self.segment.is_none() && self.progress == Progress::Opened {
            self.progress = Progress::Unopened;
        }
    }

    /// Leaves out records of the current group that were cut since the cursor entered it.
    pub(super) fn apply_cuts(&mut self) {
        if let Some(segment) = &mut self.segment
            && let Some(link) = segment.link
        {
            segment.group.apply_cuts(&self.view.cuts, link.lsn);
        }
    }

    /// Ends the cursor, and releases its segment.
    pub(super) fn finish(&mut self) {
        self.progress = Progress::Ended;
        self.segment = None;
        self.start = None;
    }

    /// Moves to the next record. `None`: no record is left below the end.
    #[inline(always)]
    pub(super) fn advance(&mut self) -> Result<Option<RecordSpan>> {
        // Most records lie in the same group as the one before.
        if let Some(segment) = &mut self.segment
            && let Some(span) = segment.next_in_group()
            && (span.lsn >= self.plain_from || self.is_wanted(&span))
        {
            return Ok(Some(span));
        }
        self.advance_to_next_group()
    }

    /// The record at `span`, which [`Cursor::advance`] returned last.
    #[inline(always)]
    pub(super) fn record(&self, span: RecordSpan) -> Result<RecordRef<'_>> {
        let Some(segment) = &self.segment else { return Err(Error::Closed) };
        match segment.window().sub(span.payload, span.len) {
            Some(payload) => Ok(RecordRef::new(span, payload)),
            None => Err(self.corruption(&segment.segment.header, span.lsn, "record length")),
        }
    }

    /// The record at `first`, which [`Cursor::advance`] returned last, and the rest of its group.
    pub(super) fn records_from(&mut self, first: RecordSpan) -> Result<Records<'_>> {
        match &mut self.segment {
            Some(segment) => Ok(Records::new(segment, first, self.wanted.as_ref())),
            None => Err(Error::Closed),
        }
    }

    /// As [`Cursor::records_from`], with memory that the records share.
    pub(super) fn shared_from(&mut self, first: RecordSpan) -> Result<SharedRecords> {
        match &mut self.segment {
            Some(segment) => Ok(SharedRecords::new(segment, first, self.wanted.clone())),
            None => Err(Error::Closed),
        }
    }

    #[cold]
    fn advance_to_next_group(&mut self) -> Result<Option<RecordSpan>> {
        self.search().map_err(|e| match &self.segment {
            // The failure lies in the last group, or after it.
            Some(segment) => {
                self.view.explain(e, segment.link.map_or(segment.next_group, |link| link.lsn))
            }
            None => e,
        })
    }

    fn search(&mut self) -> Result<Option<RecordSpan>> {
        if self.progress == Progress::Ended {
            return Ok(None);
        }
        self.view.check_not_forked()?;
        if self.progress == Progress::Unopened {
            self.progress = Progress::Opened;
            self.open()?;
        }
        loop {
            let Some(segment) = &mut self.segment else { return Ok(None) };
            if let Some(span) = segment.next_in_group() {
                if span.lsn < self.from {
                    segment.skipped_to = segment.group.at.max(segment.group.batch_end);
                } else if self.is_wanted(&span) {
                    return Ok(Some(span));
                }
            } else if !self.next_group()? {
                return Ok(None);
            }
        }
    }

    /// Opens the segment of `from`, if it holds anything below the end.
    fn open(&mut self) -> Result<()> {
        let segment = loop {
            let oldest = self.view.table.oldest();
            let from = if self.from == 0 { oldest } else { self.from };
            if from >= self.end {
                return if from < oldest {
                    Err(Error::Pruned { oldest: Lsn::new(oldest) })
                } else {
                    Ok(())
                };
            }
            match self.view.table.segment(from, self.pinning) {
                Ok(segment) => break segment,
                // Retention has just removed the oldest segment: the next one is the oldest now.
                Err(Absent::Pruned { .. }) if self.from == 0 => {}
                Err(Absent::Pruned { oldest }) => {
                    return Err(Error::Pruned { oldest: Lsn::new(oldest) });
                }
                Err(Absent::Beyond) => return Ok(()),
            }
        };
        let opened = self.open_file(&segment.header);
        let file = opened.map_err(|e| self.view.explain(e, segment.header.base))?;
        let walker = Walker::ahead_with_chunk(file, segment.header, CHUNK_BYTES);
        self.segment = Some(SegmentCursor::new(segment, walker));
        self.start = None;
        Ok(())
    }

    fn segment_of(&self, lsn: u64) -> Result<SegmentRef> {
        let segment = self.view.table.segment(lsn, self.pinning);
        segment.map_err(|absent| absent.into_error(lsn))
    }

    fn open_file(&self, header: &SegmentHeader) -> Result<Arc<dyn File>> {
        // In the segment that is being written, the page cache would read ahead pages that the
        // writer writes next, past the cache.
        let unfinished = self.recent.is_some() && header.end() > self.end;
        let access = if unfinished { Access::ReadDevice } else { Access::Read };
        self.view.open_segment(header.base, access)
    }

    /// Moves to the next group with anything at or above `from`. False: at the end.
    fn next_group(&mut self) -> Result<bool> {
        loop {
            let Some(segment) = &mut self.segment else { return Ok(false) };
            if segment.next_group >= self.end {
                segment.walker.rest();
                return Ok(false);
            }
            let copy = match (segment.link, &mut self.recent) {
                (Some(link), Some(recent)) => recent.after(&link),
                _ => None,
            };
            let group = match &copy {
                Some(copy) => {
                    segment.walker.rest();
                    copy.header
                }
                None => {
                    // Groups end on a block: no byte of the window is written later.
                    segment.walker.read_below(self.end);
                    match self.find_group()? {
                        Some(group) => group,
                        None => return Ok(false),
                    }
                }
            };
            if let Some(segment) = &self.segment
                && group.lsn >= segment.segment.header.end()
            {
                self.follow_copy(group.lsn)?;
            }
            let Some(segment) = &mut self.segment else { return Ok(false) };
            let end = group.padded_end(segment.segment.header.block);
            segment.link = Some(group.link());
            segment.next_group = end;
            let in_memory = copy.is_some();
            segment.copy = copy;
            if end <= self.from || group.used == GROUP_HEADER {
                continue;
            }
            segment.group = GroupCursor::new(&group);
            segment.group.apply_cuts(&self.view.cuts, group.lsn);
            if segment.group.is_at_end() {
                continue;
            }
            if !in_memory {
                self.verify(&group)?;
            }
            return Ok(true);
        }
    }

    /// Verifies the group in the file. A failure is read once more before it is an error.
    fn verify(&mut self, group: &GroupHeader) -> Result<()> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        let header = segment.segment.header;
        for again in [true, false] {
            let read = match &self.wanted {
                None => segment.walker.verify(group),
                Some(tags) => segment.walker.verify_wanted(group, tags),
            };
            match read.map_err(|e| self.view.segment_error("read", header.base, e))? {
                Ok(()) => break,
                Err(_) if again => segment.walker.forget(),
                Err((lsn, e)) => return Err(self.corruption(&header, lsn, e.reason())),
            }
        }
        Ok(())
    }

    /// Moves to the segment of a group that was copied in memory. The file of the segment before is
    /// closed: once retention removes it, its space is free.
    fn follow_copy(&mut self, lsn: u64) -> Result<()> {
        // The old pin protects this segment until it has a pin of its own.
        let next = self.segment_of(lsn)?;
        let header = next.header;
        let walker = Walker::ahead_with_chunk(self.open_file(&header)?, header, CHUNK_BYTES);
        if let Some(segment) = &mut self.segment {
            segment.segment = next;
            segment.walker = walker;
        }
        Ok(())
    }

    /// The header of the next group: at its place, or at the start of the next segment.
    fn find_group(&mut self) -> Result<Option<GroupHeader>> {
        for again in [true, false] {
            let Some(segment) = &mut self.segment else { return Ok(None) };
            let (header, at) = (segment.walker.header, segment.next_group);
            let read = segment.walker.group(at);
            let here = read.map_err(|e| self.view.segment_error("read", header.base, e))?;
            let link = segment.link;
            let follows = |g: &GroupHeader| link.is_none_or(|l| g.follows(&l));
            if let Ok(group) = here
                && follows(&group)
            {
                return Ok(Some(group));
            }
            let mut missing = MissingGroup { header, lsn: at, found: here };
            if link.is_some() && header.end() < self.end {
                // The old pin protects the next segment until it has a pin of its own.
                if let Ok(next) = self.view.table.segment(header.end(), self.pinning) {
                    match self.enter_next_segment(next, &follows)? {
                        Ok(group) => return Ok(Some(group)),
                        Err(there) => {
                            let room = header.end().saturating_sub(at);
                            let is_left = room < u64::from(header.max_group)
                                && missing.found.is_err()
                                && there.found.is_err();
                            // Where this segment was full, the group is missing in the next one.
                            if at >= header.end() || is_left {
                                missing = there;
                            }
                        }
                    }
                }
            } else if at + u64::from(header.block) > header.end() && header.end() >= self.end {
                return Ok(None);
            }
            if !again {
                let reason = missing.found.err();
                let reason = reason.map_or("a group that does not follow", |e| e.reason());
                return Err(self.corruption(&missing.header, missing.lsn, reason));
            }
            if let Some(segment) = &mut self.segment {
                segment.walker.forget();
            }
        }
        Ok(None)
    }

    /// Moves to the next segment, if its first group follows.
    fn enter_next_segment(
        &mut self,
        next: SegmentRef,
        follows: &dyn Fn(&GroupHeader) -> bool,
    ) -> Result<Result<GroupHeader, MissingGroup>> {
        let header = next.header;
        let mut walker = Walker::ahead_with_chunk(self.open_file(&header)?, header, CHUNK_BYTES);
        walker.read_below(self.end);
        if let Some(segment) = &mut self.segment {
            walker.go_on_from(&mut segment.walker);
        }
        let lsn = header.first_group();
        let read = walker.group(lsn);
        let found = read.map_err(|e| self.view.segment_error("read", header.base, e))?;
        if let Ok(group) = found
            && follows(&group)
            && let Some(segment) = &mut self.segment
        {
            segment.segment = next;
            segment.walker = walker;
            return Ok(Ok(group));
        }
        Ok(Err(MissingGroup { header, lsn, found }))
    }

    fn corruption(&self, header: &SegmentHeader, lsn: u64, reason: &'static str) -> Error {
        self.view.names.corruption(header.base, lsn, reason)
    }
}
