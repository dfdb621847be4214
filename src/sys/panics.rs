//! User code that may panic on a thread of ours.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs it. `None`: it panicked. What it panicked with is user code too: if its drop panics, what that
/// panics with is leaked.
pub(crate) fn caught<T>(user: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(user)) {
        Ok(done) => Some(done),
        Err(payload) => {
            if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(again);
            }
            None
        }
    }
}
