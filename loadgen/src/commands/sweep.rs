//! The knee: the highest rate whose 99.9th percentile stays under a bound.
//!
//! 1. The raw device is measured first. If its own 99.9th percentile exceeds the bound, no log can
//!    meet the bound, and the sweep decides nothing.
//! 2. Open loops follow at rising rates, each a run with its own warm-up. Latencies count from the
//!    scheduled arrival. Each rate runs for at least 10,000 latencies, ten beyond the percentile,
//!    however long that takes.
//! 3. A rate holds if its percentile is under the bound and nearly all records were appended in
//!    time. The sweep quadruples the rate until one does not hold, or quarters it until one does.
//!    Then it halves the gap by ratio, a few times.
//! 4. A rate that does not hold is tried once more: one stall of the disk is not a knee.
//! 5. An interrupted sweep has no knee, because an untried rate may be better or worse.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use serde_json::{Value, json};

use crate::cli::{Args, SweepArgs, durability_name};
use crate::commands::run;
use crate::error::Error;
use crate::log_dir::RunDir;
use crate::measure::environment::Environment;
use crate::measure::latency::Latencies;
use crate::measure::require::{self, Check, Metric};
use crate::output::progress::{Part, Progress};
use crate::raw::{self, Method, Request};
use crate::stop::Stop;
use crate::units::{grouped, nanos, si};
use crate::workload::OPEN_SAMPLES;

/// One tried rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Scheduled records per second.
    pub rate: f64,
    /// Records per second that were appended in time.
    pub reached: f64,
    /// Median, 99th and 99.9th percentile, in nanoseconds.
    pub latencies: [u64; 3],
    /// Number of latencies. It is lower than required if the rate was ended early.
    pub samples: u64,
    /// True if the rate holds.
    pub holds: bool,
}

/// The raw device, one block at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    /// The faster method.
    pub method: &'static str,
    /// Median, 99th and 99.9th percentile, in nanoseconds.
    pub latencies: [u64; 3],
    /// Number of writes.
    pub samples: u64,
    /// Number of writes that exceeded the bound.
    pub above: u64,
}

/// A finished sweep.
#[derive(Debug)]
pub struct Sweep {
    /// The steps, ordered by rate.
    pub steps: Vec<Step>,
    /// Bound of the 99.9th percentile.
    pub bound_ns: u64,
    /// The highest rate that held; `None` if no rate held, or the knee is undecided.
    pub knee: Option<f64>,
    /// The reason why the knee is undecided, or only partly decided.
    pub undecided: Option<String>,
    /// The log's commit method.
    pub commit_method: String,
    /// The raw device, a lower bound for every log.
    pub floor: Option<Floor>,
    /// The reason for an early end.
    pub ended_by: Option<&'static str>,
    /// The failure of a run, if one failed.
    pub failed: Option<Error>,
    /// Seed of the arrivals.
    pub seed: u64,
    /// Results of --require; empty after an interruption.
    pub required: Vec<Check>,
    /// The conditions of the measurement.
    pub environment: Environment,
    asked: Value,
}

/// Share of the records that must be appended in time.
const ENOUGH: f64 = 0.98;
const HIGHEST: f64 = 1e9;
const QUANTILE: f64 = 0.999;
/// Ten latencies beyond the percentile.
const SAMPLES: u64 = 10_000;
/// Random arrivals may be fewer than their mean: five standard deviations.
const MARGIN: f64 = 1.05;
const BLOCK: usize = 4096;
const AREA: u64 = 64 << 20;

/// The result of a rate.
enum Tried {
    Holds,
    DoesNot,
    /// The rate needs more time than a rate may take.
    TooLong,
    /// The sweep ends.
    Over,
}

struct Sweeper<'a> {
    args: &'a SweepArgs,
    stop: &'a Arc<Stop>,
    dir: RunDir,
    progress: Progress,
    sweep: Sweep,
}

/// Runs the sweep. A signal or a failed run ends it with the rates tried so far.
///
/// # Errors
///
/// Those of the arguments and of the directory.
pub fn run(args: &SweepArgs, stop: &Arc<Stop>) -> Result<Sweep, Error> {
    args.check()?;
    let dir = RunDir::own(args.dir.as_deref(), false, stop)?;
    let bound_ns = u64::try_from(args.bound.as_nanos()).unwrap_or(u64::MAX);
    let sweep = Sweep {
        steps: Vec::new(),
        bound_ns,
        knee: None,
        undecided: None,
        commit_method: String::new(),
        floor: None,
        ended_by: None,
        failed: None,
        seed: args.seed.unwrap_or_else(run::new_seed),
        required: Vec::new(),
        environment: Environment::of(dir.path()),
        asked: json!({
            "threads": args.threads,
            "durability": durability_name(args.durability),
            "arrivals": args.arrivals.to_string(),
            "size": args.size.as_ref().map(ToString::to_string),
            "sample": args.sample.as_ref().map(|path| path.to_string_lossy()),
            "step_seconds": args.step_time.as_secs_f64(),
            "step_limit_seconds": args.step_limit.as_secs_f64(),
            "start": args.start,
            "segment_bytes": args.segment_size,
            "disk_bytes": args.max_disk,
        }),
    };
    let progress = Progress::new(args.quiet);
    let mut sweeper = Sweeper { args, stop, dir, progress, sweep };
    let swept = sweeper.all();
    sweeper.progress.clear();
    let mut sweep = sweeper.sweep;
    sweep.failed = swept.err();
    sweep.conclude(args, stop.was_signalled());
    Ok(sweep)
}

/// Returns the time in which this rate has enough latencies.
fn time_of(rate: f64, least: Duration) -> Duration {
    let sampled = rate.min(OPEN_SAMPLES);
    Duration::from_secs_f64(SAMPLES as f64 * MARGIN / sampled).max(least)
}

impl Sweeper<'_> {
    fn all(&mut self) -> Result<(), Error> {
        self.progress.step("measuring the raw device", Part::Unknown);
        self.sweep.floor = self.floor()?;
        let bound = self.sweep.bound_ns;
        // Ten beyond the percentile are enough, for any number of writes.
        let too_slow = |floor: &Floor| floor.latencies[2] > bound && floor.above >= 10;
        let above = self.sweep.floor.filter(too_slow);
        if let Some(floor) = above {
            self.sweep.undecided = Some(format!(
                "the raw device's own p99.9 is {} ({}, {} writes), above the bound: no log can stay under it here",
                nanos(floor.latencies[2]),
                floor.method,
                grouped(floor.samples)
            ));
        }
        let (low, high) = match self.try_twice(self.args.start)? {
            Tried::Over => (None, None),
            Tried::TooLong => {
                self.sweep.undecided.get_or_insert_with(|| {
                    let time = time_of(self.args.start, Duration::ZERO).as_secs_f64();
                    format!(
                        "{} latencies of the first rate take {time:.1} s; raise --step-limit or --start",
                        grouped(SAMPLES)
                    )
                });
                (None, None)
            }
            Tried::Holds => self.rise()?,
            // If the device alone is too slow, no other rate needs its time.
            Tried::DoesNot if above.is_some() => (None, None),
            Tried::DoesNot => self.fall()?,
        };
        self.sweep.knee = match (low, high) {
            (Some(low), Some(high)) => Some(self.narrow(low, high)?),
            (low, _) => low,
        };
        Ok(())
    }

    fn rise(&mut self) -> Result<(Option<f64>, Option<f64>), Error> {
        let mut held = self.args.start;
        while held * 4.0 <= HIGHEST {
            match self.try_twice(held * 4.0)? {
                Tried::Holds => held *= 4.0,
                Tried::DoesNot => return Ok((Some(held), Some(held * 4.0))),
                Tried::TooLong | Tried::Over => break,
            }
        }
        Ok((Some(held), None))
    }

    fn fall(&mut self) -> Result<(Option<f64>, Option<f64>), Error> {
        let mut rate = self.args.start;
        loop {
            match self.try_twice(rate / 4.0)? {
                Tried::Holds => return Ok((Some(rate / 4.0), Some(rate))),
                Tried::DoesNot => rate /= 4.0,
                Tried::TooLong => {
                    self.sweep.undecided = Some(format!(
                        "{}/s does not hold, and a lower rate takes longer than --step-limit for {} latencies",
                        si(rate),
                        grouped(SAMPLES)
                    ));
                    return Ok((None, Some(rate)));
                }
                Tried::Over => return Ok((None, None)),
            }
        }
    }

    fn narrow(&mut self, mut held: f64, mut not: f64) -> Result<f64, Error> {
        for _ in 0..self.args.precision {
            let middle = (held * not).sqrt();
            match self.try_twice(middle)? {
                Tried::Holds => held = middle,
                Tried::DoesNot => not = middle,
                Tried::TooLong | Tried::Over => break,
            }
        }
        Ok(held)
    }

    fn try_twice(&mut self, rate: f64) -> Result<Tried, Error> {
        let time = time_of(rate, self.args.step_time);
        if time > self.args.step_limit.max(self.args.step_time) {
            return Ok(Tried::TooLong);
        }
        for attempt in 0..2 {
            if self.stop.was_signalled() {
                return Ok(Tried::Over);
            }
            let what = format!("{} records/s, after {} rates", si(rate), self.sweep.steps.len());
            self.progress.step(&what, Part::Of(time + self.args.step_time / 4));
            let step = self.try_rate(rate, time, attempt)?;
            if self.stop.was_signalled() {
                // An interrupted run says nothing about its rate.
                return Ok(Tried::Over);
            }
            self.sweep.steps.retain(|other| other.rate != rate);
            self.sweep.steps.push(step);
            if step.holds {
                return Ok(Tried::Holds);
            }
        }
        Ok(Tried::DoesNot)
    }

    fn try_rate(&mut self, rate: f64, time: Duration, attempt: u64) -> Result<Step, Error> {
        let args = self.args;
        let line = ["loadgen", "--quiet", "--baseline", "0", "--rate"].map(str::to_owned);
        let mut line: Vec<String> = line.into();
        let us = |d: Duration| format!("{}us", d.as_micros());
        line.extend([format!("{rate:.6}"), "--duration".into(), us(time)]);
        line.extend(["--warm-up".into(), us(args.step_time / 4)]);
        line.extend(["--threads".into(), args.threads.to_string()]);
        let mut run_args = Args::try_parse_from(line).map_err(|e| Error::Usage(e.to_string()))?;
        // Passes the path unchanged: it need not be text.
        run_args.dir = Some(self.dir.path().join("log"));
        run_args.size.clone_from(&args.size);
        run_args.sample.clone_from(&args.sample);
        run_args.durability = args.durability;
        (run_args.segment_size, run_args.max_disk) = (args.segment_size, args.max_disk);
        run_args.arrivals = args.arrivals;
        run_args.seed = Some(self.sweep.seed.wrapping_add(rate.to_bits()).wrapping_add(attempt));
        // The run ends when more latencies are late than the percentile permits.
        let expected = rate.min(OPEN_SAMPLES) * time.as_secs_f64();
        let most = (expected * MARGIN * (1.0 - QUANTILE)).ceil() as u64;
        run_args.most_above = Some((args.bound, most));
        let mut report = run::run(&run_args, self.stop)?;
        if let Some(e) = report.failed.take() {
            return Err(e);
        }
        report.backend.commit_method.clone_into(&mut self.sweep.commit_method);
        let outcome = &report.outcome;
        let latencies = [0.5, 0.99, QUANTILE].map(|q| outcome.latencies.quantile_ns(q));
        let samples = outcome.latencies.count();
        let given_up = report.ended_by.is_some();
        let reached = outcome.records as f64 / time.as_secs_f64().min(outcome.seconds);
        // Compares with the actual arrivals, not with their mean: at a low rate, chance exceeds a
        // few percent.
        let all = (outcome.records + outcome.overdue) as f64;
        let enough = outcome.records as f64 >= ENOUGH * all && samples >= SAMPLES;
        let holds = !given_up && enough && latencies[2] <= self.sweep.bound_ns;
        Ok(Step { rate, reached, latencies, samples, holds })
    }

    /// Bytes of the file for the raw device.
    fn area(&self) -> u64 {
        AREA.min(self.args.max_disk.unwrap_or(AREA))
    }

    /// Measures the raw device. `None` after an interruption.
    fn floor(&mut self) -> Result<Option<Floor>, Error> {
        let mut best: Option<Floor> = None;
        let file = raw::raw_file(self.dir.path(), true, BLOCK, self.area())?;
        for method in [Method::WriteDsync, Method::Dsync, Method::LinkedFsync] {
            let mut latencies = Latencies::new();
            // Takes as many writes as a rate has latencies, but within a time limit.
            for _ in 0..10 {
                let request = Request {
                    method,
                    group: BLOCK,
                    depth: 1,
                    direct: true,
                    block: BLOCK,
                    time: self.args.step_time,
                    area: self.area(),
                };
                let raw = raw::measure_in(&file, &request, self.stop)?;
                if self.stop.was_signalled() {
                    return Ok(None);
                }
                latencies.merge(&raw.latencies);
                if latencies.count() >= SAMPLES {
                    break;
                }
            }
            let quantiles = [0.5, 0.99, QUANTILE].map(|q| latencies.quantile_ns(q));
            if best.is_none_or(|best| quantiles[2] < best.latencies[2]) {
                let (method, samples) = (method.name(), latencies.count());
                let above = latencies.above(self.args.bound);
                best = Some(Floor { method, latencies: quantiles, samples, above });
            }
        }
        Ok(best)
    }
}

impl Sweep {
    fn conclude(&mut self, args: &SweepArgs, interrupted: bool) {
        self.steps.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        self.ended_by = match self.failed {
            Some(_) => Some("a failure"),
            None => interrupted.then_some("a signal"),
        };
        if self.ended_by.is_some() {
            self.knee = None;
            self.undecided = None;
        } else if let Some(required) = &args.require {
            let knee = self.knee;
            self.required = required.check(|metric| match metric {
                Metric::Knee | Metric::Rate => knee,
                _ => None,
            });
        }
    }

    /// Returns the result for a gate.
    ///
    /// # Errors
    ///
    /// The failure of a run; [`Error::Interrupted`]; [`Error::Required`].
    pub fn verdict(self) -> Result<(), Error> {
        if let Some(e) = self.failed {
            return Err(e);
        }
        if self.ended_by.is_some() {
            let text = format!("{} rates were tried, and no knee is concluded", self.steps.len());
            return Err(Error::Interrupted(text));
        }
        require::verdict(&self.required)
    }

    /// Returns the table with a final newline.
    #[must_use]
    pub fn table(&self) -> String {
        let bound = nanos(self.bound_ns);
        let head = match (self.ended_by, self.knee, &self.undecided) {
            (Some(why), ..) => format!("interrupted by {why}: no knee is concluded"),
            (_, Some(rate), _) => format!("up to {} records/s with p99.9 under {bound}", si(rate)),
            (_, None, Some(why)) => format!("nothing can be decided: {why}"),
            (_, None, None) => format!("no rate has its p99.9 under {bound}"),
        };
        let mut out = format!("ringwal loadgen sweep: {head}\n\n");
        let _ = writeln!(
            out,
            "  {:>10}  {:>10}  {:>9}  {:>9}  {:>9}  {:>9}",
            "records/s", "reached", "p50", "p99", "p99.9", "samples"
        );
        if let Some(floor) = &self.floor {
            let [p50, p99, p999] = floor.latencies.map(nanos);
            let samples = grouped(floor.samples);
            let _ = writeln!(
                out,
                "  {:>10}  {:>10}  {p50:>9}  {p99:>9}  {p999:>9}  {samples:>9}  {}, 4 KiB",
                "raw device", "", floor.method
            );
        }
        for step in &self.steps {
            let [p50, p99, p999] = step.latencies.map(nanos);
            let (rate, reached) = (si(step.rate), si(step.reached));
            let samples = grouped(step.samples);
            let mark = if step.holds { "" } else { "  too slow" };
            let _ = writeln!(
                out,
                "  {rate:>10}  {reached:>10}  {p50:>9}  {p99:>9}  {p999:>9}  {samples:>9}{mark}"
            );
        }
        let text = |key: &str| self.asked[key].as_str().unwrap_or_default();
        let _ = writeln!(
            out,
            "\n  open loops, {} arrivals, durability {}; commit method {}; seed {}\n  {}",
            text("arrivals"),
            text("durability"),
            if self.commit_method.is_empty() { "unknown" } else { &self.commit_method },
            self.seed,
            self.environment.line(),
        );
        if let (Some(_), Some(why)) = (self.knee, &self.undecided) {
            let _ = writeln!(out, "  {why}");
        }
        out + &require::table(&self.required)
    }

    /// Returns the JSON object.
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
                    "samples": step.samples,
                    "holds": step.holds,
                })
            })
            .collect();
        let floor = self.floor.map(|floor| {
            json!({
                "method": floor.method,
                "p50_ns": floor.latencies[0],
                "p99_ns": floor.latencies[1],
                "p99_9_ns": floor.latencies[2],
                "samples": floor.samples,
            })
        });
        json!({
            "schema": "ringwal-loadgen/sweep/1",
            "bound_ns": self.bound_ns,
            "knee": self.knee,
            "undecided": self.undecided,
            "commit_method": self.commit_method,
            "raw": floor,
            "ended_by": self.ended_by,
            "failure": self.failed.as_ref().map(ToString::to_string),
            "seed": self.seed,
            "asked": self.asked,
            "required": require::to_json(&self.required),
            "environment": self.environment.json(),
            "steps": steps,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_has_ten_latencies_beyond_the_percentile() {
        let least = Duration::from_millis(100);
        for rate in [0.5, 10.0, 250.0, 1000.0, 16_000.0, 20_000.0, 1e6, 1e9] {
            let time = time_of(rate, least);
            let samples = rate.min(OPEN_SAMPLES) * time.as_secs_f64();
            assert!(samples >= 10.0 / (1.0 - QUANTILE), "{rate}: {samples}");
        }
        assert_eq!(time_of(1e6, Duration::from_secs(60)), Duration::from_secs(60));
    }
}
