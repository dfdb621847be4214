//! Appends and reads under one tag.

use std::sync::Arc;

use pyo3::prelude::*;
use ringwal::Lsn;

use crate::appending::{append, append_async, append_batch, append_durable, try_append};
use crate::errors::raise;
use crate::event_loop::Until;
use crate::follower::Follower;
use crate::future::LogFuture;
use crate::reader::{Reader, Source};
use crate::records::Form;
use crate::wal::{Wal, lsns_of};

/// Appends to a log under one tag, and reads what has it. From `Wal.tagged`.
#[pyclass(frozen, module = "ringwal")]
#[derive(Debug)]
pub(crate) struct Tagged {
    pub(crate) wal: Py<Wal>,
    pub(crate) tag: u64,
}

#[pymethods]
impl Tagged {
    /// The tag.
    #[getter]
    fn tag(&self) -> u64 {
        self.tag
    }

    /// Appends a record with the tag, as Wal.append does.
    #[pyo3(signature = (payload, /))]
    fn append(&self, payload: &Bound<'_, PyAny>) -> PyResult<u64> {
        append(&self.wal.get().log, Some(self.tag), payload)
    }

    /// Appends a record with the tag, but never waits: raises RingFull.
    #[pyo3(signature = (payload, /))]
    fn try_append(&self, payload: &Bound<'_, PyAny>) -> PyResult<u64> {
        try_append(&self.wal.get().log, Some(self.tag), payload)
    }

    /// Appends a record with the tag and waits until it is durable.
    #[pyo3(signature = (payload, /))]
    fn append_durable(&self, payload: &Bound<'_, PyAny>) -> PyResult<u64> {
        append_durable(&self.wal.get().log, Some(self.tag), payload)
    }

    /// Appends a record with the tag: an awaitable of its LSN.
    #[pyo3(signature = (payload, /))]
    fn append_async<'py>(&self, payload: &Bound<'py, PyAny>) -> PyResult<Bound<'py, LogFuture>> {
        append_async(&self.wal.get().log, Some(self.tag), payload, Until::Appended)
    }

    /// Appends a record with the tag: an awaitable of its LSN, which waits until it is durable.
    #[pyo3(signature = (payload, /))]
    fn append_durable_async<'py>(
        &self,
        payload: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, LogFuture>> {
        append_async(&self.wal.get().log, Some(self.tag), payload, Until::Durable)
    }

    /// Appends a batch with the tag. Returns the LSN of the first record.
    #[pyo3(signature = (payloads, /))]
    fn append_batch(&self, payloads: &Bound<'_, PyAny>) -> PyResult<u64> {
        let log = &self.wal.get().log;
        append_batch(log, Some(self.tag), payloads, true, |lsns| lsns.first_lsn().as_u64())
    }

    /// Appends a batch with the tag. Returns the LSN of every record.
    #[pyo3(signature = (payloads, /))]
    fn append_batch_lsns(&self, payloads: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
        append_batch(&self.wal.get().log, Some(self.tag), payloads, true, lsns_of)
    }

    /// Reads the durable records with the tag.
    #[pyo3(signature = (from_lsn=0))]
    fn reader(&self, from_lsn: u64) -> Reader {
        let reader = self.wal.get().log.wal.tagged(self.tag).reader(Lsn::new(from_lsn));
        Reader::new(Source::Forward(reader), Form::Object, "forwards")
    }

    /// Reads the durable records with the tag, then waits for more.
    #[pyo3(signature = (from_lsn=0))]
    fn follow(&self, from_lsn: u64) -> PyResult<Follower> {
        let log = &self.wal.get().log;
        let follow = log.wal.tagged(self.tag).follow(Lsn::new(from_lsn)).map_err(raise)?;
        Ok(Follower::inside(follow, Arc::downgrade(log)))
    }

    fn __repr__(&self) -> String {
        format!("<ringwal.Tagged tag={} of {:?}>", self.tag, self.wal.get().log.dir.display())
    }
}
