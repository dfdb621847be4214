//! Atomics, locks and a place to sleep: std's, or loom's under `--cfg ringwal_loom`, or shuttle's, which
//! `--cfg ringwal_shuttle` puts in loom's place. The only file that chooses.

#[cfg(all(ringwal_loom, not(ringwal_shuttle)))]
pub(crate) use ::loom;

#[cfg(ringwal_shuttle)]
pub(crate) use crate::shuttled as loom;

#[cfg(ringwal_loom)]
mod imp {
    use super::loom;

    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use loom::thread::yield_now;

    /// Lets loom see that memory is written by one side and taken by the other without overlap.
    #[derive(Debug)]
    pub(crate) struct Tracker(loom::cell::UnsafeCell<()>);

    // SAFETY: loom checks every access to the cell, which holds nothing, and fails the model on an
    // overlap: finding one is what the tracker is for.
    unsafe impl Sync for Tracker {}

    impl Tracker {
        pub(crate) fn new() -> Self {
            Tracker(loom::cell::UnsafeCell::new(()))
        }
        /// A producer touches its own part: shared with other producers.
        pub(crate) fn fill(&self) {
            self.0.with(|_| ());
        }
        /// The I/O thread takes the whole buffer: exclusive.
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

/// Loom knows sequential consistency of fences only: this makes it of the accesses around it. Nothing
/// outside the models.
#[inline(always)]
pub(crate) fn model_fence() {
    #[cfg(ringwal_loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// Locks, whether or not a thread panicked while it held the lock: the states behind our locks are
/// valid between any two statements, and a panic of the I/O thread poisons the log by itself.
pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The same, if nobody holds it.
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
/// 1. `wait(seen)` returns at once if the word is not `seen` any more.
/// 2. Whoever changes the word and then calls `wake_all` wakes every thread that saw the old value.
/// 3. `wait` may return for no reason: callers loop.
#[derive(Debug)]
pub(crate) struct Futex {
    word: AtomicU32,
    #[cfg(not(all(target_os = "linux", feature = "uring", not(ringwal_loom))))]
    lock: Mutex<()>,
    #[cfg(all(not(ringwal_loom), not(all(target_os = "linux", feature = "uring"))))]
    changed: std::sync::Condvar,
    #[cfg(ringwal_loom)]
    changed: loom::sync::Condvar,
}

impl Futex {
    pub(crate) fn new(value: u32) -> Self {
        Futex {
            word: AtomicU32::new(value),
            #[cfg(not(all(target_os = "linux", feature = "uring", not(ringwal_loom))))]
            lock: Mutex::new(()),
            #[cfg(all(not(ringwal_loom), not(all(target_os = "linux", feature = "uring"))))]
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

    /// Changes the word if it is `from`. False: it was not.
    pub(crate) fn change(&self, from: u32, to: u32) -> bool {
        self.word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    pub(crate) fn bump(&self) {
        self.word.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(all(target_os = "linux", feature = "uring", not(ringwal_loom)))]
impl Futex {
    /// Sleeps until the word is no longer `seen`, or `timeout` has passed.
    pub(crate) fn wait(&self, seen: u32, timeout: Option<std::time::Duration>) {
        use nix::libc;
        let spec = timeout.map(|d| libc::timespec {
            tv_sec: d.as_secs().min(1 << 30) as libc::time_t,
            tv_nsec: d.subsec_nanos() as libc::c_long,
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

#[cfg(not(all(target_os = "linux", feature = "uring", not(ringwal_loom))))]
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
        #[cfg(ringwal_loom)]
        let _ = timeout;
        drop(self.changed.wait(guard));
    }

    pub(crate) fn wake_all(&self) {
        // Taken and let go: a waiter is then either before its look at the word or asleep.
        drop(lock(&self.lock));
        self.changed.notify_all();
    }
}
