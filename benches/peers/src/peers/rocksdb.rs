//! RocksDB: its write-ahead log is what is measured.
//!
//! Durable by: `put` with `sync`; writers that wait are written and synced as one group. Without
//! waiting: `put` into the log's buffer in memory (manual flush), then `flush_wal(true)`.
//! Settings: log files are recycled, which happens when a memtable of 64 MiB is full; for recovery
//! the memtable holds everything.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::{DB, IteratorMode, Options, WriteOptions};

use loadgen::engine::Engine;

use crate::peer::{Entry, Kind, Replayed, Result, Setup, Tally};

/// In the table.
pub const ENTRY: Entry = Entry {
    name: "rocksdb",
    package: "librocksdb-sys",
    kind: Kind::Database,
    durable_by: "put, WriteOptions::set_sync(true)",
    open,
    replay,
};

const MEMTABLE: usize = 64 << 20;
const MEMTABLE_FOR_ALL: usize = 16 << 30;
const RECYCLED_FILES: usize = 4;

struct Log {
    db: DB,
    next: AtomicU64,
}

fn options(keeps_all: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_manual_wal_flush(true);
    if keeps_all {
        options.set_write_buffer_size(MEMTABLE_FOR_ALL);
    } else {
        options.set_write_buffer_size(MEMTABLE);
        options.set_recycle_log_file_num(RECYCLED_FILES);
    }
    options
}

fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let db = DB::open(&options(setup.keeps_all()), dir)?;
    Ok(Box::new(Log { db, next: AtomicU64::new(0) }))
}

fn replay(dir: &Path, _: &Setup) -> Result<Replayed> {
    let db = DB::open(&options(true), dir)?;
    let mut tally = Tally::default();
    for item in db.iterator(IteratorMode::Start) {
        tally.count(&item?.1);
    }
    Ok((tally, Box::new(db)))
}

impl Log {
    fn put(&self, payload: &[u8], sync: bool) -> Result<()> {
        let key = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        Ok(self.db.put_opt(key, payload, &options)?)
    }
}

impl Engine for Log {
    fn append_durable(&self, payload: &[u8]) -> Result<()> {
        self.put(payload, true)
    }

    fn append(&self, payload: &[u8]) -> Result<()> {
        self.put(payload, false)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.flush_wal(true)?)
    }
}
