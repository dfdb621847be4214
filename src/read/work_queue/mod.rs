//! A work queue: competing workers with leases, over one consumer.
//!
//! 1. `leases` knows the jobs that are out. The consumer's position is never above a job that is
//!    not done, so that a crash delivers such a job again.
//! 2. Locks are taken in this order: the source, the leases. Neither is held while user code runs
//!    or a worker waits. The source is locked over a commit.
//! 3. A worker looks for a job after it has read the bell, and the bell rings after each change
//!    that may give a worker a job. So no change is missed. The log rings the bell when the durable
//!    end moves, and when the log ends.
//! 4. The queue has no thread. A worker that waits wakes when the next lease ends.
//! 5. In a child of `fork()` no call waits for a lock.

mod bell;
mod leases;
mod options;

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

pub use options::{DeadLetter, WorkQueueOptions};

use crate::durable::{Registrar, Verdict};
use crate::engine::state::LogState;
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::read::consumer::Consumer;
use crate::sys::panics::caught;
use crate::sys::reentrancy;
use crate::sys::sync::{AtomicU32, Mutex, Ordering, lock};
use bell::QueueBell;
use leases::{Leased, Leases};

/// Jobs that are read ahead of the workers at most. A worker then rarely waits for a commit.
const AHEAD: usize = 16;

/// Bytes that a queue over a filter passes before it stores that it has passed them.
const SKIPPED: u64 = 1 << 20;

/// A durable queue of jobs for competing workers: each job goes to one worker, and to another one
/// if the first does not finish it in time. From [`Wal::work_queue`](crate::Wal::work_queue) or
/// [`WorkQueue::over`].
///
/// Every record after the consumer's position is a job. Workers may be threads or tasks; a clone is
/// cheap and stands for the same queue. Jobs may be finished in any order. The position of the
/// consumer moves up to the oldest job that is not done, and the log keeps the jobs from there.
///
/// **At least once.** A job comes again if its worker drops it or lets its lease end, and after a
/// crash or restart if it, or a job before it, was not done. So the work must be idempotent.
/// [`WorkQueueOptions::max_out`] bounds how many come again. Which jobs are done after the
/// position, and how often a job was delivered, is known in memory only.
///
/// ```
/// use std::time::Duration;
/// use ringwal::WorkQueueOptions;
/// # let dir = std::env::temp_dir().join(format!("ringwal-doc-queue-{}", std::process::id()));
/// # let wal = ringwal::Wal::open(&dir)?;
/// wal.append_batch(&["one", "two", "three"])?;
/// wal.sync()?;
/// let queue = wal.work_queue("mail", WorkQueueOptions::default())?;
/// std::thread::scope(|scope| {
///     for _ in 0..2 {
///         let worker = queue.clone();
///         scope.spawn(move || {
///             while let Some(job) = worker.take(Duration::from_millis(10))? {
///                 println!("{}", String::from_utf8_lossy(job.payload())); // the work
///                 job.done()?; // durable
///             }
///             Ok::<(), ringwal::Error>(())
///         });
///     }
/// });
/// assert!(queue.is_drained() && queue.lag() == 0);
/// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), ringwal::Error>(())
/// ```
#[derive(Clone)]
pub struct WorkQueue {
    shared: Arc<Shared>,
}

/// Jobs of a [`WorkQueue`] by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WorkQueueCounts {
    /// Jobs that were read and wait for a worker.
    pub waiting: usize,
    /// Jobs that are with a worker.
    pub leased: usize,
    /// Jobs that are done, after one that is not.
    pub done: usize,
}

struct Shared {
    state: Arc<LogState>,
    source: Mutex<JobSource>,
    leases: Mutex<Leases>,
    bell: Arc<QueueBell>,
    options: WorkQueueOptions,
    /// 1 once the queue gives out no more jobs.
    closed: AtomicU32,
}

#[derive(Debug)]
struct JobSource {
    consumer: Consumer,
    /// The durable end for which the bell is registered, and its ticket.
    ticket: Option<(u64, u64)>,
}

impl fmt::Debug for WorkQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkQueue").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// What a worker finds that looks for a job.
enum Look {
    Job(Job),
    /// The queue was closed.
    Closed,
    /// Something has changed meanwhile.
    Again,
    /// None. At this time, by the log's clock, there may be one.
    Wait(Option<u64>),
}

impl WorkQueue {
    /// A queue over a consumer, which may have a filter. The queue has the consumer's name until
    /// its last clone and its last job are dropped.
    ///
    /// # Errors
    ///
    /// `Options` if the lease is zero, or a number is.
    pub fn over(consumer: Consumer, options: WorkQueueOptions) -> Result<Self> {
        options.check()?;
        let state = Arc::clone(consumer.state());
        let leases = Leases::new(options.max_out, options.max_attempts);
        let shared = Shared {
            state,
            source: Mutex::new(JobSource { consumer, ticket: None }),
            leases: Mutex::new(leases),
            bell: Arc::new(QueueBell::new()),
            options,
            closed: AtomicU32::new(0),
        };
        Ok(WorkQueue { shared: Arc::new(shared) })
    }

    /// The next job. Waits for it, for `timeout` at most; [`Duration::MAX`] waits without a limit.
    ///
    /// Jobs that came back are delivered in the order in which they may be; new ones in the order
    /// of the log. `None`: no job came in time, or the queue was closed.
    ///
    /// # Errors
    ///
    /// `Pruned` if retention has removed the next job, because the consumer lagged by more than
    /// `consumer_limit`: drop the queue and [`Consumer::seek`]. `Corruption`, `Io`; `Closed`,
    /// `Poisoned`, `Forked`; `WouldDeadlock` on the log's own threads.
    pub fn take(&self, timeout: Duration) -> Result<Option<Job>> {
        reentrancy::check_may_wait()?;
        let shared = &self.shared;
        let until = Instant::now().checked_add(timeout);
        loop {
            let seen = shared.bell.seen();
            let event = match shared.look()? {
                Look::Job(job) => return Ok(Some(job)),
                Look::Closed => return Ok(None),
                Look::Again => continue,
                Look::Wait(event) => event,
            };
            shared.skip()?;
            if shared.state.drive() {
                continue;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
            let now = shared.state.clock().now();
            let event = event.map(|at| Duration::from_nanos(at.saturating_sub(now)));
            let pause = left.into_iter().chain(event).min();
            shared.bell.wait(seen, pause);
        }
    }

    /// The next job, as a future for any executor. `None`: the queue was closed. Cancelling it
    /// loses no job.
    ///
    /// Unlike [`WorkQueue::take`], it does not release what a filter skips while no job comes.
    ///
    /// The end of a lease, or of a delay, wakes no task: the queue has no timer. A task gets such a
    /// job at its next poll, or when [`WorkQueue::wake_due`] is called. May read from the device.
    ///
    /// # Errors
    ///
    /// As [`WorkQueue::take`].
    pub async fn take_async(&self) -> Result<Option<Job>> {
        poll_fn(|cx| self.poll_take(cx)).await
    }

    /// Polls for the next job: see [`WorkQueue::take_async`].
    ///
    /// # Errors
    ///
    /// As [`WorkQueue::take`].
    pub fn poll_take(&self, cx: &Context<'_>) -> Poll<Result<Option<Job>>> {
        loop {
            if self.shared.state.durable.is_forked() {
                return Poll::Ready(Err(Error::Forked));
            }
            self.shared.bell.enter(cx.waker());
            match self.shared.look() {
                Ok(Look::Job(job)) => return Poll::Ready(Ok(Some(job))),
                Ok(Look::Closed) => return Poll::Ready(Ok(None)),
                Ok(Look::Again) => {}
                Ok(Look::Wait(_)) if self.shared.state.drive() => {}
                Ok(Look::Wait(_)) => return Poll::Pending,
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    /// Wakes the tasks if a lease or a delay has ended. Returns the time until the next one does:
    /// call it again then, from a timer of the executor. `None`: none will, or this is a child of
    /// `fork()`.
    pub fn wake_due(&self) -> Option<Duration> {
        let shared = &self.shared;
        if shared.state.durable.is_forked() {
            return None;
        }
        shared.expire();
        let now = shared.state.clock().now();
        let (is_due, event) = {
            let leases = lock(&shared.leases);
            (leases.is_due(now), leases.next_event(now))
        };
        if is_due {
            shared.bell.ring();
        }
        event.map(|at| Duration::from_nanos(at - now))
    }

    /// Bytes of the log from the position to the durable end: see [`Consumer::lag`]. 0 once every
    /// job is done and committed. Waits for a commit under way.
    #[must_use]
    pub fn lag(&self) -> u64 {
        if self.shared.state.durable.is_forked() {
            return 0;
        }
        lock(&self.shared.source).consumer.lag()
    }

    /// Whether every durable job is done and committed. Waits for a commit under way.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        !self.shared.state.durable.is_forked() && {
            let source = lock(&self.shared.source);
            lock(&self.shared.leases).is_empty() && source.consumer.is_caught_up()
        }
    }

    /// The jobs in memory, by state. A lease that has ended counts until a worker finds that.
    #[must_use]
    pub fn counts(&self) -> WorkQueueCounts {
        if self.shared.state.durable.is_forked() {
            return WorkQueueCounts::default();
        }
        let leases::Counts { waiting, leased, done } = lock(&self.shared.leases).counts();
        WorkQueueCounts { waiting, leased, done }
    }

    /// Gives out no more jobs, and wakes every worker that waits: [`WorkQueue::take`] returns
    /// `None`. Jobs that are out can still be finished. Stores the position of what is done.
    ///
    /// # Errors
    ///
    /// As [`Job::done`]. The queue is closed nevertheless.
    pub fn close(&self) -> Result<()> {
        if self.shared.state.durable.is_forked() {
            return Err(Error::Forked);
        }
        self.shared.closed.store(1, Ordering::SeqCst);
        self.shared.bell.ring();
        self.shared.state.durable.check_running()?;
        reentrancy::check_may_wait()?;
        self.shared.commit()
    }

    /// Whether [`WorkQueue::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }
}

impl Shared {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst) != 0
    }

    /// Nanoseconds of the log's clock, `by` from now.
    fn after(&self, by: Duration) -> u64 {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.state.clock().now().saturating_add(by)
    }

    /// Looks for a job: first among those that were read, then in the log.
    fn look(self: &Arc<Self>) -> Result<Look> {
        self.state.durable.check_running()?;
        if self.is_closed() {
            return Ok(Look::Closed);
        }
        self.expire();
        if let Some(job) = self.take_waiting() {
            return Ok(Look::Job(job));
        }
        let mut source = lock(&self.source);
        let end = self.state.durable.end();
        let is_full = self.fill(&mut source)?;
        if let Some(job) = self.take_waiting() {
            return Ok(Look::Job(job));
        }
        if !is_full && !self.register(&mut source, end) {
            return Ok(Look::Again);
        }
        let event = lock(&self.leases).next_event(self.state.clock().now());
        Ok(Look::Wait(event))
    }

    /// Ends the leases whose time has passed. Called with no lock held: it may run the dead
    /// letters.
    fn expire(&self) {
        let now = self.state.clock().now();
        let has_dead = {
            let mut leases = lock(&self.leases);
            leases.expire(now);
            leases.has_dead()
        };
        if has_dead {
            self.bury();
        }
    }

    fn take_waiting(self: &Arc<Self>) -> Option<Job> {
        let (now, until) = (self.state.clock().now(), self.after(self.options.lease));
        let leased = lock(&self.leases).take(now, until)?;
        Some(Job { queue: Arc::clone(self), leased, settled: false })
    }

    /// Reads jobs ahead. True: no more jobs may be read before the oldest one is done.
    fn fill(&self, source: &mut JobSource) -> Result<bool> {
        let mut cuts = 0;
        let mut read = 0;
        while read < AHEAD {
            if lock(&self.leases).room() == 0 {
                return Ok(true);
            }
            match source.consumer.records().and_then(|follow| follow.try_next()) {
                Ok(Some(record)) => {
                    let record = record.to_record();
                    lock(&self.leases).add(record.lsn.as_u64(), &record.payload);
                    read += 1;
                }
                Ok(None) => break,
                // The consumer begins at its position again. A cut under way may follow.
                Err(Error::Truncated { from, .. }) if cuts < 2 => {
                    lock(&self.leases).cut(from.as_u64());
                    cuts += 1;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(false)
    }

    /// Stores the position after the records that the consumer's filter skips, once they are many:
    /// a queue without jobs must not hold what other tags append.
    fn skip(&self) -> Result<()> {
        let mut source = lock(&self.source);
        let position = source.consumer.position().as_u64();
        let behind = self.state.durable.end().saturating_sub(position);
        if behind >= SKIPPED && source.consumer.has_filter() && lock(&self.leases).is_empty() {
            source.consumer.commit_skipped()?;
        }
        Ok(())
    }

    /// Has the log ring the bell when the durable end moves from `end`. False: it has moved.
    fn register(&self, source: &mut JobSource, end: u64) -> bool {
        let (durable, waker) = (&self.state.durable, Arc::clone(&self.bell).into());
        if let Some((at, ticket)) = source.ticket {
            if at == end && durable.update(end, ticket, &waker) {
                return matches!(durable.verdict(end), Verdict::NotYet);
            }
            durable.forget(at, ticket);
            source.ticket = None;
        }
        match durable.register(end, &waker, Registrar::Nobody) {
            (Verdict::NotYet, ticket) => {
                source.ticket = Some((end, ticket));
                true
            }
            _ => false,
        }
    }

    /// Hands the jobs that are given up to the dead letters.
    fn bury(&self) {
        loop {
            let next = lock(&self.leases).next_dead();
            let Some(Leased { lsn, payload, attempt, .. }) = next else { return };
            let letter = DeadLetter { lsn: Lsn::new(lsn), payload: &payload, attempts: attempt };
            let taken = match &self.options.sink {
                Some(sink) => caught(|| sink(letter).is_ok()).unwrap_or(false),
                None => true,
            };
            let again_at = (!taken).then(|| self.after(self.options.retry_delay));
            self.change(|leases| leases.buried(lsn, again_at));
            // Its failure shows at the next job that is done.
            if reentrancy::check_may_wait().is_ok() && self.state.durable.check_running().is_ok() {
                let _ = self.commit_if_due();
            }
        }
    }

    /// Makes a change that may give a waiting worker a job, and then wakes the workers.
    fn change<T>(&self, change: impl FnOnce(&mut Leases) -> T) -> T {
        let (changed, ring) = {
            let mut leases = lock(&self.leases);
            let (room, waiting) = (leases.room(), leases.waiting());
            let changed = change(&mut leases);
            let freed = room == 0 && leases.room() > 0;
            (changed, freed || leases.waiting() > waiting)
        };
        if ring {
            self.bell.ring();
        }
        changed
    }

    fn commit_if_due(&self) -> Result<()> {
        let due = lock(&self.leases).commit_due(self.options.commit_every);
        if due.is_some() { self.commit() } else { Ok(()) }
    }

    /// Stores the position after the jobs that are done. Workers that come meanwhile find that it
    /// was stored for them too.
    fn commit(&self) -> Result<()> {
        let mut source = lock(&self.source);
        let Some(done) = lock(&self.leases).commit_due(1) else { return Ok(()) };
        match source.consumer.commit(Lsn::new(done)) {
            // The last ones were cut out after they were done.
            Err(Error::Truncated { from, .. }) if from > source.consumer.position() => {
                source.consumer.commit_before(from)?;
            }
            Err(Error::Truncated { .. } | Error::ConsumerBackwards { .. }) => {}
            committed => committed?,
        }
        lock(&self.leases).committed(done);
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let durable = &self.state.durable;
        if durable.is_forked() {
            return;
        }
        if durable.check_running().is_ok() && reentrancy::check_may_wait().is_ok() {
            // What is not stored comes again.
            let _ = self.commit();
        }
        if let Some((end, ticket)) = lock(&self.source).ticket.take() {
            durable.forget(end, ticket);
        }
    }
}

/// A job of a [`WorkQueue`], with a lease. Dropping it gives the job back, as [`Job::retry`] does.
#[must_use = "a job that is dropped is delivered again"]
pub struct Job {
    queue: Arc<Shared>,
    leased: Leased,
    settled: bool,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lsn, attempt) = (self.lsn(), self.leased.attempt);
        f.debug_struct("Job").field("lsn", &lsn).field("attempt", &attempt).finish_non_exhaustive()
    }
}

impl Job {
    /// The position of its record.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        Lsn::new(self.leased.lsn)
    }

    /// The bytes that were appended.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.leased.payload
    }

    /// How often the job was delivered, this time included. A restart counts from 1 again.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.leased.attempt
    }

    /// The job is done, and is not delivered again. If every job before it is done too, the
    /// position is stored and is durable on return, or after [`WorkQueueOptions::commit_every`]
    /// jobs. Workers at the same time share a sync.
    ///
    /// # Errors
    ///
    /// `LeaseExpired` if another worker has the job by now, it was handed to the dead letters, or
    /// the record was cut out of the log. As [`Consumer::commit`] if the position cannot be stored:
    /// the job may come again after a restart. `Closed`, `Poisoned`, `Forked`, `WouldDeadlock`: the
    /// job is given back.
    pub fn done(mut self) -> Result<()> {
        self.check()?;
        reentrancy::check_may_wait()?;
        self.settled = true;
        let Leased { lsn, token, .. } = self.leased;
        self.queue.change(|leases| leases.finish(lsn, token)).map_err(|_| self.expired())?;
        self.queue.commit_if_due()
    }

    /// Gives the job back. It is delivered again after [`WorkQueueOptions::retry_delay`], or handed
    /// to the dead letters. Does nothing if the lease has ended and another worker has the job.
    pub fn retry(self) {
        drop(self);
    }

    /// Gives the job back. It is delivered again after `delay`, or handed to the dead letters: see
    /// [`Job::retry`].
    pub fn retry_after(mut self, delay: Duration) {
        self.give_back(delay);
    }

    /// Gives the job up: the dead letters get it now. Without dead letters it is done.
    ///
    /// # Errors
    ///
    /// `LeaseExpired`, `Closed`, `Poisoned`, `Forked`.
    pub fn fail(mut self) -> Result<()> {
        self.check()?;
        self.settled = true;
        let Leased { lsn, token, .. } = self.leased;
        self.queue.change(|leases| leases.give_up(lsn, token)).map_err(|_| self.expired())?;
        self.queue.bury();
        Ok(())
    }

    /// Begins a lease of this length now, in place of what was left of the last one.
    ///
    /// # Errors
    ///
    /// `LeaseExpired` if another worker has the job by now; `Closed`, `Poisoned`, `Forked`.
    pub fn extend(&mut self, lease: Duration) -> Result<()> {
        self.check()?;
        let until = self.queue.after(lease);
        let Leased { lsn, token, .. } = self.leased;
        let extended = lock(&self.queue.leases).extend(lsn, token, until);
        extended.map_err(|_| self.expired())
    }

    fn check(&self) -> Result<()> {
        self.queue.state.durable.check_running()
    }

    fn expired(&self) -> Error {
        Error::LeaseExpired { lsn: self.lsn() }
    }

    fn give_back(&mut self, delay: Duration) {
        if std::mem::replace(&mut self.settled, true) || self.queue.state.durable.is_forked() {
            return;
        }
        let at = self.queue.after(delay);
        let Leased { lsn, token, .. } = self.leased;
        let given = self.queue.change(|leases| leases.give_back(lsn, token, at));
        if given.is_ok() {
            self.queue.bury();
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.give_back(self.queue.options.retry_delay);
    }
}
