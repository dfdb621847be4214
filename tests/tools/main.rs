//! The rules of the tree, and the example programs.
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

mod examples;
mod packages;
mod tables_by_tag;
mod tidy;
mod tidy_code;
mod tidy_text;
