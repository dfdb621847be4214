//! wal-db: a log in one file or in segments.
//!
//! Durable by: `append_and_sync`; syncs of several threads become one `fdatasync`. Without waiting:
//! `append`, which writes to the page cache at once, then `sync`. Settings: one file; nothing can
//! be preallocated or recycled.

use std::path::Path;

use wal_db::Wal;

use loadgen::engine::Engine;

use crate::peer::{Entry, Kind, Replayed, Result, Setup, Tally};

/// In the table.
pub const ENTRY: Entry = Entry {
    name: "wal-db",
    package: "wal-db",
    kind: Kind::Log,
    durable_by: "append_and_sync",
    open: |dir, _| Ok(Box::new(Log(Wal::open(dir.join(NAME))?))),
    replay,
};

const NAME: &str = "log.wal";

struct Log(Wal);

fn replay(dir: &Path, _: &Setup) -> Result<Replayed> {
    let wal = Wal::open(dir.join(NAME))?;
    let mut tally = Tally::default();
    for record in wal.iter()? {
        tally.count(record?.data());
    }
    Ok((tally, Box::new(wal)))
}

impl Engine for Log {
    fn append_durable(&self, payload: &[u8]) -> Result<()> {
        let _ = self.0.append_and_sync(payload)?;
        Ok(())
    }

    fn append(&self, payload: &[u8]) -> Result<()> {
        let _ = self.0.append(payload)?;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(self.0.sync()?)
    }
}
