//! Records of a log that another process may be writing, in order.

use std::sync::Arc;

use super::Inner;
use crate::error::{Error, Result};
use crate::read::{Reader, Record, RecordRef, Records};

/// Reads durable records in order, from [`ReadOnlyWal::reader`](super::ReadOnlyWal::reader).
///
/// It ends at the end that was durable when it was made. The writer's retention does not wait for it:
/// `Pruned` says that it was overtaken. After an error it ends.
#[derive(Debug)]
#[must_use = "a reader reads nothing until it is asked to"]
pub struct ReadOnlyReader {
    inner: Arc<Inner>,
    reader: Reader,
    end: u64,
    /// Whatever is the oldest was asked for, and has not been found yet.
    from_oldest: bool,
}

impl ReadOnlyReader {
    pub(super) fn new(inner: Arc<Inner>, from: u64, end: u64) -> Self {
        let reader = Reader::new(Arc::clone(&inner.view), from, end);
        ReadOnlyReader { inner, reader, end, from_oldest: from == 0 }
    }

    /// The next record, in place. `None` at the end.
    ///
    /// # Errors
    ///
    /// `Pruned` if retention has removed what would come next, `Corruption`, `Io`.
    pub fn next_ref(&mut self) -> Result<Option<RecordRef<'_>>> {
        self.find_oldest()?;
        self.reader.next_below(self.end)
    }

    /// The next records that lie in memory together, at least one: see
    /// [`Reader::next_records`](crate::Reader::next_records). `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyReader::next_ref`].
    pub fn next_records(&mut self) -> Result<Option<Records<'_>>> {
        self.find_oldest()?;
        self.reader.next_run(self.end)
    }

    /// Retention may remove what was the oldest when it was looked for.
    fn find_oldest(&mut self) -> Result<()> {
        while self.from_oldest {
            match self.reader.peek_below(self.end) {
                Err(Error::Pruned { .. }) => {
                    self.inner.list()?;
                    self.reader = Reader::new(Arc::clone(&self.inner.view), 0, self.end);
                }
                peeked => {
                    self.from_oldest = false;
                    peeked?;
                }
            }
        }
        Ok(())
    }
}

impl Iterator for ReadOnlyReader {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_ref() {
            Ok(Some(record)) => Some(Ok(record.to_record())),
            Ok(None) => None,
            Err(e) => Some(Err(e)),
        }
    }
}
