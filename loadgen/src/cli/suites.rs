//! The arguments of the commands that measure many cells: `device`, `sweep` and `bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use ringwal::Durability;

use super::examples;
use super::values::{MAX_THREADS, parse_arrivals, parse_durability, parse_rate, parse_write};
use crate::error::Error;
use crate::measure::require::{Requirements, parse_requirements};
use crate::raw::rules::System;
use crate::units::{
    Sizes, parse_bytes, parse_count, parse_positive_duration, parse_sizes, parse_u32, parse_usize,
};
use crate::workload::Pattern;

/// `loadgen device`.
#[derive(Debug, Clone, Parser)]
#[command(after_help = examples::DEVICE)]
pub struct DeviceArgs {
    /// Directory on the disk. An existing one keeps its content; a missing one is created, and
    /// removed at the end
    pub dir: Option<PathBuf>,
    /// Time of all measurements together
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = parse_positive_duration)]
    pub time: Duration,
    /// Only judge the disk by the published rule of these systems: etcd, openshift, postgres, raft,
    /// kafka. A FAIL exits with 99
    #[arg(long = "for", value_enum, value_name = "LIST", value_delimiter = ',')]
    pub systems: Vec<System>,
    /// Bytes of a write. With --for, it replaces the size of the rule [default: 4k, 64k and 1m]
    #[arg(long, value_name = "BYTES", value_parser = parse_write)]
    pub size: Option<u64>,
    /// Requirements: 'p99<10ms,rate>2k'. If one fails, the exit status is 99. Metrics of the
    /// fastest commit of the smallest write: rate, p50, p99, p99.9, max; and bandwidth, the highest
    /// durable one
    #[arg(long, value_name = "LIST", value_parser = parse_requirements, conflicts_with = "systems")]
    pub require: Option<Requirements>,
    /// Write the figures as JSON. With -, the JSON goes to stdout and the table to stderr
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with plots for a browser. The page needs no network
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Also replace files that loadgen did not write, but never an input or a log
    #[arg(long)]
    pub force: bool,
    /// No progress and no table
    #[arg(long)]
    pub quiet: bool,
}

/// `loadgen sweep`.
#[derive(Debug, Clone, Parser)]
#[command(after_help = examples::SWEEP)]
pub struct SweepArgs {
    /// Bound of the 99.9th percentile
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = parse_positive_duration)]
    pub bound: Duration,
    /// Time of each rate; a rate with fewer than 10000 latencies runs longer. Each rate also warms
    /// up for a quarter of it
    #[arg(long, value_name = "TIME", default_value = "2", value_parser = parse_positive_duration)]
    pub step_time: Duration,
    /// First rate to try, in records per second
    #[arg(long, value_name = "N", default_value = "1k", value_parser = parse_rate)]
    pub start: f64,
    /// Number of times to halve the gap between a rate that holds and one that does not
    #[arg(long, value_name = "N", default_value = "4", value_parser = parse_u32)]
    pub precision: u32,
    /// Time of a rate at most. A rate too low for 10000 latencies in this time stays undecided
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_positive_duration)]
    pub step_limit: Duration,
    /// Threads that append
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_usize)]
    pub threads: usize,
    /// When records become durable: group, or interval:TIME
    #[arg(long, value_name = "WHEN", default_value = "group", value_parser = parse_durability)]
    pub durability: Durability,
    /// How records arrive: at random (poisson), evenly (constant), or N at once (burst:N)
    #[arg(long, value_name = "HOW", default_value = "poisson", value_parser = parse_arrivals)]
    pub arrivals: Pattern,
    /// Seed of arrivals, sizes and content: the same seed repeats them [default: a new seed for
    /// each run]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub seed: Option<u64>,
    /// Requirements: 'knee>50k'. If one fails, the exit status is 99
    #[arg(long, value_name = "LIST", value_parser = parse_requirements)]
    pub require: Option<Requirements>,
    /// Bytes of a record, a range to draw from, or several with weights: 100, 64-4k, 100:9,4k-64k:1
    /// [default: 100]
    #[arg(long, value_name = "SIZES", value_parser = parse_sizes, conflicts_with = "sample")]
    pub size: Option<Sizes>,
    /// Draw records from the lines of this file, at random. Sizes and content match the file
    #[arg(long, value_name = "FILE")]
    pub sample: Option<PathBuf>,
    /// Directory to work in. An existing one keeps its content; a missing one is created, and
    /// removed at the end
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Bytes of a segment file [default: 64m, less on a small disk]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub segment_size: Option<u64>,
    /// Bytes on disk at most. The log reuses the oldest segments [default: 1g, less on a full disk]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_disk: Option<u64>,
    /// Write the figures as JSON. With -, the JSON goes to stdout and the table to stderr
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with the plot for a browser
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Also replace files that loadgen did not write, but never an input or a log
    #[arg(long)]
    pub force: bool,
    /// No progress and no table
    #[arg(long)]
    pub quiet: bool,
}

impl SweepArgs {
    /// Checks the rules between arguments, which clap cannot express.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], with a hint at what to write instead.
    pub fn check(&self) -> Result<(), Error> {
        if self.step_time < Duration::from_millis(100) {
            return Err(Error::Usage("--step-time is less than 100ms, which shows nothing".into()));
        }
        if self.precision > 12 {
            return Err(Error::Usage("--precision is more than 12".into()));
        }
        if !(1..=MAX_THREADS).contains(&self.threads) {
            let text = format!("--threads is {}, but must be 1 to {MAX_THREADS}", self.threads);
            return Err(Error::Usage(text));
        }
        if self.durability == Durability::Manual {
            let text = "--durability manual has no moment at which a record is durable; give group, or interval:TIME";
            return Err(Error::Usage(text.into()));
        }
        Ok(())
    }
}

/// The workloads of the suite.
pub const WORKLOADS: [&str; 9] = ["W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8", "W9"];

/// Directories that one suite compares, each with a column.
const DEVICES: usize = 8;

/// `loadgen bench`.
#[derive(Debug, Clone, Parser)]
#[command(after_help = examples::BENCH)]
pub struct BenchArgs {
    /// Rounds. Each round runs every workload once; the report has medians
    #[arg(long, value_name = "N", default_value = "5", value_parser = parse_usize)]
    pub rounds: usize,
    /// Measured time of a workload in each round. Some workloads take a multiple
    #[arg(long, value_name = "TIME", default_value = "1", value_parser = parse_positive_duration)]
    pub cell_time: Duration,
    /// Only these workloads: W1,W4. W6 needs W4, and W8 needs W4 and W2; the reference runs too
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Directory to work in. An existing one keeps its content; a missing one is created, and
    /// removed at the end. Repeat it to compare devices: the table has a column for each
    #[arg(long, value_name = "DIR")]
    pub dir: Vec<PathBuf>,
    /// Write the figures as JSON. With -, the JSON goes to stdout and the table to stderr
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the table as Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write a page with plots for a browser. The page needs no network
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Also replace files that loadgen did not write, but never an input or a log
    #[arg(long)]
    pub force: bool,
    /// No progress and no table
    #[arg(long)]
    pub quiet: bool,
}

impl BenchArgs {
    /// Checks the rules between arguments, which clap cannot express.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], with a hint at what to write instead.
    pub fn check(&self) -> Result<(), Error> {
        if !(1..=1000).contains(&self.rounds) {
            let text = format!("--rounds is {}, but must be 1 to 1000", self.rounds);
            return Err(Error::Usage(text));
        }
        if self.dir.len() > DEVICES {
            let text = format!("--dir is given {} times, but at most {DEVICES}", self.dir.len());
            return Err(Error::Usage(text));
        }
        for name in &self.only {
            if !WORKLOADS.iter().any(|w| w.eq_ignore_ascii_case(name)) {
                let all = WORKLOADS.join(", ");
                return Err(Error::Usage(format!("--only {name:?} is none of {all}")));
            }
        }
        Ok(())
    }

    /// True if the suite runs this workload: --only names it, or a named workload needs it.
    #[must_use]
    pub fn wants(&self, workload: &str) -> bool {
        let asked = |w: &str| self.only.iter().any(|name| w.eq_ignore_ascii_case(name));
        let needed = match workload {
            "W2" => asked("W8"),
            "W4" => asked("W6") || asked("W8"),
            _ => false,
        };
        self.only.is_empty() || asked(workload) || needed
    }

    /// True if `--json -` reserves stdout.
    #[must_use]
    pub fn json_on_stdout(&self) -> bool {
        self.json.as_ref().is_some_and(|path| path.as_os_str() == "-")
    }
}
