//! sled: a tree on a log.
//!
//! Durable by: `insert`, then `flush`; threads that flush at the same time can share the work.
//! Without waiting: `insert`. Settings: no flushes of its own in the background, the mode for
//! throughput.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use sled::{Config, Db, Mode};

use crate::peer::{Entry, Kind, Peer, Replayed, Result, Setup, Tally};

/// In the table.
pub const ENTRY: Entry = Entry {
    name: "sled",
    package: "sled",
    kind: Kind::Database,
    durable_by: "insert, flush",
    open: |dir, _| Ok(Box::new(Log { db: db(dir)?, next: AtomicU64::new(0) })),
    replay,
};

struct Log {
    db: Db,
    next: AtomicU64,
}

fn db(dir: &Path) -> Result<Db> {
    let config = Config::default().path(dir).flush_every_ms(None).mode(Mode::HighThroughput);
    Ok(config.open()?)
}

fn replay(dir: &Path, _: &Setup) -> Result<Replayed> {
    let db = db(dir)?;
    let mut tally = Tally::default();
    for item in db.iter() {
        tally.count(&item?.1);
    }
    Ok((tally, Box::new(db)))
}

impl Peer for Log {
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
        Ok(())
    }
}
