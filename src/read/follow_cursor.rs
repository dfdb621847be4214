//! A cursor whose end rises, and which notices records that are cut meanwhile.

use std::sync::Arc;

use super::cursor::Cursor;
use super::group_cursor::RecordSpan;
use super::record::{RecordRef, Records};
use super::shared::SharedRecords;
use crate::engine::log_view::LogView;
use crate::error::Result;
use crate::format::TagFilter;
use crate::segment::Pinning;

/// The cursor of followers, and of readers whose log another process writes.
#[derive(Debug)]
pub(super) struct FollowCursor {
    cursor: Cursor,
    /// Found and not delivered yet.
    peeked: Option<RecordSpan>,
    /// Number of cuts that the cursor has applied.
    applied_cuts: u64,
    /// No record above this address was delivered.
    delivered: u64,
}

impl FollowCursor {
    /// The cursor of a follower that has `durable_end` to begin with.
    pub(super) fn new(
        view: Arc<LogView>,
        from: u64,
        durable_end: u64,
        pinning: Pinning,
    ) -> Result<Self> {
        let applied_cuts = view.cuts.count();
        let cursor = Cursor::following(view, from, durable_end, pinning)?;
        Ok(FollowCursor { cursor, peeked: None, applied_cuts, delivered: 0 })
    }

    /// The cursor of a reader that ends at `end`. It reads no group from memory.
    pub(super) fn up_to(view: Arc<LogView>, from: u64, end: u64) -> Self {
        let applied_cuts = view.cuts.count();
        let cursor = Cursor::new(view, from, end, Pinning::Pinned);
        FollowCursor { cursor, peeked: None, applied_cuts, delivered: 0 }
    }

    /// Skips records of other tags from now on: see [`Cursor::want`].
    pub(super) fn want(&mut self, tags: TagFilter) -> TagFilter {
        let tags = self.cursor.want(tags);
        self.peeked = self.peeked.filter(|span| tags.passes(span.tag));
        tags
    }

    /// Whether a record follows below `end`, which only rises. If none does, one may later.
    pub(super) fn peek_below(&mut self, end: u64) -> Result<bool> {
        self.cursor.view().check_not_forked()?;
        self.apply_cuts()?;
        if self.peeked.is_some() {
            return Ok(true);
        }
        self.cursor.raise_end(end);
        match self.cursor.advance() {
            Ok(found) => {
                self.peeked = found;
                Ok(found.is_some())
            }
            Err(e) => {
                self.finish();
                Err(e)
            }
        }
    }

    /// The next record below `end`.
    pub(super) fn next_below(&mut self, end: u64) -> Result<Option<RecordRef<'_>>> {
        self.peek_below(end)?;
        let Some(span) = self.peeked.take() else { return Ok(None) };
        self.delivered = span.lsn;
        self.cursor.record(span).map(Some)
    }

    /// The next records below `end` that lie in memory together. `None` if there is no record.
    pub(super) fn next_records(&mut self, end: u64) -> Result<Option<Records<'_>>> {
        let Some(first) = self.next_run(end)? else { return Ok(None) };
        self.cursor.records_from(first).map(Some)
    }

    /// As [`FollowCursor::next_records`], with memory that the records share.
    pub(super) fn next_shared(&mut self, end: u64) -> Result<Option<SharedRecords>> {
        let Some(first) = self.next_run(end)? else { return Ok(None) };
        self.cursor.shared_from(first).map(Some)
    }

    /// The next record below `end`. The later ones of its group count as delivered too.
    fn next_run(&mut self, end: u64) -> Result<Option<RecordSpan>> {
        self.peek_below(end)?;
        let Some(segment) = self.cursor.segment() else { return Ok(None) };
        let Some(first) = self.peeked.take() else { return Ok(None) };
        let group = &segment.group;
        self.delivered = group.records_end.max(group.batch_end).max(first.lsn + 1) - 1;
        Ok(Some(first))
    }

    /// The highest end so far.
    pub(super) fn end(&self) -> u64 {
        self.cursor.end()
    }

    /// No record above this address was delivered.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// The record that was delivered last, or else the address where the cursor began.
    pub(super) fn reached(&self) -> u64 {
        self.delivered.max(self.cursor.from())
    }

    /// The lowest address at which the next record may lie.
    pub(super) fn position(&self) -> u64 {
        if self.delivered == 0 { self.cursor.from() } else { self.reached().saturating_add(1) }
    }

    fn finish(&mut self) {
        self.cursor.finish();
        self.peeked = None;
    }

    /// Drops records that were cut since the last call. A cut of delivered records is an error.
    fn apply_cuts(&mut self) -> Result<()> {
        let count = self.cursor.view().cuts.count();
        if count == self.applied_cuts {
            return Ok(());
        }
        self.applied_cuts = count;
        if let Err(e) = self.cursor.view().cuts.check(self.delivered) {
            self.finish();
            return Err(e);
        }
        let cuts = &self.cursor.view().cuts;
        self.peeked = self.peeked.filter(|span| cuts.at(span.lsn).is_none());
        self.cursor.apply_cuts();
        Ok(())
    }
}
