//! Records as readers return them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::group_cursor::{GroupCursor, RecordSpan};
use super::segment_cursor::SegmentCursor;
use crate::format::TagFilter;
use crate::lsn::Lsn;

/// A record with its position.
///
/// Two records are equal if position and payload are: [`Wal::read`](crate::Wal::read) finds no
/// more of a record.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Record {
    /// Its position in the log.
    pub lsn: Lsn,
    /// The bytes that were appended.
    pub payload: Vec<u8>,
    tag: Option<u64>,
    origin: Option<Origin>,
}

/// What the header of a record's group says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin {
    ordinal: u64,
    /// Nanoseconds since 1970.
    wall: u64,
}

impl Origin {
    fn written_at(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.wall)
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Record) -> bool {
        self.lsn == other.lsn && self.payload == other.payload
    }
}

impl Eq for Record {}

impl Record {
    /// A record whose group was not read.
    pub(super) fn alone(lsn: u64, tag: Option<u64>, payload: Vec<u8>) -> Self {
        Record { lsn: Lsn::new(lsn), payload, tag, origin: None }
    }

    pub(super) fn new(span: RecordSpan, payload: Vec<u8>) -> Self {
        RecordRef::new(span, &[]).with_payload(payload)
    }

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

    /// The tag that it was appended with, if any: see [`Wal::tagged`](crate::Wal::tagged).
    #[must_use]
    pub fn tag(&self) -> Option<u64> {
        self.tag
    }

    /// Its number in the log: see [`RecordRef::ordinal`]. `None` for a record from
    /// [`Wal::read`](crate::Wal::read), which reads the record and not its group.
    #[must_use]
    pub fn ordinal(&self) -> Option<u64> {
        self.origin.map(|origin| origin.ordinal)
    }

    /// When its group was written: see [`RecordRef::written_at`]. `None` for a record from
    /// [`Wal::read`](crate::Wal::read).
    #[must_use]
    pub fn written_at(&self) -> Option<SystemTime> {
        self.origin.map(Origin::written_at)
    }
}

/// A record in the reader's own memory, valid until the reader's next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordRef<'a> {
    /// Its position in the log.
    pub lsn: Lsn,
    /// The bytes that were appended.
    pub payload: &'a [u8],
    tag: Option<u64>,
    origin: Origin,
}

impl<'a> RecordRef<'a> {
    #[inline]
    pub(super) fn new(span: RecordSpan, payload: &'a [u8]) -> Self {
        let origin = Origin { ordinal: span.ordinal, wall: span.wall };
        RecordRef { lsn: Lsn::new(span.lsn), payload, tag: span.tag, origin }
    }

    /// Its position in the log.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The bytes that were appended.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The tag that it was appended with, if any: see [`Wal::tagged`](crate::Wal::tagged).
    #[must_use]
    pub fn tag(&self) -> Option<u64> {
        self.tag
    }

    /// Its number in the log: the first record ever appended has 0, and the next one has 1 more. A
    /// record that was cut keeps its ordinal, so the ordinals that a reader returns have a gap
    /// there. [`Wal::read_ordinal`](crate::Wal::read_ordinal) finds the record again.
    #[must_use]
    pub fn ordinal(&self) -> u64 {
        self.origin.ordinal
    }

    /// The wall clock's time when the writer wrote the record's group. Records of one group have
    /// the same time. The clock may have been set back: positions order the log, times do not.
    #[must_use]
    pub fn written_at(&self) -> SystemTime {
        self.origin.written_at()
    }

    /// A copy that outlives the reader's next call.
    #[must_use]
    pub fn to_record(&self) -> Record {
        self.with_payload(self.payload.to_vec())
    }

    fn with_payload(&self, payload: Vec<u8>) -> Record {
        Record { lsn: self.lsn, payload, tag: self.tag, origin: Some(self.origin) }
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
    wanted: Option<&'a TagFilter>,
}

impl<'a> Records<'a> {
    /// `first` and every later record of its group that `wanted` passes. The cursor moves past
    /// them.
    pub(super) fn new(
        segment: &'a mut SegmentCursor,
        first: RecordSpan,
        wanted: Option<&'a TagFilter>,
    ) -> Self {
        let group = segment.take_group();
        Records { segment, next: Some(first), group, wanted }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordRef<'a>;

    fn next(&mut self) -> Option<RecordRef<'a>> {
        let segment = self.segment;
        let span = match self.next.take() {
            Some(span) => span,
            None => loop {
                let span = self.group.next(segment.window())?;
                if self.wanted.is_none_or(|wanted| wanted.passes(span.tag)) {
                    break span;
                }
            },
        };
        let payload = segment.window().sub(span.payload, span.len)?;
        Some(RecordRef::new(span, payload))
    }
}
