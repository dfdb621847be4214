//! The loop as a committer steps it, on its own thread.
//!
//! 1. Nothing is in flight in the I/O thread's backend, and no committer touches that backend: it
//!    belongs to the I/O thread. The committer's own calls write and sync, and have returned when
//!    the loop is put back.
//! 2. A committer submits one group at a time, and none once its own position is durable.
//! 3. What only the I/O thread can do (a rotation, control groups, a close) is left to it.
//! 4. No user code runs on the committer's thread: the wakers of tasks, and listeners, are left to
//!    the I/O thread, after a failure too.
//!    The committer may hold locks of its own that a waker takes.

use std::time::Duration;

use super::submit::later;
use super::{Closing, IoLoop};
use crate::engine::baton::{CommitLoop, Left, Step};
use crate::io::backend::Backend;
use crate::ring::{Poll, WakeOn};
use crate::sys::sync::spin_loop;

/// How often a committer looks again whether another producer has filled its reservation.
const LOOKS: u32 = 200;

impl IoLoop {
    /// Groups that may be in flight.
    pub(super) fn depth(&self) -> usize {
        match self.committing {
            None => self.setup.depth,
            Some(lsn) if self.state.durable.end() > lsn => 0,
            Some(_) => 1,
        }
    }

    /// Where operations go: while a committer holds the loop, to the thread that waits for them.
    pub(super) fn backend(&mut self) -> &mut dyn Backend {
        match (&self.committing, &mut self.direct) {
            (Some(_), Some(direct)) => direct,
            _ => &mut *self.backend,
        }
    }

    /// On the I/O thread: whether a committer waits awake, which is faster with the next group.
    pub(super) fn leaves_groups(&self) -> bool {
        self.committing.is_none() && self.may_be_held() && self.state.baton.has_next()
    }

    /// Whether another thread may step the loop, once those that wait are woken.
    fn may_be_held(&self) -> bool {
        self.direct.is_some()
            && self.outstanding == 0
            && self.started
            && !self.epoch_waits()
            && !self.has_failed()
            && self.closing == Closing::No
            && self.setup.commit_delay.is_zero()
            && self.filling_since.is_none()
    }

    /// On a committer's thread: wakes threads. Tasks and listeners stay for the I/O thread.
    pub(super) fn wake_threads(&mut self) -> bool {
        let durable = &self.state.durable;
        let wakes = |&mut (from, to): &mut (u64, u64)| {
            durable.wake_threads(from, to) && !durable.listeners.exist()
        };
        self.to_wake.take_if(wakes).is_some()
    }

    fn commit_to(&mut self, lsn: u64) {
        let mut looks = 0;
        loop {
            let step = IoLoop::step(self);
            let over = step.finished || self.has_failed() || self.state.durable.end() > lsn;
            if self.outstanding > 0 {
                // Also what is over: nothing may be in flight when the loop is put back.
                IoLoop::wait(self, None);
            } else if over {
                return;
            } else if !step.progress {
                looks += 1;
                let filling = matches!(self.state.ring.poll(self.next), Poll::Filling);
                if !filling || looks > LOOKS {
                    return;
                }
                spin_loop();
            }
        }
    }

    /// Whether there is anything that the I/O thread would do now.
    fn has_work(&self) -> bool {
        let state = &self.state;
        self.has_failed()
            || self.granted
            || self.to_wake.is_some()
            || state.durable.is_poisoned()
            || state.is_closing()
            || state.retention.wanted() > self.setup.oldest
            || state.cut.is_wanted()
            || state.durable.has_left_tasks()
            || (self.groups.first_plain().is_some()
                && state.durable.demanded() > state.durable.end())
    }
}

impl CommitLoop for IoLoop {
    fn step(&mut self) -> Step {
        IoLoop::step(self)
    }

    fn wait(&mut self, deadline: Option<u64>) {
        IoLoop::wait(self, deadline);
    }

    fn left_until(&self, deadline: u64) -> Duration {
        Duration::from_nanos(deadline.saturating_sub(self.clock.now()))
    }

    fn may_park(&self) -> bool {
        self.may_be_held() && self.to_wake.is_none()
    }

    fn commit(&mut self, lsn: u64) -> Left {
        let begun = self.clock.now();
        self.committing = Some(lsn);
        self.commit_to(lsn);
        self.committing = None;
        let taken = self.clock.now().saturating_sub(begun);
        // Armed first, looked again second: see the doorbell's invariants.
        self.state.ring.doorbell.arm(WakeOn::Any);
        let work = self.has_work();
        let records = !matches!(self.state.ring.poll(self.next), Poll::Empty);
        self.state.baton.committed(taken, self.pace.last_records(), records);
        // The I/O thread begins to count the idle time when it wakes; until then it must have a
        // time.
        let idle_seal = self.pace.pause(self.setup.idle_seal);
        let mark_due = (!self.marked).then(|| later(begun, idle_seal));
        let due = [self.interval_due, self.idle_due, self.relay_due, mark_due];
        Left { work, records, deadline: due.into_iter().flatten().min().unwrap_or(u64::MAX) }
    }

    fn abandon(&mut self) {
        // What was queued is never run, or was cut off in the middle.
        self.state.ring.memory.leak();
        self.outstanding = 0;
        self.committing = None;
        if let Some(direct) = &mut self.direct {
            while direct.reap().is_some() {}
        }
    }
}
