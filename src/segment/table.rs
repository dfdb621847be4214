//! Which segments there are: the live ones, oldest first, and the spares prepared ahead.
//!
//! 1. Bases follow each other without a gap, from the oldest live segment to the last spare.
//! 2. The last live segment is the active one. The I/O thread makes the first spare live when it
//!    writes the first group into it.
//! 3. A pinned segment, and everything above it, is not taken by [`SegmentTable::take_oldest`].
//! 4. At most [`READERS`] handles for single reads are kept: a log may have more segments than a process has
//!    descriptors.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::durable::fork;
use crate::format::SegmentHeader;
use crate::io::fs::File;
use crate::sys::sync::{Mutex, MutexGuard, lock, try_lock};

/// Handles that single reads keep open.
const READERS: usize = 64;

/// A prepared segment that holds no group yet.
#[derive(Debug, Clone)]
pub(crate) struct Spare {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn File>,
}

#[derive(Debug)]
struct Live {
    header: SegmentHeader,
    pins: u32,
    /// Where its groups end, once that was looked up.
    used_end: Option<u64>,
    /// When the log left it, once a later segment is live.
    left: Option<Left>,
}

/// When the log left a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// In this run, by the monotonic clock.
    At(u64),
    /// Before it was opened: by the wall clock, where that is known.
    Before(Option<u64>),
}

#[derive(Debug)]
struct Inner {
    live: VecDeque<Live>,
    spares: VecDeque<Spare>,
    /// Of all segments.
    pins: u32,
    /// Handles that single reads have opened, by base, the oldest first.
    readers: VecDeque<(u64, Arc<dyn File>)>,
}

pub(crate) struct SegmentTable {
    inner: Mutex<Inner>,
    /// The process that it was made in.
    generation: u32,
}

impl std::fmt::Debug for SegmentTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = try_lock(&self.inner).map(|inner| (inner.live.len(), inner.spares.len()));
        f.debug_struct("SegmentTable").field("live_and_spares", &counts).finish_non_exhaustive()
    }
}

/// Where a position lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    In(SegmentHeader),
    /// Below the oldest segment, whose base this is.
    Pruned(u64),
    Beyond,
}

impl SegmentTable {
    /// `live`: the segments that hold groups, and for each when it was left.
    pub(crate) fn new(
        live: impl IntoIterator<Item = (SegmentHeader, Option<Left>)>,
        spares: impl IntoIterator<Item = Spare>,
    ) -> Self {
        let live = live.into_iter();
        SegmentTable {
            inner: Mutex::new(Inner {
                live: live.map(|(header, left)| Live::new(header, left)).collect(),
                spares: spares.into_iter().collect(),
                pins: 0,
                readers: VecDeque::new(),
            }),
            generation: fork::generation(),
        }
    }

    /// In a child of fork(), of a table that was made before.
    pub(crate) fn is_forked(&self) -> bool {
        self.generation != fork::generation()
    }

    /// `None`: in a child of fork(), where it may be held for ever.
    fn peek(&self) -> Option<MutexGuard<'_, Inner>> {
        if self.is_forked() { try_lock(&self.inner) } else { Some(lock(&self.inner)) }
    }

    /// Unlocks the spares, when the log ends: handles that outlive it keep them open.
    pub(crate) fn unlock_spares(&self) {
        for spare in &lock(&self.inner).spares {
            spare.file.unlock();
        }
    }

    pub(crate) fn add_spare(&self, spare: Spare) {
        lock(&self.inner).spares.push_back(spare);
    }

    /// Makes the first spare the active segment. `now`: by the monotonic clock.
    pub(crate) fn activate(&self, base: u64, now: u64) -> Option<Spare> {
        let mut inner = lock(&self.inner);
        if inner.spares.front()?.header.base != base {
            return None;
        }
        let spare = inner.spares.pop_front()?;
        if let Some(last) = inner.live.back_mut() {
            last.left = Some(Left::At(now));
        }
        inner.live.push_back(Live::new(spare.header, None));
        Some(spare)
    }

    pub(crate) fn oldest(&self) -> u64 {
        self.peek().and_then(|inner| inner.live.front().map(|s| s.header.base)).unwrap_or(0)
    }

    /// Base of the newest segment that holds groups.
    pub(crate) fn newest(&self) -> u64 {
        lock(&self.inner).live.back().map_or(0, |s| s.header.base)
    }

    /// End of the last prepared segment, and the size of all.
    pub(crate) fn extent(&self) -> (u64, u64) {
        let inner = lock(&self.inner);
        let last = inner.spares.back().map(|s| s.header);
        let end = last.or(inner.live.back().map(|s| s.header)).map_or(0, |h| h.end());
        let first = inner.live.front().map(|s| s.header);
        let base = first.or(inner.spares.front().map(|s| s.header)).map_or(0, |h| h.base);
        // Invariant 1.
        (end, end - base)
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        let inner = lock(&self.inner);
        (inner.live.len(), inner.spares.len())
    }

    pub(crate) fn find(&self, lsn: u64) -> Found {
        let inner = lock(&self.inner);
        match inner.live.front() {
            Some(first) if lsn < first.header.base => Found::Pruned(first.header.base),
            _ => inner.position(lsn).map_or(Found::Beyond, |at| Found::In(inner.live[at].header)),
        }
    }

    /// The segment's handle for single reads, opened by `open` if none is kept.
    pub(crate) fn reader(
        &self,
        base: u64,
        open: impl FnOnce() -> std::io::Result<Arc<dyn File>>,
    ) -> std::io::Result<Arc<dyn File>> {
        let kept = |inner: &Inner| {
            let (_, file) = inner.readers.iter().find(|(of, _)| *of == base)?;
            Some(Arc::clone(file))
        };
        if let Some(file) = kept(&lock(&self.inner)) {
            return Ok(file);
        }
        let file = open()?;
        let mut inner = lock(&self.inner);
        if let Some(file) = kept(&inner) {
            return Ok(file);
        }
        let mut left = None;
        if inner.at(base).is_some() {
            if inner.readers.len() == READERS {
                left = inner.readers.pop_front();
            }
            inner.readers.push_back((base, Arc::clone(&file)));
        }
        drop(inner);
        // Closed with no lock held.
        drop(left);
        Ok(file)
    }

    /// Where the groups of a segment end, found by `find` the first time in the segment after it.
    /// `None` while that one holds nothing below `durable_end`: then this one ends there.
    pub(crate) fn used_end<E>(
        &self,
        base: u64,
        durable_end: u64,
        find: impl FnOnce(SegmentHeader) -> Result<u64, E>,
    ) -> Result<Option<u64>, E> {
        let next = {
            let inner = lock(&self.inner);
            let Some(at) = inner.position(base) else { return Ok(None) };
            if let Some(end) = inner.live[at].used_end {
                return Ok(Some(end));
            }
            match inner.live.get(at + 1) {
                Some(next) if next.header.first_group() < durable_end => next.header,
                _ => return Ok(None),
            }
        };
        let end = find(next)?;
        if let Some(segment) = lock(&self.inner).at(base) {
            segment.used_end = Some(end);
        }
        Ok(Some(end))
    }

    /// Keeps the segment that holds `lsn`, and all above it, from being removed.
    pub(crate) fn pin(self: &Arc<Self>, lsn: u64) -> Result<Pin, Found> {
        self.place(lsn, true)
    }

    /// The same, but only `hold`ing it if asked to: else it may go at any time.
    pub(crate) fn place(self: &Arc<Self>, lsn: u64, hold: bool) -> Result<Pin, Found> {
        let mut inner = lock(&self.inner);
        let found = match inner.live.front() {
            Some(first) if lsn < first.header.base => Err(Found::Pruned(first.header.base)),
            _ => inner.position(lsn).ok_or(Found::Beyond),
        }?;
        inner.live[found].pins += u32::from(hold);
        inner.pins += u32::from(hold);
        let header = inner.live[found].header;
        drop(inner);
        Ok(Pin { table: Arc::clone(self), header, holds: hold })
    }

    /// Replaces the live segments by what another process has made of them; what stays keeps its pins. A segment
    /// that was not begun may have become another under the same name.
    pub(crate) fn replace(&self, segments: &[SegmentHeader]) {
        let mut inner = lock(&self.inner);
        let mut old = std::mem::take(&mut inner.live);
        inner.pins = 0;
        for &header in segments {
            while old.front().is_some_and(|live| live.header.base < header.base) {
                old.pop_front();
            }
            let live = match old.front() {
                Some(live) if live.header == header => old.pop_front(),
                _ => None,
            };
            let live = live.unwrap_or_else(|| Live::new(header, None));
            inner.pins += live.pins;
            inner.live.push_back(live);
        }
        let Inner { live, readers, .. } = &mut *inner;
        let first = live.front().map_or(u64::MAX, |live| live.header.base);
        readers.retain(|(base, _)| *base >= first);
    }

    /// Shows the segments that the log has left, from the first that begins at or behind `from`, until one is refused. The
    /// lock is held: `go_on` must be quick.
    pub(crate) fn closed_from(
        &self,
        from: u64,
        mut go_on: impl FnMut(&SegmentHeader, Option<Left>) -> bool,
    ) {
        let inner = lock(&self.inner);
        let closed = inner.live.len().saturating_sub(1);
        let first = inner.live.partition_point(|segment| segment.header.base < from);
        let mut segments = inner.live.range(first.min(closed)..closed);
        while segments.next().is_some_and(|s| go_on(&s.header, s.left)) {}
    }

    /// The base of the oldest pinned segment.
    pub(crate) fn oldest_pin(&self) -> Option<u64> {
        let inner = self.peek()?;
        if inner.pins == 0 {
            return None;
        }
        inner.live.iter().find(|s| s.pins > 0).map(|s| s.header.base)
    }

    /// Takes the oldest segment out, if it ends at or below `limit` and is not pinned.
    pub(crate) fn take_oldest(&self, limit: u64) -> Option<SegmentHeader> {
        let mut inner = lock(&self.inner);
        let first = inner.live.front()?;
        if inner.live.len() < 2 || first.pins > 0 || first.header.end() > limit {
            return None;
        }
        let taken = inner.live.pop_front().map(|s| s.header);
        let readers = taken.map(|header| inner.take_reader(header.base));
        drop(inner);
        drop(readers);
        taken
    }
}

impl SegmentTable {
    /// Returns what [`SegmentTable::take_oldest`] took and could not be removed.
    pub(crate) fn put_back(&self, header: SegmentHeader) {
        lock(&self.inner).live.push_front(Live::new(header, Some(Left::Before(None))));
    }
}

impl Inner {
    /// In constant time when the segments are of one size.
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

    fn at(&mut self, base: u64) -> Option<&mut Live> {
        self.position(base).map(|at| &mut self.live[at])
    }

    fn take_reader(&mut self, base: u64) -> Option<Arc<dyn File>> {
        let at = self.readers.iter().position(|(of, _)| *of == base)?;
        self.readers.remove(at).map(|(_, file)| file)
    }
}

impl Live {
    fn new(header: SegmentHeader, left: Option<Left>) -> Self {
        Live { header, pins: 0, used_end: None, left }
    }
}

/// A segment that is read. If it `holds`, retention leaves it alone while this lives.
#[derive(Debug)]
pub(crate) struct Pin {
    table: Arc<SegmentTable>,
    pub(crate) header: SegmentHeader,
    holds: bool,
}

impl Drop for Pin {
    fn drop(&mut self) {
        if !self.holds {
            return;
        }
        let Some(mut inner) = self.table.peek() else { return };
        if let Some(segment) = inner.at(self.header.base).filter(|s| s.pins > 0) {
            segment.pins -= 1;
            inner.pins -= 1;
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
    fn positions_are_found_among_equal_and_unequal_sizes() {
        for sizes in [[1 << 20, 1 << 20, 1 << 20], [1 << 16, 1 << 20, 1 << 18]] {
            let t = table(&sizes);
            let mut base = 1 << 20;
            for size in sizes {
                for lsn in [base, base + size / 2, base + size - 1] {
                    assert_eq!(t.find(lsn), Found::In(header(base, size)));
                }
                base += size;
            }
            assert_eq!(t.find(base), Found::Beyond);
            assert_eq!(t.find((1 << 20) - 1), Found::Pruned(1 << 20));
        }
    }

    #[test]
    fn a_pinned_segment_and_the_active_one_stay() {
        let t = table(&[4096, 4096, 4096]);
        let second = (1 << 20) + 4096;
        let pin = t.pin(second + 5).unwrap();
        assert_eq!(t.take_oldest(u64::MAX).unwrap().base, 1 << 20);
        assert!(t.take_oldest(u64::MAX).is_none());
        drop(pin);
        assert!(t.take_oldest(second + 4095).is_none());
        assert_eq!(t.take_oldest(u64::MAX).unwrap().base, second);
        assert!(t.take_oldest(u64::MAX).is_none(), "the active segment");
        assert!(matches!(t.pin(0), Err(Found::Pruned(_))));
    }
}
