//! How many groups are worth having in flight before more are left to fill. ARCHITECTURE.md has the
//! measurements behind each line.

use std::time::Duration;

use crate::io::backend::Method;

/// Bytes up to which a group's time on the device is its sync's, not its transfer's.
const SMALL: u32 = 64 << 10;
/// Records up to which a group is a few committers', whose wait is the device's latency.
const FEW: u32 = 16;

#[derive(Debug, Clone, Copy)]
pub(super) struct CommitPace {
    pub(super) depth: usize,
    /// Every group is synced, rather than several at a time.
    pub(super) every_group: bool,
    last_len: u32,
    last_records: u32,
    /// When the last group of records was submitted, and how long it takes from one to the next, at most, as of late.
    last_at: Option<u64>,
    gap: u64,
}

/// Nanoseconds between groups beyond which they are no traffic.
const LONGEST_GAP: u64 = 5_000_000_000;

impl CommitPace {
    pub(super) fn new(depth: usize, every_group: bool) -> Self {
        CommitPace { depth, every_group, last_len: 0, last_records: 0, last_at: None, gap: 0 }
    }

    pub(super) fn submitted(&mut self, len: u32, records: u32) {
        self.last_len = len;
        self.last_records = records;
    }

    /// A group of records was submitted.
    pub(super) fn records_at(&mut self, now: u64) {
        if let Some(last) = self.last_at.replace(now) {
            let gap = now.saturating_sub(last).min(LONGEST_GAP);
            self.gap = gap.max(self.gap - self.gap / 8);
        }
    }

    /// Nanoseconds without a group after which the log is idle and is sealed: twice what passes between groups, so that
    /// one that comes regularly is not followed by a mark of its own, which takes as many bytes as it does. The mark in
    /// the next group's header serves as well.
    pub(super) fn pause(&self, idle_seal: Duration) -> Duration {
        idle_seal.max(Duration::from_nanos(2 * self.gap))
    }

    /// With fewer groups than this in flight an extent is sealed as soon as it holds anything; with
    /// more, it is left to fill.
    ///
    /// Large groups keep the device busy one at a time. Small ones of few records are synced side by
    /// side where the device gains from that: nobody else has anything to add to them. Small ones of
    /// many records cost more processor than device, so that fewer and larger are faster; a linked
    /// sync, being a second trip, leaves room for one more.
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
    fn few_committers_are_synced_side_by_side() {
        for method in [Method::Linked, Method::Dsync] {
            assert_eq!(eager(4096, 4, method, true), 4);
            assert_eq!(eager(65_536, 16, method, true), 4);
        }
    }

    #[test]
    fn a_crowd_and_large_groups_coalesce() {
        assert_eq!(eager(4096, 40, Method::Dsync, true), 1);
        assert_eq!(eager(4096, 40, Method::Linked, true), 2);
        assert_eq!(eager(1 << 20, 4, Method::Linked, true), 1);
    }

    #[test]
    fn where_parallel_syncs_gain_nothing_one_sync_serves_all_that_came_meanwhile() {
        assert_eq!(eager(4096, 4, Method::Dsync, false), 1);
        assert_eq!(eager(4096, 40, Method::Linked, false), 1);
    }

    #[test]
    fn groups_that_come_regularly_are_sealed_once_after_the_last() {
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
    fn the_depth_bounds_it_and_other_modes_do_not_sync_groups() {
        let mut pace = CommitPace::new(1, true);
        pace.submitted(4096, 40);
        assert_eq!(pace.eager(Method::Linked, true), 1);
        assert_eq!(CommitPace::new(4, false).eager(Method::Dsync, true), 1);
    }
}
