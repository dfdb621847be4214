//! The arguments of `compare`, `ab`, `crash` and `witness`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::examples;
use super::values::MAX_THREADS;
use crate::error::Error;
use crate::units::{
    parse_bytes, parse_count, parse_percent, parse_positive_duration, parse_u32, parse_usize,
};

/// `loadgen compare`.
#[derive(Debug, Clone, Parser)]
#[command(after_help = examples::COMPARE)]
pub struct CompareArgs {
    /// File that --json wrote before the change
    pub first: PathBuf,
    /// File that --json wrote after the change
    pub second: PathBuf,
    /// Tolerated loss in percent
    #[arg(long, value_name = "PERCENT", default_value = "5", value_parser = parse_percent)]
    pub tolerance: f64,
    /// Compare only the rows in both files. Without this option, rows missing in the second file
    /// are a failure
    #[arg(long)]
    pub common: bool,
    /// Write JSON to stdout
    #[arg(long)]
    pub json: bool,
}

/// `loadgen ab`.
#[derive(Debug, Clone, Parser)]
#[command(after_help = examples::AB)]
pub struct AbArgs {
    /// A program with options, or options of this program
    #[arg(allow_hyphen_values = true)]
    pub first: String,
    /// The second program, or the options to compare the first with
    #[arg(allow_hyphen_values = true)]
    pub second: String,
    /// Pairs of runs, at least 4
    #[arg(long, value_name = "N", default_value = "10", value_parser = parse_usize)]
    pub pairs: usize,
    /// Time of each run, unless the options set one
    #[arg(long, value_name = "TIME", default_value = "3", value_parser = parse_positive_duration)]
    pub time: Duration,
    /// Tolerated loss in percent
    #[arg(long, value_name = "PERCENT", default_value = "5", value_parser = parse_percent)]
    pub tolerance: f64,
    /// Seed of arrivals, sizes and content of the first pair [default: a new seed]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub seed: Option<u64>,
    /// Directory to work in. An existing one keeps its content; a missing one is created, and
    /// removed at the end
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Write the figures as JSON. With -, the JSON goes to stdout and the table to stderr
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also replace files that loadgen did not write, but never an input or a log
    #[arg(long)]
    pub force: bool,
    /// No progress and no table
    #[arg(long)]
    pub quiet: bool,
    /// Options of both runs
    #[arg(last = true, value_name = "OPTIONS")]
    pub common: Vec<String>,
}

impl AbArgs {
    /// Checks the rules between arguments, which clap cannot express.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], with a hint at what to write instead.
    pub fn check(&self) -> Result<(), Error> {
        if !(4..=10_000).contains(&self.pairs) {
            let text = format!("--pairs is {}, but must be 4 to 10000", self.pairs);
            return Err(Error::Usage(text));
        }
        Ok(())
    }
}

/// `loadgen crash`.
#[derive(Debug, Clone, Parser)]
#[command(after_help = examples::CRASH)]
pub struct CrashArgs {
    /// Number of writers to kill
    #[arg(long, value_name = "N", default_value = "20", value_parser = parse_count)]
    pub rounds: u64,
    /// Threads of a writer. Each waits until its record is durable
    #[arg(long, value_name = "N", default_value = "4", value_parser = parse_u32)]
    pub threads: u32,
    /// Bytes of a record
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = parse_bytes)]
    pub size: u64,
    /// Directory to work in. An existing one keeps its content; a missing one is created, and
    /// removed at the end. With --witness, the log stays in it
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Keep the log at the end. After a failure, the log always stays
    #[arg(long)]
    pub keep: bool,
    /// Write until the power fails, and report durable records to this witness
    #[arg(long, value_name = "HOST:PORT", requires = "dir")]
    pub witness: Option<String>,
    /// After the power failure: check that every record the witness stored is in the log
    #[arg(long, requires = "witness")]
    pub check: bool,
    /// Write JSON to stdout
    #[arg(long)]
    pub json: bool,
    /// No progress and no table
    #[arg(long)]
    pub quiet: bool,
}

impl CrashArgs {
    /// Checks the rules between arguments, which clap cannot express.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], with a hint at what to write instead.
    pub fn check(&self) -> Result<(), Error> {
        if !(1..=MAX_THREADS as u32).contains(&self.threads) {
            let text = format!("--threads is {}, but must be 1 to {MAX_THREADS}", self.threads);
            return Err(Error::Usage(text));
        }
        if !(1..=1_000_000).contains(&self.rounds) {
            let text = format!("--rounds is {}, but must be 1 to 1000000", self.rounds);
            return Err(Error::Usage(text));
        }
        if self.size > 64 << 10 {
            return Err(Error::Usage("--size is more than 65536".into()));
        }
        Ok(())
    }
}

/// `loadgen witness`.
#[derive(Debug, Clone, Parser)]
#[command(after_help = examples::WITNESS)]
pub struct WitnessArgs {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:4242")]
    pub listen: String,
    /// File that stores the acknowledgements
    #[arg(long, value_name = "FILE", default_value = "loadgen-acks")]
    pub acks: PathBuf,
}

/// The writer that `loadgen crash` kills.
#[derive(Debug, Clone, Parser)]
pub struct CrashWriterArgs {
    /// Directory of the log
    pub log: PathBuf,
    /// Threads that append
    #[arg(long)]
    pub threads: u32,
    /// Bytes of a record
    #[arg(long)]
    pub size: u64,
}
