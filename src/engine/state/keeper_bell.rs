//! How the segment keeper is woken, and how callers wait for it.

use crate::sys::bell::StepBell;
use crate::sys::sync::{AtomicU64, Futex, Ordering};

/// Does not wake the segment keeper, however far groups reach.
const NEVER: u64 = u64::MAX;

/// The two bells of the segment keeper. Every thread of the log rings the first.
///
/// The segment keeper stores `wake_at` and then loads `reached`. The holder of the I/O loop stores
/// `reached` and then loads `wake_at`. All four are sequentially consistent, so that one of the two
/// sees the other.
#[derive(Debug)]
pub(crate) struct KeeperBell {
    /// Rung when there may be work for the segment keeper.
    work: StepBell,
    /// Changes when the segment keeper has finished a round, and when the log fails.
    /// `truncate_before` waits for it.
    rounds: Futex,
    /// The end of the newest group that was submitted. Written by the holder of the I/O loop.
    reached: AtomicU64,
    /// The position from which on groups wake the segment keeper, which sets it.
    wake_at: AtomicU64,
}

impl KeeperBell {
    /// `end`: the end of the log.
    pub(super) fn new(end: u64) -> Self {
        KeeperBell {
            work: StepBell::new(),
            rounds: Futex::new(0),
            reached: AtomicU64::new(end),
            wake_at: AtomicU64::new(NEVER),
        }
    }

    /// Notes how far groups reach. Wakes the segment keeper once, if that is far enough.
    pub(crate) fn reach(&self, end: u64) {
        self.reached.store(end, Ordering::SeqCst);
        if end >= self.wake_at.load(Ordering::SeqCst) {
            // The segment keeper may have set another position meanwhile: it is woken all the same.
            self.wake_at.store(NEVER, Ordering::SeqCst);
            self.ring();
        }
    }

    /// How far groups reach.
    pub(crate) fn reached(&self) -> u64 {
        self.reached.load(Ordering::SeqCst)
    }

    /// Has groups that reach this position wake the segment keeper. False: they reach it already.
    pub(crate) fn wake_at(&self, position: Option<u64>) -> bool {
        let position = position.unwrap_or(NEVER);
        self.wake_at.store(position, Ordering::SeqCst);
        self.reached() < position
    }

    /// Wakes the segment keeper.
    pub(crate) fn ring(&self) {
        self.work.ring();
    }

    /// Connects the bell to what steps the segment keeper.
    pub(crate) fn connect(&self, ringer: impl Fn() + Send + Sync + 'static) {
        self.work.connect(Box::new(ringer));
    }

    /// Wakes the callers that wait for the segment keeper: it has finished a round, or ended.
    pub(crate) fn round_over(&self) {
        self.rounds.bump();
        self.rounds.wake_all();
    }

    /// Read before the condition is checked, for [`wait_round`](KeeperBell::wait_round).
    pub(crate) fn rounds_seen(&self) -> u32 {
        self.rounds.load()
    }

    pub(crate) fn wait_round(&self, seen: u32) {
        self.rounds.wait(seen, None);
    }
}
