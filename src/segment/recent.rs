//! Copies of the newest groups, for followers that keep up: what was written past the page cache
//! would have to be read from the device.
//!
//! Invariants:
//! 1. A group is copied when its write is complete, by the I/O thread, out of a buffer that is its
//!    alone. Followers take copies by reference and look at what is durable themselves.
//! 2. Groups are kept in the order of the log, up to a number of bytes; the oldest go first. A copy
//!    that a follower holds lives on.
//! 3. Nothing is copied while nobody asks: a follower that asked keeps the copying up for a number of
//!    groups. The I/O thread never waits for the lock: a group that it would have to wait for is not
//!    copied, and followers read it from the file.
//! 4. A copy that all who follow from here have passed is let go, and its memory taken for the next: what
//!    keeps up goes round in memory that is in the processor's cache. Who is counted wrong only reads more from
//!    the file.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::durable::fork;
use crate::format::{GroupHeader, Link};
use crate::segment::window::ByteWindow;
use crate::sys::sync::{AtomicU32, Mutex, Ordering, lock, try_lock};

/// Groups that are copied after somebody has asked.
const INTEREST: u32 = 64;
/// Pieces of memory that are kept for the next copies.
const SPARE: usize = 4;

pub(crate) struct GroupCopy {
    pub(crate) header: GroupHeader,
    /// The group's used bytes, its header included.
    bytes: Vec<u8>,
}

impl std::fmt::Debug for GroupCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupCopy").field("lsn", &self.header.lsn).finish_non_exhaustive()
    }
}

impl GroupCopy {
    pub(crate) fn held(&self) -> ByteWindow<'_> {
        ByteWindow { start: self.header.lsn, bytes: &self.bytes }
    }
}

/// A copy, and how many of those who follow from here are done with it.
#[derive(Debug)]
struct Slot {
    copy: Arc<GroupCopy>,
    passed: usize,
}

#[derive(Debug, Default)]
struct Kept {
    groups: VecDeque<Slot>,
    bytes: usize,
    /// Memory of copies that were let go, the one used last on top.
    spare: Vec<Vec<u8>>,
    /// Those who follow from here.
    seats: usize,
}

impl Kept {
    fn pop(&mut self) -> Option<Arc<GroupCopy>> {
        let slot = self.groups.pop_front()?;
        self.bytes -= slot.copy.bytes.len();
        Some(slot.copy)
    }

    /// Lets the oldest copy go if everybody has passed it. Returns its memory if there is enough without it.
    fn let_go(&mut self) -> Option<Vec<u8>> {
        let oldest = self.groups.front()?;
        if oldest.passed < self.seats.max(1) || Arc::strong_count(&oldest.copy) > 1 {
            return None;
        }
        let bytes = Arc::try_unwrap(self.pop()?).ok()?.bytes;
        if self.spare.len() == SPARE {
            return Some(bytes);
        }
        self.spare.push(bytes);
        None
    }

    /// The copy behind `link`, for a follower that comes from there; `taken`: it is counted.
    fn after(&mut self, link: &Link, taken: &mut bool) -> Option<Arc<GroupCopy>> {
        let at = self.groups.partition_point(|slot| slot.copy.header.lsn <= link.lsn);
        let copy = Arc::clone(&self.groups.get(at)?.copy);
        if !copy.header.follows(link) {
            return None;
        }
        if !*taken {
            *taken = true;
            self.seats += 1;
            self.groups.range_mut(..at).for_each(|slot| slot.passed += 1);
        } else if let Some(slot) = at.checked_sub(1).and_then(|at| self.groups.get_mut(at))
            && slot.copy.header.lsn == link.lsn
        {
            slot.passed += 1;
        }
        Some(copy)
    }
}

pub(crate) struct RecentGroups {
    kept: Mutex<Kept>,
    limit: usize,
    interest: AtomicU32,
    /// The process that it was made in.
    generation: u32,
}

impl std::fmt::Debug for RecentGroups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecentGroups").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// A follower's place at the tail.
#[derive(Debug)]
pub(crate) struct Seat {
    tail: Arc<RecentGroups>,
    /// It follows from here, and is counted.
    taken: bool,
}

impl Seat {
    pub(crate) fn new(tail: &Arc<RecentGroups>) -> Self {
        Seat { tail: Arc::clone(tail), taken: false }
    }

    /// The group behind `link`, if there is a copy of it: then the one at `link` has been passed.
    pub(crate) fn after(&mut self, link: &Link) -> Option<Arc<GroupCopy>> {
        self.tail.ask();
        let mut kept = lock(&self.tail.kept);
        let excess = kept.let_go();
        let copy = kept.after(link, &mut self.taken);
        // Memory is freed when the I/O thread can have the lock.
        drop(kept);
        drop(excess);
        copy
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // In a child of fork() the lock may be held for ever, and nobody keeps copies.
        if self.taken && self.tail.generation == fork::generation() {
            lock(&self.tail.kept).seats -= 1;
        }
    }
}

impl RecentGroups {
    /// `limit`: bytes to keep; one group is kept whatever its size.
    pub(crate) fn new(limit: usize) -> Self {
        RecentGroups {
            kept: Mutex::new(Kept::default()),
            limit,
            interest: AtomicU32::new(0),
            generation: fork::generation(),
        }
    }

    /// A follower's: it wants the groups to come.
    pub(crate) fn ask(&self) {
        self.interest.store(INTEREST, Ordering::Relaxed);
    }

    /// The I/O thread's: whether to call [`RecentGroups::push`] with the next group.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.interest.load(Ordering::Relaxed) != 0
    }

    /// The I/O thread's: copies a group.
    pub(crate) fn push(&self, header: GroupHeader, used: &[u8]) {
        let interest = self.interest.load(Ordering::Relaxed).saturating_sub(1);
        // A follower that asks meanwhile loses a count of 64 at most.
        self.interest.store(interest, Ordering::Relaxed);
        let Some(mut kept) = try_lock(&self.kept) else { return };
        if interest == 0 {
            let seats = kept.seats;
            *kept = Kept { seats, ..Kept::default() };
            return;
        }
        let mut room = kept.let_go().or_else(|| kept.spare.pop());
        while !kept.groups.is_empty() && kept.bytes + used.len() > self.limit {
            if let Some(Ok(copy)) = kept.pop().map(Arc::try_unwrap) {
                room.get_or_insert(copy.bytes);
            }
        }
        let mut bytes = room.unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(used);
        kept.bytes += used.len();
        kept.groups.push_back(Slot { copy: Arc::new(GroupCopy { header, bytes }), passed: 0 });
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    fn group(lsn: u64, before: &Link) -> GroupHeader {
        let mut header = GroupHeader::nothing(lsn);
        header.prev = before.lsn;
        header.prev_hash = before.hash;
        header
    }

    #[test]
    fn groups_are_kept_up_to_the_limit_and_found_by_what_they_follow() {
        let tail = Arc::new(RecentGroups::new(10_000));
        tail.ask();
        let mut links = vec![Link::START];
        for n in 1..=5 {
            let header = group(n * 4096, links.last().unwrap());
            tail.push(header, &[n as u8; 3000]);
            links.push(header.link());
        }
        // Three of 3,000 bytes fit.
        let mut seat = Seat::new(&tail);
        assert!(seat.after(&links[1]).is_none());
        for n in 3..=5 {
            let copy = seat.after(&links[n - 1]).unwrap();
            assert_eq!(copy.held().at(copy.header.lsn + 10, 4), Some((10, &[n as u8; 4][..])));
            assert_eq!(copy.held().at(copy.header.lsn + 2998, 4), None);
            assert_eq!(copy.held().at(copy.header.lsn - 1, 1), None);
        }
        assert!(seat.after(&links[5]).is_none());
        let stranger = Link { hash: 1, ..links[4] };
        assert!(seat.after(&stranger).is_none());
    }

    #[test]
    fn what_all_have_passed_is_let_go_and_its_memory_used_again() {
        let tail = Arc::new(RecentGroups::new(1 << 20));
        tail.ask();
        let mut links = vec![Link::START];
        let push = |links: &mut Vec<Link>| {
            let n = links.len() as u64;
            let header = group(n * 4096, links.last().unwrap());
            tail.push(header, &[n as u8; 3000]);
            links.push(header.link());
        };
        let kept = || lock(&tail.kept).groups.len();
        (0..4).for_each(|_| push(&mut links));
        let (mut quick, mut slow) = (Seat::new(&tail), Seat::new(&tail));
        let mut all = Vec::new();
        for link in &links[1..4] {
            all.push(quick.after(link).unwrap().held().bytes.as_ptr());
        }
        assert!(kept() <= 2, "nobody else follows from here");
        // One that has come later, and holds a copy, keeps it and those behind.
        let held = slow.after(&links[3]).unwrap();
        (0..4).for_each(|_| push(&mut links));
        for link in &links[4..8] {
            all.push(quick.after(link).unwrap().held().bytes.as_ptr());
        }
        assert!(kept() >= 4);
        drop(held);
        for link in &links[4..8] {
            slow.after(link).unwrap();
        }
        assert!(kept() <= 2);
        drop(slow);
        for n in 8..100 {
            push(&mut links);
            all.push(quick.after(&links[n]).unwrap().held().bytes.as_ptr());
        }
        all.sort_unstable();
        all.dedup();
        assert!(all.len() <= 12, "{} pieces of memory", all.len());
        drop(quick);
        assert_eq!(lock(&tail.kept).seats, 0);
    }

    #[test]
    fn nothing_is_kept_for_nobody() {
        let tail = RecentGroups::new(1 << 20);
        assert!(!tail.is_wanted());
        tail.ask();
        let mut link = Link::START;
        let mut first = None;
        for n in 1.. {
            if !tail.is_wanted() {
                assert_eq!(n, u64::from(INTEREST) + 1);
                break;
            }
            let header = group(n * 4096, &link);
            tail.push(header, &[0; 128]);
            link = header.link();
            first.get_or_insert(link);
        }
        assert!(lock(&tail.kept).groups.is_empty(), "and what was kept is let go");
    }
}
