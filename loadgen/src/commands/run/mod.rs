//! The whole of a run: open, drive, close, measure the raw device, verify.

pub mod settings;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ringwal::{BackendInfo, BackendKind, Durability, MethodReason, Stats, Wal};

use crate::cli::Args;
use crate::commands::probe::{Cell, Grid};
use crate::commands::run::settings::Settings;
use crate::error::Error;
use crate::log_dir::RunDir;
use crate::log_dir::device::Device;
use crate::measure::environment::Environment;
use crate::measure::latency::{Intervals, Latencies};
use crate::measure::require::{self, Check, Metric};
use crate::measure::series::{Point, Series};
use crate::measure::usage::{Meter, Spent};
use crate::output::print;
use crate::output::progress::{Part, Progress};
use crate::raw::{self, Baseline, Method};
use crate::stop::Stop;
use crate::units::{bytes, nanos, si};
use crate::workload::background;
use crate::workload::input::Lines;
use crate::workload::ledger::{Ledger, Stretches, Verified};
use crate::workload::payload::Pool;
use crate::workload::readers::{self, Deliveries, Readers};
use crate::workload::verify::verify;
use crate::workload::{self, Meaning, Mode, Outcome, Plan, Source};

/// Everything that a run has found out.
#[derive(Debug)]
pub struct Report {
    /// What was asked for.
    pub args: Args,
    /// What the workload did.
    pub outcome: Outcome,
    /// The same as time passed.
    pub series: Series,
    /// What a latency is.
    pub meaning: Meaning,
    /// What the log did for it.
    pub work: Work,
    /// What did the I/O.
    pub backend: BackendInfo,
    /// Where the log was.
    pub directory: std::path::PathBuf,
    /// Whether it is still there.
    pub stays: bool,
    /// How the disk was used.
    pub settings: Settings,
    /// What is under it.
    pub device: Device,
    /// The raw device, if it was measured.
    pub baseline: Option<Comparison>,
    /// The raw device in every shape, if it was measured.
    pub grid: Vec<Cell>,
    /// The verdict, if there was to be one.
    pub verified: Option<Result<Verified, String>>,
    /// Why the run ended before its time, if it did.
    pub ended_by: Option<&'static str>,
    /// What the log failed with, if it did: the figures are those until then.
    pub failed: Option<Error>,
    /// What arrivals, sizes and content were drawn from.
    pub seed: u64,
    /// Where and how.
    pub environment: Environment,
    /// When the measured part began.
    pub begun: SystemTime,
    /// Processor time of the measured part.
    pub spent: Spent,
    /// What became of --require; nothing after an interruption.
    pub required: Vec<Check>,
    /// Of the readers beside, if there were any.
    pub readers: Option<readers::Report>,
    /// The most memory that the process had, in bytes.
    pub peak_memory: Option<u64>,
}

/// What a log did during a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    /// Groups with records.
    pub groups: u64,
    /// Bytes of all groups, with headers and padding.
    pub group_bytes: u64,
    /// Groups in flight on average, the one just submitted included.
    pub mean_depth: f64,
    /// Durability barriers.
    pub syncs: u64,
    /// Rotations to the next segment.
    pub rotations: u64,
    /// Segments written in advance.
    pub prepared: u64,
    /// Segments reused.
    pub recycled: u64,
    /// Appends that waited for room in the ring.
    pub full_waits: u64,
    /// Flushes of the disk, by everybody.
    pub flushes: Option<u64>,
}

/// The raw device beside the log.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// What was measured.
    pub raw: Baseline,
    /// The log's written bytes per second by the device's, at the same group size and depth.
    pub eta: Option<f64>,
    /// The log's median latency by that of a raw write of one block.
    pub p50_ratio: Option<f64>,
    /// In an open loop: the log's 99.9th percentile by the median of a raw write of one mean group.
    pub p999_ratio: Option<f64>,
}

impl Work {
    fn between(before: &Stats, after: &Stats, flushes: (Option<u64>, Option<u64>)) -> Work {
        Work {
            groups: after.groups - before.groups,
            group_bytes: after.group_bytes - before.group_bytes,
            mean_depth: (after.depth_sum - before.depth_sum) as f64
                / (after.groups - before.groups).max(1) as f64,
            syncs: after.syncs - before.syncs,
            rotations: after.rotations - before.rotations,
            prepared: after.segments_prepared - before.segments_prepared,
            recycled: after.segments_recycled - before.segments_recycled,
            full_waits: after.ring_full_waits - before.ring_full_waits,
            flushes: flushes.0.zip(flushes.1).and_then(|(a, b)| b.checked_sub(a)),
        }
    }

    /// Mean bytes of a group; 0 without groups.
    #[must_use]
    pub fn mean_group(&self) -> f64 {
        if self.groups == 0 { 0.0 } else { self.group_bytes as f64 / self.groups as f64 }
    }
}

/// Runs what the arguments say, in a directory that is gone afterwards unless it is to stay.
///
/// # Errors
///
/// Any. A log that fails its verification is not one here: the report says so.
pub fn run(args: &Args, stop: &Arc<Stop>) -> Result<Report, Error> {
    args.check()?;
    let seed = args.seed.unwrap_or_else(new_seed);
    // The input is tried before a directory is made for nothing.
    let source = match (&args.input, &args.sample) {
        (Some(path), _) => {
            let lines = Lines::open(path, args.longest_line())?;
            Source::Lines(Arc::new(Mutex::new(lines)))
        }
        (None, Some(path)) => Source::Generated(Arc::new(Pool::of_lines(path, seed)?)),
        (None, None) => Source::Generated(Arc::new(Pool::new(args.record_size(), seed))),
    };
    let mut dir = match &args.dir {
        Some(path) => RunDir::given(path, args.keep, stop)?,
        None => RunDir::fresh(args.keep, stop)?,
    };
    let settings = Settings::new(args, &dir, source.largest())?;
    let mut progress = Progress::new(args.quiet);
    progress.step("opening the log", Part::Unknown);
    // A stop of its own: that this run is over does not end what it is a part of.
    let ran = measured(args, &Stop::below(stop), &dir, &settings, (source, seed), progress);
    if let Ok(report) = &ran
        && let Some(Err(_)) = report.verified
    {
        // What is wrong can be looked at only there.
        dir.leave();
    }
    ran.map(|report| Report { stays: dir.stays(), ..report })
}

/// Short enough to be typed.
pub(crate) fn new_seed() -> u64 {
    RandomState::new().hash_one(std::process::id()) >> 32
}

fn measured(
    args: &Args,
    stop: &Arc<Stop>,
    dir: &RunDir,
    settings: &Settings,
    (source, seed): (Source, u64),
    mut progress: Progress,
) -> Result<Report, Error> {
    let environment = Environment::of(dir.path());
    let wal = settings.builder().open()?;
    progress.step("timing the commit methods", Part::Unknown);
    until_settled(&wal, stop);
    let from = wal.recovery().durable_end;
    let recorded = Arc::new(Intervals::default());
    let mut plan = plan(args, settings, (source, seed), &recorded, &wal);
    let device = Device::under(dir.path());
    let opened = wal.stats();
    let writers = (0..args.background_writers).map(|_| background::start(dir.path()));
    let writers = writers.collect::<Result<Vec<_>, _>>()?;
    let warm = warm_up(args, stop, settings, &plan, &wal, &mut progress)?;
    let beside = start_readers(args, &mut plan, &wal)?;
    let (before, flushes_before) = (wal.stats(), device.flushes());
    let (mut spent, mut series) = (false, Series::new(&wal, recorded));
    let mut status = Status::default();
    let (mut too_slow, begun, meter) = (false, SystemTime::now(), Meter::start());
    let ring = wal.backend().ring_bytes as u64;
    progress.clear();
    let outcome = workload::run(&wal, &plan, stop, |passed| {
        if let Some(point) = series.look(passed, &wal) {
            progress.tick(&point, ring, plan.duration);
            status.look(args.status_interval, &point);
            too_slow = is_too_slow(args, series.so_far());
        }
        spent = settings.budget_is_spent(wal.stats().group_bytes - opened.group_bytes);
        if spent || too_slow { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    progress.clear();
    let mut outcome = outcome?;
    let used = meter.stop(outcome.producers);
    plan.deliveries = None;
    let readers = beside.map(Readers::finish).transpose();
    drop(writers);
    series.finish(Duration::from_secs_f64(outcome.seconds), &wal);
    let failed = outcome.failed.take();
    if failed.is_some() {
        // Nothing more can be had of it, and nothing is to be compared with what it did.
        outcome.ledger = None;
    }
    if let (Some(ledger), Some(warm)) = (&mut outcome.ledger, &warm) {
        ledger.merge(warm);
    }
    // A log that has failed has failed its readers, too.
    let readers = match readers {
        Err(_) if failed.is_some() => None,
        readers => readers?,
    };
    let work = Work::between(&before, &wal.stats(), (flushes_before, device.flushes()));
    let backend = wal.backend();
    let closed = wal.close();
    drop(wal);
    if failed.is_none() {
        closed?;
    }
    let over = stop.was_signalled() || failed.is_some() || backend.kind == BackendKind::Discard;
    let baseline = if args.baseline.is_zero() || over || work.groups == 0 {
        None
    } else {
        progress.step("measuring the raw device", Part::Of(args.baseline));
        Some(compare(args, stop, dir, settings, &backend, &work, &outcome)?)
    };
    let grid = if baseline.is_none() || args.raw_time().is_zero() {
        Vec::new()
    } else {
        Grid::of_a_run(dir.path(), &device, args.raw_time()).measure(stop, &mut progress)?
    };
    let verified = outcome.ledger.take().map(|ledger| {
        let done = Arc::new(AtomicU32::new(0));
        progress.step("verifying", Part::Counted(Arc::clone(&done)));
        verify(settings.builder_keeping_all(), from, ledger, &done)
    });
    progress.clear();
    let verified = match verified {
        None => None,
        Some(Ok(verified)) => Some(Ok(verified)),
        Some(Err(Error::Verify(what))) => Some(Err(what)),
        Some(Err(e)) => return Err(e),
    };
    let ended_by = match &failed {
        Some(e) if is_full(e) => Some("a full disk"),
        Some(_) => Some("a failure of the log"),
        None if stop.was_signalled() => Some("a signal"),
        None if spent => Some("its disk budget"),
        None => too_slow.then_some("latencies beyond what is required"),
    };
    let mut report = Report {
        args: args.clone(),
        outcome,
        series,
        meaning: plan.meaning,
        work,
        backend,
        directory: dir.path().into(),
        stays: dir.stays(),
        settings: settings.clone(),
        device,
        baseline,
        grid,
        verified,
        ended_by,
        failed,
        seed,
        environment,
        begun,
        spent: used,
        required: Vec::new(),
        readers,
        peak_memory: peak_memory(),
    };
    if let Some(required) = &args.require
        && !stop.was_signalled()
    {
        report.required = required.check(|metric| report.figure(metric));
    }
    Ok(report)
}

/// Fills the segments once, or until the rate is steady. Returns what verification is to know of it.
fn warm_up(
    args: &Args,
    stop: &Arc<Stop>,
    settings: &Settings,
    plan: &Plan,
    wal: &Wal,
    progress: &mut Progress,
) -> Result<Option<Ledger>, Error> {
    const LONGEST: Duration = Duration::from_secs(120);
    let time = match args.warm_up {
        None if args.until_steady => LONGEST,
        Some(time) if !time.is_zero() => time,
        _ => return Ok(None),
    };
    progress.step("warming up", Part::Of(time));
    let opened = wal.stats();
    let (records, intervals) = (None, None);
    let seed = plan.seed.wrapping_add(1);
    let mut plan = Plan { duration: Some(time), records, intervals, seed, ..plan.clone() };
    if matches!(plan.mode, Mode::Open(_)) {
        // As fast as it goes: what it is for is to fill the segments once.
        plan.mode = Mode::Pipelined;
        plan.meaning = Meaning::of(plan.mode, args.durability);
    }
    let mut series = Series::new(wal, Arc::default());
    let watch = |passed| {
        let spent = settings.budget_is_spent(wal.stats().group_bytes - opened.group_bytes);
        let _ = series.look(passed, wal);
        if spent || stop.is_set() || (args.until_steady && series.is_settled()) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let mut warmed = workload::run(wal, &plan, &Arc::new(Stop::default()), watch)?;
    warmed.failed.take().map_or(Ok(warmed.ledger), Err)
}

fn start_readers(args: &Args, plan: &mut Plan, wal: &Wal) -> Result<Option<Readers>, Error> {
    if args.followers + args.consumers == 0 {
        return Ok(None);
    }
    let deliveries = Arc::new(Deliveries::new(wal));
    let readers = Readers::start(wal, args.followers, args.consumers, &deliveries)?;
    plan.deliveries = Some(deliveries);
    Ok(Some(readers))
}

/// Lines on stderr, now and then.
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
        // It is not the result: nothing is lost with it.
        let _ = print(std::io::stderr(), &text);
    }
}

impl Report {
    /// There is no device then, nor any sync, to be compared with.
    #[must_use]
    pub fn writes_nothing(&self) -> bool {
        self.backend.kind == BackendKind::Discard
    }

    fn figure(&self, metric: Metric) -> Option<f64> {
        let outcome = &self.outcome;
        match metric {
            Metric::Rate => Some(outcome.records as f64 / outcome.seconds),
            Metric::Bandwidth => Some(outcome.bytes as f64 / outcome.seconds),
            Metric::Eta => self.baseline.as_ref()?.eta,
            Metric::Overdue => self.args.rate.map(|_| outcome.overdue as f64),
            Metric::Cpu => self.spent.us_per_record(outcome.records).map(|us| us * 1e3),
            Metric::Memory => self.peak_memory.map(|n| n as f64),
            Metric::Knee => None,
            Metric::Quantile(_) | Metric::Max | Metric::Mean => {
                require::latency(&outcome.latencies, metric)
            }
        }
    }

    /// What a gate is to make of it.
    ///
    /// # Errors
    ///
    /// [`Error::Verify`] if records are missing; what the log failed with; [`Error::Interrupted`] and [`Error::Nothing`] if there
    /// are no records; [`Error::Required`] if what is required does not hold.
    pub fn verdict(self) -> Result<(), Error> {
        if let Some(Err(what)) = self.verified {
            let place = self.directory.display();
            return Err(Error::Verify(format!("{what}; the log stays in {place}")));
        }
        if let Some(e) = self.failed {
            return Err(e);
        }
        if self.ended_by == Some("a signal") {
            let judged = self.args.require.is_some();
            return match (self.outcome.records, judged) {
                (0, _) => Err(Error::Interrupted("no record was measured".into())),
                (_, true) => Err(Error::Interrupted("what is required was not judged".into())),
                _ => Ok(()),
            };
        }
        if self.outcome.records == 0 {
            let text = "no record was acknowledged; run for longer, or at a higher --rate";
            return Err(Error::Nothing(text.into()));
        }
        require::verdict(&self.required)
    }
}

/// Whether the run cannot give what is asked of it any more.
fn is_too_slow(args: &Args, latencies: &Latencies) -> bool {
    let abort = args.require.as_ref().filter(|_| args.require_abort);
    args.most_above.is_some_and(|(bound, most)| latencies.above(bound) > most)
        || abort.is_some_and(|required| required.are_out_of_reach(latencies))
}

/// Whether it was the disk that had no more room.
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

/// Until the log has chosen its commit method: a run is measured in one. Ten seconds at most.
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
    (source, seed): (Source, u64),
    recorded: &Arc<Intervals>,
    wal: &Wal,
) -> Plan {
    let mode = args.workload_mode();
    Plan {
        mode,
        arrivals: args.arrivals,
        threads: args.threads,
        tasks: args.tasks.unwrap_or(0),
        source,
        duration: args.time_limit(),
        records: args.records,
        meaning: Meaning::of(mode, args.durability),
        sync_every: None,
        seed,
        intervals: Some(Arc::clone(recorded)),
        deliveries: None,
        ledger: args.verify.then(|| Stretches {
            from: wal.recovery().durable_end.as_u64(),
            origin: wal.oldest_lsn().as_u64(),
            len: settings.segment_size,
            kept: settings.kept_segments(),
        }),
    }
}

/// The raw device in the way that this run used it: pipelined, its mean group at its mean depth;
/// blocking, one block at a time.
fn compare(
    args: &Args,
    stop: &Stop,
    dir: &RunDir,
    settings: &Settings,
    backend: &BackendInfo,
    work: &Work,
    outcome: &Outcome,
) -> Result<Comparison, Error> {
    let block = backend.block_size as usize;
    let mode = args.workload_mode();
    let (blocking, open) = (mode == Mode::Blocking, matches!(mode, Mode::Open(_)));
    let one_at_a_time = blocking || open;
    let request = raw::Request {
        method: method(backend, args.durability, blocking),
        group: if blocking { block } else { work.mean_group() as usize },
        depth: if one_at_a_time { 1 } else { (work.mean_depth.round() as usize).max(1) },
        direct: backend.direct_io,
        block,
        time: args.baseline,
        area: settings.baseline_area,
    };
    let raw = raw::measure_until(dir.path(), &request, stop)?;
    let alone = args.threads == 1 && args.tasks.is_none_or(|tasks| tasks == 1);
    let p50_ratio = (blocking && alone).then(|| {
        outcome.latencies.quantile_ns(0.5) as f64 / raw.latencies.quantile_ns(0.5).max(1) as f64
    });
    let written = work.group_bytes as f64 / outcome.seconds;
    let p999 = outcome.latencies.quantile_ns(0.999) as f64;
    let p999_ratio = open.then(|| p999 / raw.latencies.quantile_ns(0.5).max(1) as f64);
    let eta = (!one_at_a_time && raw.bytes_per_s > 0.0).then(|| written / raw.bytes_per_s);
    Ok(Comparison { raw, eta, p50_ratio, p999_ratio })
}

fn method(backend: &BackendInfo, durability: Durability, blocking: bool) -> Method {
    let synced = blocking || durability == Durability::EveryGroup;
    match (backend.kind, synced) {
        (BackendKind::IoUring, false) => Method::Write,
        (BackendKind::IoUring, true) if backend.commit_method == "dsync" => Method::Dsync,
        (BackendKind::IoUring, true) => Method::LinkedFsync,
        (_, false) => Method::PlainWrite,
        (_, true) => Method::WriteFsync,
    }
}

/// `VmHWM` of this process.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
