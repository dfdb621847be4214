//! The awaitable: a future for asyncio that the hub of an event loop resolves.
//!
//! 1. It is used on the thread of its loop, as every future of asyncio.
//! 2. The hub calls the callbacks itself, in the loop's callback that settles the future. No task
//!    runs then, so a callback may step its task. A cancelled future schedules them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use crate::ending::PythonCall;
use crate::log::locked;
use crate::methods::{Function, add, into_raw, one_and_named};

/// How a future ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Lsn(u64),
    Nothing,
    Failed(Py<PyAny>),
    Cancelled(Option<Py<PyAny>>),
}

impl Outcome {
    fn copy(&self, py: Python<'_>) -> Outcome {
        match self {
            Outcome::Lsn(lsn) => Outcome::Lsn(*lsn),
            Outcome::Nothing => Outcome::Nothing,
            Outcome::Failed(error) => Outcome::Failed(error.clone_ref(py)),
            Outcome::Cancelled(message) => {
                Outcome::Cancelled(message.as_ref().map(|message| message.clone_ref(py)))
            }
        }
    }
}

/// What to call, and the context in which it runs.
type Callback = (Py<PyAny>, Py<PyAny>);

#[derive(Debug, Default)]
struct FutureState {
    outcome: Option<Outcome>,
    /// The first one, which is the only one of most futures.
    callback: Option<Callback>,
    more: Vec<Callback>,
}

impl FutureState {
    fn new(outcome: Option<Outcome>) -> Self {
        FutureState { outcome, callback: None, more: Vec::new() }
    }

    fn add(&mut self, callback: Callback) {
        match self.callback {
            None => self.callback = Some(callback),
            Some(_) => self.more.push(callback),
        }
    }

    fn take_callbacks(&mut self) -> impl Iterator<Item = Callback> + use<> {
        self.callback.take().into_iter().chain(std::mem::take(&mut self.more))
    }
}

/// An awaitable of a log. It is a future of asyncio: `asyncio.gather`, `wait_for` and `shield` take
/// it. Await it on the loop that was running when it was made.
#[pyclass(frozen, weakref, module = "ringwal")]
#[derive(Debug)]
pub(crate) struct LogFuture {
    event_loop: Py<PyAny>,
    state: Mutex<FutureState>,
    is_awaited: AtomicBool,
}

static CANCELLED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static COPY_CONTEXT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn invalid_state(py: Python<'_>, what: &'static str) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    match CLASS.import(py, "asyncio", "InvalidStateError") {
        Ok(class) => PyErr::from_type(class.clone(), what),
        Err(e) => e,
    }
}

/// Calls a function with a future, in a context.
fn run_in<'py>(
    context: &Bound<'py, PyAny>,
    callback: &Bound<'py, PyAny>,
    future: &Bound<'py, LogFuture>,
) -> PyResult<()> {
    let py = context.py();
    // SAFETY: the objects live for the call, and null ends the arguments. The function returns a
    // new object, or null with an error set. It needs neither a tuple nor a bound method.
    let result = unsafe {
        ffi::PyObject_CallMethodObjArgs(
            context.as_ptr(),
            intern!(py, "run").as_ptr(),
            callback.as_ptr(),
            future.as_ptr(),
            std::ptr::null_mut::<ffi::PyObject>(),
        )
    };
    // SAFETY: as above.
    unsafe { Bound::from_owned_ptr_or_err(py, result) }.map(drop)
}

fn cancelled_error(py: Python<'_>, message: Option<Py<PyAny>>) -> PyResult<PyErr> {
    let class = CANCELLED.import(py, "asyncio", "CancelledError")?.clone();
    Ok(match message {
        Some(message) => PyErr::from_type(class, (message,)),
        None => PyErr::from_type(class, ()),
    })
}

impl LogFuture {
    pub(crate) fn new(event_loop: &Bound<'_, PyAny>, outcome: Option<Outcome>) -> Self {
        LogFuture {
            event_loop: event_loop.clone().unbind(),
            state: Mutex::new(FutureState::new(outcome)),
            is_awaited: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        locked(&self.state).outcome.is_some()
    }

    /// Settles the future and runs its callbacks. An error is one that must leave the loop.
    pub(crate) fn settle(this: &Bound<'_, Self>, outcome: Outcome) -> PyResult<()> {
        let future = this.get();
        let callbacks = {
            let mut state = locked(&future.state);
            if state.outcome.is_some() {
                return Ok(());
            }
            state.outcome = Some(outcome);
            state.take_callbacks()
        };
        let py = this.py();
        for (callback, context) in callbacks {
            let Err(error) = run_in(context.bind(py), callback.bind(py), this) else { continue };
            let ends = error.is_instance_of::<PyKeyboardInterrupt>(py)
                || error.is_instance_of::<PySystemExit>(py);
            if ends {
                return Err(error);
            }
            let report = PyDict::new(py);
            report.set_item("message", "a callback of a ringwal future has failed")?;
            report.set_item("exception", error)?;
            report.set_item("future", this)?;
            future.event_loop.bind(py).call_method1("call_exception_handler", (report,))?;
        }
        Ok(())
    }

    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // Making an object may run Python code: not with the lock held.
        let outcome = locked(&self.state).outcome.as_ref().map(|outcome| outcome.copy(py));
        match outcome {
            None => Err(invalid_state(py, "the result is not there yet")),
            Some(Outcome::Nothing) => Ok(py.None().into_bound(py)),
            Some(Outcome::Lsn(lsn)) => Ok(lsn.into_pyobject(py)?.into_any()),
            Some(Outcome::Failed(error)) => Err(PyErr::from_value(error.into_bound(py))),
            Some(Outcome::Cancelled(message)) => Err(cancelled_error(py, message)?),
        }
    }

    /// Calls a function with this future when it is done.
    fn add_callback<'py>(
        this: &Bound<'py, Self>,
        callback: Bound<'py, PyAny>,
        context: Option<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let py = this.py();
        let context = match context {
            Some(context) if !context.is_none() => context,
            _ => COPY_CONTEXT.import(py, "contextvars", "copy_context")?.call0()?,
        };
        let callback = (callback.unbind(), context.unbind());
        let late = {
            let mut state = locked(&this.get().state);
            match state.outcome {
                Some(_) => Some(callback),
                None => {
                    state.add(callback);
                    None
                }
            }
        };
        match late {
            Some((callback, context)) => Self::schedule(this, callback, context),
            None => Ok(()),
        }
    }

    fn schedule(this: &Bound<'_, Self>, callback: Py<PyAny>, context: Py<PyAny>) -> PyResult<()> {
        let Some(_call) = PythonCall::begin() else { return Ok(()) };
        let py = this.py();
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "context"), context)?;
        let event_loop = this.get().event_loop.bind(py);
        event_loop.call_method(intern!(py, "call_soon"), (callback, this), Some(&keywords))?;
        Ok(())
    }
}

#[pymethods]
impl LogFuture {
    /// Whether the future has a result, an exception, or was cancelled.
    fn done(&self) -> bool {
        self.is_done()
    }

    /// Whether the future was cancelled.
    fn cancelled(&self) -> bool {
        matches!(locked(&self.state).outcome, Some(Outcome::Cancelled(_)))
    }

    /// The result, or raises the exception.
    fn result<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.value(py)
    }

    /// The exception, or None.
    fn exception<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(Outcome::Failed(error)) = &locked(&self.state).outcome {
            return Ok(Some(error.bind(py).clone()));
        }
        self.value(py).map(|_| None)
    }

    /// Cancels the wait. A record that was appended stays appended.
    #[pyo3(signature = (msg=None))]
    fn cancel(this: &Bound<'_, Self>, msg: Option<Py<PyAny>>) -> PyResult<bool> {
        let callbacks = {
            let mut state = locked(&this.get().state);
            if state.outcome.is_some() {
                return Ok(false);
            }
            state.outcome = Some(Outcome::Cancelled(msg));
            state.take_callbacks()
        };
        for (callback, context) in callbacks {
            Self::schedule(this, callback, context)?;
        }
        Ok(true)
    }

    /// Removes a function that was added. Returns how often it was.
    #[pyo3(signature = (callback, /))]
    fn remove_done_callback(&self, py: Python<'_>, callback: &Bound<'_, PyAny>) -> PyResult<usize> {
        // Comparing runs Python code: not with the lock held.
        let callbacks: Vec<Callback> = locked(&self.state).take_callbacks().collect();
        let before = callbacks.len();
        let mut kept = Vec::with_capacity(before);
        for entry in callbacks {
            if !entry.0.bind(py).eq(callback)? {
                kept.push(entry);
            }
        }
        let removed = before - kept.len();
        let mut state = locked(&self.state);
        let added_meanwhile: Vec<Callback> = state.take_callbacks().collect();
        kept.into_iter().chain(added_meanwhile).for_each(|entry| state.add(entry));
        Ok(removed)
    }

    /// The loop on which it was made.
    fn get_loop<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.event_loop.bind(py).clone()
    }

    #[getter(_loop)]
    fn private_loop<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.get_loop(py)
    }

    /// asyncio.gather reads it of a future that was cancelled.
    #[getter(_cancel_message)]
    fn cancel_message(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        match &locked(&self.state).outcome {
            Some(Outcome::Cancelled(Some(message))) => Some(message.clone_ref(py)),
            _ => None,
        }
    }

    /// asyncio.gather calls it for a future that was cancelled.
    fn _make_cancelled_error<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let error = cancelled_error(py, self.cancel_message(py))?;
        Ok(error.into_value(py).into_bound(py).into_any())
    }

    #[getter(_asyncio_future_blocking)]
    fn is_awaited(&self) -> bool {
        self.is_awaited.load(Relaxed)
    }

    #[setter(_asyncio_future_blocking)]
    fn set_is_awaited(&self, is_awaited: bool) {
        self.is_awaited.store(is_awaited, Relaxed);
    }

    fn __await__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __iter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __next__<'py>(this: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, Self>>> {
        let future = this.get();
        if !future.is_done() {
            future.is_awaited.store(true, Relaxed);
            return Ok(Some(this.clone()));
        }
        let value = future.value(this.py())?;
        // An integer needs no exception object: the interpreter takes it as the result.
        // SAFETY: both are objects. The slot that calls this returns null for `None`, with the
        // exception that is set: the end of an iterator.
        unsafe { ffi::PyErr_SetObject(ffi::PyExc_StopIteration, value.as_ptr()) };
        Ok(None)
    }

    fn __repr__(&self) -> String {
        let state = locked(&self.state);
        let state = match &state.outcome {
            None => "pending".to_owned(),
            Some(Outcome::Lsn(lsn)) => format!("finished lsn={lsn}"),
            Some(Outcome::Nothing) => "finished".to_owned(),
            Some(Outcome::Failed(_)) => "failed".to_owned(),
            Some(Outcome::Cancelled(_)) => "cancelled".to_owned(),
        };
        format!("<ringwal.LogFuture {state}>")
    }
}

unsafe extern "C" fn add_done_callback_method(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls it attached, with an instance of the class that has the method,
    // and with arguments that it borrows for the call. No panic leaves an `extern "C"` function.
    unsafe {
        let py = Python::assume_attached();
        let this = Bound::ref_from_ptr(py, &this).cast_unchecked::<LogFuture>();
        let arguments = one_and_named(py, (&arguments, count, &names), intern!(py, "context"));
        let added = arguments
            .and_then(|(callback, context)| LogFuture::add_callback(this, callback, context));
        into_raw(py, added.map(|()| py.None().into_bound(py)))
    }
}

/// Adds the methods that every await calls.
pub(crate) fn add_fast_methods(py: Python<'_>) -> PyResult<()> {
    add(
        &py.get_type::<LogFuture>(),
        c"add_done_callback",
        Function::Array(add_done_callback_method),
        c"add_done_callback($self, callback, /, *, context=None)\n--\n\nCalls a function with this \
          future when it is done.",
    )
}
