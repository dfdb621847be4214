//! Two measurements, row by row: the difference, and whether it exceeds chance.
//!
//! 1. Rows are those of two suites (`bench --json`) or devices, with a value per round. Or they are
//!    the headline figures of two runs (`--json`): rate and latencies. The intervals of a run give
//!    the uncertainty of its figures.
//! 2. A difference of the machines is not a difference of the logs. A run's figures are assumed to
//!    vary by a few percent between runs. They also vary by as much as the raw devices beside the
//!    two runs differ.
//! 3. A row is worse if its whole interval lies below the tolerance, the same if it lies within it,
//!    and otherwise undecided. See [`crate::measure::statistics`].
//! 4. Only complete and valid measurements are compared: of a known schema, not interrupted, with a
//!    verified log.
//! 5. Rows in only one file are listed. Rows that the second file lacks are a failure, and so is a
//!    comparison without any decided row. Different settings are listed.

mod samples;

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::commands::compare::samples::{Kind, Samples, kind, read, samples};
use crate::error::Error;
use crate::measure::environment::Environment;
use crate::measure::statistics::{self, Verdict};

/// One row.
#[derive(Debug, Clone)]
pub struct Row {
    /// Workload and name.
    pub name: String,
    /// The figures of the first and of the second file.
    pub figures: [f64; 2],
    /// Ratio of second to first and its interval. Above 1 is better.
    pub ratio: [f64; 3],
    /// Number of values, or blocks of them, on both sides.
    pub values: [usize; 2],
    /// The verdict.
    pub verdict: Verdict,
}

/// A finished comparison.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Rows in the order of the first file.
    pub rows: Vec<Row>,
    /// Tolerated loss as a share.
    pub tolerance: f64,
    /// True for two single runs, which cannot separate the machine from the log.
    pub single_runs: bool,
    /// Rows only in the first file, and rows only in the second.
    pub missing: [Vec<String>; 2],
    /// Different settings and conditions.
    pub differences: Vec<String>,
}

/// Settings that change a measurement, by their JSON pointers.
const SETTINGS: [&str; 22] = [
    "/mode",
    "/rate",
    "/arrivals",
    "/durability",
    "/threads",
    "/logs",
    "/tasks",
    "/size",
    "/input",
    "/sample",
    "/replay",
    "/backend",
    "/commit_method",
    "/direct_io",
    "/depth",
    "/cell_seconds",
    "/processors",
    "/device/name",
    "/device/filesystem",
    "/device/write_cache",
    "/device/fua",
    "/ended_by",
];

/// Compares two files.
///
/// # Errors
///
/// [`Error::Measurement`] for a file that is not a measurement or supports no conclusion, and for
/// two files without a common row.
pub fn compare(first: &Path, second: &Path, tolerance: f64) -> Result<Comparison, Error> {
    let (first_json, second_json) = (read(first)?, read(second)?);
    let kinds = [kind(first, &first_json)?, kind(second, &second_json)?];
    if kinds[0] != kinds[1] {
        let why = format!("it is of another command than {}", first.display());
        return Err(Error::measurement(second, why));
    }
    let (before, after) =
        (samples(first, kinds[0], &first_json)?, samples(second, kinds[1], &second_json)?);
    let pairs = common(&before, &after);
    if pairs.is_empty() {
        let why = format!("it has no row in common with {}", first.display());
        return Err(Error::measurement(second, why));
    }
    let rows = if first_json == second_json {
        pairs.iter().map(|(a, _)| same(a)).collect()
    } else {
        judged(&pairs, kinds[0], [&first_json, &second_json], tolerance)
    };
    let lacks = |some: &[Samples], others: &[Samples]| {
        let missing = some.iter().filter(|a| !others.iter().any(|b| b.name == a.name));
        missing.map(|samples| samples.name.clone()).collect()
    };
    let missing = [lacks(&before, &after), lacks(&after, &before)];
    let differences = differences(&first_json, &second_json);
    let single_runs = kinds[0] == Kind::Run;
    Ok(Comparison { rows, tolerance, single_runs, missing, differences })
}

/// Compares two valid reports of runs.
pub(crate) fn of_runs(first: &Value, second: &Value, tolerance: f64) -> Vec<Row> {
    let (before, after) = (samples::run(first), samples::run(second));
    judged(&common(&before, &after), Kind::Run, [first, second], tolerance)
}

/// Returns the rows that both have.
fn common<'a>(before: &'a [Samples], after: &'a [Samples]) -> Vec<(&'a Samples, &'a Samples)> {
    before.iter().filter_map(|a| Some((a, after.iter().find(|b| b.name == a.name)?))).collect()
}

fn judged(
    pairs: &[(&Samples, &Samples)],
    kind: Kind,
    [first, second]: [&Value; 2],
    tolerance: f64,
) -> Vec<Row> {
    // The difference of the raw devices, which no log causes.
    let machine = match kind {
        Kind::Run => raw_ratio(first, second).unwrap_or(0.0),
        _ => 0.0,
    };
    let rows = |latency| 2 * pairs.iter().filter(|(a, _)| a.latency == latency).count();
    let counts = [rows(false), rows(true)];
    // A run has few rows, which are judged together.
    let count = |latency: bool| match kind {
        Kind::Run => pairs.len(),
        _ => counts[usize::from(latency)],
    };
    pairs.iter().map(|(a, b)| row(a, b, tolerance, count(a.latency), machine)).collect()
}

fn differences(first: &Value, second: &Value) -> Vec<String> {
    let of = |value: &Value, at: &str| match value.pointer(at).cloned().unwrap_or(Value::Null) {
        // A different measurement behind the same choice is not a difference of settings.
        Value::String(text) if at == "/commit_method" => {
            Value::String(text.split(" (").next().unwrap_or_default().to_owned())
        }
        other => other,
    };
    let told = |value: Value| match value {
        Value::String(text) => text,
        Value::Null => "-".into(),
        other => other.to_string(),
    };
    let differs = |at: &&str| {
        let (a, b) = (of(first, at), of(second, at));
        let name = at.trim_start_matches('/').replace(['/', '_'], " ");
        (a != b).then(|| format!("{name}: {} and {}", told(a), told(b)))
    };
    SETTINGS.iter().filter_map(differs).collect()
}

/// Returns the logarithm of the ratio of the raw devices beside two runs; `None` without them.
fn raw_ratio(first: &Value, second: &Value) -> Option<f64> {
    let of =
        |value: &Value| value.pointer("/baseline/latency_us_p50")?.as_f64().filter(|v| *v > 0.0);
    Some((of(second)? / of(first)?).ln())
}

fn same(a: &Samples) -> Row {
    let values = [a.estimate.map_or(0, |e| e.values); 2];
    let verdict = if a.estimate.is_some() { Verdict::Same } else { Verdict::Undecided };
    Row { name: a.name.clone(), figures: [a.figure; 2], ratio: [1.0; 3], values, verdict }
}

/// Compares one row. `machine` is the logarithm of the machines' ratio, by which it widens the
/// interval.
fn row(a: &Samples, b: &Samples, tolerance: f64, rows: usize, machine: f64) -> Row {
    let figures = [a.figure, b.figure];
    let (ratio, values, verdict) = match (&a.estimate, &b.estimate) {
        (Some(before), Some(after)) => {
            let [_, low, high] = statistics::ratio(before, after, a.less_is_better, rows);
            let wider = machine.abs().exp();
            let [low, high] = [low / wider, high * wider];
            let middle =
                if a.less_is_better { figures[0] / figures[1] } else { figures[1] / figures[0] };
            let verdict = Verdict::of([low, high], tolerance);
            ([middle, low, high], [before.values, after.values], verdict)
        }
        _ => {
            let middle =
                if a.less_is_better { figures[0] / figures[1] } else { figures[1] / figures[0] };
            let values = [&a.estimate, &b.estimate].map(|e| e.map_or(0, |e| e.values));
            ([middle, 0.0, f64::INFINITY], values, Verdict::Undecided)
        }
    };
    Row { name: a.name.clone(), figures, ratio, values, verdict }
}

/// Formats rows for the table.
pub(crate) fn lines(rows: &[Row], width: usize) -> String {
    let mut out = String::new();
    for row in rows {
        let [ratio, low, high] = row.ratio;
        let interval = match high.is_finite() && high < 1e3 {
            true => format!("({low:.2} - {high:.2})"),
            false => "(not known)".into(),
        };
        let verdict = match row.verdict {
            Verdict::Worse => "WORSE",
            other => other.name(),
        };
        let _ = writeln!(out, "{:<width$}  {ratio:5.2}  {interval:<15}  {verdict}", row.name);
    }
    out
}

/// Returns rows as JSON. An unbounded interval is `null` there.
pub(crate) fn rows_json(rows: &[Row]) -> Value {
    let one = |row: &Row| {
        let bound = |v: f64| v.is_finite().then_some(v);
        json!({
            "name": row.name,
            "first": row.figures[0],
            "second": row.figures[1],
            "ratio": bound(row.ratio[0]),
            "interval": [bound(row.ratio[1]), bound(row.ratio[2])],
            "values": row.values,
            "verdict": row.verdict.name(),
        })
    };
    rows.iter().map(one).collect()
}

impl Comparison {
    /// Returns the number of worse rows.
    #[must_use]
    pub fn worse(&self) -> usize {
        self.rows.iter().filter(|row| row.verdict == Verdict::Worse).count()
    }

    /// Returns the result for a gate. With `common`, only rows in both files count.
    ///
    /// # Errors
    ///
    /// [`Error::Worse`] for rows that are worse, or missing in the second file. [`Error::Usage`] if
    /// no row is decided.
    pub fn verdict(&self, common: bool) -> Result<(), Error> {
        let missing = if common { 0 } else { self.missing[0].len() };
        if self.worse() + missing > 0 {
            return Err(Error::Worse { worse: self.worse(), missing });
        }
        undecided(&self.rows)
    }

    /// Returns the table with a final newline.
    #[must_use]
    pub fn table(&self) -> String {
        let percent = self.tolerance * 100.0;
        let mut out = format!(
            "second by first, more is better, with an interval that holds for all rows together in 95 % of comparisons;\n\
             the same, worse or better within or beyond {percent:.0} %\n\n"
        );
        let names = self.rows.iter().map(|row| &row.name).chain(self.missing.iter().flatten());
        let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
        out += &lines(&self.rows, width);
        for (names, which) in self.missing.iter().zip(["first", "second"]) {
            for name in names {
                let _ = writeln!(out, "{name:<width$}  only in the {which}");
            }
        }
        if !self.differences.is_empty() {
            let _ = writeln!(out, "\nNot the same was measured:");
            for difference in &self.differences {
                let _ = writeln!(out, "  {difference}");
            }
        }
        if self.single_runs {
            let _ = writeln!(
                out,
                "\nOne run each: a machine that was slower in one of them looks the same. `loadgen ab` alternates."
            );
        }
        out
    }

    /// Returns the JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "schema": "ringwal-loadgen/compare/1",
            "tolerance": self.tolerance,
            "worse": self.worse(),
            "missing": self.missing[0],
            "added": self.missing[1],
            "differences": self.differences,
            "environment": Environment::of(Path::new(".")).json(),
            "rows": rows_json(&self.rows),
        })
    }
}

/// # Errors
///
/// [`Error::Usage`] if no row is decided.
pub(crate) fn undecided(rows: &[Row]) -> Result<(), Error> {
    if rows.iter().all(|row| row.verdict == Verdict::Undecided) {
        let text = "nothing can be decided: the values are too few, or vary by more than the tolerance; run for longer, or with more rounds or pairs; `loadgen ab` alternates";
        return Err(Error::Usage(text.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::compare::samples::of_rounds;

    fn rounds(values: &[f64], less_is_better: bool) -> Samples {
        of_rounds("x".into(), less_is_better, false, values).unwrap()
    }

    #[test]
    fn difference_within_noise_or_tolerance_is_undecided() {
        let noisy = [90.0, 100.0, 110.0, 95.0, 105.0, 100.0, 98.0];
        let verdict = |other: &[f64], less| {
            row(&rounds(&noisy, less), &rounds(other, less), 0.05, 1, 0.0).verdict
        };
        let times = |by: f64| noisy.map(|v| v * by);
        // Values with this much noise decide nothing within 5 %.
        assert_eq!(verdict(&times(0.97), false), Verdict::Undecided);
        assert_eq!(verdict(&times(0.6), false), Verdict::Worse);
        assert_eq!(verdict(&times(1.6), false), Verdict::Better);
        assert_eq!(verdict(&times(1.6), true), Verdict::Worse);
        assert_eq!(verdict(&[1.0, 1.0, 1.0], false), Verdict::Undecided);
        assert_eq!(verdict(&[10.0, 20.0, 90.0, 100.0, 500.0], false), Verdict::Undecided);
        let steady = rounds(&[100.0, 100.5, 99.5, 100.2], false);
        assert_eq!(row(&steady, &steady, 0.05, 1, 0.0).verdict, Verdict::Same);
        // A slower machine makes the row undecided, because the log alone cannot show the cause.
        let slower = rounds(&[80.0, 80.5, 79.5, 80.2], false);
        assert_eq!(row(&steady, &slower, 0.05, 1, 0.0).verdict, Verdict::Worse);
        assert_eq!(row(&steady, &slower, 0.05, 1, 0.3).verdict, Verdict::Undecided);
    }
}
