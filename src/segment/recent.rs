//! Copies of the newest groups, for followers that keep up. The writer bypasses the page cache, so
//! a follower would have to read them from the device.
//!
//! 1. The I/O thread copies a group when its write is complete, out of a buffer that no other
//!    thread uses. Followers take copies by reference, and check the durable end themselves.
//! 2. Groups are kept in the order of the log, up to a number of bytes. The oldest are dropped
//!    first. A copy that a follower holds lives on.
//! 3. Nothing is copied without a follower: each call of a follower keeps the copying up for a
//!    number of groups. The I/O thread never waits for the lock. If the lock is taken, the group is
//!    not copied, and followers read it from the file.
//! 4. A copy is freed once every follower here has read it, and its memory is used for the next
//!    copy. A follower that keeps up cycles through two or three cache-hot buffers. A miscounted
//!    follower only falls back to reading the file.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::format::{GroupHeader, Link};
use crate::segment::window::ByteWindow;
use crate::sys::fork;
use crate::sys::sync::{AtomicU32, Mutex, Ordering, lock, try_lock};

/// Groups that are copied after a follower has asked.
const INTEREST: u32 = 64;
/// Buffers that are kept for later copies.
const SPARE_BUFFERS: usize = 4;

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

#[derive(Debug)]
struct RecentGroup {
    copy: Arc<GroupCopy>,
    /// Number of counted followers that have read it.
    passed: usize,
}

#[derive(Debug, Default)]
struct RecentState {
    groups: VecDeque<RecentGroup>,
    bytes: usize,
    /// Memory of freed copies. The last one was freed last.
    spare: Vec<Vec<u8>>,
    /// Number of followers that read from here.
    readers: usize,
}

impl RecentState {
    fn pop(&mut self) -> Option<Arc<GroupCopy>> {
        let group = self.groups.pop_front()?;
        self.bytes -= group.copy.bytes.len();
        Some(group.copy)
    }

    /// Frees the oldest copy, if every follower has read it. Returns its memory if no spare is
    /// needed.
    fn free_oldest(&mut self) -> Option<Vec<u8>> {
        let oldest = self.groups.front()?;
        if oldest.passed < self.readers.max(1) || Arc::strong_count(&oldest.copy) > 1 {
            return None;
        }
        let bytes = Arc::try_unwrap(self.pop()?).ok()?.bytes;
        if self.spare.len() == SPARE_BUFFERS {
            return Some(bytes);
        }
        self.spare.push(bytes);
        None
    }

    /// The copy of the group after `link`, for a follower that has read the group at `link`.
    fn after(&mut self, link: &Link, counted: &mut bool) -> Option<Arc<GroupCopy>> {
        let at = self.groups.partition_point(|group| group.copy.header.lsn <= link.lsn);
        let copy = Arc::clone(&self.groups.get(at)?.copy);
        if !copy.header.follows(link) {
            return None;
        }
        if !*counted {
            *counted = true;
            self.readers += 1;
            self.groups.range_mut(..at).for_each(|group| group.passed += 1);
        } else if let Some(group) = at.checked_sub(1).and_then(|at| self.groups.get_mut(at))
            && group.copy.header.lsn == link.lsn
        {
            group.passed += 1;
        }
        Some(copy)
    }
}

pub(crate) struct RecentGroups {
    state: Mutex<RecentState>,
    /// Bytes to keep.
    limit: usize,
    /// Groups that are still to be copied.
    interest: AtomicU32,
    /// The process that created it.
    generation: u32,
}

impl std::fmt::Debug for RecentGroups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecentGroups").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// A follower's access to the recent groups.
#[derive(Debug)]
pub(crate) struct RecentReader {
    recent: Arc<RecentGroups>,
    /// Whether the recent groups count this follower: it reads from there.
    counted: bool,
}

impl RecentReader {
    pub(crate) fn new(recent: &Arc<RecentGroups>) -> Self {
        RecentReader { recent: Arc::clone(recent), counted: false }
    }

    /// The copy of the group after `link`, if there is one. The group at `link` counts as read.
    pub(crate) fn after(&mut self, link: &Link) -> Option<Arc<GroupCopy>> {
        self.recent.ask();
        let mut state = lock(&self.recent.state);
        let excess = state.free_oldest();
        let copy = state.after(link, &mut self.counted);
        // The memory is freed after the lock is released, as the I/O thread needs the lock.
        drop(state);
        drop(excess);
        copy
    }
}

impl Drop for RecentReader {
    fn drop(&mut self) {
        // In a child of fork() the lock may be held for ever, and no thread copies groups.
        if self.counted && self.recent.generation == fork::generation() {
            lock(&self.recent.state).readers -= 1;
        }
    }
}

impl RecentGroups {
    /// `limit`: bytes to keep. One group is kept even if it is larger.
    pub(crate) fn new(limit: usize) -> Self {
        RecentGroups {
            state: Mutex::new(RecentState::default()),
            limit,
            interest: AtomicU32::new(0),
            generation: fork::generation(),
        }
    }

    /// Called by a follower: the I/O thread copies the next groups.
    pub(crate) fn ask(&self) {
        self.interest.store(INTEREST, Ordering::Relaxed);
    }

    /// Called by the I/O thread: whether to call [`RecentGroups::push`] with the next group.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.interest.load(Ordering::Relaxed) != 0
    }

    /// Called by the I/O thread: copies a group.
    pub(crate) fn push(&self, header: GroupHeader, used: &[u8]) {
        let interest = self.interest.load(Ordering::Relaxed).saturating_sub(1);
        // If a follower asks at the same time, at most 64 groups fewer are copied.
        self.interest.store(interest, Ordering::Relaxed);
        let Some(mut state) = try_lock(&self.state) else { return };
        if interest == 0 {
            let readers = state.readers;
            *state = RecentState { readers, ..RecentState::default() };
            return;
        }
        let mut memory = state.free_oldest().or_else(|| state.spare.pop());
        while !state.groups.is_empty() && state.bytes + used.len() > self.limit {
            if let Some(Ok(copy)) = state.pop().map(Arc::try_unwrap) {
                memory.get_or_insert(copy.bytes);
            }
        }
        let mut bytes = memory.unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(used);
        state.bytes += used.len();
        state
            .groups
            .push_back(RecentGroup { copy: Arc::new(GroupCopy { header, bytes }), passed: 0 });
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
    fn groups_beyond_the_limit_are_dropped_and_others_are_found_by_their_link() {
        let tail = Arc::new(RecentGroups::new(10_000));
        tail.ask();
        let mut links = vec![Link::START];
        for n in 1..=5 {
            let header = group(n * 4096, links.last().unwrap());
            tail.push(header, &[n as u8; 3000]);
            links.push(header.link());
        }
        // Three of 3,000 bytes fit.
        let mut reader = RecentReader::new(&tail);
        assert!(reader.after(&links[1]).is_none());
        for n in 3..=5 {
            let copy = reader.after(&links[n - 1]).unwrap();
            assert_eq!(copy.held().at(copy.header.lsn + 10, 4), Some((10, &[n as u8; 4][..])));
            assert_eq!(copy.held().at(copy.header.lsn + 2998, 4), None);
            assert_eq!(copy.held().at(copy.header.lsn - 1, 1), None);
        }
        assert!(reader.after(&links[5]).is_none());
        let stranger = Link { hash: 1, ..links[4] };
        assert!(reader.after(&stranger).is_none());
    }

    #[test]
    fn copies_that_every_follower_has_read_are_freed_and_their_memory_is_reused() {
        let tail = Arc::new(RecentGroups::new(1 << 20));
        tail.ask();
        let mut links = vec![Link::START];
        let push = |links: &mut Vec<Link>| {
            let n = links.len() as u64;
            let header = group(n * 4096, links.last().unwrap());
            tail.push(header, &[n as u8; 3000]);
            links.push(header.link());
        };
        let kept = || lock(&tail.state).groups.len();
        (0..4).for_each(|_| push(&mut links));
        let (mut quick, mut slow) = (RecentReader::new(&tail), RecentReader::new(&tail));
        let mut all = Vec::new();
        for link in &links[1..4] {
            all.push(quick.after(link).unwrap().held().bytes.as_ptr());
        }
        assert!(kept() <= 2, "no other follower reads from here");
        // A later follower that holds a copy keeps it and the copies after it.
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
        assert!(all.len() <= 12, "{} buffers", all.len());
        drop(quick);
        assert_eq!(lock(&tail.state).readers, 0);
    }

    #[test]
    fn groups_without_a_follower_are_not_copied() {
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
        assert!(lock(&tail.state).groups.is_empty(), "the copies are freed");
    }
}
