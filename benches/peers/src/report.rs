//! The tables, and everything as JSON.

use std::fmt::Write;

use loadgen::units::{grouped, nanos, rate, si};
use serde_json::{Value, json};

use crate::device::plausible;
use crate::peer::{ALL, Entry};
use crate::suite::{Row, Suite};
use crate::workload::{Figures, Task};

/// Characters of an error that fit in a cell.
const ERROR: usize = 160;

/// Median, least and greatest.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (low, high) = (values.get((values.len() - 1) / 2)?, values.get(values.len() / 2)?);
        Some(Spread { median: f64::midpoint(*low, *high), min, max })
    }

    /// The median, with the least and the greatest if there were several rounds.
    fn text(self, unit: fn(f64) -> String) -> String {
        if self.min == self.max {
            unit(self.median)
        } else {
            format!("{} [{} - {}]", unit(self.median), unit(self.min), unit(self.max))
        }
    }
}

/// The verdict of the flush counter on a run.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Durable {
    Yes,
    No(String),
    Unknown,
}

fn durable(task: Task, figures: &Figures) -> Durable {
    let Some(flushes) = figures.flushes else { return Durable::Unknown };
    let (acknowledged, what, at_a_time) = match task {
        Task::Blocking { threads, .. } => (figures.records, "commits", threads),
        Task::Relaxed { .. } => (figures.syncs, "syncs", 1),
        Task::Fill { .. } | Task::Replay { .. } => return Durable::Unknown,
    };
    if plausible(flushes, acknowledged, at_a_time) {
        Durable::Yes
    } else {
        let (flushes, acknowledged) = (grouped(flushes), grouped(acknowledged));
        Durable::No(format!("NOT durable ({flushes} flushes for {acknowledged} {what})"))
    }
}

/// The peers, for `--list`.
pub fn list() -> String {
    let mut out = String::new();
    for entry in ALL {
        let Entry { name, kind, durable_by, .. } = entry;
        let _ = writeln!(out, "{name:16} {:8} {:9} {durable_by}", entry.version(), kind.name());
    }
    out
}

/// The tables.
pub fn markdown(suite: &Suite) -> String {
    let mut out = String::new();
    let (rounds, seconds) = (suite.raw.len(), suite.times.run.as_secs_f64());
    let _ = writeln!(
        out,
        "{}; {rounds} round(s) of {seconds} s; medians, in brackets smallest and largest.",
        suite.device
    );
    let idle = Spread::of(suite.idle_flushes_per_s.iter().copied());
    let idle = idle.map_or_else(|| "unknown".into(), |spread| spread.text(si));
    let _ = writeln!(out, "Flushes by others between the rounds: {idle} a second.\n");
    let mut sizes: Vec<usize> = Vec::new();
    for task in &suite.tasks {
        if let Task::Blocking { size, .. } = *task
            && !sizes.contains(&size)
        {
            sizes.push(size);
        }
    }
    for size in sizes {
        let wanted = |task: Task| matches!(task, Task::Blocking { size: s, .. } if s == size);
        let title =
            format!("Blocking committers, {size} B: durable commits/s (p50 / p99.9 of a commit)");
        table(&mut out, suite, &title, wanted, Some(raw(suite)));
    }
    let relaxed = |task: Task| matches!(task, Task::Relaxed { .. });
    let title = "Relaxed: appends without waiting, a sync every 5 ms: records/s (p50 of a sync)";
    table(&mut out, suite, title, relaxed, None);
    let recovery = |task: Task| matches!(task, Task::Replay { .. });
    let title = "Recovery: open and read everything, page cache warm";
    table(&mut out, suite, title, recovery, None);
    out
}

fn raw(suite: &Suite) -> String {
    let good = || suite.raw.iter().flatten();
    let text = match Spread::of(good().map(|raw| raw.writes_per_s)) {
        None => suite
            .raw
            .iter()
            .find_map(|raw| raw.as_ref().err())
            .map_or_else(String::new, |e| short(e)),
        Some(rates) => {
            let p50 = Spread::of(good().map(|raw| raw.p50_ns as f64));
            let p999 = Spread::of(good().map(|raw| raw.p999_ns as f64));
            format!("{} ({} / {})", rates.text(si), median_time(p50), median_time(p999))
        }
    };
    let method = good().next().map_or("", |raw| raw.method);
    format!("| raw device, 4 KiB | {method} | {text} |")
}

fn table(
    out: &mut String,
    suite: &Suite,
    title: &str,
    wanted: impl Fn(Task) -> bool,
    raw: Option<String>,
) {
    let tasks: Vec<Task> = suite.tasks.iter().copied().filter(|&task| wanted(task)).collect();
    if tasks.is_empty() {
        return;
    }
    let recovery = tasks.iter().all(|task| matches!(task, Task::Replay { .. }));
    let _ = writeln!(out, "## {title}\n");
    let heads: Vec<String> = tasks.iter().map(|&task| head(task)).collect();
    let last = if recovery { "" } else { " flush check |" };
    let _ = writeln!(out, "| peer | version | {} |{last}", heads.join(" | "));
    let rules = "---|".repeat(2 + tasks.len() + usize::from(!recovery));
    let _ = writeln!(out, "|{rules}");
    if let Some(raw) = raw {
        let _ = writeln!(out, "{raw}{}", " |".repeat(tasks.len()));
    }
    let mut entries: Vec<&Entry> = Vec::new();
    for row in &suite.rows {
        if wanted(row.task) && !entries.iter().any(|entry| entry.name == row.entry.name) {
            entries.push(row.entry);
        }
    }
    for entry in entries {
        let rows: Vec<&Row> = suite
            .rows
            .iter()
            .filter(|row| row.entry.name == entry.name && wanted(row.task))
            .collect();
        let cells: Vec<String> = rows.iter().map(|row| cell(row)).collect();
        let _ = write!(out, "| {} | {} | {} |", entry.name, entry.version(), cells.join(" | "));
        let _ = if recovery { writeln!(out) } else { writeln!(out, " {} |", verdict(&rows)) };
    }
    let _ = writeln!(out);
}

fn head(task: Task) -> String {
    let threads = |n: u64| if n == 1 { "1 thread".into() } else { format!("{n} threads") };
    match task {
        Task::Blocking { threads: n, .. } => threads(n),
        Task::Relaxed { threads: n, size } => format!("{size} B, {}", threads(n)),
        Task::Fill { size, bytes } | Task::Replay { size, bytes } => {
            format!("{} MiB of {size} B", bytes >> 20)
        }
    }
}

fn cell(row: &Row) -> String {
    let spread = |value: fn(&Figures) -> f64| Spread::of(row.rounds.iter().flatten().map(value));
    let failed = row.rounds.iter().find_map(|round| round.as_ref().err());
    let p50 = || median_time(spread(|figures| figures.p50_ns as f64));
    let text = match (row.task, spread(|f| f.records_per_s), spread(|f| f.bytes_per_s)) {
        (Task::Blocking { .. }, Some(rates), _) => {
            let p999 = median_time(spread(|figures| figures.p999_ns as f64));
            format!("{} ({} / {p999})", rates.text(si), p50())
        }
        (Task::Relaxed { .. }, Some(rates), _) => format!("{} ({})", rates.text(si), p50()),
        (_, _, Some(bytes)) => bytes.text(rate),
        _ => String::new(),
    };
    match failed {
        None => text,
        Some(e) => format!("failed: {} {text}", short(e)),
    }
}

fn median_time(spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |spread| nanos(spread.median as u64))
}

/// An error that fits in a cell and does not end it.
fn short(error: &str) -> String {
    let mut text: String = error.chars().take(ERROR).collect();
    if text.len() < error.len() {
        text.push_str("...");
    }
    text.replace('|', "/").replace('\n', " ")
}

/// One word for a row, or the failures of its cells.
fn verdict(rows: &[&Row]) -> String {
    let (mut wrong, mut unknown, mut right) = (Vec::new(), false, false);
    for row in rows {
        for figures in row.rounds.iter().flatten() {
            match durable(row.task, figures) {
                Durable::Yes => right = true,
                Durable::Unknown => unknown = true,
                // Report each cell once.
                Durable::No(why) => {
                    wrong.push(format!("{}: {why}", head(row.task)));
                    break;
                }
            }
        }
    }
    if !wrong.is_empty() {
        wrong.join("; ")
    } else if unknown {
        "unknown".into()
    } else if right {
        "durable".into()
    } else {
        String::new()
    }
}

/// Everything.
pub fn json(suite: &Suite) -> Value {
    let raw: Vec<Value> = suite
        .raw
        .iter()
        .map(|round| match round {
            Ok(raw) => json!({
                "method": raw.method,
                "writes_per_s": raw.writes_per_s,
                "p50_ns": raw.p50_ns,
                "p999_ns": raw.p999_ns,
            }),
            Err(e) => json!({ "error": e }),
        })
        .collect();
    json!({
        "device": suite.device,
        "seconds": suite.times.run.as_secs_f64(),
        "warm_up_seconds": suite.times.warm_up.as_secs_f64(),
        "idle_flushes_per_s": suite.idle_flushes_per_s,
        "raw_device_4_kib": raw,
        "results": suite.rows.iter().map(row_json).collect::<Vec<_>>(),
    })
}

fn row_json(row: &Row) -> Value {
    let rounds: Vec<Value> = row
        .rounds
        .iter()
        .map(|round| match round {
            Ok(figures) => json!({
                "figures": figures,
                "durable": match durable(row.task, figures) {
                    Durable::Yes => json!(true),
                    Durable::No(why) => json!(why),
                    Durable::Unknown => Value::Null,
                },
            }),
            Err(e) => json!({ "error": e }),
        })
        .collect();
    let rates = Spread::of(row.rounds.iter().flatten().map(|figures| figures.records_per_s));
    json!({
        "peer": row.entry.name,
        "package": row.entry.package,
        "version": row.entry.version(),
        "kind": row.entry.kind.name(),
        "durable_by": row.entry.durable_by,
        "task": row.task,
        "records_per_s": rates.map(|r| json!({ "median": r.median, "min": r.min, "max": r.max })),
        "rounds": rounds,
    })
}
