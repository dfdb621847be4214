//! Where the newest durable record starts, for the lag of followers and consumers.

use crate::sys::sync::{Mutex, lock};

/// The groups that an answer belongs to: the newest one with records, and the number of cuts.
pub(crate) type NewestKey = (u64, u64);

/// Remembers the last answer. Written and read by the calls that ask for a lag, so each group is
/// read at most once for it by calls that do not overlap.
#[derive(Debug)]
pub(crate) struct NewestRecord {
    /// The LSN of the newest record, 0 if there is none, and what the answer belongs to.
    known: Mutex<Option<(NewestKey, u64)>>,
}

impl NewestRecord {
    pub(super) fn new() -> Self {
        NewestRecord { known: Mutex::new(None) }
    }

    /// The answer for `key`, if it is known.
    pub(crate) fn get(&self, key: NewestKey) -> Option<u64> {
        lock(&self.known).filter(|(known, _)| *known == key).map(|(_, lsn)| lsn)
    }

    pub(crate) fn set(&self, key: NewestKey, lsn: u64) {
        *lock(&self.known) = Some((key, lsn));
    }
}
