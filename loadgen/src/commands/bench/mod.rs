//! The benchmark suite W1 to W9: every workload beside its limit, in rounds.
//!
//! 1. A round runs every cell once, so that a disturbance of the machine affects all cells alike.
//!    The suite reports the median over rounds, with minimum and maximum.
//! 2. A limit is measured in the same process within a second. It is the raw device in the shape
//!    that the log just used, or the processor doing the unavoidable part.
//! 3. A ratio is taken within a round, then its median: it holds on a machine whose speed changes.
//! 4. With several directories, a cell runs in each of them before the next cell begins.

mod cells;
mod memory;
mod replay;
mod report;

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use report::{json, markdown, table, titles};

use crate::cli::BenchArgs;
use crate::error::Error;
use crate::log_dir::RunDir;
use crate::log_dir::device::Device;
use crate::measure::environment::Environment;
use crate::output::progress::{Part, Progress};
use crate::raw::RawFile;
use crate::stop::Stop;
use cells::{Cell, cells};

/// The unit of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Records, or commits, per second; more is better.
    PerSecond,
    /// Nanoseconds; less is better.
    Nanoseconds,
    /// Bytes per second; more is better.
    BytesPerSecond,
}

/// One cell in one round.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// The value of the log.
    pub value: f64,
    /// The limit in the same unit.
    pub limit: Option<f64>,
    /// Latencies in nanoseconds, if measured: median, 99th and 99.9th percentile.
    pub latencies: Option<[u64; 3]>,
    /// Flushes of the disk per acknowledged group.
    pub flushes_per_group: Option<f64>,
}

/// One row of the result.
#[derive(Debug, Clone)]
pub struct Row {
    /// `W1` to `W9`.
    pub workload: &'static str,
    /// The workload in words.
    pub name: &'static str,
    /// The unit of the value.
    pub unit: Unit,
    /// The limit in words.
    pub limit: &'static str,
    /// One sample for each round of the cell.
    pub samples: Vec<Sample>,
}

impl Suite {
    /// Returns the result for a gate.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`], the failure of a cell, or [`Error::Nothing`] if no cell has a value.
    pub fn verdict(self) -> Result<(), Error> {
        let rounds = self.rounds;
        let mut rows = self.places.iter().flat_map(|place| &place.rows);
        match (self.failed, self.ended_by) {
            (Some(e), _) => Err(e),
            (None, Some(_)) => {
                Err(Error::Interrupted(format!("{rounds} rounds of the suite are complete")))
            }
            (None, None) if rows.all(|row| row.samples.is_empty()) => {
                Err(Error::Nothing("no cell of the suite has a value".into()))
            }
            (None, None) => Ok(()),
        }
    }
}

impl Row {
    fn of(cell: &Cell) -> Self {
        let Cell { workload, name, unit, limit, .. } = *cell;
        Row { workload, name, unit, limit, samples: Vec::new() }
    }

    /// Returns median, minimum and maximum over the rounds; `None` without a value.
    pub fn spread(&self, of: impl Fn(&Sample) -> Option<f64>) -> Option<[f64; 3]> {
        let mut all: Vec<f64> = self.samples.iter().filter_map(of).collect();
        all.sort_by(f64::total_cmp);
        Some([*all.get(all.len() / 2)?, *all.first()?, *all.last()?])
    }

    /// Returns the value divided by the limit.
    #[must_use]
    pub fn ratio(&self) -> Option<[f64; 3]> {
        self.spread(|s| s.limit.filter(|&limit| limit > 0.0).map(|limit| s.value / limit))
    }

    /// True if the log exceeded its limit: then the limit was measured wrong, or is none.
    #[must_use]
    pub fn beats_its_limit(&self) -> bool {
        self.ratio().is_some_and(|[median, ..]| match self.unit {
            Unit::Nanoseconds => median < 1.0 / BEATEN,
            Unit::PerSecond | Unit::BytesPerSecond => median > BEATEN,
        })
    }
}

/// A directory of the suite, with what was measured in it.
#[derive(Debug)]
pub struct Place {
    /// The directory as given, or empty for one below the current directory.
    pub directory: String,
    /// The device under the directory.
    pub device: Device,
    /// The log's commit method.
    pub commit_method: String,
    /// Reason for the commit method, with its measurement.
    pub commit_method_detail: String,
    /// Rows in the order of the workloads.
    pub rows: Vec<Row>,
}

/// A finished suite.
#[derive(Debug)]
pub struct Suite {
    /// One for each directory, at least one. All have the same rows in the same order.
    pub places: Vec<Place>,
    /// Complete rounds.
    pub rounds: usize,
    /// Seconds of a cell.
    pub seconds: f64,
    /// Processors.
    pub processors: usize,
    /// The reason for an early end.
    pub ended_by: Option<&'static str>,
    /// The failure of a cell, if one failed. Earlier rounds stay valid.
    pub failed: Option<Error>,
    /// The conditions of the measurement.
    pub environment: Environment,
}

/// Ratio by which a limit may be exceeded before the report warns.
const BEATEN: f64 = 1.05;

/// The context of a cell.
struct Context<'a> {
    dir: &'a Path,
    stop: &'a Arc<Stop>,
    time: Duration,
    /// Results of earlier cells in this round.
    values: Vec<(&'static str, f64)>,
    commit_method: [String; 2],
    /// The file for the raw device in all rounds.
    file: &'a OnceCell<RawFile>,
}

impl Context<'_> {
    /// Scales bytes on disk for cells shorter than a second, to at least a sixteenth.
    fn disk(&self, bytes: u64) -> u64 {
        ((bytes as f64 * self.time.as_secs_f64()) as u64).clamp(bytes / 16, bytes)
    }

    fn value_of(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
    }
}

/// What one directory needs while the suite runs.
struct Site {
    dir: RunDir,
    /// The file for the raw device in all rounds.
    file: OnceCell<RawFile>,
}

/// Why a round ended early.
enum Halt {
    Signal,
    Failure(Error),
}

/// Runs the suite. A signal or a failed cell ends it; complete rounds are reported.
///
/// # Errors
///
/// Those of the arguments and of the directories.
pub fn run(args: &BenchArgs, stop: &Arc<Stop>) -> Result<Suite, Error> {
    args.check()?;
    let asked: Vec<Option<&Path>> = match &args.dir[..] {
        [] => vec![None],
        dirs => dirs.iter().map(|dir| Some(dir.as_path())).collect(),
    };
    let site = |dir: &Option<&Path>| {
        Ok(Site { dir: RunDir::own(*dir, false, stop)?, file: OnceCell::new() })
    };
    let sites = asked.iter().map(site).collect::<Result<Vec<_>, Error>>()?;
    let chosen: Vec<Cell> = cells().into_iter().filter(|c| args.wants(c.workload)).collect();
    let place = |(dir, site): (&Option<&Path>, &Site)| Place {
        directory: dir.map_or(String::new(), |dir| dir.display().to_string()),
        device: Device::under(site.dir.path()),
        commit_method: String::new(),
        commit_method_detail: String::new(),
        rows: chosen.iter().map(Row::of).collect(),
    };
    let mut suite = Suite {
        places: asked.iter().zip(&sites).map(place).collect(),
        rounds: 0,
        seconds: args.cell_time.as_secs_f64(),
        ended_by: None,
        failed: None,
        environment: Environment::of(sites[0].dir.path()),
        processors: std::thread::available_parallelism().map_or(0, usize::from),
    };
    let mut progress = Progress::new(args.quiet);
    for round in 0..args.rounds {
        match one_round(args, stop, round, &chosen, &sites, &mut progress) {
            Ok(measured) => {
                suite.take(measured);
                suite.rounds += 1;
            }
            Err(Halt::Signal) => break,
            Err(Halt::Failure(e)) => {
                suite.failed = Some(e);
                break;
            }
        }
    }
    suite.ended_by = match suite.failed {
        Some(_) => Some("a failure"),
        None => stop.was_signalled().then_some("a signal"),
    };
    progress.clear();
    Ok(suite)
}

/// What a round measured in one directory.
struct Measured {
    samples: Vec<(usize, Sample)>,
    commit_method: [String; 2],
}

fn one_round(
    args: &BenchArgs,
    stop: &Arc<Stop>,
    round: usize,
    chosen: &[Cell],
    sites: &[Site],
    progress: &mut Progress,
) -> Result<Vec<Measured>, Halt> {
    let mut contexts = Vec::new();
    for Site { dir, file } in sites {
        let (dir, time) = (dir.path(), args.cell_time);
        let commit_method = Default::default();
        contexts.push(Context { dir, stop, time, values: Vec::new(), commit_method, file });
    }
    let mut samples = vec![Vec::new(); sites.len()];
    let steps = args.rounds * chosen.len() * sites.len();
    for (n, cell) in chosen.iter().enumerate() {
        for (at, context) in contexts.iter_mut().enumerate() {
            if stop.was_signalled() {
                return Err(Halt::Signal);
            }
            let done = (round * chosen.len() + n) * sites.len() + at;
            let (now, of) = (round + 1, args.rounds);
            let mut what = format!("round {now} of {of}: {} {}", cell.workload, cell.name);
            if sites.len() > 1 {
                what += &format!(" in {}", label(at));
            }
            progress.step(&what, Part::Share(done as f64 / steps as f64));
            match (cell.run)(context) {
                // An interrupted cell is not a measurement.
                _ if stop.was_signalled() => return Err(Halt::Signal),
                Ok(Some(sample)) => {
                    context.values.push((cell.name, sample.value));
                    samples[at].push((n, sample));
                }
                Ok(None) => {}
                Err(e) => return Err(Halt::Failure(e)),
            }
        }
    }
    let measured = contexts.into_iter().zip(samples);
    Ok(measured.map(|(c, samples)| Measured { samples, commit_method: c.commit_method }).collect())
}

impl Suite {
    fn take(&mut self, round: Vec<Measured>) {
        for (place, measured) in self.places.iter_mut().zip(round) {
            for (n, sample) in measured.samples {
                place.rows[n].samples.push(sample);
            }
            [place.commit_method, place.commit_method_detail] = measured.commit_method;
        }
    }
}

/// The letter of a directory: `A` for the first.
fn label(at: usize) -> char {
    char::from(b'A' + at as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_and_ratio_are_taken_per_round() {
        let sample = |value, limit| Sample { value, limit: Some(limit), ..Sample::default() };
        let row = Row {
            workload: "W0",
            name: "test",
            unit: Unit::PerSecond,
            limit: "none",
            // The machine was half as fast in the second round. The ratio stays the same.
            samples: vec![sample(10.0, 20.0), sample(5.0, 10.0), sample(12.0, 16.0)],
        };
        assert_eq!(row.spread(|s| Some(s.value)), Some([10.0, 5.0, 12.0]));
        assert_eq!(row.ratio(), Some([0.5, 0.5, 0.75]));
        assert_eq!(row.spread(|s| s.flushes_per_group), None);
    }

    #[test]
    fn cell_names_are_unique_and_workloads_known() {
        let cells = cells();
        for (i, cell) in cells.iter().enumerate() {
            assert!(cells[..i].iter().all(|c| c.name != cell.name), "{}", cell.name);
            assert!(crate::cli::WORKLOADS.contains(&cell.workload));
        }
    }
}
