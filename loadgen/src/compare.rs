//! Two measurements, row by row: by how much they differ, and whether that is more than chance.
//!
//! 1. Rows are those of two suites (`bench --json`), with a value for each round; or of two runs (`--json`), with a value for each
//!    quarter of a second.
//! 2. The ratio is of the medians, turned so that more is better. Its interval is where 95 % of the ratios lie
//!    of samples drawn anew from both with replacement, always the same draws.
//! 3. A row is worse if the whole interval lies below the tolerance. Fewer than four values decide nothing.
//! 4. What is not there is not the same: rows that one file lacks are named, and those that the second lacks are a failure,
//!    as is a comparison that decides nothing at all. In what the two were run otherwise is said.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::Error;
use crate::payload::SplitMix;

/// Draws for an interval.
const DRAWS: usize = 4000;
const ENOUGH: usize = 4;

/// What a row came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The interval lies above.
    Better,
    /// The interval lies below.
    Worse,
    /// Neither.
    Same,
    /// Too few values.
    Undecided,
}

/// One row.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its workload and name.
    pub name: String,
    /// Median of the first and of the second.
    pub medians: [f64; 2],
    /// Second by first, turned so that above 1 is better, and the interval of that.
    pub ratio: [f64; 3],
    /// Values on both sides.
    pub values: [usize; 2],
    /// What it means.
    pub verdict: Verdict,
}

/// A finished comparison.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// In the order of the first.
    pub rows: Vec<Row>,
    /// What may be lost, as a share.
    pub tolerance: f64,
    /// Both are single runs: what the machine did in the one and not in the other is not told apart.
    pub single_runs: bool,
    /// Rows of the first that the second has not, and the other way round.
    pub missing: [Vec<String>; 2],
    /// In what the two were asked for otherwise, or ran elsewhere.
    pub differences: Vec<String>,
}

/// The most that is read of a file.
const LARGEST: u64 = 256 << 20;

/// What makes two measurements something else, by its place in the JSON.
const SETTINGS: [&str; 18] = [
    "/mode",
    "/rate",
    "/arrivals",
    "/durability",
    "/threads",
    "/tasks",
    "/size",
    "/input",
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
];

struct Samples {
    name: String,
    less_is_better: bool,
    of_one_run: bool,
    values: Vec<f64>,
}

/// Compares two files.
///
/// # Errors
///
/// [`Error::Measurement`] for a file that is no measurement, or two that have nothing in common.
pub fn compare(first: &Path, second: &Path, tolerance: f64) -> Result<Comparison, Error> {
    let (first_json, second_json) = (read(first)?, read(second)?);
    let (before, after) = (samples(first, &first_json)?, samples(second, &second_json)?);
    let rows: Vec<Row> = before
        .iter()
        .filter_map(|a| Some((a, after.iter().find(|b| b.name == a.name)?)))
        .map(|(a, b)| row(a, b, tolerance))
        .collect();
    if rows.is_empty() {
        let why = format!("it has no row in common with {}", first.display());
        return Err(Error::measurement(second, why));
    }
    let single_runs = before.iter().chain(&after).all(|samples| samples.of_one_run);
    let lacks = |some: &[Samples], others: &[Samples]| {
        let missing = some.iter().filter(|a| !others.iter().any(|b| b.name == a.name));
        missing.map(|samples| samples.name.clone()).collect()
    };
    let missing = [lacks(&before, &after), lacks(&after, &before)];
    let differences = differences(&first_json, &second_json);
    Ok(Comparison { rows, tolerance, single_runs, missing, differences })
}

fn differences(first: &Value, second: &Value) -> Vec<String> {
    let of = |value: &Value, at: &str| value.pointer(at).cloned().unwrap_or(Value::Null);
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

fn read(path: &Path) -> Result<Value, Error> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|f| f.take(LARGEST + 1).read_to_end(&mut bytes));
    read.map_err(|e| Error::measurement(path, e))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::measurement(path, "it is too large; give what --json has written"));
    }
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::measurement(path, format!("{e}; give what --json has written")))
}

fn samples(path: &Path, value: &Value) -> Result<Vec<Samples>, Error> {
    let samples = match value {
        _ if value["rows"].is_array() => suite(value),
        _ if value["cells"].is_array() => device(value),
        _ => run(value),
    };
    if samples.is_empty() {
        let why = match value["steps"].is_array() {
            true => {
                "it is of a sweep, which has one knee and no rounds; compare runs at one --rate"
            }
            false => {
                "there are no measured values in it; give what --json of a run, of bench or of device has written"
            }
        };
        return Err(Error::measurement(path, why));
    }
    Ok(samples)
}

/// The raw device: a row for each method and shape, a value for each round.
fn device(value: &Value) -> Vec<Samples> {
    let cells = value["cells"].as_array().map_or(&[][..], Vec::as_slice);
    let of = |cell: &Value| {
        let values: Vec<f64> =
            cell["samples"].as_array()?.iter().filter_map(Value::as_f64).collect();
        let number = |key: &str| cell[key].as_u64().unwrap_or(0);
        let method = cell["method"].as_str().unwrap_or_default();
        let name = format!("{method}, {} B, {} in flight", number("bytes"), number("depth"));
        let some = !values.is_empty();
        some.then_some(Samples { name, less_is_better: false, of_one_run: false, values })
    };
    cells.iter().filter_map(of).collect()
}

fn suite(value: &Value) -> Vec<Samples> {
    let rows = value["rows"].as_array().map_or(&[][..], Vec::as_slice);
    let of = |row: &Value| {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let values = row["samples"].as_array()?.iter().filter_map(|s| s["value"].as_f64());
        let values: Vec<f64> = values.collect();
        let name = format!("{}  {}", text("workload"), text("name"));
        (!values.is_empty()).then_some(Samples {
            name,
            less_is_better: text("unit") == "ns",
            of_one_run: false,
            values,
        })
    };
    rows.iter().filter_map(of).collect()
}

fn run(value: &Value) -> Vec<Samples> {
    let points = value["series"].as_array().map_or(&[][..], Vec::as_slice);
    let column = |name: &str, key: &str, less_is_better| {
        let values: Vec<f64> = points.iter().filter_map(|point| point[key].as_f64()).collect();
        let some = values.iter().any(|v| *v > 0.0);
        some.then_some(Samples { name: name.into(), less_is_better, of_one_run: true, values })
    };
    [
        column("records a second", "records_per_s", false),
        column("commit p50", "commit_p50_ns", true),
        column("commit p99", "commit_p99_ns", true),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn row(a: &Samples, b: &Samples, tolerance: f64) -> Row {
    let oriented = |before: f64, after: f64| {
        let ratio = if a.less_is_better { before / after } else { after / before };
        if ratio.is_finite() { ratio } else { 1.0 }
    };
    let medians = [median(&mut a.values.clone()), median(&mut b.values.clone())];
    let mut random = SplitMix(0x636f_6d70);
    let mut drawn = |of: &[f64]| {
        let mut values: Vec<f64> =
            (0..of.len()).map(|_| of[(random.next() % of.len() as u64) as usize]).collect();
        median(&mut values)
    };
    let mut ratios: Vec<f64> =
        (0..DRAWS).map(|_| oriented(drawn(&a.values), drawn(&b.values))).collect();
    ratios.sort_by(f64::total_cmp);
    let ratio = [oriented(medians[0], medians[1]), ratios[DRAWS / 40], ratios[DRAWS - DRAWS / 40]];
    let verdict = if a.values.len().min(b.values.len()) < ENOUGH {
        Verdict::Undecided
    } else if ratio[2] < 1.0 - tolerance {
        Verdict::Worse
    } else if ratio[1] > 1.0 + tolerance {
        Verdict::Better
    } else {
        Verdict::Same
    };
    let values = [a.values.len(), b.values.len()];
    Row { name: a.name.clone(), medians, ratio, values, verdict }
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "WORSE",
            Verdict::Same => "",
            Verdict::Undecided => "too few values",
        }
    }
}

impl Comparison {
    /// Rows that are worse.
    #[must_use]
    pub fn worse(&self) -> usize {
        self.rows.iter().filter(|row| row.verdict == Verdict::Worse).count()
    }

    /// What a gate is to make of it; `common`: only of the rows that both have.
    ///
    /// # Errors
    ///
    /// [`Error::Worse`] for rows that are worse, or missing in the second; [`Error::Usage`] if no row could be decided.
    pub fn verdict(&self, common: bool) -> Result<(), Error> {
        let missing = if common { 0 } else { self.missing[0].len() };
        if self.worse() + missing > 0 {
            return Err(Error::Worse { worse: self.worse(), missing });
        }
        if self.rows.iter().all(|row| row.verdict == Verdict::Undecided) {
            let text = format!(
                "nothing can be decided: {ENOUGH} values of a row are the least; run bench with --rounds 5, or longer"
            );
            return Err(Error::Usage(text));
        }
        Ok(())
    }

    /// For people, ended by a newline.
    #[must_use]
    pub fn table(&self) -> String {
        let percent = self.tolerance * 100.0;
        let mut out = format!(
            "second by first, more is better, with the interval of 95 %; worse or better by more than {percent:.0} %\n\n"
        );
        let names = self.rows.iter().map(|row| &row.name).chain(self.missing.iter().flatten());
        let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
        for row in &self.rows {
            let [ratio, low, high] = row.ratio;
            let line = format!(
                "{:<width$}  {ratio:5.2}  ({low:.2} - {high:.2})  {}",
                row.name,
                row.verdict.name()
            );
            let _ = writeln!(out, "{}", line.trim_end());
        }
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
                "\nOne run each: a machine that was slower in one of them looks the same. `bench --rounds` interleaves."
            );
        }
        out
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "name": row.name,
                "first": row.medians[0],
                "second": row.medians[1],
                "ratio": row.ratio[0],
                "interval": [row.ratio[1], row.ratio[2]],
                "values": row.values,
                "verdict": match row.verdict {
                    Verdict::Better => "better",
                    Verdict::Worse => "worse",
                    Verdict::Same => "same",
                    Verdict::Undecided => "undecided",
                },
            })
        });
        json!({
            "schema": "ringwal-loadgen/compare/1",
            "tolerance": self.tolerance,
            "worse": self.worse(),
            "missing": self.missing[0],
            "added": self.missing[1],
            "differences": self.differences,
            "rows": rows.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64], less_is_better: bool) -> Samples {
        Samples { name: "x".into(), less_is_better, of_one_run: false, values: values.to_vec() }
    }

    #[test]
    fn a_difference_counts_only_beyond_the_noise_and_the_tolerance() {
        let noisy = [90.0, 100.0, 110.0, 95.0, 105.0, 100.0, 98.0];
        let verdict =
            |other: &[f64], less| row(&samples(&noisy, less), &samples(other, less), 0.05).verdict;
        let times = |by: f64| noisy.map(|v| v * by);
        assert_eq!(verdict(&noisy, false), Verdict::Same);
        assert_eq!(verdict(&times(0.97), false), Verdict::Same);
        assert_eq!(verdict(&times(0.6), false), Verdict::Worse);
        assert_eq!(verdict(&times(1.6), false), Verdict::Better);
        assert_eq!(verdict(&times(1.6), true), Verdict::Worse);
        assert_eq!(verdict(&[1.0, 1.0, 1.0], false), Verdict::Undecided);
        // The same median, and so uneven that nothing is known.
        assert_eq!(verdict(&[10.0, 20.0, 90.0, 100.0, 500.0], false), Verdict::Same);
    }
}
