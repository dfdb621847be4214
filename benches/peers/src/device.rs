//! The flushes that the disk was asked for, and what they say about a run.
//!
//! The counter is the sixteenth field of the whole disk's `stat` in sysfs. It counts everybody's
//! flushes, so a busy machine can hide a log that does not sync; it cannot make a log that does look
//! as if it did not. What others flush between the rounds is reported.

use std::path::Path;

use loadgen::log_dir::device::Device;

/// The flush counter of the disk under a directory.
#[derive(Debug)]
pub struct Flushes(Device);

impl Flushes {
    /// For the disk under `directory`.
    pub fn under(directory: &Path) -> Self {
        Flushes(Device::under(directory))
    }

    /// Its reading now; `None` where the system does not tell.
    pub fn read(&self) -> Option<u64> {
        self.0.flushes()
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

/// Whether so many flushes can have made `commits` durable, where each of `threads` threads waits for
/// its own commit: a flush serves one commit of each thread at most. A tenth is left for groups that
/// straddle the ends of the measured time.
pub fn plausible(flushes: u64, commits: u64, threads: u64) -> bool {
    flushes > 0 && u128::from(flushes) * u128::from(threads) * 10 >= u128::from(commits) * 9
}
