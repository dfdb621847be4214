//! Which of the processes that `fork()` made of one process this is.
//!
//! A child of `fork()` has the memory of its parent and none of the parent's other threads. A lock
//! that one of them held stays held for ever. In a child, no value made before the fork may wait
//! for a lock.

#[cfg(not(ringwal_loom))]
pub(crate) fn generation() -> u32 {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::durable::Status;

    /// Reads as 0 in a child, until the child has given itself a number.
    static CURRENT: OnceLock<Status> = OnceLock::new();
    /// A child goes on counting where its parent was, and so never has the number of an ancestor.
    static LAST: AtomicU32 = AtomicU32::new(0);

    let current = CURRENT.get_or_init(|| Status::new(0));
    match current.load() {
        0 => {
            let next = LAST.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
            // Another thread of this process may have been first.
            current.change(0, next);
            current.load()
        }
        number => number,
    }
}

/// A model runs in one process, and its atomics do not outlive it.
#[cfg(ringwal_loom)]
pub(crate) fn generation() -> u32 {
    1
}
