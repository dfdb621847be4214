//! The workloads, and what one run of one of them finds.

use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use loadgen::Latencies;
use serde::{Deserialize, Serialize};

use crate::device::{Flushes, between};
use crate::peer::{Entry, Peer, Result, Setup, Tally, Use};

/// Smallest record: its number.
pub const SMALLEST: usize = 8;

/// A relaxed run ends when it has appended so much.
const RELAXED_BYTES: u64 = 2 << 30;
/// A blocking run too; no peer comes near in a few seconds.
const BLOCKING_BYTES: u64 = 4 << 30;
/// The warm-up of a relaxed run ends when it has appended so much.
const WARM_UP_BYTES: u64 = 256 << 20;
/// A blocking run that ends so much too late did not run all the time.
const LATE: Duration = Duration::from_millis(500);
const SYNC_EVERY: Duration = Duration::from_millis(5);
/// While a log is filled for recovery it is synced after so much.
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

/// How long a run takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Times {
    /// Measured.
    pub run: Duration,
    /// Before, not measured.
    pub warm_up: Duration,
}

/// What one run found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Records in a second.
    pub records_per_s: f64,
    /// Payload bytes in a second.
    pub bytes_per_s: f64,
    /// Records that count.
    pub records: u64,
    /// Measured time.
    pub seconds: f64,
    /// Of commits, or of syncs in a relaxed run.
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
    /// Syncs of a relaxed run.
    pub syncs: u64,
    /// That the disk was asked for meanwhile.
    pub flushes: Option<u64>,
    /// From the peer.
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
    work: impl FnOnce(&dyn Peer) -> Result<Figures>,
) -> Result<Figures> {
    let peer = (entry.open)(dir, setup)?;
    settle(dir)?;
    let mut figures = work(&*peer)?;
    figures.note = peer.note();
    peer.close()?;
    Ok(figures)
}

/// What opening has prepared must be on disk: its writing back is no part of the measurement.
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

/// A payload of bytes that do not compress, each time with a number of its own in front.
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

const WARM_UP: u8 = 0;
const MEASURED: u8 = 1;
const OVER: u8 = 2;

/// Where a run stands, and the sleep that notices its early end.
#[derive(Default)]
struct Phase(AtomicU8);

impl Phase {
    fn now(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, phase: u8) {
        self.0.fetch_max(phase, Ordering::AcqRel);
    }

    fn sleep(&self, time: Duration) {
        let end = Instant::now() + time;
        while self.now() != OVER {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(10)));
        }
    }
}

fn blocking(
    peer: &dyn Peer,
    threads: u64,
    size: usize,
    times: Times,
    flushes: &Flushes,
) -> Result<Figures> {
    let phase = Phase::default();
    let share = BLOCKING_BYTES / threads / size as u64;
    let committer = |thread| {
        let (mut payload, mut latencies) = (Payload::new(size, thread), Latencies::new());
        for _ in 0..share {
            let start = Instant::now();
            if let Err(e) = peer.append_durable(payload.next()) {
                phase.set(OVER);
                return Err(e);
            }
            let took = start.elapsed();
            match phase.now() {
                WARM_UP => {}
                MEASURED => latencies.record(took),
                _ => return Ok(latencies),
            }
        }
        phase.set(OVER);
        Ok(latencies)
    };
    let (committer, phase) = (&committer, &phase);
    std::thread::scope(|scope| {
        let committers: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || committer(thread))).collect();
        phase.sleep(times.warm_up);
        let before = flushes.read();
        let start = Instant::now();
        phase.set(MEASURED);
        phase.sleep(times.run);
        phase.set(OVER);
        let took = start.elapsed();
        let after = flushes.read();
        if took > times.run + LATE {
            return Err("this process stood still for a while".into());
        }
        let mut all = Latencies::new();
        for committer in committers {
            all.merge(&committer.join().map_err(|_| "a thread panicked")??);
        }
        let figures = Figures::new(all.count(), size, took, &all);
        Ok(Figures { flushes: between(before, after), ..figures })
    })
}

fn relaxed(
    peer: &dyn Peer,
    threads: u64,
    size: usize,
    times: Times,
    flushes: &Flushes,
) -> Result<Figures> {
    // Warm-up and measurement are two rounds of the same: the numbers go on.
    let warm = Times { run: times.warm_up, ..times };
    relaxed_round(peer, (0, threads), size, warm, WARM_UP_BYTES, flushes)?;
    relaxed_round(peer, (threads, threads), size, times, RELAXED_BYTES, flushes)
}

fn relaxed_round(
    peer: &dyn Peer,
    (first, threads): (u64, u64),
    size: usize,
    times: Times,
    bytes: u64,
    flushes: &Flushes,
) -> Result<Figures> {
    let phase = Phase::default();
    let share = bytes / threads / size as u64;
    let running = AtomicU64::new(threads);
    let appender = |thread| {
        let mut payload = Payload::new(size, thread);
        let mut appended = 0;
        let mut result = Ok(());
        while appended < share && phase.now() != OVER {
            result = peer.append(payload.next());
            if result.is_err() {
                phase.set(OVER);
                break;
            }
            appended += 1;
        }
        // The last one ends the round, when all have had their share.
        if running.fetch_sub(1, Ordering::AcqRel) == 1 {
            phase.set(OVER);
        }
        result.map(|()| appended)
    };
    let (appender, phase) = (&appender, &phase);
    std::thread::scope(|scope| {
        let before = flushes.read();
        let start = Instant::now();
        let appenders: Vec<_> =
            (first..first + threads).map(|thread| scope.spawn(move || appender(thread))).collect();
        let (mut syncs, mut latencies, mut failed) = (0, Latencies::new(), None);
        while phase.now() != OVER && failed.is_none() {
            phase.sleep(SYNC_EVERY);
            let sync = Instant::now();
            failed = peer.sync().err();
            latencies.record(sync.elapsed());
            syncs += 1;
            if start.elapsed() >= times.run {
                phase.set(OVER);
            }
        }
        phase.set(OVER);
        let mut records: u64 = 0;
        for appender in appenders {
            records += appender.join().map_err(|_| "a thread panicked")??;
        }
        if let Some(e) = failed {
            return Err(e);
        }
        // Only now is everything durable that is counted.
        peer.sync()?;
        let took = start.elapsed();
        let figures = Figures::new(records, size, took, &latencies);
        Ok(Figures { syncs: syncs + 1, flushes: between(before, flushes.read()), ..figures })
    })
}

fn fill(peer: &dyn Peer, size: usize, bytes: u64) -> Result<Figures> {
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
    // A peer that writes past the page cache has left nothing in it.
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
