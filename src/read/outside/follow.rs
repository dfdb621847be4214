//! Following a log that another process writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::LogDirectory;
use super::watch::DirectoryWatch;
use crate::error::Result;
use crate::format::TagFilter;
use crate::read::follow_cursor::FollowCursor;
use crate::read::{Record, RecordRef, Records, SharedRecords};
use crate::segment::Pinning;
use crate::sys::reentrancy;

/// The follower reads the durable end at least this often.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// Without a watch: the pause between two reads of the end. It doubles while no record comes.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Reads durable records and then waits for more, from
/// [`ReadOnlyWal::follow`](super::ReadOnlyWal::follow).
///
/// The kernel wakes it when the writer reports a new durable end. If no writer reports, any change
/// in the directory wakes it. It also reads the end twice a second, and ten times without inotify:
/// where no instance is left, or the system is not Linux. Neither the writer nor its retention
/// waits for it, and `Pruned` reports that retention has overtaken it. After an error it has ended.
#[derive(Debug)]
pub struct ReadOnlyFollow {
    log: Arc<LogDirectory>,
    cursor: FollowCursor,
    /// `None` where the system cannot watch the directory.
    watch: Option<DirectoryWatch>,
    /// Without a watch: the pause before the next read of the end.
    pause: Duration,
    failed: bool,
}

impl ReadOnlyFollow {
    pub(super) fn new(log: Arc<LogDirectory>, from: u64, end: u64) -> Result<Self> {
        let cursor = FollowCursor::new(Arc::clone(&log.view), from, end, Pinning::Pinned)?;
        let watch = DirectoryWatch::new(&log);
        Ok(ReadOnlyFollow { log, cursor, watch, pause: FIRST_PAUSE, failed: false })
    }

    /// Returns only records with this tag from now on, as [`ReadOnlyFollow::only_tags`] does.
    #[must_use = "a filter is part of the follower that is returned"]
    pub fn only_tag(self, tag: u64) -> Self {
        self.only_tags([tag])
    }

    /// Returns only records with one of these tags from now on: see
    /// [`Reader::only_tags`](crate::Reader::only_tags).
    #[must_use = "a filter is part of the follower that is returned"]
    pub fn only_tags(mut self, tags: impl IntoIterator<Item = u64>) -> Self {
        let _ = self.cursor.want(TagFilter::new(tags));
        self
    }

    /// The next record in place, if one is durable already. Does not wait, but reads from the
    /// device.
    ///
    /// # Errors
    ///
    /// `Pruned` if retention has removed the next record, `Truncated` if delivered records were
    /// cut, `Corruption`, `Io`.
    pub fn try_next(&mut self) -> Result<Option<RecordRef<'_>>> {
        if self.peek()? { self.peeked() } else { Ok(None) }
    }

    /// The next record in place. Waits until there is one. `None` only after an error.
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyFollow::try_next`]; `WouldDeadlock` on a thread of a log in this process, and
    /// `Reentrant` inside [`Wal::append_with`](crate::Wal::append_with): the follower may read that
    /// log.
    pub fn next_ref(&mut self) -> Result<Option<RecordRef<'_>>> {
        if self.wait(None)? { self.peeked() } else { Ok(None) }
    }

    /// The next record in place. Waits for it, for `timeout` at most.
    ///
    /// `None`: no record became durable in time, or an error came before.
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyFollow::next_ref`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<RecordRef<'_>>> {
        let until = Instant::now().checked_add(timeout);
        if self.wait(until)? { self.peeked() } else { Ok(None) }
    }

    /// The next records that lie in memory together, at least one. Waits until there is one.
    ///
    /// Reads the durable end once for all of them. `None` only after an error. See
    /// [`Follow::next_records`](crate::Follow::next_records).
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyFollow::next_ref`].
    pub fn next_records(&mut self) -> Result<Option<Records<'_>>> {
        if !self.wait(None)? {
            return Ok(None);
        }
        let records = self.cursor.next_records(0);
        self.failed = records.is_err();
        records
    }

    /// The next records that lie in memory together, as values that outlive the follower's next
    /// call. Waits until there is one. `None` only after an error.
    ///
    /// See [`SharedRecords`] for the cost.
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyFollow::next_ref`].
    pub fn next_shared(&mut self) -> Result<Option<SharedRecords>> {
        if !self.wait(None)? {
            return Ok(None);
        }
        let records = self.cursor.next_shared(0);
        self.failed = records.is_err();
        records
    }

    /// Bytes of the log from the record that was delivered last to the durable end that was read
    /// last.
    ///
    /// Before the first record it counts from where the follower began. Records that a filter
    /// skips count too.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.cursor.end().saturating_sub(self.cursor.reached())
    }

    /// The record that [`ReadOnlyFollow::peek`] has found.
    fn peeked(&mut self) -> Result<Option<RecordRef<'_>>> {
        let next = self.cursor.next_below(0);
        self.failed = next.is_err();
        next
    }

    fn peek(&mut self) -> Result<bool> {
        if self.failed {
            return Ok(false);
        }
        let peeked = self.log.refresh().and_then(|end| self.cursor.peek_below(end));
        self.failed = peeked.is_err();
        peeked
    }

    /// Waits for a record. False: `until` has passed, or a read has failed.
    fn wait(&mut self, until: Option<Instant>) -> Result<bool> {
        reentrancy::check_may_wait()?;
        loop {
            if self.failed {
                return Ok(false);
            }
            if self.peek()? {
                self.pause = FIRST_PAUSE;
                return Ok(true);
            }
            // The watch is cleared before this read, so every later change wakes the follower.
            if let Some(watch) = &self.watch {
                watch.arm(&self.log);
                watch.clear();
                if self.peek()? {
                    return Ok(true);
                }
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            let left = left.unwrap_or(LONGEST_WAIT);
            match &self.watch {
                Some(watch) => watch.wait(left.min(LONGEST_WAIT)),
                None => {
                    std::thread::sleep(left.min(self.pause));
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                    if self.pause == LONGEST_PAUSE {
                        self.watch = DirectoryWatch::new(&self.log);
                    }
                }
            }
        }
    }
}

impl Iterator for ReadOnlyFollow {
    type Item = Result<Record>;

    /// Waits for the next record, as [`ReadOnlyFollow::next_ref`].
    fn next(&mut self) -> Option<Self::Item> {
        match self.next_ref() {
            Ok(Some(record)) => Some(Ok(record.to_record())),
            Ok(None) => None,
            Err(e) => Some(Err(e)),
        }
    }
}
