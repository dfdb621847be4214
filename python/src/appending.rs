//! The methods that append.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ringwal::Error;

use crate::arguments::{kept, payload};
use crate::ending::PythonCall;
use crate::errors::raise;
use crate::event_loop::{Until, failed};
use crate::future::LogFuture;
use crate::log::OpenLog;
use crate::methods::{Function, add, into_raw};
use crate::wal::Wal;

/// Bytes from which a payload is copied detached.
const LARGE: usize = 64 << 10;

/// Appends a record. Detaches only if it must wait, or if the payload is large.
#[inline]
pub(crate) fn append(log: &OpenLog, tag: Option<u64>, object: &Bound<'_, PyAny>) -> PyResult<u64> {
    let mut copy = None;
    let data = payload(object, &mut copy)?.as_bytes();
    if data.len() < LARGE {
        match log.try_append(tag, data) {
            Ok(lsn) => return Ok(lsn.as_u64()),
            Err(Error::RingFull) => {}
            Err(error) => return Err(raise(error)),
        }
    }
    let appended = object.py().detach(|| log.append(tag, data));
    appended.map(|lsn| lsn.as_u64()).map_err(raise)
}

/// Appends a record without waiting.
pub(crate) fn try_append(
    log: &OpenLog,
    tag: Option<u64>,
    object: &Bound<'_, PyAny>,
) -> PyResult<u64> {
    let mut copy = None;
    let data = payload(object, &mut copy)?.as_bytes();
    let appended = match data.len() < LARGE {
        true => log.try_append(tag, data),
        false => object.py().detach(|| log.try_append(tag, data)),
    };
    appended.map(|lsn| lsn.as_u64()).map_err(raise)
}

/// Appends a record and waits until it is durable.
pub(crate) fn append_durable(
    log: &OpenLog,
    tag: Option<u64>,
    object: &Bound<'_, PyAny>,
) -> PyResult<u64> {
    let mut copy = None;
    let data = payload(object, &mut copy)?.as_bytes();
    let appended = object.py().detach(|| log.append_durable(tag, data));
    appended.map(|lsn| lsn.as_u64()).map_err(raise)
}

/// The future of an append.
pub(crate) fn append_async<'py>(
    log: &std::sync::Arc<OpenLog>,
    tag: Option<u64>,
    object: &Bound<'py, PyAny>,
    until: Until,
) -> PyResult<Bound<'py, LogFuture>> {
    let running = log.running_hub(object.py())?;
    let mut copy = None;
    let bytes = payload(object, &mut copy)?;
    match running {
        Ok(hub) => hub.append(log, tag, bytes, until),
        Err((event_loop, error)) => failed(&event_loop, &error),
    }
}

/// A batch's payloads. `None`: one is no `bytes` object, so that taking its bytes may run code.
fn borrowed<'a>(payloads: &'a [Bound<'_, PyAny>]) -> Option<Vec<&'a [u8]>> {
    payloads.iter().map(|item| item.cast::<PyBytes>().ok().map(|b| b.as_bytes())).collect()
}

/// Appends a batch and passes the LSNs to `take`.
pub(crate) fn append_batch<T: Send>(
    log: &OpenLog,
    tag: Option<u64>,
    payloads: &Bound<'_, PyAny>,
    may_wait: bool,
    take: impl Fn(ringwal::BatchLsns<'_>) -> T + Send + Sync,
) -> PyResult<T> {
    let py = payloads.py();
    // An iterable may be Python code.
    let reading = PythonCall::begin().ok_or_else(|| raise(Error::Closed))?;
    let items: Vec<Bound<'_, PyAny>> = items(payloads)?;
    let owned: Vec<Bound<'_, PyBytes>>;
    let data: Vec<&[u8]> = match borrowed(&items) {
        Some(data) => data,
        None => {
            owned = items.iter().map(kept).collect::<PyResult<_>>()?;
            owned.iter().map(|bytes| bytes.as_bytes()).collect()
        }
    };
    drop(reading);
    let attempt = || match tag {
        None => log.wal.try_append_batch(&data).map(&take),
        Some(tag) => log.wal.tagged(tag).try_append_batch(&data).map(&take),
    };
    let is_large = data.iter().map(|bytes| bytes.len()).sum::<usize>() >= LARGE;
    match if is_large { py.detach(attempt) } else { attempt() } {
        Err(Error::RingFull) if may_wait => {}
        done => return done.map_err(raise),
    }
    let appended = py.detach(|| match tag {
        None => log.wal.append_batch_lsns(&data).map(&take),
        Some(tag) => log.wal.tagged(tag).append_batch_lsns(&data).map(&take),
    });
    appended.map_err(raise)
}

fn items<'py>(payloads: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    if let Ok(list) = payloads.cast_exact::<pyo3::types::PyList>() {
        return Ok(list.iter().collect());
    }
    // A batch of one record would be a likely mistake: its bytes are integers.
    if payloads.cast::<PyBytes>().is_ok() {
        let message = "a batch is an iterable of bytes-like objects, not bytes";
        return Err(pyo3::exceptions::PyTypeError::new_err(message));
    }
    payloads.try_iter()?.collect()
}

/// Appends a batch of records with a tag each.
pub(crate) fn append_batch_tagged<T: Send>(
    log: &OpenLog,
    records: &Bound<'_, PyAny>,
    take: impl Fn(ringwal::BatchLsns<'_>) -> T + Send + Sync,
) -> PyResult<T> {
    let reading = PythonCall::begin().ok_or_else(|| raise(Error::Closed))?;
    let mut owned: Vec<(u64, Bound<'_, PyBytes>)> = Vec::new();
    for record in records.try_iter()? {
        let record = record?;
        let Ok((tag, object)) = record.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>() else {
            let class = record.get_type().name()?;
            let message = format!("each record is a tuple of a tag and its bytes, not '{class}'");
            return Err(pyo3::exceptions::PyTypeError::new_err(message));
        };
        owned.push((tag.extract()?, kept(&object)?));
    }
    drop(reading);
    let data: Vec<(u64, &[u8])> = owned.iter().map(|(tag, b)| (*tag, b.as_bytes())).collect();
    let appended = records.py().detach(|| log.wal.append_batch_tagged(&data).map(&take));
    appended.map_err(raise)
}

/// What the C function of a method does with its log and its argument.
type Body = for<'py> fn(&Wal, &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>;

/// The C function of a method of `Wal` with one positional argument.
macro_rules! method_of_one_argument {
    ($name:ident, $body:expr) => {
        unsafe extern "C" fn $name(
            this: *mut ffi::PyObject,
            argument: *mut ffi::PyObject,
        ) -> *mut ffi::PyObject {
            const BODY: Body = $body;
            // SAFETY: the interpreter calls it attached, with an instance of the class that has the
            // method, and with an argument, both borrowed for the call. No panic leaves an
            // `extern "C"` function: it aborts.
            unsafe {
                let py = Python::assume_attached();
                let this = Bound::ref_from_ptr(py, &this).cast_unchecked::<Wal>();
                into_raw(py, BODY(this.get(), Bound::ref_from_ptr(py, &argument)))
            }
        }
    };
}

method_of_one_argument!(append_method, |wal, object| {
    Ok(append(&wal.log, None, object)?.into_pyobject(object.py())?.into_any())
});
method_of_one_argument!(try_append_method, |wal, object| {
    Ok(try_append(&wal.log, None, object)?.into_pyobject(object.py())?.into_any())
});
method_of_one_argument!(append_durable_method, |wal, object| {
    Ok(append_durable(&wal.log, None, object)?.into_pyobject(object.py())?.into_any())
});
method_of_one_argument!(append_async_method, |wal, object| {
    append_async(&wal.log, None, object, Until::Appended).map(Bound::into_any)
});
method_of_one_argument!(append_durable_async_method, |wal, object| {
    append_async(&wal.log, None, object, Until::Durable).map(Bound::into_any)
});

/// Adds the methods of one argument to the class `Wal`.
pub(crate) fn add_fast_methods(py: Python<'_>) -> PyResult<()> {
    let class = py.get_type::<Wal>();
    for (name, function, doc) in [
        (
            c"append",
            append_method as ffi::PyCFunction,
            c"append($self, payload, /)\n--\n\nAppends a record and returns its LSN: its place in \
              the log.\n\nIt becomes durable with its group. Waits only while the ring is full.",
        ),
        (
            c"try_append",
            try_append_method,
            c"try_append($self, payload, /)\n--\n\nAppends a record as append does, but never \
              waits: raises RingFull.",
        ),
        (
            c"append_durable",
            append_durable_method,
            c"append_durable($self, payload, /)\n--\n\nAppends a record, waits until it is durable, \
              and returns its LSN.",
        ),
        (
            c"append_async",
            append_async_method,
            c"append_async($self, payload, /)\n--\n\nAppends a record: an awaitable of its LSN, which \
              waits while the ring is full.",
        ),
        (
            c"append_durable_async",
            append_durable_async_method,
            c"append_durable_async($self, payload, /)\n--\n\nAppends a record: an awaitable of its \
              LSN, which waits until the record is durable.",
        ),
    ] {
        add(&class, name, Function::OneArgument(function), doc)?;
    }
    Ok(())
}
