//! The handle: append, wait, read, close.
//!
//! 1. Handles are cheap clones of one `Inner`; the I/O thread and the helper hold none, so that the
//!    last handle's drop closes the log.
//! 2. A call that waits is refused on the log's own threads.

pub(crate) mod builder;
pub(crate) mod callback;
pub(crate) mod futures;
#[cfg(feature = "metrics")]
mod metrics;
pub(crate) mod open;
#[cfg(feature = "futures")]
pub(crate) mod stream;
#[cfg(feature = "serde")]
pub(crate) mod typed;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::durable::Verdict;
use crate::engine::append::Appender;
use crate::engine::state::{LogState, Running};
use crate::error::{Error, ReplayError, Result};
use crate::io::backend::{BackendInfo, method_name};
use crate::lsn::Lsn;
use crate::options::Geometry;
use crate::positions::ConsumerInfo;
use crate::read::consumer::{self, Consumer};
use crate::read::follow::Follow;
use crate::read::{BackwardReader, Reader, Record, cut_point, read_one};
use crate::recovery::RecoveryReport;
use crate::stats::counters::{Histograms, Stats};
use crate::sys::reentrancy;
use crate::sys::sync::{Mutex, Ordering, lock};
use crate::wal::futures::{AppendFuture, DurableFuture};

/// A write-ahead log that is open for appending. Clones are cheap and stand for the same log.
///
/// The last one that is dropped closes the log, which waits for the device: on an executor, call [`Wal::close`] where
/// blocking is allowed. Opening, reading, truncating, and what consumers do wait for the device as well; `append`,
/// `try_append`, the futures and what only asks (`durable_end`, `stats`, `health`) do not, but for a full ring.
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

// A panic in the caller's code, also inside `append_with`, leaves the log as valid as an error does.
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
    /// Held by the one `truncate_after` at a time.
    cutting: Mutex<()>,
}

impl Wal {
    pub(crate) fn assemble(
        state: Arc<LogState>,
        report: RecoveryReport,
        info: BackendInfo,
        geometry: Geometry,
        log_id: &[u8; 16],
        running: Box<dyn Running>,
    ) -> Wal {
        let appender = Appender::new(state, log_id, report.epoch, geometry.max_record);
        let running = Mutex::new(Some(running));
        Wal {
            inner: Arc::new(Inner {
                appender,
                report,
                info,
                log_id: *log_id,
                process: std::process::id(),
                running,
                cutting: Mutex::new(()),
            }),
        }
    }

    pub(crate) fn wait_until_started(&self, epoch_group: u64) -> Result<()> {
        self.appender().state.wait_durable(epoch_group)
    }

    pub(crate) fn appender(&self) -> &Appender {
        &self.inner.appender
    }

    /// Appends a record: its place in the log is fixed when this returns, and it becomes durable with
    /// its group. Blocks only while the ring is full or the segment that comes next is not prepared yet. Copies
    /// the payload; allocates nothing.
    ///
    /// # Errors
    ///
    /// `RecordTooLarge`, `NoSpace`, `Closed`, `Poisoned`; `WouldDeadlock` on the log's own threads,
    /// `Reentrant` inside [`Wal::append_with`], `Forked` in a child process. Nothing was appended.
    #[inline]
    pub fn append(&self, payload: &[u8]) -> Result<Lsn> {
        self.appender().append(payload)
    }

    /// The same, but never blocks.
    ///
    /// # Errors
    ///
    /// `RingFull` where [`Wal::append`] would wait; otherwise as there.
    #[inline]
    pub fn try_append(&self, payload: &[u8]) -> Result<Lsn> {
        self.appender().try_append(payload)
    }

    /// The same, as a future that waits while the ring is full. Works on any executor. Dropped before
    /// it has returned, the record was not appended. One that is not polled for some 10 ms after it was
    /// woken loses its turn to others and waits again: the log waits for nobody.
    ///
    /// # Errors
    ///
    /// As [`Wal::append`].
    pub fn append_async<'a>(&'a self, payload: &'a [u8]) -> AppendFuture<'a> {
        AppendFuture::new(self.appender(), payload)
    }

    /// Appends a record and waits until it is durable, in every mode of [`crate::Durability`].
    ///
    /// # Errors
    ///
    /// As [`Wal::append`] and [`Wal::wait_durable`]. After `Poisoned` it is not known whether the
    /// record will be there when the log is opened again.
    pub fn append_durable(&self, payload: &[u8]) -> Result<Lsn> {
        let lsn = self.appender().append(payload)?;
        self.appender().wait_durable(lsn.as_u64())?;
        Ok(lsn)
    }

    /// Appends several records that survive a crash all together or not at all. Returns the LSN of
    /// the first; the others follow it directly, each with its own LSN. Blocks as [`Wal::append`].
    /// `as_ref` is called once for each record.
    ///
    /// # Errors
    ///
    /// `EmptyBatch`; `RecordTooLarge` if the records, each with 8 bytes and padding to 8, and 4 bytes
    /// for their number exceed `max_record_size`; otherwise as [`Wal::append`].
    pub fn append_batch<T: AsRef<[u8]>>(&self, records: &[T]) -> Result<Lsn> {
        self.appender().append_batch(records, true)
    }

    /// Appends a record of `len` bytes that `fill` writes in place, into zeroed memory. The log waits
    /// for `fill`: it must be quick, and a call of this or another log from inside it that could wait is refused.
    ///
    /// # Errors
    ///
    /// As [`Wal::append`].
    ///
    /// # Panics
    ///
    /// If `fill` panics: the reservation becomes a record that readers skip, the log goes on, and the
    /// panic with it.
    pub fn append_with(&self, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Lsn> {
        self.appender().append_with(len, fill)
    }

    /// Waits until the record at `lsn`, and with it every earlier one, is durable. In the modes that
    /// do not sync every group it asks for a sync.
    ///
    /// # Errors
    ///
    /// `NotAppended` for a position that was never given out, `Truncated` for one that
    /// [`Wal::truncate_after`] made void, `Poisoned` if the log failed before, `WouldDeadlock` on the log's
    /// own threads. What is durable already is `Ok`, come what may; so is what retention has removed, the
    /// cuts in it too.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.appender().wait_durable(lsn.as_u64())
    }

    /// The same, as a future for any executor. It may be dropped at any time.
    ///
    /// # Errors
    ///
    /// As [`Wal::wait_durable`].
    pub fn when_durable(&self, lsn: Lsn) -> DurableFuture {
        DurableFuture::new(self.appender().clone(), lsn.as_u64())
    }

    /// Calls `call` once when the record at `lsn`, and with it every earlier one, is durable, or
    /// when it is known that it will not be: with what [`Wal::wait_durable`] would return. If that is
    /// known already, at once and on this thread; otherwise on the I/O thread, after the next group was
    /// submitted: it must be quick, and a blocking call of the log from there gets `WouldDeadlock`. A
    /// panic there is caught. Allocates.
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

    /// The first position that is not durable yet: a record is durable when its LSN is below it. One
    /// atomic load.
    #[must_use]
    pub fn durable_end(&self) -> Lsn {
        self.appender().durable_end()
    }

    /// Calls `apply` with every record that was appended before this call, oldest first, and returns
    /// how many there were. What is not durable yet is synced first; on a log that is closed or
    /// poisoned, it ends at the durable end. Others may append meanwhile: they are not seen.
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

    /// Reads durable records from the first one at or after `from` to the end that is durable now.
    /// [`Lsn::ZERO`] is the oldest record. A position below the oldest makes the first call to `next`
    /// return `Pruned`.
    #[must_use]
    pub fn reader(&self, from: Lsn) -> Reader {
        let state = &self.appender().state;
        Reader::new(Arc::clone(&state.view), from.as_u64(), state.durable.end())
    }

    /// Reads durable records backwards: from the last one below `before` to the oldest.
    /// [`Wal::durable_end`] begins with the newest.
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

    /// Reads durable records from the first one at or after `from`, and then waits for more, without
    /// polling: as an iterator, with [`Follow::next_records`] in place, or as a future.
    /// [`Lsn::ZERO`] is the oldest record; [`Wal::durable_end`] is what comes next. Followers that
    /// keep up are served from memory.
    ///
    /// # Errors
    ///
    /// `Pruned` below the oldest, `NotAppended` above the log's end.
    pub fn follow(&self, from: Lsn) -> Result<Follow> {
        let state = &self.appender().state;
        self.appender().check_not_forked()?;
        let end = state.ring.reserved_end().max(state.durable.end());
        if from.as_u64() > end {
            return Err(Error::NotAppended { lsn: from, end: Lsn::new(end) });
        }
        Follow::new(Arc::clone(state), from.as_u64())
    }

    /// Reads the record at exactly `lsn`. Takes time that depends on the record's size only.
    ///
    /// # Errors
    ///
    /// `Pruned` below the oldest, `NotDurable` at or above the durable end, `NotAppended` above the
    /// log's end, `NoRecord` for a position that is no record's, `Corruption`, `Io`.
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

    /// The oldest position that is kept: the base of the oldest segment, from which
    /// [`Wal::reader`] finds the oldest record.
    #[must_use]
    pub fn oldest_lsn(&self) -> Lsn {
        Lsn::new(self.appender().state.view.table.oldest())
    }

    /// Removes the segments that hold only records below `lsn`, and returns the oldest position that
    /// is kept afterwards: at most `lsn`, as segments go whole, and the newest durable one stays.
    /// A position above the log's end counts as the end: nothing that is appended later is removed for it.
    /// Blocks until the files are gone; what is being read stays until the reader has left it.
    ///
    /// On a full disk this makes room: a log keeps a block for it in each segment.
    ///
    /// # Errors
    ///
    /// `NoSpace` if that block is used up, on a disk that is still full: carried out once there is room.
    /// `Closed`, `Poisoned`, `WouldDeadlock`.
    pub fn truncate_before(&self, lsn: Lsn) -> Result<Lsn> {
        let state = &self.appender().state;
        state.durable.check_running()?;
        reentrancy::check_may_wait()?;
        self.appender().check_not_forked()?;
        // What is appended from now on lies above the end of now: no wish reaches into the future.
        let wanted = lsn.as_u64().min(state.ring.reserved_end());
        state.truncate_to.fetch_max(wanted, Ordering::SeqCst);
        let ticket = state.truncations_asked.fetch_add(1, Ordering::SeqCst) + 1;
        state.nudge_helper();
        loop {
            let seen = state.helper_rounds.load();
            if state.truncations_done.load(Ordering::SeqCst) >= ticket {
                return Ok(self.oldest_lsn());
            }
            state.durable.check_running()?;
            if state.retiring_lacks_space() {
                return Err(state.no_segment());
            }
            if !state.drive() {
                state.helper_rounds.wait(seen, None);
            }
        }
    }

    /// Cuts the log's end off: the record at `from` and everything appended after it, until this call
    /// makes its cut, is void and never comes back. Returns where the log goes on: what is appended
    /// afterwards lies at or above that. `from` is a record's LSN, or a former
    /// [`Wal::durable_end`], also one behind which all was cut before; [`Lsn::ZERO`] or [`Wal::oldest_lsn`] is
    /// everything that is kept. A batch is cut as a whole, at its first record. If nothing lies at or
    /// above `from`, nothing is done.
    ///
    /// Positions are not given out again, and nothing is erased or rewritten: a group is added that
    /// says what is void, and this returns when that is durable. Everything appended before is made
    /// durable first. Readers and followers that come to void records skip them; a follower that has
    /// delivered some gets `Truncated`, as do `read` and the waits for a void position. A
    /// [`Reader`] made before ends where it would have, and may still deliver what it holds.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-cut-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// wal.append(b"agreed")?;
    /// let conflict = wal.append(b"not agreed")?;
    /// wal.truncate_after(conflict)?;
    /// wal.append_durable(b"agreed instead")?;
    /// let records: Vec<_> = wal.reader(ringwal::Lsn::ZERO).map(|r| r.unwrap().payload).collect();
    /// assert_eq!(records, [&b"agreed"[..], b"agreed instead"]);
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `NotAppended` above the log's end, `Pruned` below the oldest, `NoRecord` inside a record,
    /// `InsideBatch`, `Consumed` if a [`Consumer`] has done with what is to be cut, `NoSpace` if there is no block for the group: nothing was cut. `Corruption` and
    /// `Io` from looking at the place. `Closed`, `WouldDeadlock`. After `Poisoned` it is not known
    /// whether the cut was made until the log is opened again.
    pub fn truncate_after(&self, from: Lsn) -> Result<Lsn> {
        let appender = self.appender();
        let state = &appender.state;
        state.durable.check_running()?;
        reentrancy::check_may_wait()?;
        let _one_at_a_time = lock(&self.inner.cutting);
        appender.check_appended(from.as_u64().saturating_sub(1))?;
        let end = self.sync()?;
        let oldest = self.oldest_lsn();
        let from = if from == Lsn::ZERO { oldest } else { from };
        if from < oldest {
            return Err(Error::Pruned { oldest });
        }
        let Some(from) = cut_point(&state.view, from.as_u64(), end.as_u64())? else {
            return Ok(end);
        };
        if let Some((name, position)) = state.consumers.beyond(from) {
            return Err(Error::Consumed { name, position: Lsn::new(position) });
        }
        let cuts = &state.view.cuts;
        let before = cuts.count();
        state.want_cut(from);
        loop {
            let seen = state.cut_rounds.load();
            let over = state.has_io_ended();
            let poisoned = state.durable.is_poisoned();
            if cuts.count() > before {
                return Ok(Lsn::new(cuts.at(from).map_or(from, |cut| cut.to)));
            }
            if over || poisoned {
                state.durable.check_running()?;
                return Err(Error::Closed);
            }
            // Withdrawn, unless the group is on its way already.
            if state.ring.is_starved() && state.take_cut().is_some() {
                return Err(state.no_segment());
            }
            if !state.drive() {
                state.cut_rounds.wait(seen, None);
            }
        }
    }

    /// A reader under a name, whose position survives: see [`Consumer`]. A new one begins at the oldest record
    /// that is kept, and has its file made durable before this returns.
    ///
    /// # Errors
    ///
    /// `ConsumerName`, `ConsumerNameTooLong` with this prefix, `ConsumerInUse` if it is attached already,
    /// `NameTaken` if the filesystem takes it for another file's name, `ConsumerDamaged`, `Io`; `Closed`,
    /// `Poisoned`, `WouldDeadlock`.
    pub fn consumer(&self, name: &str) -> Result<Consumer> {
        Consumer::attach(&self.appender().state, self.inner.log_id, name)
    }

    /// All consumers of the log, attached or not, by name. In a child of `fork()`: none.
    #[must_use]
    pub fn consumers(&self) -> Vec<ConsumerInfo> {
        let state = &self.appender().state;
        if state.durable.is_forked() {
            return Vec::new();
        }
        state.consumers.list(state.durable.end())
    }

    /// Gives a consumer up: its position is forgotten, and nothing is kept for it any more.
    ///
    /// # Errors
    ///
    /// `NoConsumer`, `ConsumerInUse`, `ConsumerName`, `Io`, `Closed`, `Poisoned`.
    pub fn remove_consumer(&self, name: &str) -> Result<()> {
        consumer::remove(&self.appender().state, name)
    }

    /// What opening the log found.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.inner.report
    }

    /// What the log has done since it was opened. Some twenty atomic loads and short locks that
    /// appending does not use. In a child of `fork()`: only what takes no lock, as of the fork.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let appender = self.appender();
        if appender.state.durable.is_forked() {
            let method = appender.state.commit.method();
            return Stats {
                ring_full_waits: appender.state.ring.full_waits.load(Ordering::Relaxed),
                durable_end: appender.durable_end(),
                commit_method: method_name(self.inner.info.kind, method),
                ..appender.state.counters.read()
            };
        }
        let commit = appender.state.commit.chosen();
        let durable_end = appender.durable_end();
        let pinned = appender.state.view.table.oldest_pin();
        let obstructed = appender.state.obstacle().is_some();
        Stats {
            ring_full_waits: appender.state.ring.full_waits.load(Ordering::Relaxed),
            durable_end,
            ring_bytes: appender.state.ring.reserved_end().saturating_sub(durable_end.as_u64()),
            out_of_space: appender.state.ring.is_out_of_space() && !obstructed,
            obstructed,
            reader_lag: pinned.map_or(0, |pin| durable_end.as_u64().saturating_sub(pin)),
            commit_method: method_name(self.inner.info.kind, commit.method),
            commit_method_reason: commit.reason,
            stalled_for: Duration::from_nanos(
                appender.state.in_flight.stalled.load(Ordering::Relaxed),
            ),
            ..appender.state.counters.read()
        }
    }

    /// How large the groups were and how long their writes, syncs and wake-ups took since the log was
    /// opened. Copies some 35 KiB.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-hist-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// wal.append_durable(b"timed")?;
    /// let commits = wal.histograms().commit_time;
    /// println!("p50 {} ns, p99 {} ns", commits.quantile(0.5), commits.quantile(0.99));
    /// # assert!(commits.count() >= 1 && commits.quantile(0.5) > 0);
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    #[must_use]
    pub fn histograms(&self) -> Histograms {
        self.appender().state.recorders.read()
    }

    /// Whether the log is running: for a health check. Costs an atomic load and a short lock. A full ring or a full disk is no
    /// failure; see [`Stats::stalled_for`](crate::Stats::stalled_for) for a disk that does not answer.
    ///
    /// # Errors
    ///
    /// What an append would get: `Poisoned`, `Closed`, `Forked`; and `Obstructed` while a segment cannot be prepared
    /// or removed, which the log goes on trying: what is prepared already can still be written to.
    pub fn health(&self) -> Result<()> {
        let state = &self.appender().state;
        state.durable.check_running()?;
        state.obstacle().map_or(Ok(()), Err)
    }

    /// Which backend runs, how it commits, and why.
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
    /// opener. Appends through any clone fail with `Closed` from now on; what is durable can still be
    /// read. Closing again does nothing.
    ///
    /// # Errors
    ///
    /// `Poisoned` if the log failed at any time: what was not acknowledged may be lost.
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
        // The lock is held over the joins: whoever closes second returns when the log is closed.
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
            // The threads are the parent's, and so are the lock and the files.
            // Not by its lock, which another thread may have held at the fork.
            let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(running.take());
            std::mem::forget(Arc::clone(&self.appender.state));
        } else if reentrancy::is_serving() {
            // Dropped by user code on the I/O thread, which cannot wait for itself: it ends alone,
            // and lets go of the lock when it has.
            self.appender.state.begin_close();
            if let Some(running) = lock(&self.running).take() {
                let state = Arc::clone(&self.appender.state);
                // Leaked, so that without the thread nothing of it is dropped: the lock must outlive what is in
                // flight.
                let running: &'static Mutex<_> = Box::leak(Box::new(Mutex::new(Some(running))));
                let ended = move || {
                    if let Some(running) = lock(running).take() {
                        running.end(&state);
                    }
                };
                let _ = std::thread::Builder::new().name("ringwal-close".into()).spawn(ended);
            }
        } else {
            self.close();
        }
    }
}
