//! The producers' side: reserve, fill, publish; wait for room.

use std::sync::Arc;
use std::task::Waker;

use super::request::{Outcome, Request};
use super::word::Tail;
use super::{HEADER, ONE_RECORD, Ring, unlock};
use crate::sys::sync::{Ordering, lock, spin_loop};

/// Looks at a closed tail that a producer takes before it sleeps: opening the next extent takes a
/// crosser well under a microsecond when a buffer is free.
#[cfg(not(ringwal_loom))]
const SPINS: u32 = 64;
#[cfg(ringwal_loom)]
const SPINS: u32 = 0;

/// Bytes of the open extent that one producer owns until it publishes them.
#[must_use = "a reservation that is not published stops the log"]
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    ring: &'a Ring,
    index: usize,
    offset: u64,
    len: u64,
}

/// Why no reservation was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReserveError {
    /// No room now.
    Full,
    /// No space for the next segment.
    NoSpace,
    /// The ring was stopped: the log is closed or poisoned.
    Stopped,
}

thread_local! {
    /// The thread's place in a queue: it can wait in only one, so that waiting allocates once.
    static REQUEST: Arc<Request> = Arc::new(Request::new());
}

impl Ring {
    /// Reserves `len` bytes, a multiple of 8 that with the group header is at most a buffer.
    #[inline]
    pub(crate) fn try_reserve(&self, len: u64) -> Result<Reservation<'_>, ReserveError> {
        loop {
            // Look first: once the word is closed it is not added to, so that overshoot is bounded.
            let seen = Tail(self.tail.load(Ordering::Relaxed));
            if seen.offset() > self.limit {
                return Err(ReserveError::Full);
            }
            let old = Tail(self.tail.fetch_add(len, Ordering::SeqCst));
            let (index, offset) = (old.index(self.extents.len()), old.offset());
            if offset + len <= self.limit {
                return Ok(Reservation { ring: self, index, offset, len });
            }
            if offset <= self.limit {
                unlock(self.cross(index, offset));
                self.doorbell.ring();
            }
        }
    }

    /// Reserves `len` bytes after a refusal, for a caller that must not sleep.
    #[cold]
    pub(crate) fn reserve_or_refuse(&self, len: u64) -> Result<Reservation<'_>, ReserveError> {
        for _ in 0..SPINS {
            if let Ok(r) = self.try_reserve(len) {
                return Ok(r);
            }
            spin_loop();
        }
        let opening = lock(&self.opening);
        let refused = if opening.stopped {
            ReserveError::Stopped
        } else if self.starved(&opening) {
            ReserveError::NoSpace
        } else {
            ReserveError::Full
        };
        drop(opening);
        self.try_reserve(len).map_err(|_| refused)
    }

    /// Reserves `len` bytes. Sleeps until they are granted.
    #[cold]
    pub(crate) fn reserve_or_wait(&self, len: u64) -> Result<Reservation<'_>, ReserveError> {
        for _ in 0..SPINS {
            if let Ok(r) = self.try_reserve(len) {
                return Ok(r);
            }
            spin_loop();
        }
        #[cfg(not(ringwal_loom))]
        let request = REQUEST.try_with(Arc::clone).unwrap_or_else(|_| Arc::new(Request::new()));
        #[cfg(ringwal_loom)]
        let request = Arc::new(Request::new());
        if let Some(r) = self.enqueue(&request, len, None)? {
            return Ok(r);
        }
        self.full_waits.fetch_add(1, Ordering::Relaxed);
        self.reservation(&request.wait(), len).ok_or_else(|| self.why_failed())
    }

    /// Records that are published in the extent with this sequence, which is open. Others
    /// may be on their way.
    pub(crate) fn published(&self, sequence: u64) -> u32 {
        let extent = &self.extents[self.index(sequence)];
        (extent.done.load(Ordering::Relaxed) / ONE_RECORD) as u32
    }

    pub(super) fn reservation(&self, outcome: &Outcome, len: u64) -> Option<Reservation<'_>> {
        match *outcome {
            Outcome::Granted { index, offset } => {
                Some(Reservation { ring: self, index, offset, len })
            }
            Outcome::Failed | Outcome::Missed => None,
        }
    }

    fn why_failed(&self) -> ReserveError {
        if lock(&self.opening).stopped { ReserveError::Stopped } else { ReserveError::NoSpace }
    }

    /// Queues the request, or reserves after all if an extent has opened meanwhile.
    fn enqueue(
        &self,
        request: &Arc<Request>,
        len: u64,
        waker: Option<Waker>,
    ) -> Result<Option<Reservation<'_>>, ReserveError> {
        loop {
            if let Ok(r) = self.try_reserve(len) {
                return Ok(Some(r));
            }
            let mut opening = lock(&self.opening);
            if opening.stopped {
                return Err(ReserveError::Stopped);
            }
            if self.starved(&opening) {
                return Err(ReserveError::NoSpace);
            }
            // Extents open only under this lock: closed now, it opens after we are in the queue.
            if Tail(self.tail.load(Ordering::Acquire)).offset() > self.limit {
                request.prepare(len, waker);
                opening.queue.enter(request);
                return Ok(None);
            }
        }
    }

    /// Queues a request on behalf of a task.
    pub(crate) fn reserve_later(
        &self,
        len: u64,
        waker: &Waker,
    ) -> Result<Result<Reservation<'_>, PendingReservation>, ReserveError> {
        let request = Arc::new(Request::new());
        Ok(match self.enqueue(&request, len, Some(waker.clone()))? {
            Some(r) => Ok(r),
            None => {
                self.full_waits.fetch_add(1, Ordering::Relaxed);
                Err(PendingReservation { request })
            }
        })
    }
}

/// A task's place in the queue for room.
#[derive(Debug)]
pub(crate) struct PendingReservation {
    request: Arc<Request>,
}

/// What became of a task's wait for room.
pub(crate) enum Turn<'r> {
    Granted(Reservation<'r>),
    Refused(ReserveError),
    /// The I/O thread revoked the granted room, because the task came too late. The task waits
    /// again.
    Missed,
}

impl PendingReservation {
    /// The reservation once it is granted; until then `waker` is woken when it is.
    pub(crate) fn poll<'r>(&self, ring: &'r Ring, waker: &Waker) -> Option<Turn<'r>> {
        if self.request.outcome().is_none() {
            self.request.set_waker(waker);
        }
        self.take(ring)
    }

    fn take<'r>(&self, ring: &'r Ring) -> Option<Turn<'r>> {
        let outcome = self.request.take()?;
        Some(match ring.reservation(&outcome, self.request.len()) {
            Some(room) => Turn::Granted(room),
            None if matches!(outcome, Outcome::Missed) => Turn::Missed,
            None => Turn::Refused(ring.why_failed()),
        })
    }

    /// Leaves the queue. If the room was granted already it is returned, and must be published.
    pub(crate) fn cancel(self, ring: &Ring) -> Option<Reservation<'_>> {
        if lock(&ring.opening).queue.leave(&self.request) {
            // Not with the place in the queue, which goes under the lock.
            self.request.drop_waker();
            return None;
        }
        match self.take(ring)? {
            Turn::Granted(room) => Some(room),
            Turn::Refused(_) | Turn::Missed => None,
        }
    }
}

impl Reservation<'_> {
    /// The record's address in the log.
    #[inline]
    pub(crate) fn lsn(&self) -> u64 {
        let base = &self.ring.extents[self.index].base;
        base.load(Ordering::Relaxed) + self.offset
    }

    /// The reserved bytes. They may hold anything that was in the ring before.
    #[inline]
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        self.ring.extents[self.index].tracker.fill();
        let start = self.ring.memory.buffer(self.index).wrapping_add(self.offset as usize);
        // SAFETY: [offset, offset + len) of this buffer lies inside the allocation (offset + len is
        // at most the limit, a buffer's size) and is initialised (zeroed at allocation). It is ours
        // alone until publish(), which takes self (ring invariants 2, 5 and 6): reservations do not
        // overlap, as each got its own range from one fetch_add or grant, and the I/O thread
        // touches the buffer only when all are published. &mut self excludes a second slice.
        unsafe { std::slice::from_raw_parts_mut(start, self.len as usize) }
    }

    /// Publishes the bytes, as `records` application records.
    #[inline]
    pub(crate) fn publish(self, records: u32) {
        let extent = &self.ring.extents[self.index];
        let mine = u64::from(records) * ONE_RECORD + self.len;
        let before = extent.done.fetch_add(mine, Ordering::SeqCst);
        // From here on the extent may be released: what is read of it only decides on a wake-up,
        // and one that was released needs none.
        self.ring.doorbell.published(|| {
            let published = (before + mine) % ONE_RECORD;
            extent.end.load(Ordering::SeqCst) == published + HEADER
        });
    }
}
