//! The command line, checked as far as it can be before anything is opened.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ringwal::{BackendChoice, CommitMethod, Durability};

use crate::error::Error;
use crate::measure::require::{Requirements, parse_requirements};
use crate::raw::rules::System;
use crate::units::{
    SizeRange, Sizes, parse_bytes, parse_count, parse_duration, parse_number,
    parse_positive_duration, parse_sizes, parse_u32, parse_usize,
};
use crate::workload::{Mode, Pattern};

mod commands;
mod examples;
pub mod generate;
#[cfg(test)]
mod tests;

pub use commands::{AbArgs, CompareArgs, CrashArgs, CrashWriterArgs, WitnessArgs};

/// Drives a ringwal log and says how fast it is on this disk.
///
/// Without arguments: one producer, 100-byte records, pipelined, every group durable, for ten
/// seconds, in a fresh directory under the current one that is removed at the end; then the raw device beside it.
#[derive(Debug, Clone, Parser)]
#[command(name = "loadgen", version, max_term_width = 100, args_conflicts_with_subcommands = true,
    after_help = examples::RUN, after_long_help = examples::RUN)]
pub struct Args {
    /// Something else than one run
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Threads that append; with --tasks, worker threads of the runtime
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_usize)]
    pub threads: usize,
    /// Async tasks that append, instead of the threads
    #[arg(long, value_name = "N", value_parser = parse_usize)]
    pub tasks: Option<usize>,
    /// Bytes of a record, a range to draw from, or several with weights: 100, 64-4k, 100:9,4k-64k:1 [default: 100]
    #[arg(long, value_name = "SIZES", value_parser = parse_sizes, conflicts_with_all = ["input", "sample"])]
    pub size: Option<Sizes>,
    /// Draw records from the lines of this file, at random: sizes and content are as there
    #[arg(long, value_name = "FILE", conflicts_with = "input")]
    pub sample: Option<PathBuf>,
    /// Stop after this time: 10, 500ms, 2m [default: 10s; with --records or --input, none]
    #[arg(long, value_name = "TIME", value_parser = parse_positive_duration)]
    pub duration: Option<Duration>,
    /// Run this long before anything is measured, so that segments are reused from the start
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "input")]
    pub warm_up: Option<Duration>,
    /// Warm up until the rate is steady, at most for --warm-up [default: 2m]
    #[arg(long, conflicts_with = "input")]
    pub until_steady: bool,
    /// Stop after this many records
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub records: Option<u64>,
    /// Open loop: records arrive at random times, so many in a second on average, whether or not the log
    /// keeps up; a latency counts from when the record was to arrive
    #[arg(long, value_name = "N", value_parser = parse_rate, conflicts_with_all = ["tasks", "input"])]
    pub rate: Option<f64>,
    /// When the records of --rate arrive: at random (poisson), evenly (constant), or so many at once (burst:N)
    #[arg(long, value_name = "HOW", default_value = "poisson", value_parser = parse_arrivals, requires = "rate")]
    pub arrivals: Pattern,
    /// What arrivals, sizes and content are drawn from: the same number gives the same ones [default: another each time]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub seed: Option<u64>,
    /// Wait for each record, or for all at the end [default: pipelined; with --tasks, blocking]
    #[arg(long, value_enum, value_name = "MODE")]
    pub mode: Option<ModeArg>,
    /// When records become durable: group, interval:TIME or manual
    #[arg(long, value_name = "WHEN", default_value = "group", value_parser = parse_durability)]
    pub durability: Durability,
    /// What does the I/O
    #[arg(long, value_enum, value_name = "NAME", default_value = "auto")]
    pub backend: BackendArg,
    /// How a group is made durable: auto, linked-fsync or dsync
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub commit_method: CommitMethod,
    /// Groups in flight at most [default: the log's own]
    #[arg(long, value_name = "N", value_parser = parse_usize)]
    pub depth: Option<usize>,
    /// Leave a group open this long for more records, though the device is free
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub commit_delay: Option<Duration>,
    /// Directory of the log. An existing log is appended to and loses nothing; a missing directory
    /// is created, and removed at the end
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Do not remove the directory at the end
    #[arg(long)]
    pub keep: bool,
    /// Append each line of this file, without its newline, as a record
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// At the end open the log again, replay it, and compare every acknowledged record
    #[arg(long)]
    pub verify: bool,
    /// What must hold, or the exit status is 99: 'p99<10ms,rate>50k'. Of rate, bandwidth, p50 to p99.99, max, mean, eta,
    /// overdue, cpu (time for a record), memory
    #[arg(long, value_name = "LIST", value_parser = parse_requirements)]
    pub require: Option<Requirements>,
    /// End the run as soon as latencies that are required cannot be had
    #[arg(long, requires = "require")]
    pub require_abort: bool,
    /// Write the figures as JSON; - for stdout, the table then goes to stderr
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the latencies in HdrHistogram's percentile format, in microseconds
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Write a page with plots, for a browser; it needs no network
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the latencies as an HdrHistogram log, in nanoseconds: a line for each interval
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// Replace files that loadgen did not write, too; never an input or a log
    #[arg(long)]
    pub force: bool,
    /// No progress and no table
    #[arg(long)]
    pub quiet: bool,
    /// Write a line on stderr so often, also where that is no terminal
    #[arg(long, value_name = "TIME", value_parser = parse_positive_duration)]
    pub status_interval: Option<Duration>,
    /// Followers that read beside the writers: how late records reach them, and how long they take to catch up
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_usize)]
    pub followers: usize,
    /// Consumers that read beside the writers, and commit their positions ten times a second
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
    /// Bytes on disk at most: the oldest segments are reused [default: 1g, less on a full disk]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_disk: Option<u64>,
    /// Reuse nothing; stop when --max-disk [default: 4g] is nearly reached
    #[arg(long)]
    pub no_recycle: bool,
    /// Measure the raw device in the shape of the run for this long, to compare; 0 for not at all
    #[arg(long, value_name = "TIME", default_value = "1", value_parser = parse_duration)]
    pub baseline: Duration,
    /// Measure the raw device in every shape, too: commit method, size, depth; 0 for not at all [default: twice --baseline]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub raw: Option<Duration>,
    /// Ends the run when more than so many latencies were longer; what a sweep asks for.
    #[arg(skip)]
    pub most_above: Option<(Duration, u64)>,
}

/// What else loadgen does.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run the benchmark suite W1 to W9, each workload beside its limit on this machine
    Bench(BenchArgs),
    /// Find the knee: the highest rate at which the 99.9th percentile stays under a bound
    Sweep(SweepArgs),
    /// What the disk can do for a log, without one; and in words what that means and what to change
    Device(DeviceArgs),
    /// Compare two files of --json, row by row. Exits with 1 if the second is worse beyond noise and tolerance
    Compare(CompareArgs),
    /// Run two binaries, or two sets of options, in turn, and compare them pair by pair
    Ab(AbArgs),
    /// Kill writers and look whether all that they acknowledged is there; or, with a witness on another machine,
    /// pull the plug of a real one
    Crash(CrashArgs),
    /// Keep acknowledgements for `crash --witness`, on a machine that stays on
    Witness(WitnessArgs),
    /// Write the completion script of a shell, on stdout
    Completions {
        /// Which
        shell: Shell,
    },
    /// Write the manual page on stdout, or all pages into a directory
    Man {
        /// Where
        dir: Option<PathBuf>,
    },
    /// The writer that is killed
    #[command(hide = true)]
    CrashWriter(CrashWriterArgs),
}

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

/// `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// Each producer waits until its record is durable
    Blocking,
    /// Producers append without waiting
    Pipelined,
}

/// `--backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendArg {
    /// io_uring where it works
    Auto,
    /// io_uring or an error
    Uring,
    /// pwrite and fdatasync
    Std,
    /// Nothing is written: what the engine costs without a device
    Discard,
}

impl From<BackendArg> for BackendChoice {
    fn from(arg: BackendArg) -> Self {
        match arg {
            BackendArg::Auto => BackendChoice::Auto,
            BackendArg::Uring => BackendChoice::IoUring,
            BackendArg::Std => BackendChoice::Std,
            BackendArg::Discard => BackendChoice::Discard,
        }
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is not a rate; write records in a second: 1000, 20k, 1.5m");
    let rate = parse_number(text).map_err(|_| wrong())?;
    if (0.001..=1e9).contains(&rate) { Ok(rate) } else { Err(wrong()) }
}

/// Bytes of a write to the raw device.
fn parse_write(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        n @ 1..=0x400_0000 => Ok(n),
        n => Err(format!("{n} bytes; write 1 to 64m")),
    }
}

fn parse_arrivals(text: &str) -> Result<Pattern, String> {
    match text.split_once(':') {
        None if text == "poisson" => Ok(Pattern::Poisson),
        None if text == "constant" => Ok(Pattern::Constant),
        Some(("burst", n)) => match parse_usize(n) {
            Ok(n) if (2..=1_000_000).contains(&n) => Ok(Pattern::Burst(n)),
            _ => Err(format!("{n:?} is no size of a burst; write 2 to 1000000")),
        },
        _ => Err(format!("{text:?} is none of poisson, constant, burst:100")),
    }
}

fn parse_durability(text: &str) -> Result<Durability, String> {
    match text.split_once(':') {
        None if text == "group" => Ok(Durability::EveryGroup),
        None if text == "manual" => Ok(Durability::Manual),
        Some(("interval", every)) => parse_positive_duration(every).map(Durability::Interval),
        _ => Err(format!("{text:?} is none of group, interval:20ms, manual")),
    }
}

/// As `--durability` takes it.
#[must_use]
pub fn durability_name(durability: Durability) -> String {
    match durability {
        Durability::EveryGroup => "group".into(),
        Durability::Interval(every) => format!("interval:{}us", every.as_micros()),
        Durability::Manual => "manual".into(),
    }
}

const MAX_THREADS: usize = 4096;
/// Readers of a kind, and writers beside.
const MAX_BESIDE: usize = 256;
const MAX_TASKS: usize = 1 << 20;
const DEFAULT_SIZE: SizeRange = SizeRange { min: 100, max: 100 };
const DEFAULT_LONGEST_LINE: usize = 1 << 20;
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

impl Args {
    /// Checks what clap cannot.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], with what to write instead.
    pub fn check(&self) -> Result<(), Error> {
        let usage = |text: String| Err(Error::Usage(text));
        if !(1..=MAX_THREADS).contains(&self.threads) {
            return usage(format!("--threads is {}, but must be 1 to {MAX_THREADS}", self.threads));
        }
        if let Some(tasks) = self.tasks
            && !(1..=MAX_TASKS).contains(&tasks)
        {
            return usage(format!("--tasks is {tasks}, but must be 1 to {MAX_TASKS}"));
        }
        if self.rate.is_some() && self.mode == Some(ModeArg::Blocking) {
            return usage("--rate does not wait for records; leave --mode blocking away".into());
        }
        if self.rate.is_some() && self.durability == Durability::Manual {
            let text = "--rate measures until durable, which --durability manual does not say; give group, or interval:TIME";
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

    /// `--mode`, or its default.
    #[must_use]
    pub fn workload_mode(&self) -> Mode {
        if let Some(rate) = self.rate {
            return Mode::Open(rate);
        }
        match self.mode {
            Some(ModeArg::Blocking) => Mode::Blocking,
            Some(ModeArg::Pipelined) => Mode::Pipelined,
            None if self.tasks.is_some() => Mode::Blocking,
            None => Mode::Pipelined,
        }
    }

    /// `--duration`, or its default.
    #[must_use]
    pub fn time_limit(&self) -> Option<Duration> {
        let unlimited = self.records.is_some() || self.input.is_some();
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

    /// Bytes of a line of the input at most.
    #[must_use]
    pub fn longest_line(&self) -> usize {
        self.max_record.map_or(DEFAULT_LONGEST_LINE, |n| usize::try_from(n).unwrap_or(usize::MAX))
    }

    /// Whether `--json -` has stdout for itself.
    #[must_use]
    pub fn json_on_stdout(&self) -> bool {
        self.json.as_ref().is_some_and(|path| path.as_os_str() == "-")
    }
}
