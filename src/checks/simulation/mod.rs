//! The whole engine on a simulated disk, on one thread, from a seed.
//!
//! A *life* opens the log, works, and ends: by a close, by a crash at some operation, by the death of
//! the process alone, or by an injected error and one of these. After each, the oracle compares what
//! is read back with what was appended: exact content and positions, every acknowledged record, no
//! gap, nothing resurrected, whole batches. So it is done for further images of each crash, which
//! nobody lives in. A seed that fails prints the command that replays it.
#![allow(clippy::print_stdout, reason = "tests say what they did")]

mod crashes;
mod damage;
mod damaged_lives;
mod faults;
mod ledger;
mod oracle;
mod restarts;
mod seeds;
mod side_files;
mod tally;
mod whole_files;
mod world;

/// The value of an environment variable.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn long() -> bool {
    std::env::var_os("RINGWAL_LONG").is_some()
}

/// A world allocates and frees the same buffers over and over: three quarters of the time would go
/// to the kernel, which gives out zeroed pages and takes them back.
fn keep_freed_memory() {
    #[cfg(all(linux_calls, target_env = "gnu"))]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            use nix::libc::{M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD, mallopt};
            // SAFETY: sets thresholds of the allocator, which keeps its own lock; a refusal leaves
            // the defaults.
            unsafe {
                mallopt(M_MMAP_THRESHOLD, 1 << 30);
                mallopt(M_TRIM_THRESHOLD, 1 << 30);
                mallopt(M_TOP_PAD, 64 << 20);
            }
        });
    }
}
