//! The report as a table and a histogram.

use std::fmt::Write;
use std::path::Path;

use crate::commands::probe;
use crate::commands::run::Report;
use crate::measure::require;
use crate::report::bars;
use crate::units::{bytes, grouped, nanos, rate, si};
use crate::workload::ledger::Verified;
use crate::workload::{Mode, Pattern};

/// Renders the report as text with a final newline.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut out = format!("{}\n\n", headline(report));
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "  {name:<15} {value}");
    };
    throughput(report, &mut row);
    latency(report, &mut row);
    readers(report, &mut row);
    circumstances(report, &mut row);
    storage(report, &mut row);
    resources(report, &mut row);
    comparison(report, &mut row);
    verdict(report, &mut row);
    if let Some(e) = &report.failed {
        row("FAILED", format!("{e}; the figures are those until then"));
    }
    out += &require::table(&report.required);
    let histogram = bars::render(&report.outcome.latencies);
    if !histogram.is_empty() {
        let _ = write!(out, "\nlatency: {}\n{histogram}", report.meaning.describe());
    }
    out
}

fn headline(report: &Report) -> String {
    let args = &report.args;
    let mode = match args.workload_mode() {
        _ if args.replay.is_some() => "open loop as recorded".into(),
        Mode::Blocking => "blocking".into(),
        Mode::Pipelined => "pipelined".into(),
        Mode::Open(rate) => {
            let arrivals = match args.arrivals {
                Pattern::Poisson => "Poisson arrivals".to_owned(),
                Pattern::Constant => "even arrivals".into(),
                Pattern::Burst(n) => format!("bursts of {n}"),
            };
            format!("open loop at {}/s, {arrivals}", si(rate))
        }
    };
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let producers = match args.tasks {
        Some(n) => {
            format!("{n} task{} on {} thread{}", plural(n), args.threads, plural(args.threads))
        }
        None => format!("{} producer{}", args.threads, plural(args.threads)),
    };
    let producers = match args.logs {
        1 => producers,
        n => format!("{producers}, {n} logs"),
    };
    let (size, range) = (args.record_size(), args.record_size().range());
    let records = match (&args.input, &args.sample) {
        (Some(path), _) => format!("lines of {}", path.display()),
        (None, Some(path)) => format!("records like the lines of {}", path.display()),
        _ if args.replay.is_some() => {
            let path = args.replay.as_deref().unwrap_or(Path::new(""));
            format!("arrivals and sizes of {}", path.display())
        }
        _ if range.min == range.max => format!("records of {} bytes", range.max),
        _ if size.parts().len() > 1 => format!("records of {size} bytes"),
        _ => format!("records of {} to {} bytes", range.min, range.max),
    };
    let ended = report.ended_by.map(|why| format!(", ended by {why}")).unwrap_or_default();
    let seconds = report.outcome.seconds;
    format!("ringwal loadgen: {mode}, {producers}, {records}, {seconds:.2} s{ended}")
}

type Row<'a> = &'a mut dyn FnMut(&str, String);

fn throughput(report: &Report, row: Row<'_>) {
    let (outcome, work) = (&report.outcome, &report.work);
    let per_s = |n: u64| n as f64 / outcome.seconds;
    let each = |n: f64| if work.groups == 0 { 0.0 } else { n / work.groups as f64 };
    row(
        "records/s",
        format!("{:<14} {} records", si(per_s(outcome.records)), grouped(outcome.records)),
    );
    let all = outcome.records + outcome.overdue;
    if outcome.overdue * 100 > all {
        let (missed, all) = (grouped(outcome.overdue), grouped(all));
        row(
            "",
            format!("TOO FAST: {missed} of {all} that arrived were not appended in their time"),
        );
    }
    row(
        "MB/s",
        format!(
            "{:<14.1} payload; {} written with headers and padding",
            per_s(outcome.bytes) / 1e6,
            rate(per_s(work.group_bytes))
        ),
    );
    row("groups/s", format!("{:<14} {} groups", si(per_s(work.groups)), grouped(work.groups)));
    let (records, size) = (each(outcome.records as f64), each(work.group_bytes as f64));
    let depth = work.mean_depth;
    let group = format!("{records:.1} records, {} written, {depth:.1} in flight", bytes(size));
    row("per group", group);
    if let Some(steadiness) = report.series.steadiness() {
        let word = if steadiness.steady { "steady" } else { "not steady" };
        let text = format!("{word}: the second half ran at {:.2} of the first", steadiness.ratio);
        row("", text);
    }
    let flushes = match work.flushes {
        Some(n) => format!("; the device counted {} flushes, anybody's", grouped(n)),
        None => String::new(),
    };
    let syncs = match report.writes_nothing() {
        true => "none: nothing is written".into(),
        false => format!("{:<14} {}/s{flushes}", grouped(work.syncs), si(per_s(work.syncs))),
    };
    row("fsyncs", syncs);
}

fn latency(report: &Report, row: Row<'_>) {
    let latencies = &report.outcome.latencies;
    let q = |quantile: f64| nanos(latencies.quantile_ns(quantile));
    row("latency", report.meaning.describe().into());
    row(
        "",
        format!(
            "p50 {}, p90 {}, p99 {}, p99.9 {}, p99.99 {}, max {}",
            q(0.5),
            q(0.9),
            q(0.99),
            q(0.999),
            q(0.9999),
            nanos(latencies.max_ns())
        ),
    );
    let skipped = match report.outcome.skipped {
        0 => String::new(),
        n => format!(", {} more left out as their reader was behind", grouped(n)),
    };
    row("", format!("{} latencies{skipped}", grouped(latencies.count())));
    if let Some(corrected) = &report.outcome.corrected {
        let q = |quantile: f64| nanos(corrected.quantile_ns(quantile));
        row(
            "corrected",
            format!(
                "p50 {}, p90 {}, p99 {}, p99.9 {}: with the records that were not sent while a",
                q(0.5),
                q(0.9),
                q(0.99),
                q(0.999)
            ),
        );
        row(
            "",
            "producer waited (coordinated omission); --rate measures instead of correcting".into(),
        );
    }
}

fn readers(report: &Report, row: Row<'_>) {
    let Some(found) = &report.readers else { return };
    let q = |quantile| nanos(found.latencies.quantile_ns(quantile));
    let caught_up = match found.catch_up {
        Some(time) => format!("caught up {} after the end", nanos(time.as_nanos() as u64)),
        None => "did not catch up".into(),
    };
    let (followers, consumers) = (found.followers, found.consumers);
    row("readers", format!("{followers} followers, {consumers} consumers: {caught_up}"));
    row(
        "",
        format!(
            "durable to delivered: p50 {}, p99 {}, p99.9 {}, max {}",
            q(0.5),
            q(0.99),
            q(0.999),
            nanos(found.latencies.max_ns())
        ),
    );
    if found.overtaken > 0 {
        row("", format!("retention overtook a follower {} times", grouped(found.overtaken)));
    }
}

fn circumstances(report: &Report, row: Row<'_>) {
    let (backend, device) = (&report.backend, &report.device);
    row("backend", format!("{}: {}", backend.kind, backend.reason));
    let why = format!("{}, {}", backend.commit_method_reason, backend.commit_method_detail);
    row("commit method", format!("{}: {why}", backend.commit_method));
    row(
        "",
        format!(
            "{}, {} buffers, depth {}, block {}",
            if backend.direct_io { "direct I/O" } else { "buffered I/O" },
            if backend.registered_buffers { "registered" } else { "plain" },
            backend.depth,
            backend.block_size
        ),
    );
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
    row(
        "device",
        format!(
            "{} {}, {}, write cache: {}, FUA: {}",
            known(&device.number),
            known(&device.name),
            known(&device.filesystem),
            known(&device.write_cache),
            match device.fua {
                Some(true) => "yes",
                Some(false) => "no",
                None => "unknown",
            }
        ),
    );
}

/// Adds the directory of the log, and the work of its segments.
fn storage(report: &Report, row: Row<'_>) {
    let (work, settings) = (&report.work, &report.settings);
    let limit = match settings.retention {
        Some(limit) => format!("{} at most", bytes(limit as f64)),
        None => "nothing is removed".into(),
    };
    let each = if settings.logs > 1 { " of each log" } else { "" };
    row(
        "log",
        format!(
            "{} ({})",
            report.directory.display(),
            if report.stays { "stays" } else { "removed" }
        ),
    );
    row(
        "",
        format!(
            "segments of {}, {limit}{each}; {} written in advance, {} reused",
            bytes(settings.segment_size as f64),
            work.prepared,
            work.recycled
        ),
    );
}

/// Adds processor time, memory, and the machine.
fn resources(report: &Report, row: Row<'_>) {
    let spent = &report.spent;
    if let Some(us) = spent.us_per_record(report.outcome.records) {
        let all = spent.all;
        let switches = all.voluntary + all.involuntary;
        let share = 100.0 * all.system / (all.user + all.system).max(1e-9);
        row(
            "cpu",
            format!(
                "{} a record, {share:.0} % of it in the kernel; {} context switches",
                nanos((us * 1e3) as u64),
                grouped(switches)
            ),
        );
    }
    row("environment", format!("{}; seed {}", report.environment.line(), report.seed));
    if let Some(peak) = report.peak_memory {
        row("memory", format!("{} resident at most", bytes(peak as f64)));
    }
}

fn comparison(report: &Report, row: Row<'_>) {
    let Some(comparison) = &report.baseline else { return };
    let raw = &comparison.raw;
    row(
        "raw device",
        format!(
            "{}, p50 {}: {} at {}, depth {}, no engine",
            rate(raw.bytes_per_s),
            nanos(raw.latencies.quantile_ns(0.5)),
            raw.method.name(),
            bytes(raw.group as f64),
            raw.depth
        ),
    );
    // The shape of the run counts as a shape, too.
    let better = |best: &&probe::Cell| best.bytes_per_s > raw.bytes_per_s;
    if let Some(best) = probe::best(&report.grid) {
        let text = match Some(best).filter(better) {
            None => format!("which is the best of {} shapes", report.grid.len() + 1),
            Some(best) => format!(
                "{} at best: {} of {}, {} in flight, of {} shapes",
                rate(best.bytes_per_s),
                best.method.name(),
                bytes(best.size as f64),
                best.depth,
                report.grid.len() + 1
            ),
        };
        row("", text);
    }
    if let Some(eta) = comparison.eta {
        let doubt = match eta {
            eta if eta > BEATEN => "; BEATEN: the disk was slower while it was measured alone",
            _ => "",
        };
        let text =
            format!("{eta:.2} of the raw device's bandwidth, written by written byte{doubt}");
        row("eta", text);
    }
    if let Some(ratio) = comparison.p999_ratio {
        let text = format!("{ratio:.2} times the raw device's p50 for one such group");
        row("p99.9 ratio", text + slower_alone(ratio));
    }
    if let Some(ratio) = comparison.p50_ratio {
        let text = format!("{ratio:.2} times the raw device's p50 for one block");
        row("p50 ratio", text + slower_alone(ratio));
    }
}

/// Share of its limit that a log can reach, with the tolerance of a measurement.
const BEATEN: f64 = 1.05;

fn slower_alone(ratio: f64) -> &'static str {
    match ratio {
        ratio if ratio < 1.0 / BEATEN => {
            "; BEATEN: the disk was slower while it was measured alone"
        }
        _ => "",
    }
}

fn verdict(report: &Report, row: Row<'_>) {
    let Some(verified) = &report.verified else { return };
    let text = match verified {
        Ok(Verified { records, removed, uncompared }) => {
            let mut text = format!("{} records in order, count and content", grouped(*records));
            if *removed > 0 {
                let _ = write!(
                    text,
                    ": the retained suffix; retention removed {} before",
                    grouped(*removed)
                );
            }
            if *uncompared > 0 {
                let _ = write!(text, "; {} in a half removed segment not compared", uncompared);
            }
            text
        }
        Err(what) => format!("FAILED: {what}"),
    };
    row("verified", text);
}
