//! What a reader needs of a log: its directory, its segments, and its cuts.

use std::sync::Arc;

use crate::error::Error;
use crate::io::fs::{Access, Dir, File};
use crate::lsn::Lsn;
use crate::recovery::{MISSING, is_gone, states_oldest};
use crate::segment::cuts::Cuts;
use crate::segment::recent::RecentGroups;
use crate::segment::{Names, SegmentName, SegmentTable};
use crate::sys::sync::{AtomicU32, Ordering};

pub(crate) struct LogView {
    pub(crate) table: Arc<SegmentTable>,
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) names: Names,
    /// Copies of the newest groups.
    pub(crate) tail: Arc<RecentGroups>,
    pub(crate) cuts: Cuts,
    /// 1 if this process does not write the log, or not any more: another process may.
    left: AtomicU32,
}

/// Short: the `Debug` output of every handle contains it.
impl std::fmt::Debug for LogView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.dir.path_of(self.names.prefix());
        f.debug_struct("LogView")
            .field("path", &path)
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

impl LogView {
    pub(crate) fn new(
        table: SegmentTable,
        dir: &Arc<dyn Dir>,
        names: &Names,
        tail: RecentGroups,
        cuts: Cuts,
    ) -> Self {
        LogView {
            table: Arc::new(table),
            dir: Arc::clone(dir),
            names: names.clone(),
            tail: Arc::new(tail),
            cuts,
            left: AtomicU32::new(0),
        }
    }

    /// Fails in a child of fork() if the log was opened before the fork.
    pub(crate) fn check_not_forked(&self) -> Result<(), Error> {
        if self.table.is_forked() { Err(Error::Forked) } else { Ok(()) }
    }

    /// Notes that another process may write the log. Called before the lock is released, and by
    /// readers that hold no lock.
    pub(crate) fn leave(&self) {
        self.left.store(1, Ordering::SeqCst);
        self.table.release_files();
    }

    /// The cause of an error in reading at `lsn`. Retention may have removed the segment of a
    /// reader that does not pin it, or of one whose log is closed and has another writer.
    #[cold]
    pub(crate) fn explain(&self, e: Error, lsn: u64) -> Error {
        if !matches!(e, Error::Corruption { .. } | Error::Io { .. }) {
            return e;
        }
        let known = self.table.oldest();
        if lsn < known {
            return Error::Pruned { oldest: Lsn::new(known) };
        }
        if self.left.load(Ordering::SeqCst) == 0 {
            return e;
        }
        match self.oldest_there() {
            // Retention states durably what it removes before it removes it, so a group that is in
            // the directory now states that.
            Ok(Some(oldest)) if lsn < oldest => {
                match states_oldest(&*self.dir, &self.names, oldest) {
                    Ok(true) => Error::Pruned { oldest: Lsn::new(oldest) },
                    Ok(false) => self.missing(lsn).unwrap_or(e),
                    Err(_) => e,
                }
            }
            Ok(Some(_)) if is_gone(&e) => self.missing(lsn).unwrap_or(e),
            _ => e,
        }
    }

    /// The error for a segment that held `lsn`, is gone, and was not removed by retention.
    fn missing(&self, lsn: u64) -> Option<Error> {
        let Ok(header) = self.table.find(lsn) else { return None };
        Some(self.names.corruption(header.base, header.base, MISSING))
    }

    /// Opens the segment that starts at `base`.
    pub(crate) fn open_segment(&self, base: u64, access: Access) -> Result<Arc<dyn File>, Error> {
        let opened = self.dir.open(&self.names.segment(base), access);
        opened.map_err(|e| self.segment_error("open", base, e))
    }

    /// The error of an operation on the segment that starts at `base`.
    #[cold]
    pub(crate) fn segment_error(&self, op: &'static str, base: u64, e: std::io::Error) -> Error {
        Error::io(op, self.dir.path_of(&self.names.segment(base)), e)
    }

    /// The base of the oldest segment in the directory.
    pub(crate) fn oldest_there(&self) -> std::io::Result<Option<u64>> {
        let entries = self.dir.list()?;
        let bases = entries.iter().filter_map(|entry| match self.names.parse(&entry.name) {
            SegmentName::Segment(base) => Some(base),
            SegmentName::Temporary | SegmentName::Foreign => None,
        });
        Ok(bases.min())
    }
}
