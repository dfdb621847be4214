//! The segment keeper: prepares segments ahead of need and carries out retention. Stepped, like the
//! I/O loop; threads that all logs share step it (`workers.rs`).
//!
//! Invariants:
//! 1. Segments are removed oldest first, each followed by a directory sync, and only once a durable
//!    group header states an oldest LSN at or above their end.
//! 2. The segment with the newest durable group, and everything at or above a pin, stays.
//! 3. A segment is recycled only if it has one link and loses its name, durably, before it is
//!    written to.
//! 4. A limit is exceeded by one file only while a rotation would otherwise block.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::retention::{Policy, Retention};
use crate::engine::spares::SpareNeed;
use crate::engine::state::LogState;
use crate::engine::workers::{NextStep, SharedTask};
use crate::error::{Error, Failure, FailureKind};
use crate::format::SegmentHeader;
use crate::io::fs::{Access, AlignedBuf, Refused, is_no_space};
use crate::segment::{Haste, LockLost, Preparation, Spare, zeroes};
use crate::stats::in_flight::Place;
use crate::sys::clock::Clock;

/// When to step again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeeperStep {
    /// After this pause, whatever happens meanwhile.
    After(Duration),
    /// When the bell rings, or after this time.
    OnNudge(Option<Duration>),
    Finished,
}

/// Nanoseconds for which appends wait while a transient error keeps a segment from being prepared.
pub(crate) const PATIENCE: u64 = 1_000_000_000;
/// The pause before a failed preparation or removal is retried.
const RETRY: Duration = Duration::from_millis(100);
/// The longest pause between two pieces of a paced preparation.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct SegmentKeeper {
    state: Arc<LogState>,
    clock: Arc<dyn Clock>,
    retention: Retention,
    need: SpareNeed,
    preparation: Option<Preparation>,
    recycling: bool,
    /// When the preparation began, by the clock.
    begun: u64,
    zeroes: Option<AlignedBuf>,
    /// Temporary name of a removed segment that is to be recycled.
    pool: Option<String>,
    out_of_space: bool,
    /// Since when segments cannot be prepared or removed, by the clock.
    obstructed_since: Option<u64>,
}

impl SegmentKeeper {
    pub(crate) fn new(state: Arc<LogState>, clock: Arc<dyn Clock>, policy: Policy) -> Self {
        let need = SpareNeed::new(&policy, state.ring.capacity() as u64);
        let retention = Retention::new(policy, &*clock);
        SegmentKeeper {
            state,
            clock,
            retention,
            need,
            preparation: None,
            recycling: false,
            begun: 0,
            zeroes: None,
            pool: None,
            out_of_space: false,
            obstructed_since: None,
        }
    }

    /// Does a bounded piece of work.
    pub(crate) fn step(&mut self) -> KeeperStep {
        if self.state.durable.is_poisoned() {
            return self.finish();
        }
        self.need.look(&self.state, self.clock.now());
        if self.state.is_closing() {
            // The last groups may have made a statement of retention durable: carry it out.
            let ended = self.state.has_io_ended();
            if !ended && self.state.ring.waits_for_segment() {
                // The mark of a clean close needs a block of the next segment.
                return self.prepare().unwrap_or_else(|e| self.failed(&e));
            }
            return match self.retain() {
                Ok(()) if ended => self.finish(),
                Ok(()) => KeeperStep::OnNudge(None),
                Err(e) => {
                    let next = self.failed(&e);
                    if ended { self.finish() } else { next }
                }
            };
        }
        let stepped = self.retain().and_then(|()| self.prepare());
        stepped.unwrap_or_else(|e| self.failed(&e))
    }

    fn finish(&mut self) -> KeeperStep {
        self.clean_up();
        self.state.keeper.round_over();
        KeeperStep::Finished
    }

    fn failed(&mut self, e: &Refused) -> KeeperStep {
        self.preparation = None;
        if is_no_space(&e.source) && e.may_pass() {
            if !self.out_of_space {
                self.state.counters.no_space.add(1);
                tracing::warn!(error = %e, "no space for the next segment; it is retried");
            }
            self.out_of_space = true;
            self.state.obstacle.set(None);
            self.refuse();
        } else if e.may_pass() {
            self.obstructed(e);
        } else if LockLost::is_in(&e.source) {
            let failure = Failure::from_io("holding the lock", &e.source);
            self.state.fail(Failure { kind: FailureKind::LockLost, ..failure });
        } else {
            let op = "preparing or removing a segment";
            let failure = Failure { detail: e.to_string(), ..Failure::from_io(op, &e.source) };
            self.state.fail(failure);
        }
        KeeperStep::OnNudge(Some(RETRY))
    }

    /// Handles a transient error: the keeper retries. Callers that wait for the segment fail after
    /// [`PATIENCE`].
    fn obstructed(&mut self, e: &Refused) {
        let now = self.clock.now();
        let since = *self.obstructed_since.get_or_insert_with(|| {
            self.state.counters.obstructions.add(1);
            tracing::warn!(error = %e, "cannot prepare or remove a segment now; it is retried");
            now
        });
        // An I/O error cannot be cloned: this one is built from its number.
        let (number, kind) = (e.source.raw_os_error(), e.source.kind());
        let source = number.map_or(kind.into(), std::io::Error::from_raw_os_error);
        let obstacle = Error::Obstructed { path: e.path.clone(), source: Arc::new(source) };
        self.state.obstacle.set(Some(obstacle));
        if now.saturating_sub(since) >= PATIENCE {
            self.refuse();
        }
    }

    /// Notes that the obstacle is gone, or that no call waits for a segment.
    fn unobstructed(&mut self) {
        if self.obstructed_since.take().is_some() {
            self.state.obstacle.clear();
            tracing::info!("segments can be prepared and removed again");
        }
    }

    /// Fails every call that waits for the next segment, until there is one.
    fn refuse(&self) {
        self.state.ring.set_no_space();
        self.state.cut.wake_waiter();
        self.state.keeper.round_over();
        self.state.ring.doorbell.ring();
    }

    fn clean_up(&mut self) {
        // A file that stays does no harm: opening removes it.
        if let Some(p) = self.preparation.take() {
            let _ = self.state.view.dir.remove(&self.state.view.names.temporary(p.base()));
        }
        if let Some(name) = self.pool.take() {
            let _ = self.state.view.dir.remove(&name);
        }
    }

    /// Removes the segments that retention and the durable statements allow to be removed.
    fn retain(&mut self) -> Result<(), Refused> {
        // Read before the target is computed: a later call is for the next round.
        let asked = self.state.retention.calls();
        if self.state.hook.is_set() {
            self.state.hook.ring();
        }
        let target = self.retention.target(&self.state, &*self.clock, self.need.wanted());
        self.state.want_retired(target);
        // Created for the first removal only, because this runs often.
        let mut span = None;
        let state = Arc::clone(&self.state);
        let take = || {
            let most = state.retention.durable().min(target);
            state.take_unheld(|held| state.view.table.take_oldest(most.min(held)))
        };
        while let Some(header) = take() {
            let span = span.get_or_insert_with(|| tracing::debug_span!("retention", target));
            let _entered = span.enter();
            if let Err(e) = self.remove(&header) {
                self.state.view.table.put_back(header);
                return Err(e);
            }
        }
        if span.is_some() {
            state.store_released_floors();
        }
        state.view.cuts.forget_below(state.view.table.oldest());
        // A consumer or a floor added since holds its segments, and the call does not wait for it.
        let held = self.state.held_from();
        if self.state.view.table.oldest() >= target || held.is_some_and(|held| held < target) {
            self.state.retention.set_calls_done(asked);
            self.state.keeper.round_over();
        }
        Ok(())
    }

    fn remove(&mut self, header: &SegmentHeader) -> Result<(), Refused> {
        let state = &self.state;
        let name = state.view.names.segment(header.base);
        let (_, spares) = state.view.table.counts();
        let same = header.size == self.retention.policy().segment_size
            && self.pool.is_none()
            && spares < self.need.wanted().max(1);
        let single = same
            && state
                .view
                .dir
                .open(&name, Access::Read)
                .and_then(|f| f.links())
                .is_ok_and(|n| n == 1);
        if single {
            let temporary = state.view.names.temporary(header.base);
            // An earlier attempt may have left a file of this name.
            let _ = state.view.dir.remove(&temporary);
            let renamed = state.view.dir.rename(&name, &temporary);
            renamed.map_err(|e| Refused::new("rename", state.view.dir.path_of(&name), e))?;
            self.pool = Some(temporary);
        } else {
            match state.view.dir.remove(&name) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Refused::new("remove", state.view.dir.path_of(&name), e));
                }
                _ => {}
            }
        }
        state.counters.segments_removed.add(1);
        tracing::debug!(segment = %name, recycled = single, "segment removed by retention");
        // The removal of the name may not be durable: no error of this sync may be retried.
        let synced = state.view.dir.sync();
        synced.map_err(|e| Refused::names_not_synced(state.view.dir.path_of(""), e))
    }

    /// Prepares the next segment, a piece at a time.
    fn prepare(&mut self) -> Result<KeeperStep, Refused> {
        let (live, spares) = self.state.view.table.counts();
        // True with a spare too, if the spare has only the block that is held for the epoch group.
        let waits = self.state.ring.waits_for_segment();
        if self.preparation.is_none() {
            // A segment to be recycled is no file of the log until it is one again.
            let wanted = self.need.wanted().max(usize::from(self.pool.is_some()));
            if spares >= wanted && !waits {
                self.zeroes = None;
                self.unobstructed();
                if !self.state.keeper.wake_at(self.need.next_look()) {
                    return Ok(KeeperStep::After(Duration::ZERO));
                }
                return Ok(KeeperStep::OnNudge(self.retention.next_look()));
            }
            if self.is_over_limit(live) && !self.only_more_space_helps() {
                // Retention makes space first. A pinned or unsynced segment may delay it.
                let look_again = (spares == 0 || waits).then_some(Duration::from_millis(1));
                return Ok(KeeperStep::OnNudge(look_again.or(self.retention.next_look())));
            }
            self.begin_preparation();
        }
        let haste = self.need.haste(spares, waits);
        let size = self.retention.policy().segment_size;
        let zeroes = self.zeroes.get_or_insert_with(|| zeroes(size));
        let Some(preparation) = &mut self.preparation else { return Ok(KeeperStep::OnNudge(None)) };
        match preparation.step(&*self.state.view.dir, &self.state.view.names, zeroes, haste)? {
            None if haste == Haste::Paced => {
                let pause = preparation.pause(self.need.pace(spares)).min(LONGEST_PAUSE);
                Ok(KeeperStep::OnNudge(Some(pause)))
            }
            None => Ok(KeeperStep::After(Duration::ZERO)),
            Some(spare) => {
                let hurried = preparation.was_hurried();
                self.add_spare(spare, hurried);
                Ok(KeeperStep::After(Duration::ZERO))
            }
        }
    }

    /// Whether the log has more segments than it may, or one more file would exceed its bytes.
    fn is_over_limit(&self, live: usize) -> bool {
        let policy = self.retention.policy();
        let (_, bytes) = self.state.view.table.extent();
        policy.max_segments.is_some_and(|n| live > n)
            || policy.max_total_bytes.is_some_and(|n| bytes + policy.segment_size > n)
    }

    fn begin_preparation(&mut self) {
        let (end, _) = self.state.view.table.extent();
        let header = self.retention.policy().header(end, self.clock.wall());
        let recycle = self.pool.take();
        self.recycling = recycle.is_some();
        self.begun = self.clock.now();
        self.preparation = Some(Preparation::new(&self.state.view.names, header, recycle));
    }

    /// Hands a prepared segment to the log.
    fn add_spare(&mut self, spare: Spare, hurried: bool) {
        let counters = &self.state.counters;
        if self.recycling {
            counters.segments_recycled.add(1);
        } else {
            counters.segments_prepared.add(1);
            counters.segments_hurried.add(u64::from(hurried));
        }
        self.preparation = None;
        let taken = self.clock.now().saturating_sub(self.begun);
        self.state.recorders.prepare_time.record(taken);
        let took_ms = taken / 1_000_000;
        tracing::debug!(base = spare.header.base, self.recycling, took_ms, "segment prepared");
        if std::mem::take(&mut self.out_of_space) {
            tracing::info!("there is space for segments again");
        }
        let end = spare.header.end();
        self.state.view.table.add_spare(spare);
        self.state.ring.prepared(end);
        // Last: as long as the ring lacks a segment, a call that it refuses finds the cause.
        self.unobstructed();
        self.state.ring.doorbell.ring();
    }

    /// Whether the log waits for a segment and everything in it is durable, so that retention
    /// cannot make space. Requests the missing sync otherwise.
    fn only_more_space_helps(&self) -> bool {
        if !self.state.ring.waits_for_segment() {
            return false;
        }
        let end = self.state.ring.reserved_end();
        if self.state.durable.end() >= end {
            return true;
        }
        if self.state.durable.demand(end) {
            self.state.ring.doorbell.ring();
        }
        false
    }
}

/// The segment keeper as the task of a pool. A panic in it poisons the log.
pub(crate) struct KeeperTask {
    keeper: SegmentKeeper,
    steps: u64,
}

impl KeeperTask {
    pub(crate) fn new(keeper: SegmentKeeper) -> Self {
        KeeperTask { keeper, steps: 0 }
    }
}

impl SharedTask for KeeperTask {
    fn step(&mut self) -> NextStep {
        self.steps += 1;
        let state = Arc::clone(&self.keeper.state);
        state.in_flight.set(Place::Segment, self.steps);
        let next = self.keeper.step();
        state.in_flight.set(Place::Segment, 0);
        match next {
            KeeperStep::Finished => NextStep::Over,
            KeeperStep::After(pause) if pause.is_zero() => NextStep::Now,
            KeeperStep::After(pause) => NextStep::After(pause),
            KeeperStep::OnNudge(timeout) => NextStep::OnBell(timeout),
        }
    }

    fn panicked(&mut self) {
        let state = &self.keeper.state;
        state.in_flight.set(Place::Segment, 0);
        state.fail(Failure::new("the segment keeper", "it panicked"));
    }
}
