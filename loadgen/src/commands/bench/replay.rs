//! Open and replay of a log, beside a plain read and sum of its files.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringwal::{Durability, Wal};

use crate::error::Error;
use crate::log_dir::RunDir;
use crate::stop::Stop;
use crate::units::SizeRange;
use crate::workload::payload::{Generator, Pool};

/// Bytes of the log for each second of a cell, and in total.
const LOG: f64 = (1 << 30) as f64;
const LEAST_LOG: f64 = (2 << 20) as f64;
const TURNS: usize = 3;
/// Bytes of a segment, about a sixteenth of the log: minimum and maximum.
const SEGMENT: std::ops::RangeInclusive<u64> = 1 << 20..=64 << 20;

pub(super) struct Found {
    /// Bytes of the log per second, opened and replayed.
    pub(super) replay: f64,
    /// Bytes of the same files per second, read and summed.
    pub(super) read: f64,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

pub(super) fn measure(
    parent: &Path,
    stop: &Arc<Stop>,
    size: usize,
    time: Duration,
) -> Result<Found, Error> {
    let log = (LOG * time.as_secs_f64()).clamp(LEAST_LOG, LOG) as u64;
    let dir = RunDir::given(&parent.join("replay"), false, stop)?;
    let segment = (log / 16).next_power_of_two().clamp(*SEGMENT.start(), *SEGMENT.end());
    let builder = Wal::builder(dir.path()).durability(Durability::Manual).segment_size(segment);
    let wal = builder.clone().open()?;
    let pool = Arc::new(Pool::new(SizeRange { min: size, max: size }, 1));
    let mut generator = Generator::new(pool, 0);
    let mut records = 0;
    while records * (size as u64 + 12) < log {
        wal.append(generator.next_payload())?;
        records += 1;
    }
    wal.close()?;
    let bytes = wal.durable_end().as_u64();
    drop(wal);
    let (mut reads, mut replays) = (Vec::new(), Vec::new());
    // The first pass warms the page cache, and does not count.
    for turn in 0..=TURNS {
        let begun = Instant::now();
        let read = read_and_sum(dir.path(), bytes)?;
        let reading = read as f64 / begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let wal = builder.clone().open()?;
        let replayed = wal.replay(|_, _| Ok::<(), std::convert::Infallible>(()));
        let seconds = begun.elapsed().as_secs_f64();
        let replayed = replayed.map_err(|e| Error::Verify(format!("replay: {e}")))?;
        if replayed != records {
            return Err(Error::Verify(format!("{replayed} of {records} records were replayed")));
        }
        wal.close()?;
        if turn > 0 {
            reads.push(reading);
            replays.push(bytes as f64 / seconds);
        }
    }
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or(0.0)
    };
    Ok(Found { replay: median(&mut replays), read: median(&mut reads), records, bytes })
}

/// Reads the log's files in order up to the log's end. Returns the bytes.
fn read_and_sum(dir: &Path, end: u64) -> Result<u64, Error> {
    let wrong = |e: std::io::Error| Error::directory(dir, e);
    let entries = std::fs::read_dir(dir).map_err(wrong)?;
    let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "wal"));
    paths.sort();
    let mut chunk = vec![0; 1 << 20];
    let (mut sum, mut total) = (crc32fast::Hasher::new(), 0);
    for path in paths {
        let mut file = File::open(&path).map_err(wrong)?;
        while total < end {
            let n = file.read(&mut chunk).map_err(wrong)?;
            if n == 0 {
                break;
            }
            sum.update(&chunk[..n]);
            total += n as u64;
        }
    }
    std::hint::black_box(sum.finalize());
    Ok(total)
}
