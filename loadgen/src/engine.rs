//! What a log is to the workloads: the three things that every log can do, and what a few can do better.
//!
//! [`Wal`] is one; the suite of other logs implements the same for theirs, so that all are driven by the same threads, the
//! same records and the same clocks.

use ringwal::{Lsn, Wal};

/// Any engine's error.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Shorthand with [`Failure`].
pub type Result<T> = std::result::Result<T, Failure>;

/// Where a record is: of two records of one thread, the later one has the higher position.
pub type Position = u64;

/// An open log.
///
/// ```
/// use std::sync::Mutex;
/// use loadgen::engine::{Engine, Result};
///
/// /// A log that forgets everything.
/// struct Nothing(Mutex<u64>);
///
/// impl Engine for Nothing {
///     fn append_durable(&self, payload: &[u8]) -> Result<()> {
///         self.append(payload)
///     }
///
///     fn append(&self, payload: &[u8]) -> Result<()> {
///         *self.0.lock().unwrap() += payload.len() as u64;
///         Ok(())
///     }
///
///     fn sync(&self) -> Result<()> {
///         Ok(())
///     }
/// }
///
/// let (engine, plan) = (Nothing(Mutex::new(0)), loadgen::workload::Plan::blocking(2, 100));
/// let plan = loadgen::workload::Plan { records: Some(1000), ..plan };
/// let outcome = loadgen::workload::drive(&engine, &plan)?;
/// assert_eq!((outcome.records, *engine.0.lock().unwrap()), (1000, 100_000));
/// # Ok::<(), loadgen::Error>(())
/// ```
pub trait Engine: Send + Sync {
    /// Appends a record and returns when it is durable.
    ///
    /// # Errors
    ///
    /// The engine's.
    fn append_durable(&self, payload: &[u8]) -> Result<()>;

    /// Appends a record that the next [`Engine::sync`] makes durable at the latest. May wait where a buffer is full.
    ///
    /// # Errors
    ///
    /// The engine's.
    fn append(&self, payload: &[u8]) -> Result<()>;

    /// Returns when everything is durable whose [`Engine::append`] had returned before the call.
    ///
    /// # Errors
    ///
    /// The engine's.
    fn sync(&self) -> Result<()>;

    /// [`Engine::append_durable`], with the record's position if the engine tells.
    ///
    /// # Errors
    ///
    /// The engine's.
    #[inline]
    fn append_durable_at(&self, payload: &[u8]) -> Result<Option<Position>> {
        self.append_durable(payload).map(|()| None)
    }

    /// [`Engine::append`], with the record's position if the engine tells.
    ///
    /// # Errors
    ///
    /// The engine's.
    #[inline]
    fn append_at(&self, payload: &[u8]) -> Result<Option<Position>> {
        self.append(payload).map(|()| None)
    }

    /// Whether the record there is durable, as far as can be said without waiting.
    fn is_durable(&self, _: Option<Position>) -> bool {
        false
    }

    /// Returns when the record there is durable; without a position, when all are.
    ///
    /// # Errors
    ///
    /// The engine's.
    fn wait_durable(&self, _: Option<Position>) -> Result<()> {
        self.sync()
    }

    /// Closes the log, for engines whose drop cannot report a failure.
    ///
    /// # Errors
    ///
    /// The engine's.
    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }

    /// What the engine decided by itself and a reader of the figures should know.
    fn note(&self) -> Option<String> {
        None
    }

    /// The log itself, if it is this project's: asynchronous tasks can drive no other.
    fn wal(&self) -> Option<&Wal> {
        None
    }
}

impl Engine for Wal {
    fn append_durable(&self, payload: &[u8]) -> Result<()> {
        Engine::append_durable_at(self, payload).map(|_| ())
    }

    fn append(&self, payload: &[u8]) -> Result<()> {
        Engine::append_at(self, payload).map(|_| ())
    }

    fn sync(&self) -> Result<()> {
        Wal::sync(self)?;
        Ok(())
    }

    #[inline]
    fn append_durable_at(&self, payload: &[u8]) -> Result<Option<Position>> {
        Ok(Some(Wal::append_durable(self, payload)?.as_u64()))
    }

    #[inline]
    fn append_at(&self, payload: &[u8]) -> Result<Option<Position>> {
        Ok(Some(Wal::append(self, payload)?.as_u64()))
    }

    fn is_durable(&self, at: Option<Position>) -> bool {
        at.is_some_and(|at| self.durable_end().as_u64() > at)
    }

    fn wait_durable(&self, at: Option<Position>) -> Result<()> {
        match at {
            Some(at) => Ok(Wal::wait_durable(self, Lsn::new(at))?),
            None => Engine::sync(self),
        }
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(Wal::close(&self)?)
    }

    fn note(&self) -> Option<String> {
        let info = self.backend();
        Some(format!("{} ({:?})", info.commit_method, info.commit_method_reason))
    }

    fn wal(&self) -> Option<&Wal> {
        Some(self)
    }
}
