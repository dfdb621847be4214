//! The knee: the highest rate at which the 99.9th percentile stays under a bound.
//!
//! 1. Open loops at rising rates, each a run of its own with a warm-up; latencies count from when a record was to arrive.
//! 2. A rate holds if its percentile is under the bound and nearly all records were appended in their time. First the
//!    rate is quadrupled until one does not hold, then the gap is halved, by the ratio, a few times.
//! 3. A rate that does not hold is tried once more: one stall of the disk is not a knee.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use serde_json::{Value, json};

use crate::cli::{Args, SweepArgs};
use crate::directory::RunDir;
use crate::error::Error;
use crate::progress::{Part, Progress};
use crate::run;
use crate::stop::Stop;
use crate::units::{nanos, si};

/// One rate that was tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Records in a second that were to arrive.
    pub rate: f64,
    /// That were appended in their time.
    pub reached: f64,
    /// Median, 99th and 99.9th percentile, in nanoseconds.
    pub latencies: [u64; 3],
    /// Under the bound.
    pub holds: bool,
}

/// A finished sweep.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// In the order of the rates.
    pub steps: Vec<Step>,
    /// What the 99.9th percentile was to stay under.
    pub bound_ns: u64,
    /// The highest rate that held; `None` if none did.
    pub knee: Option<f64>,
    /// How the log made groups durable.
    pub commit_method: String,
}

/// Records that must have been appended in their time, as a share.
const ENOUGH: f64 = 0.98;
const LOWEST: f64 = 1000.0;
const HIGHEST: f64 = 1e9;

/// Runs the sweep. A signal ends it with what has been tried.
///
/// # Errors
///
/// Any, of any run.
pub fn run(args: &SweepArgs, stop: &Arc<Stop>) -> Result<Sweep, Error> {
    args.check()?;
    let dir = RunDir::own(args.dir.as_deref(), false, stop)?;
    let bound_ns = u64::try_from(args.bound.as_nanos()).unwrap_or(u64::MAX);
    let mut sweep = Sweep { steps: Vec::new(), bound_ns, knee: None, commit_method: String::new() };
    let mut progress = Progress::new(args.quiet);
    let mut holds = |sweep: &mut Sweep, rate: f64| -> Result<Option<bool>, Error> {
        for _ in 0..2 {
            if stop.was_signalled() {
                return Ok(None);
            }
            let what = format!("{} records/s, after {} rates", si(rate), sweep.steps.len());
            progress.step(&what, Part::Of(args.step_time * 5 / 4));
            let step = try_rate(args, stop, dir.path(), rate, bound_ns, sweep)?;
            if stop.was_signalled() {
                // Broken off: it says nothing about this rate.
                return Ok(None);
            }
            sweep.steps.retain(|other| other.rate != rate);
            sweep.steps.push(step);
            if step.holds {
                return Ok(Some(true));
            }
        }
        Ok(Some(false))
    };
    let (mut low, mut high, mut rate) = (None, None, LOWEST);
    while high.is_none() && rate <= HIGHEST {
        match holds(&mut sweep, rate)? {
            Some(true) => low = Some(rate),
            Some(false) => high = Some(rate),
            None => break,
        }
        rate *= 4.0;
    }
    if let (Some(mut held), Some(mut not)) = (low, high) {
        for _ in 0..args.precision {
            let middle = (held * not).sqrt();
            match holds(&mut sweep, middle)? {
                Some(true) => held = middle,
                Some(false) => not = middle,
                None => break,
            }
        }
        low = Some(held);
    }
    progress.clear();
    sweep.knee = low;
    sweep.steps.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    Ok(sweep)
}

fn try_rate(
    args: &SweepArgs,
    stop: &Arc<Stop>,
    dir: &Path,
    rate: f64,
    bound_ns: u64,
    sweep: &mut Sweep,
) -> Result<Step, Error> {
    let mut line = vec!["loadgen".to_owned(), "--quiet".into(), "--baseline".into(), "0".into()];
    let time = |d: Duration| format!("{}us", d.as_micros());
    line.extend(["--rate".into(), rate.to_string(), "--duration".into(), time(args.step_time)]);
    line.extend(["--warm-up".into(), time(args.step_time / 4)]);
    let mut run_args = Args::try_parse_from(line).map_err(|e| Error::Usage(e.to_string()))?;
    // As it is: a path need not be text.
    run_args.dir = Some(dir.join("log"));
    run_args.size.clone_from(&args.size);
    run_args.sample.clone_from(&args.sample);
    let report = run::run(&run_args, stop)?;
    let outcome = &report.outcome;
    let latencies = [0.5, 0.99, 0.999].map(|share| outcome.latencies.quantile_ns(share));
    let reached = outcome.records as f64 / args.step_time.as_secs_f64();
    sweep.commit_method = report.backend.commit_method.to_owned();
    // Of those that have arrived, not of those that arrive on average: at a low rate chance is more than a few percent.
    let enough = outcome.records as f64 >= ENOUGH * (outcome.records + outcome.overdue) as f64;
    let holds = outcome.latencies.count() > 0 && latencies[2] <= bound_ns && enough;
    Ok(Step { rate, reached, latencies, holds })
}

impl Sweep {
    /// For people, ended by a newline.
    #[must_use]
    pub fn table(&self) -> String {
        let bound = nanos(self.bound_ns);
        let mut out = match self.knee {
            Some(rate) => format!(
                "ringwal loadgen sweep: up to {} records/s with p99.9 under {bound}\n\n",
                si(rate)
            ),
            None => format!("ringwal loadgen sweep: no rate has its p99.9 under {bound}\n\n"),
        };
        let _ = writeln!(
            out,
            "  {:>10}  {:>10}  {:>9}  {:>9}  {:>9}",
            "records/s", "reached", "p50", "p99", "p99.9"
        );
        for step in &self.steps {
            let [p50, p99, p999] = step.latencies.map(nanos);
            let (rate, reached) = (si(step.rate), si(step.reached));
            let mark = if step.holds { "" } else { "  too slow" };
            let _ =
                writeln!(out, "  {rate:>10}  {reached:>10}  {p50:>9}  {p99:>9}  {p999:>9}{mark}");
        }
        let _ = writeln!(
            out,
            "\n  open loops with random arrivals; commit method {}",
            self.commit_method
        );
        out
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let steps: Vec<_> = self
            .steps
            .iter()
            .map(|step| {
                json!({
                    "rate": step.rate,
                    "reached": step.reached,
                    "p50_ns": step.latencies[0],
                    "p99_ns": step.latencies[1],
                    "p99_9_ns": step.latencies[2],
                    "holds": step.holds,
                })
            })
            .collect();
        json!({
            "schema": "ringwal-loadgen/sweep/1",
            "bound_ns": self.bound_ns,
            "knee": self.knee,
            "commit_method": self.commit_method,
            "steps": steps,
        })
    }
}
