//! Wakes the workers that wait for a job: threads and tasks.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use crate::durable::wakers::WakerSet;
use crate::sys::sync::Futex;

/// Holds nothing of the log, which keeps it as a waker.
#[derive(Debug)]
pub(super) struct QueueBell {
    changed: Futex,
    tasks: WakerSet,
}

impl QueueBell {
    pub(super) fn new() -> Self {
        QueueBell { changed: Futex::new(0), tasks: WakerSet::new() }
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
        self.tasks.enter(waker);
    }

    /// Wakes every worker that waits.
    pub(super) fn ring(&self) {
        self.changed.bump();
        self.changed.wake_all();
        self.tasks.wake_all();
    }
}

impl Wake for QueueBell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}
