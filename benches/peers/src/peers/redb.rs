//! redb: a copy-on-write B-tree without a log, as an alternative to one.
//!
//! Durable by: a write transaction with one insert, committed with `Durability::Immediate`, the
//! default. Transactions are one at a time; threads do not share a commit. Without waiting: records
//! are collected here and become one transaction at each sync.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use loadgen::engine::Engine;

use crate::batch::Batch;
use crate::peer::{Entry, Kind, Replayed, Result, Setup, Tally};

/// In the table.
pub const ENTRY: Entry = Entry {
    name: "redb",
    package: "redb",
    kind: Kind::Database,
    durable_by: "WriteTransaction::commit, Durability::Immediate",
    open,
    replay,
};

const NAME: &str = "log.redb";
const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

struct Log {
    database: Database,
    next: AtomicU64,
    batch: Batch,
}

fn open(dir: &Path, _: &Setup) -> Result<Box<dyn Engine>> {
    let database = Database::create(dir.join(NAME))?;
    Ok(Box::new(Log { database, next: AtomicU64::new(0), batch: Batch::default() }))
}

fn replay(dir: &Path, _: &Setup) -> Result<Replayed> {
    let database = Database::open(dir.join(NAME))?;
    let table = database.begin_read()?.open_table(TABLE)?;
    let mut tally = Tally::default();
    for item in table.iter()? {
        tally.count(item?.1.value());
    }
    Ok((tally, Box::new((table, database))))
}

impl Log {
    fn commit<'a>(&self, records: impl Iterator<Item = &'a [u8]>) -> Result<()> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for record in records {
                table.insert(self.next.fetch_add(1, Ordering::Relaxed), record)?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Engine for Log {
    fn append_durable(&self, payload: &[u8]) -> Result<()> {
        self.commit(std::iter::once(payload))
    }

    fn append(&self, payload: &[u8]) -> Result<()> {
        self.batch.add(payload, |records| self.commit(records.iter()))
    }

    fn sync(&self) -> Result<()> {
        self.batch.flush(|records| self.commit(records.iter()))
    }
}
