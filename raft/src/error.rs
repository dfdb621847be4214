//! Errors of opening and of the groups.

use std::io;

use ringwal::{CodecError, Lsn};

/// Why a log cannot serve as the log of Raft groups. Nothing was deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The log itself: see [`ringwal::Error`]. `ApplicationVersion` means that the directory holds
    /// a log of another kind.
    #[error(transparent)]
    Wal(#[from] ringwal::Error),
    /// A record has no tag, so that it is of no Raft group.
    #[error(
        "the record at {lsn} belongs to no Raft group: another program appended to this log; give the \
         groups a log of their own, by directory or prefix"
    )]
    ForeignRecord {
        /// The record's position.
        lsn: Lsn,
    },
    /// A record of a group is none that this version knows.
    #[error(
        "the record at {lsn} is none of this version's: use the version that wrote it, or a newer one"
    )]
    UnknownRecord {
        /// The record's position.
        lsn: Lsn,
    },
    /// Entries are missing in a group: the log has lost its oldest segments, or more was removed
    /// than the group had purged.
    #[error(
        "group {group} lacks the entries from index {first_missing} up to {next}: restore the log's \
         directory from a backup, or remove the log and add this node to its groups again, as a new \
         one"
    )]
    MissingEntries {
        /// The group's id.
        group: u64,
        /// The first index without an entry.
        first_missing: u64,
        /// The next index that has one.
        next: u64,
    },
    /// The builder sets a limit by which the log itself removes segments, whatever they hold.
    #[error(
        "the builder sets {option}, by which the log removes segments whatever they hold, as the \
         vote of a group: open it without {option}; segments are released after purges, and \
         LogOptions::lag_limit bounds what a slow group keeps"
    )]
    RetentionLimit {
        /// The name of the builder's method.
        option: &'static str,
    },
    /// The log begins later than its groups released it: something else removed segments. Votes
    /// may be gone, and a group whose vote is gone may vote twice in a term.
    #[error(
        "the log begins at {oldest}, but its groups released only what lies below {released}: \
         segments were removed by a limit of retention or by hand, and votes may be gone; restore \
         the log's directory from a backup, or remove the log and add this node to its groups \
         again, as a new one"
    )]
    LostFront {
        /// Where the log begins.
        oldest: Lsn,
        /// The position below which the groups needed nothing.
        released: Lsn,
    },
    /// An entry does not follow the last one, or the purged index. Nothing of the call was
    /// appended.
    #[error(
        "group {group}: an entry with index {index} cannot follow {last:?}; append without a gap, or \
         purge first what a snapshot contains"
    )]
    Gap {
        /// The group's id.
        group: u64,
        /// The index of the entry.
        index: u64,
        /// The last index, if there is one.
        last: Option<u64>,
    },
    /// An entry has an index that is purged already. Nothing of the call was appended. If the group
    /// has no entry and all of the call lie below the purged index, `append` ignores them instead:
    /// openraft's suite for storage expects that.
    #[error(
        "group {group}: an entry with index {index} cannot be appended, because the entries up to \
         {purged} are purged; append what follows them"
    )]
    Purged {
        /// The group's id.
        group: u64,
        /// The index of the entry.
        index: u64,
        /// The purged index.
        purged: u64,
    },
    /// The index `u64::MAX`, of an entry or of a purge: no index could follow it. Nothing of the
    /// call was appended. From opening: an earlier version appended such an entry.
    #[error("group {group}: the index {} has no next one; use lower indexes", u64::MAX)]
    IndexLimit {
        /// The group's id.
        group: u64,
    },
    /// An entry, a vote or a log id cannot be encoded or decoded. Also if the decoded value has
    /// another index than its record.
    #[error(
        "group {group}: {what} cannot be encoded or decoded as its type: {source}; use the \
         application's types, the codec and the kind of leader id that wrote the log"
    )]
    Codec {
        /// The group's id.
        group: u64,
        /// What it is.
        what: &'static str,
        /// The codec's error.
        source: CodecError,
    },
    /// A call of another thread ended in a panic.
    #[error("a task of the log panicked or was cancelled: {0}")]
    Task(String),
}

impl LogError {
    /// Whether the log has no room for a record, and accepts it once there is room.
    pub(crate) fn is_no_space(&self) -> bool {
        matches!(self, LogError::Wal(ringwal::Error::NoSpace))
    }
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> Self {
        let kind = match error {
            LogError::Wal(error) => return error.into(),
            LogError::ForeignRecord { .. }
            | LogError::UnknownRecord { .. }
            | LogError::MissingEntries { .. }
            | LogError::LostFront { .. }
            | LogError::Codec { .. } => io::ErrorKind::InvalidData,
            LogError::Gap { .. }
            | LogError::Purged { .. }
            | LogError::IndexLimit { .. }
            | LogError::RetentionLimit { .. } => io::ErrorKind::InvalidInput,
            LogError::Task(_) => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

pub(crate) type Result<T, E = LogError> = std::result::Result<T, E>;
