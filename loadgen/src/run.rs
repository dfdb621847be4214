//! The whole of a run: open, drive, close, measure the raw device, verify.

use std::ops::ControlFlow;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringwal::{BackendInfo, BackendKind, Durability, MethodReason, Stats, Wal};

use crate::baseline::{self, Baseline, Method};
use crate::cli::Args;
use crate::device::Device;
use crate::directory::RunDir;
use crate::error::Error;
use crate::input::Lines;
use crate::ledger::{Stretches, Verified};
use crate::payload::Pool;
use crate::probe::{self, Cell};
use crate::progress::{Part, Progress};
use crate::series::Series;
use crate::settings::Settings;
use crate::stop::Stop;
use crate::verify::verify;
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
    // The input is tried before a directory is made for nothing.
    let source = match (&args.input, &args.sample) {
        (Some(path), _) => {
            let lines = Lines::open(path, args.longest_line())?;
            Source::Lines(Arc::new(Mutex::new(lines)))
        }
        (None, Some(path)) => Source::Generated(Arc::new(Pool::of_lines(path)?)),
        (None, None) => Source::Generated(Arc::new(Pool::new(args.record_size(), SEED))),
    };
    let mut dir = match &args.dir {
        Some(path) => RunDir::given(path, args.keep, stop)?,
        None => RunDir::fresh(args.keep, stop)?,
    };
    let settings = Settings::new(args, &dir, source.largest())?;
    let mut progress = Progress::new(args.quiet);
    progress.step("opening the log", Part::Unknown);
    // A stop of its own: that this run is over does not end what it is a part of.
    let ran = measured(args, &Stop::below(stop), &dir, &settings, source, progress);
    if let Ok(report) = &ran
        && let Some(Err(_)) = report.verified
    {
        // What is wrong can be looked at only there.
        dir.leave();
    }
    ran.map(|report| Report { stays: dir.stays(), ..report })
}

const SEED: u64 = 0x7269_6e67;

fn measured(
    args: &Args,
    stop: &Arc<Stop>,
    dir: &RunDir,
    settings: &Settings,
    source: Source,
    mut progress: Progress,
) -> Result<Report, Error> {
    let wal = settings.builder().open()?;
    progress.step("timing the commit methods", Part::Unknown);
    until_settled(&wal, stop);
    let from = wal.recovery().durable_end;
    let plan = plan(args, settings, source, &wal);
    let device = Device::under(dir.path());
    let opened = wal.stats();
    let warm = match args.warm_up {
        Some(time) if !time.is_zero() => {
            progress.step("warming up", Part::Of(time));
            let mut plan = Plan { duration: Some(time), records: None, ..plan.clone() };
            if matches!(plan.mode, Mode::Open(_)) {
                // As fast as it goes: what it is for is to fill the segments once.
                plan.mode = Mode::Pipelined;
                plan.meaning = Meaning::of(plan.mode, args.durability);
            }
            let watch = |_| {
                let spent = settings.budget_is_spent(wal.stats().group_bytes - opened.group_bytes);
                if spent || stop.is_set() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            workload::run(&wal, &plan, &Arc::new(Stop::default()), watch)?.ledger
        }
        _ => None,
    };
    let (before, flushes_before) = (wal.stats(), device.flushes());
    let (mut spent, mut series) = (false, Series::new(&wal));
    let ring = wal.backend().ring_bytes as u64;
    progress.clear();
    let outcome = workload::run(&wal, &plan, stop, |passed| {
        if let Some(point) = series.look(passed, &wal) {
            progress.tick(&point, ring, plan.duration);
        }
        spent = settings.budget_is_spent(wal.stats().group_bytes - opened.group_bytes);
        if spent { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    progress.clear();
    let mut outcome = outcome?;
    if let (Some(ledger), Some(warm)) = (&mut outcome.ledger, &warm) {
        ledger.merge(warm);
    }
    let work = Work::between(&before, &wal.stats(), (flushes_before, device.flushes()));
    let backend = wal.backend();
    wal.close()?;
    drop(wal);
    let baseline = if args.baseline.is_zero() || stop.was_signalled() || work.groups == 0 {
        None
    } else {
        progress.step("measuring the raw device", Part::Of(args.baseline));
        Some(compare(args, stop, dir, settings, &backend, &work, &outcome)?)
    };
    let grid = if baseline.is_none() || args.raw_time().is_zero() {
        Vec::new()
    } else {
        probe::grid(dir.path(), &device, args.raw_time(), 1, stop, &mut progress)?
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
    Ok(Report {
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
        ended_by: if stop.was_signalled() {
            Some("a signal")
        } else {
            spent.then_some("its disk budget")
        },
        peak_memory: peak_memory(),
    })
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

fn plan(args: &Args, settings: &Settings, source: Source, wal: &Wal) -> Plan {
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
    let request = baseline::Request {
        method: method(backend, args.durability, blocking),
        group: if blocking { block } else { work.mean_group() as usize },
        depth: if one_at_a_time { 1 } else { (work.mean_depth.round() as usize).max(1) },
        direct: backend.direct_io,
        block,
        time: args.baseline,
        area: settings.baseline_area,
    };
    let raw = baseline::measure_until(dir.path(), &request, stop)?;
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
