//! Records that outlive the reader's next call, and share their memory with each other.

use std::sync::Arc;
use std::time::SystemTime;

use super::group_cursor::{GroupCursor, RecordSpan};
use super::record::{Record, RecordRef};
use super::segment_cursor::SegmentCursor;
use crate::format::TagFilter;
use crate::lsn::Lsn;
use crate::recovery::SharedChunk;
use crate::segment::recent::GroupCopy;
use crate::segment::window::ByteWindow;

/// The memory in which a reader found a group.
#[derive(Debug, Clone)]
pub(super) enum SharedGroup {
    /// The group as it was read from the file, with its neighbours.
    Chunk(SharedChunk),
    /// The copy of a recent group.
    Copy(Arc<GroupCopy>),
}

impl SharedGroup {
    #[inline]
    fn held(&self) -> ByteWindow<'_> {
        match self {
            SharedGroup::Chunk(chunk) => chunk.held(),
            SharedGroup::Copy(copy) => copy.held(),
        }
    }
}

/// A record that lives as long as its holder wants. A clone is cheap.
///
/// It shares the memory that the reader has read, with the other records of that memory: no payload
/// is copied. So one record keeps up to 1 MiB, or a whole group if that is larger. To keep few
/// records for long, copy them: [`SharedRecord::to_record`].
///
/// From [`SharedRecords`].
#[derive(Debug, Clone)]
pub struct SharedRecord {
    group: SharedGroup,
    span: RecordSpan,
}

impl SharedRecord {
    /// Its position in the log.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        Lsn::new(self.span.lsn)
    }

    /// The bytes that were appended.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.group.held().sub(self.span.payload, self.span.len).unwrap_or_default()
    }

    /// The tag that it was appended with, if any: see [`Wal::tagged`](crate::Wal::tagged).
    #[must_use]
    pub fn tag(&self) -> Option<u64> {
        self.span.tag
    }

    /// Its number in the log: see [`RecordRef::ordinal`].
    #[must_use]
    pub fn ordinal(&self) -> u64 {
        self.as_record_ref().ordinal()
    }

    /// When its group was written: see [`RecordRef::written_at`].
    #[must_use]
    pub fn written_at(&self) -> SystemTime {
        self.as_record_ref().written_at()
    }

    /// The record in place.
    #[must_use]
    pub fn as_record_ref(&self) -> RecordRef<'_> {
        RecordRef::new(self.span, self.payload())
    }

    /// A copy with memory of its own.
    #[must_use]
    pub fn to_record(&self) -> Record {
        self.as_record_ref().to_record()
    }
}

impl AsRef<[u8]> for SharedRecord {
    fn as_ref(&self) -> &[u8] {
        self.payload()
    }
}

/// Two records are equal if position and payload are.
impl PartialEq for SharedRecord {
    fn eq(&self, other: &SharedRecord) -> bool {
        self.span.lsn == other.span.lsn && self.payload() == other.payload()
    }
}

impl Eq for SharedRecord {}

/// Records that lie in memory together, and outlive the reader's next call.
///
/// An iterator of [`SharedRecord`]. From [`Reader::next_shared`](crate::Reader::next_shared),
/// [`Follow::next_shared`](crate::Follow::next_shared) and those of
/// [`ReadOnlyReader`](crate::ReadOnlyReader) and [`ReadOnlyFollow`](crate::ReadOnlyFollow).
///
/// It may go to another thread, and need not be taken before the reader's next call. The reader
/// reuses its memory once nothing shares it. Until then each read of the file costs an allocation.
#[derive(Debug, Clone)]
#[must_use = "records that are not taken are skipped"]
pub struct SharedRecords {
    group: SharedGroup,
    next: Option<RecordSpan>,
    cursor: GroupCursor,
    wanted: Option<TagFilter>,
}

impl SharedRecords {
    /// `first` and every later record of its group that `wanted` passes. The cursor moves past
    /// them.
    pub(super) fn new(
        segment: &mut SegmentCursor,
        first: RecordSpan,
        wanted: Option<TagFilter>,
    ) -> Self {
        let group = match &segment.copy {
            None => SharedGroup::Chunk(segment.walker.share()),
            Some(copy) => SharedGroup::Copy(Arc::clone(copy)),
        };
        SharedRecords { group, next: Some(first), cursor: segment.take_group(), wanted }
    }

    #[inline]
    fn advance(&mut self) -> Option<RecordSpan> {
        match self.next.take() {
            Some(span) => Some(span),
            None => loop {
                let span = self.cursor.next(self.group.held())?;
                if self.wanted.as_ref().is_none_or(|wanted| wanted.passes(span.tag)) {
                    break Some(span);
                }
            },
        }
    }

    /// The next record, in place. Costs no reference count.
    pub fn next_ref(&mut self) -> Option<RecordRef<'_>> {
        let span = self.advance()?;
        let payload = self.group.held().sub(span.payload, span.len)?;
        Some(RecordRef::new(span, payload))
    }
}

impl Iterator for SharedRecords {
    type Item = SharedRecord;

    fn next(&mut self) -> Option<SharedRecord> {
        let span = self.advance()?;
        self.group.held().sub(span.payload, span.len)?;
        Some(SharedRecord { group: self.group.clone(), span })
    }
}
