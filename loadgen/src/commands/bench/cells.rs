//! The cells of the suite, each with its limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Parser;

use super::{Context, Sample, Unit, memory, replay};
use crate::cli::Args;
use crate::commands::run::{self, Report};
use crate::error::Error;
use crate::raw::{self, Baseline, Method, RawFile, Request};
use crate::workload::background;

type Run = Box<dyn Fn(&mut Context<'_>) -> Result<Option<Sample>, Error>>;

pub(super) struct Cell {
    pub(super) workload: &'static str,
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    pub(super) limit: &'static str,
    pub(super) run: Run,
}

/// Bytes of the records in the reference rows.
const PIPELINED: &str = "pipelined, 100 B, 1 producer";
const CROWD: &str = "64 threads";
const STEADY: &str = "no rotation";
const BLOCK: usize = 4096;
/// Bytes of the file for the raw device, with cells of one second.
const AREA: u64 = 64 << 20;
/// Bytes of a log on disk, with cells of one second.
const DISK: u64 = 768 << 20;

/// Returns all cells of the suite.
pub(super) fn cells() -> Vec<Cell> {
    let mut all = Vec::new();
    all.extend(waiting());
    all.extend(pipelined());
    all.extend(engine());
    all.extend(open_loop());
    all.extend(disturbed());
    all.extend(switched_off());
    all.extend(recovery());
    all
}

fn cell(
    workload: &'static str,
    name: &'static str,
    unit: Unit,
    limit: &'static str,
    run: impl Fn(&mut Context<'_>) -> Result<Option<Sample>, Error> + 'static,
) -> Cell {
    Cell { workload, name, unit, limit, run: Box::new(run) }
}

/// W1 to W3: committers that wait for each record.
fn waiting() -> Vec<Cell> {
    let mut all = vec![cell(
        "W1",
        "1 thread, 128 B",
        Unit::Nanoseconds,
        "best raw commit of 4 KiB, p50",
        |context| {
            let report = load(context, "--mode blocking --size 128", Warm::Short, 1)?;
            let sample = Sample {
                value: report.outcome.latencies.quantile_ns(0.5) as f64,
                limit: best_raw(context, BLOCK)?,
                ..latencies(&report)
            };
            Ok(Some(sample))
        },
    )];
    let crowds: [(&str, &str, &str, f64); 6] = [
        ("W2", "8 threads", "--threads 8", 8.0),
        ("W2", CROWD, "--threads 64", 64.0),
        ("W2", "256 threads", "--threads 256", 256.0),
        ("W3", "256 tasks, 1 thread", "--tasks 256", 256.0),
        ("W3", "4,096 tasks, 1 thread", "--tasks 4096", 4096.0),
        ("W3", "4,096 tasks, 2 threads", "--tasks 4096 --threads 2", 4096.0),
    ];
    for (workload, name, line, committers) in crowds {
        let limit = "all at once in each raw commit of our mean group";
        all.push(cell(workload, name, Unit::PerSecond, limit, move |context| {
            let line = format!("{line} --mode blocking --size 100");
            let report = load(context, &line, Warm::Short, 1)?;
            let raw = best_raw(context, report.work.mean_group() as usize)?;
            let limit = raw.map(|ns| committers * 1e9 / ns);
            Ok(Some(Sample { limit, ..throughput(&report) }))
        }));
    }
    all
}

/// W4: full speed, every group durable.
fn pipelined() -> Vec<Cell> {
    let lines = [
        ("pipelined, 64 B, 1 producer", "--size 64"),
        (PIPELINED, "--size 100"),
        ("pipelined, 100 B, 2 producers", "--size 100 --threads 2"),
        ("pipelined, 1 KiB, 1 producer", "--size 1k"),
        ("pipelined, 16 KiB, 1 producer", "--size 16k"),
        ("pipelined, 64 KiB, 1 producer", "--size 64k"),
        ("pipelined, 100 B, nothing recycled", "--size 100 --no-recycle"),
        ("pipelined, 1 KiB, nothing recycled", "--size 1k --no-recycle"),
    ];
    let limit = "raw device at our mean group and depth, by bytes written";
    let one = |(name, line): (&'static str, &'static str)| {
        cell("W4", name, Unit::PerSecond, limit, move |context| {
            let warm = if line.contains("no-recycle") { Warm::None } else { Warm::Long };
            let line = format!("{line} --baseline 400ms");
            let report = load(context, &line, warm, 1)?;
            let sample = throughput(&report);
            let eta = report.baseline.as_ref().and_then(|b| b.eta);
            Ok(Some(Sample { limit: eta.map(|eta| sample.value / eta), ..sample }))
        })
    };
    lines.into_iter().map(one).collect()
}

/// W5: the engine alone.
fn engine() -> Vec<Cell> {
    let rows = [("append only, 64 B, 1 producer", 1), ("append only, 64 B, 2 producers", 2)];
    let one = |(name, threads): (&'static str, usize)| {
        cell("W5", name, Unit::PerSecond, "memcpy + CRC32 by as many threads", move |context| {
            // A device without latency requests a group as soon as one exists. Full buffers are
            // what a fast device would get.
            let line =
                format!("--backend discard --commit-delay 10ms --size 64 --threads {threads}");
            let report = load(context, &line, Warm::Short, 1)?;
            let limit = Some(memory::copy_and_sum(64, threads, context.time / 4));
            Ok(Some(Sample { limit, ..throughput(&report) }))
        })
    };
    rows.into_iter().map(one).collect()
}

/// W6: a share of W4's rate, with latencies from the scheduled arrival.
fn open_loop() -> Vec<Cell> {
    let rows = [
        ("open loop at 20 % of W4, p99.9", 0.2),
        ("open loop at 50 % of W4, p99.9", 0.5),
        ("open loop at 80 % of W4, p99.9", 0.8),
        ("open loop at 95 % of W4, p99.9", 0.95),
    ];
    let one = |(name, share): (&'static str, f64)| {
        let limit = "one raw commit of our mean group, p50";
        cell("W6", name, Unit::Nanoseconds, limit, move |context| {
            let Some(full) = context.value_of(PIPELINED) else { return Ok(None) };
            let line = format!("--size 100 --rate {}", full * share);
            let report = load(context, &line, Warm::Long, 2)?;
            let limit = best_raw(context, report.work.mean_group() as usize)?;
            Ok(Some(Sample { limit, ..tail(&report) }))
        })
    };
    let mut all: Vec<Cell> = rows.into_iter().map(one).collect();
    // The raw commit measures the machine's own tail, which no log can avoid.
    let raws =
        [("raw device, 128 KiB, p99.9", 0), ("raw device, 128 KiB, p99.9, a processor busy", 1)];
    for (name, busy) in raws {
        let limit = "its own p50";
        all.push(cell("W6", name, Unit::Nanoseconds, limit, move |context| {
            let busy = Busy::start(busy);
            let found = raw(context, 128 << 10, Method::Dsync, context.time)?.latencies;
            drop(busy);
            let quantiles = [0.5, 0.99, 0.999].map(|q| found.quantile_ns(q));
            Ok(Some(Sample {
                value: quantiles[2] as f64,
                limit: Some(quantiles[0] as f64),
                latencies: Some(quantiles),
                flushes_per_group: None,
            }))
        }));
    }
    all
}

/// Threads that only compute, until dropped.
struct Busy {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    fn start(threads: usize) -> Busy {
        let over = Arc::new(AtomicBool::new(false));
        let one = |_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || while !over.load(Ordering::Relaxed) {})
        };
        Busy { threads: (0..threads).map(one).collect(), over }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Records per second of W7: they fill 56 MiB in about a second.
const STEADY_LINE: &str = "--size 100 --rate 500k --max-disk 2g";

/// W7: disturbances during the run.
fn disturbed() -> Vec<Cell> {
    let limit = "one raw commit of our mean group, p50";
    let steady = cell("W7", STEADY, Unit::Nanoseconds, limit, |context| {
        // The first segment holds the whole run.
        let line = format!("{STEADY_LINE} --segment-size 512m");
        let report = load(context, &line, Warm::None, 4)?;
        let limit = best_raw(context, report.work.mean_group() as usize)?;
        Ok(Some(Sample { limit, ..tail(&report) }))
    });
    let rotating =
        cell("W7", "a rotation every second", Unit::Nanoseconds, "no rotation", |context| {
            let line = format!("{STEADY_LINE} --segment-size 56m");
            let report = load(context, &line, Warm::None, 4)?;
            Ok(Some(Sample { limit: context.value_of(STEADY), ..tail(&report) }))
        });
    let limit = "no rotation";
    let second = cell("W7", "a second writer that syncs", Unit::Nanoseconds, limit, |context| {
        let line = format!("{STEADY_LINE} --segment-size 512m");
        let writer = background::start(context.dir)?;
        let report = load(context, &line, Warm::None, 4);
        drop(writer);
        Ok(Some(Sample { limit: context.value_of(STEADY), ..tail(&report?) }))
    });
    vec![steady, rotating, second]
}

/// W8: each technique disabled.
fn switched_off() -> Vec<Cell> {
    let rows = [
        ("64 threads, linked fsync", "--threads 64 --mode blocking --commit-method linked-fsync"),
        ("64 threads, DSYNC", "--threads 64 --mode blocking --commit-method dsync"),
        ("64 threads, one group in flight", "--threads 64 --mode blocking --depth 1"),
        ("64 threads, std backend", "--threads 64 --mode blocking --backend std"),
        ("8 threads, one group in flight", "--threads 8 --mode blocking --depth 1"),
        ("pipelined, linked fsync", "--commit-method linked-fsync"),
        ("pipelined, DSYNC", "--commit-method dsync"),
        ("pipelined, one group in flight", "--depth 1"),
        ("pipelined, std backend", "--backend std"),
    ];
    let one = |(name, line): (&'static str, &'static str)| {
        let blocking = line.contains("blocking");
        let (against, warm) = match line {
            _ if line.contains("--threads 8") => ("8 threads", Warm::Short),
            _ if blocking => (CROWD, Warm::Short),
            _ => (PIPELINED, Warm::Long),
        };
        cell("W8", name, Unit::PerSecond, "the same with the defaults", move |context| {
            let report = load(context, &format!("{line} --size 100"), warm, 1)?;
            Ok(Some(Sample { limit: context.value_of(against), ..throughput(&report) }))
        })
    };
    rows.into_iter().map(one).collect()
}

/// W9: open and replay.
fn recovery() -> Vec<Cell> {
    let limit = "a sequential read + CRC32";
    let bytes = cell("W9", "open + replay, 1 KiB", Unit::BytesPerSecond, limit, |context| {
        let found = replay::measure(context.dir, context.stop, 1024, context.time)?;
        Ok(Some(Sample { value: found.replay, limit: Some(found.read), ..Sample::default() }))
    });
    let records = cell("W9", "open + replay, 100 B", Unit::PerSecond, limit, |context| {
        let found = replay::measure(context.dir, context.stop, 100, context.time)?;
        let by_record = found.records as f64 / found.bytes as f64;
        let (value, limit) = (found.replay * by_record, found.read * by_record);
        Ok(Some(Sample { value, limit: Some(limit), ..Sample::default() }))
    });
    vec![bytes, records]
}

/// The preparation of a log before its measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Warm {
    None,
    Short,
    /// Writes until every segment was written once and is reused from then on.
    Long,
}

/// Runs loadgen once for this many cell times.
fn load(context: &mut Context<'_>, line: &str, warm: Warm, cells: u32) -> Result<Report, Error> {
    let warm_up = match warm {
        Warm::None => "0".into(),
        Warm::Short => format!("{}us", (context.time / 5).as_micros().max(10_000)),
        Warm::Long => format!("{}ms", context.time.as_millis().max(800)),
    };
    let millis = (context.time * cells).as_millis();
    let fixed = format!("loadgen --quiet --duration {millis}ms --warm-up {warm_up}");
    let disk = match line {
        _ if line.contains("--max-disk") || line.contains("--no-recycle") => String::new(),
        _ => format!("--max-disk {}", context.disk(DISK)),
    };
    let baseline = if line.contains("--baseline") { "" } else { "--baseline 0" };
    let words = [&fixed, &disk, baseline, line].into_iter().flat_map(str::split_whitespace);
    let mut args = Args::try_parse_from(words).map_err(|e| Error::Usage(e.to_string()))?;
    args.dir = Some(context.dir.join("log"));
    let mut report = run::run(&args, context.stop)?;
    if let Some(e) = report.failed.take() {
        return Err(e);
    }
    let backend = &report.backend;
    let pinned = line.contains("--backend") || line.contains("--commit-method");
    if !pinned && context.commit_method[0].is_empty() {
        let why = format!("{}, {}", backend.commit_method_reason, backend.commit_method_detail);
        context.commit_method = [backend.commit_method.to_owned(), why];
    }
    Ok(report)
}

fn latencies(report: &Report) -> Sample {
    let found = &report.outcome.latencies;
    let quantiles = [0.5, 0.99, 0.999].map(|q| found.quantile_ns(q));
    let groups = report.work.groups;
    Sample {
        latencies: (found.count() > 0).then_some(quantiles),
        flushes_per_group: report
            .work
            .flushes
            .filter(|_| groups > 0)
            .map(|flushes| flushes as f64 / groups as f64),
        ..Sample::default()
    }
}

fn throughput(report: &Report) -> Sample {
    let value = report.outcome.records as f64 / report.outcome.seconds;
    Sample { value, ..latencies(report) }
}

fn tail(report: &Report) -> Sample {
    Sample { value: report.outcome.latencies.quantile_ns(0.999) as f64, ..latencies(report) }
}

/// Returns the median latency in nanoseconds of the faster commit method, one group of this size at
/// a time.
fn best_raw(context: &Context<'_>, group: usize) -> Result<Option<f64>, Error> {
    let mut best: Option<f64> = None;
    for method in [Method::WriteDsync, Method::Dsync, Method::LinkedFsync] {
        if context.stop.was_signalled() {
            return Ok(None);
        }
        let raw = raw(context, group, method, context.time / 4)?;
        let p50 = raw.latencies.quantile_ns(0.5) as f64;
        best = Some(best.map_or(p50, |b| b.min(p50)));
    }
    Ok(best)
}

fn raw(
    context: &Context<'_>,
    group: usize,
    method: Method,
    time: Duration,
) -> Result<Baseline, Error> {
    let time = time.max(Duration::from_millis(100));
    let area = context.disk(AREA);
    let request = Request { method, group, depth: 1, direct: true, block: BLOCK, time, area };
    let group = group.next_multiple_of(BLOCK);
    let file = match context.file.get() {
        Some(file) if file.has_room_for(group) => file,
        Some(_) => return raw::measure_until(context.dir, &request, context.stop),
        None => {
            let file: RawFile = raw::raw_file(context.dir, true, group, area)?;
            context.file.get_or_init(|| file)
        }
    };
    raw::measure_in(file, &request, context.stop)
}
