//! The ring of extents: producers put records in, and the holder of the I/O loop takes groups out.
//!
//! The ring is K equal buffers, used in turn. The *open extent* owns one whole buffer, in which
//! producers reserve. When it is closed it becomes one group.
//!
//! Invariants:
//! 1. At most one extent is open. Its sequence and the reserved offset are one word, the tail.
//! 2. A reservation is one `fetch_add` on the tail. It is valid if and only if its end is at or
//!    below the limit, which is the same for every extent. Then its owner alone may write those
//!    bytes, until it publishes them. A void reservation owns nothing and touches nothing.
//! 3. Exactly one party first takes the offset past the limit: a producer whose reservation does
//!    not fit, or the seal. This party is the *crosser*. It alone fixes the extent's end, which is
//!    the offset that it found, and requests the next extent.
//! 4. Extents are opened under one lock, by the last party that made the opening possible: the
//!    crosser, which set `pending`, or the thread that freed a buffer or prepared a segment. Each
//!    sets its condition before it takes the lock or under it, so that the later of the two sees
//!    both.
//! 5. An extent's base, end and completion counter are stable from its opening to its release. One
//!    exception: an extent that is sealed empty, of which no producer owns a part, may get another
//!    base before its end is fixed. The owner of an unpublished part keeps its extent from being
//!    released.
//! 6. An extent is complete when the published bytes equal its end less the header. Only then, and
//!    only by the I/O thread, is its buffer touched as a whole.
//! 7. The opener stores the base before it publishes the tail; a reservation reads it afterwards.
//! 8. Producers that wait for room are granted the first bytes of the next extent, in order: none
//!    starves, however large its record. The tail is published before they are woken.
//! 9. A base is stored with Release and, where no word orders the look, loaded with Acquire. A look
//!    that finds the next extent's base in a buffer therefore also finds a later tail.
//! 10. A grant to a task is in `unpolled` until its extent is released. The I/O thread revokes a
//!     grant that a task does not claim in time.

mod doorbell;
mod memory;
mod pause;
mod queue;
mod request;
mod reserve;
mod word;

#[cfg(all(test, ringwal_loom))]
mod loom_tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use crossbeam_utils::CachePadded;

pub(crate) use doorbell::{Doorbell, Wake, WakeOn};
pub(crate) use memory::Memory;
pub(crate) use reserve::{PendingReservation, Reservation, ReserveError, Turn};

use crate::format::GROUP_HEADER;
use crate::lsn::align_up;
use crate::sys::panics::caught;
use crate::sys::sync::{AtomicU64, Mutex, MutexGuard, Ordering, Tracker, lock};
use pause::pause;
use queue::Queue;
use request::Request;
use word::{SEAL, Tail};

const HEADER: u64 = GROUP_HEADER as u64;
/// In the completion counter: one record. Bytes are in the lower half.
const ONE_RECORD: u64 = 1 << 32;

#[derive(Debug)]
struct Extent {
    /// Address of the group in the log.
    base: AtomicU64,
    /// 0 until the end is fixed.
    end: AtomicU64,
    /// `{ records: 32 | bytes: 32 }` published so far.
    done: CachePadded<AtomicU64>,
    tracker: Tracker,
}

/// Where the ring may place its next extents.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement {
    /// Address of the next group.
    pub(crate) next: u64,
    /// End of the segment that it lies in.
    pub(crate) segment_end: u64,
    /// End of the last prepared segment.
    pub(crate) prepared_end: u64,
    /// Size of the segments that follow.
    pub(crate) segment_size: u64,
    pub(crate) block: u64,
}

#[derive(Debug)]
struct Opening {
    /// Sequence of the extent to be opened next.
    next: u64,
    /// The extent before `next` has its end, and `next` is to be opened.
    pending: bool,
    /// Extents released, in order: buffer `next % K` is free when `next < released + K`.
    released: u64,
    placement: Placement,
    /// Where it was before it went on to the segment in which the newest extent has been opened, if
    /// blocks are left there.
    left: Option<Placement>,
    /// End, with padding, of the last extent that was closed.
    last_end: u64,
    queue: Queue,
    /// Wakers of tasks that were granted room or refused: user code, called after the unlock.
    wakers: Vec<Waker>,
    /// What tasks were granted, by the sequence of the extent, ascending.
    unpolled: VecDeque<(u64, Arc<Request>)>,
    /// No extent opens for producers any more. `durable/` has the log's status. This copy is under
    /// the queue's lock: no producer enters the queue after [`Ring::stop`] has failed it.
    stopped: bool,
    /// The next segment cannot be prepared for want of space.
    no_space: bool,
    /// Whether the segment keeper has ended, so that no segment is prepared any more.
    forsaken: bool,
    /// A control group found no block left.
    private_waits: bool,
    /// A block is held for the epoch group, which is written before the next group.
    epoch_held: bool,
    /// The last control group of the log may be written over by the epoch group, where no other
    /// block is left.
    replaceable: bool,
    /// Extents have been opened for producers, or may be.
    started: bool,
}

impl Opening {
    fn fail_all(&mut self) {
        while let Some(request) = self.queue.pop() {
            self.wakers.extend(request.fail());
        }
    }
}

/// Releases the lock, and then wakes the tasks that were served or refused under it.
fn unlock(mut opening: MutexGuard<'_, Opening>) {
    if opening.wakers.is_empty() {
        return;
    }
    let wakers = std::mem::take(&mut opening.wakers);
    drop(opening);
    for waker in wakers {
        wake_quietly(waker);
    }
}

/// Wakes a task. A waker is user code: a panic in it must not take the ring's user down.
pub(crate) fn wake_quietly(waker: Waker) {
    let _ = caught(|| waker.wake());
}

/// A complete extent, as the I/O thread takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SealedExtent {
    pub(crate) lsn: u64,
    pub(crate) used: u32,
    pub(crate) records: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Poll {
    /// Not yet opened: it waits for a buffer or a segment.
    Unopened,
    /// Open, nothing reserved.
    Empty,
    /// Open, with reservations.
    Open,
    /// Closed; some reservations are not published yet.
    Filling,
    Complete(SealedExtent),
}

#[derive(Debug)]
pub(crate) struct Ring {
    tail: CachePadded<AtomicU64>,
    extents: Box<[CachePadded<Extent>]>,
    limit: u64,
    pub(crate) memory: Arc<Memory>,
    opening: CachePadded<Mutex<Opening>>,
    pub(crate) doorbell: CachePadded<Doorbell>,
    /// Producers that had to wait for room.
    pub(crate) full_waits: AtomicU64,
}

impl Ring {
    /// A ring with no extent open and none pending: the I/O thread takes extent 0 by
    /// [`Ring::take_private`] and then calls [`Ring::start`].
    #[cfg(test)]
    pub(crate) fn new(buffer: u32, buffers: usize, placement: Placement) -> Self {
        let memory = Memory::new(buffer as usize, buffers).unwrap();
        Ring::over(memory, buffer, buffers, placement)
    }

    /// A ring over memory of `buffers` buffers, with no extent open and none pending.
    pub(crate) fn over(memory: Memory, buffer: u32, buffers: usize, placement: Placement) -> Self {
        debug_assert!(buffers.is_power_of_two() && buffers <= 1 << 16);
        let extent = || {
            CachePadded::new(Extent {
                base: AtomicU64::new(0),
                end: AtomicU64::new(0),
                done: CachePadded::new(AtomicU64::new(0)),
                tracker: Tracker::new(),
            })
        };
        Ring {
            tail: CachePadded::new(AtomicU64::new(Tail::closed_before(0).0)),
            extents: (0..buffers).map(|_| extent()).collect(),
            limit: u64::from(buffer),
            memory: Arc::new(memory),
            opening: CachePadded::new(Mutex::new(Opening {
                next: 0,
                pending: false,
                released: 0,
                placement,
                left: None,
                last_end: placement.next,
                queue: Queue::default(),
                wakers: Vec::new(),
                unpolled: VecDeque::new(),
                stopped: false,
                no_space: false,
                forsaken: false,
                private_waits: false,
                epoch_held: false,
                replaceable: false,
                started: false,
            })),
            doorbell: CachePadded::new(Doorbell::new()),
            full_waits: AtomicU64::new(0),
        }
    }

    pub(crate) fn buffers(&self) -> usize {
        self.extents.len()
    }

    /// Bytes of all buffers.
    pub(crate) fn capacity(&self) -> usize {
        self.extents.len() * self.limit as usize
    }

    pub(crate) fn index(&self, sequence: u64) -> usize {
        sequence as usize & (self.extents.len() - 1)
    }

    /// Does the crosser's duty (invariant 3): fixes the end, and opens the next extent if that is
    /// possible. The caller must release the lock with `unlock`, or wake the granted tasks later.
    fn cross(&self, index: usize, end: u64) -> MutexGuard<'_, Opening> {
        let extent = &self.extents[index];
        let mut opening = lock(&self.opening);
        let base = extent.base.load(Ordering::Relaxed);
        opening.placement.next = base + align_up(end, opening.placement.block);
        opening.last_end = opening.placement.next;
        // Sequentially consistent, as the look at the bell that follows is: see the doorbell's 2.
        extent.end.store(end, Ordering::SeqCst);
        opening.pending = true;
        self.try_open(&mut opening);
        opening
    }

    fn try_open(&self, opening: &mut Opening) {
        let k = self.extents.len() as u64;
        if !opening.pending || opening.stopped || opening.next >= opening.released + k {
            return;
        }
        let mut to = opening.placement;
        let goes_on = to.segment_end - to.next < self.needed(to);
        if goes_on {
            to.next = to.segment_end + to.block;
            to.segment_end += to.segment_size;
        }
        if to.segment_end > to.prepared_end {
            if opening.no_space {
                opening.fail_all();
            }
            return;
        }
        let sequence = opening.next;
        let index = self.index(sequence);
        self.extents[index].base.store(to.next, Ordering::Release);
        // Waiting producers get the first bytes. The tail is published before any of them is woken:
        // a producer that fills a grant and rings the bell must find the I/O thread able to see the
        // extent.
        let fits = |offset: &mut u64, request: &Arc<Request>| {
            let end = *offset + request.len();
            (end <= self.limit).then(|| *offset = end)
        };
        let mut end = HEADER;
        let granted = opening.queue.waiting().map_while(|r| fits(&mut end, r)).count();
        let left = opening.placement;
        opening.left = Some(left).filter(|l| goes_on && l.segment_end - l.next >= l.block);
        opening.placement = to;
        opening.pending = false;
        opening.next += 1;
        // A swap, which costs what a sequentially consistent store does, and has its place among
        // the additions of producers that found the word closed.
        self.tail.swap(Tail::new(sequence, end).0, Ordering::SeqCst);
        let mut offset = HEADER;
        for _ in 0..granted {
            if let Some(request) = opening.queue.pop() {
                let len = request.len();
                if request.is_task() {
                    opening.unpolled.push_back((sequence, Arc::clone(&request)));
                }
                opening.wakers.extend(request.grant(index, offset));
                offset += len;
            }
        }
    }

    /// The first address that no reservation holds: every record appended so far lies below it,
    /// and once the durable end reaches it, all of them are durable.
    pub(crate) fn reserved_end(&self) -> u64 {
        self.reserved_end_with(pause)
    }

    /// `pause` is called after each look that does not tell, with the number of those before it.
    fn reserved_end_with(&self, mut pause: impl FnMut(u32)) -> u64 {
        let mut looks = 0_u32;
        loop {
            let before = Tail(self.tail.load(Ordering::Acquire));
            let base = self.extents[before.index(self.extents.len())].base.load(Ordering::Acquire);
            let after = Tail(self.tail.load(Ordering::Acquire));
            let open = after.offset() <= self.limit;
            if open && after.offset() > HEADER {
                if before.same_extent(after) {
                    return base + after.offset();
                }
            } else {
                let opening = lock(&self.opening);
                let now = Tail(self.tail.load(Ordering::Acquire));
                let empty = now.offset() == HEADER;
                // Closed, the end is exact once the crosser has been here. It has, or will be: also
                // when the ring is stopped meanwhile.
                let settled = now.offset() > self.limit && (opening.pending || !opening.started);
                if empty || settled {
                    return opening.last_end;
                }
            }
            pause(looks);
            looks = looks.saturating_add(1);
        }
    }

    // What follows is called by the I/O thread alone, in the order of sequences, but for
    // `prepared`, `set_no_space` and `placement`, which the segment keeper calls.

    /// Where the extent with this sequence stands.
    pub(crate) fn poll(&self, sequence: u64) -> Poll {
        let extent = &self.extents[self.index(sequence)];
        let end = extent.end.load(Ordering::SeqCst);
        if end != 0 {
            let done = extent.done.load(Ordering::SeqCst);
            if done % ONE_RECORD != end - HEADER {
                return Poll::Filling;
            }
            extent.tracker.take();
            return Poll::Complete(SealedExtent {
                lsn: extent.base.load(Ordering::Relaxed),
                used: end as u32,
                records: (done / ONE_RECORD) as u32,
            });
        }
        let tail = Tail(self.tail.load(Ordering::SeqCst));
        if !tail.is_extent(sequence) {
            Poll::Unopened
        } else if tail.offset() > self.limit {
            Poll::Filling
        } else if tail.offset() > HEADER {
            Poll::Open
        } else {
            Poll::Empty
        }
    }

    /// Closes the open extent, whichever it is by now. An extent that proves empty is opened again,
    /// unless `even_empty`: then it is the caller's, for a control group. True: as for
    /// [`Ring::release`].
    pub(crate) fn seal(&self, even_empty: bool) -> bool {
        let old = Tail(self.tail.fetch_add(SEAL, Ordering::SeqCst));
        if old.offset() > self.limit {
            // Closed already. The crosser, if it is still on its way, does not read the offset.
            return false;
        }
        let index = old.index(self.extents.len());
        let opening = if old.offset() == HEADER && !even_empty {
            let mut opening = lock(&self.opening);
            // We are the crosser, and its own bytes are all free: the same extent again.
            opening.next -= 1;
            opening.pending = true;
            match opening.left.take() {
                // It goes on to the next segment as it did before, and is remembered to have.
                Some(left) => {
                    let prepared_end = opening.placement.prepared_end;
                    opening.placement = Placement { prepared_end, ..left };
                }
                None => {
                    let base = self.extents[index].base.load(Ordering::Relaxed);
                    opening.placement.next = base;
                }
            }
            self.try_open(&mut opening);
            opening
        } else {
            if old.offset() == HEADER {
                self.step_back(index);
            }
            self.cross(index, old.offset())
        };
        !opening.wakers.is_empty()
    }

    /// Moves an extent that will hold only a control group to its place in the segment before, if
    /// blocks are left there. Control groups must not use up segments, which retention would count.
    fn step_back(&self, index: usize) {
        let mut opening = lock(&self.opening);
        if let Some(left) = opening.left.take() {
            let prepared_end = opening.placement.prepared_end;
            opening.placement = Placement { prepared_end, ..left };
            // This thread is the crosser, and no producer has a part of the extent (invariant 5).
            self.extents[index].base.store(left.next, Ordering::Release);
        }
    }

    /// Takes the next extent for a control group while none is open or pending for producers:
    /// before [`Ring::start`] and after [`Ring::stop`]. `None`: no block is left for it.
    pub(crate) fn take_private(&self) -> Option<u64> {
        let mut opening = lock(&self.opening);
        let mut to = opening.placement;
        if to.segment_end - to.next < to.block {
            to.next = to.segment_end + to.block;
            to.segment_end += to.segment_size;
        }
        opening.private_waits = to.segment_end > to.prepared_end;
        if opening.private_waits {
            return None;
        }
        Some(self.open_private(&mut opening, to))
    }

    /// Takes the block reserved for a control group, while the next extent for producers waits for
    /// a segment without space. False: the extent does not wait, or there is no such block.
    pub(crate) fn take_last_block(&self) -> bool {
        let mut opening = lock(&self.opening);
        let to = opening.placement;
        let free = opening.next < opening.released + self.extents.len() as u64;
        let taken = free && self.starved(&opening) && to.segment_end - to.next >= to.block;
        if taken {
            self.open_private(&mut opening, to);
        }
        taken
    }

    fn open_private(&self, opening: &mut Opening, mut to: Placement) -> u64 {
        let sequence = self.open_private_at(opening, to.next);
        to.next += to.block;
        opening.placement = to;
        opening.last_end = to.next;
        sequence
    }

    fn open_private_at(&self, opening: &mut Opening, base: u64) -> u64 {
        let sequence = opening.next;
        let extent = &self.extents[self.index(sequence)];
        extent.base.store(base, Ordering::Release);
        extent.end.store(HEADER, Ordering::Release);
        opening.next += 1;
        sequence
    }

    /// The last block of a full disk's log is left for what makes room there: the mark of a clean
    /// close does without. False: there is another.
    pub(crate) fn is_last_block(&self) -> bool {
        let to = lock(&self.opening).placement;
        to.segment_end - to.next < 2 * to.block && to.segment_end == to.prepared_end
    }

    /// Requests a segment, for a control group that does not take the last block.
    pub(crate) fn want_segment(&self) {
        lock(&self.opening).private_waits = true;
    }

    /// Before [`Ring::start`]: takes the first extent for the epoch group, which is written only
    /// when there is something to write after it. Until [`Ring::epoch_is_written`] the log ends at
    /// `log_end`, as it did: nothing was appended. False: no block is left for it.
    pub(crate) fn hold_epoch(&self, log_end: u64) -> bool {
        let held = self.take_private().is_some();
        let mut opening = lock(&self.opening);
        // Not where the next group goes: that may be in the next segment.
        (opening.epoch_held, opening.last_end) = (held, log_end);
        held
    }

    /// The epoch group takes its block.
    pub(crate) fn epoch_is_written(&self) {
        let mut opening = lock(&self.opening);
        (opening.epoch_held, opening.replaceable) = (false, false);
    }

    pub(crate) fn set_replaceable(&self) {
        lock(&self.opening).replaceable = true;
    }

    /// Takes the first extent for an epoch group that is written over the control group at `lsn`,
    /// the last one of the log, on a full disk without another block for it. False: there may be
    /// one.
    pub(crate) fn take_over(&self, lsn: u64) -> bool {
        let mut opening = lock(&self.opening);
        let taken = opening.replaceable && opening.next == 0 && self.starved(&opening);
        if taken {
            self.open_private_at(&mut opening, lsn);
            opening.private_waits = false;
        }
        taken
    }

    /// Bytes of a segment from which an extent is opened in it: a buffer, and a block that is left
    /// for a control group, so that a log on a full disk can still say what may be removed.
    fn needed(&self, to: Placement) -> u64 {
        let roomy = to.segment_size >= self.limit + 4 * to.block;
        self.limit + if roomy { to.block } else { 0 }
    }

    /// Opens the first extent for producers.
    pub(crate) fn start(&self) {
        let mut opening = lock(&self.opening);
        (opening.started, opening.pending) = (true, true);
        self.try_open(&mut opening);
        unlock(opening);
    }

    /// Opens no more extents, and fails every producer that waits for one. An open extent stays:
    /// the caller seals and takes it.
    pub(crate) fn stop(&self) {
        let mut opening = lock(&self.opening);
        opening.stopped = true;
        opening.fail_all();
        unlock(opening);
    }

    /// Releases the extent's buffer. Called in the order of sequences, once its write is complete.
    /// True: tasks were granted room, and are to be woken by [`Ring::wake_tasks`].
    pub(crate) fn release(&self, sequence: u64) -> bool {
        let extent = &self.extents[self.index(sequence)];
        extent.tracker.take();
        extent.done.store(0, Ordering::Relaxed);
        extent.end.store(0, Ordering::Relaxed);
        let mut opening = lock(&self.opening);
        debug_assert_eq!(opening.released, sequence);
        opening.released += 1;
        while opening.unpolled.front().is_some_and(|(of, _)| *of <= sequence) {
            opening.unpolled.pop_front();
        }
        self.try_open(&mut opening);
        !opening.wakers.is_empty()
    }

    /// Revokes the grants of this extent that tasks have not claimed. The caller must publish each.
    pub(crate) fn take_back(&self, sequence: u64) -> Vec<Reservation<'_>> {
        let opening = lock(&self.opening);
        let granted = opening.unpolled.iter().filter(|(of, _)| *of == sequence);
        granted
            .filter_map(|(_, request)| request.miss().map(|room| (room, request.len())))
            .filter_map(|(room, len)| self.reservation(&room, len))
            .collect()
    }

    /// Segments are prepared up to this address.
    pub(crate) fn prepared(&self, end: u64) {
        let mut opening = lock(&self.opening);
        opening.placement.prepared_end = end;
        opening.no_space = false;
        self.try_open(&mut opening);
        unlock(opening);
    }

    /// Records that there is no space for a segment. Producers that need one fail until
    /// [`Ring::prepared`].
    pub(crate) fn set_no_space(&self) {
        let mut opening = lock(&self.opening);
        opening.no_space = true;
        if self.starved(&opening) {
            opening.fail_all();
        }
        unlock(opening);
    }

    /// Records that no segment will be prepared any more.
    pub(crate) fn forsake(&self) {
        lock(&self.opening).forsaken = true;
        self.set_no_space();
    }

    /// Wakes the tasks that were granted room by [`Ring::release`] or [`Ring::seal`].
    pub(crate) fn wake_tasks(&self) {
        unlock(lock(&self.opening));
    }

    /// Whether a producer waits for room: in the next extent, if one is open.
    pub(crate) fn has_queue(&self) -> bool {
        !lock(&self.opening).queue.is_empty()
    }

    /// Whether the next extent waits for a segment for which there is no space.
    fn starved(&self, opening: &Opening) -> bool {
        opening.no_space && (self.lacks_segment(opening) || opening.private_waits)
    }

    /// Whether the next extent waits for a segment.
    pub(crate) fn waits_for_segment(&self) -> bool {
        let opening = lock(&self.opening);
        opening.private_waits || self.lacks_segment(&opening)
    }

    pub(crate) fn is_out_of_space(&self) -> bool {
        lock(&self.opening).no_space
    }

    /// Forgets the lack of space: the segment keeper retries when a block is needed.
    pub(crate) fn look_for_space_again(&self) {
        let mut opening = lock(&self.opening);
        opening.no_space = opening.forsaken;
    }

    /// Whether nothing more can be written, a control group neither, for want of space.
    pub(crate) fn is_starved(&self) -> bool {
        let opening = lock(&self.opening);
        let to = opening.placement;
        let has_block = opening.epoch_held || opening.replaceable;
        self.starved(&opening) && to.segment_end - to.next < to.block && !has_block
    }

    fn lacks_segment(&self, opening: &Opening) -> bool {
        let p = opening.placement;
        let needed = if p.segment_end - p.next < self.needed(p) {
            p.segment_end + p.segment_size
        } else {
            p.segment_end
        };
        opening.pending && needed > p.prepared_end
    }

    /// Sequence of the extent that is opened next.
    pub(crate) fn opened(&self) -> u64 {
        lock(&self.opening).next
    }
}
