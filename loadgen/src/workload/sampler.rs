//! Latency of pipelined records, by samples. Timing each of thirty million records per second would
//! measure the clock.
//!
//! 1. Each producer of a closed loop times about one record per 100 us. It chooses records by count
//!    with jitter. So the choice prefers neither fast nor slow records, and has no common period
//!    with the groups.
//! 2. In an open loop, a producer times one of every N arrivals, at any append speed. Records that
//!    a stall delayed are appended faster than others, and must have the same weight.
//! 3. A sample of a closed loop carries the time since the previous sample. The correction derives
//!    from it the latencies of records that a stalled producer did not send.
//! 4. One thread waits for the samples in turn. It never blocks a producer: if its queue is full,
//!    the sample is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use ringwal::Durability;

use super::{Mode, Tally};
use crate::engine::{Engine, Position};
use crate::error::Error;
use crate::measure::latency::{Intervals, Latencies};
use crate::random::SplitMix;

/// The definition of a latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Each record, from before its append until its producer knows that it is durable.
    Each,
    /// Samples, from before the append until the durable record wakes the waiting thread.
    Sampled,
    /// Samples, from before the append until the durable end is beyond the record. The thread polls
    /// every 200 us: a wait would cause a sync that the durability mode does not.
    Polled,
    /// Samples, from the scheduled arrival until the durable record wakes the waiting thread.
    Arrival,
    /// Samples, from the scheduled arrival until the durable end is beyond the record, polled every
    /// 200 us.
    ArrivalPolled,
    /// Each record, from the scheduled arrival until its task knows that it is durable.
    ArrivalEach,
    /// Samples, of the append alone.
    Append,
}

impl Meaning {
    /// Returns the definition that fits a workload.
    #[must_use]
    pub fn of(mode: Mode, durability: Durability) -> Meaning {
        match (mode, durability) {
            (Mode::Blocking, _) => Meaning::Each,
            (Mode::Open(_), Durability::Interval(_)) => Meaning::ArrivalPolled,
            (Mode::Open(_), _) => Meaning::Arrival,
            (Mode::Pipelined, Durability::EveryGroup) => Meaning::Sampled,
            (Mode::Pipelined, Durability::Interval(_)) => Meaning::Polled,
            (Mode::Pipelined, Durability::Manual) => Meaning::Append,
        }
    }

    /// Returns a description for the report.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Meaning::Each => "append to durable, every record, closed loop",
            Meaning::Sampled => {
                "append to durable, as a waiting thread sees it; sampled, closed loop"
            }
            Meaning::Arrival => {
                "arrival to durable, as a waiting thread sees it; sampled, open loop"
            }
            Meaning::ArrivalPolled => "arrival to durable, seen within 200 us; sampled, open loop",
            Meaning::ArrivalEach => "arrival to durable, every record, open loop",
            Meaning::Polled => "append to durable, seen within 200 us; sampled, closed loop",
            Meaning::Append => "the append alone, not durable; sampled, closed loop",
        }
    }

    /// Returns the identifier in the JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Meaning::Each => "append_to_durable",
            Meaning::Sampled => "append_to_durable_sampled",
            Meaning::Polled => "append_to_durable_sampled_polled",
            Meaning::Arrival => "arrival_to_durable_sampled",
            Meaning::ArrivalPolled => "arrival_to_durable_sampled_polled",
            Meaning::ArrivalEach => "arrival_to_durable",
            Meaning::Append => "append_sampled",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    begun: Instant,
    at: Option<Position>,
    /// Time since the previous sample of this producer, and the records between the two.
    since: Duration,
    gap: u32,
}

/// The time before a late sample, during which its producer may have been stalled. The number of
/// records that it delayed is known at the end of the run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    latency: Duration,
    since: Duration,
    gap: u32,
}

/// Shorter holds affect only a few samples and are ignored.
const LONG: Duration = Duration::from_millis(1);
const MOST_HOLDS: usize = 1 << 18;

/// Records the hold if it is long enough.
fn note(holds: &mut Vec<Hold>, latency: Duration, since: Duration, gap: u32) {
    if since >= LONG && holds.len() < MOST_HOLDS {
        holds.push(Hold { latency, since, gap });
    }
}

/// Adds to the measured latencies those of the records that a stalled producer did not send.
/// `every` is the mean time from record to record of a producer.
pub(super) fn correct(measured: &Latencies, holds: &[Hold], every: Duration) -> Latencies {
    let mut corrected = measured.clone();
    for hold in holds {
        let usual = every.saturating_mul(hold.gap);
        corrected.missed(hold.latency, hold.since.saturating_sub(usual), usual);
    }
    corrected
}

const QUEUE: usize = 1024;
/// Samples queued during a stall: arrivals go on, and sampling continues.
const OPEN_QUEUE: usize = 1 << 16;
/// Samples of an open loop per second, over all producers.
pub const OPEN_SAMPLES: f64 = 20_000.0;
const POLL: Duration = Duration::from_micros(200);
const PERIOD: Duration = Duration::from_micros(100);
const MAX_STRIDE: u32 = 1 << 16;

type Waiter<'scope> = ScopedJoinHandle<'scope, Result<(Latencies, Vec<Hold>), Error>>;

/// Starts the thread that waits for samples, and returns its sender, if the meaning needs one. The
/// thread ends with the log, or when all senders are dropped and `over` is set.
#[allow(clippy::type_complexity, reason = "two options that belong together")]
pub(super) fn start<'scope, 'env, E: Engine + ?Sized>(
    scope: &'scope Scope<'scope, 'env>,
    engine: &'scope E,
    meaning: Meaning,
    intervals: Option<&'scope Intervals>,
    over: &'scope AtomicBool,
) -> Result<(Option<Waiter<'scope>>, Option<SyncSender<Sample>>), Error> {
    let polled = match meaning {
        Meaning::Each | Meaning::ArrivalEach | Meaning::Append => return Ok((None, None)),
        Meaning::Sampled | Meaning::Arrival => false,
        Meaning::Polled | Meaning::ArrivalPolled => true,
    };
    let (sender, receiver) = sync_channel(match meaning {
        Meaning::Arrival | Meaning::ArrivalPolled => OPEN_QUEUE,
        _ => QUEUE,
    });
    let body = move || Ok(wait_for(engine, &receiver, polled, intervals, over));
    let spawned = Builder::new().name("latency".into()).spawn_scoped(scope, body);
    let waiter = spawned.map_err(|source| Error::System { what: "start a thread", source })?;
    Ok((Some(waiter), Some(sender)))
}

fn wait_for<E: Engine + ?Sized>(
    engine: &E,
    samples: &Receiver<Sample>,
    polled: bool,
    intervals: Option<&Intervals>,
    over: &AtomicBool,
) -> (Latencies, Vec<Hold>) {
    let (mut measured, mut holds) = (Latencies::new(), Vec::new());
    for sample in samples {
        if polled {
            while !engine.is_durable(sample.at) && !over.load(Ordering::Relaxed) {
                std::thread::sleep(POLL);
            }
            if !engine.is_durable(sample.at) {
                break;
            }
        } else if !engine.is_durable(sample.at) && engine.wait_durable(sample.at).is_err() {
            // The log failed. The producers and the final sync meet the same error and report it.
            break;
        }
        let latency = sample.begun.elapsed();
        measured.record(latency);
        if let Some(intervals) = intervals {
            intervals.record(0, latency);
        }
        note(&mut holds, latency, sample.since, sample.gap);
    }
    (measured, holds)
}

/// The part of a producer: it selects the records to time.
#[derive(Debug)]
pub(super) struct Sampler {
    sender: Option<SyncSender<Sample>>,
    countdown: u32,
    stride: u32,
    /// True if the stride follows the rate.
    adaptive: bool,
    jitter: SplitMix,
    last: Instant,
    /// Records from the last sample to the next.
    next_gap: u32,
    /// Start of the last sample.
    since: Duration,
    gap: u32,
    pub(super) skipped: u64,
    /// Histograms of the run, which also count latencies if there is no sender.
    intervals: Option<Arc<Intervals>>,
    number: usize,
}

impl Sampler {
    /// A selector for a closed loop.
    pub(super) fn new(
        sender: Option<SyncSender<Sample>>,
        intervals: Option<Arc<Intervals>>,
        number: usize,
    ) -> Self {
        Sampler {
            intervals,
            number,
            sender,
            countdown: 1,
            stride: 1,
            adaptive: true,
            jitter: SplitMix(number as u64),
            last: Instant::now(),
            next_gap: 1,
            since: Duration::ZERO,
            gap: 1,
            skipped: 0,
        }
    }

    /// A selector for one of several producers of an open loop, with this many arrivals per second.
    pub(super) fn of_arrivals(
        sender: Option<SyncSender<Sample>>,
        number: usize,
        rate: f64,
        producers: usize,
    ) -> Self {
        let stride = (rate * producers as f64 / OPEN_SAMPLES).clamp(1.0, 1e9) as u32;
        Sampler { stride, adaptive: false, ..Sampler::new(sender, None, number) }
    }

    /// Returns the time if the next append is to be timed. A producer calls it before each append.
    #[inline]
    pub(super) fn begin(&mut self) -> Option<Instant> {
        self.countdown -= 1;
        if self.countdown > 0 { None } else { Some(self.due()) }
    }

    #[cold]
    fn due(&mut self) -> Instant {
        let now = Instant::now();
        let since = now.duration_since(self.last);
        if self.adaptive {
            (self.since, self.gap) = (since, self.next_gap);
            if since < PERIOD / 2 {
                self.stride = (self.stride * 2).min(MAX_STRIDE);
            } else if since > PERIOD * 2 {
                self.stride = (self.stride / 2).max(1);
            }
        }
        self.last = now;
        let jitter = self.jitter.next() % u64::from(self.stride);
        self.countdown = self.stride / 2 + jitter as u32 + 1;
        self.next_gap = self.countdown;
        now
    }

    /// Hands over a timed append. A producer calls it after the append.
    #[cold]
    pub(super) fn end(&mut self, begun: Instant, at: Option<Position>, tally: &mut Tally) {
        let (since, gap) = (self.since, self.gap);
        tally.mark();
        match &self.sender {
            None => {
                let latency = begun.elapsed();
                tally.latencies.record(latency);
                if let Some(intervals) = &self.intervals {
                    intervals.record(self.number, latency);
                }
                note(&mut tally.holds, latency, since, gap);
            }
            Some(sender) => {
                let sample = Sample { begun, at, since, gap };
                self.skipped += u64::from(sender.try_send(sample).is_err());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stride_follows_the_rate() {
        let mut sampler = Sampler::new(None, None, 0);
        for _ in 0..40 {
            // Uses the time of the sample, so that a descheduled test thread adds none.
            sampler.last = Instant::now() + Duration::from_secs(60);
            sampler.due();
            assert!((1..=2 * MAX_STRIDE).contains(&sampler.countdown));
        }
        assert_eq!(sampler.stride, MAX_STRIDE);
        for _ in 0..40 {
            sampler.last = Instant::now() - Duration::from_secs(1);
            sampler.due();
        }
        assert_eq!((sampler.stride, sampler.countdown), (1, 1));
    }

    #[test]
    fn late_arrivals_are_timed_as_often_as_others() {
        // Appends at full speed, as after a stall.
        let mut sampler = Sampler::of_arrivals(None, 0, 100_000.0, 2);
        let timed = (0..1_000_000).filter(|_| sampler.begin().is_some()).count();
        assert!((95_000..105_000).contains(&timed), "{timed} of one in ten");
        let mut slow = Sampler::of_arrivals(None, 0, 10.0, 1);
        assert!((0..100).all(|_| slow.begin().is_some()));
    }

    #[test]
    fn closed_loop_takes_ten_thousand_samples_per_second() {
        let mut sampler = Sampler::new(None, None, 0);
        let (begun, mut taken) = (Instant::now(), 0);
        // Runs until the stride is found, in any share of the processor.
        for calls in 0.. {
            if calls >= 1_000_000 && begun.elapsed() >= Duration::from_millis(50) {
                break;
            }
            taken += u32::from(sampler.begin().is_some());
        }
        let most = begun.elapsed().as_millis() as u32 * 40;
        assert!((10..most).contains(&taken), "{taken}, of at most {most}");
    }

    #[test]
    fn meaning_follows_mode_and_durability() {
        let interval = Durability::Interval(Duration::from_millis(1));
        assert_eq!(Meaning::of(Mode::Blocking, interval), Meaning::Each);
        assert_eq!(Meaning::of(Mode::Pipelined, Durability::EveryGroup), Meaning::Sampled);
        assert_eq!(Meaning::of(Mode::Pipelined, interval), Meaning::Polled);
        assert_eq!(Meaning::of(Mode::Pipelined, Durability::Manual), Meaning::Append);
        assert_eq!(Meaning::of(Mode::Open(1.0), interval), Meaning::ArrivalPolled);
        assert_eq!(Meaning::of(Mode::Open(1.0), Durability::EveryGroup), Meaning::Arrival);
    }
}
