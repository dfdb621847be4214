//! Following the log's end: durable records, as they become durable.
//!
//! 1. Only durable records are delivered, in order, each once.
//! 2. A follower waits as those do who wait for a record: for the position that is not durable yet.
//!    It is woken once for each group, polls nothing, and producers do not know of it.
//! 3. It pins the segment that it is in, as a reader does. A consumer's does not: the consumer's position holds what
//!    it may want, within its limit.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::durable::{Registrar, Verdict};
use crate::engine::state::LogState;
use crate::error::{Error, Result};
use crate::read::{Reader, Record, RecordRef, Records};
use crate::sys::reentrancy;

/// Reads durable records and then waits for more, from [`Wal::follow`](crate::Wal::follow).
///
/// It ends, with `None`, when the log was closed and everything has been read; a poisoned log ends it
/// with `Poisoned` once everything durable has been read. Dropping it lets go of its segment: while it
/// lives, retention leaves that segment and later ones alone.
///
/// ```
/// use ringwal::{Lsn, Wal};
/// # let dir = std::env::temp_dir().join(format!("ringwal-doc-follow-{}", std::process::id()));
/// let wal = Wal::open(&dir)?;
/// let follower = wal.follow(Lsn::ZERO)?;
/// let reader = std::thread::spawn(move || follower.map(|r| r.unwrap().payload).collect::<Vec<_>>());
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
    reader: Reader,
    /// The end that was durable at the last look.
    end: u64,
    /// Registered to be woken when this position is durable, under this ticket.
    ticket: Option<(u64, u64)>,
    over: bool,
    /// Reading has failed.
    failed: bool,
}

impl Follow {
    pub(crate) fn new(state: Arc<LogState>, from: u64) -> Result<Self> {
        if state.durable.is_forked() {
            return Err(Error::Forked);
        }
        let end = state.durable.end();
        let reader = Reader::live(Arc::clone(&state.view), from, end)?;
        Ok(Follow { state, reader, end: 0, ticket: None, over: false, failed: false })
    }

    /// One that retention does not wait for.
    pub(crate) fn unheld(state: Arc<LogState>, from: u64) -> Result<Self> {
        if state.durable.is_forked() {
            return Err(Error::Forked);
        }
        let end = state.durable.end();
        let reader = Reader::live_unheld(Arc::clone(&state.view), from, end)?;
        Ok(Follow { state, reader, end: 0, ticket: None, over: false, failed: false })
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// No record above this was delivered.
    pub(crate) fn delivered(&self) -> u64 {
        self.reader.delivered()
    }

    /// The next record if one is durable already, in place. `None`: there is none now, or never will
    /// be. Does not wait, but may read from the device.
    ///
    /// # Errors
    ///
    /// `Pruned` if retention has removed what would come next, `Truncated` if
    /// [`Wal::truncate_from`](crate::Wal::truncate_from) has cut records that were delivered,
    /// `Corruption`, `Io`; `Forked` in a child process. After an error it has ended.
    pub fn try_next(&mut self) -> Result<Option<RecordRef<'_>>> {
        if self.over {
            return Ok(None);
        }
        self.check_not_forked()?;
        self.end = self.state.durable.end();
        self.state.view.tail.ask();
        let next = self.reader.next_below(self.end);
        (self.over, self.failed) = (next.is_err(), next.is_err());
        next
    }

    /// Bytes of the log from the record that was delivered last, or else from where it began, to the durable end:
    /// how far it is behind. What retention keeps for it is [`Stats::reader_lag`](crate::Stats::reader_lag).
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.state.durable.end().saturating_sub(self.reader.reached())
    }

    /// The next record, in place, waiting until there is one. `None`: the log was closed, and
    /// everything has been read.
    ///
    /// # Errors
    ///
    /// As [`Follow::try_next`]; `Poisoned` if the log has failed; `WouldDeadlock` on the log's own
    /// threads.
    pub fn next_ref(&mut self) -> Result<Option<RecordRef<'_>>> {
        self.wait(None)?;
        self.try_next()
    }

    /// The same, for a limited time: `None` also when no record became durable in it.
    ///
    /// # Errors
    ///
    /// As [`Follow::next_ref`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<RecordRef<'_>>> {
        self.wait(Instant::now().checked_add(timeout))?;
        self.try_next()
    }

    /// The next records that lie in memory together, at least one, waiting until there is one. Costs
    /// no copy and no lock for each. `None`: the log was closed, and everything has been read. What is
    /// not taken from the iterator is skipped.
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
        if self.over {
            return Ok(None);
        }
        self.end = self.state.durable.end();
        let run = self.reader.next_run(self.end);
        (self.over, self.failed) = (run.is_err(), run.is_err());
        run
    }

    /// The next record for an executor: `Ready(None)` when the log was closed and everything has been
    /// read. May read from the device when the follower is behind.
    ///
    /// # Errors
    ///
    /// As [`Follow::next_ref`].
    pub fn poll_next_record(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Record>>> {
        if self.state.durable.is_forked() {
            let over = self.over;
            return Poll::Ready(self.check_not_forked().err().filter(|_| !over).map(Err));
        }
        // It may have been woken to wake others.
        self.state.durable.pass_on();
        loop {
            let next = self.try_next().map(|found| found.map(|record| record.to_record()));
            match next.transpose() {
                None if !self.over => {}
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
            // Registered first, looked second: nothing is slept through.
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

    /// The next record, as a future that any executor polls; cancelling it loses nothing.
    ///
    /// # Errors
    ///
    /// As [`Follow::next_ref`].
    pub async fn next_record(&mut self) -> Option<Result<Record>> {
        poll_fn(|cx| self.poll_next_record(cx)).await
    }

    /// In a child of fork() no thread makes anything durable, and locks may be held for ever.
    fn check_not_forked(&mut self) -> Result<()> {
        if !self.state.durable.is_forked() {
            return Ok(());
        }
        (self.over, self.failed) = (true, true);
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

    /// Everything durable has been read: whether nothing more will come.
    fn ended(&mut self) -> Option<Result<()>> {
        let ended = self.state.has_io_ended() || self.state.durable.is_poisoned();
        if !ended || self.state.durable.end() > self.end {
            return None;
        }
        self.over = true;
        match self.state.durable.verdict(u64::MAX) {
            Verdict::Failed(e) => Some(Err(e)),
            Verdict::Durable | Verdict::NotYet => Some(Ok(())),
        }
    }

    /// Waits until there is a record, the log has ended, or the time is up.
    fn wait(&mut self, until: Option<Instant>) -> Result<()> {
        reentrancy::check_may_wait()?;
        loop {
            if self.over {
                return Ok(());
            }
            self.check_not_forked()?;
            self.end = self.state.durable.end();
            self.state.view.tail.ask();
            match self.reader.peek_below(self.end) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(e) => {
                    (self.over, self.failed) = (true, true);
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
