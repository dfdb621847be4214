//! Opening a directory: the format on disk, recovery, and cuts.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they did or skipped")]

#[cfg(target_os = "linux")]
#[path = "../support/child.rs"]
#[allow(dead_code, unreachable_pub, reason = "each story needs a part")]
mod child;
#[cfg(target_os = "linux")]
#[path = "../support/mounted.rs"]
#[allow(dead_code, unreachable_pub, reason = "each story needs a part")]
mod mounted;
#[path = "../support/mod.rs"]
mod support;

mod golden_cells;
mod golden_format;
mod golden_tags;
mod judgement;
mod padding;
mod refitted;
mod reopening;
mod restarts;
mod truncation;
mod unwritten;
