//! Records that wait for the next sync, for peers whose every append commits.

use std::sync::{Mutex, PoisonError};

/// Bytes of waiting records at which an append commits them, so that memory stays bounded.
const FULL: usize = 32 << 20;

/// Records one after the other in one allocation.
#[derive(Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Records {
    /// The records, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let record = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            record
        })
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// The waiting records. With two locks, appends continue during a commit, and a sync waits for the
/// commit of another thread.
#[derive(Debug, Default)]
pub struct Batch {
    waiting: Mutex<Records>,
    committing: Mutex<()>,
}

impl Batch {
    /// Adds a record. Commits if too many bytes wait.
    pub fn add<E>(
        &self,
        payload: &[u8],
        commit: impl FnOnce(Records) -> Result<(), E>,
    ) -> Result<(), E> {
        let full = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.bytes.extend_from_slice(payload);
            let end = waiting.bytes.len();
            waiting.ends.push(end);
            end >= FULL
        };
        if full { self.flush(commit) } else { Ok(()) }
    }

    /// Commits every waiting record.
    pub fn flush<E>(&self, commit: impl FnOnce(Records) -> Result<(), E>) -> Result<(), E> {
        // Taken after the commit lock, so that records which this call no longer finds are durable.
        let _committing = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        let records =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if records.is_empty() { Ok(()) } else { commit(records) }
    }
}
