//! The engine in restricted environments: one file for each kind of restriction.
//!
//! A case that needs root, a namespace, a filesystem or a kernel feature skips with a message that
//! names what is missing. A case that changes its process (user, root directory, seccomp filter)
//! runs in a process of its own: see `support/child.rs`.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a skipped test says why")]

mod locks;

#[path = "../support/child.rs"]
#[allow(dead_code, unreachable_pub, reason = "each user needs a part")]
mod child;
mod descriptors;
#[path = "../support/mounted.rs"]
#[allow(dead_code, unreachable_pub, reason = "each user needs a part")]
mod mounted;
mod side_files;
#[path = "../support/mod.rs"]
mod support;

mod filesystems;
mod neighbours;
mod privileges;

/// Prints why a test does not run here.
#[allow(dead_code, reason = "not every machine skips")]
fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

mod cells;
mod degraded;
mod disk_full;
mod no_room;
mod page_faults;
mod reading_ahead;
mod sandbox;
mod shared_threads;
mod stalled;
mod sysctl;
