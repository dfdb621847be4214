//! The iterator over the records up to a fixed end.

use std::sync::Arc;

use super::cursor::Cursor;
use super::group_cursor::RecordSpan;
use super::record::{Record, RecordRef, Records};
use super::shared::SharedRecords;
use crate::engine::log_view::LogView;
use crate::error::{Error, Result};
use crate::format::TagFilter;
use crate::segment::Pinning;

/// Reads durable records in order, from [`Wal::reader`](crate::Wal::reader).
///
/// It ends at the end that was durable when it was created. Retention keeps the segment that it is
/// in, and all later ones: drop readers that are no longer used. After an error it ends.
#[derive(Debug)]
pub struct Reader {
    cursor: Cursor,
    /// The error of the first call.
    refused: Option<Error>,
}

impl Reader {
    pub(crate) fn new(view: Arc<LogView>, from: u64, end: u64) -> Self {
        Reader { cursor: Cursor::new(view, from, end, Pinning::Pinned), refused: None }
    }

    /// The first call fails with `refused`.
    pub(crate) fn refused(mut self, refused: Error) -> Self {
        self.refused = Some(refused);
        self
    }

    /// Returns only records with this tag from now on, as [`Reader::only_tags`] does.
    #[must_use = "a filter is part of the reader that is returned"]
    pub fn only_tag(self, tag: u64) -> Self {
        self.only_tags([tag])
    }

    /// Returns only records with one of these tags from now on. A record without a tag is skipped.
    ///
    /// A second filter narrows the first. Without a tag in `tags`, no record is returned.
    ///
    /// A skipped record costs the read of its group, a check of its 24 or 20 bytes of header and
    /// tag, and no sum of its payload. A record without a tag is summed. Of a skipped record,
    /// damage in header or tag is `Corruption`, and damage in its payload is not noticed: so no
    /// damage hides a record of these tags.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-only-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// wal.append_tagged(7, b"of stream 7")?;
    /// wal.append_tagged(8, b"of stream 8")?;
    /// wal.sync()?;
    /// let mut reader = wal.reader(ringwal::Lsn::ZERO).only_tag(8);
    /// let record = reader.next_ref()?.expect("there is one");
    /// assert_eq!((record.tag(), record.payload()), (Some(8), &b"of stream 8"[..]));
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    #[must_use = "a filter is part of the reader that is returned"]
    pub fn only_tags(mut self, tags: impl IntoIterator<Item = u64>) -> Self {
        let _ = self.cursor.want(TagFilter::new(tags));
        self
    }

    #[inline]
    fn advance(&mut self) -> Result<Option<RecordSpan>> {
        if let Some(refused) = self.refused.take() {
            return Err(refused);
        }
        self.cursor.advance()
    }

    /// The next record, in place. `None` at the end. Costs no allocation and no copy.
    ///
    /// # Errors
    ///
    /// As the iterator's.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-ref-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// wal.append_durable(b"in place")?;
    /// let mut reader = wal.reader(ringwal::Lsn::ZERO);
    /// let mut bytes = 0;
    /// while let Some(record) = reader.next_ref()? {
    ///     bytes += record.payload.len();
    /// }
    /// assert_eq!(bytes, 8);
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    pub fn next_ref(&mut self) -> Result<Option<RecordRef<'_>>> {
        match self.advance() {
            Ok(Some(span)) => self.cursor.record(span).map(Some),
            ended => {
                self.cursor.finish();
                ended.map(|_| None)
            }
        }
    }

    /// The next records that lie in memory together, at least one. `None` at the end.
    ///
    /// Costs no allocation, no copy and no call for each record. Records that the caller does not
    /// take from the iterator are skipped.
    ///
    /// # Errors
    ///
    /// As the iterator's.
    pub fn next_records(&mut self) -> Result<Option<Records<'_>>> {
        match self.advance() {
            Ok(Some(first)) => self.cursor.records_from(first).map(Some),
            ended => {
                self.cursor.finish();
                ended.map(|_| None)
            }
        }
    }

    /// The next records that lie in memory together, at least one, as values that outlive the
    /// reader's next call. `None` at the end.
    ///
    /// Copies no payload: the records share the reader's memory. See [`SharedRecords`] for the
    /// cost. Records that the caller does not take from the iterator are skipped.
    ///
    /// # Errors
    ///
    /// As the iterator's.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-shared-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// wal.append_batch(&["to another", "thread"])?;
    /// wal.sync()?;
    /// let mut reader = wal.reader(ringwal::Lsn::ZERO);
    /// let records: Vec<ringwal::SharedRecord> = reader.next_shared()?.unwrap().collect();
    /// let counting = std::thread::spawn(move || records.iter().map(|r| r.payload().len()).sum());
    /// let bytes: usize = counting.join().unwrap();
    /// assert_eq!(bytes, "to another".len() + "thread".len());
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    pub fn next_shared(&mut self) -> Result<Option<SharedRecords>> {
        match self.advance() {
            Ok(Some(first)) => self.cursor.shared_from(first).map(Some),
            ended => {
                self.cursor.finish();
                ended.map(|_| None)
            }
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_ref() {
            Ok(Some(record)) => Some(Ok(record.to_record())),
            Ok(None) => None,
            Err(e) => Some(Err(e)),
        }
    }
}
