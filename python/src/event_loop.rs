//! The hub of an event loop: one durable listener for everything that the loop awaits of a log.
//!
//! 1. The hub is used on the thread of its loop. The log's threads have only its `Signal`.
//! 2. The waiters are ordered by position, and those of one position by their arrival.
//! 3. While appends wait for room, a later append of the loop queues after them: the log has the
//!    records of a loop in the order of its calls.
//! 4. While the hub drains, its loop runs on this thread. So the tasks that it steps find it in
//!    `DRAINING`, and need not ask for the running loop: before Python 3.12 that is a system call.
//! 5. While the hub drains, `lowest_awaited` is `NONE_AWAITED`, so that the I/O thread rings for
//!    nothing. At the end the hub sets it, and then looks at the durable end once more.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use pyo3::exceptions::PyNotImplementedError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;
use ringwal::{AppendOwnedFuture, DurableEndListener, Error, Lsn};

use crate::ending::PythonCall;
use crate::errors::exception;
use crate::future::{LogFuture, Outcome};
use crate::log::{OpenLog, locked};
use crate::signal::{Bell, BellState, NONE_AWAITED, Signal};

/// What a task awaits after its append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    Appended,
    Durable,
}

/// An append that waits for room.
#[derive(Debug)]
struct QueuedAppend {
    future: Py<LogFuture>,
    payload: Py<PyBytes>,
    tag: Option<u64>,
    until: Until,
}

#[derive(Debug)]
struct Waiter {
    lsn: u64,
    future: Py<LogFuture>,
    /// What the future gets. `None`: nothing but the news.
    result: Option<u64>,
}

#[derive(Debug, Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    appends: VecDeque<QueuedAppend>,
    /// The append at the front, while it waits for room.
    polled: Option<AppendOwnedFuture>,
    is_draining: bool,
}

/// Everything that one event loop awaits of one log.
pub(crate) struct Hub {
    event_loop: Py<PyAny>,
    signal: Arc<Signal>,
    waker: Waker,
    wal: WalRef,
    queue: Mutex<Queue>,
    listener: Mutex<Option<DurableEndListener>>,
}

/// The log, without keeping it open.
type WalRef = std::sync::Weak<OpenLog>;

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("signal", &self.signal).finish_non_exhaustive()
    }
}

/// The callback that an event loop calls when something that it awaits may have happened.
#[pyclass(frozen, name = "_Drain", module = "ringwal")]
#[derive(Debug)]
pub(crate) struct Drain {
    hub: Arc<Hub>,
}

#[pymethods]
impl Drain {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.hub.drain(py)
    }

    fn __repr__(&self) -> &'static str {
        "<ringwal durable listener>"
    }
}

static RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The event loop that runs on this thread.
fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    RUNNING_LOOP.import(py, "asyncio", "get_running_loop")?.call0()
}

/// A future that has failed with an error of the log.
pub(crate) fn failed<'py>(
    event_loop: &Bound<'py, PyAny>,
    error: &Error,
) -> PyResult<Bound<'py, LogFuture>> {
    done(event_loop, Outcome::Failed(exception(event_loop.py(), error)?.unbind()))
}

/// A future that is done.
pub(crate) fn done<'py>(
    event_loop: &Bound<'py, PyAny>,
    outcome: Outcome,
) -> PyResult<Bound<'py, LogFuture>> {
    Bound::new(event_loop.py(), LogFuture::new(event_loop, Some(outcome)))
}

thread_local! {
    /// The hub that drains on this thread.
    static DRAINING: RefCell<Option<Arc<Hub>>> = const { RefCell::new(None) };
}

impl OpenLog {
    /// The hub of the running loop, or the error of the log and that loop.
    pub(crate) fn running_hub<'py>(self: &Arc<Self>, py: Python<'py>) -> PyResult<Running<'py>> {
        let draining = DRAINING.with_borrow(|hub| {
            hub.as_ref().filter(|hub| std::ptr::eq(hub.wal.as_ptr(), &**self)).cloned()
        });
        if let Some(hub) = draining {
            return Ok(Ok(hub));
        }
        let event_loop = running_loop(py)?;
        Ok(self.hub(&event_loop)?.map_err(|error| (event_loop, error)))
    }

    /// The hub of a loop. Makes one at the first call, and removes those of closed loops then.
    fn hub(self: &Arc<Self>, event_loop: &Bound<'_, PyAny>) -> PyResult<HubOrError> {
        let known = locked(&self.hubs)
            .iter()
            .find(|hub| hub.event_loop.as_ptr() == event_loop.as_ptr())
            .cloned();
        if let Some(hub) = known {
            return Ok(Ok(hub));
        }
        let Some(_call) = PythonCall::begin() else { return Ok(Err(Error::Closed)) };
        let py = event_loop.py();
        let mut live = Vec::new();
        let hubs = locked(&self.hubs).clone();
        for hub in hubs {
            match hub.event_loop.bind(py).call_method0("is_closed")?.is_truthy()? {
                true => hub.signal.remove(),
                false => live.push(hub),
            }
        }
        let hub = match Hub::start(self, event_loop)? {
            Ok(hub) => hub,
            Err(error) => return Ok(Err(error)),
        };
        live.push(Arc::clone(&hub));
        let before = std::mem::replace(&mut *locked(&self.hubs), live);
        drop(before);
        Ok(Ok(hub))
    }
}

type HubOrError = ringwal::Result<Arc<Hub>>;
type Running<'py> = Result<Arc<Hub>, (Bound<'py, PyAny>, Error)>;

impl Hub {
    fn start(log: &Arc<OpenLog>, event_loop: &Bound<'_, PyAny>) -> PyResult<HubOrError> {
        let py = event_loop.py();
        #[cfg(unix)]
        {
            let (written, read) = std::os::unix::net::UnixStream::pair()?;
            written.set_nonblocking(true)?;
            read.set_nonblocking(true)?;
            let descriptor = std::os::fd::AsRawFd::as_raw_fd(&read);
            let started = Self::with_bell(log, event_loop, Bell::Socket { written, read })?;
            let hub = match started {
                Ok(hub) => hub,
                Err(error) => return Ok(Err(error)),
            };
            match event_loop.call_method1("add_reader", (descriptor, hub.callback(py)?)) {
                Ok(_) => return Ok(Ok(hub)),
                Err(e) if e.is_instance_of::<PyNotImplementedError>(py) => {}
                Err(e) => return Err(e),
            }
        }
        // Loops without readers: that of Windows, and others.
        let bell = Bell::Thread { state: Mutex::new(BellState::Silent), changed: Condvar::new() };
        let hub = match Self::with_bell(log, event_loop, bell)? {
            Ok(hub) => hub,
            Err(error) => return Ok(Err(error)),
        };
        let (signal, callback) = (Arc::clone(&hub.signal), hub.callback(py)?.unbind());
        let event_loop = event_loop.clone().unbind();
        let call_loop = move || {
            while signal.wait() {
                let called = Python::try_attach(|py| {
                    let _call = PythonCall::begin()?;
                    Some(event_loop.call_method1(py, "call_soon_threadsafe", (&callback,)).is_ok())
                });
                // The loop is closed, or the interpreter has ended.
                if called.flatten() != Some(true) {
                    break;
                }
            }
            Python::try_attach(|_| drop((event_loop, callback)));
        };
        std::thread::Builder::new().name("ringwal-asyncio".into()).spawn(call_loop)?;
        Ok(Ok(hub))
    }

    fn with_bell(
        log: &Arc<OpenLog>,
        event_loop: &Bound<'_, PyAny>,
        bell: Bell,
    ) -> PyResult<HubOrError> {
        let signal = Arc::new(Signal::new(bell));
        let reported = Arc::clone(&signal);
        let listener = match log.wal.on_durable_end(move |end| reported.report(end)) {
            Ok(listener) => listener,
            Err(error) => return Ok(Err(error)),
        };
        signal.raise_end(log.wal.durable_end());
        Ok(Ok(Arc::new(Hub {
            event_loop: event_loop.clone().unbind(),
            waker: Waker::from(Arc::clone(&signal)),
            signal,
            wal: Arc::downgrade(log),
            queue: Mutex::new(Queue::default()),
            listener: Mutex::new(Some(listener)),
        })))
    }

    /// Ends the thread of the bell, if it has one: the interpreter ends.
    pub(crate) fn end_bell(&self) {
        self.signal.remove();
    }

    /// What the loop calls. It keeps the hub, and so what is awaited, as long as the loop has it.
    fn callback<'py>(self: &Arc<Self>, py: Python<'py>) -> PyResult<Bound<'py, Drain>> {
        Bound::new(py, Drain { hub: Arc::clone(self) })
    }

    fn call_soon(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let Some(_call) = PythonCall::begin() else { return Ok(()) };
        let callback = self.callback(py)?;
        self.event_loop.bind(py).call_method1(intern!(py, "call_soon"), (callback,))?;
        Ok(())
    }

    fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, LogFuture>> {
        Bound::new(py, LogFuture::new(self.event_loop.bind(py), None))
    }

    /// Appends a record, and returns the future of its LSN.
    pub(crate) fn append<'py>(
        self: &Arc<Self>,
        log: &OpenLog,
        tag: Option<u64>,
        payload: &Bound<'py, PyBytes>,
        until: Until,
    ) -> PyResult<Bound<'py, LogFuture>> {
        let py = payload.py();
        let mut queue = locked(&self.queue);
        if queue.appends.is_empty() {
            match log.try_append(tag, payload.as_bytes()) {
                Ok(lsn) if until == Until::Durable => {
                    drop(queue);
                    return self.wait(py, log, lsn, Some(lsn.as_u64()));
                }
                Ok(lsn) => {
                    drop(queue);
                    return done(self.event_loop.bind(py), Outcome::Lsn(lsn.as_u64()));
                }
                Err(Error::RingFull) => {}
                Err(error) => {
                    drop(queue);
                    return failed(self.event_loop.bind(py), &error);
                }
            }
        }
        drop(queue);
        let future = self.future(py)?;
        let append = QueuedAppend {
            future: future.clone().unbind(),
            payload: payload.clone().unbind(),
            tag,
            until,
        };
        queue = locked(&self.queue);
        queue.appends.push_back(append);
        let is_first = queue.appends.len() == 1;
        drop(queue);
        if is_first {
            // Polled in the loop, with those that come until then.
            Wake::wake(Arc::clone(&self.signal));
        }
        Ok(future)
    }

    /// The future of a record's durability. Asks for a sync where the log needs to be asked.
    fn wait<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        log: &OpenLog,
        lsn: Lsn,
        result: Option<u64>,
    ) -> PyResult<Bound<'py, LogFuture>> {
        log.request_sync(lsn);
        let future = self.future(py)?;
        self.enter(py, lsn.as_u64(), result, future.clone().unbind())?;
        Ok(future)
    }

    /// The future of a position's durability: for `wait_durable_async`.
    pub(crate) fn when_durable<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        log: &OpenLog,
        lsn: Lsn,
    ) -> PyResult<Bound<'py, LogFuture>> {
        match log.ask_durable(lsn) {
            Poll::Pending => {
                let future = self.future(py)?;
                self.enter(py, lsn.as_u64(), None, future.clone().unbind())?;
                Ok(future)
            }
            Poll::Ready(Ok(())) => done(self.event_loop.bind(py), Outcome::Nothing),
            Poll::Ready(Err(error)) => failed(self.event_loop.bind(py), &error),
        }
    }

    /// A future that is done when the durable end has passed a position. Asks for no sync.
    pub(crate) fn when_passed<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        lsn: u64,
    ) -> PyResult<Bound<'py, LogFuture>> {
        let future = self.future(py)?;
        self.enter(py, lsn, None, future.clone().unbind())?;
        Ok(future)
    }

    /// Enters a waiter in its place.
    fn enter(
        self: &Arc<Self>,
        py: Python<'_>,
        lsn: u64,
        result: Option<u64>,
        future: Py<LogFuture>,
    ) -> PyResult<()> {
        let mut queue = locked(&self.queue);
        let waiters = &mut queue.waiters;
        let place = match waiters.back() {
            Some(last) if last.lsn > lsn => waiters.partition_point(|other| other.lsn <= lsn),
            _ => waiters.len(),
        };
        waiters.insert(place, Waiter { lsn, future, result });
        if place > 0 || queue.is_draining {
            return Ok(());
        }
        drop(queue);
        self.signal.await_above(lsn);
        // Perhaps it rang before. After the end of the log it rings no more.
        if self.signal.durable_end() > lsn || self.signal.error().is_some() {
            self.call_soon(py)?;
        }
        Ok(())
    }

    /// Settles what can be settled. In a callback of the loop.
    fn drain(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let Some(_call) = PythonCall::begin() else {
            // Read, so that the loop does not call this again and again.
            self.signal.answer();
            return Ok(());
        };
        locked(&self.queue).is_draining = true;
        self.signal.await_above(NONE_AWAITED);
        self.signal.answer();
        let before = DRAINING.replace(Some(Arc::clone(self)));
        let settled = self.settle(py);
        // What is dropped may run Python code, which may look.
        let after = DRAINING.replace(before);
        drop(after);
        let lowest = {
            let mut queue = locked(&self.queue);
            queue.is_draining = false;
            queue.waiters.front().map_or(NONE_AWAITED, |first| first.lsn)
        };
        self.signal.await_above(lowest);
        if settled.is_err() || self.signal.durable_end() > lowest {
            self.call_soon(py)?;
        }
        settled
    }

    fn settle(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        // In this order: no end follows the error.
        let error = self.signal.error();
        let end = self.signal.durable_end();
        if error.is_some() || self.signal.take_room() {
            self.advance_appends(py)?;
        }
        let log = self.wal.upgrade();
        loop {
            let next = {
                let mut queue = locked(&self.queue);
                match queue.waiters.front() {
                    Some(first) if first.lsn < end || error.is_some() => queue.waiters.pop_front(),
                    _ => None,
                }
            };
            let Some(Waiter { lsn, future, result }) = next else { break };
            // A cut may have made a durable position void.
            let cut = || log.as_ref().and_then(|log| log.cut_at(Lsn::new(lsn)));
            let failure = if lsn >= end { error.clone() } else { cut() };
            let outcome = match failure {
                Some(error) => Outcome::Failed(exception(py, &error)?.unbind()),
                None => result.map_or(Outcome::Nothing, Outcome::Lsn),
            };
            LogFuture::settle(future.bind(py), outcome)?;
        }
        if error.is_some() {
            self.leave(py)?;
        }
        Ok(())
    }

    /// Appends what waits for room, in order, until there is none.
    fn advance_appends(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        loop {
            let (append, polled) = {
                let mut queue = locked(&self.queue);
                let Some(append) = queue.appends.pop_front() else { return Ok(()) };
                (append, queue.polled.take())
            };
            let future = append.future.bind(py);
            if future.get().is_done() {
                // Cancelled: nothing was appended.
                continue;
            }
            let Some(log) = self.wal.upgrade() else {
                let error = exception(py, &Error::Closed)?;
                LogFuture::settle(future, Outcome::Failed(error.unbind()))?;
                continue;
            };
            match self.poll_append(py, &log, &append, polled) {
                Ok(lsn) => match append.until {
                    Until::Appended => LogFuture::settle(future, Outcome::Lsn(lsn.as_u64()))?,
                    Until::Durable => {
                        log.request_sync(lsn);
                        self.enter(py, lsn.as_u64(), Some(lsn.as_u64()), append.future)?;
                    }
                },
                Err(Ok(pending)) => {
                    let mut queue = locked(&self.queue);
                    queue.polled = Some(pending);
                    queue.appends.push_front(append);
                    return Ok(());
                }
                Err(Err(error)) => {
                    let error = exception(py, &error)?;
                    LogFuture::settle(future, Outcome::Failed(error.unbind()))?;
                }
            }
        }
    }

    fn poll_append(
        &self,
        py: Python<'_>,
        log: &OpenLog,
        append: &QueuedAppend,
        polled: Option<AppendOwnedFuture>,
    ) -> Result<Lsn, Result<AppendOwnedFuture, Error>> {
        let payload = append.payload.bind(py).as_bytes();
        let mut polled = match polled {
            Some(polled) => polled,
            None => match log.try_append(append.tag, payload) {
                Ok(lsn) => return Ok(lsn),
                Err(Error::RingFull) => match append.tag {
                    None => log.wal.append_async_owned(payload),
                    Some(tag) => log.wal.tagged(tag).append_async_owned(payload),
                },
                Err(error) => return Err(Err(error)),
            },
        };
        match Pin::new(&mut polled).poll(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(placed) => placed.map_err(Err),
            Poll::Pending => Err(Ok(polled)),
        }
    }

    /// The log has ended: the loop forgets the hub.
    fn leave(&self, py: Python<'_>) -> PyResult<()> {
        self.signal.remove();
        drop(locked(&self.listener).take());
        #[cfg(unix)]
        if let Bell::Socket { read, .. } = self.signal.bell() {
            let descriptor = std::os::fd::AsRawFd::as_raw_fd(read);
            self.event_loop.bind(py).call_method1("remove_reader", (descriptor,))?;
        }
        Ok(())
    }
}
