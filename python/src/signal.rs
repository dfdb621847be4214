//! What the log's threads tell an event loop. Nothing here touches a Python object.
//!
//! 1. The I/O thread stores the durable end and then reads the lowest awaited position. The loop
//!    stores the lowest awaited position and then reads the durable end. All four are sequentially
//!    consistent: one of the two sees the other, so no waiter is missed.
//! 2. `raised` is set before the bell rings and cleared before the loop reads what was stored. So
//!    the bell rings once for any number of groups until the loop answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex};
use std::task::Wake;

use ringwal::{Error, Lsn};

use crate::log::locked;

/// How an event loop hears of a signal.
#[derive(Debug)]
pub(crate) enum Bell {
    /// One byte in a pair of sockets, whose other end the loop reads.
    #[cfg(unix)]
    Socket { written: std::os::unix::net::UnixStream, read: std::os::unix::net::UnixStream },
    /// A thread, which calls the loop.
    Thread { state: Mutex<BellState>, changed: Condvar },
}

/// What the thread of a bell has to do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BellState {
    #[default]
    Silent,
    Rung,
    /// The thread must end.
    Removed,
}

/// No position is awaited.
pub(crate) const NONE_AWAITED: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Signal {
    durable_end: AtomicU64,
    lowest_awaited: AtomicU64,
    has_ended: AtomicBool,
    /// Why the log has ended.
    error: Mutex<Option<Error>>,
    /// Whether the append at the front of the queue should be polled.
    has_room: AtomicBool,
    raised: AtomicBool,
    bell: Bell,
}

impl Signal {
    pub(crate) fn new(bell: Bell) -> Self {
        Signal {
            durable_end: AtomicU64::new(0),
            lowest_awaited: AtomicU64::new(NONE_AWAITED),
            has_ended: AtomicBool::new(false),
            error: Mutex::new(None),
            has_room: AtomicBool::new(false),
            raised: AtomicBool::new(false),
            bell,
        }
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// A new durable end, or the end of the log. On the I/O thread.
    pub(crate) fn report(&self, end: ringwal::Result<Lsn>) {
        match end {
            Ok(end) => {
                self.raise_end(end);
                if end.as_u64() > self.lowest_awaited.load(SeqCst) {
                    self.raise();
                }
            }
            Err(error) => {
                *locked(&self.error) = Some(error);
                self.has_ended.store(true, SeqCst);
                self.raise();
            }
        }
    }

    /// Takes note of a durable end. An earlier one changes nothing.
    pub(crate) fn raise_end(&self, end: Lsn) {
        self.durable_end.fetch_max(end.as_u64(), SeqCst);
    }

    pub(crate) fn durable_end(&self) -> u64 {
        self.durable_end.load(SeqCst)
    }

    /// Sets the position above which a durable end rings.
    pub(crate) fn await_above(&self, lsn: u64) {
        self.lowest_awaited.store(lsn, SeqCst);
    }

    /// Why the log has ended. Read before the durable end, which no later call changes.
    pub(crate) fn error(&self) -> Option<Error> {
        if self.has_ended.load(SeqCst) { locked(&self.error).clone() } else { None }
    }

    /// Whether the append at the front should be polled. Resets it.
    pub(crate) fn take_room(&self) -> bool {
        self.has_room.swap(false, SeqCst)
    }

    /// Rings, unless the loop has not answered the last ring.
    pub(crate) fn raise(&self) {
        if self.raised.swap(true, SeqCst) {
            return;
        }
        match &self.bell {
            #[cfg(unix)]
            Bell::Socket { written, .. } => {
                use std::io::Write as _;
                // It is full only if bytes are there that the loop will read.
                let mut written = written;
                drop(written.write(&[1]));
            }
            Bell::Thread { state, changed } => {
                let mut state = locked(state);
                if *state == BellState::Silent {
                    *state = BellState::Rung;
                    changed.notify_one();
                }
            }
        }
    }

    /// The loop answers: the next `raise` rings again.
    pub(crate) fn answer(&self) {
        #[cfg(unix)]
        if let Bell::Socket { read, .. } = &self.bell {
            use std::io::Read as _;
            let mut read = read;
            drop(read.read(&mut [0; 16]));
        }
        self.raised.store(false, SeqCst);
    }

    /// Ends the thread of the bell, if it has one.
    pub(crate) fn remove(&self) {
        if let Bell::Thread { state, changed } = &self.bell {
            *locked(state) = BellState::Removed;
            changed.notify_one();
        }
    }

    /// Waits for a ring, on the thread of the bell. False: it must end.
    pub(crate) fn wait(&self) -> bool {
        let Bell::Thread { state, changed } = &self.bell else { return false };
        let mut state = locked(state);
        loop {
            match *state {
                BellState::Silent => {
                    state = changed.wait(state).unwrap_or_else(|e| e.into_inner());
                }
                BellState::Rung => {
                    *state = BellState::Silent;
                    return true;
                }
                BellState::Removed => return false,
            }
        }
    }
}

/// The waker of the append at the front of the queue. It runs on a thread of the log.
impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.has_room.store(true, SeqCst);
        self.raise();
    }
}
