//! Producers that are async tasks.
//!
//! 1. A task counts in the tally of its worker thread. So thousands of tasks need no more memory
//!    than their workers, and no lock is contended.
//! 2. A task holds only its payload across an await.
//! 3. In an open loop, one thread keeps the schedule, because a timer of the runtime is late by up
//!    to a millisecond. Each arrival goes to a free task. While all tasks wait, arrivals queue, and
//!    their latencies grow.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ringwal::Wal;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::arrivals::{Arrival, Arrivals};
use super::sampler::{Meaning, Sample, Sampler};
use super::source::Source;
use super::{Mode, Order, Plan, Tally, quota};
use crate::error::Error;
use crate::logs::{place, position};
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
    wals: Vec<Wal>,
    source: Source,
    stop: Arc<Stop>,
    tallies: Vec<Mutex<Tally>>,
    intervals: Option<Arc<Intervals>>,
    queue: Queue,
}

/// The arrivals that no task has taken.
struct Queue {
    arrivals: Mutex<VecDeque<(Arrival, Instant)>>,
    /// One permit for each arrival. Closed at the end of the run.
    ready: Semaphore,
}

/// Arrivals in the queue at most. Beyond this, they stay due and keep their times.
const MOST_QUEUED: usize = 1 << 16;
/// Arrivals that are queued at once.
const BATCH: usize = 1024;
/// Interval at which a full queue, or one at its end, is looked at.
const LOOK: Duration = Duration::from_millis(1);

impl Queue {
    fn len(&self) -> usize {
        lock(&self.arrivals).len()
    }

    /// Returns the next arrival, or `None` at the end of the run.
    async fn take(&self) -> Option<(Arrival, Instant)> {
        self.ready.acquire().await.ok()?.forget();
        lock(&self.arrivals).pop_front()
    }

    /// Queues this many arrivals when they are due, until a stop. Returns the number of records
    /// that had arrived by then and that no task has taken.
    fn fill(&self, mut arrivals: Arrivals, mut left: u64, stop: &Stop) -> u64 {
        let mut batch = Vec::with_capacity(BATCH);
        while left > 0 && !stop.is_set() {
            if self.len() >= MOST_QUEUED {
                std::thread::sleep(LOOK);
                continue;
            }
            arrivals.wait(stop);
            let most = BATCH.min(usize::try_from(left).unwrap_or(BATCH));
            while batch.len() < most
                && let Some(arrival) = arrivals.next_due()
            {
                batch.push((arrival, arrivals.time(arrival)));
            }
            left -= batch.len() as u64;
            let count = batch.len();
            lock(&self.arrivals).extend(batch.drain(..));
            self.ready.add_permits(count);
        }
        while self.len() > 0 && !stop.is_set() {
            std::thread::sleep(LOOK);
        }
        self.ready.close();
        let due = if left == 0 { 0 } else { arrivals.overdue() };
        self.len() as u64 + due
    }
}

/// Stops the run on drop. The thread that fills the queue then ends, also after a panic.
struct StopsAtEnd<'a>(&'a Stop);

impl Drop for StopsAtEnd<'_> {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// The logs of a task, in turn.
struct Turns(usize);

impl Turns {
    /// Each task starts at another log.
    fn new(shared: &Shared, number: usize) -> Turns {
        Turns(number % shared.wals.len())
    }

    fn next<'a>(&mut self, shared: &'a Shared) -> (usize, &'a Wal) {
        let log = self.0;
        self.0 = (log + 1) % shared.wals.len();
        (log, &shared.wals[log])
    }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tallies[WORKER.get() % self.tallies.len()])
    }
}

/// Runs the runtime and all tasks.
pub(super) fn produce(
    wals: &[Wal],
    plan: &Plan,
    stop: &Arc<Stop>,
    samples: Option<SyncSender<Sample>>,
) -> Result<Tally, Error> {
    let runtime = runtime(plan.threads)
        .map_err(|source| Error::System { what: "start the async runtime", source })?;
    let shared = Arc::new(Shared {
        wals: wals.to_vec(),
        source: plan.source.clone(),
        stop: Arc::clone(stop),
        intervals: plan.intervals.clone(),
        tallies: (0..plan.threads).map(|_| Mutex::new(Tally::of(plan))).collect(),
        queue: Queue { arrivals: Mutex::default(), ready: Semaphore::new(0) },
    });
    let (worked, overdue) = std::thread::scope(|scope| {
        let filled = match plan.mode {
            Mode::Open(rate) => {
                let arrivals = Arrivals::of(plan, rate, 0, 1);
                let (queue, left) = (&shared.queue, plan.records.unwrap_or(u64::MAX));
                Some(scope.spawn(move || queue.fill(arrivals, left, stop)))
            }
            _ => None,
        };
        let end = StopsAtEnd(stop);
        let worked = runtime.block_on(drive(&shared, plan, samples));
        drop(end);
        let joined = |filled: std::thread::ScopedJoinHandle<'_, u64>| {
            filled.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (worked, filled.map_or(0, joined))
    });
    drop(runtime);
    worked?;
    let mut total = Tally::new(&plan.ledger);
    total.overdue = overdue;
    // After a failure, each tally must count its durable records. Their sum cannot.
    let failed = shared.tallies.iter().any(|tally| lock(tally).failed.is_some());
    for tally in &shared.tallies {
        let mut tally = std::mem::replace(&mut *lock(tally), Tally::new(&[]));
        if failed && plan.mode != Mode::Blocking {
            tally.keep_durable(|at| {
                let (log, lsn) = place(at);
                wals[log].durable_end() > lsn
            });
        }
        total.merge(tally);
    }
    if failed {
        // Blocking tasks count only durable records.
        total.highest.clear();
    }
    total.mark();
    Ok(total)
}

/// Runs all tasks to their ends.
async fn drive(
    shared: &Arc<Shared>,
    plan: &Plan,
    samples: Option<SyncSender<Sample>>,
) -> Result<(), Error> {
    let mut tasks = JoinSet::new();
    for number in 0..plan.tasks {
        let shared = Arc::clone(shared);
        let left = quota(plan.records, plan.tasks, number);
        match plan.mode {
            Mode::Blocking => tasks.spawn(blocking(shared, number, left)),
            Mode::Pipelined => tasks.spawn(pipelined(shared, number, left, samples.clone())),
            Mode::Open(rate) => {
                let rate = rate / plan.tasks as f64;
                let sampler = Sampler::of_arrivals(samples.clone(), number, rate, plan.tasks);
                let waits = plan.meaning == Meaning::ArrivalEach;
                tasks.spawn(open(shared, number, sampler, waits))
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
            shared.stop.set();
            worked = worked.and(done);
        }
    }
    worked
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
    let (mut order, mut turns) = (Order::default(), Turns::new(&shared, number));
    // The end of one record is the start of the next: one reading of the clock for each.
    let mut begun = Instant::now();
    while left > 0 && !shared.stop.is_set() {
        let Some(payload) = source.next_payload()? else { break };
        let (log, wal) = turns.next(&shared);
        let appended = match wal.append_async(payload).await {
            Ok(lsn) => wal.when_durable(lsn).await.map(|()| lsn),
            Err(e) => Err(e),
        };
        let at = match appended {
            Ok(lsn) => Some(position(log, lsn)),
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
            tally.count(at, payload);
        }
        begun = now;
        order.check(at)?;
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
    let (mut order, mut turns) = (Order::default(), Turns::new(&shared, number));
    let mut turn = TURN;
    while left > 0 && !shared.stop.is_set() {
        let Some(payload) = source.next_payload()? else { break };
        let timed = sampler.begin();
        let (log, wal) = turns.next(&shared);
        let at = match wal.append_async(payload).await {
            Ok(lsn) => Some(position(log, lsn)),
            Err(e) => return shared.tally().fail(shared.source.explain(e), &shared.stop),
        };
        {
            let mut tally = shared.tally();
            if let Some(begun) = timed {
                sampler.end(begun, at, &mut tally);
            }
            tally.count(at, payload);
        }
        order.check(at)?;
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

/// Appends arrivals, one at a time. With `waits`, a task takes the next one when its last record is
/// durable; otherwise when the log has accepted it.
async fn open(
    shared: Arc<Shared>,
    number: usize,
    mut sampler: Sampler,
    waits: bool,
) -> Result<(), Error> {
    let mut source = shared.source.producer(number);
    let (mut order, mut turns) = (Order::default(), Turns::new(&shared, number));
    while let Some((arrival, arrived)) = shared.queue.take().await {
        let Some(payload) = source.payload_of(arrival.bytes)? else { break };
        let timed = sampler.begin();
        let (log, wal) = turns.next(&shared);
        let appended = match wal.append_async(payload).await {
            Ok(lsn) if waits => wal.when_durable(lsn).await.map(|()| lsn),
            other => other,
        };
        let at = match appended {
            Ok(lsn) => Some(position(log, lsn)),
            Err(e) => return shared.tally().fail(shared.source.explain(e), &shared.stop),
        };
        {
            let mut tally = shared.tally();
            if waits {
                let latency = arrived.elapsed();
                tally.latencies.record(latency);
                if let Some(intervals) = &shared.intervals {
                    intervals.record(WORKER.get(), latency);
                }
            } else if timed.is_some() {
                sampler.end(arrived, at, &mut tally);
            }
            tally.count(at, payload);
            if waits {
                tally.mark();
            }
        }
        order.check(at)?;
    }
    shared.tally().skipped += sampler.skipped;
    Ok(())
}
