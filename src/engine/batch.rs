//! The positions of the records of a batch: each follows from the sizes of those before it.

use std::iter::FusedIterator;

use crate::format::item_size;
use crate::lsn::Lsn;

/// The LSN of each record of a batch, in order, from
/// [`Wal::append_batch_lsns`](crate::Wal::append_batch_lsns).
///
/// The iterator computes the positions and allocates nothing.
#[derive(Debug, Clone)]
pub struct BatchLsns<'a> {
    /// Records whose LSN was not returned yet.
    left: std::vec::IntoIter<&'a [u8]>,
    next: u64,
    first: Lsn,
    last: Lsn,
}

impl<'a> BatchLsns<'a> {
    /// The positions of `records`: the first is at `first` and the last at `last`.
    pub(crate) fn new(first: u64, last: u64, records: Vec<&'a [u8]>) -> Self {
        let left = records.into_iter();
        BatchLsns { left, next: first, first: Lsn::new(first), last: Lsn::new(last) }
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
        self.next += item_size(record.len());
        Some(lsn)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.left.size_hint()
    }
}

impl ExactSizeIterator for BatchLsns<'_> {}
impl FusedIterator for BatchLsns<'_> {}
