//! The request of `truncate_from`.

use std::time::Duration;

use crate::sys::sync::{AtomicU64, Futex, Ordering};

/// No cut is requested.
const NO_CUT: u64 = u64::MAX;

/// The request of one cut: `truncate_from` sets it, and the I/O thread takes it and writes the cut
/// in its next group.
#[derive(Debug)]
pub(crate) struct CutRequest {
    /// The first LSN to be void. Written by `truncate_from`, taken by the I/O thread or, to
    /// withdraw it, by `truncate_from`.
    from: AtomicU64,
    /// Changes when a cut is durable and when none can become durable any more. `truncate_from`
    /// waits for it; the I/O thread, the segment keeper and a failure ring it.
    settled: Futex,
}

impl CutRequest {
    pub(super) fn new() -> Self {
        CutRequest { from: AtomicU64::new(NO_CUT), settled: Futex::new(0) }
    }

    pub(super) fn set(&self, from: u64) {
        self.from.store(from, Ordering::SeqCst);
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.from.load(Ordering::SeqCst) != NO_CUT
    }

    /// Takes the request: the caller writes the cut, or withdraws it.
    pub(crate) fn take(&self) -> Option<u64> {
        if !self.is_wanted() {
            return None;
        }
        Some(self.from.swap(NO_CUT, Ordering::SeqCst)).filter(|&from| from != NO_CUT)
    }

    /// Wakes `truncate_from`: a cut is durable, or none can become durable any more.
    pub(crate) fn wake_waiter(&self) {
        self.settled.bump();
        self.settled.wake_all();
    }

    /// Read before the condition is checked, for [`wait`](CutRequest::wait).
    pub(crate) fn seen(&self) -> u32 {
        self.settled.load()
    }

    pub(crate) fn wait(&self, seen: u32) {
        self.settled.wait(seen, None::<Duration>);
    }
}
