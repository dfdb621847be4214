//! The machine: does inside the caller's calls what the log's threads do elsewhere.
//!
//! 1. One thread moves a machine at a time. A call from inside, for example of a callback, moves
//!    nothing. Wakers, callbacks and hooks run while the machine is moved.
//! 2. The next event is drawn at random. The same calls from one thread with the same seed see the
//!    same events.
//! 3. `drive` returns false only after every part had a turn, and none waits for a time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::SimClock;
use crate::engine::archiver::{self, Archiver};
use crate::engine::io_thread::IoLoop;
use crate::engine::segment_keeper::{self, SegmentKeeper};
use crate::engine::state::{self, LogState, Running};
use crate::hooks::OnSealed;
use crate::io::fs::sim::SimLock;
use crate::sys::clock::Clock;
use crate::sys::reentrancy::Serving;
use crate::sys::sync::{Mutex, lock};

/// Turns of a close at most. No log has needed a hundredth of them.
const MOST_TURNS: u32 = 1_000_000;

pub(super) struct Parts {
    pub(super) state: Arc<LogState>,
    pub(super) io: IoLoop,
    pub(super) keeper: SegmentKeeper,
    pub(super) hook: Option<(Archiver, OnSealed)>,
    pub(super) clock: Arc<SimClock>,
    pub(super) rng: Rng,
    turns: Turns,
}

/// When each part wants its next turn, by the clock, in nanoseconds.
#[derive(Debug, Default)]
struct Turns {
    io_deadline: Option<u64>,
    io_over: bool,
    keeper_at: u64,
    keeper_over: bool,
    hook_at: u64,
}

/// The machine of one log. `None` after the log has ended.
pub(super) struct Machine(pub(super) Arc<Mutex<Option<Parts>>>);

/// Ends the log of a machine, and releases the log's lock.
#[derive(Debug)]
pub(super) struct End {
    pub(super) machine: Machine,
    pub(super) lock: SimLock,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Machine(..)")
    }
}

impl Parts {
    pub(super) fn new(
        state: Arc<LogState>,
        io: IoLoop,
        keeper: SegmentKeeper,
        hook: Option<(Archiver, OnSealed)>,
        clock: Arc<SimClock>,
        rng: Rng,
    ) -> Self {
        Parts { state, io, keeper, hook, clock, rng, turns: Turns::default() }
    }

    /// Takes one step of the I/O loop, or completes one operation of the device.
    fn turn_io(&mut self) -> bool {
        if self.turns.io_over {
            return false;
        }
        let step = self.io.step();
        self.turns.io_deadline = step.deadline;
        if step.finished {
            self.turns.io_over = true;
            self.state.durable.pass_on();
            self.state.set_io_ended();
            self.state.durable.end_listeners();
            return true;
        }
        if step.progress {
            return true;
        }
        let busy = self.io.in_flight() > 0;
        self.io.wait(None);
        if busy {
            let taken = self.rng.u64(5..150);
            self.clock.advance(Duration::from_micros(taken));
        }
        busy
    }

    fn turn_keeper(&mut self) -> bool {
        if self.turns.keeper_over || self.clock.now() < self.turns.keeper_at {
            return false;
        }
        match self.keeper.step() {
            segment_keeper::KeeperStep::After(pause) => {
                self.turns.keeper_at = self.clock.now() + pause.as_nanos() as u64;
                true
            }
            segment_keeper::KeeperStep::OnNudge(_) => false,
            segment_keeper::KeeperStep::Finished => {
                self.turns.keeper_over = true;
                true
            }
        }
    }

    fn turn_hook(&mut self) -> bool {
        let now = self.clock.now();
        let Some((sealed, hook)) = &mut self.hook else { return false };
        if now < self.turns.hook_at {
            return false;
        }
        match sealed.step(hook) {
            archiver::ArchiverStep::Again => true,
            archiver::ArchiverStep::After(pause) => {
                self.turns.hook_at = now + pause.as_nanos() as u64;
                false
            }
            archiver::ArchiverStep::OnBell => false,
            archiver::ArchiverStep::Over => {
                self.hook = None;
                false
            }
        }
    }

    /// Gives a random part a turn, or lets time pass. Returns true on progress.
    fn turn(&mut self) -> bool {
        match self.rng.u8(0..16) {
            0..11 => self.turn_io(),
            11..14 => self.turn_keeper(),
            14 => self.turn_hook(),
            _ => {
                let pause = self.rng.u64(1..200);
                self.clock.advance(Duration::from_micros(pause));
                false
            }
        }
    }

    /// Gives every part a turn. If all of them only wait for a time, advances the clock to the
    /// first. Returns true on progress.
    fn sweep(&mut self) -> bool {
        let kept = self.turn_keeper();
        if self.turn_hook() | self.turn_io() | kept {
            return true;
        }
        let now = self.clock.now();
        let keeper_at = (!self.turns.keeper_over).then_some(self.turns.keeper_at);
        let hook_at = self.hook.is_some().then_some(self.turns.hook_at);
        let due = [self.turns.io_deadline, keeper_at, hook_at];
        match due.into_iter().flatten().filter(|at| *at > now).min() {
            Some(at) if !self.turns.io_over => {
                self.clock.advance_to(at);
                true
            }
            _ => false,
        }
    }

    fn drive(&mut self) -> bool {
        for _ in 0..self.rng.u8(1..6) {
            if self.turn() {
                return true;
            }
        }
        self.sweep()
    }

    fn is_over(&self) -> bool {
        self.turns.io_over && self.turns.keeper_over
    }
}

impl state::Driver for Machine {
    fn stir(&self) {
        let Some(_serving) = Serving::enter() else { return };
        if let Some(parts) = &mut *lock(&self.0)
            && parts.rng.u8(0..4) == 0
        {
            for _ in 0..parts.rng.u8(1..8) {
                parts.turn();
            }
        }
    }

    fn drive(&self) -> bool {
        let Some(_serving) = Serving::enter() else { return false };
        lock(&self.0).as_mut().is_some_and(Parts::drive)
    }
}

impl Running for End {
    /// Finishes the log's work, after `begin_close`.
    fn end(self: Box<Self>, state: &LogState) {
        let _serving = Serving::enter();
        let mut parts = lock(&self.machine.0);
        if let Some(parts) = parts.as_mut() {
            for _ in 0..MOST_TURNS {
                if parts.is_over() {
                    break;
                }
                parts.sweep();
                parts.turn();
            }
        }
        if !state.has_io_ended() {
            state.set_io_ended();
        }
        state.durable.end_listeners();
        state.in_flight.end();
        *parts = None;
        state.detach_directory();
        drop(self.lock);
    }
}
