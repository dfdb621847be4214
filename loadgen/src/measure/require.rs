//! Requirements on a measurement: `--require p99<10ms,rate>50k`, for the gate of a CI or the
//! purchase of a disk.
//!
//! 1. A requirement without a figure is not met: a missing figure never opens a gate.
//! 2. An interrupted measurement is not judged.

use std::fmt;

use serde_json::{Value, json};

use crate::error::Error;
use crate::measure::latency::Latencies;
use crate::units::{bytes, nanos, parse_bytes, parse_duration, parse_number, si};

/// A figure that `--require` accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Metric {
    /// Records, or commits, per second.
    Rate,
    /// Bytes of payloads, or durable bytes, per second.
    Bandwidth,
    /// The latency in nanoseconds at this quantile.
    Quantile(f64),
    /// The maximum latency in nanoseconds.
    Max,
    /// The mean latency in nanoseconds.
    Mean,
    /// Share of the raw device's bandwidth.
    Eta,
    /// Records that arrived and were not appended in time.
    Overdue,
    /// Processor time per record in nanoseconds.
    Cpu,
    /// Peak resident bytes.
    Memory,
    /// The highest rate of a sweep that holds.
    Knee,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// One requirement.
#[derive(Debug, Clone, PartialEq)]
pub struct Requirement {
    text: String,
    metric: Metric,
    op: Op,
    bound: f64,
}

/// All requirements of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Requirements(Vec<Requirement>);

/// The result of one requirement.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// The text of the requirement.
    pub requirement: String,
    metric: Metric,
    /// The measured value: a rate, bytes, or nanoseconds.
    pub value: Option<f64>,
    /// True if the requirement is met.
    pub met: bool,
}

const NAMES: &str =
    "rate, bandwidth, p50, p90, p99, p99.9, p99.99, max, mean, eta, overdue, cpu, memory, knee";

/// Parses a list: `p99<10ms,rate>=50k`.
///
/// # Errors
///
/// A description of the error.
pub fn parse_requirements(text: &str) -> Result<Requirements, String> {
    text.split(',').map(parse_one).collect::<Result<_, _>>().map(Requirements)
}

fn parse_one(text: &str) -> Result<Requirement, String> {
    let text = text.trim();
    let at = text.find(['<', '>']).ok_or_else(|| {
        format!("{text:?} requires nothing; write a figure, < or >, and a bound: p99<10ms")
    })?;
    let (name, rest) = (text[..at].trim(), &text[at..]);
    let (op, bound) = match rest.as_bytes() {
        [b'<', b'=', ..] => (Op::AtMost, &rest[2..]),
        [b'>', b'=', ..] => (Op::AtLeast, &rest[2..]),
        [b'<', ..] => (Op::Below, &rest[1..]),
        _ => (Op::Above, &rest[1..]),
    };
    let metric = metric(name).ok_or_else(|| format!("{name:?} is none of {NAMES}"))?;
    let bound = bound.trim();
    let bound = match metric {
        Metric::Quantile(_) | Metric::Max | Metric::Mean | Metric::Cpu => {
            parse_duration(bound)?.as_nanos() as f64
        }
        Metric::Bandwidth => parse_bytes(bound.strip_suffix("/s").unwrap_or(bound))? as f64,
        Metric::Memory => parse_bytes(bound)? as f64,
        Metric::Rate | Metric::Knee => parse_number(bound.strip_suffix("/s").unwrap_or(bound))?,
        Metric::Eta | Metric::Overdue => parse_number(bound)?,
    };
    Ok(Requirement { text: text.into(), metric, op, bound })
}

fn metric(name: &str) -> Option<Metric> {
    Some(match name {
        "rate" => Metric::Rate,
        "bandwidth" => Metric::Bandwidth,
        "max" => Metric::Max,
        "mean" => Metric::Mean,
        "eta" => Metric::Eta,
        "overdue" => Metric::Overdue,
        "cpu" => Metric::Cpu,
        "memory" => Metric::Memory,
        "knee" => Metric::Knee,
        _ => {
            let percent: f64 = name.strip_prefix('p')?.replace('_', ".").parse().ok()?;
            let known = percent > 0.0 && percent < 100.0;
            return known.then_some(Metric::Quantile(percent / 100.0));
        }
    })
}

impl fmt::Display for Requirements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.0.iter().map(|one| &one.text[..]).collect();
        f.write_str(&texts.join(","))
    }
}

impl Requirement {
    fn holds(&self, value: f64) -> bool {
        match self.op {
            Op::Below => value < self.bound,
            Op::AtMost => value <= self.bound,
            Op::Above => value > self.bound,
            Op::AtLeast => value >= self.bound,
        }
    }
}

impl Requirements {
    /// Checks all requirements. `figure` looks up a value.
    #[must_use]
    pub fn check(&self, figure: impl Fn(Metric) -> Option<f64>) -> Vec<Check> {
        let one = |one: &Requirement| {
            let value = figure(one.metric).filter(|value| value.is_finite());
            Check {
                requirement: one.text.clone(),
                metric: one.metric,
                value,
                met: value.is_some_and(|value| one.holds(value)),
            }
        };
        self.0.iter().map(one).collect()
    }

    /// True if latencies already exceed a requirement for good: ten lie beyond its percentile.
    #[must_use]
    pub fn are_out_of_reach(&self, latencies: &Latencies) -> bool {
        self.0.iter().any(|one| {
            let short = matches!(one.op, Op::Below | Op::AtMost);
            let enough = match one.metric {
                Metric::Quantile(quantile) => 10.0 / (1.0 - quantile).max(1e-9),
                Metric::Max => 1.0,
                _ => return false,
            };
            short
                && latencies.count() as f64 >= enough
                && !latency(latencies, one.metric).is_some_and(|value| one.holds(value))
        })
    }
}

/// Returns a latency figure, if any latency was counted.
#[must_use]
pub fn latency(latencies: &Latencies, metric: Metric) -> Option<f64> {
    let found = match metric {
        Metric::Quantile(quantile) => latencies.quantile_ns(quantile) as f64,
        Metric::Max => latencies.max_ns() as f64,
        Metric::Mean => latencies.mean_ns(),
        _ => return None,
    };
    (latencies.count() > 0).then_some(found)
}

impl Check {
    /// Returns a line for the table: `p99<10ms: 12.3 ms, FAIL`.
    #[must_use]
    pub fn line(&self) -> String {
        let value = match (self.value, self.metric) {
            (None, _) => "not measured".into(),
            (Some(value), Metric::Rate | Metric::Knee) => format!("{}/s", si(value)),
            (Some(value), Metric::Bandwidth) => format!("{}/s", bytes(value)),
            (Some(value), Metric::Memory) => bytes(value),
            (Some(value), Metric::Eta) => format!("{value:.2}"),
            (Some(value), Metric::Overdue) => format!("{value}"),
            (Some(value), _) => nanos(value as u64),
        };
        format!("{}: {value}, {}", self.requirement, if self.met { "PASS" } else { "FAIL" })
    }

    /// Returns the JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({ "requirement": self.requirement, "value": self.value, "met": self.met })
    }
}

/// Returns the JSON array.
#[must_use]
pub fn to_json(checks: &[Check]) -> Value {
    checks.iter().map(Check::json).collect()
}

/// Returns the lines of a report. Empty without requirements.
#[must_use]
pub fn table(checks: &[Check]) -> String {
    checks.iter().map(|check| format!("  required        {}\n", check.line())).collect()
}

/// Checks that every requirement is met.
///
/// # Errors
///
/// [`Error::Required`] with the requirements that are not met.
pub fn verdict(checks: &[Check]) -> Result<(), Error> {
    let failed: Vec<String> = checks.iter().filter(|c| !c.met).map(Check::line).collect();
    if failed.is_empty() { Ok(()) } else { Err(Error::Required(failed.join("; "))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn met(text: &str, value: f64) -> bool {
        parse_requirements(text).unwrap().check(|_| Some(value)).iter().all(|check| check.met)
    }

    #[test]
    fn bound_is_in_the_unit_of_its_figure() {
        for (text, met_by, not_by) in [
            ("p99<10ms", 9.9e6, 10e6),
            ("p99.9<=10ms", 10e6, 10.1e6),
            ("p50 < 80us", 79e3, 80e3),
            ("max<1s", 9e8, 1e9),
            ("rate>50k", 50_001.0, 50_000.0),
            ("rate>=1.5m/s", 1.5e6, 1.4e6),
            ("bandwidth>100MiB/s", 105e6, 104e6),
            ("memory<64m", 6e7, 7e7),
            ("eta>0.9", 0.91, 0.9),
            ("overdue<=0", 0.0, 1.0),
            ("cpu<2us", 1999.0, 2000.0),
            ("knee>=20k", 20_000.0, 19_999.0),
        ] {
            assert!(met(text, met_by) && !met(text, not_by), "{text}");
        }
        assert!(!met("p99<10ms,p99<1ms", 5e6), "one of two is not enough");
        assert!(!met("p99<10ms", f64::NAN));
        let checks = parse_requirements("eta>0.5").unwrap().check(|_| None);
        assert!(!checks[0].met && checks[0].line().contains("not measured"));
        assert_eq!(verdict(&checks).unwrap_err().exit_status(), 99);
    }

    #[test]
    fn invalid_requirement_is_rejected() {
        for bad in [
            "",
            "p99",
            "p99=10ms",
            "p99<",
            "<10ms",
            "p99<10",
            "p0<1ms",
            "p100<1ms",
            "pp<1ms",
            "speed>1",
            "rate>fast",
            "p99<10ms,",
            "rate>10ms",
            "p99<-1ms",
            "eta>",
        ] {
            // A duration without a unit is in seconds.
            let fine = bad == "p99<10";
            assert_eq!(parse_requirements(bad).is_ok(), fine, "{bad}");
        }
    }

    #[test]
    fn abort_needs_ten_latencies_beyond_the_percentile() {
        let requirements = parse_requirements("p99<1ms").unwrap();
        let mut latencies = Latencies::new();
        (0..999).for_each(|_| latencies.record(Duration::from_millis(2)));
        assert!(!requirements.are_out_of_reach(&latencies));
        latencies.record(Duration::from_millis(2));
        assert!(requirements.are_out_of_reach(&latencies));
        let max = parse_requirements("max<1ms,rate>5").unwrap();
        assert!(max.are_out_of_reach(&latencies) && !max.are_out_of_reach(&Latencies::new()));
    }
}
