//! Durability: which records survive, on both backends, under load, and on a simulated disk.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they did or skipped")]

#[path = "../support/child.rs"]
#[allow(dead_code, unreachable_pub, reason = "each story needs a part")]
mod child;
#[cfg(target_os = "linux")]
#[path = "../support/mounted.rs"]
#[allow(dead_code, unreachable_pub, reason = "each story needs a part")]
mod mounted;
#[path = "../support/mod.rs"]
mod support;

mod commit_method;
mod lone_committer;
mod simulated;
mod torture;
