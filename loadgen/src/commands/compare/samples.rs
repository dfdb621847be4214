//! The rows of one measurement, read from the file that `--json` wrote.

use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use crate::error::Error;
use crate::measure::statistics::{self, ENOUGH, Estimate};

/// Bytes that are read of a file at most.
const LARGEST: u64 = 256 << 20;

/// A figure of a run: its name, and its places in the report and in a point of the series.
/// `from_run_to_run` is the standard deviation of its logarithm between runs on a quiet machine.
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

pub(super) struct Samples {
    pub(super) name: String,
    pub(super) less_is_better: bool,
    /// The figure in the table.
    pub(super) figure: f64,
    pub(super) estimate: Option<Estimate>,
    /// True for latencies. Rows of one kind are judged together.
    pub(super) latency: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Run,
    Bench,
    Device,
}

pub(super) fn read(path: &Path) -> Result<Value, Error> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|f| f.take(LARGEST + 1).read_to_end(&mut bytes));
    read.map_err(|e| Error::measurement(path, e))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::measurement(path, "it is too large; give what --json has written"));
    }
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::measurement(path, format!("{e}; give what --json has written")))
}

/// Returns the command that wrote the file. Rejects a file that supports no conclusion.
pub(super) fn kind(path: &Path, value: &Value) -> Result<Kind, Error> {
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

pub(super) fn samples(path: &Path, kind: Kind, value: &Value) -> Result<Vec<Samples>, Error> {
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

/// Creates a row from the values of rounds; `None` without any.
pub(super) fn of_rounds(
    name: String,
    less_is_better: bool,
    latency: bool,
    values: &[f64],
) -> Option<Samples> {
    let estimate = statistics::independent(values).filter(|e| e.values >= ENOUGH);
    let figure = middle(values);
    (!values.is_empty()).then_some(Samples { name, less_is_better, figure, estimate, latency })
}

/// Reads the raw device: a row for each method and shape, a value for each round.
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
        let mut name = format!("{}  {}", text("workload"), text("name"));
        if let Some(directory) = row["directory"].as_str() {
            name += &format!(" in {directory}");
        }
        let less = text("unit") == "ns";
        let column = |key: &str| -> Vec<f64> {
            let samples = row["samples"].as_array().map_or(&[][..], Vec::as_slice);
            samples.iter().filter_map(|sample| sample[key].as_f64()).collect()
        };
        let mut all = vec![of_rounds(name.clone(), less, false, &column("value"))];
        // If the value itself is a latency, the other columns add nothing.
        if !less {
            for (key, short) in [("p50_ns", "p50"), ("p99_ns", "p99"), ("p99_9_ns", "p99.9")] {
                all.push(of_rounds(format!("{name}, {short}"), true, true, &column(key)));
            }
        }
        all.into_iter().flatten().collect::<Vec<_>>()
    };
    rows.iter().flat_map(of).collect()
}

/// Reads the headline figures of a run.
pub(super) fn run(value: &Value) -> Vec<Samples> {
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
        // Without intervals, only the variation between runs is known.
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

/// Degrees of freedom of the assumed variation between runs.
const FREEDOM: f64 = 8.0;

/// Estimates the uncertainty of a figure from its intervals and from the variation between runs. A
/// few intervals may decide a high percentile, for example a stall. Then the uncertainty rises with
/// the distance from the others.
fn of_run(figure: f64, series: &Estimate, values: &[f64], headline: &Headline) -> Estimate {
    let within = if headline.point == "latency_max_ns" {
        // The maximum of all intervals varies as that of one does.
        series.variance * series.values as f64
    } else {
        series.variance
    };
    let most = values.iter().copied().fold(0.0, f64::max);
    let scale = if headline.less_is_better { 1000.0 } else { 1.0 };
    // A figure beyond all of its intervals is not theirs, so they say nothing about it.
    let apart =
        if figure * scale > 1.02 * most { 0.0 } else { (figure * scale).ln() - series.mean };
    let rare = if headline.less_is_better { (apart.max(0.0) / 2.0).powi(2) } else { 0.0 };
    let from_run_to_run = headline.from_run_to_run.powi(2);
    let variance = within + rare + from_run_to_run;
    let freedom = variance.powi(2)
        / (within.powi(2) / series.freedom + (rare + from_run_to_run).powi(2) / FREEDOM);
    Estimate { mean: figure.ln(), variance, freedom, values: series.values }
}
