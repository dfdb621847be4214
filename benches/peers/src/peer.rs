//! The interface to a peer, and the table of all peers. For loadgen's workloads each peer is an
//! [`Engine`].

use std::any::Any;
use std::path::Path;

use crate::peers;

pub use loadgen::engine::{Engine, Result};

/// The purpose of an open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// [`Engine::append_durable`]. Old records need not be kept.
    Blocking,
    /// [`Engine::append`] and [`Engine::sync`]. Old records need not be kept.
    Relaxed,
    /// [`Engine::append`] and [`Engine::sync`]. Then every record is read back.
    Recovery,
}

/// The parameters by which a peer chooses its sizes and modes.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// The purpose of the open.
    pub purpose: Use,
    /// Payload bytes that will be written at most.
    pub bytes: u64,
}

impl Setup {
    /// Whether the peer must keep every record.
    pub fn keeps_all(&self) -> bool {
        self.purpose == Use::Recovery
    }
}

/// The kind of a peer, for the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The log that this suite belongs to.
    Own,
    /// A few dozen lines of this suite, to see what a library must beat.
    Baseline,
    /// A log.
    Log,
    /// A log inside a database: it does more with each record than the others.
    Database,
}

impl Kind {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Own => "own",
            Kind::Baseline => "baseline",
            Kind::Log => "log",
            Kind::Database => "database",
        }
    }
}

/// The records that were read back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number of records.
    pub records: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Sum of the numbers that payloads start with. It detects a lost record beside a duplicate,
    /// not two swapped records.
    pub sum: u64,
}

impl Tally {
    /// Counts one record.
    pub fn count(&mut self, payload: &[u8]) {
        self.records += 1;
        self.bytes += payload.len() as u64;
        let number = payload.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        self.sum = self.sum.wrapping_add(number);
    }
}

/// The result of a replay: the records, and the open log, whose close is not measured.
pub type Replayed = (Tally, Box<dyn Any>);

/// One line of the table.
pub struct Entry {
    /// The name in reports and for `--only`.
    pub name: &'static str,
    /// The package whose version is reported.
    pub package: &'static str,
    /// The kind of the peer.
    pub kind: Kind,
    /// The calls that make a record durable.
    pub durable_by: &'static str,
    /// Opens or creates a log in the directory.
    pub open: fn(&Path, &Setup) -> Result<Box<dyn Engine>>,
    /// Opens the log in the directory and reads every record, with the peer's own verification.
    pub replay: fn(&Path, &Setup) -> Result<Replayed>,
}

impl Entry {
    /// The version in the lock file that this program was built with.
    pub fn version(&self) -> &'static str {
        let lock = include_str!("../Cargo.lock");
        let mut lines = lock.lines();
        let wanted = |line: &str| {
            let name = line.strip_prefix("name = \"").and_then(|rest| rest.strip_suffix('"'));
            name == Some(self.package)
        };
        lines.find(|line| wanted(line));
        let version = lines.next().and_then(|line| line.strip_prefix("version = \""));
        version.and_then(|rest| rest.strip_suffix('"')).unwrap_or("?")
    }
}

/// Every peer, in the order in which they run and are reported.
pub const ALL: &[Entry] = &[
    peers::ringwal::ENTRY,
    peers::mutex_fdatasync::ENTRY,
    peers::leader::ENTRY,
    peers::raft_engine::ENTRY,
    peers::okaywal::ENTRY,
    peers::walrus::ENTRY,
    peers::fjall::ENTRY,
    peers::sled::ENTRY,
    peers::redb::ENTRY,
    peers::sqlite::ENTRY,
    peers::nodedb_wal::ENTRY,
    peers::wal_db::ENTRY,
    peers::writeahead::ENTRY,
    #[cfg(feature = "rocksdb")]
    peers::rocksdb::ENTRY,
];

/// The entry of that name.
pub fn find(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.name == name)
}
