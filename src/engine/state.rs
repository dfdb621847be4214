//! What the handles, the I/O thread and the segment helper share.

use std::sync::Arc;

use crate::durable::{Durable, Verdict};
use crate::engine::log_view::LogView;
use crate::error::{Error, Failure};
use crate::io::backend::CommitState;
use crate::positions::Consumers;
use crate::ring::Ring;
use crate::stats::counters::{Counters, Recorders};
use crate::stats::in_flight::InFlight;
use crate::sys::sync::{AtomicU32, AtomicU64, Futex, Mutex, Ordering, lock};

/// What moves a log that has no threads: whoever would wait does it.
#[cfg(simulated)]
pub(crate) trait Machine: Send + Sync + std::fmt::Debug {
    /// Perhaps lets something happen, as a thread would meanwhile.
    fn stir(&self);
    /// Lets something happen. False: nothing can, until somebody calls the log.
    fn drive(&self) -> bool;
}

/// What moves a log, to be ended by whoever ends the log: its threads, or on a simulated disk its machine.
pub(crate) trait Running: Send + std::fmt::Debug {
    /// Waits until nothing moves any more; then the next opener may come.
    fn end(self: Box<Self>, state: &LogState);
}

pub(crate) struct LogState {
    pub(crate) ring: Ring,
    pub(crate) durable: Durable,
    pub(crate) view: Arc<LogView>,
    pub(crate) counters: Counters,
    pub(crate) consumers: Consumers,
    /// Written by the I/O thread, one by the helper.
    pub(crate) recorders: Recorders,
    pub(crate) commit: CommitState,
    pub(crate) in_flight: InFlight,
    /// Retention: the helper wants this to be the oldest LSN...
    retire_wanted: AtomicU64,
    /// ... this is in a group header that was submitted...
    retiring: AtomicU64,
    /// ... and this one is durable in one.
    retire_durable: AtomicU64,
    /// The newest durable group that holds records; 0: there is none.
    newest_record: AtomicU64,
    /// `truncate_before` asks for this.
    pub(crate) truncate_to: AtomicU64,
    /// How often it did, and how many of these wishes were carried out as far as they could be.
    pub(crate) truncations_asked: AtomicU64,
    pub(crate) truncations_done: AtomicU64,
    /// Changes whenever the helper has something to look at.
    pub(crate) helper: Futex,
    /// Changes whenever the helper has gone round once, and when the log fails.
    pub(crate) helper_rounds: Futex,
    /// `truncate_after` asks for a cut from here; `NO_CUT`: nobody does.
    cut_wanted: AtomicU64,
    /// Changes whenever a cut is durable, or none will be any more.
    pub(crate) cut_rounds: Futex,
    /// Segments from here on wait for the hook; the top where there is none.
    released: AtomicU64,
    /// Changes whenever a segment may have been left, and when the log ends.
    pub(crate) sealed_bell: Futex,
    /// Why a segment could not be prepared or removed, while that is tried again.
    obstacle: Mutex<Option<Error>>,
    /// Why there was no next segment when there was none last: what a producer is told that was refused.
    no_segment: Mutex<Error>,
    closing: AtomicU32,
    io_ended: AtomicU32,
    #[cfg(simulated)]
    pub(crate) machine: std::sync::OnceLock<Box<dyn Machine>>,
}

const NO_CUT: u64 = u64::MAX;

/// Short: it is printed with every handle of the log, in the logs of whoever prints those.
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
        consumers: Consumers,
        oldest: u64,
    ) -> Self {
        LogState {
            view: Arc::new(view),
            ring,
            durable,
            counters: Counters::new(),
            consumers,
            recorders: Recorders::new(),
            commit: CommitState::new(),
            in_flight: InFlight::new(),
            retire_wanted: AtomicU64::new(oldest),
            retiring: AtomicU64::new(oldest),
            retire_durable: AtomicU64::new(oldest),
            newest_record: AtomicU64::new(0),
            truncate_to: AtomicU64::new(0),
            truncations_asked: AtomicU64::new(0),
            truncations_done: AtomicU64::new(0),
            helper: Futex::new(0),
            helper_rounds: Futex::new(0),
            cut_wanted: AtomicU64::new(NO_CUT),
            cut_rounds: Futex::new(0),
            released: AtomicU64::new(u64::MAX),
            sealed_bell: Futex::new(0),
            obstacle: Mutex::new(None),
            no_segment: Mutex::new(Error::NoSpace),
            closing: AtomicU32::new(0),
            io_ended: AtomicU32::new(0),
            #[cfg(simulated)]
            machine: std::sync::OnceLock::new(),
        }
    }

    /// Fails the log: latches the failure, and lets go of everybody who waits.
    pub(crate) fn fail(&self, failure: Failure) {
        let said = failure.to_string();
        // What fails afterwards is a consequence, or the same disk.
        if self.durable.poison(failure) {
            tracing::error!(failure = said, "the log is poisoned");
        }
        self.ring.stop();
        self.durable.wake_all();
        self.ring.doorbell.ring();
        self.nudge_helper();
        // The helper may be what has failed: it goes round no more.
        self.helper_round_over();
        self.cut_settled();
        self.ring_sealed();
    }

    /// Wakes those who wait for the helper: it has gone round, or will not any more.
    pub(crate) fn helper_round_over(&self) {
        self.helper_rounds.bump();
        self.helper_rounds.wake_all();
    }

    /// `truncate_after` wants everything from `from` on to be void.
    pub(crate) fn want_cut(&self, from: u64) {
        self.cut_wanted.store(from, Ordering::SeqCst);
        self.ring.doorbell.ring();
    }

    pub(crate) fn is_cut_wanted(&self) -> bool {
        self.cut_wanted.load(Ordering::SeqCst) != NO_CUT
    }

    /// The I/O thread's: the next group is to make this cut.
    pub(crate) fn take_cut(&self) -> Option<u64> {
        if !self.is_cut_wanted() {
            return None;
        }
        Some(self.cut_wanted.swap(NO_CUT, Ordering::SeqCst)).filter(|&from| from != NO_CUT)
    }

    /// A cut is durable, or none will be any more.
    pub(crate) fn cut_settled(&self) {
        self.cut_rounds.bump();
        self.cut_rounds.wake_all();
    }

    /// The hook has let go of everything below; retention waits for it from there on.
    pub(crate) fn set_released(&self, position: u64) {
        self.released.store(position, Ordering::SeqCst);
    }

    pub(crate) fn released(&self) -> u64 {
        self.released.load(Ordering::SeqCst)
    }

    pub(crate) fn ring_sealed(&self) {
        self.sealed_bell.bump();
        self.sealed_bell.wake_all();
    }

    /// On a simulated disk, something may happen now.
    #[inline]
    pub(crate) fn stir(&self) {
        #[cfg(simulated)]
        if let Some(machine) = self.machine.get() {
            machine.stir();
        }
    }

    /// For those who would wait: on a simulated disk they let something happen instead. False: wait.
    #[inline]
    pub(crate) fn drive(&self) -> bool {
        #[cfg(simulated)]
        if let Some(machine) = self.machine.get() {
            return machine.drive();
        }
        false
    }

    /// Waits until `lsn`, of which a sync has been asked for, is durable.
    pub(crate) fn wait_durable(&self, lsn: u64) -> Result<(), crate::error::Error> {
        while matches!(self.durable.verdict(lsn), Verdict::NotYet) && self.drive() {}
        self.durable.wait(lsn)
    }

    pub(crate) fn nudge_helper(&self) {
        self.helper.bump();
        self.helper.wake_all();
    }

    pub(crate) fn begin_close(&self) {
        self.durable.close();
        self.closing.store(1, Ordering::SeqCst);
        self.ring_sealed();
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
        self.cut_settled();
    }

    /// From here on the directory is left alone: the lock is about to be let go.
    pub(crate) fn leave(&self) {
        self.consumers.end();
        self.view.leave();
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

    /// The helper's: what it tries again, if it does.
    pub(crate) fn set_obstacle(&self, obstacle: Option<Error>) {
        *lock(&self.no_segment) = obstacle.clone().unwrap_or(Error::NoSpace);
        *lock(&self.obstacle) = obstacle;
    }

    pub(crate) fn obstacle(&self) -> Option<Error> {
        lock(&self.obstacle).clone()
    }

    /// The obstacle is gone. A producer that was refused before is still told what it was.
    pub(crate) fn clear_obstacle(&self) {
        *lock(&self.obstacle) = None;
    }

    /// Why there is no next segment, or was none a moment ago.
    pub(crate) fn no_segment(&self) -> Error {
        lock(&self.no_segment).clone()
    }

    /// The I/O thread's, and recovery's: a group at `lsn` holds records and is durable.
    pub(crate) fn set_newest_record(&self, lsn: u64) {
        self.newest_record.fetch_max(lsn, Ordering::SeqCst);
    }

    pub(crate) fn newest_record(&self) -> u64 {
        self.newest_record.load(Ordering::SeqCst)
    }

    pub(crate) fn set_retiring(&self, oldest: u64) {
        self.retiring.store(oldest, Ordering::SeqCst);
    }

    /// Whether what the helper wants to retire waits for a group that there is no space for.
    pub(crate) fn retiring_lacks_space(&self) -> bool {
        self.ring.is_starved() && self.retire_wanted() > self.retiring.load(Ordering::SeqCst)
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
