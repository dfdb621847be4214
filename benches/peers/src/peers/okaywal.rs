//! okaywal: a log with checkpoints.
//!
//! Durable by: `begin_entry`, `write_chunk`, `commit`; one thread syncs for all that wait. Without
//! waiting: there is no such call, as an entry locks the log until it is committed; records are
//! collected here and become the chunks of one entry at each sync. Settings: files of 64 MiB,
//! written with zeros before, checkpointed (here: forgotten) and recycled when they are nearly
//! full. For recovery one file that is never checkpointed.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use okaywal::{Configuration, EntryId, LogManager, ReadChunkResult, SegmentReader, WriteAheadLog};

use loadgen::engine::Engine;

use crate::batch::{Batch, Records};
use crate::peer::{Entry, Kind, Replayed, Result, Setup, Tally};

/// In the table.
pub const ENTRY: Entry = Entry {
    name: "okaywal",
    package: "okaywal",
    kind: Kind::Log,
    durable_by: "EntryWriter::commit",
    open: |dir, setup| {
        Ok(Box::new(Log { wal: wal(dir, setup, Manager::default())?, batch: Batch::default() }))
    },
    replay,
};

const FILE: u32 = 64 << 20;

struct Log {
    wal: WriteAheadLog,
    batch: Batch,
}

/// Counts the recovered records, and treats every checkpoint as done.
#[derive(Debug, Default)]
struct Manager(Arc<Mutex<Tally>>);

impl LogManager for Manager {
    fn recover(&mut self, entry: &mut okaywal::Entry<'_>) -> io::Result<()> {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let ReadChunkResult::Chunk(mut chunk) = entry.read_chunk()? {
            let payload = chunk.read_all()?;
            if !chunk.check_crc()? {
                return Err(io::Error::other("a damaged chunk"));
            }
            tally.count(&payload);
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _: EntryId,
        _: &mut SegmentReader,
        _: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}

fn wal(dir: &Path, setup: &Setup, manager: Manager) -> Result<WriteAheadLog> {
    let config = Configuration::default_for(dir).preallocate_bytes(FILE);
    let config = if setup.keeps_all() {
        config.checkpoint_after_bytes(u64::MAX)
    } else {
        config.checkpoint_after_bytes(u64::from(FILE / 64 * 63))
    };
    Ok(config.open(manager)?)
}

fn replay(dir: &Path, setup: &Setup) -> Result<Replayed> {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let log = wal(dir, setup, Manager(Arc::clone(&tally)))?;
    let found = *tally.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((found, Box::new(log)))
}

impl Log {
    fn commit(&self, records: &Records) -> Result<()> {
        let mut entry = self.wal.begin_entry()?;
        for record in records.iter() {
            entry.write_chunk(record)?;
        }
        entry.commit()?;
        Ok(())
    }
}

impl Engine for Log {
    fn append_durable(&self, payload: &[u8]) -> Result<()> {
        let mut entry = self.wal.begin_entry()?;
        entry.write_chunk(payload)?;
        entry.commit()?;
        Ok(())
    }

    fn append(&self, payload: &[u8]) -> Result<()> {
        self.batch.add(payload, |records| self.commit(&records))
    }

    fn sync(&self) -> Result<()> {
        self.batch.flush(|records| self.commit(&records))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.wal.shutdown()?)
    }
}
