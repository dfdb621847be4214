//! The operations for which the log's threads wait, so that the watchdog can see a stall.
//!
//! Invariants:
//! 1. One thread writes a place. The place holds a token of the operation for which the thread has
//!    waited longest, or 0 for none. Each operation has a token of its own.
//! 2. The watchdog sleeps only after it has raised `asleep` and then found every place at 0. A
//!    thread that changes a place from 0 to a token looks at `asleep` afterwards. Both are
//!    sequentially consistent, so that one of the two sees the other.
//! 3. While an operation is in flight, a change costs its thread one relaxed load and one store.

use crate::sys::bell::StepBell;
use crate::sys::sync::{AtomicU32, AtomicU64, Ordering, model_fence};

/// A place where a log can stall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Write,
    Sync,
    Segment,
}

impl Place {
    pub(crate) const ALL: [Place; 3] = [Place::Write, Place::Sync, Place::Segment];
}

#[derive(Debug)]
pub(crate) struct InFlight {
    tokens: [AtomicU64; 3],
    asleep: AtomicU32,
    /// Of the watchdog.
    bell: StepBell,
    over: AtomicU32,
    /// Nanoseconds of the longest stall, as of the watchdog's last look; 0: none.
    pub(crate) stalled: AtomicU64,
}

impl InFlight {
    pub(crate) fn new() -> Self {
        InFlight {
            tokens: [(); 3].map(|()| AtomicU64::new(0)),
            asleep: AtomicU32::new(0),
            bell: StepBell::new(),
            over: AtomicU32::new(0),
            stalled: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(crate) fn set(&self, place: Place, token: u64) {
        let cell = &self.tokens[place as usize];
        let before = cell.load(Ordering::Relaxed);
        if before == token {
            return;
        }
        if before != 0 {
            cell.store(token, Ordering::Relaxed);
            return;
        }
        cell.store(token, Ordering::SeqCst);
        model_fence();
        if self.asleep.load(Ordering::SeqCst) != 0 {
            self.ring();
        }
    }

    pub(crate) fn get(&self, place: Place) -> u64 {
        self.tokens[place as usize].load(Ordering::SeqCst)
    }

    #[cold]
    fn ring(&self) {
        self.bell.ring();
    }

    /// Connects the bell to what steps the watchdog.
    pub(crate) fn connect(&self, ringer: impl Fn() + Send + Sync + 'static) {
        self.bell.connect(Box::new(ringer));
    }

    /// Whether the watchdog may sleep until the bell rings: no operation is in flight, and the log
    /// has not ended.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.asleep.store(1, Ordering::SeqCst);
        model_fence();
        let idle = Place::ALL.into_iter().all(|place| self.get(place) == 0);
        let asleep = idle && !self.is_over();
        if !asleep {
            self.wake_up();
        }
        asleep
    }

    /// The watchdog is awake: nothing needs to ring.
    pub(crate) fn wake_up(&self) {
        self.asleep.store(0, Ordering::SeqCst);
    }

    /// Marks the end of the watched threads, and wakes the watchdog.
    pub(crate) fn end(&self) {
        self.over.store(1, Ordering::SeqCst);
        self.ring();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst) != 0
    }
}

#[cfg(all(test, ringwal_loom))]
mod loom_tests {
    use crate::sys::sync::loom;
    use loom::sync::Arc;
    use loom::thread;

    use super::{InFlight, Place};

    /// The watchdog sleeps until an operation is in flight, or the log has ended.
    fn sleep(in_flight: &InFlight) {
        let seen = in_flight.bell.word().load();
        if in_flight.fall_asleep() {
            in_flight.bell.word().wait(seen, None);
        }
        in_flight.wake_up();
    }

    fn model(f: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(3));
        builder.check(f);
    }

    /// 2: the watchdog sees an operation that begins while it falls asleep.
    #[test]
    fn loom_a_sleeping_watchdog_sees_what_begins() {
        model(|| {
            let in_flight = Arc::new(InFlight::new());
            let watchdog = {
                let in_flight = Arc::clone(&in_flight);
                thread::spawn(move || {
                    while in_flight.get(Place::Write) == 0 {
                        sleep(&in_flight);
                    }
                })
            };
            in_flight.set(Place::Write, 7);
            watchdog.join().unwrap();
        });
    }

    /// The end of the log wakes the watchdog too.
    #[test]
    fn loom_a_sleeping_watchdog_sees_the_end() {
        model(|| {
            let in_flight = Arc::new(InFlight::new());
            let watchdog = {
                let in_flight = Arc::clone(&in_flight);
                thread::spawn(move || {
                    while !in_flight.is_over() {
                        sleep(&in_flight);
                        // Stands for the pause between two looks.
                        thread::yield_now();
                    }
                })
            };
            in_flight.set(Place::Sync, 1);
            in_flight.set(Place::Sync, 0);
            in_flight.end();
            watchdog.join().unwrap();
        });
    }
}
