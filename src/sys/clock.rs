//! Time, which the state machines take from outside.

use std::fmt::Debug;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub(crate) trait Clock: Send + Sync + Debug {
    /// Nanoseconds of a clock that never goes back.
    fn now(&self) -> u64;
    /// Nanoseconds since 1970.
    fn wall(&self) -> u64;
}

#[derive(Debug)]
pub(crate) struct SystemClock {
    start: Instant,
}

impl SystemClock {
    pub(crate) fn new() -> Self {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn wall(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
    }
}
