//! The simplest log: one lock around one growing file.
//!
//! Durable by: `write` and `fdatasync` for each record, under the lock. No group commit, nothing is
//! preallocated. Without waiting: a buffer of 1 MiB that is written when it is full.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use loadgen::engine::Engine;

use super::frames;
use crate::peer::{Entry, Kind, Result, Setup};

/// In the table.
pub const ENTRY: Entry = Entry {
    name: "mutex-fdatasync",
    package: "ringwal-peers",
    kind: Kind::Baseline,
    durable_by: "write + fdatasync each record, under one lock",
    open,
    replay: |dir, _| frames::replay(&dir.join(NAME)),
};

const NAME: &str = "log";
const BUFFER: usize = 1 << 20;

struct Log(Mutex<(File, Vec<u8>)>);

fn open(dir: &Path, _: &Setup) -> Result<Box<dyn Engine>> {
    let file = File::options().append(true).create(true).open(dir.join(NAME))?;
    Ok(Box::new(Log(Mutex::new((file, Vec::with_capacity(2 * BUFFER))))))
}

impl Log {
    fn push(&self, payload: &[u8], full: usize, sync: bool) -> Result<()> {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, buffer) = &mut *guard;
        if !payload.is_empty() {
            frames::push(buffer, payload)?;
        }
        if buffer.len() >= full {
            file.write_all(buffer)?;
            buffer.clear();
        }
        if sync {
            file.sync_data()?;
        }
        Ok(())
    }
}

impl Engine for Log {
    fn append_durable(&self, payload: &[u8]) -> Result<()> {
        self.push(payload, 0, true)
    }

    fn append(&self, payload: &[u8]) -> Result<()> {
        self.push(payload, BUFFER, false)
    }

    fn sync(&self) -> Result<()> {
        self.push(&[], 0, true)
    }
}
