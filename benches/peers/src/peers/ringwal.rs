//! The log that this suite belongs to, with its defaults: the backend and the commit method are
//! chosen by the log itself.
//!
//! Durable by: `append_durable`. Without waiting: `append`, then `sync`; every group is synced as it
//! is written. Retention is on, so that segments are recycled; the measurement of the commit methods,
//! which the log does in the background when it is new, is waited for.

use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, Instant};

use ringwal::{MethodReason, Wal};

use crate::peer::{Entry, Kind, Peer, Replayed, Result, Setup, Tally};

/// In the table.
pub const ENTRY: Entry = Entry {
    name: "ringwal",
    package: "ringwal",
    kind: Kind::Own,
    durable_by: "append_durable",
    open,
    replay,
};

const SEGMENTS: usize = 4;
const MEASURING_AT_MOST: Duration = Duration::from_secs(5);

struct Log(Wal);

fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Peer>> {
    let builder = Wal::builder(dir);
    let builder = if setup.keeps_all() { builder } else { builder.max_segments(SEGMENTS) };
    let wal = builder.open()?;
    let start = Instant::now();
    while wal.backend().commit_method_reason == MethodReason::Measuring
        && start.elapsed() < MEASURING_AT_MOST
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(Box::new(Log(wal)))
}

fn replay(dir: &Path, _: &Setup) -> Result<Replayed> {
    let wal = Wal::open(dir)?;
    let mut tally = Tally::default();
    wal.replay(|_, payload| {
        tally.count(payload);
        Ok::<(), Infallible>(())
    })?;
    Ok((tally, Box::new(wal)))
}

impl Peer for Log {
    fn append_durable(&self, payload: &[u8]) -> Result<()> {
        self.0.append_durable(payload)?;
        Ok(())
    }

    fn append(&self, payload: &[u8]) -> Result<()> {
        self.0.append(payload)?;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.0.sync()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.close()?)
    }

    fn note(&self) -> Option<String> {
        let info = self.0.backend();
        Some(format!("{} ({:?})", info.commit_method, info.commit_method_reason))
    }
}
