//! Readers: durable records up to an end.

use std::sync::{Mutex, TryLockError};

use pyo3::prelude::*;
use pyo3::types::PyList;
use ringwal::{BackwardReader, ReadOnlyReader, Reader as LogReader, Result};

use crate::errors::{in_use, raise};
use crate::records::{Form, Rest, Run};

/// Records in a run of a source that delivers them one by one.
const RUN_OF_SINGLES: usize = 256;

/// What a reader reads.
pub(crate) enum Source {
    Forward(LogReader),
    Backward(BackwardReader),
    Outside(ReadOnlyReader),
}

impl Source {
    pub(crate) fn only(self, tags: Option<Vec<u64>>) -> Self {
        match (self, tags) {
            (source, None) => source,
            (Source::Forward(reader), Some(tags)) => Source::Forward(reader.only_tags(tags)),
            (Source::Backward(reader), Some(tags)) => Source::Backward(reader.only_tags(tags)),
            (Source::Outside(reader), Some(tags)) => Source::Outside(reader.only_tags(tags)),
        }
    }

    fn next_run(&mut self) -> Result<Option<Run>> {
        match self {
            Source::Forward(reader) => Ok(reader.next_shared()?.map(Run::Shared)),
            Source::Outside(reader) => Ok(reader.next_shared()?.map(Run::Shared)),
            Source::Backward(reader) => {
                let run: Vec<_> = reader.take(RUN_OF_SINGLES).collect::<Result<_>>()?;
                Ok(Some(run).filter(|run| !run.is_empty()).map(|run| Run::Owned(run.into_iter())))
            }
        }
    }
}

struct ReaderState {
    source: Source,
    rest: Rest,
}

/// Reads durable records up to the end that was durable when it was made.
///
/// An iterator of records. `runs()` iterates over lists of records, which costs less.
#[pyclass(frozen, module = "ringwal")]
pub(crate) struct Reader {
    form: Form,
    what: &'static str,
    state: Mutex<ReaderState>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("what", &self.what).finish_non_exhaustive()
    }
}

impl Reader {
    pub(crate) fn new(source: Source, form: Form, what: &'static str) -> Self {
        let state = ReaderState { source, rest: Rest::default() };
        Reader { form, what, state: Mutex::new(state) }
    }

    /// Reads the next run. False at the end.
    fn read(&self, py: Python<'_>, state: &mut ReaderState) -> PyResult<bool> {
        let source = &mut state.source;
        let run = py.detach(|| source.next_run()).map_err(raise)?;
        let is_there = run.is_some();
        run.into_iter().for_each(|run| state.rest.set(run));
        Ok(is_there)
    }

    fn state(&self) -> PyResult<std::sync::MutexGuard<'_, ReaderState>> {
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(in_use("reader")),
        }
    }
}

#[pymethods]
impl Reader {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mut state = self.state()?;
        loop {
            if let Some(record) = state.rest.next(py, self.form)? {
                return Ok(Some(record));
            }
            if !self.read(py, &mut state)? {
                return Ok(None);
            }
        }
    }

    /// The next records that were read together, at most 512, as a list. None at the end.
    fn next_run<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        let mut state = self.state()?;
        loop {
            if let Some(list) = state.rest.next_list(py, self.form)? {
                return Ok(Some(list));
            }
            if !self.read(py, &mut state)? {
                return Ok(None);
            }
        }
    }

    /// Iterates over lists of records that were read together.
    fn runs(this: Bound<'_, Self>) -> Runs {
        Runs { reader: this.unbind() }
    }

    fn __repr__(&self) -> String {
        format!("<ringwal.Reader {}>", self.what)
    }
}

/// Iterates over lists of records that were read together.
#[pyclass(frozen, module = "ringwal")]
#[derive(Debug)]
pub(crate) struct Runs {
    reader: Py<Reader>,
}

#[pymethods]
impl Runs {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        self.reader.get().next_run(py)
    }

    fn __repr__(&self) -> String {
        format!("<ringwal.Runs {}>", self.reader.get().what)
    }
}
