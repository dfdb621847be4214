//! Runs a future to its end, also where the caller is a task itself.

use std::future::Future;

use crate::error::{Error, Result};

/// A runtime for one thread.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|source| Error::Io { op: "start", path: "a runtime".into(), source })
}

/// Runs the future on a thread of its own: a runtime refuses to block one of its tasks.
pub(crate) fn block_on<T: Send>(future: impl Future<Output = Result<T>> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().spawn_scoped(scope, || runtime()?.block_on(future));
        let refused = |source| Error::Io { op: "start", path: "a thread".into(), source };
        match thread.map_err(refused)?.join() {
            Ok(done) => done,
            // A panic of the caller's progress function continues in the caller.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
