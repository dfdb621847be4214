//! Drives a [`ringwal`] log, measures it beside the raw device, and verifies what the log kept.
//!
//! The binary is a thin shell around this library. Other suites use its parts, for example
//! [`engine`] and [`workload`] to drive another log with the same threads, records and clocks.
//!
//! # Modules
//!
//! A module imports modules of its own row and of rows above it, never of a row below it.
//!
//! | module | contents |
//! |---|---|
//! | `random` | pseudo-random numbers |
//! | `units` | sizes and durations, in and out of text |
//! | `engine` | the interface of a log to the workloads; ringwal and other logs implement it |
//! | `error` | the error of every command, and its exit status |
//! | `stop` | the end of a run: a signal, a deadline, a failure, or the last record |
//! | `logs` | one or several logs as one engine |
//! | `log_dir` | the directory of a log, its free space, and the block device below it |
//! | `measure` | latencies, series over time, processor time, conditions, statistics |
//! | `output` | every file that a command writes, and the progress on the terminal |
//! | `raw` | the same writes without an engine, and the published rules for disks |
//! | `workload` | threads or tasks that append, readers beside them, and the verification |
//! | `cli` | the command line |
//! | `commands` | one run, `device`, `sweep`, `bench`, `compare`, `ab` and `crash` |
//! | `report` | tables, JSON, histograms and pages of the results |

pub mod cli;
pub mod commands;
pub mod engine;
mod error;
pub mod log_dir;
pub mod logs;
pub mod measure;
pub mod output;
mod random;
pub mod raw;
pub mod report;
pub mod stop;
pub mod units;
pub mod workload;

pub use error::Error;
pub use measure::latency::{Intervals, Latencies};
