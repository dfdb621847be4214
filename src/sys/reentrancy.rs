//! What the current thread is doing for a log, so that calls that could never return are refused.

use std::cell::Cell;

use crate::error::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    /// Inside the closure of `append_with`, with a reservation open.
    Filling,
    /// The I/O thread or the segment helper, which others wait for.
    Serving,
}

thread_local! {
    static DOING: Cell<Doing> = const { Cell::new(Doing::Nothing) };
}

fn doing() -> Doing {
    // Gone only while the thread's other locals are destroyed.
    DOING.try_with(Cell::get).unwrap_or(Doing::Nothing)
}

/// Marks the current thread as one that others wait for.
pub(crate) fn serve() {
    DOING.set(Doing::Serving);
}

pub(crate) fn is_serving() -> bool {
    doing() == Doing::Serving
}

/// For calls that never wait.
#[inline]
pub(crate) fn check_not_filling() -> Result<(), Error> {
    if doing() == Doing::Filling { Err(Error::Reentrant) } else { Ok(()) }
}

/// For calls that may wait.
#[inline]
pub(crate) fn check_may_wait() -> Result<(), Error> {
    match doing() {
        Doing::Nothing => Ok(()),
        Doing::Filling => Err(Error::Reentrant),
        Doing::Serving => Err(Error::WouldDeadlock),
    }
}

/// While it lives, the thread does what the log's own threads do elsewhere.
#[cfg(simulated)]
#[derive(Debug)]
pub(crate) struct Serving {
    before: Doing,
}

#[cfg(simulated)]
impl Serving {
    /// `None`: the thread is doing something for a log already.
    pub(crate) fn enter() -> Option<Self> {
        (doing() == Doing::Nothing).then(|| Serving { before: DOING.replace(Doing::Serving) })
    }
}

#[cfg(simulated)]
impl Drop for Serving {
    fn drop(&mut self) {
        DOING.set(self.before);
    }
}

/// While it lives, the thread is inside `append_with`'s closure.
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
