//! The report as JSON. Programs rely on the top-level names: extend them, do not rename them.

use serde_json::{Map, Value, json};

use crate::cli::durability_name;
use crate::commands::probe::Cell;
use crate::commands::run::Report;
use crate::measure::latency::Latencies;
use crate::measure::require;
use crate::measure::series::Point;
use crate::workload::Mode;
use crate::workload::ledger::Verified;

/// Returns the report as one JSON object.
#[must_use]
pub fn json(report: &Report) -> Value {
    let parts = [figures(report), asked(report), circumstances(report), verification(report)];
    let mut all = Map::new();
    for part in parts {
        if let Value::Object(part) = part {
            all.extend(part);
        }
    }
    Value::Object(all)
}

fn figures(report: &Report) -> Value {
    let Report { outcome, work, .. } = report;
    let us = |ns: u64| ns as f64 / 1000.0;
    let q = |quantile: f64| us(outcome.latencies.quantile_ns(quantile));
    json!({
        "schema": "ringwal-loadgen/run/1",
        "records": outcome.records,
        "records_per_s": outcome.records as f64 / outcome.seconds,
        "bytes": outcome.bytes,
        "bytes_per_s": outcome.bytes as f64 / outcome.seconds,
        "seconds": outcome.seconds,
        "overdue": report.args.is_open().then_some(outcome.overdue),
        "latency_corrected_us": outcome.corrected.as_ref().map(corrected),
        "latency_us": {
            "p50": q(0.5),
            "p90": q(0.9),
            "p99": q(0.99),
            "p99_9": q(0.999),
            "p99_99": q(0.9999),
            "max": us(outcome.latencies.max_ns()),
            "min": us(outcome.latencies.min_ns()),
            "mean": outcome.latencies.mean_ns() / 1000.0,
            "count": outcome.latencies.count(),
            "skipped": outcome.skipped,
            "meaning": report.meaning.name(),
        },
        "groups": work.groups,
        "groups_per_s": work.groups as f64 / outcome.seconds,
        "group_bytes": work.group_bytes,
        "records_per_group": ratio(outcome.records as f64, work.groups as f64),
        "bytes_per_group": work.mean_group(),
        "fsyncs": (!report.writes_nothing()).then_some(work.syncs),
        "device_flushes": work.flushes,
        "ring_full_waits": work.full_waits,
        "peak_memory_bytes": report.peak_memory,
        "baseline": baseline(report),
        "raw_cells": report.grid.iter().map(Cell::json).collect::<Vec<_>>(),
        "eta": report.baseline.as_ref().and_then(|c| c.eta),
        "p50_ratio": report.baseline.as_ref().and_then(|c| c.p50_ratio),
        "p99_9_ratio": report.baseline.as_ref().and_then(|c| c.p999_ratio),
        "ended_by": report.ended_by,
        "failure": report.failed.as_ref().map(ToString::to_string),
        "required": require::to_json(&report.required),
        "readers": report.readers.as_ref().map(crate::workload::readers::Report::json),
        "background_writers": report.args.background_writers,
        "until_steady": report.args.until_steady,
        "cpu": report.spent.json(outcome.records),
        "steadiness": report.series.steadiness().map(|s| json!({ "ratio": s.ratio, "steady": s.steady })),
        "series": report.series.points().map(point).collect::<Vec<_>>(),
    })
}

/// Latencies corrected as if the records had come evenly.
fn corrected(latencies: &Latencies) -> Value {
    let q = |quantile: f64| latencies.quantile_ns(quantile) as f64 / 1000.0;
    json!({
        "p50": q(0.5),
        "p90": q(0.9),
        "p99": q(0.99),
        "p99_9": q(0.999),
        "p99_99": q(0.9999),
        "max": latencies.max_ns() as f64 / 1000.0,
        "count": latencies.count(),
    })
}

fn point(point: &Point) -> Value {
    json!({
        "seconds": point.seconds,
        "records_per_s": point.records_per_s,
        "written_per_s": point.written_per_s,
        "group_records": point.group_records,
        "ring_bytes": point.ring_bytes,
        "commit_p50_ns": point.commit[0],
        "commit_p99_ns": point.commit[1],
        "commit_p99_9_ns": point.commit[2],
        "rotations": point.rotations,
        "latency_p50_ns": point.latency[0],
        "latency_p99_ns": point.latency[1],
        "latency_p99_9_ns": point.latency[2],
        "latency_max_ns": point.latency[3],
        "latencies": point.latencies,
    })
}

fn asked(report: &Report) -> Value {
    let args = &report.args;
    let (sizes, range) = (args.record_size(), args.record_size().range());
    let made = args.input.is_none() && args.sample.is_none() && args.replay.is_none();
    json!({
        "mode": match args.workload_mode() {
            Mode::Blocking => "blocking",
            Mode::Pipelined => "pipelined",
            Mode::Open(_) => "open",
        },
        "rate": args.rate,
        "seed": report.seed,
        "arrivals": args.rate.map(|_| args.arrivals.to_string()),
        "durability": durability_name(args.durability),
        "threads": args.threads,
        "logs": args.logs,
        "tasks": args.tasks,
        "size": made
            .then(|| json!({ "min": range.min, "max": range.max, "mix": sizes.to_string() })),
        "sample": args.sample.as_ref().map(|path| path.to_string_lossy()),
        "replay": args.replay.as_ref().map(|path| path.to_string_lossy()),
        "input": args.input.as_ref().map(|path| path.to_string_lossy()),
        "asked": {
            "seconds": args.time_limit().map(|d| d.as_secs_f64()),
            "warm_up_seconds": args.warm_up.map(|d| d.as_secs_f64()),
            "records": args.records,
        },
    })
}

fn circumstances(report: &Report) -> Value {
    let Report { work, backend, settings, device, .. } = report;
    json!({
        "backend": backend.kind.to_string(),
        "backend_reason": backend.reason,
        "commit_method": backend.commit_method,
        "commit_method_reason": backend.commit_method_reason.to_string(),
        "commit_method_detail": backend.commit_method_detail,
        "direct_io": backend.direct_io,
        "registered_buffers": backend.registered_buffers,
        "block_size": backend.block_size,
        "depth": backend.depth,
        "mean_depth": work.mean_depth,
        "segments": {
            "size": settings.segment_size,
            "rotations": work.rotations,
            "prepared": work.prepared,
            "recycled": work.recycled,
            "max_total_bytes": settings.retention,
        },
        "device": {
            "number": device.number,
            "name": device.name,
            "filesystem": device.filesystem,
            "write_cache": device.write_cache,
            "fua": device.fua,
        },
        "environment": report.environment.json(),
        "directory": report.directory.to_string_lossy(),
        "kept": report.stays,
    })
}

fn verification(report: &Report) -> Value {
    let (verdict, retained_only) = match &report.verified {
        None => (Value::Null, None),
        Some(Ok(Verified { records, removed, uncompared })) => (
            json!({ "compared": records, "removed": removed, "uncompared": uncompared }),
            Some(*removed > 0),
        ),
        Some(Err(what)) => (json!({ "error": what }), None),
    };
    json!({
        "verified": report.verified.as_ref().map(Result::is_ok),
        "verification": verdict,
        "retained_only": retained_only,
    })
}

fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

fn baseline(report: &Report) -> Value {
    let Some(comparison) = &report.baseline else { return Value::Null };
    let raw = &comparison.raw;
    json!({
        "method": raw.method.name(),
        "group_bytes": raw.group,
        "depth": raw.depth,
        "direct_io": raw.direct,
        "bytes_per_s": raw.bytes_per_s,
        "groups_per_s": raw.groups_per_s,
        "latency_us_p50": raw.latencies.quantile_ns(0.5) as f64 / 1000.0,
        "latency_us_p99": raw.latencies.quantile_ns(0.99) as f64 / 1000.0,
        "eta": comparison.eta,
        "p50_ratio": comparison.p50_ratio,
    })
}
