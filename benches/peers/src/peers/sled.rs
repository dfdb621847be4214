//! sled: a tree on a log.
//!
//! Durable by: `insert`, then `flush`, then an `fdatasync` of its file by us: on Linux `flush` ends
//! with `sync_file_range`, which leaves the data in the disk's volatile cache, and no public call
//! goes further. Without waiting: `insert`. Settings: no flushes of its own in the background, the
//! mode for throughput.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use sled::{Config, Db, Mode};

use loadgen::engine::Engine;

use crate::peer::{Entry, Kind, Replayed, Result, Setup, Tally};

/// In the table.
pub const ENTRY: Entry = Entry {
    name: "sled",
    package: "sled",
    kind: Kind::Database,
    durable_by: "insert, flush, and an fdatasync by us, which flush leaves out",
    open,
    replay,
};

const NAME: &str = "db";

struct Log {
    db: Db,
    file: File,
    next: AtomicU64,
}

fn db(dir: &Path) -> Result<Db> {
    let config = Config::default().path(dir).flush_every_ms(None).mode(Mode::HighThroughput);
    Ok(config.open()?)
}

fn open(dir: &Path, _: &Setup) -> Result<Box<dyn Engine>> {
    let db = db(dir)?;
    let file = File::options().write(true).open(dir.join(NAME))?;
    Ok(Box::new(Log { db, file, next: AtomicU64::new(0) }))
}

fn replay(dir: &Path, _: &Setup) -> Result<Replayed> {
    let db = db(dir)?;
    let mut tally = Tally::default();
    for item in db.iter() {
        tally.count(&item?.1);
    }
    Ok((tally, Box::new(db)))
}

impl Engine for Log {
    fn append_durable(&self, payload: &[u8]) -> Result<()> {
        self.append(payload)?;
        self.sync()
    }

    fn append(&self, payload: &[u8]) -> Result<()> {
        let key = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        self.db.insert(key, payload)?;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.db.flush()?;
        Ok(self.file.sync_data()?)
    }
}
