//! Retention: which segments are removed, and which stay for a reader, a consumer or the hook.
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

mod clocks;
mod consumer_positions;
mod consumers;
mod limits;
mod sealed;
mod spares;
mod tag_floors;
