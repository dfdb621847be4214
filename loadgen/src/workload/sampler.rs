//! Latency of pipelined records, by samples: timing each of thirty million a second would measure
//! the clock.
//!
//! 1. Each producer times a record about every 100 us, chosen by count with jitter, so that neither
//!    fast nor slow ones are preferred and nothing beats against the size of groups.
//! 2. One thread waits for the samples in turn. It never holds up a producer: when its queue is full,
//!    the sample is left out and counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use ringwal::{Durability, Lsn, Wal};

use super::Mode;
use crate::error::Error;
use crate::latency::Latencies;
use crate::payload::SplitMix;

/// What a latency is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Of every record, from before its append until its producer knows that it is durable.
    Each,
    /// Of samples, from before the append until a waiting thread is woken since it is durable.
    Sampled,
    /// Of samples, from before the append until the durable end was seen beyond it, looked at every
    /// 200 us: waiting would ask for a sync that the durability mode does not make.
    Polled,
    /// Of samples, from when the record was to arrive until a waiting thread is woken since it is
    /// durable.
    Arrival,
    /// Of samples, the append alone.
    Append,
}

impl Meaning {
    /// The one that a workload calls for.
    #[must_use]
    pub fn of(mode: Mode, durability: Durability) -> Meaning {
        match (mode, durability) {
            (Mode::Blocking, _) => Meaning::Each,
            (Mode::Open(_), _) => Meaning::Arrival,
            (Mode::Pipelined, Durability::EveryGroup) => Meaning::Sampled,
            (Mode::Pipelined, Durability::Interval(_)) => Meaning::Polled,
            (Mode::Pipelined, Durability::Manual) => Meaning::Append,
        }
    }

    /// In words, for people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Meaning::Each => "append to durable, every record, closed loop",
            Meaning::Sampled => {
                "append to durable, as a waiting thread sees it; sampled, closed loop"
            }
            Meaning::Arrival => {
                "arrival to durable, as a waiting thread sees it; sampled, open loop, Poisson arrivals"
            }
            Meaning::Polled => "append to durable, seen within 200 us; sampled, closed loop",
            Meaning::Append => "the append alone, not durable; sampled, closed loop",
        }
    }

    /// In one word, for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Meaning::Each => "append_to_durable",
            Meaning::Sampled => "append_to_durable_sampled",
            Meaning::Polled => "append_to_durable_sampled_polled",
            Meaning::Arrival => "arrival_to_durable_sampled",
            Meaning::Append => "append_sampled",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    begun: Instant,
    lsn: Lsn,
}

const QUEUE: usize = 1024;
const POLL: Duration = Duration::from_micros(200);
const PERIOD: Duration = Duration::from_micros(100);
const MAX_STRIDE: u32 = 1 << 16;

type Waiter<'scope> = ScopedJoinHandle<'scope, Result<Latencies, Error>>;

/// The thread that waits for samples, and the way to it, if the meaning needs one. It ends when the
/// senders are gone and `over` is set, or with the log.
#[allow(clippy::type_complexity, reason = "two options that belong together")]
pub(super) fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    wal: &'scope Wal,
    meaning: Meaning,
    over: &'scope AtomicBool,
) -> Result<(Option<Waiter<'scope>>, Option<SyncSender<Sample>>), Error> {
    let polled = match meaning {
        Meaning::Each | Meaning::Append => return Ok((None, None)),
        Meaning::Sampled | Meaning::Arrival => false,
        Meaning::Polled => true,
    };
    let (sender, receiver) = sync_channel(QUEUE);
    let body = move || Ok(wait_for(wal, &receiver, polled, over));
    let spawned = Builder::new().name("latency".into()).spawn_scoped(scope, body);
    let waiter = spawned.map_err(|source| Error::System { what: "start a thread", source })?;
    Ok((Some(waiter), Some(sender)))
}

fn wait_for(wal: &Wal, samples: &Receiver<Sample>, polled: bool, over: &AtomicBool) -> Latencies {
    let mut latencies = Latencies::new();
    for sample in samples {
        if polled {
            while wal.durable_end() <= sample.lsn && !over.load(Ordering::Relaxed) {
                std::thread::sleep(POLL);
            }
            if wal.durable_end() <= sample.lsn {
                break;
            }
        } else if wal.durable_end() <= sample.lsn && wal.wait_durable(sample.lsn).is_err() {
            // The log failed: the producers and the final sync meet the same error and report it.
            break;
        }
        latencies.record(sample.begun.elapsed());
    }
    latencies
}

/// A producer's side: which records to time.
#[derive(Debug)]
pub(super) struct Sampler {
    sender: Option<SyncSender<Sample>>,
    countdown: u32,
    stride: u32,
    last: Instant,
    jitter: SplitMix,
    pub(super) skipped: u64,
}

impl Sampler {
    pub(super) fn new(sender: Option<SyncSender<Sample>>, number: usize) -> Self {
        let jitter = SplitMix(number as u64);
        Sampler { sender, countdown: 1, stride: 1, last: Instant::now(), jitter, skipped: 0 }
    }

    /// Called before each append: when this one is to be timed, the time.
    #[inline]
    pub(super) fn begin(&mut self) -> Option<Instant> {
        self.countdown -= 1;
        if self.countdown > 0 { None } else { Some(self.due()) }
    }

    #[cold]
    fn due(&mut self) -> Instant {
        let now = Instant::now();
        self.adapt(now.duration_since(self.last));
        self.last = now;
        now
    }

    fn adapt(&mut self, since: Duration) {
        if since < PERIOD / 2 {
            self.stride = (self.stride * 2).min(MAX_STRIDE);
        } else if since > PERIOD * 2 {
            self.stride = (self.stride / 2).max(1);
        }
        let jitter = self.jitter.next() % u64::from(self.stride);
        self.countdown = self.stride / 2 + jitter as u32 + 1;
    }

    /// Called after an append that was timed.
    #[cold]
    pub(super) fn end(&mut self, begun: Instant, lsn: Lsn, append_only: &mut Latencies) {
        match &self.sender {
            None => append_only.record(begun.elapsed()),
            Some(sender) => {
                self.skipped += u64::from(sender.try_send(Sample { begun, lsn }).is_err());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stride_follows_the_rate() {
        let mut sampler = Sampler::new(None, 0);
        for _ in 0..40 {
            sampler.adapt(Duration::ZERO);
            assert!((1..=2 * MAX_STRIDE).contains(&sampler.countdown));
        }
        assert_eq!(sampler.stride, MAX_STRIDE);
        for _ in 0..40 {
            sampler.adapt(Duration::from_secs(1));
        }
        assert_eq!((sampler.stride, sampler.countdown), (1, 1));
    }

    #[test]
    fn about_ten_thousand_samples_are_taken_a_second() {
        let mut sampler = Sampler::new(None, 0);
        let (begun, mut taken) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_millis(50) {
            taken += u32::from(sampler.begin().is_some());
        }
        assert!((50..2000).contains(&taken), "{taken} in 50 ms");
    }

    #[test]
    fn the_meaning_follows_mode_and_durability() {
        let interval = Durability::Interval(Duration::from_millis(1));
        assert_eq!(Meaning::of(Mode::Blocking, interval), Meaning::Each);
        assert_eq!(Meaning::of(Mode::Pipelined, Durability::EveryGroup), Meaning::Sampled);
        assert_eq!(Meaning::of(Mode::Pipelined, interval), Meaning::Polled);
        assert_eq!(Meaning::of(Mode::Pipelined, Durability::Manual), Meaning::Append);
    }
}
