//! A producer that waits for room: its place in the queue, and how it is told.
//!
//! 1. WAITING -> GRANTED | FAILED | CANCELLED, once. GRANTED and FAILED are set by whoever holds the
//!    queue's lock, after the grant's fields; CANCELLED by the owner, under the same lock.
//! 2. A granted request owns its bytes of the extent and must publish them, as a record or as an
//!    abort.

use std::task::Waker;

use crate::sync::{AtomicU64, Futex, Mutex, Ordering, lock};

const WAITING: u32 = 0;
const GRANTED: u32 = 1;
const FAILED: u32 = 2;

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
        *lock(&self.waker) = waker;
        self.state.store(WAITING);
    }

    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    pub(super) fn set_waker(&self, waker: &Waker) {
        *lock(&self.waker) = Some(waker.clone());
    }

    /// Grants the room. Returns the waker of a task, to be woken once the queue's lock is let go; a
    /// thread is woken here.
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
            GRANTED => Some(Outcome::Granted {
                index: self.index.load(Ordering::Relaxed) as usize,
                offset: self.offset.load(Ordering::Relaxed),
            }),
            _ => Some(Outcome::Failed),
        }
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
