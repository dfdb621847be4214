//! The commit path: seal, submit, complete, publish. A state machine that is stepped.
//!
//! Time, completions and files come from outside, so a simulated disk can drive the loop on one
//! thread. `thread.rs` steps it in production.
//!
//! Invariants:
//! 1. Groups are submitted in the order of their sequences. `groups` holds those that are not
//!    durable yet, in that order; a group's token is its sequence.
//! 2. A group is durable when its own write completed in full before a sync was submitted that
//!    succeeded (a linked sync starts after its write; a DSYNC write is both), and every group
//!    before it is durable. Only then does the durable end pass it.
//! 3. A buffer is released when its write and those of all groups before it are complete.
//! 4. After the first failed write or sync nothing is submitted any more.
//! 5. The first group of a segment is submitted only when everything before the previous segment is
//!    durable: at most two segments are ever unsynced.
//! 6. A control group is submitted only when every group before it is durable: its durable end is
//!    its own LSN.
//! 7. The epoch group is durable before any other group of its epoch is submitted. If the log ends
//!    with a mark, the epoch group is written only before another group (`epoch.rs`): opening alone
//!    writes nothing.
//! 8. In a step: completions, then the durable end, then the next submissions, then the wake-ups.
//!    A group that waits for those who are woken is submitted in a later step.

mod commit;
mod complete;
mod epoch;
mod gather;
#[cfg(all(test, not(ringwal_loom)))]
mod gather_tests;
mod groups;
#[cfg(test)]
mod log_for_tests;
mod pace;
mod padding;
#[cfg(all(test, ringwal_shuttle))]
mod shuttle_tests;
mod submit;
mod thread;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use thread::run;

use crate::durable::Ready;
use crate::engine::baton::Step;
use crate::engine::state::LogState;
use crate::error::Failure;
use crate::format::{EpochId, GroupHeader, Link, SegmentHeader};
use crate::io::backend::{Backend, SLOTS, StdBackend};
use crate::io::fs::File;
use crate::options::Durability;
use crate::ring::WakeOn;
use crate::segment::end_file::EndFile;
use crate::sys::clock::Clock;
use gather::Gather;
use groups::Groups;
use pace::CommitPace;
use padding::Padding;
use submit::SLOW_RESERVATION;

/// Tokens of separate syncs are above this, those of groups below.
const SYNC_TOKEN: u64 = 1 << 60;

/// Nanoseconds that a task has to wake the tasks left to it. If its executor is not stuck, it is
/// polled in a fraction of this.
const RELAY: u64 = 300_000;

/// What recovery hands to the I/O loop.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) log_id: [u8; 16],
    pub(crate) epoch: EpochId,
    /// The last group on the chain.
    pub(crate) link: Link,
    /// The segment that groups go to.
    pub(crate) active: SegmentHeader,
    pub(crate) active_file: Arc<dyn File>,
    /// LSN of the oldest segment.
    pub(crate) oldest: u64,
    /// The log ends with a mark: the epoch group is written when something is written after it.
    pub(crate) epoch_waits: bool,
    /// That mark, if the epoch group may take its place.
    pub(crate) replaceable: Option<GroupHeader>,
    /// The log ends with the mark of a clean close.
    pub(crate) clean: bool,
}

/// What the loop is built with.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) log_id: [u8; 16],
    pub(crate) epoch: EpochId,
    /// The last group on the chain.
    pub(crate) link: Link,
    /// The epoch group is written only when there is something to write after it.
    pub(crate) epoch_waits: bool,
    /// The last group, if it is a mark and the epoch group may be written over it.
    pub(crate) replaceable: Option<GroupHeader>,
    /// The log ends with the mark of a clean close.
    pub(crate) clean: bool,
    pub(crate) active: SegmentHeader,
    pub(crate) oldest: u64,
    pub(crate) block: u32,
    pub(crate) depth: usize,
    pub(crate) durability: Durability,
    pub(crate) commit_delay: Duration,
    pub(crate) idle_seal: Duration,
    /// Publishes the durable end to other processes.
    pub(crate) end_file: Option<EndFile>,
    /// Whether a committer may step the loop while the I/O thread sleeps.
    pub(crate) parks: bool,
}

pub(crate) struct IoLoop {
    state: Arc<LogState>,
    clock: Arc<dyn Clock>,
    backend: Box<dyn Backend>,
    /// For a committer that steps the loop itself: writes and syncs on the thread that waits.
    direct: Option<StdBackend>,
    /// While a committer steps it: the position that it commits.
    committing: Option<u64>,
    setup: Setup,
    pace: CommitPace,
    gather: Gather,
    /// In this step the next group began to wait, or waited on.
    gathers: bool,
    /// The segment that groups go to, and its slot.
    current: SegmentHeader,
    slot: usize,
    /// Attached files: base of the segment.
    slots: [Option<u64>; SLOTS],
    groups: Groups,
    /// By the buffers of the ring.
    paddings: Box<[Padding]>,
    /// Sequence of the next group to be submitted, and of the next buffer to be released.
    next: u64,
    next_release: u64,
    link: Link,
    /// End of the last submitted group.
    submitted_end: u64,
    /// Completions still to come.
    outstanding: usize,
    /// Token of the separate sync in flight.
    syncing: Option<u64>,
    syncing_since: u64,
    sync_ids: u64,
    /// Everything below this LSN needs a separate sync.
    sync_until: u64,
    interval_due: Option<u64>,
    delay_due: Option<u64>,
    idle_due: Option<u64>,
    /// Since when records may wait in the ring, by the clock. `None`: the next record does not
    /// wait.
    queued_from: Option<u64>,
    /// The last group is a control group, whose durable mark covers everything.
    marked: bool,
    /// The last group submitted is the mark of a clean close.
    closed: bool,
    filling_since: Option<u64>,
    started: bool,
    /// A log to which nothing was written is closed with a mark.
    marks_close: bool,
    /// The disk was full when the log began to close.
    full_at_close: bool,
    closing: Closing,
    /// Positions that became durable and whose waiters are still to be woken.
    to_wake: Option<(u64, u64)>,
    /// Tasks were granted room in the ring and are still to be woken.
    granted: bool,
    ready: Ready,
    /// When this thread wakes the tasks that were left to other tasks, by the clock.
    relay_due: Option<u64>,
}

/// How far the loop has come in closing the log. That the log closes is a word in `durable/`. These
/// phases follow it, and only the loop knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    /// The ring is stopped and sealed, and its records are being written.
    Draining,
    /// The clean-close group has been taken.
    Marked,
    Finished,
}

impl IoLoop {
    /// Takes the epoch group as its first; [`IoLoop::step`] submits it. Only the backends keep the
    /// active segment's file: once it is detached and removed, its space is free.
    pub(crate) fn new(
        state: Arc<LogState>,
        clock: Arc<dyn Clock>,
        mut backend: Box<dyn Backend>,
        setup: Setup,
        active_file: &Arc<dyn File>,
    ) -> Result<Self, Failure> {
        state.ring.doorbell.connect(Box::new(state.baton.waker(backend.waker())));
        let mut direct = setup.parks.then(StdBackend::for_committers);
        backend
            .attach(0, active_file)
            .and_then(|()| direct.as_mut().map_or(Ok(()), |d| d.attach(0, active_file)))
            .map_err(|e| Failure::from_io("attaching the active segment", &e))?;
        if setup.replaceable.is_some() {
            state.ring.set_replaceable();
        }
        if !setup.epoch_waits && state.ring.take_private().is_none() {
            return Err(Failure::new("opening", "no block is left for the epoch group"));
        }
        let every_group = setup.durability == Durability::EveryGroup;
        let mut slots = [None; SLOTS];
        slots[0] = Some(setup.active.base);
        let mut io_loop = IoLoop {
            clock,
            backend,
            direct,
            committing: None,
            pace: CommitPace::new(setup.depth, every_group),
            gather: Gather::new(every_group && setup.parks && setup.commit_delay.is_zero()),
            gathers: false,
            current: setup.active,
            slot: 0,
            slots,
            groups: Groups::new(),
            paddings: Padding::of_fresh(&state.ring),
            next: 0,
            next_release: 0,
            link: setup.link,
            submitted_end: state.durable.end(),
            outstanding: 0,
            syncing: None,
            syncing_since: 0,
            sync_ids: SYNC_TOKEN,
            sync_until: 0,
            interval_due: None,
            delay_due: None,
            idle_due: None,
            queued_from: None,
            marked: true,
            closed: false,
            filling_since: None,
            started: false,
            marks_close: false,
            full_at_close: false,
            closing: Closing::No,
            to_wake: None,
            granted: false,
            ready: Ready::default(),
            relay_due: None,
            state,
            setup,
        };
        io_loop.hold_epoch();
        Ok(io_loop)
    }

    /// Does everything that needs no wait.
    pub(crate) fn step(&mut self) -> Step {
        let mut progress = false;
        self.gathers = false;
        while let Some(completion) = self.backend().reap() {
            self.complete(completion);
            progress = true;
        }
        if self.has_failed() {
            return self.failing_step(progress);
        }
        progress |= self.advance();
        if !self.has_failed() {
            if self.committing.is_none() {
                self.heed_requests();
            }
            if !self.leaves_groups() {
                progress |= self.submit_groups();
            }
            progress |= self.submit_sync();
        }
        self.note_flights();
        progress |= match self.committing {
            None => self.wake_waiters(),
            Some(_) => self.wake_threads(),
        };
        let finished = self.closing == Closing::Finished;
        if finished
            && !self.has_failed()
            && let Some(mut file) = self.setup.end_file.take()
        {
            file.seal(&*self.state.view.dir);
        }
        let (wake_on, deadline) = self.sleep_until();
        let progress = progress || self.has_failed();
        Step { progress, finished, gathers: self.gathers, wake_on, deadline }
    }

    /// On the I/O thread: wakes threads and tasks, and calls listeners. Wakers and listeners are
    /// user code.
    fn wake_waiters(&mut self) -> bool {
        let mut progress = false;
        if std::mem::take(&mut self.granted) {
            self.submit_queued();
            self.state.ring.wake_tasks();
            progress = true;
        }
        if let Some((from, to)) = self.to_wake.take() {
            let has_waiters = self.state.durable.has_waiters(from, to);
            let has_listeners = self.state.durable.listeners.exist();
            if has_waiters || has_listeners {
                self.submit_queued();
                let begun = self.clock.now();
                if has_waiters {
                    self.state.durable.wake(from, to, &mut self.ready);
                }
                if has_listeners {
                    self.state.durable.listeners.report(to);
                }
                let taken = self.clock.now().saturating_sub(begun);
                self.state.recorders.wake_time.record(taken);
            }
            progress = true;
        }
        progress | self.heed_left_tasks()
    }

    /// Submits what is queued, so that the device works while this thread wakes waiters.
    fn submit_queued(&mut self) {
        if let Err(e) = self.backend().submit() {
            self.fail(&Failure::from_io("submitting", &e));
        }
    }

    /// Groups gather whenever there is company, without trials.
    #[cfg(test)]
    pub(crate) fn gather_always(&mut self) {
        self.gather.always();
    }

    /// Completions still to come.
    #[cfg(simulated)]
    pub(crate) fn in_flight(&self) -> usize {
        self.outstanding
    }

    /// Submits what is queued, and sleeps until a completion, a wake-up or the deadline.
    pub(crate) fn wait(&mut self, deadline: Option<u64>) {
        let timeout = deadline.map(|d| Duration::from_nanos(d.saturating_sub(self.clock.now())));
        if let Err(e) = self.backend().wait(timeout) {
            self.fail(&Failure::from_io("waiting for completions", &e));
            // Without completions, operations in flight never end for this process.
            self.state.ring.memory.leak();
            self.outstanding = 0;
        }
    }

    /// Whether this loop or another thread has failed the log. The word is kept in `durable/` only.
    fn has_failed(&self) -> bool {
        self.state.durable.is_poisoned()
    }

    fn fail(&mut self, failure: &Failure) {
        if !self.has_failed() {
            let failure = Failure {
                kind: failure.kind,
                op: failure.op,
                os_error: failure.os_error,
                detail: failure.detail.clone(),
            };
            match self.committing {
                None => self.state.fail(failure),
                // The I/O thread wakes the waiters: see `commit.rs`.
                Some(_) => self.state.latch(failure),
            }
        }
    }

    /// A step after a failure: only waits for operations in flight.
    fn failing_step(&mut self, progress: bool) -> Step {
        let finished = self.outstanding == 0;
        self.note_flights();
        if self.committing.is_none() {
            let durable = &self.state.durable;
            if let Some((_, end)) = self.to_wake.take() {
                // It became durable before the failure. The failure wakes every waiter.
                durable.listeners.report(end);
            }
            durable.end_listeners();
        }
        if finished {
            self.closing = Closing::Finished;
        }
        Step { progress, finished, gathers: false, wake_on: None, deadline: None }
    }

    /// Wakes tasks that were left to other tasks too long ago. True: user code has run, which may
    /// have taken any time.
    fn heed_left_tasks(&mut self) -> bool {
        if !self.state.durable.has_left_tasks() {
            self.relay_due = None;
            return false;
        }
        let now = self.clock.now();
        let due = now >= *self.relay_due.get_or_insert(now + RELAY);
        if due {
            self.relay_due = None;
            self.state.durable.pass_on();
        }
        due
    }

    fn heed_requests(&mut self) {
        if self.epoch_waits() {
            self.close_unwritten();
            return;
        }
        if self.closing == Closing::No && self.started && self.state.is_closing() {
            self.state.ring.stop();
            self.full_at_close = self.state.ring.is_out_of_space();
            self.state.ring.look_for_space_again();
            self.granted |= self.state.ring.seal(true);
            self.closing = Closing::Draining;
        }
        if self.closing == Closing::Draining
            && self.groups.is_empty()
            && self.state.ring.opened() == self.next
        {
            // A full disk does not matter while the segment has blocks left. The last block is for
            // the group that makes space.
            let keeps = self.full_at_close && self.state.ring.is_last_block();
            if self.closed || (keeps && self.state.ring.is_out_of_space()) {
                self.closing = Closing::Finished;
            } else if keeps {
                self.state.ring.want_segment();
                self.state.keeper.ring();
            } else if self.state.ring.take_private().is_some() {
                self.closing = Closing::Marked;
            } else if self.state.ring.is_out_of_space() {
                // Everything is durable, and the log ends without a mark.
                self.closing = Closing::Finished;
            } else {
                // No block is left for the mark: the segment keeper prepares a segment and rings.
                self.state.keeper.ring();
            }
        }
        if self.closing == Closing::Marked
            && self.groups.is_empty()
            && self.state.ring.opened() == self.next
        {
            self.closing = Closing::Finished;
        }
    }

    fn eager(&self) -> usize {
        let commit = &self.state.commit;
        match self.gather.is_on() {
            true => 1,
            false => self.pace.eager(commit.method(), commit.is_parallel()),
        }
    }

    fn sleep_until(&self) -> (Option<WakeOn>, Option<u64>) {
        let flying = self.groups.flying();
        let wake_on = if flying >= self.setup.depth && self.outstanding > 0 {
            None
        } else if flying >= self.eager() || self.filling_since.is_some() || self.delay_due.is_some()
        {
            // The next step needs a sealed extent or a time. A published record changes nothing.
            Some(WakeOn::Sealed)
        } else {
            Some(WakeOn::Any)
        };
        let slow = self.filling_since.filter(|&s| s != u64::MAX).map(|s| s + SLOW_RESERVATION + 1);
        let gather = self.gather.due().filter(|_| self.gathers);
        let due = [self.interval_due, self.delay_due, self.idle_due, slow, self.relay_due, gather];
        (wake_on, due.into_iter().flatten().min())
    }
}

impl Debug for IoLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IoLoop")
            .field("next", &self.next)
            .field("flying", &self.groups.flying())
            .field("closing", &self.closing)
            .field("failed", &self.has_failed())
            .finish_non_exhaustive()
    }
}
