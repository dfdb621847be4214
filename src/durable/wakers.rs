//! The tasks that wait for one event.

use std::task::Waker;

use crate::ring::wake_quietly;
use crate::sys::sync::{Mutex, lock};

/// Wakers of the tasks that wait, each task once.
#[derive(Debug)]
pub(crate) struct WakerSet(Mutex<Vec<Waker>>);

impl WakerSet {
    pub(crate) fn new() -> Self {
        WakerSet(Mutex::new(Vec::new()))
    }

    /// Has the task woken by the next [`WakerSet::wake_all`]. Check for the event after this call.
    pub(crate) fn enter(&self, waker: &Waker) {
        let waker = waker.clone();
        let replaced = {
            let mut tasks = lock(&self.0);
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

    /// Wakes every task that was entered, and forgets it.
    pub(crate) fn wake_all(&self) {
        let tasks = std::mem::take(&mut *lock(&self.0));
        tasks.into_iter().for_each(wake_quietly);
    }
}
