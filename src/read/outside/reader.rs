//! Records of a log that another process may be writing, in order.

use std::sync::Arc;

use super::LogDirectory;
use crate::error::{Error, Result};
use crate::format::TagFilter;
use crate::lsn::Lsn;
use crate::read::follow_cursor::FollowCursor;
use crate::read::{Record, RecordRef, Records, SharedRecords};

/// Reads durable records in order, from [`ReadOnlyWal::reader`](super::ReadOnlyWal::reader).
///
/// It ends at the end that was durable when it was created. The writer's retention does not wait
/// for it, and `Pruned` reports that retention has overtaken it. After an error it ends.
#[derive(Debug)]
#[must_use = "a reader reads nothing until it is asked to"]
pub struct ReadOnlyReader {
    log: Arc<LogDirectory>,
    cursor: FollowCursor,
    end: u64,
    start: Start,
    wanted: Option<TagFilter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// At whatever record is the oldest, which is still to be found.
    Oldest,
    /// Where the cursor is.
    Found,
    /// At this address above the end, which is an error.
    Above(u64),
}

impl ReadOnlyReader {
    pub(super) fn new(log: Arc<LogDirectory>, from: u64, end: u64) -> Self {
        let cursor = FollowCursor::up_to(Arc::clone(&log.view), from, end);
        let start = match from {
            0 => Start::Oldest,
            _ if from > end => Start::Above(from),
            _ => Start::Found,
        };
        ReadOnlyReader { log, cursor, end, start, wanted: None }
    }

    /// Returns only records with this tag from now on, as [`ReadOnlyReader::only_tags`] does.
    #[must_use = "a filter is part of the reader that is returned"]
    pub fn only_tag(self, tag: u64) -> Self {
        self.only_tags([tag])
    }

    /// Returns only records with one of these tags from now on: see
    /// [`Reader::only_tags`](crate::Reader::only_tags).
    #[must_use = "a filter is part of the reader that is returned"]
    pub fn only_tags(mut self, tags: impl IntoIterator<Item = u64>) -> Self {
        self.wanted = Some(self.cursor.want(TagFilter::new(tags)));
        self
    }

    /// The next record, in place. `None` at the end.
    ///
    /// # Errors
    ///
    /// `Pruned` if retention has removed the next record, `Corruption`, `Io`.
    pub fn next_ref(&mut self) -> Result<Option<RecordRef<'_>>> {
        self.find_oldest()?;
        self.cursor.next_below(self.end)
    }

    /// The next records that lie in memory together, at least one. `None` at the end.
    ///
    /// See [`Reader::next_records`](crate::Reader::next_records).
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyReader::next_ref`].
    pub fn next_records(&mut self) -> Result<Option<Records<'_>>> {
        self.find_oldest()?;
        self.cursor.next_records(self.end)
    }

    /// The next records that lie in memory together, at least one, as values that outlive the
    /// reader's next call. `None` at the end.
    ///
    /// See [`Reader::next_shared`](crate::Reader::next_shared).
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyReader::next_ref`].
    pub fn next_shared(&mut self) -> Result<Option<SharedRecords>> {
        self.find_oldest()?;
        self.cursor.next_shared(self.end)
    }

    /// Refuses to begin above the end. Begins again while retention removes the oldest segment
    /// before the cursor has opened it.
    fn find_oldest(&mut self) -> Result<()> {
        if let Start::Above(from) = self.start {
            self.start = Start::Found;
            let durable_end = Lsn::new(self.end);
            return Err(Error::NotDurable { lsn: Lsn::new(from), durable_end });
        }
        while self.start == Start::Oldest {
            match self.cursor.peek_below(self.end) {
                Err(Error::Pruned { .. }) => {
                    self.log.skip_removed()?;
                    self.cursor = FollowCursor::up_to(Arc::clone(&self.log.view), 0, self.end);
                    if let Some(tags) = self.wanted.clone() {
                        let _ = self.cursor.want(tags);
                    }
                }
                peeked => {
                    self.start = Start::Found;
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
