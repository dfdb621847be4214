//! The commands of the replicated log.

use std::io::Cursor;

use openraft::BasicNode;
use serde::{Deserialize, Serialize};

/// The id of the Raft group in the log. A process of many groups would give each an id of its own.
pub const GROUP: u64 = 1;

/// One change of the key-value map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Sets a key.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: String,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: String,
    },
}

impl Change {
    /// Bytes of the key and the value.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Change::Put { key, value } => key.len() + value.len(),
            Change::Delete { key } => key.len(),
        }
    }

    /// Whether key and value are empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The changes of one log entry. The clients that wait at the same time share an entry, because
/// openraft 0.9 waits for the disk after each entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch(pub Vec<Change>);

openraft::declare_raft_types!(
    /// The types of the Raft group. The answer to a batch says of each change whether its key was
    /// there before.
    pub Types: D = Batch, R = Vec<bool>, NodeId = u64, Node = BasicNode, SnapshotData = Cursor<Vec<u8>>
);

/// The handle of a node's Raft.
pub type Raft = openraft::Raft<Types>;

/// The id of an entry.
pub type LogId = openraft::LogId<u64>;

/// What describes a snapshot.
pub type SnapshotMeta = openraft::SnapshotMeta<u64, BasicNode>;

/// The membership, with the entry that set it.
pub type Membership = openraft::StoredMembership<u64, BasicNode>;
