//! What reading needs of a log: its segments, where they lie, and which records were cut out.

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
    /// The log is closed, or was never written from here: the directory may have another writer.
    left: AtomicU32,
}

/// Short: it is printed with every handle.
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

    /// In a child of fork(), of a log that was opened before.
    pub(crate) fn check_not_forked(&self) -> Result<(), Error> {
        if self.table.is_forked() { Err(Error::Forked) } else { Ok(()) }
    }

    /// Before the lock is let go, or where there is none.
    pub(crate) fn leave(&self) {
        self.left.store(1, Ordering::SeqCst);
        self.table.unlock_spares();
    }

    /// What an error in reading at `lsn` comes from: retention may have taken the place from under a reader that
    /// does not hold it, or whose log is closed and written by another by now.
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
            // Retention says durably what it takes before it does: a group that is there now says so too.
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

    /// The segment that held `lsn` is gone, and retention has not taken it.
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

    /// The base of the oldest segment that is in the directory now.
    pub(crate) fn oldest_there(&self) -> std::io::Result<Option<u64>> {
        let entries = self.dir.list()?;
        let bases = entries.iter().filter_map(|entry| match self.names.parse(&entry.name) {
            SegmentName::Segment(base) => Some(base),
            SegmentName::Temporary | SegmentName::Foreign => None,
        });
        Ok(bases.min())
    }
}
