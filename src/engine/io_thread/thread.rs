//! The thread around the loop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::IoLoop;
use crate::engine::state::Shared;
use crate::error::Failure;

/// Steps the loop until it has finished. A panic in it poisons the log.
pub(crate) fn run(shared: &Arc<Shared>, io_loop: IoLoop) {
    let ran = catch_unwind(AssertUnwindSafe(|| run_until_finished(shared, io_loop)));
    shared.durable.pass_on();
    shared.set_io_ended();
    if ran.is_err() {
        // What was in flight when the backend was dropped may still be.
        shared.ring.memory.leak();
        shared.fail(Failure::new("the I/O thread", "it panicked"));
    }
}

fn run_until_finished(shared: &Arc<Shared>, mut io_loop: IoLoop) {
    loop {
        let mut step = io_loop.step();
        if step.finished {
            return;
        }
        if step.progress {
            continue;
        }
        if let Some(wake_on) = step.wake_on {
            // Armed first, looked again second: see the doorbell's invariants.
            shared.ring.doorbell.arm(wake_on);
            let again = io_loop.step();
            if again.progress || again.finished || again.wake_on != step.wake_on {
                shared.ring.doorbell.disarm();
                if again.finished {
                    return;
                }
                continue;
            }
            step = again;
        }
        shared.counters.io_sleeps.add(1);
        io_loop.wait(step.deadline);
        shared.ring.doorbell.disarm();
    }
}
