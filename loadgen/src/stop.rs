//! When a run ends: at a signal, at a deadline, at a failure, or when its producers are done.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Shared by the producers, which look at it before each record, and the one who waits for them.
#[derive(Debug, Default)]
pub struct Stop {
    set: AtomicBool,
    signalled: AtomicBool,
    finished: Mutex<usize>,
    changed: Condvar,
    /// Files and directories to be removed when a second signal ends the process on the spot.
    doomed: Mutex<Vec<PathBuf>>,
    /// A process that writes into one of those.
    child: Mutex<Option<u32>>,
    /// Whom this one is a part of: a run that is one of many.
    above: Option<Arc<Stop>>,
    /// The part that runs now.
    below: Mutex<Weak<Stop>>,
}

/// The process is to end on the spot. Until this is dropped, whoever finds its directory gone and wants to tell of a
/// failure has to wait.
#[derive(Debug)]
pub struct Ending<'a>(#[allow(dead_code, reason = "held")] MutexGuard<'a, Vec<PathBuf>>);

/// A log whose threads still write can put a file into a directory that is being removed.
const TRIES: usize = 5;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stop {
    /// One for a part of the work of `above`: a signal there ends it, its own end ends nothing else.
    #[must_use]
    pub fn below(above: &Arc<Stop>) -> Arc<Stop> {
        let part = Arc::new(Stop { above: Some(Arc::clone(above)), ..Stop::default() });
        *lock(&above.below) = Arc::downgrade(&part);
        // After it can be found: a signal that comes between is seen here or there.
        if above.was_signalled() {
            let _ = part.signal();
        }
        part
    }

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

    /// Names a file or directory to be removed when a second signal ends the process.
    pub fn doom(&self, path: PathBuf) {
        match &self.above {
            Some(above) => above.doom(path),
            None => lock(&self.doomed).push(path),
        }
    }

    /// Takes that back.
    pub fn spare(&self, path: &Path) {
        match &self.above {
            Some(above) => above.spare(path),
            None => lock(&self.doomed).retain(|doomed| doomed != path),
        }
    }

    /// Names the process that is to end first when a second signal ends this one: it must not make again what is
    /// removed then. `None`: it has been waited for.
    pub fn doom_child(&self, process: Option<u32>) {
        *lock(&self.child) = process;
    }

    /// A signal has come. The first ends the run, the second the process: then this says so, after
    /// what was made is gone.
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
    fn the_first_signal_stops_and_the_second_removes() {
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
    fn a_part_ends_with_the_whole_and_not_the_other_way_round() {
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
