//! The suite as a table, as Markdown and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Row, Sample, Suite, Unit};
use crate::output::MARK;
use crate::units::{nanos, rate, si};

/// Returns the table for a terminal.
#[must_use]
pub fn table(suite: &Suite) -> String {
    let rows: Vec<[String; 7]> = suite.rows.iter().filter_map(columns).collect();
    let mut widths = HEAD.map(str::len);
    for row in &rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    let mut out = format!("{}\n\n", circumstances(suite));
    let mut line = |cells: [&str; 7]| {
        let padded = cells.iter().zip(widths).map(|(text, width)| format!("{text:<width$}"));
        let text = padded.collect::<Vec<_>>().join("  ");
        let _ = writeln!(out, "{}", text.trim_end());
    };
    line(HEAD);
    for row in &rows {
        line(row.each_ref().map(String::as_str));
    }
    out
}

/// Returns the table for documents.
#[must_use]
pub fn markdown(suite: &Suite) -> String {
    let mut out =
        format!("<!-- {MARK} -->\n\n{}\n\n| {} |\n", circumstances(suite), HEAD.join(" | "));
    let _ = writeln!(out, "|{}", "---|".repeat(HEAD.len()));
    for row in suite.rows.iter().filter_map(columns) {
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
    out
}

/// Returns the JSON object.
#[must_use]
pub fn json(suite: &Suite) -> Value {
    let rows: Vec<Value> = suite.rows.iter().map(row).collect();
    json!({
        "schema": "ringwal-loadgen/bench/1",
        "rounds": suite.rounds,
        "cell_seconds": suite.seconds,
        "processors": suite.processors,
        "commit_method": suite.commit_method,
        "commit_method_detail": suite.commit_method_detail,
        "ended_by": suite.ended_by,
        "environment": suite.environment.json(),
        "device": {
            "number": suite.device.number,
            "name": suite.device.name,
            "filesystem": suite.device.filesystem,
            "write_cache": suite.device.write_cache,
            "fua": suite.device.fua,
        },
        "rows": rows,
    })
}

const HEAD: [&str; 7] = [
    "",
    "workload",
    "median (least - greatest)",
    "limit",
    "by limit",
    "p50 / p99 / p99.9",
    "flushes a group",
];

fn circumstances(suite: &Suite) -> String {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
    let ended = suite.ended_by.map_or(String::new(), |why| {
        format!("INTERRUPTED by {why}: only what was measured in whole rounds is concluded from\n")
    });
    format!(
        "{ended}{}\n{} rounds, {} s a cell; {} processors; {}, {}, write cache: {}; commit method {}",
        suite.environment.line(),
        suite.rounds,
        suite.seconds,
        suite.processors,
        known(&suite.device.name),
        known(&suite.device.filesystem),
        known(&suite.device.write_cache),
        match (&suite.commit_method[..], &suite.commit_method_detail[..]) {
            ("", _) => "as stated".into(),
            (method, detail) => format!("{method} ({detail})"),
        },
    )
}

fn shown(unit: Unit, value: f64) -> String {
    match unit {
        Unit::PerSecond => format!("{}/s", si(value)),
        Unit::Nanoseconds => nanos(value as u64),
        Unit::BytesPerSecond => rate(value),
    }
}

fn columns(row: &Row) -> Option<[String; 7]> {
    let [median, least, greatest] = row.spread(|s| Some(s.value))?;
    let show = |value| shown(row.unit, value);
    let limit = row
        .spread(|s| s.limit)
        .map_or(String::new(), |[limit, ..]| format!("{}: {}", show(limit), row.limit));
    let beaten = if row.beats_its_limit() { " BEATEN" } else { "" };
    let ratio =
        row.ratio().map_or(String::new(), |[m, l, g]| format!("{m:.2} ({l:.2} - {g:.2}){beaten}"));
    let quantile = |i: usize| row.spread(|s| s.latencies.map(|l| l[i] as f64));
    let latencies: Vec<String> =
        (0..3).filter_map(|i| quantile(i).map(|[m, ..]| nanos(m as u64))).collect();
    let flushes = row.spread(|s| s.flushes_per_group);
    Some([
        row.workload.into(),
        row.name.into(),
        format!("{} ({} - {})", show(median), show(least), show(greatest)),
        limit,
        ratio,
        latencies.join(" / "),
        flushes.map_or(String::new(), |[m, ..]| format!("{m:.2}")),
    ])
}

fn row(row: &Row) -> Value {
    let sample = |s: &Sample| {
        json!({
            "value": s.value,
            "limit": s.limit,
            "p50_ns": s.latencies.map(|l| l[0]),
            "p99_ns": s.latencies.map(|l| l[1]),
            "p99_9_ns": s.latencies.map(|l| l[2]),
            "flushes_per_group": s.flushes_per_group,
        })
    };
    json!({
        "workload": row.workload,
        "name": row.name,
        "unit": match row.unit {
            Unit::PerSecond => "per_second",
            Unit::Nanoseconds => "ns",
            Unit::BytesPerSecond => "bytes_per_second",
        },
        "limit": row.limit,
        "median": row.spread(|s| Some(s.value)).map(|s| s[0]),
        "ratio": row.ratio().map(|r| r[0]),
        "beats_its_limit": row.ratio().map(|_| row.beats_its_limit()),
        "samples": row.samples.iter().map(sample).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_dir::device::Device;

    #[test]
    fn table_markdown_and_json_have_the_same_rows() {
        let sample = Sample {
            value: 2e6,
            limit: Some(4e6),
            latencies: Some([1000, 2000, 3000]),
            flushes_per_group: Some(1.0),
        };
        let row = |name, samples| Row {
            workload: "W4",
            name,
            unit: Unit::PerSecond,
            limit: "the limit",
            samples,
        };
        let suite = Suite {
            rows: vec![row("measured", vec![sample]), row("not run", vec![])],
            rounds: 1,
            seconds: 1.0,
            commit_method: "dsync".into(),
            commit_method_detail: "measured".into(),
            ended_by: None,
            failed: None,
            environment: crate::measure::environment::Environment::of(std::path::Path::new(
                "/nowhere",
            )),
            device: Device::under(std::path::Path::new("/nowhere")),
            processors: 2,
        };
        for text in [table(&suite), markdown(&suite)] {
            assert!(
                text.contains("measured") && text.contains("2.00 M/s") && text.contains("0.50")
            );
            assert!(!text.contains("not run"));
        }
        let json = json(&suite);
        assert_eq!(json["rows"][0]["ratio"], 0.5);
        assert_eq!(json["rows"][1]["median"], Value::Null);
        assert_eq!(json["rows"][0]["beats_its_limit"], false);
        let beats = |unit, value, limit| {
            let sample = Sample { value, limit: Some(limit), ..Sample::default() };
            Row { unit, samples: vec![sample], ..row("x", vec![]) }.beats_its_limit()
        };
        assert!(beats(Unit::PerSecond, 1.2, 1.0) && !beats(Unit::PerSecond, 1.0, 1.0));
        assert!(beats(Unit::Nanoseconds, 0.8, 1.0) && !beats(Unit::Nanoseconds, 1.2, 1.0));
        let ended = table(&Suite { ended_by: Some("a signal"), ..suite });
        assert!(ended.starts_with("INTERRUPTED"), "{ended}");
    }
}
