//! Which segments retention removes: by number, size and age, and on request.
//!
//! 1. The limits of number and size never remove the newest segment that holds records, nor one
//!    after it. So the marks that the log writes for itself cost no record. The limit of number
//!    counts segments with groups, and the limit of size counts spares too.
//! 2. The monotonic clock gives the age of a segment that was left in this run.
//! 3. For a segment that was left in an earlier run, the age at opening is the lowest reading of
//!    the wall clock in this run minus the stamp. The monotonic clock adds the time since. A
//!    forward step of the wall clock makes no segment older, and a backward step makes none younger
//!    than it was at opening.
//! 4. Segments that only their stamps make old are removed after [`PATIENCE`], a quarter of them at
//!    a time. So there is time to correct a wall clock that is wrong at opening.

use std::time::Duration;

use crate::engine::state::LogState;
use crate::format::SegmentHeader;
use crate::segment::SealTime;
use crate::sys::clock::Clock;

/// The form of new segments, and the limits of retention.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) log_id: [u8; 16],
    pub(crate) segment_size: u64,
    pub(crate) block: u32,
    pub(crate) max_group: u32,
    pub(crate) app_version: u32,
    pub(crate) max_segments: Option<usize>,
    pub(crate) max_total_bytes: Option<u64>,
    pub(crate) max_age: Option<Duration>,
}

impl Policy {
    /// Segments to keep prepared at most: two, so that one is ready while the next is prepared, or
    /// one where the limits allow fewer than four segments.
    pub(crate) fn spares(&self) -> usize {
        let tight = self.max_segments.is_some_and(|n| n < 4)
            || self.max_total_bytes.is_some_and(|n| n / self.segment_size < 4);
        if tight { 1 } else { 2 }
    }

    /// The header of a new segment. `now` is the wall clock.
    pub(crate) fn header(&self, base: u64, now: u64) -> SegmentHeader {
        SegmentHeader {
            log_id: self.log_id,
            block: self.block,
            size: self.segment_size,
            base,
            max_group: self.max_group,
            created_at: now,
            app_version: self.app_version,
        }
    }

    /// Whether the groups of this run can be written into such a segment.
    pub(crate) fn fits(&self, header: &SegmentHeader) -> bool {
        header.block == self.block && header.max_group >= self.max_group
    }

    /// The age from which on segments are removed, in nanoseconds.
    fn age(&self) -> Option<u64> {
        self.max_age.map(|age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Nanoseconds from opening until the first quarter of the segments that only their stamps make old
/// is removed, and between two quarters. Less if `max_age` is less.
const PATIENCE: u64 = 10_000_000_000;
/// Nanoseconds by which the wall clock may move against the monotonic clock between two looks. More
/// is reported as a step.
const STEP: i128 = 1_000_000_000;

#[derive(Debug)]
pub(crate) struct Retention {
    policy: Policy,
    /// When the log was opened, by the monotonic clock.
    opened: u64,
    /// Nanoseconds by which the wall clock was ahead of the monotonic clock: the lowest in this
    /// run.
    lowest: i128,
    /// The same, at the last look.
    last: i128,
    /// Segments up to this LSN may be removed although only their stamps make them old.
    stamped_end: u64,
    /// The round that set `stamped_end`: times of [`PATIENCE`] since the log was opened.
    round: u64,
}

impl Retention {
    pub(crate) fn new(policy: Policy, clock: &dyn Clock) -> Self {
        let opened = clock.now();
        let ahead = i128::from(clock.wall()) - i128::from(opened);
        Retention { policy, opened, lowest: ahead, last: ahead, stamped_end: 0, round: 0 }
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The LSN below which segments are to be removed. `wanted`: spares that the log needs.
    pub(crate) fn target(&mut self, state: &LogState, clock: &dyn Clock, wanted: usize) -> u64 {
        let table = &state.view.table;
        let newest = state.durable.end().saturating_sub(1);
        let newest = match table.find(newest) {
            Ok(header) => header.base,
            Err(_) => return 0,
        };
        let limit = table.oldest_pin().map_or(newest, |pin| pin.min(newest));
        let limit = limit.min(state.hook.released());
        let limit = state.held_from().map_or(limit, |position| position.min(limit));
        self.look_at_the_clock(state, clock);
        let now = clock.now();
        self.begin_round(state, now);
        let (mut left, spares) = table.counts();
        let missing = wanted.saturating_sub(spares);
        let (_, bytes) = table.extent();
        let mut bytes = bytes + missing as u64 * self.policy.segment_size;
        let asked = state.retention.truncate_to().max(state.retention.durable());
        let with_records = match state.retention.newest_record() {
            0 => u64::MAX,
            lsn => lsn,
        };
        let mut target = 0;
        table.closed_from(0, |header, when| {
            let too_many = self.policy.max_segments.is_some_and(|n| left > n);
            let too_large = self.policy.max_total_bytes.is_some_and(|n| bytes > n);
            let over = (too_many || too_large) && header.end() <= with_records;
            let goes = over || header.end() <= asked || self.is_old(header, when, now);
            if !goes || header.end() > limit {
                return false;
            }
            left -= 1;
            bytes -= header.size;
            target = header.end();
            true
        });
        target
    }

    /// Whether retention by age removes the segment. `when` is when the log left it.
    fn is_old(&self, header: &SegmentHeader, when: Option<SealTime>, now: u64) -> bool {
        let Some(oldest) = self.policy.age() else { return false };
        match when {
            None => false,
            Some(SealTime::ThisRun(at)) => now.saturating_sub(at) > oldest,
            Some(SealTime::EarlierRun(stamp)) => {
                let then = i128::from(self.opened) + self.lowest;
                let before = stamp.map_or(0, |stamp| then.saturating_sub(i128::from(stamp)).max(0));
                let here = now.saturating_sub(self.opened);
                let age = before.saturating_add(i128::from(here));
                let alone = here <= oldest;
                age > i128::from(oldest) && (!alone || header.end() <= self.stamped_end)
            }
        }
    }

    /// Reads both clocks and reports a step of the wall clock.
    fn look_at_the_clock(&mut self, state: &LogState, clock: &dyn Clock) {
        let ahead = i128::from(clock.wall()) - i128::from(clock.now());
        let step = ahead - self.last;
        if step.abs() > STEP {
            state.counters.clock_steps.add(1);
            let seconds = step / 1_000_000_000;
            tracing::warn!(
                seconds,
                "the wall clock was set; segments are not older or younger for it"
            );
        }
        self.last = ahead;
        self.lowest = self.lowest.min(ahead);
    }

    /// After each [`PATIENCE`] releases another quarter of the segments that have stamps only.
    fn begin_round(&mut self, state: &LogState, now: u64) {
        let Some(age) = self.policy.age() else { return };
        let round = (now - self.opened) / PATIENCE.min(age).max(1);
        if round <= self.round {
            return;
        }
        self.round = round;
        let mut ends = Vec::new();
        state.view.table.closed_from(0, |header, when| {
            let stamped = matches!(when, Some(SealTime::EarlierRun(_)));
            if stamped {
                ends.push(header.end());
            }
            stamped
        });
        if !ends.is_empty() {
            self.stamped_end = ends[ends.len().div_ceil(4) - 1];
        }
    }

    /// The pause between two checks of retention by age: a tenth of the age, at most a minute.
    pub(crate) fn next_look(&self) -> Option<Duration> {
        let every = self.policy.max_age? / 10;
        Some(every.clamp(Duration::from_millis(10), Duration::from_secs(60)))
    }
}

/// When the log left each segment but the last, by the wall clock, from the stamps of the groups.
///
/// `begun` has the stamp of each segment's first group; the last one is of the active segment.
/// `last` is the stamp of the last group, and `now` is the wall clock.
///
/// A stamp ahead of `now` is ignored. A segment was left no earlier than the one before it, so a
/// clock that was set back makes no segment older. Where a time is unknown, the next known time is
/// an upper bound and stands for it.
pub(crate) fn times_left(begun: &[Option<u64>], last: Option<u64>, now: u64) -> Vec<Option<u64>> {
    let known = |time: Option<u64>| time.filter(|&time| time <= now);
    let mut latest = begun.first().copied().and_then(known);
    let mut left: Vec<_> = begun.iter().skip(1).map(|&time| known(time)).collect();
    for time in left.iter_mut().flatten() {
        *time = latest.map_or(*time, |latest| latest.max(*time));
        latest = Some(*time);
    }
    let mut next = known(last).filter(|&time| latest.is_none_or(|latest| latest <= time));
    for time in left.iter_mut().rev() {
        *time = time.or(next);
        next = *time;
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_left_of_a_stamp_in_the_future_is_the_next_known_time() {
        let begun = [Some(10), Some(900), Some(30), Some(40)];
        assert_eq!(times_left(&begun, Some(50), 100), [Some(30), Some(30), Some(40)]);
        assert_eq!(times_left(&[Some(10), Some(900)], Some(50), 100), [Some(50)]);
        assert_eq!(times_left(&[Some(10), Some(900)], Some(800), 100), [None]);
    }

    #[test]
    fn times_left_after_the_clock_was_set_back_makes_no_segment_older() {
        assert_eq!(times_left(&[Some(50), Some(60), Some(1)], Some(70), 100), [Some(60), Some(60)]);
        assert_eq!(times_left(&[Some(50), Some(1)], Some(1), 100), [Some(50)]);
        assert_eq!(times_left(&[Some(50), Some(900)], Some(1), 100), [None]);
    }
}
