//! Drives an [`Engine`] with threads or tasks, each record awaited or pipelined.
//!
//! 1. Closed loop: a producer appends its next record when the log has accepted the last one, or
//!    made it durable. Open loop: a producer appends at scheduled times, late if necessary, and
//!    never skips a record. For a closed loop, the outcome also has latencies corrected for
//!    coordinated omission.
//! 2. Producers share only the log, the stop flag, and the input file if there is one.
//! 3. When [`run`] returns Ok, every counted record is durable. After a failure of the log, the
//!    outcome holds the failure and counts only records that are acknowledged or known to be
//!    durable.

mod arrivals;
pub(crate) mod background;
pub mod input;
pub mod ledger;
pub mod payload;
pub mod readers;
mod sampler;
mod source;
mod tasks;
#[cfg(test)]
mod tests;
mod threads;
pub mod trace;
pub mod verify;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::engine::{Engine, Position};
use crate::error::Error;
use crate::logs::place;
use crate::measure::latency::{Intervals, Latencies};
use crate::measure::usage::Usage;
use crate::stop::Stop;
use crate::units::SizeRange;
use crate::workload::ledger::{Ledger, Stretches};
use crate::workload::payload::Pool;
use crate::workload::readers::Deliveries;
use crate::workload::trace::Trace;

pub use arrivals::Pattern;
use sampler::{Hold, Sample};
pub use sampler::{Meaning, OPEN_SAMPLES};
pub use source::Source;

/// The way in which producers wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// A producer appends its next record when the last one is durable.
    Blocking,
    /// Producers append without waiting. All records are durable at the end.
    Pipelined,
    /// Records arrive on a schedule, this many per second over all threads.
    Open(f64),
}

/// A workload.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The way in which producers wait.
    pub mode: Mode,
    /// In an open loop: the pattern of arrivals.
    pub arrivals: Pattern,
    /// In an open loop: recorded arrivals and sizes, instead of the pattern and the source's sizes.
    /// The producers share them in turn.
    pub replay: Option<Arc<Trace>>,
    /// Threads that append, at least one. With tasks, worker threads of the runtime.
    pub threads: usize,
    /// Async tasks that append instead of the threads; 0 for none.
    pub tasks: usize,
    /// The source of records.
    pub source: Source,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Stop after this many records.
    pub records: Option<u64>,
    /// The definition of a latency. [`Meaning::of`] chooses the one that fits the log's settings.
    pub meaning: Meaning,
    /// Keeps a ledger of each log to verify a replay with; empty for none. The engine must report
    /// positions.
    pub ledger: Vec<Stretches>,
    /// Adds a thread that syncs at this interval and measures each sync.
    pub sync_every: Option<Duration>,
    /// Seed of random arrivals.
    pub seed: u64,
    /// Histograms that also count the latencies, for observers during the run.
    pub intervals: Option<Arc<Intervals>>,
    /// Receives every appended position, if readers run beside the producers.
    pub deliveries: Option<Arc<Deliveries>>,
}

impl Plan {
    /// Plans this many threads, each of which waits for its records of `size` bytes until a stop.
    #[must_use]
    pub fn blocking(threads: usize, size: usize) -> Plan {
        Plan {
            mode: Mode::Blocking,
            arrivals: Pattern::Poisson,
            replay: None,
            threads,
            tasks: 0,
            source: Source::Generated(Arc::new(Pool::new(SizeRange { min: size, max: size }, 1))),
            duration: None,
            records: None,
            meaning: Meaning::Each,
            ledger: Vec::new(),
            sync_every: None,
            seed: 0,
            intervals: None,
            deliveries: None,
        }
    }

    /// Plans this many threads that do not wait, and a sync at each interval.
    #[must_use]
    pub fn synced(threads: usize, size: usize, every: Duration) -> Plan {
        let (mode, meaning) = (Mode::Pipelined, Meaning::Append);
        Plan { mode, meaning, sync_every: Some(every), ..Plan::blocking(threads, size) }
    }
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Records, all durable.
    pub records: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// From the first append until the last record was durable.
    pub seconds: f64,
    /// Latencies, as [`Plan::meaning`] defines them.
    pub latencies: Latencies,
    /// In a closed loop: the latencies if the records had arrived evenly at the measured rate.
    pub corrected: Option<Latencies>,
    /// The syncs of [`Plan::sync_every`].
    pub syncs: Latencies,
    /// In an open loop: estimated records that had arrived by the end and were not appended.
    pub overdue: u64,
    /// Samples that were dropped because the waiting thread was behind.
    pub skipped: u64,
    /// The ledgers of the logs, if the plan asked for them.
    pub ledger: Vec<Ledger>,
    /// The failure of the log that ended the run. The figures count until then.
    pub failed: Option<Error>,
    /// Processor time of the producers.
    pub producers: Usage,
}

/// The count of one producer, or of one worker of a runtime.
#[derive(Debug)]
struct Tally {
    records: u64,
    bytes: u64,
    latencies: Latencies,
    holds: Vec<Hold>,
    overdue: u64,
    skipped: u64,
    ledger: Vec<Ledger>,
    /// The highest position so far in each log, and earlier counts with their positions.
    highest: Vec<Position>,
    marks: VecDeque<Mark>,
    failed: Option<Error>,
    usage: Usage,
    deliveries: Option<Arc<Deliveries>>,
}

/// A count, and the highest position of the records in it in each log.
#[derive(Debug, Clone)]
struct Mark {
    highest: Vec<Position>,
    records: u64,
    bytes: u64,
}

/// Exceeds the samples in a full ring.
const MOST_MARKS: usize = 4096;

impl Tally {
    fn new(ledger: &[Stretches]) -> Self {
        let ledger = ledger.iter().copied().map(Ledger::new).collect();
        let (latencies, holds) = (Latencies::new(), Vec::new());
        Tally {
            records: 0,
            bytes: 0,
            latencies,
            holds,
            overdue: 0,
            skipped: 0,
            ledger,
            highest: Vec::new(),
            marks: VecDeque::new(),
            failed: None,
            usage: Usage::default(),
            deliveries: None,
        }
    }

    /// Creates the tally of a producer of this plan.
    fn of(plan: &Plan) -> Self {
        Tally { deliveries: plan.deliveries.clone(), ..Tally::new(&plan.ledger) }
    }

    /// Notes the current count, in case the log fails.
    fn mark(&mut self) {
        if self.marks.len() == MOST_MARKS {
            self.marks.pop_front();
        }
        let Tally { ref highest, records, bytes, .. } = *self;
        let highest = highest.clone();
        self.marks.push_back(Mark { highest, records, bytes });
    }

    /// Reduces the count to durable records, after the log failed under a producer that does not
    /// wait.
    fn keep_durable(&mut self, is_durable: impl Fn(Position) -> bool) {
        self.mark();
        // 0 is the place of a log without a record.
        let all_durable = |m: &&Mark| m.highest.iter().all(|at| *at == 0 || is_durable(*at));
        let durable = self.marks.iter().rev().find(|m| m.records == 0 || all_durable(m));
        (self.records, self.bytes) = durable.map_or((0, 0), |mark| (mark.records, mark.bytes));
    }

    /// Stops the run. A failure of the log keeps the measured figures; any other error discards
    /// them.
    fn fail(&mut self, e: Error, stop: &Stop) -> Result<(), Error> {
        stop.set();
        match e {
            Error::Log(ringwal::Error::Options(_)) => Err(e),
            Error::Log(_) | Error::Engine(_) => {
                self.failed.get_or_insert(e);
                Ok(())
            }
            other => Err(other),
        }
    }

    #[inline]
    fn count(&mut self, at: Option<Position>, payload: &[u8]) {
        self.records += 1;
        self.bytes += payload.len() as u64;
        let Some(at) = at else { return };
        let (log, lsn) = place(at);
        raise(&mut self.highest, log, at);
        if let Some(deliveries) = &self.deliveries {
            deliveries.appended(at);
        }
        if let Some(ledger) = self.ledger.get_mut(log) {
            ledger.enter(lsn, payload);
        }
    }

    fn merge(&mut self, mut other: Tally) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.latencies.merge(&other.latencies);
        self.holds.extend_from_slice(&other.holds);
        self.overdue += other.overdue;
        self.skipped += other.skipped;
        self.usage.add(&other.usage);
        for (log, at) in other.highest.iter().enumerate() {
            raise(&mut self.highest, log, *at);
        }
        if let Some(e) = other.failed.take() {
            self.failed.get_or_insert(e);
        }
        for (mine, theirs) in self.ledger.iter_mut().zip(&other.ledger) {
            mine.merge(theirs);
        }
    }
}

/// Raises the highest position in a log.
#[inline]
fn raise(highest: &mut Vec<Position>, log: usize, at: Position) {
    if log >= highest.len() {
        highest.resize(log + 1, 0);
    }
    highest[log] = highest[log].max(at);
}

/// Checks that each log keeps the order of a producer.
#[derive(Debug, Default)]
struct Order {
    /// The last position in each log.
    last: Vec<Position>,
}

impl Order {
    #[inline]
    fn check(&mut self, at: Option<Position>) -> Result<(), Error> {
        let Some(at) = at else { return Ok(()) };
        let (log, _) = place(at);
        if log >= self.last.len() {
            self.last.resize(log + 1, 0);
        }
        let last = std::mem::replace(&mut self.last[log], at);
        if at <= last {
            return Err(Error::Verify(format!(
                "a producer was given LSN {at} after LSN {last}: its records are not in its order"
            )));
        }
        Ok(())
    }
}

/// Interval between the calls that [`run`] makes to its `watch`.
pub const TICK: Duration = Duration::from_millis(25);

/// The stack of a producer. This log needs little, and a run may have thousands of producers. The
/// need of other engines is unknown.
const STACK: usize = 256 << 10;
const OTHERS_STACK: usize = 2 << 20;

/// Runs the plan to its end on an open engine.
///
/// # Errors
///
/// Those of [`run`].
pub fn drive<E: Engine + ?Sized>(engine: &E, plan: &Plan) -> Result<Outcome, Error> {
    let stop = Arc::new(Stop::default());
    let mut outcome = run(engine, plan, &stop, |_| ControlFlow::Continue(()))?;
    outcome.failed.take().map_or(Ok(outcome), Err)
}

/// Runs the plan on an open engine. The calling thread calls `watch` every [`TICK`] with the
/// elapsed time. `watch` may end the run.
///
/// After a failure of the log, the outcome has the figures until then, and [`Outcome::failed`].
///
/// # Errors
///
/// The first other error of a producer; by then all producers have ended. [`Error::Usage`] for
/// tasks on an engine without asynchronous calls.
pub fn run<E: Engine + ?Sized>(
    engine: &E,
    plan: &Plan,
    stop: &Arc<Stop>,
    mut watch: impl FnMut(Duration) -> ControlFlow<()>,
) -> Result<Outcome, Error> {
    let begun = Instant::now();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let intervals = plan.intervals.as_deref();
        let (waiter, samples) = sampler::start(scope, engine, plan.meaning, intervals, &over)?;
        let mut handles = Vec::new();
        let started = start_producers(scope, engine, plan, stop, samples, &mut handles);
        let syncer = match (plan.sync_every, &started) {
            (Some(every), Ok(())) => Some(scope.spawn(move || sync_often(engine, every, stop))),
            _ => None,
        };
        if started.is_ok() {
            attend(plan, stop, begun, handles.len(), &mut watch);
        }
        stop.set();
        let mut tallies = Vec::new();
        let mut failed = started.err();
        for handle in handles {
            match joined(handle) {
                Ok(tally) => tallies.push(tally),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        let syncs = syncer.map(joined);
        // A blocking producer leaves nothing that is not durable.
        let synced = match plan.mode {
            Mode::Blocking => Ok(()),
            _ => engine.sync().map_err(Error::from),
        };
        let seconds = begun.elapsed().as_secs_f64();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        let measured = waiter.map(joined).transpose()?;
        if let Some(e) = failed {
            return Err(e);
        }
        Ended { tallies, syncs, synced, seconds, measured }.outcome(engine, plan, stop)
    })
}

/// Starts the producers of the plan: threads, or one thread with the runtime of all tasks.
fn start_producers<'scope, 'env, E: Engine + ?Sized>(
    scope: &'scope Scope<'scope, 'env>,
    engine: &'scope E,
    plan: &'scope Plan,
    stop: &'scope Arc<Stop>,
    samples: Option<SyncSender<Sample>>,
    handles: &mut Vec<ScopedJoinHandle<'scope, Result<Tally, Error>>>,
) -> Result<(), Error> {
    let stack = if engine.wals().is_empty() { OTHERS_STACK } else { STACK };
    match (plan.tasks > 0, engine.wals()) {
        (true, []) => Err(Error::Usage("this engine has no asynchronous calls".into())),
        (true, wals) => {
            let produce = move || tasks::produce(wals, plan, stop, samples);
            spawn(scope, "runtime", stack, stop, produce).map(|handle| handles.push(handle))
        }
        (false, _) => (0..plan.threads).try_for_each(|number| {
            let samples = samples.clone();
            let name = format!("producer-{number}");
            let produce = move || threads::produce(engine, plan, number, stop, samples);
            spawn(scope, &name, stack, stop, produce).map(|handle| handles.push(handle))
        }),
    }
}

/// The results of all threads of a run.
struct Ended {
    tallies: Vec<Tally>,
    /// The latencies of the syncs, if the plan has a thread for them.
    syncs: Option<Result<Latencies, Error>>,
    /// The result of the last sync, which makes every record durable.
    synced: Result<(), Error>,
    seconds: f64,
    /// The latencies that the waiting thread measured, and the times that it was held up.
    measured: Option<(Latencies, Vec<Hold>)>,
}

impl Ended {
    /// Adds up what the threads did. After a failure of the log, only durable records count.
    fn outcome<E: Engine + ?Sized>(
        self,
        engine: &E,
        plan: &Plan,
        stop: &Stop,
    ) -> Result<Outcome, Error> {
        let Ended { tallies, syncs, synced, seconds, measured } = self;
        let mut total = Tally::new(&plan.ledger);
        let log_failed = tallies.iter().any(|tally| tally.failed.is_some())
            || synced.is_err()
            || matches!(syncs, Some(Err(_)));
        for mut tally in tallies {
            if log_failed && plan.mode != Mode::Blocking {
                tally.keep_durable(|at| engine.is_durable(Some(at)));
            }
            total.merge(tally);
        }
        if let Some((measured, holds)) = measured {
            total.latencies.merge(&measured);
            total.holds.extend(holds);
        }
        let syncs = match syncs {
            Some(Err(e)) => {
                total.fail(e, stop)?;
                Latencies::new()
            }
            Some(Ok(syncs)) => syncs,
            None => Latencies::new(),
        };
        if let Err(e) = synced {
            total.fail(e, stop)?;
        }
        let producers = if plan.tasks > 0 { plan.tasks } else { plan.threads };
        let every = seconds * producers as f64 / total.records.max(1) as f64;
        let every = Duration::from_secs_f64(every);
        let corrected = match plan.mode {
            Mode::Open(_) => None,
            Mode::Pipelined => Some(sampler::correct(&total.latencies, &total.holds, every)),
            Mode::Blocking => Some(total.latencies.corrected(every)),
        };
        Ok(Outcome {
            records: total.records,
            bytes: total.bytes,
            seconds,
            latencies: total.latencies,
            corrected,
            syncs,
            overdue: total.overdue,
            skipped: total.skipped,
            ledger: total.ledger,
            failed: total.failed,
            producers: total.usage,
        })
    }
}

/// Syncs at each interval until the run is over or a sync fails.
fn sync_often<E: Engine + ?Sized>(
    engine: &E,
    every: Duration,
    stop: &Stop,
) -> Result<Latencies, Error> {
    let mut latencies = Latencies::new();
    while !stop.wait(usize::MAX, every) && !stop.is_set() {
        let begun = Instant::now();
        if let Err(e) = engine.sync() {
            stop.set();
            return Err(e.into());
        }
        latencies.record(begun.elapsed());
    }
    Ok(latencies)
}

/// Waits until the producers, the time, a stop or `watch` ends the run.
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

/// Reports on drop that a producer is done, also after a panic.
struct Done<'a>(&'a Stop);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.producer_done();
    }
}

fn spawn<'scope, 'env, T: Send + 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    name: &str,
    stack: usize,
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
    let spawned = Builder::new().name(name.into()).stack_size(stack).spawn_scoped(scope, body);
    spawned.map_err(|source| Error::System { what: "start a thread; give fewer --threads", source })
}

fn joined<T>(handle: ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Returns the share of `records` of one of `producers`.
fn quota(records: Option<u64>, producers: usize, number: usize) -> u64 {
    let producers = producers.max(1) as u64;
    records.map_or(u64::MAX, |n| n / producers + u64::from((number as u64) < n % producers))
}
