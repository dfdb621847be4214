//! nodedb-wal: the log of NodeDB.
//!
//! Durable by: `GroupCommitter::submit`; the first thread drains what all have queued, writes it
//! and calls `fsync`. Without waiting: `WalWriter::append` under the writer's lock, then
//! `WalWriter::sync`. Settings: not `O_DIRECT`, though it is the default: there every sync pads its
//! last block with zeros, and the reader takes the padding for the end of the log. No double-write
//! buffer: it would cost a second sync for each group, and a torn record at the end is found by its
//! checksum.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nodedb_wal::group_commit::PendingWrite;
use nodedb_wal::reader::WalReader;
use nodedb_wal::writer::WalWriterConfig;
use nodedb_wal::{DwbMode, GroupCommitter, RecordType, WalWriter};

use loadgen::engine::Engine;

use crate::peer::{Entry, Kind, Replayed, Result, Setup, Tally};

/// In the table.
pub const ENTRY: Entry = Entry {
    name: "nodedb-wal",
    package: "nodedb-wal",
    kind: Kind::Log,
    durable_by: "GroupCommitter::submit",
    open,
    replay,
};

const NAME: &str = "log.wal";
const PUT: u32 = RecordType::Put as u32;

struct Log {
    writer: Mutex<WalWriter>,
    committer: GroupCommitter,
}

fn open(dir: &Path, _: &Setup) -> Result<Box<dyn Engine>> {
    let config = WalWriterConfig {
        use_direct_io: false,
        dwb_mode: Some(DwbMode::Off),
        ..WalWriterConfig::default()
    };
    let writer = Mutex::new(WalWriter::open(&dir.join(NAME), config)?);
    Ok(Box::new(Log { writer, committer: GroupCommitter::new() }))
}

fn replay(dir: &Path, _: &Setup) -> Result<Replayed> {
    let mut reader = WalReader::open(&dir.join(NAME))?;
    let mut tally = Tally::default();
    while let Some(record) = reader.next_record()? {
        tally.count(&record.payload);
    }
    Ok((tally, Box::new(reader)))
}

impl Log {
    fn writer(&self) -> MutexGuard<'_, WalWriter> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for Log {
    fn append_durable(&self, payload: &[u8]) -> Result<()> {
        let write = PendingWrite {
            record_type: PUT,
            tenant_id: 0,
            vshard_id: 0,
            database_id: 0,
            payload: payload.to_vec(),
        };
        let result = self.committer.submit(&self.writer, write)?;
        if result.durable { Ok(()) } else { Err("not durable".into()) }
    }

    fn append(&self, payload: &[u8]) -> Result<()> {
        self.writer().append(PUT, 0, 0, 0, payload)?;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(self.writer().sync()?)
    }
}
