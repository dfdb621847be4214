//! Arguments: bytes, durations, tags.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDelta, PyDeltaAccess};

/// The bytes of a record. An object of another kind than `bytes` is copied, to `copy`: its memory
/// could change while a call that is detached reads it.
#[inline]
pub(crate) fn payload<'a, 'py>(
    object: &'a Bound<'py, PyAny>,
    copy: &'a mut Option<Bound<'py, PyBytes>>,
) -> PyResult<&'a Bound<'py, PyBytes>> {
    match object.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes),
        Err(_) => Ok(copy.insert(copied(object)?)),
    }
}

/// The bytes of an object with a buffer, as an object of their own.
#[cold]
pub(crate) fn copied<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = object.py();
    // SAFETY: both functions take a borrowed object and return a new one, or null with an error
    // set. The memory view refuses what has no buffer, which PyBytes_FromObject would iterate.
    unsafe {
        let view = ffi::PyMemoryView_FromObject(object.as_ptr());
        let Some(view) = Bound::from_owned_ptr_or_opt(py, view) else {
            // A memory view that was released says so itself.
            if ffi::PyErr_ExceptionMatches(ffi::PyExc_TypeError) == 0 {
                return Err(PyErr::fetch(py));
            }
            // Not fetched: dropped where PyO3 is not attached, as in a function of `methods`, an
            // exception is kept for a later time.
            ffi::PyErr_Clear();
            let class = object.get_type().name().map_or_else(|_| "?".into(), |n| n.to_string());
            let message = format!("a bytes-like object is required, not '{class}'");
            return Err(PyTypeError::new_err(message));
        };
        let bytes = ffi::PyBytes_FromObject(view.as_ptr());
        Ok(Bound::from_owned_ptr_or_err(py, bytes)?.cast_into_unchecked())
    }
}

/// The bytes of a record, to keep.
pub(crate) fn kept<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    match object.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.clone()),
        Err(_) => copied(object),
    }
}

/// A duration: a `timedelta`, or a number of seconds.
pub(crate) fn duration(object: &Bound<'_, PyAny>) -> PyResult<Duration> {
    if let Ok(delta) = object.cast::<PyDelta>() {
        let days = i64::from(delta.get_days());
        let seconds = u64::try_from(days * 86_400 + i64::from(delta.get_seconds()));
        let micros = u64::try_from(delta.get_microseconds()).unwrap_or_default();
        return seconds
            .map(|seconds| Duration::from_secs(seconds) + Duration::from_micros(micros))
            .map_err(|_| PyValueError::new_err("a duration must not be negative"));
    }
    let seconds: f64 = object.extract().map_err(|_| {
        PyTypeError::new_err("a duration is a number of seconds or a datetime.timedelta")
    })?;
    if seconds < 0.0 {
        return Err(PyValueError::new_err("a duration must not be negative"));
    }
    if seconds == f64::INFINITY {
        return Ok(Duration::MAX);
    }
    Duration::try_from_secs_f64(seconds)
        .map_err(|e| PyValueError::new_err(format!("no duration: {seconds} seconds: {e}")))
}

/// A timeout. `None`: for ever.
pub(crate) fn timeout(object: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Duration>> {
    let timeout = object.map(duration).transpose()?;
    Ok(timeout.filter(|timeout| *timeout != Duration::MAX))
}

/// A point in time: seconds since 1970, or a `datetime`.
pub(crate) fn time(object: &Bound<'_, PyAny>) -> PyResult<SystemTime> {
    let seconds: f64 = match object.extract() {
        Ok(seconds) => seconds,
        Err(_) => match object.call_method0("timestamp") {
            Ok(seconds) => seconds.extract()?,
            Err(_) => {
                let message = "a time is a number of seconds since 1970 or a datetime.datetime";
                return Err(PyTypeError::new_err(message));
            }
        },
    };
    let after = Duration::try_from_secs_f64(seconds.max(0.0));
    after
        .ok()
        .and_then(|after| UNIX_EPOCH.checked_add(after))
        .ok_or_else(|| PyValueError::new_err(format!("no time: {seconds}")))
}

/// The tags of a reader that has a filter: `only_tag`, `only_tags` (any iterable), or both. `None`:
/// no filter.
pub(crate) fn tags(
    one: Option<u64>,
    several: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Vec<u64>>> {
    let mut tags: Option<Vec<u64>> = one.map(|tag| vec![tag]);
    if let Some(several) = several {
        for tag in several.try_iter()? {
            tags.get_or_insert_default().push(tag?.extract()?);
        }
        tags.get_or_insert_default();
    }
    Ok(tags)
}

/// Nanoseconds since 1970.
pub(crate) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
