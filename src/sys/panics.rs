//! Catches panics of user code on the log's threads.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs user code. `None`: it panicked. The panic's payload is user code too: if its drop panics,
/// the second payload is leaked.
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
