//! The end of a run: a signal, a deadline, a failure, or the last record.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// The stop flag. Producers check it before each record, and one thread waits for them.
#[derive(Debug, Default)]
pub struct Stop {
    set: AtomicBool,
    signalled: AtomicBool,
    finished: Mutex<usize>,
    changed: Condvar,
    /// Files and directories to remove when a second signal ends the process.
    doomed: Mutex<Vec<PathBuf>>,
    /// A process that writes into one of those.
    child: Mutex<Option<u32>>,
    /// The stop of the whole, if this run is one of many.
    above: Option<Arc<Stop>>,
    /// The stop of the current part.
    below: Mutex<Weak<Stop>>,
}

/// Marks the immediate end of the process. Until it is dropped, a thread that misses its directory
/// waits instead of reporting a failure.
#[derive(Debug)]
pub struct Ending<'a>(#[allow(dead_code, reason = "held")] MutexGuard<'a, Vec<PathBuf>>);

/// Attempts of a removal. Threads of the log may still create files in the directory.
const TRIES: usize = 5;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stop {
    /// Creates the stop of a part of `above`. A signal to `above` also ends the part; the end of
    /// the part ends only the part.
    #[must_use]
    pub fn below(above: &Arc<Stop>) -> Arc<Stop> {
        let part = Arc::new(Stop { above: Some(Arc::clone(above)), ..Stop::default() });
        *lock(&above.below) = Arc::downgrade(&part);
        // Checks after the registration: either side sees a signal that arrives in between.
        if above.was_signalled() {
            let _ = part.signal();
        }
        part
    }

    /// True if producers must end.
    #[inline]
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }

    /// True if a signal ended the run.
    #[must_use]
    pub fn was_signalled(&self) -> bool {
        self.signalled.load(Ordering::Relaxed)
    }

    /// Makes the producers end.
    pub fn set(&self) {
        self.set.store(true, Ordering::Relaxed);
        let _held = lock(&self.finished);
        self.changed.notify_all();
    }

    /// Counts a producer that is done.
    pub fn producer_done(&self) {
        *lock(&self.finished) += 1;
        self.changed.notify_all();
    }

    /// Waits until this many producers are done, a stop, or the timeout. True if the producers are
    /// done.
    #[must_use]
    pub fn wait(&self, producers: usize, timeout: Duration) -> bool {
        let finished = lock(&self.finished);
        let going = |n: &mut usize| *n < producers && !self.is_set();
        let waited = self.changed.wait_timeout_while(finished, timeout, going);
        *waited.unwrap_or_else(PoisonError::into_inner).0 >= producers
    }

    /// Registers a file or directory for removal when a second signal ends the process.
    pub fn doom(&self, path: PathBuf) {
        match &self.above {
            Some(above) => above.doom(path),
            None => lock(&self.doomed).push(path),
        }
    }

    /// Revokes a registration.
    pub fn spare(&self, path: &Path) {
        match &self.above {
            Some(above) => above.spare(path),
            None => lock(&self.doomed).retain(|doomed| doomed != path),
        }
    }

    /// Registers the process to end first at a second signal, because it would create the removed
    /// files again. `None` after the process was waited for.
    pub fn doom_child(&self, process: Option<u32>) {
        *lock(&self.child) = process;
    }

    /// Handles a signal. The first one ends the run. The second one ends the process: the call
    /// removes all registered files and returns the guard.
    #[must_use]
    pub fn signal(&self) -> Option<Ending<'_>> {
        if !self.signalled.swap(true, Ordering::SeqCst) {
            self.set();
            if let Some(part) = lock(&self.below).upgrade() {
                let _ = part.signal();
            }
            return None;
        }
        #[cfg(unix)]
        if let Some(child) = lock(&self.child).and_then(|id| i32::try_from(id).ok()) {
            use nix::sys::signal::{Signal, kill};
            let _ = kill(nix::unistd::Pid::from_raw(child), Signal::SIGKILL);
        }
        let mut doomed = lock(&self.doomed);
        for path in doomed.drain(..).rev() {
            for _ in 0..TRIES {
                let removed = match path.is_dir() {
                    true => std::fs::remove_dir_all(&path),
                    false => std::fs::remove_file(&path),
                };
                if removed.is_ok() || !path.exists() {
                    break;
                }
            }
        }
        Some(Ending(doomed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_signal_stops_and_second_removes_files() {
        let stop = Stop::default();
        let dir = std::env::temp_dir().join(format!("loadgen-stop-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("inner")).unwrap();
        let file = dir.with_extension("json");
        std::fs::write(&file, b"").unwrap();
        stop.doom(dir.clone());
        stop.doom(file.clone());
        assert!(stop.signal().is_none());
        assert!(stop.is_set() && stop.was_signalled() && dir.exists());
        assert!(stop.signal().is_some());
        assert!(!dir.exists() && !file.exists());
    }

    #[test]
    fn part_ends_with_the_whole_but_not_the_reverse() {
        let whole = Arc::new(Stop::default());
        let first = Stop::below(&whole);
        first.set();
        assert!(!whole.is_set());
        let second = Stop::below(&whole);
        assert!(!second.is_set());
        let spared = std::env::temp_dir().join(format!("loadgen-spared-{}", std::process::id()));
        std::fs::write(&spared, b"").unwrap();
        second.doom(spared.clone());
        assert!(whole.signal().is_none());
        assert!(second.is_set() && second.was_signalled() && !first.was_signalled());
        assert!(Stop::below(&whole).was_signalled(), "what begins after the signal");
        second.spare(&spared);
        assert!(whole.signal().is_some() && spared.exists());
        std::fs::remove_file(&spared).unwrap();
    }

    #[test]
    fn wait_ends_with_the_producers_or_the_stop() {
        let stop = Stop::default();
        assert!(!stop.wait(1, Duration::from_millis(1)));
        stop.producer_done();
        assert!(stop.wait(1, Duration::from_secs(60)));
        assert!(!stop.wait(2, Duration::from_millis(1)));
        stop.set();
        assert!(!stop.wait(2, Duration::from_secs(60)));
    }
}
