//! Time as the simulated machine has it: it passes when nothing else happens, or when it is told to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;

#[derive(Debug, Default)]
pub(crate) struct SimClock(AtomicU64);

impl SimClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Never back.
    pub(super) fn advance_to(&self, now: u64) {
        self.0.fetch_max(now, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn wall(&self) -> u64 {
        1 << 60 | self.now()
    }
}
