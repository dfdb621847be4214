//! The watchdog: reports a disk that does not answer, while it does not.
//!
//! The I/O thread and the segment keeper can both block in calls to the same disk. So a thread that
//! does no I/O checks what they wait for: a few times in the threshold while an operation is in
//! flight, and not at all otherwise. The watchdog is stepped, as they are.
//!
//! 1. Only watched time counts. If a look comes far too late, the process was stopped or the
//!    machine was suspended. That time says nothing about the disk.

#[cfg(all(test, not(ringwal_loom)))]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::engine::state::LogState;
use crate::engine::workers::{NextStep, SharedTask};
use crate::hooks::{OnStall, Stall, StallKind};
use crate::stats::in_flight::Place;
use crate::sys::clock::Clock;
use crate::sys::panics::caught;
use crate::sys::sync::Ordering;

/// Looks with nothing in flight after which the watchdog sleeps. So a busy log does not wake it for
/// every commit.
const QUIET_LOOKS: u32 = 8;

/// Nanoseconds by which a busy machine may delay a look. A longer delay has another cause.
const LATE: u64 = 100_000_000;

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    token: u64,
    /// When the operation was first seen, and how long it must last until the next report.
    since: u64,
    tell_at: u64,
}

#[derive(Debug)]
pub(crate) struct Watchdog {
    state: Arc<LogState>,
    clock: Arc<dyn Clock>,
    threshold: u64,
    on_stall: Option<OnStall>,
    seen: [Seen; 3],
    quiet: u32,
    /// Nanoseconds watched until the last look, and the clock at that look.
    watched: u64,
    last: u64,
}

impl Watchdog {
    pub(crate) fn new(
        state: Arc<LogState>,
        clock: Arc<dyn Clock>,
        threshold: Duration,
        on_stall: Option<OnStall>,
    ) -> Self {
        let threshold = threshold.as_nanos() as u64;
        let (seen, last) = (Default::default(), clock.now());
        Watchdog { state, clock, threshold, on_stall, seen, quiet: 0, watched: 0, last }
    }

    /// Adds the time since the last look, if it was watched.
    fn watch(&mut self) -> u64 {
        let (now, pause) = (self.clock.now(), self.pause());
        let passed = now.saturating_sub(self.last);
        self.last = now;
        // A busy machine delays looks too. The delay does not count.
        if passed <= (2 * pause).max(LATE) {
            self.watched += passed.min(pause);
        }
        self.watched
    }

    /// Nanoseconds between two looks.
    fn pause(&self) -> u64 {
        self.threshold / 4
    }

    /// Looks once. Returns the pause until the next look, or `None` to sleep until an operation is
    /// in flight.
    pub(crate) fn look(&mut self) -> Option<Duration> {
        let now = self.watch();
        let mut longest = 0;
        let mut busy = false;
        for place in Place::ALL {
            let token = self.state.in_flight.get(place);
            let seen = self.seen[place as usize];
            let lasted = now.saturating_sub(seen.since);
            let stalled = seen.tell_at > self.threshold;
            busy |= token != 0;
            if token != seen.token {
                self.seen[place as usize] = Seen { token, since: now, tell_at: self.threshold };
                if stalled {
                    self.tell(place, lasted, true);
                }
            } else if token != 0 {
                if lasted >= seen.tell_at {
                    self.seen[place as usize].tell_at = lasted.saturating_mul(2);
                    if !stalled {
                        self.state.counters.stalls.add(1);
                    }
                    self.tell(place, lasted, false);
                }
                if lasted >= self.threshold {
                    longest = lasted.max(longest);
                }
            }
        }
        self.state.in_flight.stalled.store(longest, Ordering::Relaxed);
        self.quiet = if busy { 0 } else { self.quiet + 1 };
        (self.quiet < QUIET_LOOKS).then(|| Duration::from_nanos(self.pause()))
    }

    fn tell(&self, place: Place, lasted: u64, over: bool) {
        let kind = match place {
            Place::Write => StallKind::Write,
            Place::Sync => StallKind::Sync,
            Place::Segment => StallKind::Segment,
        };
        let stall = Stall { kind, lasted: Duration::from_nanos(lasted), over };
        let (dir, lasted_ms) = (self.state.view.dir.path_of(""), lasted / 1_000_000);
        if over {
            tracing::info!(dir = %dir.display(), %kind, lasted_ms, "the disk answers again");
        } else {
            tracing::warn!(dir = %dir.display(), %kind, lasted_ms, "the disk does not answer");
        }
        if let Some(OnStall(tell)) = &self.on_stall
            && caught(|| tell(&stall)).is_none()
        {
            tracing::error!("the callback of on_stall panicked");
        }
    }
}

/// The watchdog is the task of a pool. It is over when the log has ended.
impl SharedTask for Watchdog {
    fn step(&mut self) -> NextStep {
        let state = Arc::clone(&self.state);
        if state.in_flight.is_over() {
            // Reports the end of every stall that was reported as ongoing.
            self.look();
            return NextStep::Over;
        }
        state.in_flight.wake_up();
        match self.look() {
            Some(pause) => NextStep::OnBell(Some(pause)),
            None if state.in_flight.fall_asleep() => NextStep::OnBell(None),
            None => NextStep::Now,
        }
    }

    fn panicked(&mut self) {}
}
