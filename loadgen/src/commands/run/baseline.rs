//! The raw device beside a run, in the shape in which the run used it.

use ringwal::{BackendInfo, BackendKind, Durability};

use crate::cli::Args;
use crate::commands::run::report::Work;
use crate::commands::run::settings::Settings;
use crate::error::Error;
use crate::log_dir::RunDir;
use crate::raw::{self, Baseline, Method};
use crate::stop::Stop;
use crate::workload::{Mode, Outcome};

/// The raw device beside the log.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The measured baseline.
    pub raw: Baseline,
    /// The log's written bytes per second divided by the device's, at the same group size and
    /// depth.
    pub eta: Option<f64>,
    /// The log's median latency divided by that of a raw write of one block.
    pub p50_ratio: Option<f64>,
    /// In an open loop: the log's 99.9th percentile divided by the median of a raw write of one
    /// mean group.
    pub p999_ratio: Option<f64>,
}

/// Measures the raw device in the shape of this run. A pipelined run uses its mean group at its
/// mean depth; a blocking run one block at a time.
pub(super) fn compare(
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
    // All logs together.
    let in_flight = (work.mean_depth * settings.logs as f64).round() as usize;
    let alone = args.threads == 1 && args.tasks.is_none_or(|tasks| tasks == 1);
    let request = raw::Request {
        method: method(backend, args.durability, blocking, blocking && alone),
        group: if blocking { block } else { work.mean_group() as usize },
        depth: if one_at_a_time { 1 } else { in_flight.max(1) },
        direct: backend.direct_io,
        block,
        time: args.baseline,
        area: settings.baseline_area,
    };
    let raw = raw::measure_until(dir.path(), &request, stop)?;
    let p50_ratio = (blocking && alone).then(|| {
        outcome.latencies.quantile_ns(0.5) as f64 / raw.latencies.quantile_ns(0.5).max(1) as f64
    });
    let written = work.group_bytes as f64 / outcome.seconds;
    let p999 = outcome.latencies.quantile_ns(0.999) as f64;
    let p999_ratio = open.then(|| p999 / raw.latencies.quantile_ns(0.5).max(1) as f64);
    let eta = (!one_at_a_time && raw.bytes_per_s > 0.0).then(|| written / raw.bytes_per_s);
    Ok(Comparison { raw, eta, p50_ratio, p999_ratio })
}

/// The log's own method in this run. A lone committer writes on its own thread.
fn method(backend: &BackendInfo, durability: Durability, blocking: bool, alone: bool) -> Method {
    let synced = blocking || durability == Durability::EveryGroup;
    let dsync = backend.commit_method == "dsync";
    match (backend.kind, synced) {
        (BackendKind::IoUring, false) => Method::Write,
        (BackendKind::IoUring, true) if alone && dsync => Method::WriteDsync,
        (BackendKind::IoUring, true) if alone => Method::WriteFsync,
        (BackendKind::IoUring, true) if dsync => Method::Dsync,
        (BackendKind::IoUring, true) => Method::LinkedFsync,
        (_, false) => Method::PlainWrite,
        (_, true) => Method::WriteFsync,
    }
}
