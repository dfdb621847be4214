//! A log that another process may have open: read only.

use std::path::PathBuf;
use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ringwal::{Error, Lsn};

use crate::arguments::{tags, time};
use crate::errors::raise;
use crate::follower::Follower;
use crate::log::{locked, named_prefix};
use crate::reader::{Reader, Source};
use crate::records::{Form, Record};

/// Opens a log for reading, beside a writer in any process. Takes no lock and changes nothing.
#[pyfunction]
#[pyo3(signature = (dir, prefix="wal"))]
pub(crate) fn open_read_only(py: Python<'_>, dir: PathBuf, prefix: &str) -> PyResult<ReadOnlyWal> {
    let log = py.detach(|| ringwal::ReadOnlyWal::open_with_prefix(&dir, prefix)).map_err(raise)?;
    Ok(ReadOnlyWal { log: Mutex::new(Some(log)), dir, prefix: prefix.to_owned() })
}

/// A log that is open for reading only, from `ringwal.open_read_only`. Any number of threads may
/// use it.
///
/// A context manager that closes it.
#[pyclass(frozen, weakref, module = "ringwal")]
#[derive(Debug)]
pub(crate) struct ReadOnlyWal {
    /// `None`: closed.
    log: Mutex<Option<ringwal::ReadOnlyWal>>,
    dir: PathBuf,
    prefix: String,
}

impl ReadOnlyWal {
    fn log(&self) -> PyResult<ringwal::ReadOnlyWal> {
        locked(&self.log).clone().ok_or_else(|| raise(Error::Closed))
    }

    fn detached<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&ringwal::ReadOnlyWal) -> ringwal::Result<T> + Send,
    ) -> PyResult<T> {
        let log = self.log()?;
        py.detach(|| call(&log)).map_err(raise)
    }
}

#[pymethods]
impl ReadOnlyWal {
    /// The first position that is not durable at this moment.
    fn durable_end(&self, py: Python<'_>) -> PyResult<u64> {
        self.detached(py, |log| log.durable_end()).map(Lsn::as_u64)
    }

    /// The oldest position that is kept.
    fn oldest_lsn(&self, py: Python<'_>) -> PyResult<u64> {
        self.detached(py, |log| log.oldest_lsn()).map(Lsn::as_u64)
    }

    /// Iterates over every durable record, oldest first, as tuples of LSN and payload.
    fn replay(&self, py: Python<'_>) -> PyResult<Reader> {
        let reader = self.detached(py, |log| log.reader(Lsn::ZERO))?;
        Ok(Reader::new(Source::Outside(reader), Form::Pair, "replay"))
    }

    /// Reads durable records from the first one at or after an LSN. 0 is the oldest.
    #[pyo3(signature = (from_lsn=0, *, only_tag=None, only_tags=None))]
    fn reader(
        &self,
        py: Python<'_>,
        from_lsn: u64,
        only_tag: Option<u64>,
        only_tags: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Reader> {
        let reader = self.detached(py, |log| log.reader(Lsn::new(from_lsn)))?;
        let source = Source::Outside(reader).only(tags(only_tag, only_tags)?);
        Ok(Reader::new(source, Form::Object, "forwards"))
    }

    /// Reads durable records backwards, from the last one below an LSN. Default: the newest.
    #[pyo3(signature = (before=None, *, only_tag=None, only_tags=None))]
    fn reader_back(
        &self,
        py: Python<'_>,
        before: Option<u64>,
        only_tag: Option<u64>,
        only_tags: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Reader> {
        let reader = self.detached(py, |log| {
            let before = before.map_or_else(|| log.durable_end(), |lsn| Ok(Lsn::new(lsn)))?;
            log.reader_back(before)
        })?;
        let source = Source::backward(reader).only(tags(only_tag, only_tags)?);
        Ok(Reader::new(source, Form::Object, "backwards"))
    }

    /// Reads durable records written at or after a time: seconds since 1970, or a `datetime`.
    #[pyo3(signature = (time, /))]
    fn reader_from_time(&self, py: Python<'_>, time: &Bound<'_, PyAny>) -> PyResult<Reader> {
        let time = self::time(time)?;
        let reader = self.detached(py, |log| log.reader_from_time(time))?;
        Ok(Reader::new(Source::Outside(reader), Form::Object, "forwards"))
    }

    /// Reads durable records from an LSN, then waits for more.
    #[pyo3(signature = (from_lsn=0, *, only_tag=None, only_tags=None))]
    fn follow(
        &self,
        py: Python<'_>,
        from_lsn: u64,
        only_tag: Option<u64>,
        only_tags: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Follower> {
        let mut follow = self.detached(py, |log| log.follow(Lsn::new(from_lsn)))?;
        if let Some(tags) = tags(only_tag, only_tags)? {
            follow = follow.only_tags(tags);
        }
        Ok(Follower::outside(follow))
    }

    /// Reads the record at exactly an LSN.
    #[pyo3(signature = (lsn, /))]
    fn read<'py>(&self, py: Python<'py>, lsn: u64) -> PyResult<Bound<'py, Record>> {
        Record::of_owned(py, &self.detached(py, |log| log.read(Lsn::new(lsn)))?)
    }

    /// Reads the record with this number.
    #[pyo3(signature = (ordinal, /))]
    fn read_ordinal<'py>(&self, py: Python<'py>, ordinal: u64) -> PyResult<Bound<'py, Record>> {
        Record::of_owned(py, &self.detached(py, |log| log.read_ordinal(ordinal))?)
    }

    /// The value of a cell. None if there is none.
    #[pyo3(signature = (name, /))]
    fn load_cell<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let value = self.detached(py, |log| log.load_cell(name))?;
        Ok(value.map(|value| PyBytes::new(py, &value)))
    }

    /// The names of the cells.
    fn cells(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.detached(py, |log| log.cells())
    }

    /// The application's version of its records' form.
    fn application_version(&self) -> PyResult<u32> {
        Ok(self.log()?.application_version())
    }

    /// The directory, as it was given.
    #[getter]
    fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    /// The start of the file names.
    #[getter]
    fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Releases the log. Later calls raise Closed. Readers and followers of it go on.
    fn close(&self, py: Python<'_>) {
        let log = locked(&self.log).take();
        py.detach(|| drop(log));
    }

    /// Whether the log was closed here.
    #[getter]
    fn closed(&self) -> bool {
        locked(&self.log).is_none()
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.close(py);
    }

    fn __repr__(&self) -> String {
        let state = if self.closed() { " closed" } else { "" };
        let (dir, prefix) = (self.dir.display().to_string(), named_prefix(&self.prefix));
        format!("<ringwal.ReadOnlyWal {dir:?}{prefix}{state}>")
    }
}
