//! Two measurements, row by row: by how much they differ, and whether that is more than chance.
//!
//! 1. Rows are those of two suites (`bench --json`) or devices, with a value for each round; or the headline figures of
//!    two runs (`--json`): rate and latencies. How far those of a run are known is seen from its intervals.
//! 2. What the machine did in one run and not in the other is no difference of the logs: a run's figures are taken to
//!    vary by a few percent from run to run, and by as much as the raw devices that were measured beside them differ.
//! 3. A row is worse if its whole interval lies below the tolerance, the same if it lies within it, and undecided
//!    otherwise. See [`crate::measure::statistics`].
//! 4. Only whole and sound measurements are compared: of a known schema, not interrupted, with a log that passed its
//!    verification.
//! 5. What is not there is not the same: rows that one file lacks are named, and those that the second lacks are a failure,
//!    as is a comparison that decides nothing at all. In what the two were run otherwise is said.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::Error;
use crate::measure::environment::Environment;
use crate::measure::statistics::{self, ENOUGH, Estimate, Verdict};

/// One row.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its workload and name.
    pub name: String,
    /// Of the first and of the second.
    pub figures: [f64; 2],
    /// Second by first, turned so that above 1 is better, and the interval of that.
    pub ratio: [f64; 3],
    /// Values, or blocks of them, on both sides.
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
const SETTINGS: [&str; 20] = [
    "/mode",
    "/rate",
    "/arrivals",
    "/durability",
    "/threads",
    "/tasks",
    "/size",
    "/input",
    "/sample",
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

/// A figure of a run: its name, its place in the report and in a point of the series, whether less is better, and the
/// standard deviation of its logarithm from run to run on a quiet machine.
struct Headline {
    name: &'static str,
    figure: &'static str,
    point: &'static str,
    less_is_better: bool,
    from_run_to_run: f64,
}

const fn latency(
    name: &'static str,
    figure: &'static str,
    point: &'static str,
    from_run_to_run: f64,
) -> Headline {
    Headline { name, figure, point, less_is_better: true, from_run_to_run }
}

const HEADLINES: [Headline; 5] = [
    Headline {
        name: "records a second",
        figure: "/records_per_s",
        point: "records_per_s",
        less_is_better: false,
        from_run_to_run: 0.03,
    },
    latency("p50", "/latency_us/p50", "latency_p50_ns", 0.04),
    latency("p99", "/latency_us/p99", "latency_p99_ns", 0.08),
    latency("p99.9", "/latency_us/p99_9", "latency_p99_9_ns", 0.15),
    latency("max", "/latency_us/max", "latency_max_ns", 0.4),
];

struct Samples {
    name: String,
    less_is_better: bool,
    /// What is shown.
    figure: f64,
    estimate: Option<Estimate>,
    /// Rows of one kind are judged together.
    latency: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Run,
    Bench,
    Device,
}

/// Compares two files.
///
/// # Errors
///
/// [`Error::Measurement`] for a file that is no measurement, or none to conclude from, or two that have nothing in
/// common.
pub fn compare(first: &Path, second: &Path, tolerance: f64) -> Result<Comparison, Error> {
    let (first_json, second_json) = (read(first)?, read(second)?);
    let kinds = [kind(first, &first_json)?, kind(second, &second_json)?];
    if kinds[0] != kinds[1] {
        let why = format!("it is of another command than {}", first.display());
        return Err(Error::measurement(second, why));
    }
    let (before, after) =
        (samples(first, kinds[0], &first_json)?, samples(second, kinds[1], &second_json)?);
    // What the disk did otherwise when nothing but it was measured.
    let machine = match kinds[0] {
        Kind::Run => raw_ratio(&first_json, &second_json).unwrap_or(0.0),
        _ => 0.0,
    };
    let pairs: Vec<(&Samples, &Samples)> =
        before.iter().filter_map(|a| Some((a, after.iter().find(|b| b.name == a.name)?))).collect();
    if pairs.is_empty() {
        let why = format!("it has no row in common with {}", first.display());
        return Err(Error::measurement(second, why));
    }
    let identical = first_json == second_json;
    let rows = |latency| 2 * pairs.iter().filter(|(a, _)| a.latency == latency).count();
    let counts = [rows(false), rows(true)];
    // A run's rows are few, and judged together.
    let count = |latency: bool| match kinds[0] {
        Kind::Run => pairs.len(),
        _ => counts[usize::from(latency)],
    };
    let rows = pairs.iter().map(|(a, b)| {
        if identical { same(a) } else { row(a, b, tolerance, count(a.latency), machine) }
    });
    let rows = rows.collect();
    let lacks = |some: &[Samples], others: &[Samples]| {
        let missing = some.iter().filter(|a| !others.iter().any(|b| b.name == a.name));
        missing.map(|samples| samples.name.clone()).collect()
    };
    let missing = [lacks(&before, &after), lacks(&after, &before)];
    let differences = differences(&first_json, &second_json);
    let single_runs = kinds[0] == Kind::Run;
    Ok(Comparison { rows, tolerance, single_runs, missing, differences })
}

fn differences(first: &Value, second: &Value) -> Vec<String> {
    let of = |value: &Value, at: &str| match value.pointer(at).cloned().unwrap_or(Value::Null) {
        // What was measured when it was chosen is no difference in what was chosen.
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

/// Which command wrote it, if it can be concluded from.
fn kind(path: &Path, value: &Value) -> Result<Kind, Error> {
    let refused = |why: String| Err(Error::measurement(path, why));
    let schema = value["schema"].as_str().unwrap_or_default();
    let kind = match schema {
        "ringwal-loadgen/run/1" => Kind::Run,
        "ringwal-loadgen/bench/1" => Kind::Bench,
        "ringwal-loadgen/device/1" => Kind::Device,
        _ if schema.starts_with("ringwal-loadgen/sweep/") || value["steps"].is_array() => {
            let why =
                "it is of a sweep, which has one knee and no rounds; compare runs at one --rate";
            return refused(why.into());
        }
        "" => {
            let why = "it has no schema, and there are no measured values in it; give what --json of a run, of bench or of device has written";
            return refused(why.into());
        }
        other => {
            return refused(format!(
                "its schema {other:?} is none that this loadgen compares; give what --json of a run, of bench or of device has written"
            ));
        }
    };
    if value["verified"] == false {
        return refused("its log failed the verification, so that its figures mean nothing".into());
    }
    match value["ended_by"].as_str() {
        None | Some("its disk budget") => Ok(kind),
        Some(why) => refused(format!("{why} ended it: it concludes nothing; measure again")),
    }
}

fn samples(path: &Path, kind: Kind, value: &Value) -> Result<Vec<Samples>, Error> {
    let samples = match kind {
        Kind::Bench => suite(value),
        Kind::Device => device(value),
        Kind::Run => run(value),
    };
    if samples.is_empty() {
        let why = "there are no measured values in it; give what --json of a run, of bench or of device has written";
        return Err(Error::measurement(path, why));
    }
    Ok(samples)
}

fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// A row of rounds; `None` without any.
fn of_rounds(name: String, less_is_better: bool, latency: bool, values: &[f64]) -> Option<Samples> {
    let estimate = statistics::independent(values).filter(|e| e.values >= ENOUGH);
    let figure = middle(values);
    (!values.is_empty()).then_some(Samples { name, less_is_better, figure, estimate, latency })
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
        of_rounds(name, false, false, &values)
    };
    cells.iter().filter_map(of).collect()
}

fn suite(value: &Value) -> Vec<Samples> {
    let rows = value["rows"].as_array().map_or(&[][..], Vec::as_slice);
    let of = |row: &Value| {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let name = format!("{}  {}", text("workload"), text("name"));
        let less = text("unit") == "ns";
        let column = |key: &str| -> Vec<f64> {
            let samples = row["samples"].as_array().map_or(&[][..], Vec::as_slice);
            samples.iter().filter_map(|sample| sample[key].as_f64()).collect()
        };
        let mut all = vec![of_rounds(name.clone(), less, false, &column("value"))];
        // Where the value is a latency itself, the others say nothing new.
        if !less {
            for (key, short) in [("p50_ns", "p50"), ("p99_ns", "p99"), ("p99_9_ns", "p99.9")] {
                all.push(of_rounds(format!("{name}, {short}"), true, true, &column(key)));
            }
        }
        all.into_iter().flatten().collect::<Vec<_>>()
    };
    rows.iter().flat_map(of).collect()
}

fn run(value: &Value) -> Vec<Samples> {
    HEADLINES.iter().filter_map(|headline| figure(value, headline)).collect()
}

fn figure(value: &Value, headline: &Headline) -> Option<Samples> {
    let points = value["series"].as_array().map_or(&[][..], Vec::as_slice);
    let values: Vec<f64> =
        points.iter().filter_map(|point| point[headline.point].as_f64()).collect();
    let told = value.pointer(headline.figure).and_then(Value::as_f64);
    let series = told.is_none().then(|| values.iter().sum::<f64>() / values.len().max(1) as f64);
    let figure = told.or(series).filter(|figure| *figure > 0.0)?;
    let estimate = match statistics::series(&values) {
        Some(series) => Some(of_run(figure, &series, &values, headline)),
        // A figure without its intervals is known from run to run at best.
        None if values.is_empty() || headline.figure != "/records_per_s" => Some(Estimate {
            mean: figure.ln(),
            variance: (3.0 * headline.from_run_to_run).powi(2),
            freedom: FREEDOM,
            values: values.len(),
        }),
        None => None,
    };
    let (name, less_is_better) = (headline.name.to_owned(), headline.less_is_better);
    let latency = headline.point.starts_with("latency");
    Some(Samples { name, less_is_better, figure, estimate, latency })
}

/// Of what was assumed from run to run, as if it were from so many runs and one.
const FREEDOM: f64 = 8.0;

/// How far a figure of a whole run is known: its intervals vary, and so do runs. A figure that few intervals decide, as
/// a stall does that of a high percentile, is known the less, the further it lies from the others.
fn of_run(figure: f64, series: &Estimate, values: &[f64], headline: &Headline) -> Estimate {
    let within = if headline.point == "latency_max_ns" {
        // The greatest of all varies as that of a part does.
        series.variance * series.values as f64
    } else {
        series.variance
    };
    let most = values.iter().copied().fold(0.0, f64::max);
    let scale = if headline.less_is_better { 1000.0 } else { 1.0 };
    // One beyond all of its intervals is not theirs: then they say nothing about it.
    let apart =
        if figure * scale > 1.02 * most { 0.0 } else { (figure * scale).ln() - series.mean };
    let rare = if headline.less_is_better { (apart.max(0.0) / 2.0).powi(2) } else { 0.0 };
    let from_run_to_run = headline.from_run_to_run.powi(2);
    let variance = within + rare + from_run_to_run;
    let freedom = variance.powi(2)
        / (within.powi(2) / series.freedom + (rare + from_run_to_run).powi(2) / FREEDOM);
    Estimate { mean: figure.ln(), variance, freedom, values: series.values }
}

/// By how much the raw devices differ that were measured beside two runs, as a logarithm; `None` without them.
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

/// `machine`: the logarithm by which the machines differed; that much is no difference of the logs.
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

/// The lines of rows, for people.
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

/// Rows, for programs. An interval without bounds has none in JSON.
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
        undecided(&self.rows)
    }

    /// For people, ended by a newline.
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

    /// For programs.
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
/// [`Error::Usage`] if no row could be decided.
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

    fn rounds(values: &[f64], less_is_better: bool) -> Samples {
        of_rounds("x".into(), less_is_better, false, values).unwrap()
    }

    #[test]
    fn a_difference_counts_only_beyond_the_noise_and_the_tolerance() {
        let noisy = [90.0, 100.0, 110.0, 95.0, 105.0, 100.0, 98.0];
        let verdict = |other: &[f64], less| {
            row(&rounds(&noisy, less), &rounds(other, less), 0.05, 1, 0.0).verdict
        };
        let times = |by: f64| noisy.map(|v| v * by);
        // Of values that vary by so much, nothing is known within 5 %.
        assert_eq!(verdict(&times(0.97), false), Verdict::Undecided);
        assert_eq!(verdict(&times(0.6), false), Verdict::Worse);
        assert_eq!(verdict(&times(1.6), false), Verdict::Better);
        assert_eq!(verdict(&times(1.6), true), Verdict::Worse);
        assert_eq!(verdict(&[1.0, 1.0, 1.0], false), Verdict::Undecided);
        assert_eq!(verdict(&[10.0, 20.0, 90.0, 100.0, 500.0], false), Verdict::Undecided);
        let steady = rounds(&[100.0, 100.5, 99.5, 100.2], false);
        assert_eq!(row(&steady, &steady, 0.05, 1, 0.0).verdict, Verdict::Same);
        // Unless the machine was another, which nobody can tell from the log.
        let slower = rounds(&[80.0, 80.5, 79.5, 80.2], false);
        assert_eq!(row(&steady, &slower, 0.05, 1, 0.0).verdict, Verdict::Worse);
        assert_eq!(row(&steady, &slower, 0.05, 1, 0.3).verdict, Verdict::Undecided);
    }
}
