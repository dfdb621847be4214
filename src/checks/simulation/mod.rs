//! The whole engine on a simulated disk, on one thread, from a seed.
//!
//! A *life* opens the log, works, and ends: by a close, by a crash at some operation, by the death
//! of the process alone, or by an injected error and one of these. After each life the oracle
//! compares the records that are read with those that were appended: exact content and positions,
//! every acknowledged record, no gap, no resurrected record, whole batches. The oracle checks
//! further images of each crash in the same way. A seed that fails prints the command that replays
//! it.
#![allow(clippy::print_stdout, reason = "tests say what they did")]

mod cells;
mod crashes;
mod damage;
mod damaged_lives;
mod faults;
mod ledger;
mod oracle;
mod restarts;
mod seeds;
mod side_files;
mod tags;
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

/// Keeps the allocator from returning memory to the kernel. A world allocates and frees the same
/// buffers repeatedly; zeroing pages would take three quarters of the time.
fn keep_freed_memory() {
    #[cfg(all(linux_calls, target_env = "gnu"))]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            use nix::libc::{M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD, mallopt};
            // SAFETY: the calls set thresholds of the allocator, under its own lock. If it refuses
            // one, the default stays.
            unsafe {
                mallopt(M_MMAP_THRESHOLD, 1 << 30);
                mallopt(M_TRIM_THRESHOLD, 1 << 30);
                mallopt(M_TOP_PAD, 64 << 20);
            }
        });
    }
}
