//! ringwal, with its defaults: the log chooses the backend and the commit method.
//!
//! Durable by: `append_durable`. Without waiting: `append`, then `sync`; every group is synced as
//! it is written. Retention is on, so that segments are recycled; the suite waits for the
//! measurement of the commit methods, which a new log makes in the background.

use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, Instant};

use ringwal::{MethodReason, Wal};

use loadgen::engine::Engine;

use crate::peer::{Entry, Kind, Replayed, Result, Setup, Tally};

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

fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let builder = Wal::builder(dir);
    let builder = if setup.keeps_all() { builder } else { builder.max_segments(SEGMENTS) };
    let wal = builder.open()?;
    let start = Instant::now();
    while wal.backend().commit_method_reason == MethodReason::Measuring
        && start.elapsed() < MEASURING_AT_MOST
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(Box::new(wal))
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
