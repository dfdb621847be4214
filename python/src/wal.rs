//! The class `Wal`.

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::PyResourceWarning;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use ringwal::{BatchLsns, Error, Lsn};

use crate::appending::{append, append_batch, append_batch_tagged};
use crate::arguments::{tags, time};
use crate::errors::raise;
use crate::event_loop::failed;
use crate::follower::{Consumer, Follower};
use crate::future::LogFuture;
use crate::log::{OpenLog, named_prefix};
use crate::reader::{Reader, Source};
use crate::records::{Form, Record};
use crate::report::{self, Histogram};
use crate::tagged::Tagged;

/// A log that is open for appending, from `ringwal.open`. Any number of threads may use it.
///
/// A context manager that closes it.
#[pyclass(frozen, weakref, module = "ringwal")]
#[derive(Debug)]
pub(crate) struct Wal {
    pub(crate) log: Arc<OpenLog>,
}

/// Deletes the log with this prefix from a directory, and nothing else. It must not be open.
#[pyfunction]
#[pyo3(signature = (dir, prefix="wal"))]
pub(crate) fn remove(py: Python<'_>, dir: PathBuf, prefix: &str) -> PyResult<()> {
    py.detach(|| ringwal::Wal::remove(dir, prefix)).map_err(raise)
}

pub(crate) fn lsns_of(lsns: BatchLsns<'_>) -> Vec<u64> {
    lsns.map(Lsn::as_u64).collect()
}

impl Wal {
    /// A call that may wait, detached.
    fn detached<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&ringwal::Wal) -> ringwal::Result<T> + Send,
    ) -> PyResult<T> {
        let wal = &self.log.wal;
        py.detach(|| call(wal)).map_err(raise)
    }

    /// Refuses a child of `fork()`.
    fn in_its_process(&self) -> PyResult<()> {
        match self.log.wal.health() {
            Err(error @ Error::Forked) => Err(raise(error)),
            _ => Ok(()),
        }
    }
}

#[pymethods]
impl Wal {
    /// Appends several records that survive a crash all together or not at all. Returns the LSN of
    /// the first.
    #[pyo3(signature = (payloads, /))]
    fn append_batch(&self, payloads: &Bound<'_, PyAny>) -> PyResult<u64> {
        append_batch(&self.log, None, payloads, true, |lsns| lsns.first_lsn().as_u64())
    }

    /// Appends a batch, and returns the LSN of every record.
    #[pyo3(signature = (payloads, /))]
    fn append_batch_lsns(&self, payloads: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
        append_batch(&self.log, None, payloads, true, lsns_of)
    }

    /// Appends a batch as append_batch_lsns does, but never waits: raises RingFull.
    #[pyo3(signature = (payloads, /))]
    fn try_append_batch(&self, payloads: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
        append_batch(&self.log, None, payloads, false, lsns_of)
    }

    /// Appends a record with a tag, which readers can filter by.
    #[pyo3(signature = (tag, payload, /))]
    fn append_tagged(&self, tag: u64, payload: &Bound<'_, PyAny>) -> PyResult<u64> {
        append(&self.log, Some(tag), payload)
    }

    /// Appends a batch of (tag, payload), and returns the LSN of every record.
    #[pyo3(signature = (records, /))]
    fn append_batch_tagged(&self, records: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
        append_batch_tagged(&self.log, records, lsns_of)
    }

    /// Appends and reads under one tag.
    #[pyo3(signature = (tag, /))]
    fn tagged(this: Bound<'_, Self>, tag: u64) -> Tagged {
        Tagged { wal: this.unbind(), tag }
    }

    /// Waits until the record at an LSN and every earlier record are durable.
    #[pyo3(signature = (lsn, /))]
    fn wait_durable(&self, py: Python<'_>, lsn: u64) -> PyResult<()> {
        self.detached(py, |wal| wal.wait_durable(Lsn::new(lsn)))
    }

    /// Waits until the record at an LSN and every earlier record are durable: an awaitable of None.
    #[pyo3(signature = (lsn, /))]
    fn wait_durable_async<'py>(
        &self,
        py: Python<'py>,
        lsn: u64,
    ) -> PyResult<Bound<'py, LogFuture>> {
        match self.log.running_hub(py)? {
            Ok(hub) => hub.when_durable(py, &self.log, Lsn::new(lsn)),
            // What is durable already stays so on a log that has ended.
            Err((event_loop, _)) => match self.log.wal.wait_durable(Lsn::new(lsn)) {
                Ok(()) => crate::event_loop::done(&event_loop, crate::future::Outcome::Nothing),
                Err(error) => failed(&event_loop, &error),
            },
        }
    }

    /// Waits until everything appended before is durable. Returns the durable end.
    fn sync(&self, py: Python<'_>) -> PyResult<u64> {
        self.detached(py, |wal| wal.sync()).map(Lsn::as_u64)
    }

    /// The first position that is not durable yet.
    fn durable_end(&self) -> u64 {
        self.log.wal.durable_end().as_u64()
    }

    /// The first position after everything that was appended.
    fn end(&self) -> u64 {
        self.log.wal.end().as_u64()
    }

    /// The oldest position that is kept.
    fn oldest_lsn(&self) -> u64 {
        self.log.wal.oldest_lsn().as_u64()
    }

    /// Iterates over every record that was appended before this call, oldest first, as tuples of
    /// LSN and payload. Makes them durable first.
    fn replay(&self, py: Python<'_>) -> PyResult<Reader> {
        match py.detach(|| self.log.wal.sync()) {
            Ok(_) | Err(Error::Closed | Error::Poisoned { .. }) => {}
            Err(error) => return Err(raise(error)),
        }
        let reader = self.log.wal.reader(Lsn::ZERO);
        Ok(Reader::new(Source::Forward(reader), Form::Pair, "replay"))
    }

    /// Reads durable records from the first one at or after an LSN. 0 is the oldest.
    #[pyo3(signature = (from_lsn=0, *, only_tag=None, only_tags=None))]
    fn reader(
        &self,
        from_lsn: u64,
        only_tag: Option<u64>,
        only_tags: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Reader> {
        let reader = self.log.wal.reader(Lsn::new(from_lsn));
        let source = Source::Forward(reader).only(tags(only_tag, only_tags)?);
        Ok(Reader::new(source, Form::Object, "forwards"))
    }

    /// Reads durable records backwards, from the last one below an LSN. Default: the newest.
    #[pyo3(signature = (before=None, *, only_tag=None, only_tags=None))]
    fn reader_back(
        &self,
        before: Option<u64>,
        only_tag: Option<u64>,
        only_tags: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Reader> {
        let before = before.map_or_else(|| self.log.wal.durable_end(), Lsn::new);
        let source = Source::backward(self.log.wal.reader_back(before));
        let source = source.only(tags(only_tag, only_tags)?);
        Ok(Reader::new(source, Form::Object, "backwards"))
    }

    /// Reads durable records written at or after a time: seconds since 1970, or a `datetime`.
    #[pyo3(signature = (time, /))]
    fn reader_from_time(&self, py: Python<'_>, time: &Bound<'_, PyAny>) -> PyResult<Reader> {
        let time = self::time(time)?;
        let reader = self.detached(py, |wal| wal.reader_from_time(time))?;
        Ok(Reader::new(Source::Forward(reader), Form::Object, "forwards"))
    }

    /// Reads durable records from an LSN, then waits for more.
    #[pyo3(signature = (from_lsn=0, *, only_tag=None, only_tags=None))]
    fn follow(
        &self,
        from_lsn: u64,
        only_tag: Option<u64>,
        only_tags: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Follower> {
        let mut follow = self.log.wal.follow(Lsn::new(from_lsn)).map_err(raise)?;
        if let Some(tags) = tags(only_tag, only_tags)? {
            follow = follow.only_tags(tags);
        }
        Ok(Follower::inside(follow, Arc::downgrade(&self.log)))
    }

    /// Reads the record at exactly an LSN.
    #[pyo3(signature = (lsn, /))]
    fn read<'py>(&self, py: Python<'py>, lsn: u64) -> PyResult<Bound<'py, Record>> {
        Record::of_owned(py, &self.detached(py, |wal| wal.read(Lsn::new(lsn)))?)
    }

    /// Reads the record with this number.
    #[pyo3(signature = (ordinal, /))]
    fn read_ordinal<'py>(&self, py: Python<'py>, ordinal: u64) -> PyResult<Bound<'py, Record>> {
        Record::of_owned(py, &self.detached(py, |wal| wal.read_ordinal(ordinal))?)
    }

    /// Attaches the consumer of this name, or creates it at the oldest record. The log keeps what
    /// it has not committed.
    #[pyo3(signature = (name, *, only_tag=None, only_tags=None))]
    fn consumer(
        &self,
        py: Python<'_>,
        name: String,
        only_tag: Option<u64>,
        only_tags: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Consumer> {
        let mut consumer = self.detached(py, |wal| wal.consumer(&name))?;
        if let Some(tags) = tags(only_tag, only_tags)? {
            consumer = consumer.only_tags(tags);
        }
        Ok(Consumer::new(name, consumer, Arc::downgrade(&self.log)))
    }

    /// The consumers of the log.
    fn consumers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.in_its_process()?;
        let infos = py.detach(|| self.log.wal.consumers());
        let infos: PyResult<Vec<_>> = infos.iter().map(|i| report::consumer_info(py, i)).collect();
        PyList::new(py, infos?)
    }

    /// Deletes a consumer with its position. It must not be attached.
    #[pyo3(signature = (name, /))]
    fn remove_consumer(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.detached(py, |wal| wal.remove_consumer(name))
    }

    /// Keeps everything from an LSN on for the records of a tag, durably.
    #[pyo3(signature = (tag, lsn, /))]
    fn hold_tag(&self, py: Python<'_>, tag: u64, lsn: u64) -> PyResult<u64> {
        self.detached(py, |wal| wal.hold_tag(tag, Lsn::new(lsn))).map(Lsn::as_u64)
    }

    /// Moves the floor of a tag forward.
    #[pyo3(signature = (tag, lsn, /))]
    fn release_tag(&self, tag: u64, lsn: u64) -> PyResult<()> {
        self.log.wal.release_tag(tag, Lsn::new(lsn)).map_err(raise)
    }

    /// Removes the floor of a tag.
    #[pyo3(signature = (tag, /))]
    fn remove_tag_floor(&self, py: Python<'_>, tag: u64) -> PyResult<()> {
        self.detached(py, |wal| wal.remove_tag_floor(tag))
    }

    /// The floors of tags: a dictionary from the tag to the LSN.
    fn tag_floors(&self) -> PyResult<std::collections::BTreeMap<u64, u64>> {
        self.in_its_process()?;
        let floors = self.log.wal.tag_floors();
        Ok(floors.iter().map(|floor| (floor.tag, floor.floor.as_u64())).collect())
    }

    /// Stores a small named value beside the log. Durable on return.
    #[pyo3(signature = (name, value, /))]
    fn store_cell(&self, py: Python<'_>, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let value = crate::arguments::kept(value)?;
        let bytes = value.as_bytes();
        self.detached(py, |wal| wal.cell(name).store(bytes))
    }

    /// The value of a cell. None if there is none.
    #[pyo3(signature = (name, /))]
    fn load_cell<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let value = self.detached(py, |wal| wal.cell(name).load())?;
        Ok(value.map(|value| PyBytes::new(py, &value)))
    }

    /// Removes a cell. Durable on return.
    #[pyo3(signature = (name, /))]
    fn remove_cell(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.detached(py, |wal| wal.cell(name).remove())
    }

    /// The names of the cells.
    fn cells(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.detached(py, |wal| wal.cells())
    }

    /// Removes the segments whose records all lie below an LSN. Returns the oldest position left.
    #[pyo3(signature = (lsn, /))]
    fn truncate_before(&self, py: Python<'_>, lsn: u64) -> PyResult<u64> {
        self.detached(py, |wal| wal.truncate_before(Lsn::new(lsn))).map(Lsn::as_u64)
    }

    /// Cuts the record at an LSN and every later one out of the log, durably. Returns the position
    /// at which the log continues.
    #[pyo3(signature = (lsn, /))]
    fn truncate_from(&self, py: Python<'_>, lsn: u64) -> PyResult<u64> {
        let log = &self.log;
        py.detach(|| log.truncate_from(Lsn::new(lsn))).map(Lsn::as_u64).map_err(raise)
    }

    /// The log's id: 16 random bytes, for the option expect_log_id.
    fn log_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.log.wal.log_id())
    }

    /// Raises what keeps the log from running: Poisoned, Closed, Forked, Obstructed. A full ring
    /// or a full disk is no failure: `stats().out_of_space` reports a full disk.
    fn health(&self) -> PyResult<()> {
        self.log.wal.health().map_err(raise)
    }

    /// The counters since the log was opened.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let stats = py.detach(|| self.log.wal.stats());
        report::stats(py, &stats)
    }

    /// Histograms since the log was opened, by name. Times are in nanoseconds.
    fn histograms(&self, py: Python<'_>) -> std::collections::BTreeMap<&'static str, Histogram> {
        report::histograms(py.detach(|| self.log.wal.histograms()))
    }

    /// What opening the log found.
    fn recovery<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        report::recovery(py, self.log.wal.recovery())
    }

    /// The backend that runs, its commit method, and the reasons for both.
    fn backend<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        report::backend(py, &self.log.wal.backend())
    }

    /// The directory, as it was given.
    #[getter]
    fn dir(&self) -> PathBuf {
        self.log.dir.clone()
    }

    /// The start of the file names.
    #[getter]
    fn prefix(&self) -> &str {
        &self.log.prefix
    }

    /// Makes everything durable and releases the log. Later appends raise Closed.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.log.close()).map_err(raise)
    }

    /// Whether the log was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.log.is_closed()
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) -> PyResult<()> {
        match py.detach(|| self.log.close()) {
            // A child process leaves the block: the log stays open in its parent.
            Ok(()) | Err(Error::Forked) => Ok(()),
            Err(error) => Err(raise(error)),
        }
    }

    fn __repr__(&self) -> String {
        let state = match self.log.wal.health() {
            Ok(()) | Err(Error::Obstructed { .. }) => "open",
            Err(Error::Closed) => "closed",
            Err(Error::Forked) => "of the parent process",
            Err(_) => "failed",
        };
        let OpenLog { dir, prefix, wal, .. } = &*self.log;
        let (prefix, end) = (named_prefix(prefix), wal.durable_end());
        format!("<ringwal.Wal {:?}{prefix} {state} durable_end={end}>", dir.display().to_string())
    }
}

impl Drop for Wal {
    /// Warns of a log that its user has not closed. The drop of the log closes it then.
    fn drop(&mut self) {
        let is_child = matches!(self.log.wal.health(), Err(Error::Forked));
        if is_child || self.log.is_closed() {
            return;
        }
        Python::try_attach(|py| {
            // An exception may be on its way through the frame that had the last reference.
            let pending = PyErr::take(py);
            let text = format!("unclosed log {:?}", self.log.dir.display().to_string());
            let category = py.get_type::<PyResourceWarning>();
            let warned = CString::new(text).map(|text| PyErr::warn(py, &category, &text, 1));
            if let Ok(Err(error)) = warned {
                error.write_unraisable(py, None);
            }
            pending.into_iter().for_each(|error| error.restore(py));
        });
    }
}
