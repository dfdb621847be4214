//! The operations for which the log's threads wait, so that the watchdog can see a stall.
//!
//! Invariants:
//! 1. One thread writes a place. The place holds a token of the operation for which the thread has
//!    waited longest, or 0 for none. Each operation has a token of its own.
//! 2. The watchdog sleeps only after it has raised `asleep` and then found every place at 0. A
//!    thread that changes a place from 0 to a token looks at `asleep` afterwards. Both are
//!    sequentially consistent, so that one of the two sees the other.
//! 3. While an operation is in flight, a change costs its thread one relaxed load and one store.

use crate::sys::sync::{AtomicU32, AtomicU64, Futex, Ordering, model_fence};

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
    bell: Futex,
    over: AtomicU32,
    /// Nanoseconds of the longest stall, as of the watchdog's last look; 0: none.
    pub(crate) stalled: AtomicU64,
}

impl InFlight {
    pub(crate) fn new() -> Self {
        InFlight {
            tokens: [(); 3].map(|()| AtomicU64::new(0)),
            asleep: AtomicU32::new(0),
            bell: Futex::new(0),
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
        self.bell.bump();
        self.bell.wake_all();
    }

    /// The watchdog sleeps until an operation is in flight, or the log has ended.
    pub(crate) fn sleep(&self) {
        let seen = self.bell.load();
        self.asleep.store(1, Ordering::SeqCst);
        model_fence();
        let idle = Place::ALL.into_iter().all(|place| self.get(place) == 0);
        if idle && !self.is_over() {
            self.bell.wait(seen, None);
        }
        self.asleep.store(0, Ordering::SeqCst);
    }

    /// The watchdog pauses between two looks. The end of the log cuts the pause short.
    pub(crate) fn pause(&self, pause: std::time::Duration) {
        let seen = self.bell.load();
        if !self.is_over() {
            self.bell.wait(seen, Some(pause));
        }
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
                        in_flight.sleep();
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
                        in_flight.sleep();
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
