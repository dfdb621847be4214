//! Records that wait for the next sync, for peers that have no append without a commit of its own.

use std::sync::{Mutex, PoisonError};

/// Beyond this, whoever appends commits what is there: memory stays bounded.
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

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// Where they wait. Two locks: appends go on while a batch is committed, and a sync waits for the
/// batch that another thread is committing.
#[derive(Debug, Default)]
pub struct Batch {
    waiting: Mutex<Records>,
    committing: Mutex<()>,
}

impl Batch {
    /// Adds a record; commits when there is too much.
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

    /// Commits everything that waits.
    pub fn flush<E>(&self, commit: impl FnOnce(Records) -> Result<(), E>) -> Result<(), E> {
        // Taken after the commit lock, so that what this call finds gone is durable already.
        let _committing = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        let records =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if records.is_empty() { Ok(()) } else { commit(records) }
    }
}
