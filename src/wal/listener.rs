//! A closure that gets every new durable end: one registration for any number of waiters.

use std::fmt;
use std::sync::Arc;

use crate::durable::listeners::EndListener;
use crate::engine::state::LogState;
use crate::error::Result;
use crate::lsn::Lsn;
use crate::wal::Wal;

/// A listener of the durable end, from [`Wal::on_durable_end`]. Its drop removes the listener.
///
/// The drop waits for a running call of the listener, so the caller must hold no lock that the
/// listener takes. On the log's own threads, also in the listener itself, the drop waits for
/// nothing.
#[must_use = "the drop of this value removes the listener"]
pub struct DurableEndListener {
    state: Arc<LogState>,
    entry: Arc<EndListener>,
}

impl fmt::Debug for DurableEndListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableEndListener").field("log", &self.state).finish()
    }
}

impl Wal {
    /// Calls `listener` with each new durable end: once after each group, or after several groups
    /// that become durable together. Every record below that end is durable.
    ///
    /// An event loop serves all its waiters with one listener: it keeps them ordered by LSN, and
    /// settles those below the end. The cost for the log does not depend on their number.
    ///
    /// The ends increase strictly. `listener` gets every end above the [`Wal::durable_end`] that
    /// the caller reads after this call returned. The last call has an error: `Closed` after a
    /// close, or `Poisoned` after a failure. Nothing becomes durable after it. A listener that is
    /// dropped before gets no such call.
    ///
    /// `listener` runs on the I/O thread. There it must be quick, and a blocking call of the log
    /// gets `WouldDeadlock`. A panic in it is caught. The next group may be submitted before or
    /// after it. It must not own a clone of this handle: the log would never be closed by the drop
    /// of the last one.
    ///
    /// With a listener, [`Wal::append_durable`] of a lone committer wakes the I/O thread after its
    /// commit, for the listener's call.
    ///
    /// # Errors
    ///
    /// `Closed`, `Poisoned`, `Forked`: the log is not running, and `listener` was dropped.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-listen-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// let (send, ends) = std::sync::mpsc::channel();
    /// let listener = wal.on_durable_end(move |end| drop(send.send(end)))?;
    /// let lsn = wal.append(b"one of many that wait")?;
    /// while ends.recv().unwrap()? <= lsn {}
    /// drop(listener);
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    pub fn on_durable_end(
        &self,
        listener: impl FnMut(Result<Lsn>) + Send + 'static,
    ) -> Result<DurableEndListener> {
        let state = &self.appender().state;
        state.durable.check_running()?;
        match state.durable.listeners.enter(Box::new(listener)) {
            Some(entry) => Ok(DurableEndListener { state: Arc::clone(state), entry }),
            // The log has ended meanwhile.
            None => Err(state.durable.why_not_running()),
        }
    }
}

impl Drop for DurableEndListener {
    fn drop(&mut self) {
        if self.state.durable.is_forked() {
            // The log's memory is the parent's, and its locks may be held for ever.
            std::mem::forget(Arc::clone(&self.state));
            std::mem::forget(Arc::clone(&self.entry));
        } else {
            self.state.durable.listeners.remove(&self.entry);
        }
    }
}
