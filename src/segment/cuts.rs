//! Cuts: the ranges of positions that `truncate_from` made void.
//!
//! A cut group at `to` that states `from` makes `[from, to)` void. The bytes stay.
//!
//! 1. A range is added before the durable end passes its cut group. So a reader below the durable
//!    end knows of every cut below it.
//! 2. Ranges are disjoint and ascend. A later cut that overlaps earlier ranges absorbs them.
//! 3. `count` is the number of cuts so far. It changes after the ranges do.

use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::sys::sync::{AtomicU64, Mutex, Ordering, lock};

/// A void range, `[from, to)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

#[derive(Debug)]
pub(crate) struct Cuts {
    ranges: Mutex<Vec<Cut>>,
    count: AtomicU64,
}

impl Cuts {
    pub(crate) fn new() -> Self {
        Cuts { ranges: Mutex::new(Vec::new()), count: AtomicU64::new(0) }
    }

    /// Adds a cut whose group lies above all others.
    pub(crate) fn add(&self, cut: Cut) {
        let mut ranges = lock(&self.ranges);
        let mut from = cut.from;
        while let Some(last) = ranges.pop_if(|last| last.to > cut.from) {
            from = from.min(last.from);
        }
        ranges.push(Cut { from, ..cut });
        drop(ranges);
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// Drops the ranges below the oldest position that the log keeps. No reader reads there.
    pub(crate) fn forget_below(&self, oldest: u64) {
        if self.count() == 0 {
            return;
        }
        let mut ranges = lock(&self.ranges);
        let gone = ranges.partition_point(|cut| cut.to <= oldest);
        // The newest range stays: it states which cut was the last.
        let most = ranges.len().saturating_sub(1);
        ranges.drain(..gone.min(most));
    }

    /// The number of cuts so far. While it is unchanged, nothing was cut.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Address of the newest cut group; 0 if there is none.
    pub(crate) fn newest(&self) -> u64 {
        match self.count() {
            0 => 0,
            _ => lock(&self.ranges).last().map_or(0, |cut| cut.to),
        }
    }

    /// The cut that made `lsn` void, if one did.
    #[inline]
    pub(crate) fn at(&self, lsn: u64) -> Option<Cut> {
        if self.count() == 0 {
            return None;
        }
        let ranges = lock(&self.ranges);
        let at = ranges.partition_point(|cut| cut.to <= lsn);
        ranges.get(at).filter(|cut| cut.from <= lsn).copied()
    }

    /// The start of the first void range above `lsn`.
    pub(crate) fn next_from(&self, lsn: u64) -> Option<u64> {
        if self.count() == 0 {
            return None;
        }
        let ranges = lock(&self.ranges);
        let at = ranges.partition_point(|cut| cut.from <= lsn);
        ranges.get(at).map(|cut| cut.from)
    }

    /// Fails with `Truncated` if `lsn` is void.
    #[inline]
    pub(crate) fn check(&self, lsn: u64) -> Result<()> {
        match self.at(lsn) {
            None => Ok(()),
            Some(cut) => Err(Error::Truncated { from: Lsn::new(cut.from), to: Lsn::new(cut.to) }),
        }
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    #[test]
    fn overlapping_cuts_leave_disjoint_ranges() {
        let cuts = Cuts::new();
        assert_eq!(cuts.at(5), None);
        cuts.add(Cut { from: 10, to: 20 });
        cuts.add(Cut { from: 30, to: 40 });
        let void = |lsn| cuts.at(lsn).map(|cut| (cut.from, cut.to));
        assert_eq!(
            [9, 10, 19, 20, 29, 30, 40].map(void),
            [None, Some((10, 20)), Some((10, 20)), None, None, Some((30, 40)), None]
        );
        assert_eq!([0, 10, 30].map(|lsn| cuts.next_from(lsn)), [Some(10), Some(30), None]);
        // From the middle of the last range on, and then over all ranges.
        cuts.add(Cut { from: 35, to: 50 });
        assert_eq!(void(45), Some((30, 50)));
        cuts.add(Cut { from: 5, to: 60 });
        assert_eq!(
            [4, 5, 25, 59, 60].map(void),
            [None, Some((5, 60)), Some((5, 60)), Some((5, 60)), None]
        );
        assert_eq!(cuts.count(), 4);
    }

    #[test]
    fn ranges_below_the_oldest_are_dropped_except_the_newest() {
        let cuts = Cuts::new();
        cuts.forget_below(100);
        for n in 1..=1000 {
            cuts.add(Cut { from: n * 100, to: n * 100 + 50 });
            cuts.forget_below(n * 100);
            assert!(lock(&cuts.ranges).len() <= 2, "{n}");
        }
        assert_eq!((cuts.newest(), cuts.count()), (100_050, 1000));
        cuts.forget_below(u64::MAX);
        assert_eq!((cuts.newest(), cuts.count()), (100_050, 1000));
    }
}
