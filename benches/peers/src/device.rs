//! Counts the flushes of the disk, and judges a run by them.
//!
//! The counter is the sixteenth field of the whole disk's `stat` in sysfs. It counts the flushes of
//! all processes. So a busy machine can hide a log that does not sync, but never discredits one
//! that does. The suite reports the flushes of other processes between rounds.

use std::path::Path;

use loadgen::log_dir::device::Device;

/// The flush counter of the disk under a directory.
#[derive(Debug)]
pub struct Flushes(Device);

impl Flushes {
    /// Finds the counter of the disk under `directory`.
    pub fn under(directory: &Path) -> Self {
        Flushes(Device::under(directory))
    }

    /// Reads the counter. `None`: the system has none, or the disk has no volatile cache, so that
    /// the kernel sends it no flush.
    pub fn read(&self) -> Option<u64> {
        let needs_none = self.0.write_cache.as_deref() == Some("write through");
        if needs_none { None } else { self.0.flushes() }
    }

    /// The disk and its filesystem, in words.
    pub fn describe(&self) -> String {
        let unknown = || "?".to_string();
        let name = self.0.name.clone().unwrap_or_else(unknown);
        let filesystem = self.0.filesystem.clone().unwrap_or_else(unknown);
        let cache = self.0.write_cache.clone().unwrap_or_else(unknown);
        let fua = if self.0.fua == Some(true) { "FUA" } else { "no FUA" };
        format!("{name}, {filesystem}, {cache} cache, {fua}")
    }
}

/// Flushes between two readings.
pub fn between(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    after?.checked_sub(before?)
}

/// Whether so many flushes can have made `commits` durable. Each of `threads` threads waits for its
/// own commit, so a flush serves at most one commit of each thread. A tenth is allowed for groups
/// that straddle the ends of the measured time.
pub fn plausible(flushes: u64, commits: u64, threads: u64) -> bool {
    flushes > 0 && u128::from(flushes) * u128::from(threads) * 10 >= u128::from(commits) * 9
}
