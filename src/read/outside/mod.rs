//! Reading a log that another process may be writing.
//!
//! Invariants:
//! 1. A reader locks, creates and changes nothing.
//! 2. A reader returns durable records only. A writer states the durable end in the end file, or
//!    the groups prove it. Without a writer, the end is where opening the log would find it.
//! 3. The end file is advice: a reader checks it against the groups and the writer's locks. If it
//!    is of this boot and directory, and the groups do not reach it, that is damage. A reader
//!    ignores any other end file that the groups do not reach.
//! 4. A reader checks every error twice. If retention has removed the place, the error is `Pruned`
//!    (`LogView::explain`). If the writer may be changing the directory, the reader reads it again.
//!    Only an error that stays is reported.
//! 5. A segment's header is final once something in the segment was durable before the header was
//!    read. The next writer may create a spare again, with another size.

mod cells;
mod follow;
mod reader;
mod snapshot;
mod tip;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

pub use follow::ReadOnlyFollow;
pub use reader::ReadOnlyReader;

use crate::engine::log_view::LogView;
use crate::error::{Error, ReplayError, Result};
use crate::io::fs::OsDir;
use crate::lsn::Lsn;
use crate::read::{BackwardReader, Record, places, read_one};
use crate::sys::sync::{Mutex, lock};
use snapshot::Snapshot;

/// A log that is only read, whether or not a process writes it.
///
/// It takes no lock and changes nothing, so permission to read the directory and its files is
/// enough. Any number of processes may read beside the one writer. It returns durable records only.
/// After a restart of the machine, until a writer opens the log, it returns the records that the
/// writer would find. Each call reads how the directory has changed. Cheap to clone.
///
/// Calls block: they read from the device, and wait for at most a second while the writer changes
/// the directory. Do not make them on the threads of an executor. After `fork()` every call in the
/// child returns `Forked`: the child must open the log again.
///
/// It keeps the files open of at most 64 segments that [`read`](ReadOnlyWal::read) has read. If the
/// writer removes one of them, the file occupies the disk until a call here finds that the writer
/// has begun another segment since. Drop a `ReadOnlyWal` that is not used for long.
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
    log: Arc<LogDirectory>,
}

/// A directory that another process may be changing, and what was read of it.
struct LogDirectory {
    view: Arc<LogView>,
    #[cfg_attr(not(linux_calls), allow(dead_code, reason = "only watched with nix"))]
    dir: Arc<OsDir>,
    snapshot: Mutex<Snapshot>,
}

/// Short, as every handle prints it.
impl std::fmt::Debug for LogDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogDirectory").field("view", &self.view).finish_non_exhaustive()
    }
}

impl ReadOnlyWal {
    /// Opens the log with the default prefix, `wal`.
    ///
    /// Reads the headers of all segments, and the groups of the last one.
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
    /// `Options` if the prefix does not make a plain file name; otherwise as [`ReadOnlyWal::open`].
    pub fn open_with_prefix(dir: impl AsRef<Path>, prefix: &str) -> Result<Self> {
        crate::options::validate_prefix(prefix)?;
        let path = dir.as_ref();
        let dir = OsDir::open(path).map_err(|e| Error::io("open directory", path, e))?;
        let dir = Arc::new(dir);
        let (view, snapshot) = snapshot::open(&dir, prefix)?;
        let log = LogDirectory { view, dir, snapshot: Mutex::new(snapshot) };
        Ok(ReadOnlyWal { log: Arc::new(log) })
    }

    /// The first position that was not durable at this moment.
    ///
    /// While the writer runs, the call reads 64 bytes.
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyWal::open`].
    pub fn durable_end(&self) -> Result<Lsn> {
        self.log.refresh().map(Lsn::new)
    }

    /// The oldest position that the log keeps at this moment.
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyWal::open`].
    pub fn oldest_lsn(&self) -> Result<Lsn> {
        self.log.list()?;
        Ok(Lsn::new(self.log.view.table.oldest()))
    }

    /// The application's version of its records, or 0 if it set none.
    ///
    /// An application that decodes records should compare it. See
    /// [`WalBuilder::application_version`](crate::WalBuilder::application_version).
    #[must_use]
    pub fn application_version(&self) -> u32 {
        snapshot::application_version(&lock(&self.log.snapshot))
    }

    /// Reads from the first record at or after `from` to the end that is durable now.
    ///
    /// [`Lsn::ZERO`] is the oldest record.
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyWal::open`]. The first call of `next` fails where [`ReadOnlyWal::follow`]
    /// fails: with `Pruned` below the oldest, and with `NotDurable` above the durable end.
    pub fn reader(&self, from: Lsn) -> Result<ReadOnlyReader> {
        self.log.list()?;
        let end = self.log.refresh()?;
        Ok(ReadOnlyReader::new(Arc::clone(&self.log), from.as_u64(), end))
    }

    /// Reads durable records backwards, from the last record below `before`.
    ///
    /// It ends at the record that is the oldest when it gets there. The writer's retention does not
    /// wait for it.
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyWal::open`].
    pub fn reader_back(&self, before: Lsn) -> Result<BackwardReader> {
        self.log.list()?;
        let before = before.as_u64().min(self.log.refresh()?);
        Ok(BackwardReader::new(Arc::clone(&self.log.view), before))
    }

    /// Calls `apply` with every durable record, oldest first, and returns the number of records.
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
    /// `Pruned` below the oldest, `NotDurable` at or above the durable end, `Truncated`,
    /// `NoRecord`, `Corruption`, `Io`.
    pub fn read(&self, lsn: Lsn) -> Result<Record> {
        let end = self.log.refresh()?;
        if lsn.as_u64() >= end {
            return Err(Error::NotDurable { lsn, durable_end: Lsn::new(end) });
        }
        read_one(&self.log.view, lsn.as_u64(), end)
    }

    /// Reads the record with this ordinal: see [`Wal::read_ordinal`](crate::Wal::read_ordinal).
    ///
    /// # Errors
    ///
    /// As there; otherwise as [`ReadOnlyWal::open`].
    pub fn read_ordinal(&self, ordinal: u64) -> Result<Record> {
        self.search(|end| places::read_ordinal(&self.log.view, end, ordinal))
    }

    /// Reads from the first group that was written at `time` or later to the end that is durable
    /// now: see [`Wal::reader_from_time`](crate::Wal::reader_from_time).
    ///
    /// # Errors
    ///
    /// As there; otherwise as [`ReadOnlyWal::open`].
    pub fn reader_from_time(&self, time: SystemTime) -> Result<ReadOnlyReader> {
        let (from, end) =
            self.search(|end| Ok((places::position_at(&self.log.view, end, time)?, end)))?;
        Ok(ReadOnlyReader::new(Arc::clone(&self.log), from, end))
    }

    /// Searches the log up to the durable end. If retention has removed a segment meanwhile,
    /// searches again.
    fn search<T>(&self, find: impl Fn(u64) -> Result<T>) -> Result<T> {
        let mut before = None;
        loop {
            self.log.list()?;
            let end = self.log.refresh()?;
            let oldest = self.log.view.table.oldest();
            match find(end) {
                Err(Error::Pruned { .. }) if before != Some(oldest) => before = Some(oldest),
                found => return found,
            }
        }
    }

    /// Reads from the first record at or after `from`, and waits for records that become durable.
    ///
    /// It does not end when the writer closes the log: another writer may open it.
    ///
    /// # Errors
    ///
    /// `Pruned` below the oldest, `NotDurable` above the durable end; otherwise as
    /// [`ReadOnlyWal::open`].
    pub fn follow(&self, from: Lsn) -> Result<ReadOnlyFollow> {
        self.log.list()?;
        let end = self.log.refresh()?;
        if from.as_u64() > end {
            return Err(Error::NotDurable { lsn: from, durable_end: Lsn::new(end) });
        }
        ReadOnlyFollow::new(Arc::clone(&self.log), from.as_u64(), end)
    }
}

impl LogDirectory {
    /// Reads the durable end.
    fn refresh(&self) -> Result<u64> {
        self.view.check_not_forked()?;
        snapshot::refresh(&self.view, &mut lock(&self.snapshot))
    }

    /// Whether a writer stated the durable end when it was read last.
    #[cfg(linux_calls)]
    fn has_reporting_writer(&self) -> bool {
        snapshot::has_reporting_writer(&lock(&self.snapshot))
    }

    /// Reads which segments the directory has.
    fn list(&self) -> Result<()> {
        self.view.check_not_forked()?;
        snapshot::list(&self.view, &mut lock(&self.snapshot))
    }

    /// Finds the oldest segment after retention has removed some of the known ones.
    fn skip_removed(&self) -> Result<()> {
        if snapshot::skip_removed(&self.view, &lock(&self.snapshot)) { Ok(()) } else { self.list() }
    }
}
