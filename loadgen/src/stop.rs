//! When a run ends: at a signal, at a deadline, at a failure, or when its producers are done.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Shared by the producers, which look at it before each record, and the one who waits for them.
#[derive(Debug, Default)]
pub struct Stop {
    set: AtomicBool,
    signalled: AtomicBool,
    finished: Mutex<usize>,
    changed: Condvar,
    /// Removed when a second signal ends the process on the spot.
    doomed: Mutex<Option<PathBuf>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stop {
    /// Whether producers are to end.
    #[inline]
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }

    /// Whether it was a signal that ended the run.
    #[must_use]
    pub fn was_signalled(&self) -> bool {
        self.signalled.load(Ordering::Relaxed)
    }

    /// Tells the producers to end.
    pub fn set(&self) {
        self.set.store(true, Ordering::Relaxed);
        let _held = lock(&self.finished);
        self.changed.notify_all();
    }

    /// A producer says that it is done.
    pub fn producer_done(&self) {
        *lock(&self.finished) += 1;
        self.changed.notify_all();
    }

    /// Waits until this many producers are done, or told to end, or the time is over. True if they
    /// are done.
    #[must_use]
    pub fn wait(&self, producers: usize, timeout: Duration) -> bool {
        let finished = lock(&self.finished);
        let going = |n: &mut usize| *n < producers && !self.is_set();
        let waited = self.changed.wait_timeout_while(finished, timeout, going);
        *waited.unwrap_or_else(PoisonError::into_inner).0 >= producers
    }

    /// Names the directory to be removed when a second signal ends the process; `None` takes it back.
    pub fn doom(&self, directory: Option<PathBuf>) {
        *lock(&self.doomed) = directory;
    }

    /// A signal has come. The first ends the run, the second the process: then this says so, after
    /// the directory is gone.
    #[must_use]
    pub fn signal(&self) -> bool {
        if !self.signalled.swap(true, Ordering::SeqCst) {
            self.set();
            return false;
        }
        if let Some(directory) = lock(&self.doomed).take() {
            let _ = std::fs::remove_dir_all(directory);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_stops_and_the_second_removes() {
        let stop = Stop::default();
        let dir = std::env::temp_dir().join(format!("loadgen-stop-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("inner")).unwrap();
        stop.doom(Some(dir.clone()));
        assert!(!stop.signal());
        assert!(stop.is_set() && stop.was_signalled() && dir.exists());
        assert!(stop.signal());
        assert!(!dir.exists());
    }

    #[test]
    fn waiting_ends_with_the_producers_or_the_stop() {
        let stop = Stop::default();
        assert!(!stop.wait(1, Duration::from_millis(1)));
        stop.producer_done();
        assert!(stop.wait(1, Duration::from_secs(60)));
        assert!(!stop.wait(2, Duration::from_millis(1)));
        stop.set();
        assert!(!stop.wait(2, Duration::from_secs(60)));
    }
}
