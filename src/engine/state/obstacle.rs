//! Why the segment keeper could not prepare or remove a segment.

use crate::error::Error;
use crate::sys::sync::{Mutex, lock};

/// Written by the segment keeper, read by producers that were refused and by `Wal::health`.
#[derive(Debug)]
pub(crate) struct Obstacle {
    /// Why the segment keeper cannot prepare or remove a segment now. The keeper retries.
    now: Mutex<Option<Error>>,
    /// Why the log last had no next segment: the error for a producer that is refused.
    no_segment: Mutex<Error>,
}

impl Obstacle {
    pub(super) fn new() -> Self {
        Obstacle { now: Mutex::new(None), no_segment: Mutex::new(Error::NoSpace) }
    }

    /// Sets the obstacle. `None` is a full disk: producers get `NoSpace`.
    pub(crate) fn set(&self, obstacle: Option<Error>) {
        *lock(&self.no_segment) = obstacle.clone().unwrap_or(Error::NoSpace);
        *lock(&self.now) = obstacle;
    }

    pub(crate) fn get(&self) -> Option<Error> {
        lock(&self.now).clone()
    }

    /// The obstacle is gone. A producer that was refused before still gets its error.
    pub(crate) fn clear(&self) {
        *lock(&self.now) = None;
    }

    /// Why the log has, or last had, no next segment.
    pub(crate) fn no_segment(&self) -> Error {
        lock(&self.no_segment).clone()
    }
}
