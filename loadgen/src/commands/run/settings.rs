//! The settings of a log that stays within the disk.

use ringwal::{Wal, WalBuilder};

use crate::cli::Args;
use crate::error::Error;
use crate::log_dir::RunDir;

/// Settings of the log, and its use of the disk.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The builder without retention.
    builder: WalBuilder,
    /// Bytes of a segment file.
    pub segment_size: u64,
    /// Bytes that retention keeps of each log at most, if there is retention.
    pub retention: Option<u64>,
    /// Bytes that a run may write in total without recycling.
    pub budget: Option<u64>,
    /// Bytes of the file for the baseline.
    pub baseline_area: u64,
    /// Logs that share the disk.
    pub logs: usize,
}

const DEFAULT_RETENTION: u64 = 1 << 30;
const DEFAULT_BUDGET: u64 = 4 << 30;
const DEFAULT_SEGMENT: u64 = 64 << 20;
const SMALLEST_SEGMENT: u64 = 1 << 20;
const BASELINE_AREA: u64 = 256 << 20;
const SMALLEST_DISK: u64 = 8 << 20;
/// Bytes of a record that fits in every log, even with the smallest segments.
const SMALL_RECORD: usize = 2048;

impl Settings {
    /// Computes the settings for a log in `dir`. The size of the largest record may be known.
    ///
    /// # Errors
    ///
    /// [`Error::NoRoom`]; [`Error::Usage`] for settings that would delete existing records.
    pub fn new(args: &Args, dir: &RunDir, largest: Option<usize>) -> Result<Self, Error> {
        let existing = dir.holds_log();
        if existing && args.max_disk.is_some() && !args.no_recycle {
            let text = "--max-disk would delete the oldest records of the log in --dir; leave it \
                        away, give --no-recycle, or another directory";
            return Err(Error::Usage(text.into()));
        }
        let recycle = !existing && !args.no_recycle;
        let disk = Disk::new(args, dir, recycle)?;
        if recycle && disk.limit / 2 < disk.segment_size {
            let each = if args.logs > 1 { " for each log" } else { "" };
            let text = format!(
                "--segment-size is {}, of which --max-disk, {} here{each}, must hold two; give smaller segments, or more disk",
                disk.segment_size, disk.limit
            );
            return Err(Error::Usage(text));
        }
        let mut builder = Wal::builder(dir.path())
            .segment_size(disk.segment_size)
            .durability(args.durability)
            .backend(args.backend.into())
            .commit_method(args.commit_method);
        if let Some(depth) = args.depth {
            builder = builder.depth(depth);
        }
        if let Some(delay) = args.commit_delay {
            builder = builder.commit_delay(delay);
        }
        if let Some(ring) = args.ring {
            builder = builder.ring_capacity(usize::try_from(ring).unwrap_or(usize::MAX));
        }
        if let Some(max) = args.max_record {
            builder = builder.max_record_size(usize::try_from(max).unwrap_or(usize::MAX));
        } else if let Some(largest) = largest.filter(|largest| *largest > SMALL_RECORD) {
            builder = builder.max_record_size(largest);
        }
        Ok(Settings {
            builder,
            segment_size: disk.segment_size,
            retention: recycle.then_some(disk.limit),
            budget: (!recycle).then_some(disk.limit * args.logs as u64),
            baseline_area: disk.baseline_area,
            logs: args.logs,
        })
    }

    /// Returns the builder of the log with this number, with retention.
    pub fn builder(&self, number: usize) -> WalBuilder {
        let builder = self.builder_keeping_all(number);
        match self.retention {
            Some(bytes) => builder.max_total_bytes(bytes),
            None => builder,
        }
    }

    /// Returns the builder without retention, with which an open removes nothing.
    pub fn builder_keeping_all(&self, number: usize) -> WalBuilder {
        match self.logs {
            0 | 1 => self.builder.clone(),
            _ => self.builder.clone().prefix(format!("log{number}")),
        }
    }

    /// Returns the segments that retention can keep, including those being removed.
    #[must_use]
    pub fn kept_segments(&self) -> usize {
        let kept = |bytes: u64| usize::try_from(bytes / self.segment_size.max(1)).ok();
        self.retention.and_then(kept).map_or(usize::MAX, |n| n.saturating_mul(2).saturating_add(16))
    }

    /// True if the next interval could exceed the disk budget.
    #[must_use]
    pub fn budget_is_spent(&self, written: u64) -> bool {
        self.budget.is_some_and(|budget| {
            // Bytes written between two checks, and segments prepared ahead.
            let ahead = 2 * self.segment_size * self.logs as u64;
            let slack = (budget / 8).max(128 << 20) + ahead;
            written >= budget.saturating_sub(slack.min(budget / 2))
        })
    }
}

/// Divides the space on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Disk {
    limit: u64,
    segment_size: u64,
    baseline_area: u64,
}

impl Disk {
    fn new(args: &Args, dir: &RunDir, recycle: bool) -> Result<Self, Error> {
        let default = if recycle { DEFAULT_RETENTION } else { DEFAULT_BUDGET };
        let asked = args.max_disk.unwrap_or(default);
        let free = dir.free_bytes().unwrap_or(u64::MAX);
        let logs = args.logs as u64;
        Self::divide(asked, free, args.segment_size, logs).ok_or_else(|| Error::NoRoom {
            path: dir.path().into(),
            free,
            needed: SMALLEST_DISK * 2 * logs,
        })
    }

    /// Divides the disk among this many logs, at least one. The limit is that of each.
    fn divide(asked: u64, free: u64, segment_size: Option<u64>, logs: u64) -> Option<Disk> {
        // Leaves a tenth to others. The baseline gets a fifth at most.
        let usable = free / 10 * 9;
        let baseline_area = BASELINE_AREA.min(usable / 5);
        let limit = asked.min(usable - baseline_area);
        // --max-disk also bounds the file of the raw device.
        let baseline_area = baseline_area.min(limit);
        let limit = limit / logs;
        if limit < SMALLEST_DISK.min(asked / logs) {
            return None;
        }
        let fitting = (limit / 8).max(SMALLEST_SEGMENT);
        let fitting = DEFAULT_SEGMENT.min(1 << fitting.ilog2());
        Some(Disk { limit, segment_size: segment_size.unwrap_or(fitting), baseline_area })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::Stop;
    use clap::Parser;
    use std::sync::Arc;

    #[test]
    fn existing_log_gets_no_retention() {
        let stop = Arc::new(Stop::default());
        let path = std::env::temp_dir().join(format!("loadgen-set-{}", std::process::id()));
        let dir = RunDir::given(&path, false, &stop).unwrap();
        let settings = |line: &str| {
            let line = std::iter::once("loadgen").chain(line.split_whitespace());
            Settings::new(&Args::try_parse_from(line).unwrap(), &dir, Some(100))
        };
        let fresh = settings("").unwrap();
        assert!(fresh.retention.is_some() && fresh.budget.is_none());
        assert!(settings("--no-recycle").unwrap().retention.is_none());
        std::fs::write(path.join("wal.00000000000000000000.wal"), b"").unwrap();
        let existing = settings("").unwrap();
        assert!(existing.retention.is_none());
        assert!(!existing.budget_is_spent(1 << 30) && existing.budget_is_spent(4 << 30));
        assert!(settings("--no-recycle --max-disk 1g").unwrap().retention.is_none());
        assert_eq!(settings("--max-disk 1g").unwrap_err().exit_status(), 2);
    }

    #[test]
    fn large_disk_gives_the_requested_sizes() {
        let disk = Disk::divide(1 << 30, 1 << 40, None, 1).unwrap();
        let expected =
            Disk { limit: 1 << 30, segment_size: DEFAULT_SEGMENT, baseline_area: BASELINE_AREA };
        assert_eq!(disk, expected);
        assert_eq!(Disk::divide(1 << 30, u64::MAX, None, 1), Some(expected));
    }

    #[test]
    fn small_disk_gives_smaller_segments() {
        for free in [20u64 << 20, 100 << 20, 700 << 20, 3 << 30] {
            let disk = Disk::divide(4 << 30, free, None, 1).unwrap();
            assert!(disk.limit + disk.baseline_area < free, "{disk:?}");
            assert!(disk.limit >= 8 * disk.segment_size || disk.segment_size == SMALLEST_SEGMENT);
        }
        assert_eq!(Disk::divide(1 << 30, 1 << 20, None, 1), None);
        assert_eq!(Disk::divide(1 << 30, 0, None, 1), None);
        let disk = Disk::divide(12 << 20, 1 << 40, None, 1).unwrap();
        assert_eq!(disk.baseline_area, 12 << 20);
        let disk = Disk::divide(1 << 30, 1 << 40, Some(4096 * 5), 1).unwrap();
        assert_eq!(disk.segment_size, 4096 * 5);
    }

    #[test]
    fn logs_share_the_disk() {
        let (one, four) =
            (Disk::divide(1 << 30, 1 << 40, None, 1), Disk::divide(1 << 30, 1 << 40, None, 4));
        let (one, four) = (one.unwrap(), four.unwrap());
        assert_eq!((four.limit * 4, four.baseline_area), (one.limit, one.baseline_area));
        assert_eq!(four.segment_size * 2, one.segment_size);
        assert_eq!(Disk::divide(1 << 30, 100 << 20, None, 40), None, "2 MiB for each");
    }
}
