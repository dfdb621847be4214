//! A producer that waits for room: its place in the queue, and how it gets the outcome.
//!
//! 1. WAITING -> GRANTED | FAILED, once, by the holder of the queue's lock, after the grant's
//!    fields; or -> LEFT, by the owner, under the same lock. The queue counts it there and passes
//!    it over.
//! 2. GRANTED owns its bytes of the extent, which must be published as a record or as an abort. A
//!    waiting thread publishes soon. A task may be polled late or never. For a task, GRANTED ->
//!    TAKEN, by the owner, or -> MISSED, by the I/O thread after its limit. The first to make the
//!    change owns the bytes.
//! 3. A waker is user code, also its clone and its drop: none of them runs under a lock.

use std::task::Waker;

use crate::sys::sync::{AtomicU64, Futex, Mutex, Ordering, lock};

const WAITING: u32 = 0;
const GRANTED: u32 = 1;
const FAILED: u32 = 2;
const TAKEN: u32 = 3;
const MISSED: u32 = 4;
const LEFT: u32 = 5;

#[derive(Debug)]
pub(super) struct Request {
    state: Futex,
    len: AtomicU64,
    index: AtomicU64,
    offset: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

pub(super) enum Outcome {
    Granted { index: usize, offset: u64 },
    Failed,
    Missed,
}

impl Request {
    pub(super) fn new() -> Self {
        Request {
            state: Futex::new(FAILED),
            len: AtomicU64::new(0),
            index: AtomicU64::new(0),
            offset: AtomicU64::new(0),
            waker: Mutex::new(None),
        }
    }

    /// Makes the request ready to be queued for `len` bytes.
    pub(super) fn prepare(&self, len: u64, waker: Option<Waker>) {
        self.len.store(len, Ordering::Relaxed);
        // The request of a thread, or a new one: there is no waker that would be dropped.
        *lock(&self.waker) = waker;
        self.state.store(WAITING);
    }

    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    pub(super) fn set_waker(&self, waker: &Waker) {
        let new = waker.clone();
        let old = lock(&self.waker).replace(new);
        drop(old);
    }

    pub(super) fn drop_waker(&self) {
        let waker = lock(&self.waker).take();
        drop(waker);
    }

    /// Leaves, for the owner under the queue's lock. False: the request was settled before.
    pub(super) fn leave(&self) -> bool {
        self.state.change(WAITING, LEFT)
    }

    /// Under the queue's lock.
    pub(super) fn has_left(&self) -> bool {
        self.state.load() == LEFT
    }

    /// Whether a task waits, rather than a thread. Under the queue's lock, before it is settled.
    pub(super) fn is_task(&self) -> bool {
        lock(&self.waker).is_some()
    }

    /// Grants the room. Returns the waker of a task, which must be woken after the queue's lock is
    /// released. A thread is woken here.
    pub(super) fn grant(&self, index: usize, offset: u64) -> Option<Waker> {
        self.index.store(index as u64, Ordering::Relaxed);
        self.offset.store(offset, Ordering::Relaxed);
        self.settle(GRANTED)
    }

    pub(super) fn fail(&self) -> Option<Waker> {
        self.settle(FAILED)
    }

    fn settle(&self, state: u32) -> Option<Waker> {
        self.state.store(state);
        let waker = lock(&self.waker).take();
        if waker.is_none() {
            self.state.wake_all();
        }
        waker
    }

    pub(super) fn outcome(&self) -> Option<Outcome> {
        match self.state.load() {
            WAITING => None,
            GRANTED => Some(self.room()),
            MISSED => Some(Outcome::Missed),
            _ => Some(Outcome::Failed),
        }
    }

    fn room(&self) -> Outcome {
        Outcome::Granted {
            index: self.index.load(Ordering::Relaxed) as usize,
            offset: self.offset.load(Ordering::Relaxed),
        }
    }

    /// Takes the outcome of a task. Granted room belongs to the task from here on.
    pub(super) fn take(&self) -> Option<Outcome> {
        let outcome = match self.outcome()? {
            Outcome::Granted { .. } if !self.state.change(GRANTED, TAKEN) => Outcome::Missed,
            outcome => outcome,
        };
        // Drops a waker that was set while the request was settled.
        self.drop_waker();
        Some(outcome)
    }

    /// Revokes, for the I/O thread, the room of a task that has not claimed it.
    pub(super) fn miss(&self) -> Option<Outcome> {
        self.state.change(GRANTED, MISSED).then(|| self.room())
    }

    pub(super) fn wait(&self) -> Outcome {
        loop {
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            self.state.wait(WAITING, None);
        }
    }
}
