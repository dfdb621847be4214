//! Measures write-ahead logs of other authors and ringwal on one disk, with the same workloads. See
//! `--help`.

mod batch;
mod cell;
mod device;
mod peer;
mod peers;
mod report;
mod suite;
mod workload;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::peer::Result;

/// Which workloads to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// Threads that wait for each of their records.
    Blocking,
    /// Threads that do not wait, and a sync every 5 ms.
    Relaxed,
    /// Reading everything back.
    Recovery,
    /// All three.
    All,
}

/// Measures write-ahead logs beside each other.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Directory for the logs, which are removed afterwards; it decides which disk is measured.
    #[arg(long, default_value = ".")]
    dir: PathBuf,

    /// Measured time of each run.
    #[arg(long, default_value_t = 2.0, value_parser = positive)]
    seconds: f64,

    /// Time before each measurement that is not counted.
    #[arg(long, default_value_t = 0.3, value_parser = positive)]
    warm_up: f64,

    /// Rounds; in each of them every peer runs once for each workload. Medians are reported.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,

    /// Only these peers, by name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,

    /// Which workloads.
    #[arg(long, value_enum, default_value_t = Choice::All)]
    workload: Choice,

    /// Committers of the blocking workload.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 256],
        value_parser = clap::value_parser!(u64).range(1..=4096))]
    threads: Vec<u64>,

    /// Bytes of a record in the blocking workload.
    #[arg(long, value_delimiter = ',', default_values_t = [1024],
        value_parser = clap::value_parser!(u64).range(8..=1 << 18))]
    size: Vec<u64>,

    /// MiB that are written and read back for recovery.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=4096))]
    recovery_mib: u64,

    /// Writes everything that was measured to this file.
    #[arg(long)]
    json: Option<PathBuf>,

    /// Writes the tables to this file.
    #[arg(long)]
    markdown: Option<PathBuf>,

    /// Lists the peers and ends.
    #[arg(long)]
    list: bool,

    /// For this program itself: one measurement.
    #[arg(long, hide = true)]
    cell: Option<String>,
}

fn positive(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 3600.0 => Ok(seconds),
        _ => Err("must be a number of seconds above 0, 3600 at most".into()),
    }
}

fn main() -> ExitCode {
    match go(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "ringwal-peers: {e}");
            ExitCode::FAILURE
        }
    }
}

fn go(args: &Args) -> Result<()> {
    if let Some(job) = &args.cell {
        return cell::serve(job);
    }
    let mut out = std::io::stdout().lock();
    if args.list {
        return Ok(out.write_all(report::list().as_bytes())?);
    }
    let suite = suite::run(args)?;
    let tables = report::markdown(&suite);
    out.write_all(tables.as_bytes())?;
    if let Some(path) = &args.markdown {
        std::fs::write(path, &tables)?;
    }
    if let Some(path) = &args.json {
        std::fs::write(path, format!("{:#}\n", report::json(&suite)))?;
    }
    Ok(())
}
