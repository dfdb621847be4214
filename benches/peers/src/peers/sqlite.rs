//! SQLite: an insert for each record.
//!
//! Durable by: a transaction in `journal_mode=WAL` with `synchronous=FULL`, which syncs its log at
//! every commit. One connection under a lock: SQLite has one writer, and committers do not share a
//! sync. Without waiting: records are collected here and become one transaction at each sync.
//! Settings: the log is brought to 64 MiB before the measurement and then overwritten in turn, and
//! is checkpointed when it is as long as that; for recovery never.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use loadgen::engine::Engine;

use crate::batch::{Batch, Records};
use crate::peer::{Entry, Kind, Replayed, Result, Setup, Tally};

/// In the table.
pub const ENTRY: Entry = Entry {
    name: "sqlite",
    package: "rusqlite",
    kind: Kind::Database,
    durable_by: "INSERT, journal_mode=WAL, synchronous=FULL",
    open,
    replay,
};

const NAME: &str = "log.db";
const SELECT: &str = "SELECT payload FROM log ORDER BY id";
const INSERT: &str = "INSERT INTO log(payload) VALUES (?1)";
/// Of 4 KiB: a little less than the log is brought to.
const CHECKPOINT_PAGES: u32 = 16_000;

struct Log {
    connection: Mutex<Connection>,
    batch: Batch,
}

fn connection(dir: &Path) -> Result<Connection> {
    let connection = Connection::open(dir.join(NAME))?;
    let mode: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(format!("the journal mode is {mode:?}, not \"wal\"").into());
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let connection = connection(dir)?;
    connection.execute_batch("CREATE TABLE log(id INTEGER PRIMARY KEY, payload BLOB NOT NULL)")?;
    if setup.keeps_all() {
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    } else {
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.execute_batch(
            "CREATE TABLE room(bytes BLOB);
             INSERT INTO room VALUES (zeroblob(64 << 20));
             DROP TABLE room;",
        )?;
        connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
    }
    Ok(Box::new(Log { connection: Mutex::new(connection), batch: Batch::default() }))
}

fn replay(dir: &Path, _: &Setup) -> Result<Replayed> {
    let connection = connection(dir)?;
    let mut statement = connection.prepare(SELECT)?;
    let mut rows = statement.query([])?;
    let mut tally = Tally::default();
    while let Some(row) = rows.next()? {
        tally.count(row.get_ref(0)?.as_blob()?);
    }
    drop(rows);
    drop(statement);
    Ok((tally, Box::new(connection)))
}

impl Log {
    fn commit(&self, records: &Records) -> Result<()> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction()?;
        {
            let mut statement = transaction.prepare_cached(INSERT)?;
            for record in records.iter() {
                statement.execute([record])?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Engine for Log {
    fn append_durable(&self, payload: &[u8]) -> Result<()> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.prepare_cached(INSERT)?.execute([payload])?;
        Ok(())
    }

    fn append(&self, payload: &[u8]) -> Result<()> {
        self.batch.add(payload, |records| self.commit(&records))
    }

    fn sync(&self) -> Result<()> {
        self.batch.flush(|records| self.commit(&records))
    }
}
