//! Records as readers return them.

use super::group_cursor::{GroupCursor, RecordSpan};
use super::segment_cursor::SegmentCursor;
use crate::lsn::Lsn;

/// A record with its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its position in the log.
    pub lsn: Lsn,
    /// The bytes that were appended.
    pub payload: Vec<u8>,
}

impl Record {
    /// Its position in the log.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The bytes that were appended.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// A record in the reader's own memory, valid until the reader's next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its position in the log.
    pub lsn: Lsn,
    /// The bytes that were appended.
    pub payload: &'a [u8],
}

impl RecordRef<'_> {
    /// A copy that outlives the reader's next call.
    #[must_use]
    pub fn to_record(&self) -> Record {
        Record { lsn: self.lsn, payload: self.payload.to_vec() }
    }
}

/// Records that lie in memory together, in place.
///
/// From [`Reader::next_records`](crate::Reader::next_records) and
/// [`Follow::next_records`](crate::Follow::next_records).
#[derive(Debug)]
#[must_use = "records that are not taken are skipped"]
pub struct Records<'a> {
    segment: &'a SegmentCursor,
    next: Option<RecordSpan>,
    group: GroupCursor,
}

impl<'a> Records<'a> {
    /// `first` and every later record of its group. The cursor moves past them.
    pub(super) fn new(segment: &'a mut SegmentCursor, first: RecordSpan) -> Self {
        let group = segment.take_group();
        Records { segment, next: Some(first), group }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordRef<'a>;

    fn next(&mut self) -> Option<RecordRef<'a>> {
        let segment = self.segment;
        let span = match self.next.take() {
            Some(span) => span,
            None => self.group.next(segment.window())?,
        };
        let payload = segment.window().sub(span.payload, span.len)?;
        Some(RecordRef { lsn: Lsn::new(span.lsn), payload })
    }
}
