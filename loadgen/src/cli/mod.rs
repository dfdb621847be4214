//! The command line. The parser checks every argument before the run opens a file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use ringwal::{CommitMethod, Durability};

use crate::error::Error;
use crate::logs::MOST_LOGS;
use crate::measure::require::{Requirements, parse_requirements};
use crate::units::{
    SizeRange, Sizes, parse_bytes, parse_count, parse_duration, parse_positive_duration,
    parse_sizes, parse_usize,
};
use crate::workload::{Meaning, Mode, Pattern};

mod commands;
mod examples;
pub mod generate;
mod suites;
#[cfg(test)]
mod tests;
mod values;

pub use commands::{AbArgs, CompareArgs, CrashArgs, CrashWriterArgs, WitnessArgs};
pub use suites::{BenchArgs, DeviceArgs, SweepArgs, WORKLOADS};
pub use values::{BackendArg, ModeArg, durability_name};
use values::{MAX_THREADS, parse_arrivals, parse_durability, parse_rate};

/// Drives a ringwal log and reports how fast the log is on this disk.
///
/// Without arguments, one producer appends 100-byte records for ten seconds, pipelined, every group
/// durable. The log lies in a new directory under the current one, which loadgen removes at the
/// end. Then loadgen measures the raw device.
#[derive(Debug, Clone, Parser)]
#[command(name = "loadgen", version, max_term_width = 100, args_conflicts_with_subcommands = true,
    after_help = examples::RUN, after_long_help = examples::RUN)]
pub struct Args {
    /// A command other than one run
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Threads that append; with --tasks, worker threads of the runtime
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_usize)]
    pub threads: usize,
    /// Async tasks that append, instead of the threads
    #[arg(long, value_name = "N", value_parser = parse_usize)]
    pub tasks: Option<usize>,
    /// Logs in this process. Records are spread over them, and the figures are those of all
    /// together
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_usize)]
    pub logs: usize,
    /// Bytes of a record, a range to draw from, or several with weights: 100, 64-4k, 100:9,4k-64k:1
    /// [default: 100]
    #[arg(long, value_name = "SIZES", value_parser = parse_sizes, conflicts_with_all = ["input", "sample"])]
    pub size: Option<Sizes>,
    /// Draw records from the lines of this file, at random. Sizes and content match the file
    #[arg(long, value_name = "FILE", conflicts_with = "input")]
    pub sample: Option<PathBuf>,
    /// Stop after this time: 10, 500ms, 2m [default: 10s; none with --records, --input, --replay]
    #[arg(long, value_name = "TIME", value_parser = parse_positive_duration)]
    pub duration: Option<Duration>,
    /// Run this long before the measurement starts, so that segments are reused from the start
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "input")]
    pub warm_up: Option<Duration>,
    /// Warm up until the rate is steady, at most for --warm-up [default: 2m]
    #[arg(long, conflicts_with = "input")]
    pub until_steady: bool,
    /// Stop after this many records
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub records: Option<u64>,
    /// Open loop: records arrive at random times, on average this many per second, even if the log
    /// falls behind. A latency counts from the scheduled arrival. With --tasks, a free task takes
    /// each record and waits until it is durable, unless --mode is pipelined
    #[arg(long, value_name = "N", value_parser = parse_rate, conflicts_with = "input")]
    pub rate: Option<f64>,
    /// How the records of --rate arrive: at random (poisson), evenly (constant), or N at once
    /// (burst:N)
    #[arg(long, value_name = "HOW", default_value = "poisson", value_parser = parse_arrivals, requires = "rate")]
    pub arrivals: Pattern,
    /// Open loop: records arrive as this file says, at its times, with its sizes. A line is one
    /// record: seconds and bytes, as 0.25 4k; times may have a unit, and count from the first one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "size", "input", "sample"])]
    pub replay: Option<PathBuf>,
    /// Seed of arrivals, sizes and content: the same seed repeats them [default: a new seed for
    /// each run]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub seed: Option<u64>,
    /// Wait for each record, or for all at the end [default: pipelined; with --tasks, blocking]
    #[arg(long, value_enum, value_name = "MODE")]
    pub mode: Option<ModeArg>,
    /// When records become durable: group, interval:TIME or manual
    #[arg(long, value_name = "WHEN", default_value = "group", value_parser = parse_durability)]
    pub durability: Durability,
    /// How the log does its I/O
    #[arg(long, value_enum, value_name = "NAME", default_value = "auto")]
    pub backend: BackendArg,
    /// How a group is made durable: auto, linked-fsync or dsync
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub commit_method: CommitMethod,
    /// Groups in flight at most [default: the log's own]
    #[arg(long, value_name = "N", value_parser = parse_usize)]
    pub depth: Option<usize>,
    /// Keep a group open this long for more records, even if the device is idle
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub commit_delay: Option<Duration>,
    /// Directory of the log. A run appends to an existing log and removes none of its records. It
    /// creates a missing directory, and removes that directory at the end
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Do not remove the directory at the end
    #[arg(long)]
    pub keep: bool,
    /// Append each line of this file, without its newline, as a record
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// At the end reopen the log, replay it, and compare every acknowledged record
    #[arg(long)]
    pub verify: bool,
    /// Requirements: 'p99<10ms,rate>50k'. If one fails, the exit status is 99. Metrics: rate,
    /// bandwidth, p50 to p99.99, max, mean, eta, overdue, cpu (time per record), memory
    #[arg(long, value_name = "LIST", value_parser = parse_requirements)]
    pub require: Option<Requirements>,
    /// End the run as soon as the required latencies are out of reach
    #[arg(long, requires = "require")]
    pub require_abort: bool,
    /// Write the figures as JSON. With -, the JSON goes to stdout and the table to stderr
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the latencies in HdrHistogram's percentile format, in microseconds
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Write a page with plots for a browser. The page needs no network
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the latencies as an HdrHistogram log, in nanoseconds, one line per interval
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// Also replace files that loadgen did not write, but never an input or a log
    #[arg(long)]
    pub force: bool,
    /// No progress and no table
    #[arg(long)]
    pub quiet: bool,
    /// Write a line to stderr this often, also if stderr is not a terminal
    #[arg(long, value_name = "TIME", value_parser = parse_positive_duration)]
    pub status_interval: Option<Duration>,
    /// Followers of each log that read beside the writers. The report has their delivery latency
    /// and their time to catch up
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_usize)]
    pub followers: usize,
    /// Consumers of each log that read beside the writers and commit their positions ten times per
    /// second
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_usize)]
    pub consumers: usize,
    /// Threads that write and sync files of their own beside the log
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_usize)]
    pub background_writers: usize,
    /// Bytes of a segment file [default: 64m, less on a small disk]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub segment_size: Option<u64>,
    /// Bytes of the log's ring [default: the log's own]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub ring: Option<u64>,
    /// Largest record, for --input with long lines
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_record: Option<u64>,
    /// Bytes on disk at most, of all logs together. A log reuses the oldest segments [default: 1g,
    /// less on a full disk]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_disk: Option<u64>,
    /// Reuse no segment, and stop shortly before --max-disk [default: 4g] is reached
    #[arg(long)]
    pub no_recycle: bool,
    /// Measure the raw device for this long in the shape of the run; 0 to skip
    #[arg(long, value_name = "TIME", default_value = "1", value_parser = parse_duration)]
    pub baseline: Duration,
    /// Also measure the raw device in every shape (commit method, size, depth); 0 to skip [default:
    /// twice --baseline]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub raw: Option<Duration>,
    /// Ends the run when more than this number of latencies exceed the duration. A sweep sets it.
    #[arg(skip)]
    pub most_above: Option<(Duration, u64)>,
}

/// Names the option of a negative value, which the parser takes for an unknown option.
pub fn explain(e: clap::Error, words: &[OsString]) -> clap::Error {
    let negative = |word: &str| {
        let rest = word.strip_prefix('-').unwrap_or_default();
        rest.starts_with(|c: char| c.is_ascii_digit() || c == '.')
    };
    match e.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) if negative(word) => {}
        _ => return e,
    }
    let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let Some(at) = words.iter().position(|word| negative(word)) else { return e };
    let before = words[at.saturating_sub(1)];
    let place = if before.starts_with('-') { format!(" for '{before}'") } else { String::new() };
    let text = format!(
        "invalid value '{}'{place}: it must not be negative\n\nFor more information, try '--help'.\n",
        words[at]
    );
    clap::Error::raw(ErrorKind::InvalidValue, text).with_cmd(&Args::command())
}

/// The commands besides a single run.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run the benchmark suite W1 to W9, each workload beside its limit on this machine
    Bench(BenchArgs),
    /// Find the knee: the highest rate at which the 99.9th percentile stays under a bound
    Sweep(SweepArgs),
    /// Measure what the disk can do for a log, explain the figures, and suggest what to change
    Device(DeviceArgs),
    /// Compare two files of --json, row by row. Exits with 1 if the second is worse beyond noise
    /// and tolerance
    Compare(CompareArgs),
    /// Run two binaries, or two sets of options, in turn, and compare them pair by pair
    Ab(AbArgs),
    /// Kill writers and check that every acknowledged record survived. With a witness on another
    /// machine, cut the power of this one
    Crash(CrashArgs),
    /// Store acknowledgements for `crash --witness`, on a machine that stays on
    Witness(WitnessArgs),
    /// Write the completion script of a shell to stdout
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual page to stdout, or all pages into a directory
    Man {
        /// Directory of the pages
        dir: Option<PathBuf>,
    },
    /// The writer that `crash` kills
    #[command(hide = true)]
    CrashWriter(CrashWriterArgs),
}

/// Readers of one kind, or background writers, at most.
const MAX_BESIDE: usize = 256;
const MAX_TASKS: usize = 1 << 20;
const DEFAULT_SIZE: SizeRange = SizeRange { min: 100, max: 100 };
const DEFAULT_LONGEST_LINE: usize = 1 << 20;
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

impl Args {
    /// Checks the rules between arguments, which clap cannot express.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], with a hint at what to write instead.
    pub fn check(&self) -> Result<(), Error> {
        let usage = |text: String| Err(Error::Usage(text));
        if !(1..=MAX_THREADS).contains(&self.threads) {
            return usage(format!("--threads is {}, but must be 1 to {MAX_THREADS}", self.threads));
        }
        if !(1..=MOST_LOGS).contains(&self.logs) {
            return usage(format!("--logs is {}, but must be 1 to {MOST_LOGS}", self.logs));
        }
        if let Some(tasks) = self.tasks
            && !(1..=MAX_TASKS).contains(&tasks)
        {
            return usage(format!("--tasks is {tasks}, but must be 1 to {MAX_TASKS}"));
        }
        if self.is_open() && self.mode == Some(ModeArg::Blocking) && self.tasks.is_none() {
            let text = "the threads of --rate and --replay do not wait for records; leave --mode blocking away, or give --tasks";
            return usage(text.into());
        }
        if self.is_open() && self.durability == Durability::Manual {
            let text = "--rate and --replay measure until durable, which --durability manual does not say; give group, or interval:TIME";
            return usage(text.into());
        }
        if self.backend == BackendArg::Discard && self.verify {
            return usage("--backend discard keeps nothing that --verify could read".into());
        }
        for (option, n) in [
            ("--followers", self.followers),
            ("--consumers", self.consumers),
            ("--background-writers", self.background_writers),
        ] {
            if n > MAX_BESIDE {
                return usage(format!("{option} is {n}, but must be at most {MAX_BESIDE}"));
            }
        }
        if self.backend == BackendArg::Discard && self.followers + self.consumers > 0 {
            return usage("--backend discard keeps nothing that readers could read".into());
        }
        if self.records == Some(0) {
            return usage("--records is 0, but must be at least 1".into());
        }
        if let (Some(max), Some(size)) = (self.max_record, &self.size)
            && size.range().max as u64 > max
        {
            let size = size.range().max;
            return usage(format!("--size goes up to {size} bytes, --max-record is {max}"));
        }
        if usize::try_from(self.ring.unwrap_or(0)).is_err() {
            return usage("--ring is larger than this machine's memory can be".into());
        }
        if usize::try_from(self.max_record.unwrap_or(0)).is_err() {
            return usage("--max-record is larger than this machine's memory can be".into());
        }
        Ok(())
    }

    /// True if records arrive on a schedule.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.rate.is_some() || self.replay.is_some()
    }

    /// `--mode`, or its default.
    #[must_use]
    pub fn workload_mode(&self) -> Mode {
        if let Some(rate) = self.rate {
            return Mode::Open(rate);
        }
        if self.replay.is_some() {
            // The run sets the mean rate of the file.
            return Mode::Open(1.0);
        }
        match self.mode {
            Some(ModeArg::Blocking) => Mode::Blocking,
            Some(ModeArg::Pipelined) => Mode::Pipelined,
            None if self.tasks.is_some() => Mode::Blocking,
            None => Mode::Pipelined,
        }
    }

    /// The definition of a latency.
    #[must_use]
    pub fn meaning(&self) -> Meaning {
        let mode = self.workload_mode();
        let waits = match self.mode {
            Some(mode) => mode == ModeArg::Blocking,
            // A wait would cause the sync that the interval saves.
            None => self.durability == Durability::EveryGroup,
        };
        match mode {
            Mode::Open(_) if self.tasks.is_some() && waits => Meaning::ArrivalEach,
            _ => Meaning::of(mode, self.durability),
        }
    }

    /// `--duration`, or its default.
    #[must_use]
    pub fn time_limit(&self) -> Option<Duration> {
        let unlimited = self.records.is_some() || self.input.is_some() || self.replay.is_some();
        self.duration.or((!unlimited).then_some(DEFAULT_DURATION))
    }

    /// `--raw`, or its default.
    #[must_use]
    pub fn raw_time(&self) -> Duration {
        self.raw.unwrap_or(self.baseline * 2)
    }

    /// `--size`, or its default.
    #[must_use]
    pub fn record_size(&self) -> Sizes {
        self.size.clone().unwrap_or_else(|| DEFAULT_SIZE.into())
    }

    /// Bytes of an input line at most.
    #[must_use]
    pub fn longest_line(&self) -> usize {
        self.max_record.map_or(DEFAULT_LONGEST_LINE, |n| usize::try_from(n).unwrap_or(usize::MAX))
    }

    /// True if `--json -` reserves stdout.
    #[must_use]
    pub fn json_on_stdout(&self) -> bool {
        self.json.as_ref().is_some_and(|path| path.as_os_str() == "-")
    }
}
