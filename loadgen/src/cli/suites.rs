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
    /// Directory on the disk: one that exists is left as it was; a missing one is removed at the end
    pub dir: Option<PathBuf>,
    /// Time of all measurements together
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = parse_positive_duration)]
    pub time: Duration,
    /// Only judge the disk by the published rule of these: etcd, openshift, postgres, raft, kafka. A FAIL exits with 99
    #[arg(long = "for", value_enum, value_name = "LIST", value_delimiter = ',')]
    pub systems: Vec<System>,
    /// Bytes of a write; with --for, instead of those of the rule [default: 4k, 64k and 1m]
    #[arg(long, value_name = "BYTES", value_parser = parse_write)]
    pub size: Option<u64>,
    /// What must hold, or the exit status is 99: 'p99<10ms,rate>2k'. Of the fastest commit of the smallest write: rate,
    /// p50, p99, p99.9, max; and bandwidth, the most that was made durable
    #[arg(long, value_name = "LIST", value_parser = parse_requirements, conflicts_with = "systems")]
    pub require: Option<Requirements>,
    /// Write the figures as JSON; - for stdout, the table then goes to stderr
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with plots, for a browser; it needs no network
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Replace files that loadgen did not write, too; never an input or a log
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
    /// What the 99.9th percentile is to stay under
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = parse_positive_duration)]
    pub bound: Duration,
    /// Time of each rate, or as long as it takes for 10000 latencies; a quarter of it more to warm up
    #[arg(long, value_name = "TIME", default_value = "2", value_parser = parse_positive_duration)]
    pub step_time: Duration,
    /// First rate to try, in records a second
    #[arg(long, value_name = "N", default_value = "1k", value_parser = parse_rate)]
    pub start: f64,
    /// How often the gap between a rate that holds and one that does not is halved
    #[arg(long, value_name = "N", default_value = "4", value_parser = parse_u32)]
    pub precision: u32,
    /// The longest time of a rate: a rate too low for 10000 latencies in it cannot be decided
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_positive_duration)]
    pub step_limit: Duration,
    /// Threads that append
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_usize)]
    pub threads: usize,
    /// When records become durable: group, or interval:TIME
    #[arg(long, value_name = "WHEN", default_value = "group", value_parser = parse_durability)]
    pub durability: Durability,
    /// When records arrive: at random (poisson), evenly (constant), or so many at once (burst:N)
    #[arg(long, value_name = "HOW", default_value = "poisson", value_parser = parse_arrivals)]
    pub arrivals: Pattern,
    /// What arrivals, sizes and content are drawn from: the same number gives the same ones [default: another each time]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub seed: Option<u64>,
    /// What must hold, or the exit status is 99: 'knee>50k'
    #[arg(long, value_name = "LIST", value_parser = parse_requirements)]
    pub require: Option<Requirements>,
    /// Bytes of a record, a range to draw from, or several with weights: 100, 64-4k, 100:9,4k-64k:1 [default: 100]
    #[arg(long, value_name = "SIZES", value_parser = parse_sizes, conflicts_with = "sample")]
    pub size: Option<Sizes>,
    /// Draw records from the lines of this file, at random: sizes and content are as there
    #[arg(long, value_name = "FILE")]
    pub sample: Option<PathBuf>,
    /// Directory to work in: one that exists is left as it was; a missing one is removed at the end
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Bytes of a segment file [default: 64m, less on a small disk]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub segment_size: Option<u64>,
    /// Bytes on disk at most: the oldest segments are reused [default: 1g, less on a full disk]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_disk: Option<u64>,
    /// Write the figures as JSON; - for stdout, the table then goes to stderr
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with the plot, for a browser
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Replace files that loadgen did not write, too; never an input or a log
    #[arg(long)]
    pub force: bool,
    /// No progress and no table
    #[arg(long)]
    pub quiet: bool,
}

impl SweepArgs {
    /// Checks what clap cannot.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], with what to write instead.
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

/// `loadgen bench`.
#[derive(Debug, Clone, Parser)]
#[command(after_help = examples::BENCH)]
pub struct BenchArgs {
    /// Rounds; every workload is run once in each, and medians are quoted
    #[arg(long, value_name = "N", default_value = "5", value_parser = parse_usize)]
    pub rounds: usize,
    /// Time that a workload is measured in a round; some take a multiple
    #[arg(long, value_name = "TIME", default_value = "1", value_parser = parse_positive_duration)]
    pub cell_time: Duration,
    /// Only these workloads: W1,W4. W6 and W8 are measured against W4 and W2, which run with them
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Directory to work in: one that exists is left as it was; a missing one is removed at the end
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Write the figures as JSON; - for stdout, the table then goes to stderr
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the table as Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write a page with plots, for a browser; it needs no network
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Replace files that loadgen did not write, too; never an input or a log
    #[arg(long)]
    pub force: bool,
    /// No progress and no table
    #[arg(long)]
    pub quiet: bool,
}

impl BenchArgs {
    /// Checks what clap cannot.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], with what to write instead.
    pub fn check(&self) -> Result<(), Error> {
        if !(1..=1000).contains(&self.rounds) {
            let text = format!("--rounds is {}, but must be 1 to 1000", self.rounds);
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

    /// Whether this workload is to be run: asked for, or needed by one that is.
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

    /// Whether `--json -` has stdout for itself.
    #[must_use]
    pub fn json_on_stdout(&self) -> bool {
        self.json.as_ref().is_some_and(|path| path.as_os_str() == "-")
    }
}
