//! How producers wake the I/O thread, and how the I/O thread states that they need not.
//!
//! 1. The state is AWAKE, or the event that must wake the sleeper: an extent that is closed and
//!    complete (SEALED), or any published record (ANY).
//! 2. The I/O thread arms the bell, looks for work once more, and only then sleeps. A producer
//!    publishes, and only then looks at the bell. All four are sequentially consistent, so that at
//!    least one of the two sees the other (Dekker). The same holds for every word on which the look
//!    for work depends: the tail, an extent's end and its completion counter. The fences of the
//!    models would hide a weaker one.
//! 3. The thread that finds the bell armed disarms it and wakes the I/O thread: one wake-up per
//!    sleep.

use std::sync::OnceLock;

use crate::sys::sync::{AtomicU32, Ordering, model_fence};

/// Ends the I/O thread's sleep. May be called from any thread and at any time.
pub(crate) trait Wake: Send + Sync + std::fmt::Debug {
    fn wake(&self);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WakeOn {
    Sealed = 1,
    Any = 2,
}

const AWAKE: u32 = 0;

#[derive(Debug)]
pub(crate) struct Doorbell {
    state: AtomicU32,
    waker: OnceLock<Box<dyn Wake>>,
}

impl Doorbell {
    pub(crate) fn new() -> Self {
        Doorbell { state: AtomicU32::new(AWAKE), waker: OnceLock::new() }
    }

    /// Sets the waker. Called once.
    pub(crate) fn connect(&self, waker: Box<dyn Wake>) {
        let _ = self.waker.set(waker);
    }

    pub(crate) fn arm(&self, on: WakeOn) {
        // A swap costs what a sequentially consistent store does, and takes its place among the
        // swaps of those that ring, in the models too.
        self.state.swap(on as u32, Ordering::SeqCst);
        model_fence();
    }

    pub(crate) fn disarm(&self) {
        self.state.swap(AWAKE, Ordering::SeqCst);
    }

    /// Reports a published record. `completes` returns whether it was the last of a closed extent;
    /// it is called only when that matters.
    #[inline]
    pub(crate) fn published(&self, completes: impl FnOnce() -> bool) {
        model_fence();
        let state = self.state.load(Ordering::SeqCst);
        if state != AWAKE && (state == WakeOn::Any as u32 || completes()) {
            self.ring();
        }
    }

    /// Reports an event that the I/O thread must see, whatever it sleeps for.
    pub(crate) fn ring(&self) {
        model_fence();
        if self.state.load(Ordering::SeqCst) != AWAKE
            && self.state.swap(AWAKE, Ordering::SeqCst) != AWAKE
            && let Some(waker) = self.waker.get()
        {
            waker.wake();
        }
    }
}
