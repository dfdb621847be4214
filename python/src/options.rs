//! `ringwal.open`: the options as keyword arguments, with the names of the library's builder.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use ringwal::{BackendChoice, CommitMethod, Durability, WalBuilder};

use crate::arguments::duration;
use crate::errors::raise;
use crate::log::OpenLog;
use crate::report;
use crate::wal::Wal;

/// Opens the log in a directory, or creates it.
///
/// The options are those of the library's builder. Durations are seconds or `timedelta`. Waits for
/// the disk.
#[pyfunction]
#[pyo3(
    signature = (dir, **options),
    text_signature = "(dir, *, prefix='wal', segment_size=..., ring_capacity=..., \
max_record_size=..., application_version=0, consumer_limit=None, depth=4, \
durability='every_group', commit_delay=0, idle_seal=0.02, max_segments=None, \
max_total_bytes=None, max_age=None, file_mode=0o600, must_exist=False, create_new=False, \
expect_log_id=None, backend='auto', commit_method='auto', stall_threshold=1, on_stall=None, \
on_sealed=None, lock_wait=2)"
)]
pub(crate) fn open(
    py: Python<'_>,
    dir: PathBuf,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<Wal> {
    let mut builder = ringwal::Wal::builder(&dir);
    let (mut prefix, mut syncs_every_group) = ("wal".to_owned(), true);
    for (name, value) in options.into_iter().flatten() {
        let name: String = name.extract()?;
        // None is the default of every option.
        if value.is_none() {
            check_name(&name)?;
            continue;
        }
        match name.as_str() {
            "prefix" => {
                prefix = value.extract()?;
                builder = builder.prefix(prefix.clone());
            }
            "durability" => {
                let durability = durability(&value)?;
                syncs_every_group = durability == Durability::EveryGroup;
                builder = builder.durability(durability);
            }
            _ => builder = with(builder, &name, &value)?,
        }
    }
    let wal = py.detach(|| builder.open()).map_err(raise)?;
    Ok(Wal { log: OpenLog::new(wal, dir, prefix, syncs_every_group) })
}

const NAMES: [&str; 23] = [
    "prefix",
    "segment_size",
    "ring_capacity",
    "max_record_size",
    "application_version",
    "consumer_limit",
    "depth",
    "durability",
    "commit_delay",
    "idle_seal",
    "max_segments",
    "max_total_bytes",
    "max_age",
    "file_mode",
    "must_exist",
    "create_new",
    "expect_log_id",
    "backend",
    "commit_method",
    "stall_threshold",
    "on_stall",
    "on_sealed",
    "lock_wait",
];

fn check_name(name: &str) -> PyResult<()> {
    if NAMES.contains(&name) {
        return Ok(());
    }
    let message = format!("open() got an unexpected keyword argument '{name}'");
    Err(PyTypeError::new_err(message))
}

/// Names the option in the error of its value.
fn named(name: &str, py: Python<'_>, error: PyErr) -> PyErr {
    let message = format!("{name}: {}", error.value(py));
    PyErr::from_type(error.get_type(py), message)
}

fn with(builder: WalBuilder, name: &str, value: &Bound<'_, PyAny>) -> PyResult<WalBuilder> {
    check_name(name)?;
    with_known(builder, name, value).map_err(|error| named(name, value.py(), error))
}

fn with_known(b: WalBuilder, name: &str, value: &Bound<'_, PyAny>) -> PyResult<WalBuilder> {
    Ok(match name {
        "segment_size" => b.segment_size(value.extract()?),
        "ring_capacity" => b.ring_capacity(value.extract()?),
        "max_record_size" => b.max_record_size(value.extract()?),
        "application_version" => b.application_version(value.extract()?),
        "consumer_limit" => b.consumer_limit(value.extract()?),
        "depth" => b.depth(value.extract()?),
        "commit_delay" => b.commit_delay(duration(value)?),
        "idle_seal" => b.idle_seal(duration(value)?),
        "max_segments" => b.max_segments(value.extract()?),
        "max_total_bytes" => b.max_total_bytes(value.extract()?),
        "max_age" => b.max_age(duration(value)?),
        "file_mode" => b.file_mode(value.extract()?),
        // The builder takes the last call of the two: False must not undo the other.
        "must_exist" if value.extract()? => b.must_exist(true),
        "create_new" if value.extract()? => b.create_new(true),
        "expect_log_id" => b.expect_log_id(value.extract()?),
        "backend" => b.backend(backend(&value.cast::<PyString>()?.to_cow()?)?),
        "commit_method" => {
            let method: Result<CommitMethod, String> = value.cast::<PyString>()?.to_cow()?.parse();
            b.commit_method(method.map_err(PyValueError::new_err)?)
        }
        "stall_threshold" => b.stall_threshold(duration(value)?),
        "on_stall" => b.on_stall(on_stall(callable(name, value)?)),
        "on_sealed" => b.on_sealed(on_sealed(callable(name, value)?)),
        "lock_wait" => b.lock_wait(duration(value)?),
        _ => b,
    })
}

fn durability(value: &Bound<'_, PyAny>) -> PyResult<Durability> {
    let Ok(name) = value.cast::<PyString>() else {
        let interval = duration(value).map_err(|_| {
            PyTypeError::new_err(
                "durability is 'every_group', 'manual', or the interval between syncs: seconds or \
                 a timedelta",
            )
        })?;
        return Ok(Durability::Interval(interval));
    };
    match &*name.to_cow()? {
        "every_group" => Ok(Durability::EveryGroup),
        "manual" => Ok(Durability::Manual),
        other => Err(PyValueError::new_err(format!(
            "durability: {other:?} is none of 'every_group', 'manual', or a number of seconds"
        ))),
    }
}

fn backend(name: &str) -> PyResult<BackendChoice> {
    match name {
        "auto" => Ok(BackendChoice::Auto),
        "io_uring" => Ok(BackendChoice::IoUring),
        "std" => Ok(BackendChoice::Std),
        other => Err(PyValueError::new_err(format!("{other:?} is none of auto, io_uring, std"))),
    }
}

fn callable(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    match value.is_callable() {
        true => Ok(value.clone().unbind()),
        false => Err(PyTypeError::new_err(format!("{name} must be callable"))),
    }
}

/// The hook on stalls. Its exceptions are reported as unraisable ones.
fn on_stall(call: Py<PyAny>) -> impl Fn(&ringwal::Stall) + Send + Sync + 'static {
    let call = Arc::new(call);
    move |stall| {
        Python::try_attach(|py| {
            let called = report::stall(py, stall).and_then(|stall| call.call1(py, (stall,)));
            if let Err(error) = called {
                error.write_unraisable(py, Some(call.bind(py)));
            }
        });
    }
}

type HookError = Box<dyn std::error::Error + Send + Sync>;

/// The hook on sealed segments. An exception is reported as unraisable, and is a failure: the log
/// retries later.
fn on_sealed(
    call: Py<PyAny>,
) -> impl FnMut(&ringwal::SealedSegment) -> Result<(), HookError> + Send + 'static {
    move |segment| {
        let called = Python::try_attach(|py| {
            let segment = report::sealed_segment(py, segment)?;
            let called = call.call1(py, (segment,)).map(drop);
            if let Err(error) = &called {
                error.clone_ref(py).write_unraisable(py, Some(call.bind(py)));
            }
            called
        });
        match called {
            Some(result) => Ok(result?),
            None => Err("the interpreter has ended".into()),
        }
    }
}
