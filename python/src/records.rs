//! Records as Python objects, and runs of them.

use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use ringwal::{Error, RecordRef, Result, SharedRecords};

use crate::arguments::nanoseconds;

/// A record of a log.
#[pyclass(frozen, module = "ringwal")]
#[derive(Debug)]
pub(crate) struct Record {
    /// Its position in the log.
    #[pyo3(get)]
    lsn: u64,
    /// The bytes that were appended.
    #[pyo3(get)]
    payload: Py<PyBytes>,
    /// The tag that it was appended with, or None.
    #[pyo3(get)]
    tag: Option<u64>,
    /// Its number in the log: the first record ever appended has 0.
    #[pyo3(get)]
    ordinal: u64,
    /// When its group was written, in nanoseconds since 1970.
    #[pyo3(get)]
    written_at_ns: u64,
}

#[pymethods]
impl Record {
    /// When its group was written, in seconds since 1970, by a clock that may have been set.
    #[getter]
    fn written_at(&self) -> f64 {
        Duration::from_nanos(self.written_at_ns).as_secs_f64()
    }

    /// The position after it, for `seek` and `reader`.
    #[getter]
    fn next_lsn(&self) -> u64 {
        ringwal::Lsn::new(self.lsn).next().as_u64()
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.payload.as_bytes(py).len()
    }

    fn __bytes__(&self, py: Python<'_>) -> Py<PyBytes> {
        self.payload.clone_ref(py)
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> bool {
        other.cast_exact::<Record>().is_ok_and(|other| {
            let other = other.get();
            self.lsn == other.lsn && self.payload.as_bytes(py) == other.payload.as_bytes(py)
        })
    }

    fn __hash__(&self) -> u64 {
        self.lsn
    }

    /// For `pickle` and `copy`: a record goes to another process as it is.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Fields)> {
        let make = py.import("ringwal._ringwal")?.getattr("_record")?;
        let Record { lsn, payload, tag, ordinal, written_at_ns } = self;
        Ok((make, (*lsn, payload.clone_ref(py), *tag, *ordinal, *written_at_ns)))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        const SHOWN: usize = 32;
        let bytes = self.payload.as_bytes(py);
        let shown = PyBytes::new(py, &bytes[..bytes.len().min(SHOWN)]).repr()?;
        let more = if bytes.len() > SHOWN { "..." } else { "" };
        let tag = self.tag.map_or_else(String::new, |tag| format!(" tag={tag}"));
        let length = bytes.len();
        Ok(format!("<ringwal.Record lsn={}{tag} {length} bytes {shown}{more}>", self.lsn))
    }
}

/// The fields of a record, in order.
type Fields = (u64, Py<PyBytes>, Option<u64>, u64, u64);

/// A record of its fields, for `pickle`.
#[pyfunction]
#[pyo3(name = "_record", signature = (lsn, payload, tag, ordinal, written_at_ns, /))]
pub(crate) fn record_of(
    lsn: u64,
    payload: Py<PyBytes>,
    tag: Option<u64>,
    ordinal: u64,
    written_at_ns: u64,
) -> Record {
    Record { lsn, payload, tag, ordinal, written_at_ns }
}

impl Record {
    pub(crate) fn of<'py>(py: Python<'py>, record: RecordRef<'_>) -> PyResult<Bound<'py, Record>> {
        let payload = PyBytes::new(py, record.payload).unbind();
        let written_at_ns = nanoseconds(record.written_at());
        let (lsn, tag, ordinal) = (record.lsn.as_u64(), record.tag(), record.ordinal());
        Bound::new(py, Record { lsn, payload, tag, ordinal, written_at_ns })
    }

    /// An owned record. One without an ordinal and a time comes from no reader.
    pub(crate) fn of_owned<'py>(
        py: Python<'py>,
        record: &ringwal::Record,
    ) -> PyResult<Bound<'py, Record>> {
        let payload = PyBytes::new(py, record.payload()).unbind();
        let ordinal = record.ordinal().unwrap_or_default();
        let written_at_ns = record.written_at().map_or(0, nanoseconds);
        let (lsn, tag) = (record.lsn().as_u64(), record.tag());
        Bound::new(py, Record { lsn, payload, tag, ordinal, written_at_ns })
    }
}

/// The form in which a reader delivers records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Objects of the class `Record`.
    Object,
    /// Tuples of the LSN and the payload.
    Pair,
    /// Payloads alone, as `bytes`. Only whole lists have it: see [`Rest::next_payloads`].
    Payload,
}

impl Form {
    /// Appends a record to a list, in this form.
    #[inline]
    fn append<'py>(
        self,
        list: &Bound<'py, PyList>,
        lsn: ringwal::Lsn,
        payload: &[u8],
        object: impl FnOnce() -> PyResult<Bound<'py, Record>>,
    ) -> PyResult<()> {
        let bytes = || PyBytes::new(list.py(), payload);
        match self {
            Form::Payload => list.append(bytes()),
            Form::Pair => list.append((lsn.as_u64(), bytes())),
            Form::Object => list.append(object()?),
        }
    }

    /// The payload of a record in this form.
    fn payload_of<'py>(self, record: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = record.py();
        match self {
            Form::Object => Ok(record.cast::<Record>()?.get().payload.bind(py).clone().into_any()),
            Form::Pair => record.cast::<PyTuple>()?.get_item(1),
            Form::Payload => Ok(record.clone()),
        }
    }
}

/// Records that were read together.
#[derive(Debug)]
pub(crate) enum Run {
    Shared(SharedRecords),
    Owned(std::vec::IntoIter<ringwal::Record>),
}

/// Records of a list at most: the objects of one list stay in the processor's cache.
const LONGEST_LIST: usize = 512;

impl Run {
    /// The next records as a list, which is empty at the end.
    fn next_list<'py>(&mut self, py: Python<'py>, form: Form) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for _ in 0..LONGEST_LIST {
            let added = match self {
                Run::Shared(run) => match run.next_ref() {
                    None => break,
                    Some(record) => {
                        let (lsn, payload) = (record.lsn, record.payload);
                        form.append(&list, lsn, payload, || Record::of(py, record))
                    }
                },
                Run::Owned(records) => match records.next() {
                    None => break,
                    Some(record) => form.append(&list, record.lsn, &record.payload, || {
                        Record::of_owned(py, &record)
                    }),
                },
            };
            added?;
        }
        Ok(list)
    }
}

/// Records in a run of a source that delivers them one by one.
const RUN_OF_SINGLES: usize = 256;

/// Makes runs of a source that delivers records one by one.
#[derive(Debug, Default)]
pub(crate) struct Singles {
    /// What ended the last run: it comes after the records before it.
    error: Option<Error>,
}

impl Singles {
    pub(crate) fn next_run(
        &mut self,
        records: impl Iterator<Item = Result<ringwal::Record>>,
    ) -> Result<Option<Run>> {
        let mut run = Vec::new();
        let pending = self.error.take().map(Err);
        for record in pending.into_iter().chain(records).take(RUN_OF_SINGLES) {
            match record {
                Ok(record) => run.push(record),
                Err(error) if run.is_empty() => return Err(error),
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            }
        }
        Ok(Some(run).filter(|run| !run.is_empty()).map(|run| Run::Owned(run.into_iter())))
    }
}

/// What was read and not delivered yet: the rest of a list, from the place, and the rest of a run.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    list: Option<Py<PyList>>,
    place: usize,
    run: Option<Run>,
}

impl Rest {
    /// Adds a run. The rest was empty.
    pub(crate) fn set(&mut self, run: Run) {
        self.run = Some(run);
    }

    pub(crate) fn clear(&mut self) {
        *self = Rest::default();
    }

    /// The next record, which stays.
    fn peek<'py>(&mut self, py: Python<'py>, form: Form) -> PyResult<Option<Bound<'py, PyAny>>> {
        loop {
            if let Some(list) = &self.list {
                let list = list.bind(py);
                if self.place < list.len() {
                    return list.get_item(self.place).map(Some);
                }
                self.list = None;
            }
            match self.next_list(py, form)? {
                None => return Ok(None),
                Some(list) => (self.list, self.place) = (Some(list.unbind()), 0),
            }
        }
    }

    /// The next record.
    pub(crate) fn next<'py>(
        &mut self,
        py: Python<'py>,
        form: Form,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let next = self.peek(py, form)?;
        self.place += usize::from(next.is_some());
        Ok(next)
    }

    pub(crate) fn is_empty(&mut self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.peek(py, Form::Object)?.is_none())
    }

    /// Leaves out the records below a position.
    pub(crate) fn skip_below(&mut self, py: Python<'_>, lsn: u64) -> PyResult<()> {
        while let Some(next) = self.peek(py, Form::Object)?
            && next.cast::<Record>()?.get().lsn < lsn
        {
            self.place += 1;
        }
        Ok(())
    }

    /// The payloads of the next records. `form` is that of the records that were read one by one.
    pub(crate) fn next_payloads<'py>(
        &mut self,
        py: Python<'py>,
        form: Form,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        if self.list.is_none() {
            return self.next_list(py, Form::Payload);
        }
        let Some(left) = self.next_list(py, form)? else { return Ok(None) };
        let payloads = PyList::empty(py);
        for record in left {
            payloads.append(form.payload_of(&record)?)?;
        }
        Ok(Some(payloads))
    }

    /// The next records, as many as a list holds.
    pub(crate) fn next_list<'py>(
        &mut self,
        py: Python<'py>,
        form: Form,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        if let Some(list) = self.list.take() {
            let list = list.into_bound(py);
            match self.place {
                0 => return Ok(Some(list)),
                place if place < list.len() => return Ok(Some(list.get_slice(place, list.len()))),
                _ => {}
            }
        }
        let Some(run) = &mut self.run else { return Ok(None) };
        let list = run.next_list(py, form)?;
        if list.is_empty() {
            // Gives up its memory, so that the reader can use it again.
            self.run = None;
            return Ok(None);
        }
        Ok(Some(list))
    }
}

/// The asynchronous generator of records or runs of a follower or a consumer.
pub(crate) fn generator<'py>(of: &Bound<'py, PyAny>, runs: bool) -> PyResult<Bound<'py, PyAny>> {
    let py = of.py();
    let poll = if runs { intern!(py, "_poll_run") } else { intern!(py, "_poll_record") };
    py.import("ringwal._follow")?.call_method1("follow", (of.getattr(poll)?,))
}
