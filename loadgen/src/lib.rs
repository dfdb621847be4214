//! Drives a [`ringwal`] log, measures it beside the raw device, and verifies what it kept.
//!
//! The binary is a thin shell around this library; other suites use its parts:
//!
//! - [`engine`]: what a log is to the workloads; others than ringwal implement it and are driven in the same way;
//! - [`workload`]: threads or tasks that append to an open log, with latencies worth trusting;
//! - [`baseline`]: the same writes without an engine;
//! - [`bench`](mod@bench): the suite W1 to W9, each workload beside its limit;
//! - [`ledger`] and [`verify`](mod@verify): a replay held against what was acknowledged;
//! - [`bars`] and [`hgrm`]: latencies for people and for plotters.

pub mod ab;
mod background;
pub mod bars;
pub mod baseline;
pub mod bench;
pub mod cli;
pub mod compare;
pub mod crash;
pub mod device;
pub mod directory;
pub mod engine;
pub mod environment;
mod error;
pub mod generate;
pub mod hgrm;
pub mod html;
pub mod input;
mod latency;
pub mod ledger;
pub mod output;
pub mod payload;
pub mod probe;
pub mod progress;
pub mod readers;
pub mod report;
pub mod require;
pub mod run;
pub mod series;
pub mod settings;
pub mod statistics;
pub mod stop;
pub mod sweep;
pub mod units;
pub mod usage;
pub mod verify;
pub mod workload;

pub use error::Error;
pub use latency::{Intervals, Latencies};
