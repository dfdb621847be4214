//! Records as they are given out.

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
