//! Followers: durable records, as they become durable.
//!
//! 1. A follower delivers durable records only, in order, each once.
//! 2. A follower waits, as an append does, for the first position that is not durable. Each group
//!    wakes it once. It does not poll, and producers do not know of it.
//! 3. A follower pins the segment that it is in. A consumer's follower does not: the consumer's
//!    position holds its records, within its limit.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::durable::{Registrar, Verdict};
use crate::engine::state::LogState;
use crate::error::{Error, Result};
use crate::format::TagFilter;
use crate::read::follow_cursor::FollowCursor;
use crate::read::lag::lag;
use crate::read::tag_search::TagSearch;
use crate::read::{Record, RecordRef, Records, SharedRecords};
use crate::segment::Pinning;
use crate::sys::reentrancy;

/// Reads durable records and then waits for more, from [`Wal::follow`](crate::Wal::follow).
///
/// It ends with `None` when the log was closed and every record was delivered. If the log is
/// poisoned, it ends with `Poisoned` once every durable record was delivered. Retention keeps the
/// segment that it is in, and all later ones, until it is dropped.
///
/// ```
/// use ringwal::{Lsn, Wal};
/// # let dir = std::env::temp_dir().join(format!("ringwal-doc-follow-{}", std::process::id()));
/// let wal = Wal::open(&dir)?;
/// let follower = wal.follow(Lsn::ZERO)?;
/// let payloads = follower.map(|record| record.unwrap().payload);
/// let reader = std::thread::spawn(move || payloads.collect::<Vec<_>>());
/// wal.append_durable(b"one")?;
/// wal.append(b"two")?;
/// wal.close()?;
/// assert_eq!(reader.join().unwrap(), [b"one", b"two"]);
/// # std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), ringwal::Error>(())
/// ```
#[derive(Debug)]
pub struct Follow {
    state: Arc<LogState>,
    cursor: FollowCursor,
    /// The durable end when it was read last.
    end: u64,
    /// The position that this follower waits for, and the ticket of its waker.
    ticket: Option<(u64, u64)>,
    status: FollowStatus,
    /// With a filter: where the next record of its tags is.
    tag_search: Option<TagSearch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FollowStatus {
    Running,
    /// The log has ended, and every record was delivered.
    Ended,
    /// A read has failed. No record follows.
    Failed,
}

impl Follow {
    pub(crate) fn new(state: Arc<LogState>, from: u64) -> Result<Self> {
        Follow::with_pinning(state, from, Pinning::Pinned)
    }

    /// A follower that retention does not wait for.
    pub(crate) fn unpinned(state: Arc<LogState>, from: u64) -> Result<Self> {
        Follow::with_pinning(state, from, Pinning::Unpinned)
    }

    fn with_pinning(state: Arc<LogState>, from: u64, pinning: Pinning) -> Result<Self> {
        if state.durable.is_forked() {
            return Err(Error::Forked);
        }
        let end = state.durable.end();
        let cursor = FollowCursor::new(Arc::clone(&state.view), from, end, pinning)?;
        let (ticket, status, tag_search) = (None, FollowStatus::Running, None);
        Ok(Follow { state, cursor, end: 0, ticket, status, tag_search })
    }

    /// Delivers only records with this tag from now on, as [`Follow::only_tags`] does.
    #[must_use = "a filter is part of the follower that is returned"]
    pub fn only_tag(self, tag: u64) -> Self {
        self.only_tags([tag])
    }

    /// Delivers only records with one of these tags from now on: see
    /// [`Reader::only_tags`](crate::Reader::only_tags). Groups of other tags wake the follower, and
    /// it goes on waiting.
    #[must_use = "a filter is part of the follower that is returned"]
    pub fn only_tags(mut self, tags: impl IntoIterator<Item = u64>) -> Self {
        self.want(TagFilter::new(tags));
        self
    }

    pub(crate) fn want(&mut self, tags: TagFilter) {
        self.tag_search = Some(TagSearch::new(self.cursor.want(tags)));
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.status == FollowStatus::Failed
    }

    /// Whether no record follows: the log has ended and every record was delivered, or a read has
    /// failed. Tells the two `None` of [`Follow::next_timeout`] apart.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.is_over()
    }

    fn is_over(&self) -> bool {
        self.status != FollowStatus::Running
    }

    /// No record above this address was delivered.
    pub(crate) fn delivered(&self) -> u64 {
        self.cursor.delivered()
    }

    /// The next record in place, if one is durable already. Otherwise `None`.
    ///
    /// Does not wait, but may read from the device.
    ///
    /// # Errors
    ///
    /// `Pruned` if retention has removed the next record, `Truncated` if
    /// [`Wal::truncate_from`](crate::Wal::truncate_from) has cut records that were delivered,
    /// `Corruption`, `Io`; `Forked` in a child process. After an error the follower has ended.
    pub fn try_next(&mut self) -> Result<Option<RecordRef<'_>>> {
        if self.is_over() {
            return Ok(None);
        }
        self.check_not_forked()?;
        self.end = self.state.durable.end();
        self.state.view.tail.ask();
        let next = self.cursor.next_below(self.end);
        if next.is_err() {
            self.status = FollowStatus::Failed;
        }
        next
    }

    /// Bytes of the log from the record that was delivered last to the durable end. 0 once every
    /// durable record was delivered.
    ///
    /// Before the first record it counts from where the follower began. The bytes that retention
    /// keeps for readers are [`Stats::reader_lag_bytes`](crate::Stats::reader_lag_bytes). Costs two
    /// atomic loads; a follower in the newest group reads that group, once.
    ///
    /// With a filter, it is 0 if no durable record of its tags is left. To find the next one, the
    /// call reads the log from where the follower is, each part once.
    #[must_use]
    pub fn lag(&self) -> u64 {
        let (reached, position) = (self.cursor.reached(), self.cursor.position());
        match &self.tag_search {
            None => lag(&self.state, reached, position),
            Some(search) => search.lag(&self.state, reached, position),
        }
    }

    /// The next record in place. Waits until there is one.
    ///
    /// `None`: the log was closed, and every record was delivered.
    ///
    /// # Errors
    ///
    /// As [`Follow::try_next`]; `Poisoned` if the log has failed; `WouldDeadlock` on the log's own
    /// threads.
    pub fn next_ref(&mut self) -> Result<Option<RecordRef<'_>>> {
        self.wait(None)?;
        self.try_next()
    }

    /// The next record in place. Waits for it, for `timeout` at most.
    ///
    /// `None`: no record became durable in time, or the log has ended as for [`Follow::next_ref`].
    ///
    /// # Errors
    ///
    /// As [`Follow::next_ref`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<RecordRef<'_>>> {
        self.wait(Instant::now().checked_add(timeout))?;
        self.try_next()
    }

    /// The next records that lie in memory together, at least one. Waits until there is one.
    ///
    /// Costs no copy and no lock for each record. Records that the caller does not take from the
    /// iterator are skipped. `None`: the log was closed, and every record was delivered.
    ///
    /// # Errors
    ///
    /// As [`Follow::next_ref`].
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-run-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// wal.append_batch(&["a", "b", "c"])?;
    /// wal.sync()?;
    /// let mut follower = wal.follow(ringwal::Lsn::ZERO)?;
    /// let records = follower.next_records()?.expect("three are durable");
    /// assert_eq!(records.map(|r| r.payload.len()).sum::<usize>(), 3);
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    pub fn next_records(&mut self) -> Result<Option<Records<'_>>> {
        self.wait(None)?;
        if self.is_over() {
            return Ok(None);
        }
        self.end = self.state.durable.end();
        let records = self.cursor.next_records(self.end);
        if records.is_err() {
            self.status = FollowStatus::Failed;
        }
        records
    }

    /// The next records that lie in memory together, as values that outlive the follower's next
    /// call. Waits until there is one.
    ///
    /// Otherwise as [`Follow::next_records`]. See [`SharedRecords`] for the cost.
    ///
    /// # Errors
    ///
    /// As [`Follow::next_ref`].
    pub fn next_shared(&mut self) -> Result<Option<SharedRecords>> {
        self.wait(None)?;
        self.take_shared()
    }

    /// As [`Follow::next_shared`], but waits for `timeout` at most. `None`: no record became
    /// durable in time, or the log has ended.
    ///
    /// # Errors
    ///
    /// As [`Follow::next_ref`].
    pub fn next_shared_timeout(&mut self, timeout: Duration) -> Result<Option<SharedRecords>> {
        self.wait(Instant::now().checked_add(timeout))?;
        self.take_shared()
    }

    fn take_shared(&mut self) -> Result<Option<SharedRecords>> {
        if self.is_over() {
            return Ok(None);
        }
        self.end = self.state.durable.end();
        let records = self.cursor.next_shared(self.end);
        if records.is_err() {
            self.status = FollowStatus::Failed;
        }
        records
    }

    /// Polls for the next record: `Ready(None)` when the log was closed and every record was
    /// delivered.
    ///
    /// May read from the device when the follower is behind.
    ///
    /// # Errors
    ///
    /// As [`Follow::next_ref`].
    pub fn poll_next_record(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Record>>> {
        if self.state.durable.is_forked() {
            let is_over = self.is_over();
            return Poll::Ready(self.check_not_forked().err().filter(|_| !is_over).map(Err));
        }
        // The wake-up may have been one to pass on to other waiters.
        self.state.durable.pass_on();
        loop {
            let next = self.try_next().map(|found| found.map(|record| record.to_record()));
            match next.transpose() {
                None if !self.is_over() => {}
                next => return Poll::Ready(next),
            }
            let state = &self.state;
            let registered = match self.ticket {
                Some((end, ticket)) if end == self.end => {
                    state.durable.update(end, ticket, cx.waker())
                }
                _ => false,
            };
            if !registered {
                self.forget();
                if let (Verdict::NotYet, ticket) =
                    self.state.durable.register(self.end, cx.waker(), Registrar::Task)
                {
                    self.ticket = Some((self.end, ticket));
                }
            }
            // The waker is registered before this check, so the follower misses no group.
            if self.has_news() {
                self.forget();
                match self.ended() {
                    Some(Ok(())) => return Poll::Ready(None),
                    Some(Err(e)) => return Poll::Ready(Some(Err(e))),
                    None => {}
                }
            } else if !self.state.drive() {
                return Poll::Pending;
            }
        }
    }

    /// The next record, as a future for any executor. Cancelling it loses no record.
    ///
    /// # Errors
    ///
    /// As [`Follow::next_ref`].
    pub async fn next_record(&mut self) -> Option<Result<Record>> {
        poll_fn(|cx| self.poll_next_record(cx)).await
    }

    /// In a child of fork() no thread makes records durable, and locks may be held for ever.
    fn check_not_forked(&mut self) -> Result<()> {
        if !self.state.durable.is_forked() {
            return Ok(());
        }
        self.status = FollowStatus::Failed;
        Err(Error::Forked)
    }

    fn forget(&mut self) {
        if let Some((end, ticket)) = self.ticket.take() {
            self.state.durable.forget(end, ticket);
        }
    }

    fn has_news(&self) -> bool {
        !matches!(self.state.durable.verdict(self.end), Verdict::NotYet)
            || self.state.has_io_ended()
    }

    /// How the log has ended, if no record will follow those that were read.
    fn ended(&mut self) -> Option<Result<()>> {
        let ended = self.state.has_io_ended() || self.state.durable.is_poisoned();
        if !ended || self.state.durable.end() > self.end {
            return None;
        }
        self.status = FollowStatus::Ended;
        match self.state.durable.verdict(u64::MAX) {
            Verdict::Failed(e) => Some(Err(e)),
            Verdict::Durable | Verdict::NotYet => Some(Ok(())),
        }
    }

    /// Waits until there is a record, the log has ended, or `until` has passed.
    fn wait(&mut self, until: Option<Instant>) -> Result<()> {
        reentrancy::check_may_wait()?;
        loop {
            if self.is_over() {
                return Ok(());
            }
            self.check_not_forked()?;
            self.end = self.state.durable.end();
            self.state.view.tail.ask();
            match self.cursor.peek_below(self.end) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(e) => {
                    self.status = FollowStatus::Failed;
                    return Err(e);
                }
            }
            if let Some(ended) = self.ended() {
                return ended;
            }
            let state = &self.state;
            if state.drive() {
                continue;
            }
            state.durable.wait_to_pass(self.end, until, || state.has_io_ended());
            if until.is_some_and(|until| Instant::now() >= until) && !self.has_news() {
                return Ok(());
            }
        }
    }
}

impl Iterator for Follow {
    type Item = Result<Record>;

    /// Waits for the next record, as [`Follow::next_ref`].
    fn next(&mut self) -> Option<Result<Record>> {
        match self.next_ref() {
            Ok(Some(record)) => Some(Ok(record.to_record())),
            Ok(None) => None,
            Err(e) => Some(Err(e)),
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        if self.state.durable.is_forked() {
            // The log's memory is the parent's.
            std::mem::forget(Arc::clone(&self.state));
            return;
        }
        self.forget();
        self.state.durable.pass_on();
    }
}
