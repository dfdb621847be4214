//! What the handles, the I/O thread and the segment helper share.

use std::sync::Arc;

use crate::backend::Commit;
use crate::durable::Durable;
use crate::error::Failure;
use crate::ring::Ring;
use crate::segment::{Names, Table};
use crate::stall::Flights;
use crate::stats::Counters;
use crate::storage::Dir;
use crate::sync::{AtomicU32, AtomicU64, Futex, Ordering};
use crate::tail::Tail;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) ring: Ring,
    pub(crate) durable: Durable,
    pub(crate) table: Arc<Table>,
    pub(crate) counters: Counters,
    pub(crate) commit: Commit,
    pub(crate) flights: Flights,
    pub(crate) tail: Tail,
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) names: Names,
    /// Retention: the helper wants this to be the oldest LSN...
    retire_wanted: AtomicU64,
    /// ... and this one is durable in a group header.
    retire_durable: AtomicU64,
    /// `truncate_before` asks for this.
    pub(crate) truncate_to: AtomicU64,
    /// The last such wish that was carried out as far as it can be.
    pub(crate) truncated: AtomicU64,
    /// Changes whenever the helper has something to look at.
    pub(crate) helper: Futex,
    /// Changes whenever the helper has gone round once.
    pub(crate) helper_rounds: Futex,
    closing: AtomicU32,
    io_ended: AtomicU32,
}

impl Shared {
    pub(crate) fn new(
        ring: Ring,
        durable: Durable,
        table: Table,
        dir: Arc<dyn Dir>,
        names: Names,
        oldest: u64,
    ) -> Self {
        let tail = Tail::new(ring.capacity());
        Shared {
            tail,
            ring,
            durable,
            table: Arc::new(table),
            counters: Counters::new(),
            commit: Commit::new(),
            flights: Flights::new(),
            dir,
            names,
            retire_wanted: AtomicU64::new(oldest),
            retire_durable: AtomicU64::new(oldest),
            truncate_to: AtomicU64::new(0),
            truncated: AtomicU64::new(0),
            helper: Futex::new(0),
            helper_rounds: Futex::new(0),
            closing: AtomicU32::new(0),
            io_ended: AtomicU32::new(0),
        }
    }

    /// Fails the log: latches the failure, and lets go of everybody who waits.
    pub(crate) fn fail(&self, failure: Failure) {
        tracing::error!(%failure, "the log is poisoned");
        self.durable.poison(failure);
        self.ring.stop();
        self.durable.wake_all();
        self.ring.doorbell.ring();
        self.nudge_helper();
    }

    pub(crate) fn nudge_helper(&self) {
        self.helper.bump();
        self.helper.wake_all();
    }

    pub(crate) fn begin_close(&self) {
        self.durable.close();
        self.closing.store(1, Ordering::SeqCst);
        self.ring.doorbell.ring();
        self.nudge_helper();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst) != 0
    }

    /// The I/O thread's last word: nothing becomes durable any more.
    pub(crate) fn set_io_ended(&self) {
        self.io_ended.store(1, Ordering::SeqCst);
        self.durable.wake_all();
        self.nudge_helper();
    }

    pub(crate) fn has_io_ended(&self) -> bool {
        self.io_ended.load(Ordering::SeqCst) != 0
    }

    /// The helper's wish: segments below `oldest` are to go.
    pub(crate) fn want_retired(&self, oldest: u64) {
        if self.retire_wanted.fetch_max(oldest, Ordering::SeqCst) < oldest {
            self.ring.doorbell.ring();
        }
    }

    pub(crate) fn retire_wanted(&self) -> u64 {
        self.retire_wanted.load(Ordering::SeqCst)
    }

    /// The I/O thread's answer: a durable group header says that `oldest` is the oldest.
    pub(crate) fn set_retired(&self, oldest: u64) {
        if self.retire_durable.fetch_max(oldest, Ordering::SeqCst) < oldest {
            self.nudge_helper();
        }
    }

    pub(crate) fn retired(&self) -> u64 {
        self.retire_durable.load(Ordering::SeqCst)
    }
}
