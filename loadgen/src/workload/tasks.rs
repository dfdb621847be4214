//! Producers that are async tasks.
//!
//! 1. A task counts in the tally of its worker thread. So thousands of tasks need no more memory
//!    than their workers, and no lock is contended.
//! 2. A task holds only its payload across an await.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use ringwal::Wal;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::sampler::{Sample, Sampler};
use super::source::Source;
use super::threads::rising;
use super::{Mode, Plan, Tally, quota};
use crate::error::Error;
use crate::measure::latency::Intervals;
use crate::stop::{Stop, lock};

thread_local! {
    /// Index of the tally of this worker.
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// Records that a pipelined task appends before it yields.
const TURN: u32 = 256;

/// The state that all tasks share.
struct Shared {
    wal: Wal,
    source: Source,
    stop: Arc<Stop>,
    tallies: Vec<Mutex<Tally>>,
    intervals: Option<Arc<Intervals>>,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tallies[WORKER.get() % self.tallies.len()])
    }
}

/// Runs the runtime and all tasks.
pub(super) fn produce(
    wal: &Wal,
    plan: &Plan,
    stop: &Arc<Stop>,
    samples: Option<SyncSender<Sample>>,
) -> Result<Tally, Error> {
    let runtime = runtime(plan.threads)
        .map_err(|source| Error::System { what: "start the async runtime", source })?;
    let shared = Arc::new(Shared {
        wal: wal.clone(),
        source: plan.source.clone(),
        stop: Arc::clone(stop),
        intervals: plan.intervals.clone(),
        tallies: (0..plan.threads).map(|_| Mutex::new(Tally::of(plan))).collect(),
    });
    let worked = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for number in 0..plan.tasks {
            let shared = Arc::clone(&shared);
            let left = quota(plan.records, plan.tasks, number);
            match plan.mode {
                Mode::Blocking => tasks.spawn(blocking(shared, number, left)),
                // Only threads have arrivals: the argument check rejects --rate with --tasks.
                Mode::Pipelined | Mode::Open(_) => {
                    tasks.spawn(pipelined(shared, number, left, samples.clone()))
                }
            };
        }
        drop(samples);
        let mut worked = Ok(());
        while let Some(joined) = tasks.join_next().await {
            let done = joined.unwrap_or_else(|e| match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Ok(()),
            });
            if done.is_err() {
                stop.set();
                worked = worked.and(done);
            }
        }
        worked
    });
    drop(runtime);
    worked?;
    let mut total = Tally::new(plan.ledger);
    // After a failure, each tally must count its durable records. Their sum cannot.
    let failed = shared.tallies.iter().any(|tally| lock(tally).failed.is_some());
    for tally in &shared.tallies {
        let mut tally = std::mem::replace(&mut *lock(tally), Tally::new(None));
        if failed && plan.mode != Mode::Blocking {
            tally.keep_durable(|at| wal.durable_end().as_u64() > at);
        }
        total.merge(tally);
    }
    if failed {
        // Blocking tasks count only durable records.
        total.highest = 0;
    }
    total.mark();
    Ok(total)
}

fn runtime(workers: usize) -> std::io::Result<Runtime> {
    if workers <= 1 {
        return Builder::new_current_thread().build();
    }
    let next = AtomicUsize::new(0);
    let number = move || WORKER.set(next.fetch_add(1, Ordering::Relaxed));
    Builder::new_multi_thread().worker_threads(workers).on_thread_start(number).build()
}

async fn blocking(shared: Arc<Shared>, number: usize, mut left: u64) -> Result<(), Error> {
    let mut source = shared.source.producer(number);
    let mut last = 0;
    // The end of one record is the start of the next: one reading of the clock for each.
    let mut begun = Instant::now();
    while left > 0 && !shared.stop.is_set() {
        let Some(payload) = source.next_payload()? else { break };
        let appended = match shared.wal.append_async(payload).await {
            Ok(lsn) => shared.wal.when_durable(lsn).await.map(|()| lsn),
            Err(e) => Err(e),
        };
        let lsn = match appended {
            Ok(lsn) => lsn,
            Err(e) => return shared.tally().fail(shared.source.explain(e), &shared.stop),
        };
        let now = Instant::now();
        {
            let mut tally = shared.tally();
            let latency = now.duration_since(begun);
            tally.latencies.record(latency);
            if let Some(intervals) = &shared.intervals {
                intervals.record(WORKER.get(), latency);
            }
            tally.count(Some(lsn.as_u64()), payload);
        }
        begun = now;
        rising(&mut last, Some(lsn.as_u64()))?;
        left -= 1;
    }
    Ok(())
}

async fn pipelined(
    shared: Arc<Shared>,
    number: usize,
    mut left: u64,
    samples: Option<SyncSender<Sample>>,
) -> Result<(), Error> {
    let mut source = shared.source.producer(number);
    let mut sampler = Sampler::new(samples, shared.intervals.clone(), number);
    let mut last = 0;
    let mut turn = TURN;
    while left > 0 && !shared.stop.is_set() {
        let Some(payload) = source.next_payload()? else { break };
        let timed = sampler.begin();
        let lsn = match shared.wal.append_async(payload).await {
            Ok(lsn) => lsn,
            Err(e) => return shared.tally().fail(shared.source.explain(e), &shared.stop),
        };
        {
            let mut tally = shared.tally();
            if let Some(begun) = timed {
                sampler.end(begun, Some(lsn.as_u64()), &mut tally);
            }
            tally.count(Some(lsn.as_u64()), payload);
        }
        rising(&mut last, Some(lsn.as_u64()))?;
        left -= 1;
        turn -= 1;
        if turn == 0 {
            turn = TURN;
            tokio::task::yield_now().await;
        }
    }
    shared.tally().skipped += sampler.skipped;
    Ok(())
}
