//! What the adapter knows of one Raft group, in memory.
//!
//! 1. `places` has the position of every live entry, without a gap, from index `first` on.
//! 2. The cache holds a run of the newest entries, which ends at the last one. Every entry that is
//!    not durable is in it, because the log itself delivers durable records only.
//! 3. A task that appends a record of the group holds `writing`, so that the order in the log is
//!    the order in which `state` changed.
//! 4. Entries are appended in ascending order. An entry that was appended again lies higher than
//!    entries that follow it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringwal::Lsn;

use crate::error::{LogError, Result};
use crate::record::{Record, State};

/// A group of the log.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: u64,
    /// Held from before a record of the group is appended until `state` has its position.
    pub(crate) writing: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

impl Group {
    pub(crate) fn new(id: u64, known: Known) -> Self {
        Group { id, writing: tokio::sync::Mutex::new(()), known: Mutex::new(known) }
    }

    /// Waits until no task appends a record of the group, and keeps others from it. Blocks.
    pub(crate) fn lock(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.writing.try_lock().unwrap_or_else(|_| self.writing.blocking_lock())
    }

    /// Locked for a few instructions at a time, never across an append or a read.
    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Cached(Record),
    At(Lsn),
}

#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Index of the first entry of `places`.
    first: u64,
    places: VecDeque<Lsn>,
    /// The index after the last entry that was appended again. From here on `places` ascends.
    moved_end: u64,
    /// The newest entries.
    cache: VecDeque<Record>,
    cached_bytes: usize,
    pub(crate) state: State,
    /// Where the newest state record is, if there is one.
    pub(crate) state_at: Option<Lsn>,
    /// An entry was entered. Unknown after an opening if the entries and their records are gone.
    begun: bool,
    /// The group was removed, and nothing was appended since.
    removed: bool,
}

impl Known {
    /// Checks that entries with these indexes can be appended, in this order. One that is lower
    /// than the next index replaces entries.
    pub(crate) fn check(&self, group: u64, indexes: impl Iterator<Item = u64>) -> Result<()> {
        // Only the first entry of a group may have any index.
        let mut next = match self.state.purged_index {
            _ if !self.places.is_empty() => self.end(),
            Some(purged) => purged.saturating_add(1),
            // A group may begin at 1: a log id with the index 0 is openraft's own.
            None if self.begun => 1,
            None => u64::MAX,
        };
        let purged = self.state.purged_index.filter(|_| self.state.purged.is_some());
        for index in indexes {
            if index == u64::MAX {
                return Err(LogError::IndexLimit { group });
            }
            if let Some(purged) = purged.filter(|purged| index <= *purged) {
                return Err(LogError::Purged { group, index, purged });
            }
            if index > next {
                return Err(LogError::Gap { group, index, last: next.checked_sub(1) });
            }
            next = index + 1;
        }
        Ok(())
    }

    /// Whether the group has no entry, and purged beyond all these indexes. openraft's suite
    /// appends such an entry, which a snapshot contains, and expects success.
    pub(crate) fn is_beyond(&self, mut indexes: impl Iterator<Item = u64>) -> bool {
        let purged = self.state.purged_index.filter(|_| self.state.purged.is_some());
        let is_empty = self.places.is_empty();
        purged.is_some_and(|purged| is_empty && indexes.all(|index| index < purged))
    }

    /// Whether a group without a purged id begins with the entry at `index`, so that its state must
    /// name the index before.
    pub(crate) fn begins_at(&self, index: u64) -> bool {
        let first = self.state.purged_index.map_or(0, |before| before.saturating_add(1));
        let is_first = index < first || (self.places.is_empty() && index > first.max(1));
        self.state.purged.is_none() && is_first
    }

    /// Where the purge up to `index` is recorded, if the entries up to it are purged already.
    pub(crate) fn purged_at(&self, index: u64) -> Option<Lsn> {
        let State { purged, purged_index, .. } = &self.state;
        let is_purged = |at: u64| index < at || (index == at && purged.is_some());
        self.state_at.filter(|_| purged_index.is_some_and(is_purged))
    }

    /// The index after the last entry.
    fn end(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    /// The indexes of the live entries.
    pub(crate) fn range(&self) -> Range<u64> {
        self.first..self.end()
    }

    /// Enters an entry that was appended. One that is there with this index, and those after it,
    /// are void.
    pub(crate) fn push(
        &mut self,
        group: u64,
        index: u64,
        lsn: Lsn,
        record: Option<Record>,
    ) -> Result<()> {
        self.truncate(index);
        if self.places.is_empty() {
            self.first = index;
        } else if index != self.end() {
            return Err(LogError::Gap { group, index, last: self.end().checked_sub(1) });
        }
        (self.begun, self.removed) = (true, false);
        self.places.push_back(lsn);
        match record {
            Some(record) => {
                self.cached_bytes += record.len();
                self.cache.push_back(record);
            }
            None => self.forget_cache(),
        }
        Ok(())
    }

    /// Enters entries that lie at `run` and have no gap, as [`Known::push`] does without a record.
    pub(crate) fn push_run(&mut self, group: u64, first: u64, run: &[Lsn]) -> Result<()> {
        let Some((&at, rest)) = run.split_first() else { return Ok(()) };
        self.push(group, first, at, None)?;
        self.places.extend(rest);
        Ok(())
    }

    /// Removes the entries from `from` on.
    pub(crate) fn truncate(&mut self, from: u64) {
        let kept = from.saturating_sub(self.first).min(self.places.len() as u64) as usize;
        let cut = self.places.len() - kept;
        self.places.truncate(kept);
        self.moved_end = self.moved_end.min(self.end());
        for _ in 0..cut {
            if let Some(record) = self.cache.pop_back() {
                self.cached_bytes -= record.len();
            }
        }
    }

    /// Removes the entries up to `index`.
    pub(crate) fn purge(&mut self, index: u64) {
        let next = index.saturating_add(1);
        let gone = next.saturating_sub(self.first).min(self.places.len() as u64) as usize;
        self.places.drain(..gone);
        self.first += gone as u64;
        self.shrink_to_places();
        if self.places.is_empty() {
            self.first = next;
        }
    }

    fn shrink_to_places(&mut self) {
        while self.cache.len() > self.places.len() {
            self.drop_oldest_cached();
        }
    }

    fn drop_oldest_cached(&mut self) {
        if let Some(record) = self.cache.pop_front() {
            self.cached_bytes -= record.len();
        }
    }

    fn forget_cache(&mut self) {
        self.cache.clear();
        self.cached_bytes = 0;
    }

    /// Evicts the oldest entries from the cache while it holds more than `limit` bytes, but none
    /// that is not durable.
    pub(crate) fn evict(&mut self, limit: usize, durable_end: Lsn) {
        while self.cached_bytes > limit {
            let oldest = self.places.len() - self.cache.len();
            match self.places.get(oldest) {
                Some(lsn) if *lsn < durable_end => self.drop_oldest_cached(),
                _ => return,
            }
        }
    }

    /// The entry at `index`.
    pub(crate) fn find(&self, index: u64) -> Option<Found> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        let lsn = *self.places.get(at)?;
        let uncached = self.places.len() - self.cache.len();
        match at.checked_sub(uncached).and_then(|at| self.cache.get(at)) {
            Some(record) => Some(Found::Cached(Arc::clone(record))),
            None => Some(Found::At(lsn)),
        }
    }

    /// Enters the new position of an entry that was appended again.
    pub(crate) fn moved(&mut self, index: u64, lsn: Lsn) {
        let at = index.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(place) = at.and_then(|at| self.places.get_mut(at)) {
            *place = lsn;
            self.moved_end = self.moved_end.max(index + 1);
        }
    }

    /// Puts entries in front, which end right before the first one.
    pub(crate) fn prepend(&mut self, index: u64, lsn: Lsn) {
        self.places.push_front(lsn);
        (self.first, self.begun) = (index, true);
        self.moved_end = self.moved_end.max(index + 1);
    }

    /// How many of the first entries were appended again, or lie among those.
    fn moved_len(&self) -> usize {
        self.moved_end.saturating_sub(self.first).min(self.places.len() as u64) as usize
    }

    /// The oldest position of a live entry, and of the newest state.
    pub(crate) fn oldest(&self) -> [Option<Lsn>; 2] {
        // The first one that was not moved is the oldest of those.
        let ascending_from = self.moved_len();
        [self.places.iter().take(ascending_from + 1).min().copied(), self.state_at]
    }

    /// The live entries whose position lies below `floor`.
    pub(crate) fn below(&self, floor: Lsn) -> Vec<u64> {
        let moved = self.moved_len();
        let old = self.places.iter().enumerate();
        let old = old.take_while(|(at, lsn)| *at < moved || **lsn < floor);
        let old = old.filter(|(_, lsn)| **lsn < floor);
        old.map(|(at, _)| self.first + at as u64).collect()
    }

    /// Forgets everything: the group was removed.
    pub(crate) fn clear(&mut self) {
        *self = Known { removed: true, ..Known::default() };
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed
    }

    /// Enters the newest state, which a record at `lsn` states. Removes the entries that it says
    /// are purged: no caller may append them again after that record.
    ///
    /// An earlier version appended states with a lower purged index than the state before. Then the
    /// higher one counts, and the record that states it is still needed.
    pub(crate) fn set_state(&mut self, mut state: State, lsn: Lsn) {
        if self.state.purged.is_some() && state.purged_index < self.state.purged_index {
            state.purged_index = self.state.purged_index;
            state.purged = self.state.purged.take();
        } else {
            self.state_at = Some(lsn);
        }
        if let Some(index) = state.purged_index {
            self.purge(index);
        }
        self.state = state;
        self.removed = false;
    }
}
