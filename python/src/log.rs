//! The log behind a `Wal`, and what ends with it.

use std::future::Future as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::task::{Context, Poll, Waker};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use ringwal::{Error, Lsn, Result};

use crate::event_loop::Hub;

/// An open log.
#[derive(Debug)]
pub(crate) struct OpenLog {
    pub(crate) wal: ringwal::Wal,
    pub(crate) dir: PathBuf,
    pub(crate) prefix: String,
    /// Whether each group is synced without a request.
    pub(crate) syncs_every_group: bool,
    /// One for each event loop that has awaited something of this log.
    pub(crate) hubs: Mutex<Vec<Arc<Hub>>>,
    /// A call has asked for the end of the log.
    is_closed: AtomicBool,
    /// `truncate_from` was called: a position that is durable may be void.
    has_cuts: AtomicBool,
}

/// The logs that are open, for the end of the interpreter.
static OPEN: Mutex<Vec<Weak<OpenLog>>> = Mutex::new(Vec::new());

/// Takes a lock that no caller holds while it waits or runs Python code.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the lock of an object that a call holds while it waits. Refuses if another call has it.
pub(crate) fn try_locked<'a, T>(mutex: &'a Mutex<T>, what: &str) -> PyResult<MutexGuard<'a, T>> {
    match mutex.try_lock() {
        Ok(held) => Ok(held),
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => {
            let message = format!("another thread is using this {what}: give each its own");
            Err(PyRuntimeError::new_err(message))
        }
    }
}

/// A prefix in the representation of a log, unless it is that of most logs.
pub(crate) fn named_prefix(prefix: &str) -> String {
    if prefix == "wal" { String::new() } else { format!(" prefix={prefix:?}") }
}

impl OpenLog {
    pub(crate) fn new(
        wal: ringwal::Wal,
        dir: PathBuf,
        prefix: String,
        syncs_every_group: bool,
    ) -> Arc<OpenLog> {
        let hubs = Mutex::new(Vec::new());
        let log = Arc::new(OpenLog {
            wal,
            dir,
            prefix,
            syncs_every_group,
            hubs,
            is_closed: AtomicBool::new(false),
            has_cuts: AtomicBool::new(false),
        });
        let mut open = locked(&OPEN);
        open.retain(|log| log.strong_count() > 0);
        open.push(Arc::downgrade(&log));
        log
    }

    /// Makes everything durable and releases the log. Waits for the disk.
    pub(crate) fn close(&self) -> Result<()> {
        let closed = self.wal.close();
        // A callback of the log, or a child process, has closed nothing.
        if !matches!(closed, Err(Error::WouldDeadlock | Error::Forked)) {
            self.is_closed.store(true, Relaxed);
        }
        closed
    }

    /// Whether the log was closed, also by a failure of the close.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Relaxed) || matches!(self.wal.health(), Err(Error::Closed))
    }

    /// Cuts the record at `lsn` and every later one out of the log.
    pub(crate) fn truncate_from(&self, lsn: Lsn) -> Result<Lsn> {
        self.has_cuts.store(true, Relaxed);
        self.wal.truncate_from(lsn)
    }

    /// The error of a durable position that a cut has made void.
    pub(crate) fn cut_at(&self, lsn: Lsn) -> Option<Error> {
        if !self.has_cuts.load(Relaxed) {
            return None;
        }
        self.wal.wait_durable(lsn).err().filter(|error| matches!(error, Error::Truncated { .. }))
    }

    /// Asks for a record's durability, and does not wait for it.
    pub(crate) fn ask_durable(&self, lsn: Lsn) -> Poll<Result<()>> {
        let mut future = self.wal.when_durable(lsn);
        Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Requests a sync where the log does not sync each group. A wait reports the outcome.
    pub(crate) fn request_sync(&self, lsn: Lsn) {
        if !self.syncs_every_group {
            let _ = self.ask_durable(lsn);
        }
    }

    /// Appends a record, without waiting.
    #[inline]
    pub(crate) fn try_append(&self, tag: Option<u64>, payload: &[u8]) -> Result<Lsn> {
        match tag {
            None => self.wal.try_append(payload),
            Some(tag) => self.wal.tagged(tag).try_append(payload),
        }
    }

    /// Appends a record. Waits while the ring is full.
    pub(crate) fn append(&self, tag: Option<u64>, payload: &[u8]) -> Result<Lsn> {
        match tag {
            None => self.wal.append(payload),
            Some(tag) => self.wal.append_tagged(tag, payload),
        }
    }

    /// Appends a record and waits until it is durable.
    pub(crate) fn append_durable(&self, tag: Option<u64>, payload: &[u8]) -> Result<Lsn> {
        match tag {
            None => self.wal.append_durable(payload),
            Some(tag) => self.wal.tagged(tag).append_durable(payload),
        }
    }
}

impl Drop for OpenLog {
    /// Closes the log detached: closing waits for the disk.
    fn drop(&mut self) {
        let hubs = std::mem::take(self.hubs.get_mut().unwrap_or_else(PoisonError::into_inner));
        let wal = self.wal.clone();
        let close = move || drop(wal.close());
        // Without an interpreter there is nothing to detach from.
        Python::try_attach(|py| {
            drop(hubs);
            py.detach(close);
        });
    }
}

/// Closes every log that is open.
pub(crate) fn close_all(py: Python<'_>) {
    let open = std::mem::take(&mut *locked(&OPEN));
    let open: Vec<Arc<OpenLog>> = open.iter().filter_map(Weak::upgrade).collect();
    for log in &open {
        locked(&log.hubs).iter().for_each(|hub| hub.end_bell());
    }
    py.detach(|| {
        for log in &open {
            // Its failure was reported to every call before.
            drop(log.close());
        }
    });
}
