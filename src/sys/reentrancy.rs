//! Rejects calls that could never return, by what the current thread does for a log.

use std::cell::Cell;

use crate::error::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    /// The thread is inside the closure of `append_with`, with a reservation open.
    Filling,
    /// The thread is the I/O thread or the segment keeper, for which other threads wait.
    Serving,
}

thread_local! {
    static DOING: Cell<Doing> = const { Cell::new(Doing::Nothing) };
}

fn doing() -> Doing {
    // The value is gone only while the thread's other locals are destroyed.
    DOING.try_with(Cell::get).unwrap_or(Doing::Nothing)
}

/// Marks the current thread as one for which other threads wait.
pub(crate) fn serve() {
    DOING.set(Doing::Serving);
}

pub(crate) fn is_serving() -> bool {
    doing() == Doing::Serving
}

/// Checks a call that never waits.
#[inline]
pub(crate) fn check_not_filling() -> Result<(), Error> {
    if doing() == Doing::Filling { Err(Error::Reentrant) } else { Ok(()) }
}

/// Checks a call that may wait.
#[inline]
pub(crate) fn check_may_wait() -> Result<(), Error> {
    match doing() {
        Doing::Nothing => Ok(()),
        Doing::Filling => Err(Error::Reentrant),
        Doing::Serving => Err(Error::WouldDeadlock),
    }
}

/// While this value lives, the thread does the work of the log's own threads.
#[cfg_attr(ringwal_loom, allow(dead_code, reason = "the models run all threads on one"))]
#[derive(Debug)]
pub(crate) struct Serving {
    before: Doing,
}

impl Serving {
    /// Marks the thread. `None`: the thread does something for a log already.
    pub(crate) fn enter() -> Option<Self> {
        (doing() == Doing::Nothing).then(|| Serving { before: DOING.replace(Doing::Serving) })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        DOING.set(self.before);
    }
}

/// While this value lives, the thread is inside the closure of `append_with`.
#[derive(Debug)]
pub(crate) struct Filling {
    before: Doing,
}

impl Filling {
    pub(crate) fn enter() -> Self {
        Filling { before: DOING.replace(Doing::Filling) }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        DOING.set(self.before);
    }
}
