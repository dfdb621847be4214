//! The types of the groups, and the entries that are appended.

use std::io::Cursor;

use openraft::{AnyError, BasicNode, CommittedLeaderId, Entry, EntryPayload, LogId};
use openraft::{StorageError, StorageIOError};

openraft::declare_raft_types!(
    pub Types: D = String, R = (), NodeId = u64, Node = BasicNode, SnapshotData = Cursor<Vec<u8>>
);

/// What a store returns.
pub type Stored<T> = Result<T, StorageError<u64>>;

/// An entry with a payload of so many bytes.
pub fn entry(index: u64, bytes: usize) -> Entry<Types> {
    let log_id = LogId::new(CommittedLeaderId::new(1, 1), index);
    Entry { log_id, payload: EntryPayload::Normal("x".repeat(bytes)) }
}

/// A store's error, as openraft names it.
pub fn failed(error: impl std::error::Error + 'static) -> StorageError<u64> {
    StorageIOError::write_logs(AnyError::new(&error)).into()
}
