//! The values of options that only the command line has, and their parsers.

use clap::ValueEnum;
use ringwal::{BackendChoice, Durability};

use crate::units::{parse_bytes, parse_number, parse_positive_duration, parse_usize};
use crate::workload::Pattern;

/// Threads of a run at most.
pub(super) const MAX_THREADS: usize = 4096;

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
    /// io_uring if it works here, otherwise pwrite and fdatasync
    Auto,
    /// io_uring, or an error
    Uring,
    /// pwrite and fdatasync
    Std,
    /// Write nothing: the cost of the engine without a device
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

pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is not a rate; write records in a second: 1000, 20k, 1.5m");
    let rate = parse_number(text).map_err(|_| wrong())?;
    if (0.001..=1e9).contains(&rate) { Ok(rate) } else { Err(wrong()) }
}

/// Bytes of a write to the raw device.
pub(super) fn parse_write(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        n @ 1..=0x400_0000 => Ok(n),
        n => Err(format!("{n} bytes; write 1 to 64m")),
    }
}

pub(super) fn parse_arrivals(text: &str) -> Result<Pattern, String> {
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

pub(super) fn parse_durability(text: &str) -> Result<Durability, String> {
    match text.split_once(':') {
        None if text == "group" => Ok(Durability::EveryGroup),
        None if text == "manual" => Ok(Durability::Manual),
        Some(("interval", every)) => parse_positive_duration(every).map(Durability::Interval),
        _ => Err(format!("{text:?} is none of group, interval:20ms, manual")),
    }
}

/// The text that `--durability` accepts for a value.
#[must_use]
pub fn durability_name(durability: Durability) -> String {
    match durability {
        Durability::EveryGroup => "group".into(),
        Durability::Interval(every) => format!("interval:{}us", every.as_micros()),
        Durability::Manual => "manual".into(),
    }
}
