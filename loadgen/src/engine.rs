//! The interface of a log to the workloads: three required calls, and optional ones that few logs
//! have.
//!
//! [`Wal`] implements it. The suite of other logs implements it too, so that the same threads,
//! records and clocks drive all of them.

use ringwal::{Lsn, Wal};

/// The error of any engine.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A result with [`Failure`].
pub type Result<T> = std::result::Result<T, Failure>;

/// The position of a record. Of two records of one thread, the later one has the higher position.
pub type Position = u64;

/// An open log.
///
/// ```
/// use std::sync::Mutex;
/// use loadgen::engine::{Engine, Result};
///
/// /// A log that discards everything.
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
    /// The engine's own.
    fn append_durable(&self, payload: &[u8]) -> Result<()>;

    /// Appends a record, which the next [`Engine::sync`] makes durable at the latest. May block
    /// while a buffer is full.
    ///
    /// # Errors
    ///
    /// The engine's own.
    fn append(&self, payload: &[u8]) -> Result<()>;

    /// Returns when every record is durable whose [`Engine::append`] returned before the call.
    ///
    /// # Errors
    ///
    /// The engine's own.
    fn sync(&self) -> Result<()>;

    /// Works as [`Engine::append_durable`], and returns the position if the engine reports one.
    ///
    /// # Errors
    ///
    /// The engine's own.
    #[inline]
    fn append_durable_at(&self, payload: &[u8]) -> Result<Option<Position>> {
        self.append_durable(payload).map(|()| None)
    }

    /// Works as [`Engine::append`], and returns the position if the engine reports one.
    ///
    /// # Errors
    ///
    /// The engine's own.
    #[inline]
    fn append_at(&self, payload: &[u8]) -> Result<Option<Position>> {
        self.append(payload).map(|()| None)
    }

    /// True if the record at the position is known to be durable. Does not block.
    fn is_durable(&self, _: Option<Position>) -> bool {
        false
    }

    /// Returns when the record at the position is durable; without a position, when all are.
    ///
    /// # Errors
    ///
    /// The engine's own.
    fn wait_durable(&self, _: Option<Position>) -> Result<()> {
        self.sync()
    }

    /// Closes the log. Some engines cannot report a failure from drop.
    ///
    /// # Errors
    ///
    /// The engine's own.
    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }

    /// Describes a decision of the engine that readers of the figures should know.
    fn note(&self) -> Option<String> {
        None
    }

    /// Returns the logs if they are ringwal's. Asynchronous tasks can drive only those.
    fn wals(&self) -> &[Wal] {
        &[]
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

    fn wals(&self) -> &[Wal] {
        std::slice::from_ref(self)
    }
}
