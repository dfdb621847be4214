//! Wakes many tasks of one thread: the I/O thread wakes one of them, and that task wakes the
//! others.
//!
//! A waker that another thread calls takes the executor's lock and may cost a system call. A waker
//! that a task of the same executor calls is a push to a local queue.
//!
//! 1. A waker in the relay belongs to a task whose position is durable, or whose log has failed.
//! 2. The I/O thread puts wakers in after it has chosen a task of the same thread that is not put
//!    in. It wakes that task afterwards.
//! 3. Every poll and drop of a future of the log takes all wakers out and calls them. So does the
//!    I/O thread some time after it put them in. No task is left, whatever the chosen one does.
//! 4. Wakers, which are user code, are called with no lock held.

use std::task::Waker;

use crate::ring::wake_quietly;
use crate::sys::sync::{AtomicU32, Mutex, Ordering, lock, model_fence};

#[derive(Debug)]
pub(super) struct Relay {
    waiting: AtomicU32,
    wakers: Mutex<Vec<Waker>>,
}

impl Relay {
    pub(super) fn new() -> Self {
        Relay { waiting: AtomicU32::new(0), wakers: Mutex::new(Vec::new()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0
    }

    pub(super) fn put(&self, wakers: impl Iterator<Item = Waker>) {
        let mut list = lock(&self.wakers);
        list.extend(wakers);
        self.waiting.store(list.len() as u32, Ordering::SeqCst);
        model_fence();
    }

    /// Calls all wakers in the relay, oldest first. Costs one load when there is none.
    pub(super) fn pass_on(&self) {
        if self.is_empty() {
            return;
        }
        let mut wakers = {
            let mut list = lock(&self.wakers);
            self.waiting.store(0, Ordering::SeqCst);
            std::mem::take(&mut *list)
        };
        for waker in wakers.drain(..) {
            wake_quietly(waker);
        }
        // The allocation is kept for the next time.
        let mut list = lock(&self.wakers);
        if list.capacity() == 0 {
            *list = wakers;
        }
    }
}

/// A number of the calling thread, different for each: the address of a thread-local value.
pub(super) fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.try_with(|here| std::ptr::from_ref(here).addr()).unwrap_or(0)
}
