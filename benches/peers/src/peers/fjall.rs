//! fjall: an LSM database; its journal is what is measured.
//!
//! Durable by: `insert`, then `Database::persist(PersistMode::SyncData)`, an `fdatasync`. Threads
//! that persist at the same time do not share it. Without waiting: `insert`. Settings: the journal
//! is written to the system only when it is persisted, and the memtable is so large that nothing is
//! compacted.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use loadgen::engine::Engine;

use crate::peer::{Entry, Kind, Replayed, Result, Setup, Tally};

/// In the table.
pub const ENTRY: Entry = Entry {
    name: "fjall",
    package: "fjall",
    kind: Kind::Database,
    durable_by: "insert, persist(SyncData)",
    open,
    replay,
};

const MEMTABLE: u64 = 8 << 30;

struct Log {
    // Dropped before the database.
    keyspace: Keyspace,
    database: Database,
    next: AtomicU64,
}

fn database(dir: &Path) -> Result<(Database, Keyspace)> {
    let database = Database::builder(dir)
        .manual_journal_persist(true)
        .max_journaling_size(2 * MEMTABLE)
        .open()?;
    let options = || {
        KeyspaceCreateOptions::default().manual_journal_persist(true).max_memtable_size(MEMTABLE)
    };
    let keyspace = database.keyspace("log", options)?;
    Ok((database, keyspace))
}

fn open(dir: &Path, _: &Setup) -> Result<Box<dyn Engine>> {
    let (database, keyspace) = database(dir)?;
    Ok(Box::new(Log { keyspace, database, next: AtomicU64::new(0) }))
}

fn replay(dir: &Path, _: &Setup) -> Result<Replayed> {
    let (database, keyspace) = database(dir)?;
    let mut tally = Tally::default();
    for item in keyspace.iter() {
        let (_, payload) = item.into_inner()?;
        tally.count(&payload);
    }
    Ok((tally, Box::new((keyspace, database))))
}

impl Engine for Log {
    fn append_durable(&self, payload: &[u8]) -> Result<()> {
        self.append(payload)?;
        self.sync()
    }

    fn append(&self, payload: &[u8]) -> Result<()> {
        let key = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Ok(self.keyspace.insert(key, payload)?)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncData)?)
    }
}
