//! How the segment keeper is woken, and how callers wait for it.

use std::time::Duration;

use crate::sys::sync::Futex;

/// The two bells of the segment keeper. Every thread of the log rings the first.
#[derive(Debug)]
pub(crate) struct KeeperBell {
    /// Changes when there may be work. The segment keeper waits for it.
    work: Futex,
    /// Changes when the segment keeper has finished a round, and when the log fails.
    /// `truncate_before` waits for it.
    rounds: Futex,
}

impl KeeperBell {
    pub(super) fn new() -> Self {
        KeeperBell { work: Futex::new(0), rounds: Futex::new(0) }
    }

    /// Wakes the segment keeper.
    pub(crate) fn ring(&self) {
        self.work.bump();
        self.work.wake_all();
    }

    /// Read before the segment keeper steps, for [`wait`](KeeperBell::wait).
    pub(crate) fn seen(&self) -> u32 {
        self.work.load()
    }

    pub(crate) fn wait(&self, seen: u32, timeout: Option<Duration>) {
        self.work.wait(seen, timeout);
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
        self.rounds.wait(seen, None::<Duration>);
    }
}
