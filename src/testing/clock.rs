//! The clock of the simulated machine. Time passes when nothing else happens, or when the test
//! advances it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::sys::clock::Clock;

#[derive(Debug, Default)]
pub(crate) struct SimClock {
    now: AtomicU64,
    /// Nanoseconds by which the test set the wall clock ahead; negative if it set it back.
    ahead: AtomicI64,
}

impl SimClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.now.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Advances the clock to `now`, never back.
    pub(super) fn advance_to(&self, now: u64) {
        self.now.fetch_max(now, Ordering::Relaxed);
    }

    /// Sets the wall clock ahead by `seconds`, or back if negative.
    pub(crate) fn step_wall(&self, seconds: i64) {
        self.ahead.fetch_add(seconds.saturating_mul(1_000_000_000), Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn wall(&self) -> u64 {
        (1 << 60 | self.now()).saturating_add_signed(self.ahead.load(Ordering::Relaxed))
    }
}
