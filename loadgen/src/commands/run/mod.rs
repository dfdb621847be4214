//! A complete run: open, drive, close, measure the raw device, verify.

mod baseline;
mod report;
pub mod settings;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ringwal::{BackendInfo, BackendKind, Lsn, MethodReason, Wal};

use crate::cli::Args;
use crate::commands::probe::Grid;
use crate::commands::run::settings::Settings;
use crate::error::Error;
use crate::log_dir::RunDir;
use crate::log_dir::device::Device;
use crate::logs::Logs;
use crate::measure::environment::Environment;
use crate::measure::latency::{Intervals, Latencies};
use crate::measure::series::{Point, Series};
use crate::measure::usage::{Meter, Spent};
use crate::output::print;
use crate::output::progress::{Part, Progress};
use crate::stop::Stop;
use crate::units::{bytes, nanos, si};
use crate::workload::background;
use crate::workload::input::Lines;
use crate::workload::ledger::{Ledger, Stretches, Verified};
use crate::workload::payload::Pool;
use crate::workload::readers::{self, Deliveries, Readers};
use crate::workload::trace::Trace;
use crate::workload::verify::verify;
use crate::workload::{self, Meaning, Mode, Outcome, Plan, Source};

pub use baseline::Comparison;
pub use report::{Report, Work};

/// Runs the workload of the arguments. The directory is removed afterwards unless it is to stay.
///
/// # Errors
///
/// Those of the arguments, the directory and the log. A failed verification is part of the report.
pub fn run(args: &Args, stop: &Arc<Stop>) -> Result<Report, Error> {
    args.check()?;
    // Opens the input before it creates a directory.
    let records = Records::open(args)?;
    let mut dir = match &args.dir {
        Some(path) => RunDir::given(path, args.keep, stop)?,
        None => RunDir::fresh(args.keep, stop)?,
    };
    let settings = Settings::new(args, &dir, records.source.largest())?;
    let mut progress = Progress::new(args.quiet);
    progress.step("opening the log", Part::Unknown);
    // A stop of its own: the end of this run does not end the whole that it is a part of.
    let ran = measured(args, &Stop::below(stop), &dir, &settings, records, progress);
    if let Ok(report) = &ran
        && let Some(Err(_)) = report.verified
    {
        // Keeps the log, which is the only evidence.
        dir.leave();
    }
    ran.map(|report| Report { stays: dir.stays(), ..report })
}

/// The source of records, their recorded arrivals, and the seed of both.
struct Records {
    source: Source,
    replay: Option<Arc<Trace>>,
    seed: u64,
}

impl Records {
    fn open(args: &Args) -> Result<Records, Error> {
        let seed = args.seed.unwrap_or_else(new_seed);
        let replay = args.replay.as_deref();
        let largest = args.max_record.unwrap_or(u64::MAX);
        let replay = replay.map(|path| Trace::open(path, largest)).transpose()?.map(Arc::new);
        let pool = match (&args.input, &args.sample, &replay) {
            (Some(path), _, _) => {
                let lines = Lines::open(path, args.longest_line())?;
                let source = Source::Lines(Arc::new(Mutex::new(lines)));
                return Ok(Records { source, replay, seed });
            }
            (None, Some(path), _) => Pool::of_lines(path, seed)?,
            (None, None, Some(trace)) => Pool::of_trace(trace, seed),
            (None, None, None) => Pool::new(args.record_size(), seed),
        };
        Ok(Records { source: Source::Generated(Arc::new(pool)), replay, seed })
    }
}

/// Returns a seed short enough to type.
pub(crate) fn new_seed() -> u64 {
    RandomState::new().hash_one(std::process::id()) >> 32
}

/// Opens and drives the log, then measures the raw device and verifies.
fn measured(
    args: &Args,
    stop: &Arc<Stop>,
    dir: &RunDir,
    settings: &Settings,
    records: Records,
    mut progress: Progress,
) -> Result<Report, Error> {
    let environment = Environment::of(dir.path());
    let logs = open(args, settings, stop, &mut progress)?;
    let from: Vec<Lsn> = logs.all().iter().map(|wal| wal.recovery().durable_end).collect();
    let recorded = Arc::new(Intervals::default());
    let seed = records.seed;
    let plan = plan(args, settings, records, &recorded, &logs);
    let (meaning, device) = (plan.meaning, Device::under(dir.path()));
    let site = Site { args, stop, dir, settings, device: &device };
    let driven = site.drive(&logs, plan, recorded, &mut progress)?;
    let Driven { mut outcome, failed, backend, work, .. } = driven;
    let over = stop.was_signalled() || failed.is_some() || backend.kind == BackendKind::Discard;
    let baseline = if args.baseline.is_zero() || over || work.groups == 0 {
        None
    } else {
        progress.step("measuring the raw device", Part::Of(args.baseline));
        Some(baseline::compare(args, stop, dir, settings, &backend, &work, &outcome)?)
    };
    let grid = if baseline.is_none() || args.raw_time().is_zero() {
        Vec::new()
    } else {
        Grid::of_a_run(dir.path(), &device, args.raw_time()).measure(stop, &mut progress)?
    };
    drop(logs);
    let ledgers = std::mem::take(&mut outcome.ledger);
    let verified = verified(ledgers, settings, &from, &mut progress)?;
    let mut report = Report {
        args: args.clone(),
        ended_by: ended_by(failed.as_ref(), stop, &driven.ended),
        outcome,
        series: driven.series,
        meaning,
        work,
        backend,
        directory: dir.path().into(),
        stays: dir.stays(),
        settings: settings.clone(),
        device,
        baseline,
        grid,
        verified,
        failed,
        seed,
        environment,
        begun: driven.begun,
        spent: driven.used,
        required: Vec::new(),
        readers: driven.readers,
        peak_memory: peak_memory(),
    };
    if let Some(required) = &args.require
        && !stop.was_signalled()
    {
        report.required = required.check(|metric| report.figure(metric));
    }
    Ok(report)
}

/// The setting of a run: arguments, directory, device and stop.
struct Site<'a> {
    args: &'a Args,
    stop: &'a Arc<Stop>,
    dir: &'a RunDir,
    settings: &'a Settings,
    device: &'a Device,
}

/// Reasons for which the watching thread ends a run.
#[derive(Debug, Clone, Copy, Default)]
struct Reasons {
    /// The disk budget is spent.
    spent: bool,
    /// The latencies exceed what is required.
    too_slow: bool,
}

/// A run whose log is closed.
struct Driven {
    outcome: Outcome,
    series: Series,
    begun: SystemTime,
    used: Spent,
    ended: Reasons,
    failed: Option<Error>,
    readers: Option<readers::Report>,
    work: Work,
    backend: BackendInfo,
}

impl Site<'_> {
    /// Warms up, runs the plan with readers and writers beside it, and closes the log.
    fn drive(
        &self,
        logs: &Logs,
        mut plan: Plan,
        recorded: Arc<Intervals>,
        progress: &mut Progress,
    ) -> Result<Driven, Error> {
        let Site { args, stop, dir, settings, device } = *self;
        let opened = logs.stats();
        let writers = (0..args.background_writers).map(|_| background::start(dir.path()));
        let writers = writers.collect::<Result<Vec<_>, _>>()?;
        let warm = warm_up(args, stop, settings, &plan, logs, progress)?;
        let beside = start_readers(args, &mut plan, logs)?;
        let (before, flushes_before) = (logs.stats(), device.flushes());
        let (mut ended, mut series) = (Reasons::default(), Series::new(logs, recorded));
        let mut status = Status::default();
        let (begun, meter) = (SystemTime::now(), Meter::start());
        let ring = logs.ring_bytes();
        progress.clear();
        let outcome = workload::run(logs, &plan, stop, |passed| {
            if let Some(point) = series.look(passed, logs) {
                progress.tick(&point, ring, plan.duration);
                status.look(args.status_interval, &point);
                ended.too_slow = is_too_slow(args, series.so_far());
            }
            let written = logs.stats().group_bytes - opened.group_bytes;
            ended.spent = settings.budget_is_spent(written);
            match ended.spent || ended.too_slow {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        progress.clear();
        let mut outcome = outcome?;
        let used = meter.stop(outcome.producers);
        plan.deliveries = None;
        let readers = beside.map(Readers::finish).transpose();
        drop(writers);
        series.finish(Duration::from_secs_f64(outcome.seconds), logs);
        let failed = outcome.failed.take();
        if failed.is_some() {
            // A failed log accepts nothing more, and its figures are not verified.
            outcome.ledger.clear();
        }
        for (ledger, warm) in outcome.ledger.iter_mut().zip(&warm) {
            ledger.merge(warm);
        }
        // A log that failed has failed its readers, too.
        let readers = match readers {
            Err(_) if failed.is_some() => None,
            readers => readers?,
        };
        let work = Work::between(&before, &logs.stats(), (flushes_before, device.flushes()));
        let backend = logs.backend();
        let closed = logs.close();
        if failed.is_none() {
            closed?;
        }
        Ok(Driven { outcome, series, begun, used, ended, failed, readers, work, backend })
    }
}

/// Verifies the closed logs against their ledgers, if the run kept them.
/// The inner error says which records are missing or different.
fn verified(
    ledgers: Vec<Ledger>,
    settings: &Settings,
    from: &[Lsn],
    progress: &mut Progress,
) -> Result<Option<Result<Verified, String>>, Error> {
    if ledgers.is_empty() {
        return Ok(None);
    }
    let mut all = Verified { records: 0, removed: 0, uncompared: 0 };
    for (number, (ledger, from)) in ledgers.into_iter().zip(from).enumerate() {
        if ledger.records() == 0 && settings.logs > 1 {
            // A short run may have no record for one of its logs.
            continue;
        }
        let done = Arc::new(AtomicU32::new(0));
        progress.step("verifying", Part::Counted(Arc::clone(&done)));
        let found = verify(settings.builder_keeping_all(number), *from, ledger, &done);
        progress.clear();
        match found {
            Ok(Verified { records, removed, uncompared }) => {
                all.records += records;
                all.removed += removed;
                all.uncompared += uncompared;
            }
            Err(Error::Verify(what)) if settings.logs > 1 => {
                return Ok(Some(Err(format!("log{number}: {what}"))));
            }
            Err(Error::Verify(what)) => return Ok(Some(Err(what))),
            Err(e) => return Err(e),
        }
    }
    Ok(Some(Ok(all)))
}

/// Why the run ended before its time, if it did.
fn ended_by(failed: Option<&Error>, stop: &Stop, ended: &Reasons) -> Option<&'static str> {
    match failed {
        Some(e) if is_full(e) => Some("a full disk"),
        Some(_) => Some("a failure of the log"),
        None if stop.was_signalled() => Some("a signal"),
        None if ended.spent => Some("its disk budget"),
        None => ended.too_slow.then_some("latencies beyond what is required"),
    }
}

/// Fills the segments once, or until the rate is steady. Returns the ledgers of its records.
fn warm_up(
    args: &Args,
    stop: &Arc<Stop>,
    settings: &Settings,
    plan: &Plan,
    logs: &Logs,
    progress: &mut Progress,
) -> Result<Vec<Ledger>, Error> {
    const LONGEST: Duration = Duration::from_secs(120);
    let time = match args.warm_up {
        None if args.until_steady => LONGEST,
        Some(time) if !time.is_zero() => time,
        _ => return Ok(Vec::new()),
    };
    progress.step("warming up", Part::Of(time));
    let opened = logs.stats();
    let (records, intervals) = (None, None);
    let seed = plan.seed.wrapping_add(1);
    let mut plan = Plan { duration: Some(time), records, intervals, seed, ..plan.clone() };
    if matches!(plan.mode, Mode::Open(_)) {
        // Warms up at full speed, because the purpose is to fill the segments once.
        plan.mode = Mode::Pipelined;
        plan.meaning = Meaning::of(plan.mode, args.durability);
    }
    let mut series = Series::new(logs, Arc::default());
    let watch = |passed| {
        let spent = settings.budget_is_spent(logs.stats().group_bytes - opened.group_bytes);
        let _ = series.look(passed, logs);
        if spent || stop.is_set() || (args.until_steady && series.is_settled()) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let mut warmed = workload::run(logs, &plan, &Arc::new(Stop::default()), watch)?;
    warmed.failed.take().map_or(Ok(warmed.ledger), Err)
}

fn start_readers(args: &Args, plan: &mut Plan, logs: &Logs) -> Result<Option<Readers>, Error> {
    if args.followers + args.consumers == 0 {
        return Ok(None);
    }
    let deliveries = Arc::new(Deliveries::new(logs));
    let readers = Readers::start(logs, args.followers, args.consumers, &deliveries)?;
    plan.deliveries = Some(deliveries);
    Ok(Some(readers))
}

/// Writes a status line to stderr at an interval.
#[derive(Debug, Default)]
struct Status {
    shown: f64,
}

impl Status {
    fn look(&mut self, every: Option<Duration>, point: &Point) {
        let Some(every) = every.map(|every| every.as_secs_f64()) else { return };
        if point.seconds < self.shown + every {
            return;
        }
        self.shown = point.seconds;
        let [p50, p99, _, max] = point.latency.map(nanos);
        let text = format!(
            "{:.1} s: {} records/s; p50 {p50}, p99 {p99}, max {max}; {} not durable\n",
            point.seconds,
            si(point.records_per_s),
            bytes(point.ring_bytes as f64)
        );
        // A lost status line loses no result.
        let _ = print(std::io::stderr(), &text);
    }
}

/// True if the run can no longer meet its requirements.
fn is_too_slow(args: &Args, latencies: &Latencies) -> bool {
    let abort = args.require.as_ref().filter(|_| args.require_abort);
    args.most_above.is_some_and(|(bound, most)| latencies.above(bound) > most)
        || abort.is_some_and(|required| required.are_out_of_reach(latencies))
}

/// True if the disk was full.
fn is_full(e: &Error) -> bool {
    let full = |kind| {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(kind, StorageFull | QuotaExceeded | FileTooLarge)
    };
    let Error::Log(e) = e else { return false };
    if matches!(e, ringwal::Error::NoSpace) {
        return true;
    }
    let mut cause: Option<&dyn std::error::Error> = Some(e);
    while let Some(e) = cause {
        if e.downcast_ref::<std::io::Error>().is_some_and(|e| full(e.kind())) {
            return true;
        }
        cause = e.source();
    }
    false
}

/// Opens all logs. The first one measures the commit methods, and the others use its choice.
fn open(
    args: &Args,
    settings: &Settings,
    stop: &Stop,
    progress: &mut Progress,
) -> Result<Logs, Error> {
    let first = settings.builder(0).open()?;
    progress.step("timing the commit methods", Part::Unknown);
    until_settled(&first, stop);
    let chosen = first.backend().commit_method.parse().unwrap_or(args.commit_method);
    let mut logs = Logs::new(first);
    for number in 1..settings.logs {
        progress.step(&format!("opening log {} of {}", number + 1, settings.logs), Part::Unknown);
        logs.push(settings.builder(number).commit_method(chosen).open()?);
    }
    Ok(logs)
}

/// Waits until the log has chosen its commit method, ten seconds at most. A run is measured with
/// one method.
fn until_settled(wal: &Wal, stop: &Stop) {
    for _ in 0..1000 {
        if wal.backend().commit_method_reason != MethodReason::Measuring || stop.is_set() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn plan(
    args: &Args,
    settings: &Settings,
    records: Records,
    recorded: &Arc<Intervals>,
    logs: &Logs,
) -> Plan {
    let stretches = |wal: &Wal| Stretches {
        from: wal.recovery().durable_end.as_u64(),
        origin: wal.oldest_lsn().as_u64(),
        len: settings.segment_size,
        kept: settings.kept_segments(),
    };
    let verified = if args.verify { logs.all() } else { &[] };
    let Records { source, replay, seed } = records;
    let (mode, records) = match &replay {
        Some(trace) => {
            let all = trace.records();
            (Mode::Open(trace.rate()), Some(args.records.map_or(all, |n| n.min(all))))
        }
        None => (args.workload_mode(), args.records),
    };
    Plan {
        mode,
        arrivals: args.arrivals,
        replay,
        threads: args.threads,
        tasks: args.tasks.unwrap_or(0),
        source,
        duration: args.time_limit(),
        records,
        meaning: args.meaning(),
        sync_every: None,
        seed,
        intervals: Some(Arc::clone(recorded)),
        deliveries: None,
        ledger: verified.iter().map(stretches).collect(),
    }
}

/// Reads `VmHWM` of this process.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
