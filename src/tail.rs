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

use std::collections::VecDeque;
use std::sync::Arc;

use crate::format::{GroupHeader, Link};
use crate::held::Held;
use crate::sync::{AtomicU32, Mutex, Ordering, lock, try_lock};

/// Groups that are copied after somebody has asked.
const INTEREST: u32 = 64;

#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) header: GroupHeader,
    /// The group's used bytes, its header included.
    bytes: Vec<u8>,
}

impl Copy {
    pub(crate) fn held(&self) -> Held<'_> {
        Held { start: self.header.lsn, bytes: &self.bytes }
    }
}

#[derive(Debug, Default)]
struct Kept {
    groups: VecDeque<Arc<Copy>>,
    bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Tail {
    kept: Mutex<Kept>,
    limit: usize,
    interest: AtomicU32,
}

impl Tail {
    /// `limit`: bytes to keep; one group is kept whatever its size.
    pub(crate) fn new(limit: usize) -> Self {
        Tail { kept: Mutex::new(Kept::default()), limit, interest: AtomicU32::new(0) }
    }

    /// A follower's: it wants the groups to come.
    pub(crate) fn ask(&self) {
        self.interest.store(INTEREST, Ordering::Relaxed);
    }

    /// A follower's: the group behind `link`, if there is a copy of it.
    pub(crate) fn after(&self, link: &Link) -> Option<Arc<Copy>> {
        self.ask();
        let kept = lock(&self.kept);
        let at = kept.groups.partition_point(|copy| copy.header.lsn <= link.lsn);
        kept.groups.get(at).filter(|copy| copy.header.follows(link)).cloned()
    }

    /// The I/O thread's: whether to call [`Tail::push`] with the next group.
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
        let mut room = Vec::new();
        if interest == 0 {
            *kept = Kept::default();
            return;
        }
        while !kept.groups.is_empty() && kept.bytes + used.len() > self.limit {
            let Some(oldest) = kept.groups.pop_front() else { break };
            kept.bytes -= oldest.bytes.len();
            if let Ok(copy) = Arc::try_unwrap(oldest)
                && copy.bytes.capacity() >= used.len()
            {
                room = copy.bytes;
            }
        }
        room.clear();
        room.extend_from_slice(used);
        kept.bytes += used.len();
        kept.groups.push_back(Arc::new(Copy { header, bytes: room }));
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
        let tail = Tail::new(10_000);
        tail.ask();
        let mut links = vec![Link::START];
        for n in 1..=5 {
            let header = group(n * 4096, links.last().unwrap());
            tail.push(header, &[n as u8; 3000]);
            links.push(header.link());
        }
        // Three of 3,000 bytes fit.
        assert!(tail.after(&links[1]).is_none());
        for n in 3..=5 {
            let copy = tail.after(&links[n - 1]).unwrap();
            assert_eq!(copy.held().at(copy.header.lsn + 10, 4), Some((10, &[n as u8; 4][..])));
            assert_eq!(copy.held().at(copy.header.lsn + 2998, 4), None);
            assert_eq!(copy.held().at(copy.header.lsn - 1, 1), None);
        }
        assert!(tail.after(&links[5]).is_none());
        let stranger = Link { hash: 1, ..links[4] };
        assert!(tail.after(&stranger).is_none());
    }

    #[test]
    fn nothing_is_kept_for_nobody() {
        let tail = Tail::new(1 << 20);
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
