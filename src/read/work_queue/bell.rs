//! Wakes the workers that wait for a job: threads and tasks.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use crate::ring::wake_quietly;
use crate::sys::sync::{Futex, Mutex, lock};

/// Holds nothing of the log, which keeps it as a waker.
#[derive(Debug)]
pub(super) struct QueueBell {
    changed: Futex,
    tasks: Mutex<Vec<Waker>>,
}

impl QueueBell {
    pub(super) fn new() -> Self {
        QueueBell { changed: Futex::new(0), tasks: Mutex::new(Vec::new()) }
    }

    /// What [`QueueBell::wait`] takes. Read before the worker looks for a job.
    pub(super) fn seen(&self) -> u32 {
        self.changed.load()
    }

    /// Sleeps until the bell has rung since `seen`, or for `pause`.
    pub(super) fn wait(&self, seen: u32, pause: Option<Duration>) {
        self.changed.wait(seen, pause);
    }

    /// Has the task woken at the next ring. Entered before the task looks for a job.
    pub(super) fn enter(&self, waker: &Waker) {
        let waker = waker.clone();
        let replaced = {
            let mut tasks = lock(&self.tasks);
            match tasks.iter_mut().find(|task| task.will_wake(&waker)) {
                Some(task) => Some(std::mem::replace(task, waker)),
                None => {
                    tasks.push(waker);
                    None
                }
            }
        };
        // The drop of a waker is user code.
        drop(replaced);
    }

    /// Wakes every worker that waits.
    pub(super) fn ring(&self) {
        self.changed.bump();
        self.changed.wake_all();
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.into_iter().for_each(wake_quietly);
    }
}

impl Wake for QueueBell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}
