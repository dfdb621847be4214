//! Reading and following, in the writer's process and from another process.
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

mod ahead;
mod backward;
mod following;
mod opening_beside_retention;
mod other_processes;
mod places;
mod read_only;
mod read_only_beside_a_writer;
mod shared_records;
mod survey_beside_a_writer;
mod tags;
mod work_queue;
