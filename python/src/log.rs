//! The log behind a `Wal`, and what ends with it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pyo3::prelude::*;
use pyo3::types::PyCFunction;
use ringwal::{Lsn, Result};

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
}

/// The logs that are open, for the end of the interpreter.
static OPEN: Mutex<Vec<Weak<OpenLog>>> = Mutex::new(Vec::new());

/// Takes a lock that no caller holds while it waits or runs Python code.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OpenLog {
    pub(crate) fn new(
        wal: ringwal::Wal,
        dir: PathBuf,
        prefix: String,
        syncs_every_group: bool,
    ) -> Arc<OpenLog> {
        let hubs = Mutex::new(Vec::new());
        let log = Arc::new(OpenLog { wal, dir, prefix, syncs_every_group, hubs });
        let mut open = locked(&OPEN);
        open.retain(|log| log.strong_count() > 0);
        open.push(Arc::downgrade(&log));
        log
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

/// Closes every log when the interpreter ends, so that records that were appended are durable.
/// In a child of `fork()` this changes nothing: the logs belong to the parent.
pub(crate) fn close_at_exit(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let close_all = PyCFunction::new_closure(module.py(), None, None, |arguments, _| {
        let open = std::mem::take(&mut *locked(&OPEN));
        let open: Vec<Arc<OpenLog>> = open.iter().filter_map(Weak::upgrade).collect();
        let py = arguments.py();
        py.detach(|| {
            for log in &open {
                // Its failure was reported to every call before.
                drop(log.wal.close());
            }
        });
    })?;
    module.py().import("atexit")?.call_method1("register", (close_all,))?;
    Ok(())
}
