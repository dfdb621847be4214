//! The I/O thread: steps the loop and sleeps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::engine::baton::CommitLoop;
use crate::engine::state::LogState;
use crate::error::Failure;
use crate::sys::sync::yield_now;

/// Steps the loop until it has finished. A panic in it poisons the log.
pub(crate) fn run(state: &Arc<LogState>, io_loop: Box<dyn CommitLoop>) {
    let ran = catch_unwind(AssertUnwindSafe(|| run_until_finished(state, io_loop)));
    state.baton.retire();
    state.durable.pass_on();
    state.set_io_ended();
    if ran.is_err() {
        // The kernel may still write from these buffers: the backend was dropped in a panic.
        state.ring.memory.leak();
        state.fail(Failure::new("the I/O thread", "it panicked"));
    } else if state.durable.is_poisoned() {
        // A committer that fails wakes no waiter.
        state.wake_all();
    }
    state.durable.end_listeners();
}

fn run_until_finished(state: &Arc<LogState>, mut io_loop: Box<dyn CommitLoop>) {
    loop {
        let mut step = io_loop.step();
        if step.finished {
            return;
        }
        if step.progress {
            continue;
        }
        if step.gathers {
            // A sleep would end with the first of them, or after the time for all of them.
            yield_now();
            continue;
        }
        let mut parks = None;
        if let Some(wake_on) = step.wake_on {
            if io_loop.may_park() {
                parks = Some(state.baton.prepare_to_park());
            }
            // Armed before the second look: see the invariants of the doorbell.
            state.ring.doorbell.arm(wake_on);
            let again = io_loop.step();
            if again.progress || again.finished || again.wake_on != step.wake_on {
                state.ring.doorbell.disarm();
                state.baton.unpark();
                if again.finished {
                    return;
                }
                continue;
            }
            step = again;
        }
        if parks.is_some() && !io_loop.may_park() {
            // The doorbell was armed for the other bed.
            state.ring.doorbell.disarm();
            state.baton.unpark();
            continue;
        }
        state.counters.io_sleeps.add(1);
        if let Some(seen) = parks {
            let timeout = step.deadline.map(|deadline| io_loop.left_until(deadline));
            match state.baton.park(io_loop, seen, step.deadline, timeout) {
                Some(reclaimed) => io_loop = reclaimed,
                None => return,
            }
            state.ring.doorbell.disarm();
            state.baton.unpark();
        } else {
            io_loop.wait(step.deadline);
            state.ring.doorbell.disarm();
        }
    }
}
