//! Reading a log that another process may be writing.
//!
//! Invariants:
//! 1. Nothing is locked, made or changed.
//! 2. What is read was durable: while there is a writer, it says how far (`end_file`), or the groups prove it; when
//!    there is none, the end is where opening the log would find it.
//! 3. A word beside the log is advice: it is held against the groups and against the locks of its writer. One that the groups
//!    do not reach, of this boot and directory, is damage; any other is ignored.
//! 4. An error is looked at twice: what retention has taken meanwhile is `Pruned` (`LogView::explain`), and a directory
//!    that the writer was in the middle of changing is looked at again. Only what stays is reported.
//! 5. A segment is known for good when something in it was durable before it was looked at: one that was only
//!    prepared may be made anew, of another size, by the next writer.

mod follow;

mod reader;
mod snapshot;
mod tip;

use std::path::Path;
use std::sync::Arc;

pub use follow::ReadOnlyFollow;
pub use reader::ReadOnlyReader;

use crate::engine::log_view::LogView;
use crate::error::{Error, ReplayError, Result};
use crate::io::fs::OsDir;
use crate::lsn::Lsn;
use crate::read::{BackwardReader, Record, read_one};
use crate::sys::sync::{Mutex, lock};
use snapshot::Known;

/// A log that is read while another process, or this one, may write it; or that nobody writes.
///
/// It takes no lock and changes nothing, so that it needs a directory and files that may be read and no more: any number
/// of processes may read beside the one writer. Only durable records are seen; after a restart of the machine, until
/// the log is opened by a writer again, those that it would find. Cheap to clone. A child of `fork()` must open it
/// again: there everything gets `Forked`. What it has seen of the directory is
/// brought up to date by each call. Calls read from the device, and wait for a directory that is being changed, for
/// a second at most: not for the threads of an executor.
///
/// ```
/// use ringwal::{Lsn, ReadOnlyWal, Wal};
/// # let dir = std::env::temp_dir().join(format!("ringwal-doc-ro-{}", std::process::id()));
/// let wal = Wal::open(&dir)?;
/// wal.append_durable(b"seen from outside")?;
///
/// // In any process:
/// let log = ReadOnlyWal::open(&dir)?;
/// let records: Vec<_> = log.reader(Lsn::ZERO)?.collect::<Result<_, _>>()?;
/// assert_eq!(records[0].payload, b"seen from outside");
/// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), ringwal::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ReadOnlyWal {
    inner: Arc<Inner>,
}

struct Inner {
    view: Arc<LogView>,
    #[cfg_attr(not(linux_calls), allow(dead_code, reason = "only watched with nix"))]
    dir: Arc<OsDir>,
    known: Mutex<Known>,
}

/// Short: it is printed with every handle.
impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("view", &self.view).finish_non_exhaustive()
    }
}

impl ReadOnlyWal {
    /// Opens the log with the default prefix, `wal`. Reads the headers of all segments, and the groups of
    /// the last one.
    ///
    /// # Errors
    ///
    /// `Io` with `NotFound` if there is no such directory or no log in it; `Corruption`,
    /// `Unsupported` and `ForeignSegment` as [`Wal::open`](crate::Wal::open).
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with_prefix(dir, crate::options::DEFAULT_PREFIX)
    }

    /// Opens the log with this prefix.
    ///
    /// # Errors
    ///
    /// `Options` for a prefix that makes no plain file name; otherwise as [`ReadOnlyWal::open`].
    pub fn open_with_prefix(dir: impl AsRef<Path>, prefix: &str) -> Result<Self> {
        crate::options::validate_prefix(prefix)?;
        let path = dir.as_ref();
        let dir = OsDir::open(path).map_err(|e| Error::io("open directory", path, e))?;
        let dir = Arc::new(dir);
        let (view, known) = snapshot::open(&dir, prefix)?;
        Ok(ReadOnlyWal { inner: Arc::new(Inner { view, dir, known: Mutex::new(known) }) })
    }

    /// The first position that was not durable at this moment. While the writer runs this is one read of
    /// 64 bytes.
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyWal::open`].
    pub fn durable_end(&self) -> Result<Lsn> {
        self.inner.refresh().map(Lsn::new)
    }

    /// The oldest position that is kept at this moment.
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyWal::open`].
    pub fn oldest_lsn(&self) -> Result<Lsn> {
        self.inner.list()?;
        Ok(Lsn::new(self.inner.view.table.oldest()))
    }

    /// What the application calls the form of the records: see
    /// [`WalBuilder::application_version`](crate::WalBuilder::application_version). 0 if it did not say. To be compared
    /// by whoever reads values.
    #[must_use]
    pub fn application_version(&self) -> u32 {
        snapshot::application_version(&lock(&self.inner.known))
    }

    /// Reads from the first record at or after `from` to the end that is durable now. [`Lsn::ZERO`] is the
    /// oldest record.
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyWal::open`].
    pub fn reader(&self, from: Lsn) -> Result<ReadOnlyReader> {
        self.inner.list()?;
        let end = self.inner.refresh()?;
        Ok(ReadOnlyReader::new(Arc::clone(&self.inner), from.as_u64(), end))
    }

    /// Reads durable records backwards, from the last one below `before` to the oldest that is kept when it
    /// gets there. The writer's retention does not wait for it.
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyWal::open`].
    pub fn reader_back(&self, before: Lsn) -> Result<BackwardReader> {
        self.inner.list()?;
        let before = before.as_u64().min(self.inner.refresh()?);
        Ok(BackwardReader::new(Arc::clone(&self.inner.view), before))
    }

    /// Calls `apply` with every durable record, oldest first, and returns how many there were.
    ///
    /// # Errors
    ///
    /// [`ReplayError::Log`] if the log cannot be read, [`ReplayError::Apply`] with the first error
    /// that `apply` returns.
    pub fn replay<E>(
        &self,
        mut apply: impl FnMut(Lsn, &[u8]) -> Result<(), E>,
    ) -> Result<u64, ReplayError<E>> {
        let mut reader = self.reader(Lsn::ZERO)?;
        let mut records = 0;
        while let Some(record) = reader.next_ref()? {
            let lsn = record.lsn;
            apply(lsn, record.payload).map_err(|error| ReplayError::Apply { lsn, error })?;
            records += 1;
        }
        Ok(records)
    }

    /// Reads the record at exactly `lsn`.
    ///
    /// # Errors
    ///
    /// `Pruned` below the oldest, `NotDurable` at or above the durable end, `Truncated`, `NoRecord`,
    /// `Corruption`, `Io`.
    pub fn read(&self, lsn: Lsn) -> Result<Record> {
        let end = self.inner.refresh()?;
        if lsn.as_u64() >= end {
            return Err(Error::NotDurable { lsn, durable_end: Lsn::new(end) });
        }
        read_one(&self.inner.view, lsn.as_u64(), end)
    }

    /// Reads from the first record at or after `from`, and then waits for more as the writer makes
    /// them durable. It does not end when the writer closes the log: another may come.
    ///
    /// # Errors
    ///
    /// `Pruned` below the oldest, `NotDurable` above the durable end; otherwise as
    /// [`ReadOnlyWal::open`].
    pub fn follow(&self, from: Lsn) -> Result<ReadOnlyFollow> {
        self.inner.list()?;
        let end = self.inner.refresh()?;
        if from.as_u64() > end {
            return Err(Error::NotDurable { lsn: from, durable_end: Lsn::new(end) });
        }
        ReadOnlyFollow::new(Arc::clone(&self.inner), from.as_u64(), end)
    }
}

impl Inner {
    /// Looks how far the log is durable now.
    fn refresh(&self) -> Result<u64> {
        self.view.check_not_forked()?;
        snapshot::refresh(&self.view, &mut lock(&self.known))
    }

    /// Whether a writer says how far the log is durable.
    #[cfg(linux_calls)]
    fn is_told(&self) -> bool {
        snapshot::is_told(&lock(&self.known))
    }

    /// Looks which segments there are now.
    fn list(&self) -> Result<()> {
        self.view.check_not_forked()?;
        snapshot::list(&self.view, &mut lock(&self.known))
    }
}
