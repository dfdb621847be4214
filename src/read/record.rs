//! Records as they are given out.

use super::Place;
use super::cursor::{Cursor, Span};
use crate::lsn::Lsn;

/// A record with its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it is in the log.
    pub lsn: Lsn,
    /// What was appended.
    pub payload: Vec<u8>,
}

impl Record {
    /// Where it is in the log.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// What was appended.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// A record in the reader's own memory, valid until the reader goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Where it is in the log.
    pub lsn: Lsn,
    /// What was appended.
    pub payload: &'a [u8],
}

impl RecordRef<'_> {
    /// A copy that can be kept.
    #[must_use]
    pub fn to_record(&self) -> Record {
        Record { lsn: self.lsn, payload: self.payload.to_vec() }
    }
}

/// Records that lie in memory together, in place. From [`Reader::next_records`](crate::Reader::next_records) and
/// [`Follow::next_records`](crate::Follow::next_records).
#[derive(Debug)]
#[must_use = "the records that are not taken are skipped"]
pub struct Records<'a> {
    pub(super) place: &'a Place,
    pub(super) next: Option<Span>,
    pub(super) cursor: Cursor,
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordRef<'a>;

    fn next(&mut self) -> Option<RecordRef<'a>> {
        let place = self.place;
        let span = match self.next.take() {
            Some(span) => span,
            None => self.cursor.next(place.held())?,
        };
        let payload = place.held().sub(span.payload, span.len)?;
        Some(RecordRef { lsn: Lsn::new(span.lsn), payload })
    }
}
