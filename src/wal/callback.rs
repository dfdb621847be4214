//! A closure that is called when a record is durable: a third way to wait.
//!
//! 1. The closure is called once: on the I/O thread, or at once on the caller's thread if the
//!    outcome is known.
//! 2. The closure is never passed to another task: no two callbacks count as of one thread.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Wake, Waker};

use crate::durable::{Registrar, Verdict};
use crate::engine::append::Appender;
use crate::engine::state::LogState;
use crate::error::{Error, Result};

type Call = Box<dyn FnOnce(Result<()>) + Send>;

struct Callback {
    state: Weak<LogState>,
    lsn: u64,
    call: Mutex<Option<Call>>,
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callback").field("lsn", &self.lsn).finish_non_exhaustive()
    }
}

impl Callback {
    fn settle(&self, result: Result<()>) {
        let call = self.call.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(call) = call {
            call(result);
        }
    }
}

impl Wake for Callback {
    fn wake(self: Arc<Self>) {
        let result = match self.state.upgrade() {
            None => Err(Error::Closed),
            Some(state) => match state.durable.verdict(self.lsn) {
                Verdict::Durable => state.view.cuts.check(self.lsn),
                Verdict::Failed(e) => Err(e),
                Verdict::NotYet => Err(Error::Closed),
            },
        };
        self.settle(result);
    }
}

pub(crate) fn on_durable(appender: &Appender, lsn: u64, call: Call) {
    let settled = match appender.ask_durable(lsn) {
        Verdict::NotYet => {
            let callback = Arc::new(Callback {
                state: Arc::downgrade(&appender.state),
                lsn,
                call: Mutex::new(Some(call)),
            });
            let waker = Waker::from(Arc::clone(&callback));
            let verdict = appender.state.durable.register(lsn, &waker, Registrar::Nobody).0;
            if !matches!(verdict, Verdict::NotYet) {
                // The outcome became known meanwhile. Whichever side takes the closure first calls
                // it.
                waker.wake();
            }
            return;
        }
        Verdict::Durable => Ok(()),
        Verdict::Failed(e) => Err(e),
    };
    call(settled);
}
