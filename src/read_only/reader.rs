//! Records of a log that another process may be writing, in order.

use std::sync::Arc;

use super::Inner;
use crate::error::{Error, Result};
use crate::reader::{Reader, Record, RecordRef};

/// Reads durable records in order, from [`ReadOnlyWal::reader`](super::ReadOnlyWal::reader).
///
/// It ends at the end that was durable when it was made. The writer's retention does not wait for it:
/// `Pruned` says that it was overtaken. After an error it ends.
#[derive(Debug)]
pub struct ReadOnlyReader {
    inner: Arc<Inner>,
    reader: Reader,
    end: u64,
    /// The next record is here or behind; `None` until the first from the oldest on.
    at: Option<u64>,
}

impl ReadOnlyReader {
    pub(super) fn new(inner: Arc<Inner>, from: u64, end: u64) -> Self {
        let reader = Reader::new(Arc::clone(&inner.files), from, end);
        ReadOnlyReader { inner, reader, end, at: (from != 0).then_some(from) }
    }

    /// The next record, in place. `None` at the end.
    ///
    /// # Errors
    ///
    /// `Pruned` if retention has removed what would come next, `Corruption`, `Io`.
    pub fn next_ref(&mut self) -> Result<Option<RecordRef<'_>>> {
        // Whatever is the oldest was asked for, and retention may remove what was.
        while self.at.is_none() {
            let oldest = self.inner.files.table.oldest();
            match self.reader.peek_below(self.end) {
                Ok(_) => break,
                Err(e) => match self.inner.explain(e, oldest) {
                    Error::Pruned { .. } => {
                        self.reader = Reader::new(Arc::clone(&self.inner.files), 0, self.end);
                    }
                    e => return Err(e),
                },
            }
        }
        let at = self.at.unwrap_or(0);
        if let Err(e) = self.reader.peek_below(self.end) {
            return Err(self.inner.explain(e, at));
        }
        let found = self.reader.next_below(self.end)?;
        if let Some(record) = &found {
            self.at = Some(record.lsn.as_u64());
        }
        Ok(found)
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
