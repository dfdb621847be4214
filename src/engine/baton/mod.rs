//! Who steps the commit path: the I/O thread, or a committer that finds it at rest.
//!
//! The commit loop is one value. While there is work, the I/O thread holds it. When nothing is in
//! flight, the I/O thread *parks* the loop here and sleeps. A committer that comes then takes the
//! loop, commits its own group on its own thread, and puts the loop back: no thread is woken.
//!
//! ```text
//!            park                 try_take
//!   IO ----------------> FREE -----------------> CALLER
//!   ^ <----------------- |  <------------------- |
//!   |      reclaim                  release      | reclaim
//!   |                                            v
//!   + <----------------------------------------- WANTED
//!   |               release (wakes the I/O thread)
//!   +- retire -> GONE
//! ```
//!
//! Invariants:
//! 1. The slot belongs to the holder that the word names: the I/O thread in IO, no thread in FREE,
//!    the committer whose exchange made it CALLER until that committer releases it.
//! 2. Only the I/O thread makes FREE from IO, IO from FREE, WANTED from CALLER, and GONE. The
//!    committer that holds the loop makes FREE from CALLER, and IO from WANTED.
//! 3. A release of WANTED gives the loop to the I/O thread and wakes it. It goes to no committer
//!    first: one that commits without a pause would take it again before the I/O thread has woken.
//!    A release of CALLER need not wake: the I/O thread does not wait for the word.
//! 4. After GONE nothing is taken any more.
//! 5. At most one committer waits awake, which `next` says, with its record in the ring. Before it
//!    goes on without the loop it clears `next` and then rings if records are left; a holder that
//!    leaves records arms the doorbell and then looks at `next`. So one of the two sees the other,
//!    and those records are committed by the thread that takes the loop next, or the I/O thread is
//!    rung.
//! 6. A doorbell that rings while the loop is parked bumps `bell`. The I/O thread reads `bell`
//!    before it arms the doorbell, so that a ring after that ends its sleep.
//! 7. A commit says in `due` when the I/O thread must step, and then looks at `wakes_at`, when it
//!    will. The I/O thread moves `wakes_at` first and then looks at `due` again. So either it sees
//!    an earlier time, or the committer sees that it must ring. A log whose committers move the
//!    time with each commit leaves the I/O thread asleep.

#[cfg(all(test, ringwal_loom))]
mod loom_tests;

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use crate::ring::{Wake, WakeOn};
use crate::sys::sync::{AtomicU32, AtomicU64, Futex, Ordering, Tracker, model_fence, spin_loop};

/// The outcome of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) progress: bool,
    pub(crate) finished: bool,
    /// A group waits for committers that are on their way: the next step comes soon, and the I/O
    /// thread gives way to them until then.
    pub(crate) gathers: bool,
    /// What must wake the I/O thread, beside completions. `None`: completions only.
    pub(crate) wake_on: Option<WakeOn>,
    /// The latest time of the next step, by the clock.
    pub(crate) deadline: Option<u64>,
}

/// What a committer leaves to the I/O thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    /// Others want something that only the I/O thread does.
    pub(crate) work: bool,
    /// Others have appended.
    pub(crate) records: bool,
    /// When the I/O thread must step at the latest, by the clock; `u64::MAX`: never.
    pub(crate) deadline: u64,
}

/// The commit path as a state machine, on the thread that steps it.
pub(crate) trait CommitLoop: Send {
    /// On the I/O thread: does all that can be done without waiting.
    fn step(&mut self) -> Step;
    /// On the I/O thread: submits what is queued, and sleeps until there may be something to do.
    fn wait(&mut self, deadline: Option<u64>);
    /// By the loop's clock, what is left of the time until then.
    fn left_until(&self, deadline: u64) -> Duration;
    /// Whether another thread may step it: nothing is in flight.
    fn may_park(&self) -> bool;
    /// On any thread that holds it: commits what is in the ring until `lsn` is durable, if it can
    /// without the I/O thread, and arms the doorbell again.
    fn commit(&mut self, lsn: u64) -> Left;
    /// After a panic in one of the others.
    fn abandon(&mut self);
}

const IO: u32 = 0;
const FREE: u32 = 1;
const CALLER: u32 = 2;
const WANTED: u32 = 3;
const GONE: u32 = 4;

/// A commit that took less, in nanoseconds, is shorter than what it takes to wake a thread: a
/// second committer then waits awake.
const SHORT_COMMIT: u64 = 25_000;
/// How often a committer that waits awake looks, before it sleeps.
const LOOKS: u32 = if cfg!(ringwal_loom) { 2 } else { 400 };
/// Records of a group up to which its committers are few: they hand the loop to each other. More
/// are better served by a thread of their own, which works while they wake up.
const FEW: u32 = 4;
/// Commits that go through the I/O thread once there is company: at first, and at most.
const FIRST_DETOUR: u32 = 16;
const LONGEST_DETOUR: u32 = 1024;

/// Ends the sleep of the I/O thread, wherever it sleeps.
#[derive(Debug)]
pub(crate) struct Bell {
    word: Futex,
    /// 1: the I/O thread sleeps, or is about to, on `word` and not in its backend.
    parked: AtomicU32,
}

#[derive(Debug)]
pub(crate) struct BellWaker {
    bell: Arc<Bell>,
    backend: Box<dyn Wake>,
}

impl Wake for BellWaker {
    fn wake(&self) {
        if self.bell.parked.load(Ordering::SeqCst) == 1 {
            self.bell.word.bump();
            self.bell.word.wake_all();
        } else {
            self.backend.wake();
        }
    }
}

pub(crate) struct Baton<T> {
    word: Futex,
    slot: UnsafeCell<Option<T>>,
    tracker: Tracker,
    bell: Arc<Bell>,
    /// When the parked I/O thread looks again by itself, by the clock; `u64::MAX`: when it is rung.
    wakes_at: AtomicU64,
    /// When the I/O thread must step, by the last commit since it parked; 0: there was none.
    due: AtomicU64,
    /// 1: a committer with a record in the ring waits awake.
    next: AtomicU32,
    /// Whether another core can hold the loop while a committer waits awake.
    cores: bool,
    /// How long the last commit by a committer took, in nanoseconds.
    commit_time: AtomicU64,
    /// Commits that are still to go through the I/O thread, and how many that were.
    detour: AtomicU32,
    detour_length: AtomicU32,
}

// SAFETY: the slot is only touched by the holder that the word names (invariant 1), and the word
// changes hands with sequentially consistent exchanges, which order the accesses of two holders. T
// moves between threads, and so must be Send; no two threads ever share a reference to it.
unsafe impl<T: Send> Sync for Baton<T> {}

impl<T> std::fmt::Debug for Baton<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Baton").field("word", &self.word.load()).finish_non_exhaustive()
    }
}

impl<T> Baton<T> {
    pub(crate) fn new() -> Self {
        Baton {
            word: Futex::new(IO),
            slot: UnsafeCell::new(None),
            tracker: Tracker::new(),
            bell: Arc::new(Bell { word: Futex::new(0), parked: AtomicU32::new(0) }),
            wakes_at: AtomicU64::new(0),
            due: AtomicU64::new(0),
            next: AtomicU32::new(0),
            cores: cfg!(ringwal_loom)
                || std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1),
            commit_time: AtomicU64::new(u64::MAX),
            detour: AtomicU32::new(0),
            detour_length: AtomicU32::new(0),
        }
    }

    /// What the doorbell wakes: the parked I/O thread, or its backend.
    pub(crate) fn waker(&self, backend: Box<dyn Wake>) -> BellWaker {
        BellWaker { bell: Arc::clone(&self.bell), backend }
    }

    /// The I/O thread is about to park: to be called before it arms the doorbell. Returns what
    /// [`Baton::sleep`] takes.
    pub(crate) fn prepare_to_park(&self) -> u32 {
        let seen = self.bell.word.load();
        self.bell.parked.swap(1, Ordering::SeqCst);
        seen
    }

    /// The I/O thread does not park, or not any longer.
    pub(crate) fn unpark(&self) {
        self.bell.parked.swap(0, Ordering::SeqCst);
    }

    /// The I/O thread puts the loop down, sleeps until the bell has rung since `seen` or the time
    /// is over, and takes the loop again. `deadline`: by the clock; commits may move it to a later
    /// time. `timeout`: what is left until then.
    pub(crate) fn park(
        &self,
        held: T,
        seen: u32,
        deadline: Option<u64>,
        mut timeout: Option<Duration>,
    ) -> Option<T> {
        let mut until = deadline.unwrap_or(u64::MAX);
        self.due.store(0, Ordering::SeqCst);
        self.wakes_at.store(until, Ordering::SeqCst);
        self.tracker.take();
        // SAFETY: the word is IO: the slot is this thread's (invariant 1).
        unsafe { *self.slot.get() = Some(held) };
        self.word.store(FREE);
        loop {
            self.bell.word.wait(seen, timeout);
            if timeout.is_none() || self.bell.word.load() != seen {
                break;
            }
            let Some(later) = self.moved_from(until) else { break };
            timeout = Some(Duration::from_nanos(later - until));
            until = later;
        }
        self.reclaim()
    }

    /// The later time to which commits have moved the one that the I/O thread slept for.
    fn moved_from(&self, until: u64) -> Option<u64> {
        let mut due = self.due.load(Ordering::SeqCst);
        while due > until {
            self.wakes_at.store(due, Ordering::SeqCst);
            model_fence();
            let again = self.due.load(Ordering::SeqCst);
            if again >= due {
                return Some(due);
            }
            due = again;
        }
        None
    }

    /// `None`: a committer has lost the loop, which no code does.
    fn reclaim(&self) -> Option<T> {
        loop {
            if self.word.change(FREE, IO) || self.word.load() == IO {
                self.tracker.take();
                // SAFETY: the word is IO by the exchange, or by that of the committer that has put
                // the loop back: the slot is this thread's (invariant 1).
                return unsafe { (*self.slot.get()).take() };
            }
            // A committer has it. It leaves it to this thread, and wakes it.
            self.word.change(CALLER, WANTED);
            self.word.wait(WANTED, None);
        }
    }

    /// The I/O thread has ended the loop.
    pub(crate) fn retire(&self) {
        self.word.store(GONE);
    }

    /// Takes the loop for one commit, if no thread holds it and a commit by the caller is likely to
    /// be the faster way.
    #[inline]
    pub(crate) fn take_to_commit(&self) -> Option<Held<'_, T>> {
        if self.word.load() != FREE || self.is_on_detour() {
            return None;
        }
        self.try_take()
    }

    fn is_on_detour(&self) -> bool {
        let left = self.detour.load(Ordering::Relaxed);
        if left > 0 {
            // Only a hint: two that count at once may count one.
            self.detour.store(left - 1, Ordering::Relaxed);
        }
        left > 0
    }

    /// Waits awake for the loop, or until `done`: for a committer whose record is in the ring. No
    /// thread wakes the I/O thread for that record meanwhile, so that a caller who gets nothing
    /// must ring.
    pub(crate) fn wait_awake(&self, done: impl Fn() -> bool) -> Awaited<'_, T> {
        let short = self.commit_time.load(Ordering::Relaxed) < SHORT_COMMIT;
        if !self.cores || !short || self.is_on_detour() {
            return Awaited::Nothing;
        }
        if self.next.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return Awaited::Nothing;
        }
        let mut got = Awaited::GaveUp;
        for _ in 0..LOOKS {
            if done() {
                got = Awaited::Done;
                break;
            }
            match self.word.load() {
                FREE => {
                    if let Some(held) = self.try_take() {
                        got = Awaited::Held(held);
                        break;
                    }
                }
                GONE => break,
                _ => {}
            }
            spin_loop();
        }
        self.next.swap(0, Ordering::SeqCst);
        got
    }

    /// Whether a committer waits awake: it takes the loop once it is free, or rings.
    pub(crate) fn has_next(&self) -> bool {
        model_fence();
        self.next.load(Ordering::SeqCst) != 0
    }

    fn try_take(&self) -> Option<Held<'_, T>> {
        self.word.change(FREE, CALLER).then(|| {
            self.tracker.take();
            Held { baton: self }
        })
    }

    /// By the holder of the loop: the I/O thread must step at `deadline`. True: it must be rung for
    /// that.
    pub(crate) fn must_hear_of(&self, deadline: u64) -> bool {
        self.due.store(deadline, Ordering::SeqCst);
        model_fence();
        deadline < self.wakes_at.load(Ordering::SeqCst)
    }

    /// A committer's commit of so many records took so long. `company`: others have appended
    /// meanwhile.
    pub(crate) fn committed(&self, nanoseconds: u64, records: u32, company: bool) {
        self.commit_time.store(nanoseconds, Ordering::Relaxed);
        if records > FEW || (company && nanoseconds >= SHORT_COMMIT) {
            let length = self.detour_length.load(Ordering::Relaxed).saturating_mul(2);
            let length = length.clamp(FIRST_DETOUR, LONGEST_DETOUR);
            self.detour_length.store(length, Ordering::Relaxed);
            self.detour.store(length, Ordering::Relaxed);
        } else {
            self.detour_length.store(0, Ordering::Relaxed);
        }
    }
}

/// What [`Baton::wait_awake`] came to.
#[derive(Debug)]
pub(crate) enum Awaited<'a, T> {
    /// It did not wait.
    Nothing,
    /// What was waited for has happened. If the ring holds records that are not durable, the caller
    /// must ring the doorbell: a holder may have left them to it.
    Done,
    Held(Held<'a, T>),
    /// The caller must ring the doorbell: a holder may have left its record to it.
    GaveUp,
}

/// The loop in the hands of a committer. Put back when dropped.
pub(crate) struct Held<'a, T> {
    baton: &'a Baton<T>,
}

impl<T> std::fmt::Debug for Held<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = Option<T>;

    fn deref(&self) -> &Option<T> {
        // SAFETY: the word is CALLER or WANTED by this value's exchange: the slot is its owner's
        // until it is dropped (invariant 1).
        unsafe { &*self.baton.slot.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut Option<T> {
        // SAFETY: as above, and `&mut self` makes the reference unique.
        unsafe { &mut *self.baton.slot.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        self.baton.tracker.take();
        if !self.baton.word.change(CALLER, FREE) {
            self.baton.word.store(IO);
            self.baton.word.wake_all();
        }
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    #[test]
    fn io_thread_that_wants_the_loop_gets_it_before_the_next_committer() {
        // Again and again: otherwise the I/O thread may come first by chance.
        for _ in 0..50 {
            let baton: Arc<Baton<u32>> = Arc::new(Baton::new());
            let parked = Arc::clone(&baton);
            let seen = baton.prepare_to_park();
            let io_thread = std::thread::spawn(move || parked.park(7, seen, None, None));
            let held = loop {
                match baton.take_to_commit() {
                    Some(held) => break held,
                    None => std::thread::yield_now(),
                }
            };
            baton.bell.word.bump();
            baton.bell.word.wake_all();
            while baton.word.load() != WANTED {
                std::thread::yield_now();
            }
            drop(held);
            assert!(baton.take_to_commit().is_none());
            assert_eq!(io_thread.join().unwrap(), Some(7));
        }
    }

    #[test]
    fn commits_move_the_time_for_which_the_io_thread_sleeps() {
        let baton: Baton<u32> = Baton::new();
        baton.wakes_at.store(10, Ordering::SeqCst);
        assert_eq!(baton.moved_from(10), None, "no commit");
        assert!(!baton.must_hear_of(20));
        assert_eq!(baton.moved_from(10), Some(20));
        assert!(baton.must_hear_of(15), "sooner than the I/O thread looks");
        assert_eq!(baton.moved_from(20), None);
    }
}
