//! The table of segments: the live ones, oldest first, and the spares prepared ahead.
//!
//! 1. Bases follow each other without a gap, from the oldest live segment to the last spare.
//! 2. The last live segment is the active one. The I/O thread makes the first spare live when it
//!    writes the first group into it.
//! 3. [`SegmentTable::take_oldest`] takes neither a pinned segment nor one above a pinned segment.
//! 4. The table keeps at most [`READERS`] handles for single reads open: a log may have more
//!    segments than a process may have descriptors.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::Error;
use crate::format::SegmentHeader;
use crate::io::fs::File;
use crate::lsn::Lsn;
use crate::sys::fork;
use crate::sys::sync::{Mutex, MutexGuard, lock, try_lock};

/// Handles for single reads that stay open, at most.
const READERS: usize = 64;

/// A prepared segment that holds no group yet.
#[derive(Debug, Clone)]
pub(crate) struct Spare {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn File>,
}

#[derive(Debug)]
struct LiveSegment {
    header: SegmentHeader,
    pins: u32,
    /// The end of its groups, once that was looked up.
    used_end: Option<u64>,
    /// When the log left it. `None` for the active segment.
    sealed: Option<SealTime>,
}

/// When the log left a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SealTime {
    /// In this run: nanoseconds of the monotonic clock.
    ThisRun(u64),
    /// Before the log was opened: the wall clock's time, if it is known.
    EarlierRun(Option<u64>),
}

#[derive(Debug)]
struct TableState {
    live: VecDeque<LiveSegment>,
    spares: VecDeque<Spare>,
    /// Of all segments.
    pins: u32,
    /// Handles that single reads have opened, by base, the oldest first.
    readers: VecDeque<(u64, Arc<dyn File>)>,
}

pub(crate) struct SegmentTable {
    state: Mutex<TableState>,
    /// The process that created the table.
    generation: u32,
}

impl std::fmt::Debug for SegmentTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = try_lock(&self.state).map(|state| (state.live.len(), state.spares.len()));
        f.debug_struct("SegmentTable").field("live_and_spares", &counts).finish_non_exhaustive()
    }
}

/// Why no live segment holds a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It lies below the oldest segment, which starts at `oldest`.
    Pruned { oldest: u64 },
    /// It lies after the last live segment.
    Beyond,
}

impl Absent {
    /// The error of a reader that asked for `lsn`.
    pub(crate) fn into_error(self, lsn: u64) -> Error {
        match self {
            Absent::Pruned { oldest } => Error::Pruned { oldest: Lsn::new(oldest) },
            Absent::Beyond => Error::NoRecord { lsn: Lsn::new(lsn) },
        }
    }
}

/// Whether retention must wait for the reader of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pinning {
    Pinned,
    /// Retention may remove the segment at any time.
    Unpinned,
}

impl SegmentTable {
    /// `live`: the segments that hold groups, and when the log left each.
    pub(crate) fn new(
        live: impl IntoIterator<Item = (SegmentHeader, Option<SealTime>)>,
        spares: impl IntoIterator<Item = Spare>,
    ) -> Self {
        let live = live.into_iter();
        SegmentTable {
            state: Mutex::new(TableState {
                live: live.map(|(header, sealed)| LiveSegment::new(header, sealed)).collect(),
                spares: spares.into_iter().collect(),
                pins: 0,
                readers: VecDeque::new(),
            }),
            generation: fork::generation(),
        }
    }

    /// Whether this is a child of fork(), and its parent created the table.
    pub(crate) fn is_forked(&self) -> bool {
        self.generation != fork::generation()
    }

    /// `None` in a child of fork() where the lock is held: it may be held for ever.
    fn peek(&self) -> Option<MutexGuard<'_, TableState>> {
        if self.is_forked() { try_lock(&self.state) } else { Some(lock(&self.state)) }
    }

    /// Closes the files that are open when the log ends, and unlocks the spares. Handles may
    /// outlive the log, and the next writer may remove a segment.
    pub(crate) fn release_files(&self) {
        let mut state = lock(&self.state);
        let spares = std::mem::take(&mut state.spares);
        let readers = std::mem::take(&mut state.readers);
        drop(state);
        for spare in spares {
            spare.file.unlock();
        }
        drop(readers);
    }

    pub(crate) fn add_spare(&self, spare: Spare) {
        lock(&self.state).spares.push_back(spare);
    }

    /// Makes the first spare the active segment. `now`: nanoseconds of the monotonic clock.
    pub(crate) fn activate(&self, base: u64, now: u64) -> Option<Spare> {
        let mut state = lock(&self.state);
        if state.spares.front()?.header.base != base {
            return None;
        }
        let spare = state.spares.pop_front()?;
        if let Some(last) = state.live.back_mut() {
            last.sealed = Some(SealTime::ThisRun(now));
        }
        state.live.push_back(LiveSegment::new(spare.header, None));
        Some(spare)
    }

    /// Base of the oldest live segment; 0 if there is none.
    pub(crate) fn oldest(&self) -> u64 {
        self.peek().and_then(|state| state.live.front().map(|s| s.header.base)).unwrap_or(0)
    }

    /// Base of the active segment; 0 if there is none.
    pub(crate) fn newest(&self) -> u64 {
        lock(&self.state).live.back().map_or(0, |s| s.header.base)
    }

    /// The end of the last segment, and the bytes of all segments.
    pub(crate) fn extent(&self) -> (u64, u64) {
        let state = lock(&self.state);
        let last = state.spares.back().map(|s| s.header);
        let end = last.or(state.live.back().map(|s| s.header)).map_or(0, |h| h.end());
        let first = state.live.front().map(|s| s.header);
        let base = first.or(state.spares.front().map(|s| s.header)).map_or(0, |h| h.base);
        // Invariant 1.
        (end, end - base)
    }

    /// The number of live segments, and of spares.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.live.len(), state.spares.len())
    }

    /// The live segment that holds `lsn`.
    pub(crate) fn find(&self, lsn: u64) -> Result<SegmentHeader, Absent> {
        let state = lock(&self.state);
        state.locate(lsn).map(|at| state.live[at].header)
    }

    /// The segment's handle for single reads. `open` opens it, unless it is open.
    pub(crate) fn reader(
        &self,
        base: u64,
        open: impl FnOnce() -> std::io::Result<Arc<dyn File>>,
    ) -> std::io::Result<Arc<dyn File>> {
        let known = |state: &TableState| {
            let (_, file) = state.readers.iter().find(|(of, _)| *of == base)?;
            Some(Arc::clone(file))
        };
        if let Some(file) = known(&lock(&self.state)) {
            return Ok(file);
        }
        let file = open()?;
        let mut state = lock(&self.state);
        if let Some(file) = known(&state) {
            return Ok(file);
        }
        let mut evicted = None;
        if state.at(base).is_some() {
            if state.readers.len() == READERS {
                evicted = state.readers.pop_front();
            }
            state.readers.push_back((base, Arc::clone(&file)));
        }
        drop(state);
        // The handle is closed without the lock.
        drop(evicted);
        Ok(file)
    }

    /// The end of a segment's groups. The first time, `find` finds it in the segment after.
    ///
    /// `None` while the segment after holds nothing below `durable_end`: the groups end there.
    pub(crate) fn used_end<E>(
        &self,
        base: u64,
        durable_end: u64,
        find: impl FnOnce(SegmentHeader) -> Result<u64, E>,
    ) -> Result<Option<u64>, E> {
        let next = {
            let state = lock(&self.state);
            let Some(at) = state.position(base) else { return Ok(None) };
            if let Some(end) = state.live[at].used_end {
                return Ok(Some(end));
            }
            match state.live.get(at + 1) {
                Some(next) if next.header.first_group() < durable_end => next.header,
                _ => return Ok(None),
            }
        };
        let end = find(next)?;
        if let Some(segment) = lock(&self.state).at(base) {
            segment.used_end = Some(end);
        }
        Ok(Some(end))
    }

    /// The segment that holds `lsn`. Pinned, it and every later segment stay until this is dropped.
    pub(crate) fn segment(
        self: &Arc<Self>,
        lsn: u64,
        pinning: Pinning,
    ) -> Result<SegmentRef, Absent> {
        let mut state = lock(&self.state);
        let at = state.locate(lsn)?;
        let header = state.live[at].header;
        if pinning == Pinning::Unpinned {
            return Ok(SegmentRef { header, _pin: None });
        }
        state.live[at].pins += 1;
        state.pins += 1;
        drop(state);
        let pin = Pin { table: Arc::clone(self), base: header.base };
        Ok(SegmentRef { header, _pin: Some(pin) })
    }

    /// Replaces the live segments by those that another process has now. Segments that stay keep
    /// their pins.
    ///
    /// A spare of the other process may have become another segment under the same name.
    pub(crate) fn replace(&self, segments: &[SegmentHeader]) {
        let mut state = lock(&self.state);
        let mut old = std::mem::take(&mut state.live);
        state.pins = 0;
        for &header in segments {
            while old.front().is_some_and(|live| live.header.base < header.base) {
                old.pop_front();
            }
            let live = match old.front() {
                Some(live) if live.header == header => old.pop_front(),
                _ => None,
            };
            let live = live.unwrap_or_else(|| LiveSegment::new(header, None));
            state.pins += live.pins;
            state.live.push_back(live);
        }
        let TableState { live, readers, .. } = &mut *state;
        let first = live.front().map_or(u64::MAX, |live| live.header.base);
        // The list may still have segments that the other process has removed since it was made.
        readers.retain(|(base, file)| *base >= first && file.links().is_ok_and(|n| n > 0));
    }

    /// Calls `visit` with the sealed segments from the first one at or after `from`, until it
    /// returns false. `visit` must be quick, as the table is locked.
    pub(crate) fn closed_from(
        &self,
        from: u64,
        mut visit: impl FnMut(&SegmentHeader, Option<SealTime>) -> bool,
    ) {
        let state = lock(&self.state);
        let closed = state.live.len().saturating_sub(1);
        let first = state.live.partition_point(|segment| segment.header.base < from);
        let mut segments = state.live.range(first.min(closed)..closed);
        while segments.next().is_some_and(|s| visit(&s.header, s.sealed)) {}
    }

    /// The live segments, the oldest first. Allocates.
    pub(crate) fn headers(&self) -> Vec<SegmentHeader> {
        lock(&self.state).live.iter().map(|segment| segment.header).collect()
    }

    /// The base of the oldest pinned segment.
    pub(crate) fn oldest_pin(&self) -> Option<u64> {
        let state = self.peek()?;
        if state.pins == 0 {
            return None;
        }
        state.live.iter().find(|s| s.pins > 0).map(|s| s.header.base)
    }

    /// Takes the oldest segment out of the table, if it ends at or below `limit` and is not pinned.
    pub(crate) fn take_oldest(&self, limit: u64) -> Option<SegmentHeader> {
        let mut state = lock(&self.state);
        let first = state.live.front()?;
        if state.live.len() < 2 || first.pins > 0 || first.header.end() > limit {
            return None;
        }
        let taken = state.live.pop_front().map(|s| s.header);
        let readers = taken.map(|header| state.take_reader(header.base));
        drop(state);
        drop(readers);
        taken
    }

    /// Returns a segment that [`SegmentTable::take_oldest`] took and whose file could not be
    /// removed.
    pub(crate) fn put_back(&self, header: SegmentHeader) {
        lock(&self.state)
            .live
            .push_front(LiveSegment::new(header, Some(SealTime::EarlierRun(None))));
    }
}

impl TableState {
    fn locate(&self, lsn: u64) -> Result<usize, Absent> {
        match self.live.front() {
            Some(first) if lsn < first.header.base => {
                Err(Absent::Pruned { oldest: first.header.base })
            }
            _ => self.position(lsn).ok_or(Absent::Beyond),
        }
    }

    /// Index of the segment that holds `lsn`. Takes constant time if all segments have one size.
    fn position(&self, lsn: u64) -> Option<usize> {
        let first = self.live.front()?.header;
        let holds = |at: usize| {
            self.live.get(at).is_some_and(|s| (s.header.base..s.header.end()).contains(&lsn))
        };
        let guess = usize::try_from(lsn.checked_sub(first.base)? / first.size).ok()?;
        if holds(guess) {
            return Some(guess);
        }
        let at = self.live.partition_point(|s| s.header.end() <= lsn);
        holds(at).then_some(at)
    }

    fn at(&mut self, base: u64) -> Option<&mut LiveSegment> {
        self.position(base).map(|at| &mut self.live[at])
    }

    fn take_reader(&mut self, base: u64) -> Option<Arc<dyn File>> {
        let at = self.readers.iter().position(|(of, _)| *of == base)?;
        self.readers.remove(at).map(|(_, file)| file)
    }
}

impl LiveSegment {
    fn new(header: SegmentHeader, sealed: Option<SealTime>) -> Self {
        LiveSegment { header, pins: 0, used_end: None, sealed }
    }
}

/// A segment that a reader is in.
#[derive(Debug)]
pub(crate) struct SegmentRef {
    pub(crate) header: SegmentHeader,
    /// Retention waits while this is held.
    _pin: Option<Pin>,
}

#[derive(Debug)]
struct Pin {
    table: Arc<SegmentTable>,
    base: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let Some(mut state) = self.table.peek() else { return };
        if let Some(segment) = state.at(self.base).filter(|s| s.pins > 0) {
            segment.pins -= 1;
            state.pins -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(base: u64, size: u64) -> SegmentHeader {
        SegmentHeader {
            log_id: [0; 16],
            block: 4096,
            size,
            base,
            max_group: 4096,
            created_at: 0,
            app_version: 0,
        }
    }

    fn table(sizes: &[u64]) -> Arc<SegmentTable> {
        let mut base = 1 << 20;
        let live = sizes.iter().map(|&size| {
            let h = header(base, size);
            base += size;
            (h, None)
        });
        Arc::new(SegmentTable::new(live.collect::<Vec<_>>(), []))
    }

    #[test]
    fn find_among_equal_and_unequal_sizes_returns_the_segment() {
        for sizes in [[1 << 20, 1 << 20, 1 << 20], [1 << 16, 1 << 20, 1 << 18]] {
            let t = table(&sizes);
            let mut base = 1 << 20;
            for size in sizes {
                for lsn in [base, base + size / 2, base + size - 1] {
                    assert_eq!(t.find(lsn), Ok(header(base, size)));
                }
                base += size;
            }
            assert_eq!(t.find(base), Err(Absent::Beyond));
            assert_eq!(t.find((1 << 20) - 1), Err(Absent::Pruned { oldest: 1 << 20 }));
        }
    }

    #[test]
    fn take_oldest_leaves_the_pinned_and_the_active_segment() {
        let t = table(&[4096, 4096, 4096]);
        let second = (1 << 20) + 4096;
        let pin = t.segment(second + 5, Pinning::Pinned).unwrap();
        assert_eq!(t.take_oldest(u64::MAX).unwrap().base, 1 << 20);
        assert!(t.take_oldest(u64::MAX).is_none());
        drop(pin);
        assert!(t.take_oldest(second + 4095).is_none());
        assert_eq!(t.take_oldest(u64::MAX).unwrap().base, second);
        assert!(t.take_oldest(u64::MAX).is_none(), "the active segment");
        let pruned = t.segment(0, Pinning::Pinned);
        assert!(matches!(pruned, Err(Absent::Pruned { .. })));
    }
}
