//! How many groups are in flight before the next extent is left to fill. docs/design/commit.md has
//! the measurements.

use std::time::Duration;

use crate::io::backend::Method;

/// Bytes up to which the sync takes most of a group's time on the device, and not the transfer.
const SMALL: u32 = 64 << 10;
/// Records up to which a group belongs to a few committers, which wait for the latency of the
/// device.
const FEW: u32 = 16;

#[derive(Debug, Clone, Copy)]
pub(super) struct CommitPace {
    pub(super) depth: usize,
    /// Whether every group is synced, and not several at a time.
    pub(super) every_group: bool,
    last_len: u32,
    last_records: u32,
    /// When the last group of records was submitted, by the clock, and the longest recent pause
    /// between two such groups.
    last_at: Option<u64>,
    gap: u64,
}

/// Nanoseconds between two groups from which on the log counts as idle.
const LONGEST_GAP: u64 = 5_000_000_000;

impl CommitPace {
    pub(super) fn new(depth: usize, every_group: bool) -> Self {
        CommitPace { depth, every_group, last_len: 0, last_records: 0, last_at: None, gap: 0 }
    }

    pub(super) fn submitted(&mut self, len: u32, records: u32) {
        self.last_len = len;
        self.last_records = records;
    }

    /// Records of the last group.
    pub(super) fn last_records(&self) -> u32 {
        self.last_records
    }

    /// Notes that a group of records was submitted.
    pub(super) fn records_at(&mut self, now: u64) {
        if let Some(last) = self.last_at.replace(now) {
            let gap = now.saturating_sub(last).min(LONGEST_GAP);
            self.gap = gap.max(self.gap - self.gap / 8);
        }
    }

    /// The time without a group after which an idle log gets a mark: at least twice the pause
    /// between groups. So a group that comes regularly is not followed by a mark, which takes as
    /// many bytes. The durable mark in the next group's header serves as well.
    pub(super) fn pause(&self, idle_seal: Duration) -> Duration {
        idle_seal.max(Duration::from_nanos(2 * self.gap))
    }

    /// With fewer groups than this in flight, an extent is sealed as soon as it holds a record.
    /// With more, it is left to fill.
    ///
    /// One large group keeps the device busy. Small groups of few records are synced side by side
    /// if the device gains from that, because no other record waits for them. Small groups of many
    /// records cost more processor time than device time, so fewer and larger ones are faster. A
    /// linked sync is a second round trip, which leaves time for one more group.
    pub(super) fn eager(&self, method: Method, parallel: bool) -> usize {
        let worth = if !self.every_group || self.last_len > SMALL || !parallel {
            1
        } else if self.last_records <= FEW {
            self.depth
        } else if method == Method::Linked {
            2
        } else {
            1
        };
        worth.min(self.depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eager(len: u32, records: u32, method: Method, parallel: bool) -> usize {
        let mut pace = CommitPace::new(4, true);
        pace.submitted(len, records);
        pace.eager(method, parallel)
    }

    #[test]
    fn groups_of_few_committers_are_synced_side_by_side() {
        for method in [Method::Linked, Method::Dsync] {
            assert_eq!(eager(4096, 4, method, true), 4);
            assert_eq!(eager(65_536, 16, method, true), 4);
        }
    }

    #[test]
    fn groups_that_are_large_or_have_many_records_are_written_one_at_a_time() {
        assert_eq!(eager(4096, 40, Method::Dsync, true), 1);
        assert_eq!(eager(4096, 40, Method::Linked, true), 2);
        assert_eq!(eager(1 << 20, 4, Method::Linked, true), 1);
    }

    #[test]
    fn groups_on_a_device_without_gain_from_parallel_syncs_are_written_one_at_a_time() {
        assert_eq!(eager(4096, 4, Method::Dsync, false), 1);
        assert_eq!(eager(4096, 40, Method::Linked, false), 1);
    }

    #[test]
    fn groups_that_come_regularly_get_one_mark_after_the_last() {
        const MS: u64 = 1_000_000;
        let idle_seal = Duration::from_millis(20);
        let mut pace = CommitPace::new(4, true);
        pace.records_at(0);
        assert_eq!(pace.pause(idle_seal), idle_seal);
        for n in 1..100 {
            pace.records_at(n * 100 * MS);
            assert!(pace.pause(idle_seal) > Duration::from_millis(100));
        }
        for n in 0..200 {
            pace.records_at((10_000 + n) * MS);
        }
        assert_eq!(pace.pause(idle_seal), idle_seal, "a busy log is sealed soon");
        pace.records_at(u64::MAX);
        assert!(pace.pause(idle_seal) <= Duration::from_secs(10));
        assert_eq!(pace.pause(Duration::MAX), Duration::MAX);
    }

    #[test]
    fn groups_in_flight_are_bounded_by_the_depth_in_every_mode() {
        let mut pace = CommitPace::new(1, true);
        pace.submitted(4096, 40);
        assert_eq!(pace.eager(Method::Linked, true), 1);
        assert_eq!(CommitPace::new(4, false).eager(Method::Dsync, true), 1);
    }
}
