//! Followers and consumers: durable records, and then those that come.
//!
//! 1. A wait is cut into slices, so that a signal, such as the interrupt of the keyboard, ends it.
//! 2. A close while another call waits, in another thread or outside of a signal's handler, ends
//!    that call's wait, and that call drops what it has.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, Weak};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyList;
use ringwal::{Consumer as LogConsumer, Error, Follow, Lsn, ReadOnlyFollow, RecordRef, Result};

use crate::arguments::{time, timeout};
use crate::ending::begins;
use crate::errors::{closed_consumer, raise};
use crate::future::LogFuture;
use crate::log::{OpenLog, try_locked};
use crate::records::{Form, Rest, Run, Singles, generator};

/// The longest wait that no signal ends.
const SLICE: Duration = Duration::from_millis(100);

/// What was read, or the future after which to look again, or neither at the end.
type Polled<'py, T> = (Option<Bound<'py, T>>, Option<Bound<'py, LogFuture>>);

/// What is followed.
trait Followed: Send {
    /// The next run. `None` if none came in time, or if the log was closed.
    fn next_run(&mut self, timeout: Duration) -> Result<Option<Run>>;
    fn has_ended(&mut self) -> bool;
}

impl Followed for Follow {
    fn next_run(&mut self, timeout: Duration) -> Result<Option<Run>> {
        Ok(self.next_shared_timeout(timeout)?.map(Run::Shared))
    }

    fn has_ended(&mut self) -> bool {
        Follow::has_ended(self)
    }
}

impl Followed for LogConsumer {
    fn next_run(&mut self, timeout: Duration) -> Result<Option<Run>> {
        self.records()?.next_run(timeout)
    }

    fn has_ended(&mut self) -> bool {
        self.records().is_ok_and(|follow| follow.has_ended())
    }
}

/// A follower of another process's log.
struct Outside {
    follow: ReadOnlyFollow,
    singles: Singles,
    /// After an error. The end of its writer is none: another one may open the log.
    has_ended: bool,
}

impl Followed for Outside {
    fn next_run(&mut self, timeout: Duration) -> Result<Option<Run>> {
        let Outside { follow, singles, has_ended } = self;
        let owned = |record: Result<Option<RecordRef<'_>>>| {
            record.map(|record| record.map(|record| record.to_record())).transpose()
        };
        let first = owned(follow.next_timeout(timeout));
        let more = std::iter::from_fn(|| owned(follow.try_next()));
        let run = singles.next_run(first.into_iter().chain(more));
        // After one of the other two it goes on.
        *has_ended |= match &run {
            Ok(_) | Err(Error::WouldDeadlock | Error::Reentrant) => false,
            Err(_) => true,
        };
        run
    }

    fn has_ended(&mut self) -> bool {
        self.has_ended
    }
}

struct FollowState<F> {
    source: F,
    rest: Rest,
}

/// The state of a follower or a consumer, which a call holds while it waits.
struct Shared<F> {
    /// `None`: closed.
    state: Mutex<Option<FollowState<F>>>,
    is_closed: AtomicBool,
    what: &'static str,
}

impl<F: Followed> Shared<F> {
    fn new(source: F, what: &'static str) -> Self {
        let state = Mutex::new(Some(FollowState { source, rest: Rest::default() }));
        Shared { state, is_closed: AtomicBool::new(false), what }
    }

    /// `None`: it was closed.
    fn with<T>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&mut FollowState<F>, &AtomicBool) -> PyResult<T>,
    ) -> PyResult<Option<T>> {
        let mut held = try_locked(&self.state, self.what)?;
        let result = held.as_mut().map(|state| call(state, &self.is_closed)).transpose();
        drop(held);
        if self.is_closed.load(Relaxed) {
            self.close(py);
        }
        result
    }

    fn close(&self, py: Python<'_>) {
        self.is_closed.store(true, Relaxed);
        // A call that has it drops it when it ends.
        if let Ok(mut held) = try_locked(&self.state, self.what) {
            let state = held.take();
            drop(held);
            if let Some(FollowState { source, rest }) = state {
                drop(rest);
                py.detach(|| drop(source));
            }
        }
    }
}

impl<F: Followed> FollowState<F> {
    /// Waits for the next run, for ever without a timeout. False: none came in time, or the log or
    /// this was closed.
    fn wait(
        &mut self,
        py: Python<'_>,
        timeout: Option<Duration>,
        is_closed: &AtomicBool,
    ) -> PyResult<bool> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map_or(SLICE, |deadline| {
                deadline.saturating_duration_since(Instant::now()).min(SLICE)
            });
            let source = &mut self.source;
            let (run, has_ended) = py.detach(|| (source.next_run(left), source.has_ended()));
            if let Some(run) = run.map_err(raise)? {
                self.rest.set(run);
                return Ok(true);
            }
            py.check_signals()?;
            let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if has_ended || is_late || is_closed.load(Relaxed) || begins() {
                return Ok(false);
            }
        }
    }

    /// What `take` takes of the records that were read, or of the next run.
    fn take<T>(
        &mut self,
        py: Python<'_>,
        timeout: Option<Duration>,
        is_closed: &AtomicBool,
        take: impl Fn(&mut Rest) -> PyResult<Option<T>>,
    ) -> PyResult<Option<T>> {
        loop {
            if let Some(taken) = take(&mut self.rest)? {
                return Ok(Some(taken));
            }
            if !self.wait(py, timeout, is_closed)? {
                return Ok(None);
            }
        }
    }

    /// Whether no record follows those that were delivered.
    fn has_ended(&mut self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.rest.is_empty(py)? && self.source.has_ended())
    }

    /// For the generators of asyncio. `take` takes something of what was read.
    fn poll<'py, T>(
        &mut self,
        py: Python<'py>,
        log: &Weak<OpenLog>,
        is_closed: &AtomicBool,
        take: impl Fn(&mut Rest) -> PyResult<Option<Bound<'py, T>>>,
    ) -> PyResult<Polled<'py, T>> {
        loop {
            if let Some(taken) = take(&mut self.rest)? {
                return Ok((Some(taken), None));
            }
            let log = log.upgrade();
            // Read before the look: a record that becomes durable after it is above this end.
            let end = log.as_ref().map(|log| log.wal.durable_end());
            if self.wait(py, Some(Duration::ZERO), is_closed)? {
                continue;
            }
            let (Some(log), Some(end)) = (log, end) else { return Ok((None, None)) };
            if self.source.has_ended() {
                return Ok((None, None));
            }
            return match log.running_hub(py)? {
                Ok(hub) => Ok((None, Some(hub.when_passed(py, end.as_u64())?))),
                Err((_, Error::Closed)) => Ok((None, None)),
                Err((_, error)) => Err(raise(error)),
            };
        }
    }
}

impl<F: Followed> Shared<F> {
    /// The next record. The inner `None` is the end of the timeout or of the log.
    fn record<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<Duration>,
    ) -> PyResult<Option<Option<Bound<'py, PyAny>>>> {
        self.with(py, |state, is_closed| {
            state.take(py, timeout, is_closed, |rest| rest.next(py, Form::Object))
        })
    }

    fn run<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<Duration>,
    ) -> PyResult<Option<Option<Bound<'py, PyList>>>> {
        self.with(py, |state, is_closed| {
            state.take(py, timeout, is_closed, |rest| rest.next_list(py, Form::Object))
        })
    }

    fn poll_run<'py>(&self, py: Python<'py>, log: &Weak<OpenLog>) -> PyResult<Polled<'py, PyList>> {
        let polled = self.with(py, |state, is_closed| {
            state.poll(py, log, is_closed, |rest| rest.next_list(py, Form::Object))
        })?;
        Ok(polled.unwrap_or_default())
    }

    fn poll_record<'py>(
        &self,
        py: Python<'py>,
        log: &Weak<OpenLog>,
    ) -> PyResult<Polled<'py, PyAny>> {
        let polled = self.with(py, |state, is_closed| {
            state.poll(py, log, is_closed, |rest| rest.next(py, Form::Object))
        })?;
        Ok(polled.unwrap_or_default())
    }
}

/// What a follower follows.
enum FollowSource {
    Inside(Follow),
    Outside(Outside),
}

impl Followed for FollowSource {
    fn next_run(&mut self, timeout: Duration) -> Result<Option<Run>> {
        match self {
            FollowSource::Inside(follow) => follow.next_run(timeout),
            FollowSource::Outside(outside) => outside.next_run(timeout),
        }
    }

    fn has_ended(&mut self) -> bool {
        match self {
            FollowSource::Inside(follow) => Followed::has_ended(follow),
            FollowSource::Outside(outside) => outside.has_ended,
        }
    }
}

/// Reads durable records, then waits for more.
///
/// An iterator of records that waits, and that ends when the log is closed. On an event loop, use
/// `async for`. A context manager that ends it.
#[pyclass(frozen, module = "ringwal")]
pub(crate) struct Follower {
    shared: Shared<FollowSource>,
    is_outside: bool,
    log: Weak<OpenLog>,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("log", &self.log).finish_non_exhaustive()
    }
}

impl Follower {
    pub(crate) fn inside(follow: Follow, log: Weak<OpenLog>) -> Self {
        let shared = Shared::new(FollowSource::Inside(follow), "follower");
        Follower { shared, is_outside: false, log }
    }

    pub(crate) fn outside(follow: ReadOnlyFollow) -> Self {
        let outside = Outside { follow, singles: Singles::default(), has_ended: false };
        let shared = Shared::new(FollowSource::Outside(outside), "follower");
        Follower { shared, is_outside: true, log: Weak::new() }
    }

    fn check_inside(&self) -> PyResult<()> {
        if self.is_outside {
            return Err(pyo3::exceptions::PyTypeError::new_err(
                "a follower of another process's log is no asynchronous iterator: use \
                 asyncio.to_thread",
            ));
        }
        Ok(())
    }
}

#[pymethods]
impl Follower {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.shared.record(py, None).map(Option::flatten)
    }

    /// The next record. None if none came in time, or if the log or this was closed.
    #[pyo3(signature = (timeout=None))]
    fn next<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.shared.record(py, self::timeout(timeout)?).map(Option::flatten)
    }

    /// The next records that were read together, at most 512, as a list. None if none came in
    /// time, or if the log or this was closed.
    #[pyo3(signature = (timeout=None))]
    fn next_run<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        self.shared.run(py, self::timeout(timeout)?).map(Option::flatten)
    }

    /// Whether no record follows: the log was closed and every record was delivered, this was
    /// closed, or a read has failed.
    fn has_ended(&self, py: Python<'_>) -> PyResult<bool> {
        let has_ended = self.shared.with(py, |state, _| state.has_ended(py))?;
        Ok(has_ended.unwrap_or(true))
    }

    /// Bytes of the log from the records that were read together last to the durable end.
    fn lag(&self, py: Python<'_>) -> PyResult<u64> {
        let lag = self.shared.with(py, |state, _| {
            Ok(match &state.source {
                FollowSource::Inside(follow) => follow.lag(),
                FollowSource::Outside(outside) => outside.follow.lag(),
            })
        })?;
        Ok(lag.unwrap_or_default())
    }

    /// Ends it. A call of another thread that waits for a record ends within 0.1 seconds.
    fn close(&self, py: Python<'_>) {
        self.shared.close(py);
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.close(py);
    }

    fn __aiter__<'py>(this: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        this.get().check_inside()?;
        generator(this.as_any(), false)
    }

    /// Iterates over lists of records that were read together, with `async for`.
    fn runs_async<'py>(this: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        this.get().check_inside()?;
        generator(this.as_any(), true)
    }

    fn _poll_run<'py>(&self, py: Python<'py>) -> PyResult<Polled<'py, PyList>> {
        self.shared.poll_run(py, &self.log)
    }

    fn _poll_record<'py>(&self, py: Python<'py>) -> PyResult<Polled<'py, PyAny>> {
        self.shared.poll_record(py, &self.log)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        match self.lag(py) {
            _ if self.shared.is_closed.load(Relaxed) => "<ringwal.Follower closed>".to_owned(),
            Ok(lag) => format!("<ringwal.Follower lag={lag}>"),
            Err(_) => "<ringwal.Follower in use>".to_owned(),
        }
    }
}

/// A reader under a name, with a position that survives: it delivers the records after its last
/// commit, also after a restart.
///
/// An iterator of records that waits, and that ends when the log is closed. On an event loop, use
/// `async for`. A context manager that detaches it; its position stays.
#[pyclass(frozen, module = "ringwal")]
pub(crate) struct Consumer {
    name: String,
    shared: Shared<LogConsumer>,
    log: Weak<OpenLog>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Consumer {
    pub(crate) fn new(name: String, consumer: LogConsumer, log: Weak<OpenLog>) -> Self {
        Consumer { name, shared: Shared::new(consumer, "consumer"), log }
    }

    /// What a call has returned. `None`: the consumer is closed.
    fn open<T>(&self, py: Python<'_>, result: Option<T>) -> PyResult<T> {
        result.ok_or_else(|| closed_consumer(py, &self.name))
    }

    fn with<T>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&mut FollowState<LogConsumer>) -> PyResult<T>,
    ) -> PyResult<T> {
        let result = self.shared.with(py, |state, _| call(state))?;
        self.open(py, result)
    }

    /// Commits, detached. What was read and is committed now is not delivered.
    fn commit_by<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&mut LogConsumer) -> Result<T> + Send,
    ) -> PyResult<T> {
        self.with(py, |FollowState { source, rest }| {
            let committed = py.detach(|| call(source)).map_err(raise)?;
            rest.skip_below(py, source.position().as_u64())?;
            Ok(committed)
        })
    }

    /// Moves the position, detached. What was read before is not delivered then.
    fn seek_by(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&mut LogConsumer) -> Result<()> + Send,
    ) -> PyResult<()> {
        self.with(py, |FollowState { source, rest }| {
            py.detach(|| call(source)).map_err(raise)?;
            rest.clear();
            Ok(())
        })
    }
}

#[pymethods]
impl Consumer {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let record = self.shared.record(py, None)?;
        self.open(py, record)
    }

    /// The next record. None if none came in time, or if the log was closed.
    #[pyo3(signature = (timeout=None))]
    fn next<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let record = self.shared.record(py, self::timeout(timeout)?)?;
        self.open(py, record)
    }

    /// The next records that were read together, at most 512, as a list. None if none came in
    /// time, or if the log was closed.
    #[pyo3(signature = (timeout=None))]
    fn next_run<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let run = self.shared.run(py, self::timeout(timeout)?)?;
        self.open(py, run)
    }

    /// Commits the record at `lsn` and every record before it, durably: they are not delivered
    /// again. It costs a write and a sync, so commit every so many records.
    #[pyo3(signature = (lsn, /))]
    fn commit(&self, py: Python<'_>, lsn: u64) -> PyResult<()> {
        self.commit_by(py, |consumer| consumer.commit(Lsn::new(lsn)))
    }

    /// Commits every record below `lsn`, durably.
    #[pyo3(signature = (lsn, /))]
    fn commit_before(&self, py: Python<'_>, lsn: u64) -> PyResult<()> {
        self.commit_by(py, |consumer| consumer.commit_before(Lsn::new(lsn)))
    }

    /// Commits the records that the filter has skipped, and returns the position.
    fn commit_skipped(&self, py: Python<'_>) -> PyResult<u64> {
        self.commit_by(py, LogConsumer::commit_skipped).map(Lsn::as_u64)
    }

    /// Moves the position to the first record at or after `lsn`, forwards or backwards, durably.
    #[pyo3(signature = (lsn, /))]
    fn seek(&self, py: Python<'_>, lsn: u64) -> PyResult<()> {
        self.seek_by(py, |consumer| consumer.seek(Lsn::new(lsn)))
    }

    /// Moves the position to the record with this number.
    #[pyo3(signature = (ordinal, /))]
    fn seek_ordinal(&self, py: Python<'_>, ordinal: u64) -> PyResult<()> {
        self.seek_by(py, |consumer| consumer.seek_ordinal(ordinal))
    }

    /// Moves the position to the first record that was written at or after a time: seconds since
    /// 1970, or a `datetime`.
    #[pyo3(signature = (time, /))]
    fn seek_time(&self, py: Python<'_>, time: &Bound<'_, PyAny>) -> PyResult<()> {
        let time = self::time(time)?;
        self.seek_by(py, |consumer| consumer.seek_time(time))
    }

    /// The position: every record below it is committed.
    fn position(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |state| Ok(state.source.position().as_u64()))
    }

    /// Bytes of the log from the position to the durable end.
    fn lag(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |state| Ok(state.source.lag()))
    }

    /// Whether no durable record is left to commit.
    fn is_caught_up(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |state| Ok(state.source.is_caught_up()))
    }

    /// Whether the log was closed and every record was delivered.
    fn has_ended(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |state| state.has_ended(py))
    }

    /// The name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// Detaches the consumer. Its position stays in the log. If a call of another thread waits for
    /// a record, that call ends within 0.1 seconds, and the consumer is detached then.
    fn close(&self, py: Python<'_>) {
        self.shared.close(py);
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.close(py);
    }

    fn __aiter__<'py>(this: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        generator(this.as_any(), false)
    }

    /// Iterates over lists of records that were read together, with `async for`.
    fn runs_async<'py>(this: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        generator(this.as_any(), true)
    }

    fn _poll_run<'py>(&self, py: Python<'py>) -> PyResult<Polled<'py, PyList>> {
        self.shared.poll_run(py, &self.log)
    }

    fn _poll_record<'py>(&self, py: Python<'py>) -> PyResult<Polled<'py, PyAny>> {
        self.shared.poll_record(py, &self.log)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        match self.position(py) {
            Ok(position) => format!("<ringwal.Consumer {:?} position={position}>", self.name),
            Err(_) => format!("<ringwal.Consumer {:?}>", self.name),
        }
    }
}
