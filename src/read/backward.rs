//! Reading backwards: each group states the address of the group before it.

use std::sync::Arc;

use super::CHUNK_BYTES;
use super::group_cursor::{GroupCursor, RecordSpan};
use super::record::Record;
use crate::engine::log_view::LogView;
use crate::error::{Error, Result};
use crate::format::{GROUP_HEADER, GroupHeader, TagFilter};
use crate::io::fs::Access;
use crate::lsn::Lsn;
use crate::recovery::Walker;
use crate::segment::{Absent, Pinning, SegmentRef};

/// Reads durable records from the newest to the oldest, from
/// [`Wal::reader_back`](crate::Wal::reader_back).
///
/// It ends at the record that is the oldest when it gets there. Retention keeps the segment that it
/// is in, and may remove older ones. Beginning below the oldest record is `Pruned`. After an error
/// it ends. It holds the records of one group in memory, and allocates for each record.
#[derive(Debug)]
pub struct BackwardReader {
    view: Arc<LogView>,
    /// Only records below this address are returned.
    before: u64,
    /// The group to be read next; `None` before the first one is found.
    group: Option<u64>,
    segment: Option<(SegmentRef, Walker)>,
    /// Tags of the records that are returned; `None`: all records.
    wanted: Option<TagFilter>,
    /// Of the last group, ascending.
    records: Vec<Record>,
    ended: bool,
}

impl BackwardReader {
    /// `before` is at most the durable end.
    pub(crate) fn new(view: Arc<LogView>, before: u64) -> Self {
        let (group, segment, wanted, records) = (None, None, None, Vec::new());
        BackwardReader { view, before, group, segment, wanted, records, ended: false }
    }

    /// Returns only records with this tag from now on, as [`BackwardReader::only_tags`] does.
    #[must_use = "a filter is part of the reader that is returned"]
    pub fn only_tag(self, tag: u64) -> Self {
        self.only_tags([tag])
    }

    /// Returns only records with one of these tags from now on: see
    /// [`Reader::only_tags`](crate::Reader::only_tags).
    #[must_use = "a filter is part of the reader that is returned"]
    pub fn only_tags(mut self, tags: impl IntoIterator<Item = u64>) -> Self {
        let tags = TagFilter::new(tags).within(self.wanted.as_ref());
        self.records.retain(|record| tags.passes(record.tag()));
        self.wanted = Some(tags);
        self
    }

    fn advance(&mut self) -> Result<Option<Record>> {
        while !self.ended {
            if let Some(record) = self.records.pop() {
                return Ok(Some(record));
            }
            self.view.check_not_forked()?;
            let group = match self.group {
                Some(group) => Some(group),
                None => {
                    let newest = self.newest_below()?;
                    let oldest = self.view.table.oldest();
                    if newest.is_none() && (1..oldest).contains(&self.before) {
                        return Err(Error::Pruned { oldest: Lsn::new(oldest) });
                    }
                    newest
                }
            };
            match group {
                // The log's first group states 0.
                Some(group) if group != 0 && self.enter(group)? => self.read_group(group)?,
                _ => self.ended = true,
            }
        }
        Ok(None)
    }

    /// If retention has removed the place of a failed read, the log ends there.
    fn explain(&self, e: Error) -> Result<Option<Record>> {
        let base = self.segment.as_ref().map(|(segment, _)| segment.header.base);
        match self.view.explain(e, self.group.or(base).unwrap_or(self.before)) {
            Error::Pruned { .. } if self.group.is_some() => Ok(None),
            e => Err(e),
        }
    }

    /// Opens the segment of `lsn`. False: retention has removed it.
    fn enter(&mut self, lsn: u64) -> Result<bool> {
        if self.segment.as_ref().is_some_and(|(segment, _)| segment.header.base <= lsn) {
            return Ok(true);
        }
        let segment = match self.view.table.segment(lsn, Pinning::Pinned) {
            Ok(segment) => segment,
            Err(Absent::Pruned { .. }) => return Ok(false),
            Err(Absent::Beyond) => return Err(Error::NoRecord { lsn: Lsn::new(lsn) }),
        };
        let file = self.view.open_segment(segment.header.base, Access::Read)?;
        let walker = Walker::with_chunk(file, segment.header, CHUNK_BYTES);
        self.segment = Some((segment, walker));
        Ok(true)
    }

    /// The last group that begins below `before`.
    fn newest_below(&mut self) -> Result<Option<u64>> {
        let mut below = self.before;
        loop {
            let Some(last) = below.checked_sub(1) else { return Ok(None) };
            if !self.enter(last)? {
                return Ok(None);
            }
            let Some((segment, _)) = &self.segment else { return Ok(None) };
            let header = segment.header;
            let (mut at, mut found) = (header.first_group(), None);
            while at < below {
                let group = self.header(at)?;
                found = Some(at);
                at = group.padded_end(header.block);
                // The writer left the segment here, and goes on in the next one.
                if at >= below || !self.is_followed(&group)? {
                    break;
                }
            }
            if found.is_some() {
                return Ok(found);
            }
            below = header.base;
        }
    }

    /// Whether the next group follows in the same segment.
    fn is_followed(&mut self, group: &GroupHeader) -> Result<bool> {
        let Some((segment, walker)) = &mut self.segment else { return Ok(false) };
        let header = segment.header;
        let read = walker.group(group.padded_end(header.block));
        let next = read.map_err(|e| self.view.segment_error("read", header.base, e))?;
        Ok(next.is_ok_and(|next| next.follows(&group.link())))
    }

    fn header(&mut self, lsn: u64) -> Result<GroupHeader> {
        let Some((segment, walker)) = &mut self.segment else { return Err(Error::Closed) };
        let base = segment.header.base;
        let group = walker.group(lsn).map_err(|e| self.view.segment_error("read", base, e))?;
        group.map_err(|e| self.view.names.corruption(base, lsn, e.reason()))
    }

    /// Takes the records of a group, and moves on to the group before it.
    fn read_group(&mut self, lsn: u64) -> Result<()> {
        let mut records = std::mem::take(&mut self.records);
        let prev = self.visit(lsn, &mut |span, payload| {
            records.push(Record::new(span, payload.to_vec()));
        })?;
        self.records = records;
        self.group = Some(prev);
        Ok(())
    }

    /// Calls `each` with the records of the verified group at `lsn` that lie below `before`, and
    /// with their payloads. Returns the address of the group before it.
    fn visit(&mut self, lsn: u64, each: &mut dyn FnMut(RecordSpan, &[u8])) -> Result<u64> {
        let group = self.header(lsn)?;
        let Some((segment, walker)) = &mut self.segment else { return Ok(0) };
        let base = segment.header.base;
        let mut cursor = GroupCursor::new(&group);
        cursor.apply_cuts(&self.view.cuts, lsn);
        // A forward reader skips a group whose records are all cut, without verifying it.
        if group.used > GROUP_HEADER && !cursor.is_at_end() {
            let verdict = match &self.wanted {
                None => walker.verify(&group),
                Some(tags) => walker.verify_wanted(&group, tags),
            };
            verdict
                .map_err(|e| self.view.segment_error("read", base, e))?
                .map_err(|(at, e)| self.view.names.corruption(base, at, e.reason()))?;
            let window = walker.held();
            while let Some(span) = cursor.next(window) {
                if span.lsn >= self.before {
                    break;
                }
                let is_wanted = self.wanted.as_ref().is_none_or(|tags| tags.passes(span.tag));
                if is_wanted && let Some(payload) = window.sub(span.payload, span.len) {
                    each(span, payload);
                }
            }
        }
        Ok(group.prev)
    }

    /// The LSN of the newest record below `before` that was not cut. The search begins in `group`,
    /// the newest group that holds records. `None`: no record is left.
    pub(super) fn newest_lsn(mut self, group: u64) -> Result<Option<u64>> {
        let (mut at, mut newest) = (group, None);
        while newest.is_none() && at != 0 && self.enter(at)? {
            at = self.visit(at, &mut |span, _| newest = Some(span.lsn))?;
        }
        Ok(newest)
    }
}

impl Iterator for BackwardReader {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().or_else(|e| self.explain(e));
        self.ended |= !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}
