//! What the handles and the threads of one log share.
//!
//! [`LogState`] holds parts and no words of its own but `io_ended`. Each part says who writes and
//! who reads its words. Whether the log runs, is closing or has failed is one word in `durable/`.

mod cut;
mod hook;
mod keeper_bell;
mod obstacle;
mod remembered;
mod retention;

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use crate::cells::Cells;
use crate::durable::{Durable, Verdict};
use crate::engine::baton::{Baton, CommitLoop};
use crate::engine::log_view::LogView;
use crate::error::Failure;
use crate::io::backend::CommitState;
use crate::positions::{Consumers, FloorsPlace, TagFloors};
use crate::ring::Ring;
use crate::stats::counters::{Counters, Recorders};
use crate::stats::in_flight::InFlight;
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::sync::{AtomicU32, Ordering};

use cut::CutRequest;
use hook::HookState;
use keeper_bell::KeeperBell;
use obstacle::Obstacle;
use remembered::Remembered;
use retention::RetentionState;

/// Steps the parts of a log that has no threads, from inside the calls that would wait.
#[cfg(all(any(test, feature = "testing"), not(ringwal_loom)))]
pub(crate) trait Driver: Send + Sync + std::fmt::Debug {
    /// May take a step, as a thread could at this point.
    fn stir(&self);
    /// Takes a step. False: no part can step until a caller does something.
    fn drive(&self) -> bool;
}

/// What steps the parts of a log: its threads, or the machine of a simulated disk. The last handle
/// ends it.
pub(crate) trait Running: Send + std::fmt::Debug {
    /// Waits until no part is stepped any more, and releases the lock of the log.
    fn end(self: Box<Self>, state: &LogState);
}

pub(crate) struct LogState {
    pub(crate) ring: Ring,
    /// The commit loop, while the I/O thread sleeps.
    pub(crate) baton: Baton<Box<dyn CommitLoop>>,
    pub(crate) durable: Durable,
    pub(crate) view: Arc<LogView>,
    pub(crate) counters: Counters,
    pub(crate) consumers: Consumers,
    pub(crate) cells: Cells,
    pub(crate) tag_floors: TagFloors,
    /// Written by the I/O thread, one by the segment keeper.
    pub(crate) recorders: Recorders,
    pub(crate) commit: CommitState,
    pub(crate) in_flight: InFlight,
    pub(crate) retention: RetentionState,
    pub(crate) cut: CutRequest,
    pub(crate) hook: HookState,
    pub(crate) obstacle: Obstacle,
    pub(crate) keeper: KeeperBell,
    /// The LSN of the newest durable record, 0 if there is none. It belongs to the newest group
    /// with records, and to the number of cuts.
    pub(crate) newest_record: Remembered<(u64, u64), u64>,
    /// When the oldest record was written. It belongs to the oldest LSN, and to the number of cuts.
    pub(crate) oldest_record: Remembered<(u64, u64), SystemTime>,
    /// Set once, when the engine is put together.
    clock: OnceLock<Arc<dyn Clock>>,
    /// 1 once the I/O thread has ended and nothing becomes durable any more. Written by it, or by
    /// the machine in its place; read by waiters, followers and the segment keeper. A log that is
    /// closing or has failed still has groups in flight, so the status in `durable/` does not say
    /// this.
    io_ended: AtomicU32,
    #[cfg(all(any(test, feature = "testing"), not(ringwal_loom)))]
    pub(crate) machine: std::sync::OnceLock<Box<dyn Driver>>,
}

/// Short: the `Debug` output of every handle contains it.
impl std::fmt::Debug for LogState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LogState { durable, view, .. } = self;
        let end = crate::lsn::Lsn::new(durable.end());
        f.debug_struct("LogState")
            .field("view", view)
            .field("durable_end", &end)
            .finish_non_exhaustive()
    }
}

impl LogState {
    pub(crate) fn new(
        ring: Ring,
        durable: Durable,
        view: LogView,
        (consumers, tag_floors, cells): (Consumers, TagFloors, Cells),
        oldest: u64,
    ) -> Self {
        let end = durable.end();
        LogState {
            view: Arc::new(view),
            ring,
            baton: Baton::new(),
            durable,
            counters: Counters::new(),
            consumers,
            cells,
            tag_floors,
            recorders: Recorders::new(),
            commit: CommitState::new(),
            in_flight: InFlight::new(),
            retention: RetentionState::new(oldest),
            cut: CutRequest::new(),
            hook: HookState::new(),
            obstacle: Obstacle::new(),
            keeper: KeeperBell::new(end),
            newest_record: Remembered::new(),
            oldest_record: Remembered::new(),
            clock: OnceLock::new(),
            io_ended: AtomicU32::new(0),
            #[cfg(all(any(test, feature = "testing"), not(ringwal_loom)))]
            machine: std::sync::OnceLock::new(),
        }
    }

    /// Fails the log: latches the failure and wakes every waiter.
    pub(crate) fn fail(&self, failure: Failure) {
        self.latch(failure);
        self.wake_all();
    }

    /// Latches the failure. The caller has every waiter woken.
    pub(crate) fn latch(&self, failure: Failure) {
        let text = failure.to_string();
        // A later failure is a consequence of the first, or comes from the same disk.
        if self.durable.poison(failure) {
            tracing::error!(failure = text, "the log is poisoned");
        }
    }

    /// Wakes every waiter of a log that has failed. Wakers are user code.
    pub(crate) fn wake_all(&self) {
        self.ring.stop();
        self.durable.wake_all();
        self.ring.doorbell.ring();
        self.keeper.ring();
        // If the segment keeper has failed, it finishes no round any more.
        self.keeper.round_over();
        self.cut.wake_waiter();
        self.hook.ring();
    }

    /// The first position that no append has taken. In a child of fork(): the durable end.
    pub(crate) fn end(&self) -> u64 {
        let durable = self.durable.end();
        if self.durable.is_forked() { durable } else { self.ring.reserved_end().max(durable) }
    }

    /// Requests a cut: the I/O thread makes everything from `from` on void.
    pub(crate) fn want_cut(&self, from: u64) {
        self.cut.set(from);
        self.ring.doorbell.ring();
    }

    /// Requests that the I/O thread states `oldest` as the oldest LSN in a group header.
    pub(crate) fn want_retired(&self, oldest: u64) {
        if self.retention.raise_wanted(oldest) {
            self.ring.doorbell.ring();
        }
    }

    /// Whether the statement of retention waits for a group that the disk has no space for.
    pub(crate) fn retention_lacks_space(&self) -> bool {
        self.ring.is_starved() && self.retention.is_unsubmitted()
    }

    /// A durable group header states that `oldest` is the oldest LSN.
    pub(crate) fn set_retired(&self, oldest: u64) {
        if self.retention.raise_durable(oldest) {
            self.keeper.ring();
        }
    }

    /// Lets the machine of a simulated disk take a step.
    #[inline]
    pub(crate) fn stir(&self) {
        #[cfg(all(any(test, feature = "testing"), not(ringwal_loom)))]
        if let Some(machine) = self.machine.get() {
            machine.stir();
        }
    }

    /// Takes a step on a simulated disk. False: the caller must wait.
    #[inline]
    pub(crate) fn drive(&self) -> bool {
        #[cfg(all(any(test, feature = "testing"), not(ringwal_loom)))]
        if let Some(machine) = self.machine.get() {
            return machine.drive();
        }
        false
    }

    /// Whether calls step the log, which has no threads: it is on a simulated disk.
    pub(crate) fn has_machine(&self) -> bool {
        #[cfg(all(any(test, feature = "testing"), not(ringwal_loom)))]
        return self.machine.get().is_some();
        #[cfg(not(all(any(test, feature = "testing"), not(ringwal_loom))))]
        false
    }

    /// The clock that the log's parts take time from.
    pub(crate) fn clock(&self) -> &dyn Clock {
        &**self.clock.get_or_init(|| Arc::new(SystemClock::new()))
    }

    /// Sets the clock, before any part is stepped.
    pub(crate) fn set_clock(&self, clock: &Arc<dyn Clock>) {
        let _ = self.clock.set(Arc::clone(clock));
    }

    /// Waits until `lsn` is durable. The caller has requested its sync.
    pub(crate) fn wait_durable(&self, lsn: u64) -> Result<(), crate::error::Error> {
        while matches!(self.durable.verdict(lsn), Verdict::NotYet) && self.drive() {}
        self.durable.wait(lsn)
    }

    /// Ends appends and wakes every thread, which then ends.
    pub(crate) fn begin_close(&self) {
        self.durable.close();
        self.hook.ring();
        self.ring.doorbell.ring();
        self.keeper.ring();
    }

    /// Whether the log is closing and has not failed.
    pub(crate) fn is_closing(&self) -> bool {
        self.durable.is_closed()
    }

    /// Notes that the I/O thread has ended, and wakes all that wait for it.
    pub(crate) fn set_io_ended(&self) {
        self.io_ended.store(1, Ordering::SeqCst);
        self.durable.wake_all();
        self.keeper.ring();
        self.cut.wake_waiter();
    }

    pub(crate) fn has_io_ended(&self) -> bool {
        self.io_ended.load(Ordering::SeqCst) != 0
    }

    /// The lowest address that a consumer or the floor of a tag keeps.
    pub(crate) fn held_from(&self) -> Option<u64> {
        let consumers = self.consumers.holds(self.durable.end());
        let floor = self.tag_floors.lowest().map(|(floor, _)| floor);
        [consumers, floor].into_iter().flatten().min()
    }

    /// Calls `take` with the address below which neither a consumer nor a floor holds a segment.
    /// None of them changes meanwhile.
    pub(crate) fn take_unheld<T>(&self, take: impl FnOnce(u64) -> T) -> T {
        self.consumers.take_unheld(self.durable.end(), |held| {
            self.tag_floors.take_unheld(|floor| take(held.min(floor)))
        })
    }

    /// Stores the floors of tags, durably, unless the log is closed.
    pub(crate) fn store_tag_floors(&self) -> Result<(), crate::error::Error> {
        let LogState { view, durable, .. } = self;
        self.consumers.change(|| {
            let place = FloorsPlace { dir: &*view.dir, names: &view.names, end: durable.end() };
            self.tag_floors.store(place)
        })
    }

    /// Stores the floors that were released since. If that fails, older ones stay in the file: they
    /// keep more.
    pub(crate) fn store_released_floors(&self) {
        if self.durable.is_poisoned() || !self.tag_floors.is_unstored() {
            return;
        }
        if let Err(e) = self.store_tag_floors() {
            tracing::warn!(error = %e, "the floors of tags are not stored; older ones keep more");
        }
    }

    /// Ends every write to the directory. Called before the lock is released.
    pub(crate) fn detach_directory(&self) {
        self.store_released_floors();
        self.consumers.end();
        self.cells.end();
        self.view.leave();
    }
}
