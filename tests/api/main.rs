//! Each call of the library: what it does, refuses and promises.
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

mod batches;
mod cells;
mod creation;
mod dropped;
mod durable_end_listener;
mod extremes;
mod handles;
mod least_sizes;
mod modes;
mod owned_appends;
mod refusals;
mod stats;
mod streams;
mod typed;
mod unpolled;
mod user_code;
mod waking;
