//! writeahead: an asynchronous log with a writer thread.
//!
//! Durable by: `WriteHandle::write`, awaited; what is queued while a sync runs becomes the next
//! group, of 64 commands at most. Without waiting: a future that is not awaited submits nothing;
//! records are collected here and submitted as one batch at each sync. Settings: a queue that holds
//! a command of every thread. Files are zeroed ahead in steps of 256 KiB, the default.

use std::path::Path;

use futures::StreamExt;
use futures::executor::block_on;
use writeahead::{SimpleFile, WriteAhead, WriteAheadOptions, WriteHandle};

use loadgen::engine::Engine;

use crate::batch::{Batch, Records};
use crate::peer::{Entry, Kind, Replayed, Result, Setup, Tally};

/// In the table.
pub const ENTRY: Entry = Entry {
    name: "writeahead",
    package: "writeahead",
    kind: Kind::Log,
    durable_by: "WriteHandle::write, awaited",
    open,
    replay,
};

const QUEUE: usize = 1024;
/// Bytes of a batch at most: more than is ever collected.
const LARGEST_BATCH: usize = 256 << 20;

struct Log {
    handle: WriteHandle,
    batch: Batch,
    // Reads and streams; kept open as a user would.
    _wal: WriteAhead<SimpleFile>,
}

fn wal(dir: &Path) -> Result<WriteAhead<SimpleFile>> {
    let mut wal = WriteAhead::with_options(WriteAheadOptions {
        log_dir: dir.into(),
        queue_capacity: QUEUE,
        max_batch_bytes: LARGEST_BATCH,
        ..WriteAheadOptions::default()
    });
    wal.start()?;
    Ok(wal)
}

fn open(dir: &Path, _: &Setup) -> Result<Box<dyn Engine>> {
    let wal = wal(dir)?;
    Ok(Box::new(Log { handle: wal.writer()?, batch: Batch::default(), _wal: wal }))
}

fn replay(dir: &Path, _: &Setup) -> Result<Replayed> {
    let wal = wal(dir)?;
    let mut stream = wal.create_stream()?;
    let mut tally = Tally::default();
    while let Some(item) = block_on(stream.next()) {
        let (_, payload) = item?;
        tally.count(&payload);
    }
    Ok((tally, Box::new((stream, wal))))
}

impl Log {
    fn commit(&self, records: &Records) -> Result<()> {
        let records = records.iter().map(<[u8]>::to_vec).collect();
        block_on(self.handle.write_batch(records))?;
        Ok(())
    }
}

impl Engine for Log {
    fn append_durable(&self, payload: &[u8]) -> Result<()> {
        block_on(self.handle.write(payload.to_vec()))?;
        Ok(())
    }

    fn append(&self, payload: &[u8]) -> Result<()> {
        self.batch.add(payload, |records| self.commit(&records))
    }

    fn sync(&self) -> Result<()> {
        self.batch.flush(|records| self.commit(&records))
    }
}
