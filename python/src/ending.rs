//! The end of the interpreter, which takes other threads out of their calls.
//!
//! Before Python 3.14, a thread that asks for the interpreter's lock while the interpreter ends is
//! ended there, which unwinds its stack. Where this package asks for the lock itself, PyO3 lets the
//! thread sleep instead. But Python code also releases the lock now and then and asks for it again,
//! and if a call of this package runs that code, its frame aborts the process. So:
//!
//! 1. `CALLS` counts the calls that run Python code: an event loop's tasks, a batch's iterator.
//! 2. The exit handler sets `BEGINS`. From then on no such call begins, event loops settle nothing,
//!    and followers end. A call counts itself and then reads `BEGINS`; the handler sets it and then
//!    reads the count. All four are sequentially consistent: of the two, one sees the other.
//! 3. The handler closes the logs, and then waits until `CALLS` is 0, for a second at most: a task
//!    may run for longer, or sleep.
//! 4. The thread of the handler ends the interpreter itself, and is never taken out of a call.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict};

use crate::log::close_all;

/// For how long the exit handler waits for calls of other threads.
const LIMIT: Duration = Duration::from_secs(1);

static BEGINS: AtomicBool = AtomicBool::new(false);
/// Below 0 for a while in a child of `fork()` that a counted call has made.
static CALLS: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    /// This thread ends the interpreter.
    static IS_LAST: Cell<bool> = const { Cell::new(false) };
}

/// Whether the interpreter ends, and another thread than this ends it.
pub(crate) fn begins() -> bool {
    BEGINS.load(SeqCst) && !IS_LAST.get()
}

/// A call that runs Python code.
#[derive(Debug)]
pub(crate) struct PythonCall(());

impl PythonCall {
    /// Begins one. `None`: it must not run Python code any more.
    pub(crate) fn begin() -> Option<PythonCall> {
        CALLS.fetch_add(1, SeqCst);
        let call = PythonCall(());
        if begins() { None } else { Some(call) }
    }
}

impl Drop for PythonCall {
    fn drop(&mut self) {
        CALLS.fetch_sub(1, SeqCst);
    }
}

/// Closes every log when the interpreter ends, so that records that were appended are durable.
/// In a child of `fork()` this changes nothing: the logs belong to the parent.
pub(crate) fn close_at_exit(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let end = PyCFunction::new_closure(py, None, None, |arguments, _| {
        IS_LAST.set(true);
        BEGINS.store(true, SeqCst);
        close_all(arguments.py());
        arguments.py().detach(await_calls);
    })?;
    py.import("atexit")?.call_method1("register", (end,))?;
    let os = py.import("os")?;
    if os.hasattr("register_at_fork")? {
        // The calls of other threads are not in the child.
        let forget = PyCFunction::new_closure(py, None, None, |_, _| CALLS.store(0, SeqCst))?;
        let keywords = PyDict::new(py);
        keywords.set_item("after_in_child", forget)?;
        os.call_method("register_at_fork", (), Some(&keywords))?;
    }
    Ok(())
}

fn await_calls() {
    let deadline = Instant::now() + LIMIT;
    while CALLS.load(SeqCst) > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}
