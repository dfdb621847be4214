//! The command line.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command's output")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::filter;
use crate::lab::Lab;
use crate::mounts::Kind;
use crate::runs::{Counts, Runner, this_binary};
use crate::workload;
use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Crashes a real block device under ringwal", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Images that a power cut could leave, of runs on a sound disk
    Images(Run),
    /// Disks that fail, stall or vanish, and come back
    Faults(Run),
    /// Writers killed over a stopped disk, and their successors
    Stopped(Run),
    /// The program that is crashed
    #[command(hide = true)]
    Workload {
        mount: PathBuf,
        seed: u64,
        sequence: PathBuf,
        first_thread: u32,
        /// Lets `io_uring_register` fail
        #[arg(long)]
        deny_register: bool,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// The filesystem
    #[arg(long, value_enum, default_value = "ext4")]
    fs: Kind,
    /// How long to go on
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The first run's seed; the others follow it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Images of each run
    #[arg(long, default_value_t = 200)]
    images: u64,
    /// No more runs than this
    #[arg(long)]
    runs: Option<u64>,
    /// Run the writers under a seccomp filter that denies `io_uring_register`
    #[arg(long)]
    deny_register: bool,
}

pub(crate) fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Workload { mount, seed, sequence, first_thread, deny_register } => {
            let filtered = if deny_register { filter::deny_register() } else { Ok(()) };
            match filtered.and_then(|()| workload::run(&mount, seed, &sequence, first_thread)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => {
                    eprintln!("{e}");
                    ExitCode::FAILURE
                }
            }
        }
        Command::Images(run) => {
            lab("images", &run, |runner, seed, until| runner.images_of(seed, until))
        }
        Command::Faults(run) => lab("faults", &run, |runner, seed, _| runner.fault_of(seed)),
        Command::Stopped(run) => lab("stopped", &run, |runner, seed, _| runner.stopped_of(seed)),
    }
}

fn lab(
    name: &str,
    run: &Run,
    mut one: impl FnMut(&mut Runner<'_>, u64, Instant) -> Result<(), String>,
) -> ExitCode {
    if let Some(missing) = Lab::missing(run.fs) {
        eprintln!("crashlab cannot run here: {missing}");
        return ExitCode::from(2);
    }
    let made = Lab::new(run.fs).map_err(|e| e.to_string());
    let (lab, binary) = match made.and_then(|lab| Ok((lab, this_binary()?))) {
        Ok(made) => made,
        Err(e) => {
            eprintln!("crashlab cannot run here: {e}");
            return ExitCode::from(2);
        }
    };
    let begun = Instant::now();
    let until = begun + Duration::from_secs(run.seconds);
    let mut runner = Runner {
        lab: &lab,
        binary,
        counts: Counts::default(),
        images: run.images,
        deny_register: run.deny_register,
    };
    for seed in run.seed..run.seed.saturating_add(run.runs.unwrap_or(u64::MAX)) {
        if Instant::now() >= until {
            break;
        }
        if let Err(what) = one(&mut runner, seed, until) {
            println!("{}", runner.counts);
            eprintln!("violation, seed {seed}: {what}");
            eprintln!(
                "again: cargo run --release -p crashlab -- {name} --fs {} --seed {seed} --runs 1 --images {}{}",
                run.fs,
                run.images,
                if run.deny_register { " --deny-register" } else { "" },
            );
            return ExitCode::FAILURE;
        }
    }
    println!("{name}, {}, {:.0} s: {}", run.fs, begun.elapsed().as_secs_f64(), runner.counts);
    ExitCode::SUCCESS
}
