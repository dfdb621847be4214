//! Which positions hold nothing any more: what `truncate_after` cut out of the log.
//!
//! A cut group at `to` that states `from` makes everything in `[from, to)` void. Nothing is erased.
//!
//! Invariants:
//! 1. A range is added before the durable end passes its cut group: who reads below the durable end
//!    knows of every cut below it.
//! 2. Ranges are disjoint and ascend: one that a later cut covers is part of that one.
//! 3. `count` is the number of cuts made; it changes after the ranges have.

use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::sys::sync::{AtomicU64, Mutex, Ordering, lock};

/// Everything in `[from, to)` is void.
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

    /// Adds a cut above all others.
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

    /// Forgets the ranges that lie below the oldest position that is kept: nothing is read there any more.
    pub(crate) fn forget_below(&self, oldest: u64) {
        if self.count() == 0 {
            return;
        }
        let mut ranges = lock(&self.ranges);
        let gone = ranges.partition_point(|cut| cut.to <= oldest);
        // The newest stays: it says which cut was the last.
        let most = ranges.len().saturating_sub(1);
        ranges.drain(..gone.min(most));
    }

    /// How many there were so far: unchanged, nothing was cut meanwhile.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// The newest cut group; 0 if there is none.
    pub(crate) fn newest(&self) -> u64 {
        match self.count() {
            0 => 0,
            _ => lock(&self.ranges).last().map_or(0, |cut| cut.to),
        }
    }

    /// The cut that made `lsn` void.
    #[inline]
    pub(crate) fn at(&self, lsn: u64) -> Option<Cut> {
        if self.count() == 0 {
            return None;
        }
        let ranges = lock(&self.ranges);
        let at = ranges.partition_point(|cut| cut.to <= lsn);
        ranges.get(at).filter(|cut| cut.from <= lsn).copied()
    }

    /// Where the first void range above `lsn` begins.
    pub(crate) fn next_from(&self, lsn: u64) -> Option<u64> {
        if self.count() == 0 {
            return None;
        }
        let ranges = lock(&self.ranges);
        let at = ranges.partition_point(|cut| cut.from <= lsn);
        ranges.get(at).map(|cut| cut.from)
    }

    /// Refuses a void position.
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
    fn ranges_stay_disjoint_whatever_is_cut() {
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
        // From the middle of the last one on, and then over everything.
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
    fn ranges_below_the_oldest_are_forgotten_and_the_newest_is_kept() {
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
