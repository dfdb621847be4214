//! The benchmark suite W1 to W9: every workload beside its own limit, in rounds.
//!
//! 1. A round runs every cell once, so that what the machine does meanwhile meets all of them alike.
//!    Medians over rounds are quoted, with the least and the greatest.
//! 2. A limit is measured in the same process, within the second: the raw device in the shape that
//!    the log has just used it, or the processor doing the part that cannot be left out.
//! 3. A ratio is taken within a round, and then its median: it holds on a machine whose speed changes.

mod cells;
mod memory;
mod replay;
mod report;

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use report::{json, markdown, table};

use crate::cli::BenchArgs;
use crate::error::Error;
use crate::log_dir::RunDir;
use crate::log_dir::device::Device;
use crate::measure::environment::Environment;
use crate::output::progress::{Part, Progress};
use crate::raw::RawFile;
use crate::stop::Stop;
use cells::{Cell, cells};

/// What a value is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Of records, or commits; more is better.
    PerSecond,
    /// Less is better.
    Nanoseconds,
    /// More is better.
    BytesPerSecond,
}

/// One cell in one round.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// What the log did.
    pub value: f64,
    /// What the limit is, in the same unit.
    pub limit: Option<f64>,
    /// Latencies in nanoseconds, where there are any: median, 99th and 99.9th percentile.
    pub latencies: Option<[u64; 3]>,
    /// Flushes that the disk counted, by groups that were acknowledged.
    pub flushes_per_group: Option<f64>,
}

/// One row of the result.
#[derive(Debug, Clone)]
pub struct Row {
    /// `W1` to `W9`.
    pub workload: &'static str,
    /// What runs.
    pub name: &'static str,
    /// What the value is counted in.
    pub unit: Unit,
    /// What the limit is.
    pub limit: &'static str,
    /// One for each round that the cell was run in.
    pub samples: Vec<Sample>,
}

impl Suite {
    /// What a gate is to make of it.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`], what failed, or [`Error::Nothing`] if no cell has a value.
    pub fn verdict(self) -> Result<(), Error> {
        let rounds = self.rounds;
        match (self.failed, self.ended_by) {
            (Some(e), _) => Err(e),
            (None, Some(_)) => {
                Err(Error::Interrupted(format!("{rounds} rounds of the suite are complete")))
            }
            (None, None) if self.rows.iter().all(|row| row.samples.is_empty()) => {
                Err(Error::Nothing("no cell of the suite has a value".into()))
            }
            (None, None) => Ok(()),
        }
    }
}

impl Row {
    /// Median, least and greatest of something over the rounds; `None` where no round has it.
    pub fn spread(&self, of: impl Fn(&Sample) -> Option<f64>) -> Option<[f64; 3]> {
        let mut all: Vec<f64> = self.samples.iter().filter_map(of).collect();
        all.sort_by(f64::total_cmp);
        Some([*all.get(all.len() / 2)?, *all.first()?, *all.last()?])
    }

    /// Value by limit.
    #[must_use]
    pub fn ratio(&self) -> Option<[f64; 3]> {
        self.spread(|s| s.limit.filter(|&limit| limit > 0.0).map(|limit| s.value / limit))
    }

    /// Whether the log was better than what should be its limit: then that was measured wrong, or is none.
    #[must_use]
    pub fn beats_its_limit(&self) -> bool {
        self.ratio().is_some_and(|[median, ..]| match self.unit {
            Unit::Nanoseconds => median < 1.0 / BEATEN,
            Unit::PerSecond | Unit::BytesPerSecond => median > BEATEN,
        })
    }
}

/// A finished suite.
#[derive(Debug)]
pub struct Suite {
    /// In the order of the workloads.
    pub rows: Vec<Row>,
    /// Rounds that were run to their end.
    pub rounds: usize,
    /// Seconds of a cell.
    pub seconds: f64,
    /// How the log makes groups durable here.
    pub commit_method: String,
    /// What is under the directory.
    pub device: Device,
    /// Why the commit method, with what was measured.
    pub commit_method_detail: String,
    /// Processors.
    pub processors: usize,
    /// What ended the suite early.
    pub ended_by: Option<&'static str>,
    /// What failed, if anything did: the rounds before stand.
    pub failed: Option<Error>,
    /// Where and how.
    pub environment: Environment,
}

/// What a limit may be beaten by before something is wrong with it.
const BEATEN: f64 = 1.05;

/// What a cell is run with.
struct Context<'a> {
    dir: &'a Path,
    stop: &'a Arc<Stop>,
    time: Duration,
    /// Of the cells that came before in this round.
    values: Vec<(&'static str, f64)>,
    commit_method: [String; 2],
    /// What the raw device is measured in, in all rounds.
    file: &'a OnceCell<RawFile>,
}

impl Context<'_> {
    /// Bytes on disk for cells that are shorter than a second: less, at least a sixteenth.
    fn disk(&self, bytes: u64) -> u64 {
        ((bytes as f64 * self.time.as_secs_f64()) as u64).clamp(bytes / 16, bytes)
    }

    fn value_of(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
    }
}

/// Runs the suite. A signal, or a cell that fails, ends it: the rounds that are complete are reported.
///
/// # Errors
///
/// Those of the arguments and of the directory.
pub fn run(args: &BenchArgs, stop: &Arc<Stop>) -> Result<Suite, Error> {
    args.check()?;
    let dir = RunDir::own(args.dir.as_deref(), false, stop)?;
    let chosen: Vec<Cell> = cells().into_iter().filter(|c| args.wants(c.workload)).collect();
    let rows = chosen.iter().map(|cell| Row {
        workload: cell.workload,
        name: cell.name,
        unit: cell.unit,
        limit: cell.limit,
        samples: Vec::new(),
    });
    let mut suite = Suite {
        rows: rows.collect(),
        rounds: 0,
        seconds: args.cell_time.as_secs_f64(),
        commit_method: String::new(),
        commit_method_detail: String::new(),
        device: Device::under(dir.path()),
        ended_by: None,
        failed: None,
        environment: Environment::of(dir.path()),
        processors: std::thread::available_parallelism().map_or(0, usize::from),
    };
    let mut progress = Progress::new(args.quiet);
    let file = OnceCell::new();
    'rounds: for round in 0..args.rounds {
        let mut context = Context {
            dir: dir.path(),
            stop,
            time: args.cell_time,
            values: Vec::new(),
            commit_method: Default::default(),
            file: &file,
        };
        let mut measured = Vec::new();
        for (n, cell) in chosen.iter().enumerate() {
            if stop.was_signalled() {
                break 'rounds;
            }
            let done = (round * chosen.len() + n) as f64 / (args.rounds * chosen.len()) as f64;
            let (at, of) = (round + 1, args.rounds);
            let what = format!("round {at} of {of}: {} {}", cell.workload, cell.name);
            progress.step(&what, Part::Share(done));
            match (cell.run)(&mut context) {
                // Broken off in the middle: no measurement.
                _ if stop.was_signalled() => break 'rounds,
                Ok(Some(sample)) => {
                    context.values.push((cell.name, sample.value));
                    measured.push((n, sample));
                }
                Ok(None) => {}
                Err(e) => {
                    suite.failed = Some(e);
                    break 'rounds;
                }
            }
        }
        for (n, sample) in measured {
            suite.rows[n].samples.push(sample);
        }
        suite.rounds += 1;
        [suite.commit_method, suite.commit_method_detail] = context.commit_method;
    }
    suite.ended_by = match suite.failed {
        Some(_) => Some("a failure"),
        None => stop.was_signalled().then_some("a signal"),
    };
    progress.clear();
    Ok(suite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_and_ratios_are_taken_round_by_round() {
        let sample = |value, limit| Sample { value, limit: Some(limit), ..Sample::default() };
        let row = Row {
            workload: "W0",
            name: "test",
            unit: Unit::PerSecond,
            limit: "none",
            // The machine was half as fast in the second round: the ratio is the same.
            samples: vec![sample(10.0, 20.0), sample(5.0, 10.0), sample(12.0, 16.0)],
        };
        assert_eq!(row.spread(|s| Some(s.value)), Some([10.0, 5.0, 12.0]));
        assert_eq!(row.ratio(), Some([0.5, 0.5, 0.75]));
        assert_eq!(row.spread(|s| s.flushes_per_group), None);
    }

    #[test]
    fn names_are_unique_and_workloads_known() {
        let cells = cells();
        for (i, cell) in cells.iter().enumerate() {
            assert!(cells[..i].iter().all(|c| c.name != cell.name), "{}", cell.name);
            assert!(crate::cli::WORKLOADS.contains(&cell.workload));
        }
    }
}
