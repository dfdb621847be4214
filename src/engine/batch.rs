//! The positions of the records of a batch: each follows from the sizes of those before it.

use std::hint::black_box;
use std::iter::FusedIterator;

use crate::format::{TAG_BLOCK, item_size};
use crate::lsn::Lsn;

/// Bytes of the smallest page of any system.
const SMALLEST_PAGE: usize = 4096;

/// The records of a batch.
#[derive(Debug)]
pub(crate) struct BatchRecords<'a> {
    pub(crate) payloads: Vec<&'a [u8]>,
    /// None, one for all records, or one for each.
    pub(crate) tags: Vec<u64>,
}

impl<'a> BatchRecords<'a> {
    /// Records without tags, or with one tag. `as_ref()` is user code: called once for each record,
    /// before the reservation.
    pub(crate) fn new<T: AsRef<[u8]>>(tag: Option<u64>, records: &'a [T]) -> Self {
        let payloads = records.iter().map(AsRef::as_ref).collect();
        BatchRecords { payloads, tags: Vec::from_iter(tag) }
    }

    /// Records with a tag each.
    pub(crate) fn tagged<T: AsRef<[u8]>>(records: &'a [(u64, T)]) -> Self {
        let payloads = records.iter().map(|(_, payload)| payload.as_ref()).collect();
        BatchRecords { payloads, tags: records.iter().map(|(tag, _)| *tag).collect() }
    }

    /// Reads a byte of each page of the payloads. A payload that is mapped from a file and not in
    /// memory then waits for its disk here, and not after the reservation, where the log would wait
    /// with it.
    pub(crate) fn fault_in(&self) {
        let mut seen = 0;
        for payload in &self.payloads {
            let mut at = 0;
            while let Some(byte) = payload.get(at) {
                seen |= byte;
                at += SMALLEST_PAGE;
            }
            seen |= payload.last().unwrap_or(&0);
        }
        black_box(seen);
    }

    /// Bytes that a tag takes of each record.
    pub(crate) fn tag_bytes(&self) -> usize {
        if self.tags.is_empty() { 0 } else { TAG_BLOCK }
    }
}

/// The LSN of each record of a batch, in order, from
/// [`Wal::append_batch_lsns`](crate::Wal::append_batch_lsns).
///
/// The iterator computes the positions and allocates nothing.
#[derive(Debug, Clone)]
pub struct BatchLsns<'a> {
    /// Records whose LSN was not returned yet.
    left: std::vec::IntoIter<&'a [u8]>,
    /// Bytes that a tag takes of each record.
    tag_bytes: usize,
    next: u64,
    first: Lsn,
    last: Lsn,
}

impl<'a> BatchLsns<'a> {
    /// The positions of `records`: the first is at `first` and the last at `last`.
    pub(crate) fn new(first: u64, last: u64, records: BatchRecords<'a>) -> Self {
        let tag_bytes = records.tag_bytes();
        let left = records.payloads.into_iter();
        BatchLsns { left, tag_bytes, next: first, first: Lsn::new(first), last: Lsn::new(last) }
    }

    /// The LSN of the batch's first record, however many were taken from the iterator.
    #[must_use]
    pub fn first_lsn(&self) -> Lsn {
        self.first
    }

    /// The LSN of the batch's last record, however many were taken from the iterator. Waiting for
    /// any record of a batch waits for the whole batch.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        self.last
    }
}

impl Iterator for BatchLsns<'_> {
    type Item = Lsn;

    fn next(&mut self) -> Option<Lsn> {
        let record = self.left.next()?;
        let lsn = Lsn::new(self.next);
        self.next += item_size(self.tag_bytes + record.len());
        Some(lsn)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.left.size_hint()
    }
}

impl ExactSizeIterator for BatchLsns<'_> {}
impl FusedIterator for BatchLsns<'_> {}
