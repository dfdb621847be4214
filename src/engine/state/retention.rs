//! How far retention has come, and what `truncate_before` requested.

use crate::sys::sync::{AtomicU64, Ordering};

/// LSNs below which segments are removed, one for each stage, and the requests of
/// `truncate_before`.
///
/// `wanted >= submitted >= durable`: the segment keeper wants, the I/O thread states that in a
/// group header, and the header becomes durable. Only then may the keeper remove files.
#[derive(Debug)]
pub(crate) struct RetentionState {
    /// Written by the segment keeper, read by the I/O thread.
    wanted: AtomicU64,
    /// Stated in a submitted group header. Written by the I/O thread, read by `truncate_before`.
    submitted: AtomicU64,
    /// Stated in a durable group header. Written by the I/O thread, read by the segment keeper.
    durable: AtomicU64,
    /// LSN of the newest durable group that holds records; 0 if there is none. Written by recovery
    /// and the I/O thread, read by the segment keeper.
    newest_record: AtomicU64,
    /// The highest LSN that `truncate_before` was called with. Read by the segment keeper.
    truncate_to: AtomicU64,
    /// Calls of `truncate_before`. Written by the callers, read by the segment keeper.
    calls: AtomicU64,
    /// Calls carried out as far as pins, the hook and consumers permit. Written by the segment
    /// keeper, read by the callers.
    calls_done: AtomicU64,
}

impl RetentionState {
    pub(super) fn new(oldest: u64) -> Self {
        RetentionState {
            wanted: AtomicU64::new(oldest),
            submitted: AtomicU64::new(oldest),
            durable: AtomicU64::new(oldest),
            newest_record: AtomicU64::new(0),
            truncate_to: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            calls_done: AtomicU64::new(0),
        }
    }

    /// Raises the LSN below which segments are to be removed. True if it rose.
    pub(super) fn raise_wanted(&self, oldest: u64) -> bool {
        self.wanted.fetch_max(oldest, Ordering::SeqCst) < oldest
    }

    pub(crate) fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::SeqCst)
    }

    pub(crate) fn set_submitted(&self, oldest: u64) {
        self.submitted.store(oldest, Ordering::SeqCst);
    }

    /// Whether the wanted LSN is in no submitted group header yet.
    pub(super) fn is_unsubmitted(&self) -> bool {
        self.wanted() > self.submitted.load(Ordering::SeqCst)
    }

    /// Raises the LSN that a durable group header states. True if it rose.
    pub(super) fn raise_durable(&self, oldest: u64) -> bool {
        self.durable.fetch_max(oldest, Ordering::SeqCst) < oldest
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::SeqCst)
    }

    /// A durable group at `lsn` holds records.
    pub(crate) fn set_newest_record(&self, lsn: u64) {
        self.newest_record.fetch_max(lsn, Ordering::SeqCst);
    }

    pub(crate) fn newest_record(&self) -> u64 {
        self.newest_record.load(Ordering::SeqCst)
    }

    /// Registers a call of `truncate_before` and returns its number.
    pub(crate) fn ask_truncation(&self, wanted: u64) -> u64 {
        self.truncate_to.fetch_max(wanted, Ordering::SeqCst);
        self.calls.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Whether the call of this number was carried out.
    pub(crate) fn is_truncated(&self, call: u64) -> bool {
        self.calls_done.load(Ordering::SeqCst) >= call
    }

    pub(crate) fn truncate_to(&self) -> u64 {
        self.truncate_to.load(Ordering::SeqCst)
    }

    /// Calls so far. The segment keeper reads this before it decides what to remove: a later call
    /// is for the next round.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// All calls up to this number were carried out.
    pub(crate) fn set_calls_done(&self, calls: u64) {
        self.calls_done.store(calls, Ordering::SeqCst);
    }
}
