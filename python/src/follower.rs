//! Followers and consumers: durable records, and then those that come.
//!
//! A wait is cut into slices, so that a signal, such as the interrupt of the keyboard, ends it.

use std::sync::{Mutex, MutexGuard, TryLockError, Weak};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyList;
use ringwal::{Consumer as LogConsumer, Error, Follow, Lsn, ReadOnlyFollow, Result};

use crate::arguments::{time, timeout};
use crate::errors::{in_use, raise};
use crate::event_loop::running_loop;
use crate::future::LogFuture;
use crate::log::OpenLog;
use crate::records::{Form, Rest, Run, generator};

/// The longest wait that no signal ends.
const SLICE: Duration = Duration::from_millis(100);

/// Records in a run of a source that delivers them one by one.
const RUN_OF_SINGLES: usize = 256;

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

/// A follower of another process's log. It never ends: another writer may open the log.
impl Followed for ReadOnlyFollow {
    fn next_run(&mut self, timeout: Duration) -> Result<Option<Run>> {
        let Some(first) = self.next_timeout(timeout)? else { return Ok(None) };
        let mut run = vec![first.to_record()];
        while run.len() < RUN_OF_SINGLES
            && let Some(record) = self.try_next()?
        {
            run.push(record.to_record());
        }
        Ok(Some(Run::Owned(run.into_iter())))
    }

    fn has_ended(&mut self) -> bool {
        false
    }
}

struct FollowState<F> {
    source: F,
    rest: Rest,
}

fn state_of<'a, F>(
    state: &'a Mutex<FollowState<F>>,
    what: &str,
) -> PyResult<MutexGuard<'a, FollowState<F>>> {
    match state.try_lock() {
        Ok(state) => Ok(state),
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => Err(in_use(what)),
    }
}

impl<F: Followed> FollowState<F> {
    fn new(source: F) -> Self {
        FollowState { source, rest: Rest::default() }
    }

    /// Waits for the next run, for ever without a timeout. False: none came in time, or the log was
    /// closed.
    fn wait(&mut self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<bool> {
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
            if has_ended || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
        }
    }

    fn wait_run<'py>(
        &mut self,
        py: Python<'py>,
        timeout: Option<Duration>,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        loop {
            if let Some(list) = self.rest.next_list(py, Form::Object)? {
                return Ok(Some(list));
            }
            if !self.wait(py, timeout)? {
                return Ok(None);
            }
        }
    }

    fn wait_record<'py>(
        &mut self,
        py: Python<'py>,
        timeout: Option<Duration>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        loop {
            if let Some(record) = self.rest.next(py, Form::Object)? {
                return Ok(Some(record));
            }
            if !self.wait(py, timeout)? {
                return Ok(None);
            }
        }
    }

    /// For the generators of asyncio. `take` takes something of what was read.
    fn poll<'py, T>(
        &mut self,
        py: Python<'py>,
        log: &Weak<OpenLog>,
        take: impl Fn(&mut Rest) -> PyResult<Option<Bound<'py, T>>>,
    ) -> PyResult<Polled<'py, T>> {
        loop {
            if let Some(taken) = take(&mut self.rest)? {
                return Ok((Some(taken), None));
            }
            let log = log.upgrade();
            // Read before the look: a record that becomes durable after it is above this end.
            let end = log.as_ref().map(|log| log.wal.durable_end());
            if self.wait(py, Some(Duration::ZERO))? {
                continue;
            }
            let (Some(log), Some(end)) = (log, end) else { return Ok((None, None)) };
            if self.source.has_ended() {
                return Ok((None, None));
            }
            return match log.hub(&running_loop(py)?)? {
                Ok(hub) => Ok((None, Some(hub.when_passed(py, end.as_u64())?))),
                Err(Error::Closed) => Ok((None, None)),
                Err(error) => Err(raise(error)),
            };
        }
    }

    fn poll_run<'py>(
        &mut self,
        py: Python<'py>,
        log: &Weak<OpenLog>,
    ) -> PyResult<Polled<'py, PyList>> {
        self.poll(py, log, |rest| rest.next_list(py, Form::Object))
    }

    fn poll_record<'py>(
        &mut self,
        py: Python<'py>,
        log: &Weak<OpenLog>,
    ) -> PyResult<Polled<'py, PyAny>> {
        self.poll(py, log, |rest| rest.next(py, Form::Object))
    }
}

/// What a follower follows.
enum FollowSource {
    Inside(Follow),
    Outside(ReadOnlyFollow),
}

impl Followed for FollowSource {
    fn next_run(&mut self, timeout: Duration) -> Result<Option<Run>> {
        match self {
            FollowSource::Inside(follow) => follow.next_run(timeout),
            FollowSource::Outside(follow) => follow.next_run(timeout),
        }
    }

    fn has_ended(&mut self) -> bool {
        match self {
            FollowSource::Inside(follow) => Followed::has_ended(follow),
            FollowSource::Outside(follow) => Followed::has_ended(follow),
        }
    }
}

/// Reads durable records, then waits for more.
///
/// An iterator of records that waits, and that ends when the log is closed. On an event loop, use
/// `async for`.
#[pyclass(frozen, module = "ringwal")]
pub(crate) struct Follower {
    state: Mutex<FollowState<FollowSource>>,
    log: Weak<OpenLog>,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("log", &self.log).finish_non_exhaustive()
    }
}

impl Follower {
    pub(crate) fn inside(follow: Follow, log: Weak<OpenLog>) -> Self {
        let state = FollowState::new(FollowSource::Inside(follow));
        Follower { state: Mutex::new(state), log }
    }

    pub(crate) fn outside(follow: ReadOnlyFollow) -> Self {
        let state = FollowState::new(FollowSource::Outside(follow));
        Follower { state: Mutex::new(state), log: Weak::new() }
    }
}

#[pymethods]
impl Follower {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        state_of(&self.state, "follower")?.wait_record(py, None)
    }

    /// The next record. None if none came in time, or if the log was closed.
    #[pyo3(signature = (timeout=None))]
    fn next<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let timeout = self::timeout(timeout)?;
        state_of(&self.state, "follower")?.wait_record(py, timeout)
    }

    /// The next records that were read together, at most 512, as a list. None if none came in
    /// time, or if the log was closed.
    #[pyo3(signature = (timeout=None))]
    fn next_run<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let timeout = self::timeout(timeout)?;
        state_of(&self.state, "follower")?.wait_run(py, timeout)
    }

    /// Whether the log was closed and every record was delivered.
    fn has_ended(&self) -> PyResult<bool> {
        Ok(state_of(&self.state, "follower")?.source.has_ended())
    }

    /// Bytes of the log from this follower to the durable end.
    fn lag(&self) -> PyResult<u64> {
        Ok(match &state_of(&self.state, "follower")?.source {
            FollowSource::Inside(follow) => follow.lag(),
            FollowSource::Outside(follow) => follow.lag(),
        })
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
        state_of(&self.state, "follower")?.poll_run(py, &self.log)
    }

    fn _poll_record<'py>(&self, py: Python<'py>) -> PyResult<Polled<'py, PyAny>> {
        state_of(&self.state, "follower")?.poll_record(py, &self.log)
    }

    fn __repr__(&self) -> String {
        match self.lag() {
            Ok(lag) => format!("<ringwal.Follower lag={lag}>"),
            Err(_) => "<ringwal.Follower in use>".to_owned(),
        }
    }
}

impl Follower {
    fn check_inside(&self) -> PyResult<()> {
        match state_of(&self.state, "follower")?.source {
            FollowSource::Inside(_) => Ok(()),
            FollowSource::Outside(_) => Err(pyo3::exceptions::PyTypeError::new_err(
                "a follower of another process's log is no asynchronous iterator: use asyncio.to_thread",
            )),
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
    /// `None`: detached.
    state: Mutex<Option<FollowState<LogConsumer>>>,
    log: Weak<OpenLog>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Consumer {
    pub(crate) fn new(name: String, consumer: LogConsumer, log: Weak<OpenLog>) -> Self {
        Consumer { name, state: Mutex::new(Some(FollowState::new(consumer))), log }
    }

    fn with<T>(
        &self,
        call: impl FnOnce(&mut FollowState<LogConsumer>) -> PyResult<T>,
    ) -> PyResult<T> {
        let mut held = match self.state.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(in_use("consumer")),
        };
        match &mut *held {
            Some(state) => call(state),
            None => Err(raise(Error::NoConsumer { name: self.name.clone() })),
        }
    }

    /// A call that writes to the disk, detached.
    fn store(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&mut LogConsumer) -> Result<()> + Send,
    ) -> PyResult<()> {
        self.with(|state| {
            let source = &mut state.source;
            py.detach(|| call(source)).map_err(raise)
        })
    }
}

#[pymethods]
impl Consumer {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.with(|state| state.wait_record(py, None))
    }

    /// The next record. None if none came in time, or if the log was closed.
    #[pyo3(signature = (timeout=None))]
    fn next<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let timeout = self::timeout(timeout)?;
        self.with(|state| state.wait_record(py, timeout))
    }

    /// The next records that were read together, at most 512, as a list. None if none came in
    /// time, or if the log was closed.
    #[pyo3(signature = (timeout=None))]
    fn next_run<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let timeout = self::timeout(timeout)?;
        self.with(|state| state.wait_run(py, timeout))
    }

    /// Commits the record at `lsn` and every record before it, durably: they are not delivered
    /// again. It costs a write and a sync, so commit every so many records.
    #[pyo3(signature = (lsn, /))]
    fn commit(&self, py: Python<'_>, lsn: u64) -> PyResult<()> {
        self.store(py, |consumer| consumer.commit(Lsn::new(lsn)))
    }

    /// Commits every record below `lsn`, durably.
    #[pyo3(signature = (lsn, /))]
    fn commit_before(&self, py: Python<'_>, lsn: u64) -> PyResult<()> {
        self.store(py, |consumer| consumer.commit_before(Lsn::new(lsn)))
    }

    /// Commits the records that the filter has skipped, and returns the position.
    fn commit_skipped(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(|state| {
            let source = &mut state.source;
            py.detach(|| source.commit_skipped()).map(Lsn::as_u64).map_err(raise)
        })
    }

    /// Moves the position to the first record at or after `lsn`, forwards or backwards, durably.
    #[pyo3(signature = (lsn, /))]
    fn seek(&self, py: Python<'_>, lsn: u64) -> PyResult<()> {
        self.with(|state| {
            state.rest.clear();
            Ok(())
        })?;
        self.store(py, |consumer| consumer.seek(Lsn::new(lsn)))
    }

    /// Moves the position to the record with this number.
    #[pyo3(signature = (ordinal, /))]
    fn seek_ordinal(&self, py: Python<'_>, ordinal: u64) -> PyResult<()> {
        self.with(|state| {
            state.rest.clear();
            Ok(())
        })?;
        self.store(py, |consumer| consumer.seek_ordinal(ordinal))
    }

    /// Moves the position to the first record that was written at or after a time: seconds since
    /// 1970, or a `datetime`.
    #[pyo3(signature = (time, /))]
    fn seek_time(&self, py: Python<'_>, time: &Bound<'_, PyAny>) -> PyResult<()> {
        let time = self::time(time)?;
        self.with(|state| {
            state.rest.clear();
            Ok(())
        })?;
        self.store(py, |consumer| consumer.seek_time(time))
    }

    /// The position: every record below it is committed.
    fn position(&self) -> PyResult<u64> {
        self.with(|state| Ok(state.source.position().as_u64()))
    }

    /// Bytes of the log from the position to the durable end.
    fn lag(&self) -> PyResult<u64> {
        self.with(|state| Ok(state.source.lag()))
    }

    /// Whether no durable record is left to commit.
    fn is_caught_up(&self) -> PyResult<bool> {
        self.with(|state| Ok(state.source.is_caught_up()))
    }

    /// Whether the log was closed and every record was delivered.
    fn has_ended(&self) -> PyResult<bool> {
        self.with(|state| Ok(Followed::has_ended(&mut state.source)))
    }

    /// The name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// Detaches the consumer. Its position stays in the log.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let held = match self.state.try_lock() {
            Ok(mut held) => held.take(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
            Err(TryLockError::WouldBlock) => return Err(in_use("consumer")),
        };
        if let Some(FollowState { source, rest }) = held {
            drop(rest);
            py.detach(|| drop(source));
        }
        Ok(())
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) -> PyResult<()> {
        self.close(py)
    }

    fn __aiter__<'py>(this: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        generator(this.as_any(), false)
    }

    /// Iterates over lists of records that were read together, with `async for`.
    fn runs_async<'py>(this: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        generator(this.as_any(), true)
    }

    fn _poll_run<'py>(&self, py: Python<'py>) -> PyResult<Polled<'py, PyList>> {
        self.with(|state| state.poll_run(py, &self.log))
    }

    fn _poll_record<'py>(&self, py: Python<'py>) -> PyResult<Polled<'py, PyAny>> {
        self.with(|state| state.poll_record(py, &self.log))
    }

    fn __repr__(&self) -> String {
        match self.position() {
            Ok(position) => format!("<ringwal.Consumer {:?} position={position}>", self.name),
            Err(_) => format!("<ringwal.Consumer {:?}>", self.name),
        }
    }
}
