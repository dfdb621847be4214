//! How many segments the log needs prepared, and how fast.
//!
//! 1. A log that has come less than one part in [`EARLY`] into its segment needs none. One that
//!    would take longer than [`SECOND`] to fill the rest needs none before one part in [`LATE`]:
//!    preparing competes with commits for the device. Most logs stay that small.
//! 2. Beyond that, a log that fills segments quickly needs as many as [`Policy::spares`] allows.
//! 3. A log whose ring holds more than half of a segment needs one at all times: its producers may
//!    be in the next segment before the first group of this one is written.

use crate::engine::retention::Policy;
use crate::engine::state::LogState;
use crate::segment::Haste;

/// The part of a segment, one in so many, after which a fast log needs the next one. The log's
/// speed is not known before that.
const EARLY: u64 = 16;
/// The same for a log that is not so fast.
const LATE: u64 = 4;
/// A log that fills a segment in fewer nanoseconds is busy.
const BUSY: u64 = 10_000_000_000;
/// Nanoseconds in which a preparation is assumed to end. If it takes longer, the log hurries it.
const SECOND: u64 = 1_000_000_000;
/// Nanoseconds after which a segment is assumed to be full while nothing is known of its log.
const FIRST_GUESS: u64 = 1_000_000_000;
/// A segment that is full within so many nanoseconds leaves no time for pauses.
const SOON: u64 = 250_000_000;
/// Nanoseconds, after the log waited for a segment, for which segments are allocated and not
/// written. Writing them in advance would compete with the log for the device.
const HURRY: u64 = 1_000_000_000;

/// Where the log is: how far its groups reach, the base of the newest segment that holds groups,
/// and the time of the monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Progress {
    end: u64,
    newest: u64,
    now: u64,
}

#[derive(Debug)]
pub(crate) struct SpareNeed {
    segment_size: u64,
    /// The most that is ever needed.
    most: usize,
    /// Invariant 3 does not apply.
    is_roomy: bool,
    last: Progress,
    /// The log when the newest segment became the newest. `None` before the first look.
    begun: Option<Progress>,
    /// Nanoseconds for which the segment before was the newest.
    lasted: Option<u64>,
    /// Until when segments are allocated and not written, by the clock.
    hurry_until: u64,
}

impl SpareNeed {
    /// `ring`: bytes that producers may be ahead of the groups.
    pub(crate) fn new(policy: &Policy, ring: u64) -> Self {
        SpareNeed {
            segment_size: policy.segment_size,
            most: policy.spares(),
            is_roomy: ring <= policy.segment_size / 2,
            last: Progress { end: 0, newest: 0, now: 0 },
            begun: None,
            lasted: None,
            hurry_until: 0,
        }
    }

    /// Looks where the log is. `now`: nanoseconds of the monotonic clock.
    pub(crate) fn look(&mut self, state: &LogState, now: u64) {
        self.note(Progress { end: state.keeper.reached(), newest: state.view.table.newest(), now });
    }

    fn note(&mut self, progress: Progress) {
        match self.begun {
            Some(begun) if begun.newest == progress.newest => {}
            before => {
                if let Some(begun) = before {
                    self.lasted = Some(progress.now.saturating_sub(begun.now));
                    let base = progress.newest;
                    tracing::debug!(base, "the log has gone on to the next segment");
                }
                self.begun = Some(progress);
            }
        }
        self.last = progress;
    }

    /// How many spares the log needs, as of the last look.
    pub(crate) fn wanted(&self) -> usize {
        let is_due = self.filled() >= self.segment_size / LATE
            || self.filled() >= self.segment_size / EARLY && self.time_left().0 < SECOND;
        // After a segment that was filled quickly the next one is as well.
        let was_fast = self.lasted.is_some_and(|lasted| lasted < SECOND);
        if self.is_busy() && (is_due || was_fast) {
            self.most
        } else {
            usize::from(!self.is_roomy || is_due)
        }
    }

    /// The position at which the answer may change. `None`: at the next segment.
    pub(crate) fn next_look(&self) -> Option<u64> {
        let marks = [EARLY, LATE, 2].map(|part| self.segment_size / part);
        let next = marks.into_iter().find(|&mark| self.filled() < mark)?;
        Some(self.last.newest + next)
    }

    /// How fast to prepare the next segment. `waits`: the log waits for it.
    pub(crate) fn haste(&mut self, spares: usize, waits: bool) -> Haste {
        let (filled, now) = (self.filled(), self.last.now);
        let soon = spares == 0 && self.is_roomy && filled > self.segment_size / 4 * 3;
        if waits || soon {
            self.hurry_until = now + HURRY;
        }
        if now < self.hurry_until {
            Haste::Hurry
        } else if spares == 0 && (!self.is_roomy || self.is_late() || self.time_left().0 < SOON) {
            Haste::Full
        } else {
            Haste::Paced
        }
    }

    /// Nanoseconds in which a paced preparation is to end, of the time after which the log will
    /// need the segment. With every step less is left, so it ends when about six tenths of that
    /// time are over, and earlier if the log becomes faster.
    pub(crate) fn pace(&self, spares: usize) -> u64 {
        let (left, whole) = self.time_left();
        left.saturating_add(whole.saturating_mul(spares as u64)) / 10 * 9
    }

    /// Nanoseconds until the newest segment is full, and those that a whole segment lasts: at the
    /// speed of the log in this segment, or in the one before.
    fn time_left(&self) -> (u64, u64) {
        let Some(begun) = self.begun else { return (FIRST_GUESS, FIRST_GUESS) };
        let here = self.last.now.saturating_sub(begun.now);
        let written = self.last.end.saturating_sub(begun.end.max(begun.newest));
        let guess = self.lasted.unwrap_or(FIRST_GUESS);
        if written < self.segment_size / EARLY && here < guess {
            return (guess - here, guess);
        }
        let lasts = |bytes: u64| {
            let time = u128::from(here) * u128::from(bytes) / u128::from(written.max(1));
            u64::try_from(time).unwrap_or(u64::MAX)
        };
        (lasts(self.segment_size.saturating_sub(self.filled())), lasts(self.segment_size))
    }

    /// Whether a slow log is past half of its segment without a spare: it has a burst.
    fn is_late(&self) -> bool {
        !self.is_busy() && self.filled() >= self.segment_size / 2
    }

    /// Bytes of the newest segment that groups fill.
    fn filled(&self) -> u64 {
        self.last.end.saturating_sub(self.last.newest)
    }

    /// Whether the log filled the segment before, or is filling this one, in less than [`BUSY`].
    fn is_busy(&self) -> bool {
        let Some(begun) = self.begun else { return false };
        let here = self.last.now.saturating_sub(begun.now);
        if here >= BUSY {
            // Slow in this segment so far, whatever it did in the last.
            return false;
        }
        let written = self.last.end.saturating_sub(begun.end.max(begun.newest));
        let whole = u128::from(here) * u128::from(self.segment_size);
        let fast =
            written >= self.segment_size / EARLY && whole < u128::from(BUSY) * u128::from(written);
        fast || self.lasted.is_some_and(|lasted| lasted < BUSY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 64 << 20;

    fn need(ring: u64) -> SpareNeed {
        let policy = Policy {
            log_id: [0; 16],
            segment_size: SIZE,
            block: 4096,
            max_group: 1 << 20,
            app_version: 0,
            max_segments: None,
            max_total_bytes: None,
            max_age: None,
        };
        SpareNeed::new(&policy, ring)
    }

    fn at(need: &mut SpareNeed, end: u64, now: u64) -> usize {
        let newest = end / SIZE * SIZE;
        need.note(Progress { end, newest, now });
        need.wanted()
    }

    #[test]
    fn small_log_needs_no_spare_and_asks_again_at_a_sixteenth_and_at_a_quarter() {
        let mut need = need(8 << 20);
        assert_eq!(at(&mut need, 4096, 0), 0);
        assert_eq!(at(&mut need, SIZE / 16 - 1, 3600 * SECOND), 0);
        assert_eq!(need.next_look(), Some(SIZE / 16));
        assert_eq!(at(&mut need, SIZE / 16, 3600 * SECOND), 0);
        assert_eq!(need.next_look(), Some(SIZE / 4));
        assert_eq!(at(&mut need, SIZE / 4, 7200 * SECOND), 1);
        assert_eq!(need.haste(0, false), Haste::Paced);
    }

    #[test]
    fn log_at_the_speed_of_the_device_needs_all_spares_from_a_sixteenth_on() {
        let mut need = need(8 << 20);
        assert_eq!(at(&mut need, 0, SECOND), 0);
        assert_eq!(at(&mut need, SIZE / 16, SECOND + SECOND / 100), 2);
        assert_eq!(need.haste(0, false), Haste::Full);
        assert_eq!(need.haste(1, false), Haste::Paced);
        assert_eq!(at(&mut need, SIZE / 2, SECOND + SECOND / 20), 2);
        // The next segment begins as the last one ended.
        assert_eq!(at(&mut need, SIZE + 4096, SECOND + SECOND / 10), 2);
        assert_eq!(at(&mut need, SIZE + 4096, 20 * SECOND), 0, "it has become slow");
    }

    #[test]
    fn lone_committer_shares_the_device_with_a_paced_preparation() {
        // 28 MB/s: the segment is full after 2.4 s, of which a sixteenth is gone.
        let mut need = need(8 << 20);
        at(&mut need, 0, SECOND);
        assert_eq!(at(&mut need, SIZE / 16, SECOND + 150_000_000), 0);
        assert_eq!(at(&mut need, SIZE / 4, SECOND + 600_000_000), 2);
        assert_eq!(need.haste(0, false), Haste::Paced);
        assert_eq!(need.pace(0), 600_000_000 * 3 / 10 * 9);
        assert_eq!(need.pace(1), 600_000_000 * (3 + 4) / 10 * 9);
        at(&mut need, SIZE / 2, SECOND + 1_200_000_000);
        assert_eq!(need.haste(0, false), Haste::Paced);
        assert_eq!(need.pace(0), 1_200_000_000 / 10 * 9);
        at(&mut need, SIZE / 4 * 3 + 4096, SECOND + 1_800_000_000);
        assert_eq!(need.haste(0, false), Haste::Hurry, "it is late");
    }

    #[test]
    fn burst_of_a_slow_log_gets_its_segment_before_it_waits() {
        let mut need = need(8 << 20);
        at(&mut need, 0, 0);
        assert_eq!(at(&mut need, SIZE / 8 * 3, 1000 * SECOND), 1);
        assert_eq!(need.haste(0, false), Haste::Paced);
        at(&mut need, SIZE / 2, 1001 * SECOND);
        assert_eq!(need.haste(0, false), Haste::Full);
        at(&mut need, SIZE / 8 * 7, 1001 * SECOND);
        assert_eq!(need.haste(0, false), Haste::Hurry);
        assert_eq!(need.haste(1, false), Haste::Hurry, "also the next ones, for a while");
    }

    #[test]
    fn ring_larger_than_half_a_segment_needs_a_spare_at_once() {
        let mut need = need(SIZE);
        assert_eq!(at(&mut need, 0, 0), 1);
        assert_eq!(need.haste(0, false), Haste::Full);
    }
}
