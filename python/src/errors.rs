//! The log's errors as exceptions: one class for each kind, from `ringwal/_errors.py`.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use ringwal::Error;

static CLASS_OF: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The exception of an error of the log. The caller is attached.
pub(crate) fn raise(error: Error) -> PyErr {
    let exception = |py: Python<'_>| exception(py, &error).map_or_else(|e| e, PyErr::from_value);
    Python::try_attach(exception).unwrap_or_else(|| {
        // SAFETY: every caller is a function that the interpreter has called, and so attached.
        // PyO3 refuses only because the interpreter ends, which still runs destructors.
        exception(unsafe { Python::assume_attached() })
    })
}

/// Imports the classes: while the interpreter ends, it imports nothing.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    CLASS_OF.import(py, "ringwal._errors", "class_of").map(drop)
}

/// The exception of a call of a consumer that this process has closed.
pub(crate) fn closed_consumer(py: Python<'_>, name: &str) -> PyErr {
    let error = Error::NoConsumer { name: name.to_owned() };
    let text = format!("the consumer {name:?} is closed here: attach it again by Wal.consumer");
    exception_with(py, &error, &text).map_or_else(|e| e, PyErr::from_value)
}

/// The exception of an error of the log, as an object.
pub(crate) fn exception<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    exception_with(py, error, &text_of(error))
}

/// The text of an error, in the words of this package.
fn text_of(error: &Error) -> String {
    match error {
        Error::Locked { path, pid } if *pid == Some(std::process::id()) => format!(
            "{} is locked by this process: use the Wal that has the log open, or close it first",
            path.display()
        ),
        _ => error.to_string(),
    }
}

fn exception_with<'py>(py: Python<'py>, error: &Error, text: &str) -> PyResult<Bound<'py, PyAny>> {
    let class_of = CLASS_OF.import(py, "ringwal._errors", "class_of")?;
    let exception = class_of.call1((error.code(),))?.call1((text,))?;
    exception.setattr("os_error", error.os_error())?;
    let fields = PyDict::new(py);
    add_fields(error, &fields)?;
    for (name, value) in fields {
        exception.setattr(name.cast_into::<pyo3::types::PyString>()?, value)?;
    }
    Ok(exception)
}

/// What an error knows besides its text. The names are those of the library.
fn add_fields(error: &Error, fields: &Bound<'_, PyDict>) -> PyResult<()> {
    match error {
        Error::RecordTooLarge { len, max } | Error::CellsFull { len, max } => {
            fields.set_item("len", len)?;
            fields.set_item("max", max)
        }
        Error::Locked { path, pid } => {
            fields.set_item("path", path)?;
            fields.set_item("pid", pid)
        }
        Error::Corruption { segment, offset, lsn, reason } => {
            fields.set_item("segment", segment)?;
            fields.set_item("offset", offset)?;
            fields.set_item("lsn", lsn.as_u64())?;
            fields.set_item("reason", reason)
        }
        Error::Pruned { oldest } => fields.set_item("oldest", oldest.as_u64()),
        Error::NotAppended { lsn, end } => {
            fields.set_item("lsn", lsn.as_u64())?;
            fields.set_item("end", end.as_u64())
        }
        Error::NotDurable { lsn, durable_end } => {
            fields.set_item("lsn", lsn.as_u64())?;
            fields.set_item("durable_end", durable_end.as_u64())
        }
        Error::NoRecord { lsn } => fields.set_item("lsn", lsn.as_u64()),
        Error::NoOrdinal { ordinal } => fields.set_item("ordinal", ordinal),
        Error::Truncated { from, to } => {
            fields.set_item("from_lsn", from.as_u64())?;
            fields.set_item("to_lsn", to.as_u64())
        }
        Error::InsideBatch { lsn, first } => {
            fields.set_item("lsn", lsn.as_u64())?;
            fields.set_item("first", first.as_u64())
        }
        Error::ConsumerBackwards { lsn, position } => {
            fields.set_item("lsn", lsn.as_u64())?;
            fields.set_item("position", position.as_u64())
        }
        Error::Obstructed { path, .. } | Error::NameTaken { path } => fields.set_item("path", path),
        Error::NoLog { path, prefix } | Error::LogExists { path, prefix } => {
            fields.set_item("path", path)?;
            fields.set_item("prefix", prefix)
        }
        Error::Io { op, path, source } => {
            fields.set_item("errno", error.os_error())?;
            // Rust puts the number behind the words.
            let words = source.to_string();
            fields.set_item("strerror", words.split(" (os error ").next())?;
            fields.set_item("filename", path.as_os_str())?;
            fields.set_item("op", op)?;
            fields.set_item("path", path)
        }
        Error::ConsumerInUse { name } | Error::NoConsumer { name } => fields.set_item("name", name),
        Error::ApplicationVersion { found, expected } => {
            fields.set_item("found", found)?;
            fields.set_item("expected", expected)
        }
        _ => Ok(()),
    }
}
