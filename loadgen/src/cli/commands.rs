//! The arguments of the commands that compare, and of those that crash.

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
    /// What --json has written before
    pub first: PathBuf,
    /// What it has written now
    pub second: PathBuf,
    /// What may be lost, in percent
    #[arg(long, value_name = "PERCENT", default_value = "5", value_parser = parse_percent)]
    pub tolerance: f64,
    /// Only rows that both have; without it, those that the second lacks are a failure
    #[arg(long)]
    pub common: bool,
    /// As JSON, on stdout
    #[arg(long)]
    pub json: bool,
}

/// `loadgen ab`.
#[derive(Debug, Clone, Parser)]
#[command(after_help = examples::AB)]
pub struct AbArgs {
    /// A program with options, or options of this one
    #[arg(allow_hyphen_values = true)]
    pub first: String,
    /// What it is compared with
    #[arg(allow_hyphen_values = true)]
    pub second: String,
    /// Pairs of runs: 4 at least
    #[arg(long, value_name = "N", default_value = "10", value_parser = parse_usize)]
    pub pairs: usize,
    /// Time of each run, if the options do not say
    #[arg(long, value_name = "TIME", default_value = "3", value_parser = parse_positive_duration)]
    pub time: Duration,
    /// What may be lost, in percent
    #[arg(long, value_name = "PERCENT", default_value = "5", value_parser = parse_percent)]
    pub tolerance: f64,
    /// What arrivals, sizes and content of the first pair are drawn from [default: another each time]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub seed: Option<u64>,
    /// Directory to work in: one that exists is left as it was; a missing one is removed at the end
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Write the figures as JSON; - for stdout, the table then goes to stderr
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Replace files that loadgen did not write, too; never an input or a log
    #[arg(long)]
    pub force: bool,
    /// No progress and no table
    #[arg(long)]
    pub quiet: bool,
    /// Options of both
    #[arg(last = true, value_name = "OPTIONS")]
    pub common: Vec<String>,
}

impl AbArgs {
    /// Checks what clap cannot.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], with what to write instead.
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
    /// Writers to be killed
    #[arg(long, value_name = "N", default_value = "20", value_parser = parse_count)]
    pub rounds: u64,
    /// Threads of a writer, each of which waits for its record
    #[arg(long, value_name = "N", default_value = "4", value_parser = parse_u32)]
    pub threads: u32,
    /// Bytes of a record
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = parse_bytes)]
    pub size: u64,
    /// Directory to work in: what is in one that exists is left as it was; a missing one is removed at the end.
    /// With --witness, the log stays in it
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Do not remove the log at the end; after a failure it stays anyway
    #[arg(long)]
    pub keep: bool,
    /// Write until the power goes, and tell this witness what is durable
    #[arg(long, value_name = "HOST:PORT", requires = "dir")]
    pub witness: Option<String>,
    /// After that: look whether everything that the witness has heard of is there
    #[arg(long, requires = "witness")]
    pub check: bool,
    /// As JSON, on stdout
    #[arg(long)]
    pub json: bool,
    /// No progress and no table
    #[arg(long)]
    pub quiet: bool,
}

impl CrashArgs {
    /// Checks what clap cannot.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], with what to write instead.
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
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:4242")]
    pub listen: String,
    /// The file that the acknowledgements are kept in
    #[arg(long, value_name = "FILE", default_value = "loadgen-acks")]
    pub acks: PathBuf,
}

/// The writer that `loadgen crash` kills.
#[derive(Debug, Clone, Parser)]
pub struct CrashWriterArgs {
    /// The log
    pub log: PathBuf,
    /// Threads
    #[arg(long)]
    pub threads: u32,
    /// Bytes of a record
    #[arg(long)]
    pub size: u64,
}
