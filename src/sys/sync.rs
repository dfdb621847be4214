//! Atomics, locks and a futex: those of std, those of loom under `--cfg ringwal_loom`, or those of
//! shuttle in their place under `--cfg ringwal_shuttle`. Only this file chooses.
//!
//! # Orderings
//!
//! The table lists every atomic access of the ring, the waiters, the baton and the futex, by file
//! and word. `tests/tools/tidy.rs` checks it against the code. Loom models sequential consistency
//! only for fences, so that the fences of its models would hide a weaker access. A change of an
//! ordering must change its row, and the row must say why the ordering is enough.
//!
//! *Dekker*: each of two sides stores its own word and then loads the word of the other. At least
//! one of the two must see the other, which takes four sequentially consistent accesses.
//!
//! | file | word | accesses | why |
//! |---|---|---|---|
//! | ring/mod.rs | tail | fetch_add SeqCst, 3 load Acquire, load SeqCst, swap SeqCst | Dekker with the bell: `poll` looks after `arm`. The swap publishes the base (Release); `reserved_end` looks at it before and after the base (Acquire) |
//! | ring/reserve.rs | tail | fetch_add SeqCst, load Acquire, load Relaxed | Dekker with the bell: a producer reserves before it looks at the bell. The first look only saves an addition; the one under the lock needs no order of its own |
//! | ring/mod.rs | end | load SeqCst, store Relaxed, store Release, store SeqCst | Dekker with the bell: the crosser fixes the end, then rings. The end of a control group belongs to the I/O thread; 0 is stored while no other thread reads it, before the lock publishes the buffer |
//! | ring/reserve.rs | end | load SeqCst | Dekker: the crosser or the last producer sees that the extent is closed and complete |
//! | ring/mod.rs | done | load SeqCst, store Relaxed | Dekker with the bell, and Acquire of the bytes published. 0 as for the end |
//! | ring/reserve.rs | done | fetch_add SeqCst, load Relaxed | Dekker with the bell: a producer publishes (Release of its bytes) before it looks at the bell. The load counts records, to decide how long a group waits |
//! | ring/mod.rs | base | load Acquire, 3 load Relaxed, 3 store Release | The ring's invariants 7 and 9. The lock and `end` order the crosser and the I/O thread |
//! | ring/reserve.rs | base | load Relaxed | After the addition to the tail, which read the value released by the opener's swap |
//! | ring/doorbell.rs | state | 2 load SeqCst, 3 swap SeqCst | Dekker: `arm` swaps before the I/O thread looks for work, `published` and `ring` look after the work is there |
//! | ring/request.rs | len | load Relaxed, store Relaxed | Written before the request is queued, under the lock |
//! | ring/request.rs | index | load Relaxed, store Relaxed | Written before the state says GRANTED, read after that was seen |
//! | ring/request.rs | offset | load Relaxed, store Relaxed | As the index |
//! | ring/reserve.rs | full_waits | 2 fetch_add Relaxed | A statistic |
//! | ring/memory.rs | leak | store Release | Read by `drop`, which owns the memory |
//! | durable/mod.rs | end | load Relaxed, load SeqCst, store SeqCst | Dekker with the buckets: the I/O thread moves the end, then looks for waiters. The relaxed look only ends a pause early |
//! | durable/mod.rs | threads | 2 fetch_add SeqCst, 2 fetch_sub SeqCst, 2 load SeqCst | Dekker with the end: a thread enters, then looks at the end |
//! | durable/mod.rs | tasks | 3 load SeqCst, 3 store SeqCst | Dekker with the end: a task enters, then looks at the end |
//! | durable/mod.rs | demand | fetch_max SeqCst, load SeqCst | Dekker with the bell: a waiter demands, then rings; the I/O thread arms, then looks at the demand |
//! | durable/mod.rs | crowd | load Relaxed, store Relaxed | A hint |
//! | durable/mod.rs | ids | fetch_add Relaxed | The numbers only have to differ |
//! | durable/listeners.rs | count | load SeqCst, 3 store SeqCst | Dekker with the end: a listener enters, then its owner looks at the end |
//! | durable/relay.rs | waiting | load SeqCst, 2 store SeqCst | Dekker: wakers enter before the chosen task is woken, and each poll looks for them |
//! | durable/status.rs | word | compare_exchange SeqCst SeqCst, 2 load SeqCst, 2 store SeqCst | Dekker with the buckets, as the end: a failure releases every waiter |
//! | engine/baton/mod.rs | parked | load SeqCst, 2 swap SeqCst | Written before the bell is armed, read by the thread that finds it armed |
//! | engine/baton/mod.rs | next | compare_exchange SeqCst SeqCst, load SeqCst, swap SeqCst | Dekker with the bell: a committer clears `next`, then rings; a holder arms, then looks at `next` |
//! | engine/baton/mod.rs | wakes_at | 2 store SeqCst, load SeqCst | Dekker with `due`: the I/O thread stores, then looks at `due`; a committer stores `due`, then looks here |
//! | engine/baton/mod.rs | due | 2 store SeqCst, 2 load SeqCst | As `wakes_at` |
//! | engine/baton/mod.rs | commit_time | load Relaxed, store Relaxed | A hint |
//! | engine/baton/mod.rs | detour | load Relaxed, 2 store Relaxed | A hint |
//! | engine/baton/mod.rs | detour_length | load Relaxed, 2 store Relaxed | A hint |
//! | sys/sync.rs | word | compare_exchange SeqCst SeqCst, fetch_add SeqCst, load SeqCst, store SeqCst | The futex's invariant 2, and the pairs of its users |
//! | sys/sync.rs | atomic | fence SeqCst | In the models only |

#[cfg(all(ringwal_loom, not(ringwal_shuttle)))]
pub(crate) use ::loom;

#[cfg(ringwal_shuttle)]
pub(crate) use crate::sys::shuttle as loom;

#[cfg(ringwal_loom)]
mod imp {
    use super::loom;

    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use loom::thread::yield_now;

    /// Shows loom that one side writes memory and the other takes it, without overlap.
    #[derive(Debug)]
    pub(crate) struct Tracker(loom::cell::UnsafeCell<()>);

    // SAFETY: loom checks every access to the cell, which holds nothing, and fails the model on an
    // overlap. To find an overlap is the purpose of the tracker.
    unsafe impl Sync for Tracker {}

    impl Tracker {
        pub(crate) fn new() -> Self {
            Tracker(loom::cell::UnsafeCell::new(()))
        }
        /// A producer accesses its own part, beside other producers.
        pub(crate) fn fill(&self) {
            self.0.with(|_| ());
        }
        /// The I/O thread takes the whole buffer, exclusively.
        pub(crate) fn take(&self) {
            self.0.with_mut(|_| ());
        }
    }
}

#[cfg(not(ringwal_loom))]
mod imp {
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    pub(crate) use std::sync::{Mutex, MutexGuard};
    pub(crate) use std::thread::yield_now;

    #[derive(Debug)]
    pub(crate) struct Tracker;

    impl Tracker {
        pub(crate) fn new() -> Self {
            Tracker
        }
        #[inline(always)]
        #[allow(clippy::unused_self)]
        pub(crate) fn fill(&self) {}
        #[inline(always)]
        #[allow(clippy::unused_self)]
        pub(crate) fn take(&self) {}
    }
}

pub(crate) use imp::*;

/// Gives the accesses around it sequential consistency in the models, where loom knows it of fences
/// only. Does nothing outside the models.
#[inline(always)]
pub(crate) fn model_fence() {
    #[cfg(ringwal_loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// Locks, also after a thread panicked while it held the lock. The states under our locks are valid
/// between any two statements, and a panic of the I/O thread poisons the log by itself.
pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Locks if no thread holds the lock, also after a panic of a holder.
pub(crate) fn try_lock<T>(m: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match m.try_lock() {
        Ok(guard) => Some(guard),
        Err(std::sync::TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
        Err(std::sync::TryLockError::WouldBlock) => None,
    }
}

/// A 32-bit word on which threads can sleep until it changes.
///
/// Invariants:
/// 1. `wait(seen)` returns at once if the word is no longer `seen`.
/// 2. A thread that changes the word and then calls `wake_all` wakes every thread that saw the old
///    value.
/// 3. `wait` may return for no reason: callers loop.
#[derive(Debug)]
pub(crate) struct Futex {
    word: AtomicU32,
    #[cfg(not(linux_unmodelled))]
    lock: Mutex<()>,
    #[cfg(all(not(ringwal_loom), not(linux_calls)))]
    changed: std::sync::Condvar,
    #[cfg(ringwal_loom)]
    changed: loom::sync::Condvar,
}

impl Futex {
    pub(crate) fn new(value: u32) -> Self {
        Futex {
            word: AtomicU32::new(value),
            #[cfg(not(linux_unmodelled))]
            lock: Mutex::new(()),
            #[cfg(all(not(ringwal_loom), not(linux_calls)))]
            changed: std::sync::Condvar::new(),
            #[cfg(ringwal_loom)]
            changed: loom::sync::Condvar::new(),
        }
    }

    pub(crate) fn load(&self) -> u32 {
        self.word.load(Ordering::SeqCst)
    }

    pub(crate) fn store(&self, value: u32) {
        self.word.store(value, Ordering::SeqCst);
    }

    /// Changes the word from `from` to `to`. False: the word was not `from`.
    pub(crate) fn change(&self, from: u32, to: u32) -> bool {
        self.word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    pub(crate) fn bump(&self) {
        self.word.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(linux_unmodelled)]
impl Futex {
    /// Sleeps until the word is no longer `seen`, or `timeout` has passed.
    pub(crate) fn wait(&self, seen: u32, timeout: Option<std::time::Duration>) {
        use nix::libc;
        let spec = timeout.map(|d| libc::timespec {
            // By inference: musl is about to change the width of its seconds.
            tv_sec: d.as_secs().min(1 << 30) as _,
            tv_nsec: d.subsec_nanos() as _,
        });
        let spec = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: FUTEX_WAIT reads the word, which outlives the call through &self, and the
        // timespec, which is null or points to a local. Any error means "woken": callers loop.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.word.as_ptr(),
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                seen,
                spec,
            );
        }
    }

    pub(crate) fn wake_all(&self) {
        use nix::libc;
        // SAFETY: FUTEX_WAKE only uses the address of the word, which lives as long as &self.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.word.as_ptr(),
                libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                i32::MAX,
            );
        }
    }
}

#[cfg(not(linux_unmodelled))]
impl Futex {
    /// Sleeps until the word is no longer `seen`, or `timeout` has passed.
    pub(crate) fn wait(&self, seen: u32, timeout: Option<std::time::Duration>) {
        let guard = lock(&self.lock);
        if self.load() != seen {
            return;
        }
        #[cfg(not(ringwal_loom))]
        if let Some(timeout) = timeout {
            drop(self.changed.wait_timeout(guard, timeout));
            return;
        }
        // In the models a time is over at once, or never.
        #[cfg(ringwal_loom)]
        if timeout == Some(std::time::Duration::ZERO) {
            return;
        }
        drop(self.changed.wait(guard));
    }

    pub(crate) fn wake_all(&self) {
        // A waiter is then either before its look at the word, or asleep.
        drop(lock(&self.lock));
        self.changed.notify_all();
    }
}
