//! walrus-rust: a log with topics; all records go to one.
//!
//! Durable by: `append_for_topic` under `FsyncSchedule::SyncEach`, which also opens the files with
//! `O_SYNC`. No group commit. Without waiting: there is no sync call; records are collected here
//! and appended with `batch_append_for_topic`, 2,000 at a time, the most there can be, which syncs
//! at the end of each batch under every schedule. So the schedule is `NoFsync` there: with
//! `SyncEach` each record of a batch is a synchronous write of its own. Settings: the file backend,
//! which uses io_uring for batches. It takes its directory from the environment, which is why
//! measurements run in processes of their own.

use std::path::Path;

use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use loadgen::engine::Engine;

use crate::batch::{Batch, Records};
use crate::peer::{Entry, Kind, Replayed, Result, Setup, Tally, Use};

/// In the table.
pub const ENTRY: Entry = Entry {
    name: "walrus",
    package: "walrus-rust",
    kind: Kind::Log,
    durable_by: "append_for_topic, FsyncSchedule::SyncEach",
    open,
    replay,
};

/// Where walrus looks for its directory.
pub const DIRECTORY_VARIABLE: &str = "WALRUS_DATA_DIR";

const TOPIC: &str = "log";
const LARGEST_BATCH: usize = 2000;
const READ_AT_ONCE: usize = 8 << 20;

struct Log {
    wal: Walrus,
    batch: Batch,
}

fn wal(dir: &Path, schedule: FsyncSchedule) -> Result<Walrus> {
    if std::env::var_os(DIRECTORY_VARIABLE).is_none_or(|named| named != dir.as_os_str()) {
        return Err(format!("{DIRECTORY_VARIABLE} is not the directory of this run").into());
    }
    // Progress of readers is of no interest here, and is kept in a file: as rarely as it can be.
    let consistency = ReadConsistency::AtLeastOnce { persist_every: u32::MAX };
    Ok(Walrus::with_consistency_and_schedule(consistency, schedule)?)
}

fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let schedule = match setup.purpose {
        Use::Blocking => FsyncSchedule::SyncEach,
        Use::Relaxed | Use::Recovery => FsyncSchedule::NoFsync,
    };
    Ok(Box::new(Log { wal: wal(dir, schedule)?, batch: Batch::default() }))
}

fn replay(dir: &Path, _: &Setup) -> Result<Replayed> {
    let wal = wal(dir, FsyncSchedule::NoFsync)?;
    let mut tally = Tally::default();
    loop {
        let entries = wal.batch_read_for_topic(TOPIC, READ_AT_ONCE, true)?;
        if entries.is_empty() {
            return Ok((tally, Box::new(wal)));
        }
        entries.iter().for_each(|entry| tally.count(&entry.data));
    }
}

impl Log {
    fn commit(&self, records: &Records) -> Result<()> {
        let records: Vec<&[u8]> = records.iter().collect();
        for batch in records.chunks(LARGEST_BATCH) {
            self.wal.batch_append_for_topic(TOPIC, batch)?;
        }
        Ok(())
    }
}

impl Engine for Log {
    fn append_durable(&self, payload: &[u8]) -> Result<()> {
        Ok(self.wal.append_for_topic(TOPIC, payload)?)
    }

    fn append(&self, payload: &[u8]) -> Result<()> {
        self.batch.add(payload, |records| self.commit(&records))
    }

    fn sync(&self) -> Result<()> {
        self.batch.flush(|records| self.commit(&records))
    }
}
