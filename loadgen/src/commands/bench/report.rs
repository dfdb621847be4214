//! The suite as a table, as Markdown and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Place, Row, Sample, Suite, Unit, label};
use crate::log_dir::device::Device;
use crate::output::MARK;
use crate::units::{nanos, rate, si};

/// Returns the table for a terminal.
#[must_use]
pub fn table(suite: &Suite) -> String {
    let (head, rows) = grid(suite);
    let mut widths: Vec<usize> = head.iter().map(|text| text.chars().count()).collect();
    for row in &rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    let mut out = format!("{}\n\n", circumstances(suite));
    for row in std::iter::once(&head).chain(&rows) {
        let padded = row.iter().zip(&widths).map(|(text, &width)| format!("{text:<width$}"));
        let text = padded.collect::<Vec<_>>().join("  ");
        let _ = writeln!(out, "{}", text.trim_end());
    }
    out
}

/// Returns the table for documents.
#[must_use]
pub fn markdown(suite: &Suite) -> String {
    let (head, rows) = grid(suite);
    let about = circumstances(suite);
    let mut out = format!("<!-- {MARK} -->\n\n{about}\n\n| {} |\n", head.join(" | "));
    let _ = writeln!(out, "|{}", "---|".repeat(head.len()));
    for row in rows {
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
    out
}

/// Returns the JSON object.
#[must_use]
pub fn json(suite: &Suite) -> Value {
    let several = suite.places.len() > 1;
    let of = |(at, place): (usize, &Place)| -> Vec<Value> {
        let one = |r| {
            let mut value = row(r);
            if several {
                value["directory"] = json!(label(at).to_string());
            }
            value
        };
        place.rows.iter().map(one).collect()
    };
    let rows: Vec<Value> = suite.places.iter().enumerate().flat_map(of).collect();
    let first = &suite.places[0];
    let mut value = json!({
        "schema": "ringwal-loadgen/bench/1",
        "rounds": suite.rounds,
        "cell_seconds": suite.seconds,
        "processors": suite.processors,
        "commit_method": first.commit_method,
        "commit_method_detail": first.commit_method_detail,
        "ended_by": suite.ended_by,
        "environment": suite.environment.json(),
        "device": device(&first.device),
        "rows": rows,
    });
    if several {
        let one = |(at, place): (usize, &Place)| {
            json!({
                "label": label(at).to_string(),
                "directory": place.directory,
                "commit_method": place.commit_method,
                "commit_method_detail": place.commit_method_detail,
                "device": device(&place.device),
            })
        };
        value["directories"] = suite.places.iter().enumerate().map(one).collect();
    }
    value
}

fn device(device: &Device) -> Value {
    json!({
        "number": device.number,
        "name": device.name,
        "filesystem": device.filesystem,
        "write_cache": device.write_cache,
        "fua": device.fua,
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

/// The head and the rows of the table. With several directories, each has a column of its own: the
/// median, its ratio by the limit there, and the latencies.
fn grid(suite: &Suite) -> (Vec<String>, Vec<Vec<String>>) {
    if let [place] = &suite.places[..] {
        let rows = place.rows.iter().filter_map(columns).map(Vec::from);
        return (HEAD.map(String::from).into(), rows.collect());
    }
    let mut head: Vec<String> = ["", "workload", "limit"].map(String::from).into();
    for at in 0..suite.places.len() {
        head.extend(["", " by limit", " p50 / p99 / p99.9"].map(|t| format!("{}{t}", label(at))));
    }
    let of = |(n, first): (usize, &Row)| {
        let parts: Vec<_> = suite.places.iter().map(|place| columns(&place.rows[n])).collect();
        if parts.iter().all(Option::is_none) {
            return None;
        }
        let mut cells = vec![first.workload.into(), first.name.into(), first.limit.into()];
        for part in parts {
            let [_, _, median, _, ratio, latencies, _] = part.unwrap_or_default();
            let median = median.split(" (").next().unwrap_or_default().to_owned();
            cells.extend([median, ratio, latencies]);
        }
        Some(cells)
    };
    (head, suite.places[0].rows.iter().enumerate().filter_map(of).collect())
}

/// One line for each directory: its device and the log's commit method.
#[must_use]
pub fn titles(suite: &Suite) -> Vec<String> {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
    let one = |(at, place): (usize, &Place)| {
        let device = &place.device;
        let name = match suite.places.len() {
            1 => String::new(),
            _ => format!("{}: {}: ", label(at), place.directory),
        };
        let method = match (&place.commit_method[..], &place.commit_method_detail[..]) {
            ("", _) => "as stated".into(),
            (method, detail) => format!("{method} ({detail})"),
        };
        format!(
            "{name}{}, {}, write cache: {}; commit method {method}",
            known(&device.name),
            known(&device.filesystem),
            known(&device.write_cache),
        )
    };
    suite.places.iter().enumerate().map(one).collect()
}

fn circumstances(suite: &Suite) -> String {
    let ended = suite.ended_by.map_or(String::new(), |why| {
        format!("INTERRUPTED by {why}: only what was measured in whole rounds is concluded from\n")
    });
    let join = if suite.places.len() > 1 { "\n" } else { "; " };
    format!(
        "{ended}{}\n{} rounds, {} s a cell; {} processors{join}{}",
        suite.environment.line(),
        suite.rounds,
        suite.seconds,
        suite.processors,
        titles(suite).join("\n"),
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
    use super::json as json_of;
    use super::*;

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
        let place = |directory: &str, rows| Place {
            directory: directory.into(),
            device: Device::under(std::path::Path::new("/nowhere")),
            commit_method: "dsync".into(),
            commit_method_detail: "measured".into(),
            rows,
        };
        let mut suite = Suite {
            places: vec![place("", vec![row("measured", vec![sample]), row("not run", vec![])])],
            rounds: 1,
            seconds: 1.0,
            ended_by: None,
            failed: None,
            environment: crate::measure::environment::Environment::of(std::path::Path::new(
                "/nowhere",
            )),
            processors: 2,
        };
        for text in [table(&suite), markdown(&suite)] {
            assert!(
                text.contains("measured") && text.contains("2.00 M/s") && text.contains("0.50")
            );
            assert!(!text.contains("not run"));
        }
        let json = json_of(&suite);
        assert_eq!(json["rows"][0]["ratio"], 0.5);
        assert_eq!(json["rows"][1]["median"], Value::Null);
        assert_eq!(json["rows"][0]["beats_its_limit"], false);
        let beats = |unit, value, limit| {
            let sample = Sample { value, limit: Some(limit), ..Sample::default() };
            Row { unit, samples: vec![sample], ..row("x", vec![]) }.beats_its_limit()
        };
        assert!(beats(Unit::PerSecond, 1.2, 1.0) && !beats(Unit::PerSecond, 1.0, 1.0));
        assert!(beats(Unit::Nanoseconds, 0.8, 1.0) && !beats(Unit::Nanoseconds, 1.2, 1.0));
        let quick = Sample { value: 8e6, ..sample };
        suite
            .places
            .push(place("/quick", vec![row("measured", vec![quick]), row("not run", vec![])]));
        let both = table(&suite);
        let line = both.lines().find(|line| line.contains("measured  ")).unwrap();
        assert!(line.contains("2.00 M/s") && line.contains("8.00 M/s"), "{both}");
        assert!(both.contains("B: /quick: "), "{both}");
        let rows = json_of(&suite)["rows"].clone();
        assert_eq!(
            (rows[0]["directory"].as_str(), rows[2]["directory"].as_str()),
            (Some("A"), Some("B"))
        );
        assert_eq!((&rows[0]["ratio"], &rows[2]["ratio"]), (&json!(0.5), &json!(2.0)));
        suite.ended_by = Some("a signal");
        let ended = table(&suite);
        assert!(ended.starts_with("INTERRUPTED"), "{ended}");
    }
}
