//! What the archiver shares with the I/O thread and the segment keeper.

use std::time::Duration;

use crate::sys::sync::{AtomicU64, Futex, Ordering};

/// A log without a hook on sealed segments keeps no segment for it.
const NO_HOOK: u64 = u64::MAX;

/// How far the hook on sealed segments has come, and the bell of its thread.
#[derive(Debug)]
pub(crate) struct HookState {
    /// Retention keeps segments from this LSN on for the hook. Written by the archiver, read by the
    /// segment keeper and the I/O thread.
    released: AtomicU64,
    /// Changes when a segment may have been sealed or become durable, and when the log ends. The
    /// archiver waits for it.
    bell: Futex,
}

impl HookState {
    pub(super) fn new() -> Self {
        HookState { released: AtomicU64::new(NO_HOOK), bell: Futex::new(0) }
    }

    /// The hook has finished with everything below `position`.
    pub(crate) fn set_released(&self, position: u64) {
        self.released.store(position, Ordering::SeqCst);
    }

    pub(crate) fn released(&self) -> u64 {
        self.released.load(Ordering::SeqCst)
    }

    /// Whether there is a hook.
    pub(crate) fn is_set(&self) -> bool {
        self.released() != NO_HOOK
    }

    /// Wakes the archiver.
    pub(crate) fn ring(&self) {
        self.bell.bump();
        self.bell.wake_all();
    }

    /// Read before the condition is checked, for [`wait`](HookState::wait).
    pub(crate) fn seen(&self) -> u32 {
        self.bell.load()
    }

    pub(crate) fn wait(&self, seen: u32, timeout: Option<Duration>) {
        self.bell.wait(seen, timeout);
    }
}
