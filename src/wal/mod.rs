//! The handle: append, wait, read, close.
//!
//! 1. Handles are cheap clones of one `Inner`. The I/O thread and the segment keeper hold none, so
//!    that the drop of the last handle closes the log.
//! 2. A call that waits is rejected on the log's own threads.

mod batch;
pub(crate) mod builder;
pub(crate) mod callback;
pub(crate) mod cells;
mod consumers;
pub(crate) mod futures;
pub(crate) mod held;
pub(crate) mod listener;
#[cfg(feature = "metrics")]
mod metrics;
pub(crate) mod open;
mod places;
mod remove;
mod stats;
#[cfg(feature = "futures")]
pub(crate) mod stream;
pub(crate) mod tag_floors;
pub(crate) mod tagged;
mod truncate;
#[cfg(feature = "serde")]
pub(crate) mod typed;

use std::mem::ManuallyDrop;
use std::sync::{Arc, PoisonError};

use crate::durable::Verdict;
use crate::engine::append::Appender;
use crate::engine::assemble::Opened;
use crate::engine::state::{LogState, Running};
use crate::error::{Error, ReplayError, Result};
use crate::io::backend::{BackendInfo, method_name};
use crate::lsn::Lsn;
use crate::read::follow::Follow;
use crate::read::{BackwardReader, Reader, Record, read_one};
use crate::recovery::RecoveryReport;
use crate::sys::reentrancy;
use crate::sys::sync::{Mutex, lock};
use crate::wal::futures::{AppendFuture, AppendOwnedFuture, DurableFuture};

/// A write-ahead log that is open for appending. A clone is cheap and stands for the same log.
///
/// | call | blocks | durable on return | errors beside `Closed`, `Poisoned`, `Forked` |
/// |---|---|---|---|
/// | [`append`](Wal::append), [`append_batch`](Wal::append_batch), [`append_batch_lsns`](Wal::append_batch_lsns), [`append_with`](Wal::append_with) | while the ring is full or the next segment is not prepared | no | `RecordTooLarge`, `NoSpace`, `Obstructed`, `EmptyBatch`, `WouldDeadlock`, `Reentrant` |
/// | [`try_append`](Wal::try_append), [`try_append_batch`](Wal::try_append_batch) | never | no | as `append`, and `RingFull` |
/// | [`append_async`](Wal::append_async)`.await`, [`append_async_owned`](Wal::append_async_owned)`.await`, [`append_batch_async`](Wal::append_batch_async)`.await` | never; the task waits | no | as `append` |
/// | [`append_durable`](Wal::append_durable) | until durable | yes | as `append` |
/// | [`append_durable_async`](Wal::append_durable_async)`.await` | never; the task waits | yes | as `append` |
/// | [`wait_durable`](Wal::wait_durable) | until durable | yes, with every earlier record | `NotAppended`, `Truncated`, `WouldDeadlock` |
/// | [`when_durable`](Wal::when_durable)`.await`, [`on_durable`](Wal::on_durable) | never; the task or callback waits | yes, with every earlier record | as `wait_durable` |
/// | [`on_durable_end`](Wal::on_durable_end) | never; the listener gets each new durable end | | |
/// | [`sync`](Wal::sync) | until durable | yes, everything appended before | as `wait_durable` |
/// | [`end`](Wal::end), [`durable_end`](Wal::durable_end), [`stats`](Wal::stats), [`health`](Wal::health) | never | | `health`: `Obstructed` |
/// | [`read`](Wal::read), [`replay`](Wal::replay), [`reader`](Wal::reader), [`reader_back`](Wal::reader_back) | for the disk | reads durable records only | `Pruned`, `NotDurable`, `NoRecord`, `Corruption`, `Io` |
/// | [`read_ordinal`](Wal::read_ordinal), [`reader_from_time`](Wal::reader_from_time) | for the disk | reads durable records only | `NoOrdinal`, `Pruned`, `Truncated`, `Corruption`, `Io` |
/// | [`follow`](Wal::follow) | `next`: until the next record is durable | reads durable records only | `Pruned`, `NotAppended` |
/// | [`append_tagged`](Wal::append_tagged), [`append_batch_tagged`](Wal::append_batch_tagged), [`tagged`](Wal::tagged) | as their forms without a tag | no | as `append` |
/// | [`hold_tag`](Wal::hold_tag), [`remove_tag_floor`](Wal::remove_tag_floor) | for the disk | yes | `Pruned`, `NotAppended`, `NoTagFloor`, `TooManyTagFloors`, `Io` |
/// | [`release_tag`](Wal::release_tag), [`tag_floors`](Wal::tag_floors), [`held_by`](Wal::held_by) | never | no | `NoTagFloor`, `NotAppended` |
/// | [`truncate_before`](Wal::truncate_before) | until the files are removed | yes | `NoSpace`, `WouldDeadlock` |
/// | [`truncate_from`](Wal::truncate_from) | until the cut is durable | yes | `NotAppended`, `Pruned`, `NoRecord`, `InsideBatch`, `Consumed`, `NoSpace` |
/// | [`consumer`](Wal::consumer), [`remove_consumer`](Wal::remove_consumer) | for the disk | yes | `ConsumerInUse`, `NoConsumer`, `ConsumerDamaged`, `Io` |
/// | [`work_queue`](Wal::work_queue)`.take`, `Job::done`; `.take_async` | for a job, for the disk; the task waits | `done`: yes | `LeaseExpired`, `Pruned`, `Io` |
/// | [`cell`](Wal::cell)`.store`, `.remove`; `.store_async`, `.remove_async` | for the disk; the task waits | yes | `CellName`, `CellTooLarge`, `CellsFull`, `CellsFailed`, `Io` |
/// | [`close`](Wal::close) | until everything is durable | yes, everything | `WouldDeadlock` |
///
/// The drop of the last handle closes the log and blocks. On an executor, call [`Wal::close`]
/// first. In a callback or a waker on a thread of the log, the drop does not block: another thread
/// makes everything durable and closes the log. An open soon after it waits for the lock, as
/// [`WalBuilder::lock_wait`](crate::WalBuilder::lock_wait) says.
///
/// ```
/// use ringwal::{Lsn, Wal};
/// # let dir = std::env::temp_dir().join(format!("ringwal-doc-wal-{}", std::process::id()));
/// let wal = Wal::open(&dir)?;
/// let lsn = wal.append(b"enqueued")?; // its place in the log is fixed
/// wal.wait_durable(lsn)?; // it survives power loss from here on
/// wal.append_durable(b"both in one call")?;
/// let n = wal.replay(|lsn, payload| {
///     println!("{lsn}: {} bytes", payload.len());
///     Ok::<(), std::convert::Infallible>(())
/// });
/// assert_eq!(n.unwrap(), 2);
/// wal.close()?;
/// # std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), ringwal::Error>(())
/// ```
#[derive(Clone)]
pub struct Wal {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Inner { appender, info, .. } = &*self.inner;
        f.debug_struct("Wal")
            .field("files", &appender.state.view)
            .field("durable_end", &self.durable_end())
            .field("backend", &info.kind)
            .finish_non_exhaustive()
    }
}

// After a panic in the caller's code, also inside `append_with`, the log is as valid as after an
// error.
impl std::panic::UnwindSafe for Wal {}
impl std::panic::RefUnwindSafe for Wal {}

#[derive(Debug)]
struct Inner {
    appender: Appender,
    report: RecoveryReport,
    info: BackendInfo,
    log_id: [u8; 16],
    process: u32,
    running: Mutex<Option<Box<dyn Running>>>,
    /// Held during a `truncate_from`: only one runs at a time.
    cutting: Mutex<()>,
}

impl Wal {
    /// The first handle of an engine. Returns when the epoch group is durable: no append may come
    /// before it.
    pub(crate) fn started(
        state: Arc<LogState>,
        opened: Opened,
        info: BackendInfo,
        running: Box<dyn Running>,
    ) -> Result<Wal> {
        let appender = opened.appender(&state);
        let Opened { report, log_id, epoch_group, .. } = opened;
        let wal = Wal {
            inner: Arc::new(Inner {
                appender,
                report,
                info,
                log_id,
                process: std::process::id(),
                running: Mutex::new(Some(running)),
                cutting: Mutex::new(()),
            }),
        };
        if let Some(lsn) = epoch_group {
            state.wait_durable(lsn)?;
        }
        Ok(wal)
    }

    pub(crate) fn appender(&self) -> &Appender {
        &self.inner.appender
    }

    /// Appends a record. On return the record has its place in the log; it becomes durable with its
    /// group. Blocks only while the ring is full or the next segment is not prepared yet. Copies
    /// the payload; allocates nothing.
    ///
    /// # Errors
    ///
    /// `RecordTooLarge`, `NoSpace`, `Obstructed`, `Closed`, `Poisoned`; `WouldDeadlock` on the
    /// log's own threads, `Reentrant` inside [`Wal::append_with`], `Forked` in a child process.
    /// Nothing was appended.
    #[inline]
    pub fn append(&self, payload: &[u8]) -> Result<Lsn> {
        self.appender().append(payload)
    }

    /// Appends a record as [`Wal::append`] does, but never blocks.
    ///
    /// # Errors
    ///
    /// `RingFull` where [`Wal::append`] would wait; otherwise as [`Wal::append`].
    #[inline]
    pub fn try_append(&self, payload: &[u8]) -> Result<Lsn> {
        self.appender().try_append(payload)
    }

    /// Appends a record as [`Wal::append`] does, as a future that waits while the ring is full.
    ///
    /// Works on any executor. A future that is dropped before it has returned appended nothing. A
    /// future that is not polled within some 10 ms after it was woken loses its room in the ring,
    /// and waits again.
    ///
    /// # Errors
    ///
    /// As [`Wal::append`].
    pub fn append_async<'a>(&'a self, payload: &'a [u8]) -> AppendFuture<'a> {
        AppendFuture::new(self.appender(), None, payload)
    }

    /// Appends a record as [`Wal::append_async`] does. The future owns what it needs, so it may
    /// outlive this handle and move to another task. It does not keep the log open.
    ///
    /// [`Wal::try_append`] needs no owned payload: call it first, and this after `RingFull`.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-owned-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// let append = wal.append_async_owned(format!("job {}", 7));
    /// let task = std::thread::spawn(|| smol::block_on(append));
    /// let lsn = task.join().unwrap()?;
    /// # wal.wait_durable(lsn)?; assert_eq!(wal.read(lsn)?.payload, b"job 7");
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Wal::append`].
    pub fn append_async_owned(&self, payload: impl Into<Vec<u8>>) -> AppendOwnedFuture {
        AppendOwnedFuture::new(self.appender().clone(), None, payload.into())
    }

    /// Appends a record and waits until it is durable, in every mode of [`crate::Durability`].
    ///
    /// If the I/O thread sleeps, the calling thread writes and syncs the group itself, which saves
    /// two wake-ups. It runs no waker and no callback of others.
    ///
    /// # Errors
    ///
    /// As [`Wal::append`] and [`Wal::wait_durable`]. After `Poisoned` the record may or may not be
    /// there when the log is opened again.
    pub fn append_durable(&self, payload: &[u8]) -> Result<Lsn> {
        self.appender().append_durable(None, payload)
    }

    /// Appends a record and waits until it is durable, as a future, in every mode of
    /// [`crate::Durability`]. Works on any executor.
    ///
    /// A future that is dropped may have appended the record: then it becomes durable as after
    /// [`Wal::append`].
    ///
    /// # Errors
    ///
    /// As [`Wal::append_durable`], without `WouldDeadlock`.
    pub async fn append_durable_async(&self, payload: &[u8]) -> Result<Lsn> {
        let lsn = self.append_async(payload).await?;
        self.when_durable(lsn).await?;
        Ok(lsn)
    }

    /// Appends a record of `len` bytes that `fill` writes in place, into zeroed memory.
    ///
    /// The log waits for `fill`, so `fill` must be quick. Inside `fill`, calls of this or another
    /// log that could wait are rejected.
    ///
    /// # Errors
    ///
    /// As [`Wal::append`].
    ///
    /// # Panics
    ///
    /// If `fill` panics: the reservation becomes a record that readers skip, the log continues, and
    /// the panic continues in the caller.
    pub fn append_with(&self, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Lsn> {
        self.appender().append_with(None, len, fill)
    }

    /// Waits until the record at `lsn` and every earlier record are durable. In the modes that do
    /// not sync every group, requests a sync. A position inside a record waits for that record.
    ///
    /// # Errors
    ///
    /// `NotAppended` for a position that was never assigned. `Truncated` for a position that
    /// [`Wal::truncate_from`] made void. `Poisoned` if the log failed before. `WouldDeadlock` on
    /// the log's own threads. `Forked` in a child process, whatever the position. Otherwise a
    /// position that is durable already is always `Ok`, and so is one that retention has removed,
    /// with the cuts in it.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.appender().wait_durable(lsn.as_u64())
    }

    /// Returns a future that resolves when the record at `lsn` and every earlier record are
    /// durable. Works on any executor. The future may be dropped at any time.
    ///
    /// # Errors
    ///
    /// As [`Wal::wait_durable`].
    pub fn when_durable(&self, lsn: Lsn) -> DurableFuture {
        DurableFuture::new(self.appender().clone(), lsn.as_u64())
    }

    /// Calls `call` once, when the record at `lsn` and every earlier record are durable, or when
    /// they cannot become durable. The argument is what [`Wal::wait_durable`] would return.
    ///
    /// If the outcome is known already, `call` runs at once on this thread. Otherwise `call` runs
    /// on the I/O thread. There it must be quick, and a blocking call of the log gets
    /// `WouldDeadlock`. A panic in `call` is caught. Allocates.
    ///
    /// Callbacks do not run in the order of their LSNs. Those of one block of 4 KiB run in the
    /// order of their registration. Those of several blocks run in the order of the blocks, unless
    /// more than 64 blocks (256 KiB of log) become durable at once. A callback whose outcome is
    /// known overtakes those that wait for the I/O thread. Where order matters, use
    /// [`Wal::durable_end`], which never goes back.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-call-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// let (send, receive) = std::sync::mpsc::channel();
    /// let lsn = wal.append(b"a record")?;
    /// wal.on_durable(lsn, move |result| send.send(result.map(|()| lsn)).unwrap());
    /// assert_eq!(receive.recv().unwrap()?, lsn);
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    pub fn on_durable(&self, lsn: Lsn, call: impl FnOnce(Result<()>) + Send + 'static) {
        crate::wal::callback::on_durable(self.appender(), lsn.as_u64(), Box::new(call));
    }

    /// Waits until everything appended before this call is durable, and returns the durable end.
    ///
    /// # Errors
    ///
    /// As [`Wal::wait_durable`].
    pub fn sync(&self) -> Result<Lsn> {
        self.appender().sync()
    }

    /// The first position that is not durable yet: every record below it is durable. Costs one
    /// atomic load.
    #[must_use]
    pub fn durable_end(&self) -> Lsn {
        self.appender().durable_end()
    }

    /// The log's end: the first position after everything that was appended before this call.
    ///
    /// The next record lies at or above it. Everything below it is durable once
    /// [`Wal::durable_end`] has reached it. Costs a few atomic loads, and rarely a short lock. In a
    /// child of `fork()` it is the durable end.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-end-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// let lsn = wal.append(b"the last one")?;
    /// let end = wal.end();
    /// assert!(end > lsn);
    /// assert!(wal.append(b"a later one")? >= end);
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    #[must_use]
    pub fn end(&self) -> Lsn {
        Lsn::new(self.appender().state.end())
    }

    /// Calls `apply` with every record that was appended before this call, oldest first. Returns
    /// the number of records.
    ///
    /// Syncs records that are not durable yet. On a closed or poisoned log, the replay ends at the
    /// durable end. Records that other threads append meanwhile are not replayed.
    ///
    /// # Errors
    ///
    /// [`ReplayError::Log`] if the log cannot be read (`Corruption` names the place),
    /// [`ReplayError::Apply`] with the first error that `apply` returns.
    pub fn replay<E>(
        &self,
        mut apply: impl FnMut(Lsn, &[u8]) -> Result<(), E>,
    ) -> Result<u64, ReplayError<E>> {
        match self.sync() {
            Ok(_) | Err(Error::Closed | Error::Poisoned { .. }) => {}
            Err(e) => return Err(e.into()),
        }
        let mut reader = self.reader(Lsn::ZERO);
        let mut records = 0;
        while let Some(record) = reader.next_ref()? {
            let lsn = record.lsn;
            apply(lsn, record.payload).map_err(|error| ReplayError::Apply { lsn, error })?;
            records += 1;
        }
        Ok(records)
    }

    /// Reads durable records from the first one at or after `from` to the current durable end.
    /// [`Lsn::ZERO`] is the oldest record.
    ///
    /// The first call of `next` fails where [`Wal::follow`] fails: with `Pruned` below the oldest,
    /// and with `NotAppended` above [`Wal::end`].
    #[must_use]
    pub fn reader(&self, from: Lsn) -> Reader {
        let state = &self.appender().state;
        let durable_end = state.durable.end();
        let reader = Reader::new(Arc::clone(&state.view), from.as_u64(), durable_end);
        if from.as_u64() <= durable_end {
            return reader;
        }
        match state.end() {
            end if from.as_u64() <= end => reader,
            end => reader.refused(Error::NotAppended { lsn: from, end: Lsn::new(end) }),
        }
    }

    /// Reads durable records backwards: from the last one below `before` to the oldest.
    /// [`Wal::durable_end`] starts at the newest.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-back-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// wal.append_batch(&["older", "newer"])?;
    /// wal.sync()?;
    /// let newest = wal.reader_back(wal.durable_end()).next().unwrap()?;
    /// assert_eq!(newest.payload, b"newer");
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    #[must_use]
    pub fn reader_back(&self, before: Lsn) -> BackwardReader {
        let state = &self.appender().state;
        let before = before.as_u64().min(state.durable.end());
        BackwardReader::new(Arc::clone(&state.view), before)
    }

    /// Reads durable records from the first one at or after `from`, then waits for more, without
    /// polling.
    ///
    /// A follower is an iterator, reads in place with [`Follow::next_records`], or is a future.
    /// [`Lsn::ZERO`] is the oldest record; [`Wal::durable_end`] is the next record. A follower
    /// close to the durable end reads from memory.
    ///
    /// # Errors
    ///
    /// `Pruned` below the oldest, `NotAppended` above the log's end.
    pub fn follow(&self, from: Lsn) -> Result<Follow> {
        let state = &self.appender().state;
        self.appender().check_not_forked()?;
        let end = state.end();
        if from.as_u64() > end {
            return Err(Error::NotAppended { lsn: from, end: Lsn::new(end) });
        }
        Follow::new(Arc::clone(state), from.as_u64())
    }

    /// Reads the record at exactly `lsn`. The time depends only on the size of the record.
    ///
    /// # Errors
    ///
    /// `Pruned` below the oldest, `NotDurable` at or above the durable end, `NotAppended` above the
    /// log's end, `NoRecord` where no record starts, `Corruption`, `Io`.
    pub fn read(&self, lsn: Lsn) -> Result<Record> {
        let appender = self.appender();
        appender.check_not_forked()?;
        let durable_end = appender.durable_end();
        if lsn >= durable_end {
            appender.check_appended(lsn.as_u64())?;
            return Err(Error::NotDurable { lsn, durable_end });
        }
        read_one(&appender.state.view, lsn.as_u64(), durable_end.as_u64())
    }

    /// The oldest position that is kept: the base of the oldest segment. [`Wal::reader`] from here
    /// starts at the oldest record.
    #[must_use]
    pub fn oldest_lsn(&self) -> Lsn {
        Lsn::new(self.appender().state.view.table.oldest())
    }

    /// The log's id: 16 random bytes, fixed when the log is created and stated in each segment. See
    /// [`WalBuilder::expect_log_id`](crate::WalBuilder::expect_log_id).
    #[must_use]
    pub fn log_id(&self) -> [u8; 16] {
        self.inner.log_id
    }

    /// The report of opening the log.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.inner.report
    }

    /// Reports whether the log is running, for a health check. Costs an atomic load and a short
    /// lock.
    ///
    /// A full ring or a full disk is no failure. [`Stats::stalled_for`](crate::Stats::stalled_for)
    /// reports a disk that does not answer.
    ///
    /// # Errors
    ///
    /// The error of an append: `Poisoned`, `Closed`, `Forked`. `Obstructed` while a segment cannot
    /// be prepared or removed: the log retries, and prepared segments still take records.
    pub fn health(&self) -> Result<()> {
        let state = &self.appender().state;
        state.durable.check_running()?;
        state.obstacle.get().map_or(Ok(()), Err)
    }

    /// The backend that runs, its commit method, and the reasons for both.
    #[must_use]
    pub fn backend(&self) -> BackendInfo {
        if self.appender().state.durable.is_forked() {
            let method = self.appender().state.commit.method();
            let commit_method = method_name(self.inner.info.kind, method);
            return BackendInfo { commit_method, ..self.inner.info.clone() };
        }
        let commit = self.appender().state.commit.chosen();
        BackendInfo {
            commit_method: method_name(self.inner.info.kind, commit.method),
            commit_method_reason: commit.reason,
            commit_method_detail: commit.detail,
            ..self.inner.info.clone()
        }
    }

    /// Makes everything durable, marks the log as cleanly closed, and releases it for the next
    /// opener. Appends through any clone then fail with `Closed`. Durable records can still be
    /// read. Closing a closed log does nothing.
    ///
    /// # Errors
    ///
    /// `Poisoned` if the log failed at any time: unacknowledged records may be lost.
    /// `WouldDeadlock` on the log's own threads.
    pub fn close(&self) -> Result<()> {
        if self.appender().state.durable.is_forked() {
            return Err(Error::Forked);
        }
        reentrancy::check_may_wait()?;
        self.inner.close();
        match self.appender().state.durable.verdict(u64::MAX) {
            Verdict::Failed(e) => Err(e),
            Verdict::Durable | Verdict::NotYet => Ok(()),
        }
    }
}

impl Inner {
    fn close(&self) {
        self.appender.state.begin_close();
        // The lock is held over the joins: a second closer returns when the log is closed.
        let mut running = lock(&self.running);
        if let Some(running) = running.take() {
            running.end(&self.appender.state);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let forked = self.appender.state.durable.is_forked() || self.process != std::process::id();
        if forked {
            // The threads, the lock and the files belong to the parent. This value is not locked
            // here: another thread may have held the lock at the fork.
            let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(running.take());
            std::mem::forget(Arc::clone(&self.appender.state));
        } else if reentrancy::is_serving() {
            // User code dropped the handle on the I/O thread, which cannot wait for itself. The I/O
            // thread ends alone, and releases the lock when it has ended.
            self.appender.state.begin_close();
            if let Some(running) = lock(&self.running).take() {
                let state = Arc::clone(&self.appender.state);
                // Without the thread, nothing of it may be dropped. The lock must outlive every
                // operation in flight.
                let running = ManuallyDrop::new(running);
                let ended = move || ManuallyDrop::into_inner(running).end(&state);
                let _ = std::thread::Builder::new().name("ringwal-close".into()).spawn(ended);
            }
        } else {
            self.close();
        }
    }
}
