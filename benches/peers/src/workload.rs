//! The tasks, and the figures of one run. Threads, records and clocks are loadgen's, which drives
//! ringwal in the same way.

use std::path::Path;
use std::time::{Duration, Instant};

use loadgen::Latencies;
use loadgen::workload::{Outcome, Plan, drive};
use serde::{Deserialize, Serialize};

use loadgen::engine::Engine;

use crate::device::{Flushes, between};
use crate::peer::{Entry, Result, Setup, Tally, Use};

/// Bytes of the smallest record: its number.
pub const SMALLEST: usize = 8;

/// Payload bytes after which a relaxed run ends.
const RELAXED_BYTES: u64 = 2 << 30;
/// Payload bytes after which a blocking run ends. No peer reaches them in a few seconds.
const BLOCKING_BYTES: u64 = 4 << 30;
/// Payload bytes after which the warm-up of a relaxed run ends.
const WARM_UP_BYTES: u64 = 256 << 20;
/// A blocking run that ends this much too late was interrupted.
const LATE: Duration = Duration::from_millis(500);
const SYNC_EVERY: Duration = Duration::from_millis(5);
/// Payload bytes between syncs while a log is filled for recovery.
const FILL_SYNC_BYTES: u64 = 4 << 20;

/// One cell of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "workload")]
pub enum Task {
    /// Threads that wait for each of their records.
    Blocking { threads: u64, size: usize },
    /// Threads that do not wait, and a sync every 5 ms.
    Relaxed { threads: u64, size: usize },
    /// First half of recovery: records are written and the log is closed.
    Fill { size: usize, bytes: u64 },
    /// Second half, in a new process: the log is opened and read, its files in the page cache.
    Replay { size: usize, bytes: u64 },
}

/// Times of a run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Times {
    /// Measured time.
    pub run: Duration,
    /// Warm-up before it, not measured.
    pub warm_up: Duration,
}

/// The figures of one run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Records per second.
    pub records_per_s: f64,
    /// Payload bytes per second.
    pub bytes_per_s: f64,
    /// Number of measured records.
    pub records: u64,
    /// Measured time.
    pub seconds: f64,
    /// Median time of commits, or of syncs in a relaxed run, in nanoseconds.
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
    /// Syncs of a relaxed run.
    pub syncs: u64,
    /// Flushes of the disk meanwhile.
    pub flushes: Option<u64>,
    /// A note of the peer.
    pub note: Option<String>,
}

impl Figures {
    fn new(records: u64, size: usize, took: Duration, latencies: &Latencies) -> Self {
        let seconds = took.as_secs_f64().max(f64::MIN_POSITIVE);
        let records_per_s = records as f64 / seconds;
        Figures {
            records_per_s,
            bytes_per_s: records_per_s * size as f64,
            records,
            seconds,
            p50_ns: latencies.quantile_ns(0.5),
            p99_ns: latencies.quantile_ns(0.99),
            p999_ns: latencies.quantile_ns(0.999),
            max_ns: latencies.max_ns(),
            ..Figures::default()
        }
    }
}

/// Runs a task with a peer in `dir`, which is empty, or for [`Task::Replay`] filled.
pub fn run(entry: &Entry, dir: &Path, task: Task, times: Times) -> Result<Figures> {
    let flushes = Flushes::under(dir);
    match task {
        Task::Blocking { threads, size } => {
            let setup = Setup { purpose: Use::Blocking, bytes: BLOCKING_BYTES };
            with_peer(entry, dir, &setup, |peer| blocking(peer, threads, size, times, &flushes))
        }
        Task::Relaxed { threads, size } => {
            let setup = Setup { purpose: Use::Relaxed, bytes: RELAXED_BYTES };
            with_peer(entry, dir, &setup, |peer| relaxed(peer, threads, size, times, &flushes))
        }
        Task::Fill { size, bytes } => {
            let setup = Setup { purpose: Use::Recovery, bytes };
            with_peer(entry, dir, &setup, |peer| fill(peer, size, bytes))
        }
        Task::Replay { size, bytes } => replay(entry, dir, size, bytes),
    }
}

fn with_peer(
    entry: &Entry,
    dir: &Path,
    setup: &Setup,
    work: impl FnOnce(&dyn Engine) -> Result<Figures>,
) -> Result<Figures> {
    let peer = (entry.open)(dir, setup)?;
    settle(dir)?;
    let mut figures = work(&*peer)?;
    figures.note = peer.note();
    peer.close()?;
    Ok(figures)
}

/// Waits until the files that the open prepared are on disk. Their writeback is no part of the
/// measurement.
fn settle(dir: &Path) -> Result<()> {
    each_file(dir, &mut |path| Ok(std::fs::File::open(path)?.sync_all()?))
}

fn each_file(dir: &Path, work: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            each_file(&entry.path(), work)?;
        } else {
            work(&entry.path())?;
        }
    }
    Ok(())
}

/// A payload of incompressible bytes, with a different number in front each time.
struct Payload {
    bytes: Vec<u8>,
    next: u64,
}

impl Payload {
    fn new(size: usize, thread: u64) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(thread + 1) | 1;
        let byte = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        let bytes = std::iter::repeat_with(byte).take(size.max(SMALLEST)).collect();
        Payload { bytes, next: thread << 40 }
    }

    fn next(&mut self) -> &[u8] {
        if let Some(number) = self.bytes.first_chunk_mut::<SMALLEST>() {
            *number = self.next.to_le_bytes();
        }
        self.next += 1;
        &self.bytes
    }
}

/// Records of `size` bytes until `time` is over, or so many bytes are appended.
fn bounded(plan: Plan, time: Duration, bytes: u64, size: usize) -> Plan {
    Plan { duration: Some(time), records: Some(bytes / size as u64), ..plan }
}

/// Runs a warm-up, and then the same work measured.
fn measured(
    peer: &dyn Engine,
    plan: &Plan,
    (warm_up_bytes, bytes): (u64, u64),
    size: usize,
    times: Times,
    flushes: &Flushes,
) -> Result<(Outcome, Option<u64>)> {
    drive(peer, &bounded(plan.clone(), times.warm_up, warm_up_bytes, size))?;
    let before = flushes.read();
    let outcome = drive(peer, &bounded(plan.clone(), times.run, bytes, size))?;
    Ok((outcome, between(before, flushes.read())))
}

fn blocking(
    peer: &dyn Engine,
    threads: u64,
    size: usize,
    times: Times,
    flushes: &Flushes,
) -> Result<Figures> {
    let plan = Plan::blocking(usize::try_from(threads)?, size);
    let bytes = (BLOCKING_BYTES / 2, BLOCKING_BYTES / 2);
    let (outcome, flushes) = measured(peer, &plan, bytes, size, times, flushes)?;
    // A run takes a little longer, because it waits for the last commits.
    if outcome.seconds > (times.run + LATE).as_secs_f64() + outcome.latencies.max_ns() as f64 / 1e9
    {
        return Err("this process stood still for a while".into());
    }
    let took = Duration::from_secs_f64(outcome.seconds);
    let figures = Figures::new(outcome.records, size, took, &outcome.latencies);
    Ok(Figures { flushes, ..figures })
}

fn relaxed(
    peer: &dyn Engine,
    threads: u64,
    size: usize,
    times: Times,
    flushes: &Flushes,
) -> Result<Figures> {
    let plan = Plan::synced(usize::try_from(threads)?, size, SYNC_EVERY);
    let bytes = (WARM_UP_BYTES, RELAXED_BYTES);
    let (outcome, flushes) = measured(peer, &plan, bytes, size, times, flushes)?;
    let took = Duration::from_secs_f64(outcome.seconds);
    let figures = Figures::new(outcome.records, size, took, &outcome.syncs);
    // Add the sync that ended the run.
    Ok(Figures { syncs: outcome.syncs.count() + 1, flushes, ..figures })
}

fn fill(peer: &dyn Engine, size: usize, bytes: u64) -> Result<Figures> {
    let (records, sync_every) = (bytes / size as u64, (FILL_SYNC_BYTES / size as u64).max(1));
    let mut payload = Payload::new(size, 0);
    let start = Instant::now();
    for i in 1..=records {
        peer.append(payload.next())?;
        if i % sync_every == 0 {
            peer.sync()?;
        }
    }
    peer.sync()?;
    Ok(Figures::new(records, size, start.elapsed(), &Latencies::new()))
}

fn replay(entry: &Entry, dir: &Path, size: usize, bytes: u64) -> Result<Figures> {
    // A peer that writes past the page cache leaves no data in it, so read every file first.
    each_file(dir, &mut |path| {
        std::io::copy(&mut std::fs::File::open(path)?, &mut std::io::sink())?;
        Ok(())
    })?;
    let setup = Setup { purpose: Use::Recovery, bytes };
    let start = Instant::now();
    let (found, open) = (entry.replay)(dir, &setup)?;
    let took = start.elapsed();
    drop(open);
    let records = bytes / size as u64;
    let sum = (0..records).fold(0_u64, u64::wrapping_add);
    let expected = Tally { records, bytes: records * size as u64, sum };
    if found != expected {
        return Err(format!("{found:?} was read back, and should be {expected:?}").into());
    }
    Ok(Figures::new(records, size, took, &Latencies::new()))
}
