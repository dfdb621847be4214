//! Drives a log: threads or tasks, each record awaited or pipelined.
//!
//! 1. Closed loop: a producer gives its next record when the log has taken, or made durable, the last.
//!    Open loop: at the times of a Poisson process, late if it must, and never fewer.
//! 2. Producers touch nothing shared but the log, the stop flag, and the input file if there is one.
//! 3. When [`run`] returns Ok, everything that it counts is durable.

mod arrivals;
mod sampler;
mod source;
mod tasks;
mod threads;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use ringwal::Wal;

use crate::error::Error;
use crate::latency::Latencies;
use crate::ledger::{Ledger, Stretches};
use crate::stop::Stop;

pub use arrivals::Pattern;
pub use sampler::Meaning;
pub use source::Source;

/// Whether producers wait for each record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// The next record follows when the last is durable.
    Blocking,
    /// Records follow each other without waiting; all are durable at the end.
    Pipelined,
    /// Records arrive by themselves, so many in a second over all threads.
    Open(f64),
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Whether producers wait.
    pub mode: Mode,
    /// In an open loop: when records arrive.
    pub arrivals: Pattern,
    /// Threads that produce; with tasks, worker threads of the runtime. At least one.
    pub threads: usize,
    /// Async tasks that produce, instead of the threads; 0 for none.
    pub tasks: usize,
    /// Where records come from.
    pub source: Source,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Stop after this many records.
    pub records: Option<u64>,
    /// What a latency is. [`Meaning::of`] has the choice that fits the log's settings.
    pub meaning: Meaning,
    /// Keep a ledger, to verify a replay with.
    pub ledger: Option<Stretches>,
}

/// What a run did.
#[derive(Debug)]
pub struct Outcome {
    /// Records, all durable.
    pub records: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// From the first append until the last record was durable.
    pub seconds: f64,
    /// Latencies, as [`Plan::meaning`] says.
    pub latencies: Latencies,
    /// Samples that were left out since the thread that waits for them was behind.
    pub skipped: u64,
    /// If the plan asked for it.
    pub ledger: Option<Ledger>,
}

/// What one producer, or one worker of a runtime, has done.
#[derive(Debug)]
struct Tally {
    records: u64,
    bytes: u64,
    latencies: Latencies,
    skipped: u64,
    ledger: Option<Ledger>,
}

impl Tally {
    fn new(ledger: Option<Stretches>) -> Self {
        let ledger = ledger.map(Ledger::new);
        Tally { records: 0, bytes: 0, latencies: Latencies::new(), skipped: 0, ledger }
    }

    #[inline]
    fn count(&mut self, lsn: ringwal::Lsn, payload: &[u8]) {
        self.records += 1;
        self.bytes += payload.len() as u64;
        if let Some(ledger) = &mut self.ledger {
            ledger.enter(lsn, payload);
        }
    }

    fn merge(&mut self, other: &Tally) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.latencies.merge(&other.latencies);
        self.skipped += other.skipped;
        if let (Some(mine), Some(theirs)) = (&mut self.ledger, &other.ledger) {
            mine.merge(theirs);
        }
    }
}

/// How often [`run`] calls its `watch`.
pub const TICK: Duration = Duration::from_millis(25);

/// Producers need little stack, and there may be thousands.
const STACK: usize = 256 << 10;

/// Runs the plan against an open log. `watch` is called from the calling thread every [`TICK`] with
/// the time that has passed; it can break the run off.
///
/// # Errors
///
/// The first error of any producer, or of the final sync; all producers have ended then too.
pub fn run(
    wal: &Wal,
    plan: &Plan,
    stop: &Arc<Stop>,
    mut watch: impl FnMut(Duration) -> ControlFlow<()>,
) -> Result<Outcome, Error> {
    let begun = Instant::now();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut handles = Vec::new();
        let (waiter, samples) = sampler::start(scope, wal, plan.meaning, &over)?;
        let started = if plan.tasks > 0 {
            let samples = samples.clone();
            spawn(scope, "runtime", stop, move || tasks::produce(wal, plan, stop, samples))
                .map(|handle| handles.push(handle))
        } else {
            (0..plan.threads).try_for_each(|number| {
                let samples = samples.clone();
                let name = format!("producer-{number}");
                let produce = move || threads::produce(wal, plan, number, stop, samples);
                spawn(scope, &name, stop, produce).map(|handle| handles.push(handle))
            })
        };
        drop(samples);
        if started.is_ok() {
            attend(plan, stop, begun, handles.len(), &mut watch);
        }
        stop.set();
        let mut total = Tally::new(plan.ledger);
        let mut failed = started.err();
        for handle in handles {
            match joined(handle) {
                Ok(tally) => total.merge(&tally),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        let synced = wal.sync();
        let seconds = begun.elapsed().as_secs_f64();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(waiter) = waiter {
            total.latencies.merge(&joined(waiter)?);
        }
        if let Some(e) = failed {
            return Err(e);
        }
        synced?;
        let Tally { records, bytes, latencies, skipped, ledger } = total;
        Ok(Outcome { records, bytes, seconds, latencies, skipped, ledger })
    })
}

/// Waits for the end, of whatever kind.
fn attend(
    plan: &Plan,
    stop: &Stop,
    begun: Instant,
    producers: usize,
    watch: &mut dyn FnMut(Duration) -> ControlFlow<()>,
) {
    loop {
        let passed = begun.elapsed();
        let left = plan.duration.map_or(TICK, |d| d.saturating_sub(passed));
        if left.is_zero() || stop.wait(producers, left.min(TICK)) || stop.is_set() {
            return;
        }
        if watch(begun.elapsed()).is_break() {
            return;
        }
    }
}

/// Says that a producer is done, whatever ends it.
struct Done<'a>(&'a Stop);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.producer_done();
    }
}

fn spawn<'scope, 'env, T: Send + 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    name: &str,
    stop: &'scope Stop,
    produce: impl FnOnce() -> Result<T, Error> + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, Result<T, Error>>, Error> {
    let body = move || {
        let _done = Done(stop);
        let produced = produce();
        if produced.is_err() {
            stop.set();
        }
        produced
    };
    let spawned = Builder::new().name(name.into()).stack_size(STACK).spawn_scoped(scope, body);
    spawned.map_err(|source| Error::System { what: "start a thread; give fewer --threads", source })
}

fn joined<T>(handle: ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The share of `records` that falls to one of so many producers.
fn quota(records: Option<u64>, producers: usize, number: usize) -> u64 {
    let producers = producers.max(1) as u64;
    records.map_or(u64::MAX, |n| n / producers + u64::from((number as u64) < n % producers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_add_up() {
        for (records, producers) in [(0, 1), (1, 3), (10, 3), (1000, 4096), (4097, 4096)] {
            let sum: u64 = (0..producers).map(|i| quota(Some(records), producers, i)).sum();
            assert_eq!(sum, records);
        }
        assert_eq!(quota(None, 7, 3), u64::MAX);
    }
}
