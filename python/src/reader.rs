//! Readers: durable records up to an end.

use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::types::PyList;
use ringwal::{BackwardReader, ReadOnlyReader, Reader as LogReader, Result};

use crate::errors::raise;
use crate::log::try_locked;
use crate::records::{Form, Rest, Run, Singles};

/// What a reader reads.
pub(crate) enum Source {
    Forward(LogReader),
    Backward(BackwardReader, Singles),
    Outside(ReadOnlyReader),
}

impl Source {
    pub(crate) fn backward(reader: BackwardReader) -> Self {
        Source::Backward(reader, Singles::default())
    }

    pub(crate) fn only(self, tags: Option<Vec<u64>>) -> Self {
        match (self, tags) {
            (source, None) => source,
            (Source::Forward(reader), Some(tags)) => Source::Forward(reader.only_tags(tags)),
            (Source::Backward(reader, singles), Some(tags)) => {
                Source::Backward(reader.only_tags(tags), singles)
            }
            (Source::Outside(reader), Some(tags)) => Source::Outside(reader.only_tags(tags)),
        }
    }

    fn next_run(&mut self) -> Result<Option<Run>> {
        match self {
            Source::Forward(reader) => Ok(reader.next_shared()?.map(Run::Shared)),
            Source::Outside(reader) => Ok(reader.next_shared()?.map(Run::Shared)),
            Source::Backward(reader, singles) => singles.next_run(reader),
        }
    }
}

struct ReaderState {
    source: Source,
    rest: Rest,
}

/// Reads durable records up to the end that was durable when it was made.
///
/// An iterator of records. `runs()` iterates over lists of records, which costs less. A context
/// manager that ends it: the log keeps what a reader has not read.
#[pyclass(frozen, module = "ringwal")]
pub(crate) struct Reader {
    form: Form,
    what: &'static str,
    /// `None`: closed.
    state: Mutex<Option<ReaderState>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("what", &self.what).finish_non_exhaustive()
    }
}

impl Reader {
    pub(crate) fn new(source: Source, form: Form, what: &'static str) -> Self {
        let state = ReaderState { source, rest: Rest::default() };
        Reader { form, what, state: Mutex::new(Some(state)) }
    }

    /// Reads the next run. False at the end.
    fn read(&self, py: Python<'_>, state: &mut ReaderState) -> PyResult<bool> {
        let source = &mut state.source;
        let run = py.detach(|| source.next_run()).map_err(raise)?;
        let is_there = run.is_some();
        run.into_iter().for_each(|run| state.rest.set(run));
        Ok(is_there)
    }

    /// What `take` takes of the records that were read, or of the next run. `None` at the end.
    fn take<T>(
        &self,
        py: Python<'_>,
        take: impl Fn(&mut Rest) -> PyResult<Option<T>>,
    ) -> PyResult<Option<T>> {
        let mut held = try_locked(&self.state, "reader")?;
        let Some(state) = &mut *held else { return Ok(None) };
        loop {
            if let Some(taken) = take(&mut state.rest)? {
                return Ok(Some(taken));
            }
            if !self.read(py, state)? {
                return Ok(None);
            }
        }
    }
}

#[pymethods]
impl Reader {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.take(py, |rest| rest.next(py, self.form))
    }

    /// The next records that were read together, at most 512, as a list. None at the end.
    fn next_run<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        self.take(py, |rest| rest.next_list(py, self.form))
    }

    /// Iterates over lists of records that were read together.
    fn runs(this: Bound<'_, Self>) -> Runs {
        Runs { reader: this.unbind(), of_payloads: false }
    }

    /// Iterates over lists of the payloads of records that were read together. Costs the least.
    fn payload_runs(this: Bound<'_, Self>) -> Runs {
        Runs { reader: this.unbind(), of_payloads: true }
    }

    /// Ends it. Retention may remove what it would have read.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let held = try_locked(&self.state, "reader")?.take();
        if let Some(ReaderState { source, rest }) = held {
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

    fn __repr__(&self) -> String {
        format!("<ringwal.Reader {}>", self.what)
    }
}

/// Iterates over lists of records, or of payloads, that were read together.
#[pyclass(frozen, module = "ringwal")]
#[derive(Debug)]
pub(crate) struct Runs {
    reader: Py<Reader>,
    of_payloads: bool,
}

#[pymethods]
impl Runs {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        let reader = self.reader.get();
        match self.of_payloads {
            true => reader.take(py, |rest| rest.next_payloads(py, reader.form)),
            false => reader.next_run(py),
        }
    }

    fn __repr__(&self) -> String {
        format!("<ringwal.Runs {}>", self.reader.get().what)
    }
}
