//! When records arrive in an open loop, which does not wait for the log: at random, as a Poisson process, evenly, or in bursts.
//!
//! 1. The times are fixed by rate, number and the moment of the start; a log that falls behind finds
//!    the arrivals of meanwhile all due, each with its own time.
//! 2. Gaps are drawn in advance, so that thirty million arrivals a second cost no logarithms.

use std::time::{Duration, Instant};

use crate::payload::SplitMix;
use crate::stop::Stop;

/// How arrivals lie in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Each independent of the others.
    Poisson,
    /// Evenly.
    Constant,
    /// So many at the same moment, and then a pause.
    Burst(usize),
}

const GAPS: usize = 1 << 14;
/// A thread that sleeps wakes up some time late: the last part of a wait is spent awake.
const LATENESS: Duration = Duration::from_micros(80);

pub(super) struct Arrivals {
    begun: Instant,
    /// Nanoseconds between arrivals.
    gaps: Vec<f64>,
    at: usize,
    /// Nanoseconds from the start to the next arrival, and to the last look at the clock.
    next: f64,
    now: f64,
}

impl Arrivals {
    /// `rate`: arrivals in a second.
    pub(super) fn new(rate: f64, pattern: Pattern, number: usize) -> Self {
        let mut random = SplitMix(number as u64 ^ 0x9e37_79b9_7f4a_7c15);
        // In (0, 1]: its logarithm is finite.
        let mut uniform = || ((random.next() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        let mut gaps: Vec<f64> = match pattern {
            Pattern::Poisson => (0..GAPS).map(|_| -uniform().ln()).collect(),
            Pattern::Constant => vec![1.0],
            Pattern::Burst(n) => {
                let mut gaps = vec![0.0; n];
                gaps[0] = 1.0;
                gaps
            }
        };
        // Drawn once and used over and over, they must have the right mean.
        let scale = 1e9 / rate * gaps.len() as f64 / gaps.iter().sum::<f64>();
        gaps.iter_mut().for_each(|gap| *gap *= scale);
        Arrivals { begun: Instant::now(), next: gaps[0], gaps, at: 0, now: 0.0 }
    }

    /// Until the next arrival is due, or the run is to end.
    pub(super) fn wait(&mut self, stop: &Stop) {
        loop {
            self.now = self.begun.elapsed().as_nanos() as f64;
            if self.now >= self.next || stop.is_set() {
                return;
            }
            let left = Duration::from_nanos((self.next - self.now) as u64);
            if left > LATENESS {
                // Not for longer than a stop may take to be seen.
                std::thread::sleep((left - LATENESS).min(Duration::from_millis(20)));
            } else {
                // Not a spin: whoever waits for this processor, the log's own thread too, gets it.
                std::thread::yield_now();
            }
        }
    }

    /// When the next record arrived, in nanoseconds, if it has by the last look at the clock.
    #[inline]
    pub(super) fn next_due(&mut self) -> Option<f64> {
        if self.next > self.now {
            return None;
        }
        let arrival = self.next;
        self.at = (self.at + 1) % self.gaps.len();
        self.next += self.gaps[self.at];
        Some(arrival)
    }

    /// The same as a time.
    pub(super) fn time(&self, arrival: f64) -> Instant {
        self.begun + Duration::from_nanos(arrival as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_arrive_as_the_rate_says_and_not_evenly() {
        let mut arrivals = Arrivals::new(1e6, Pattern::Poisson, 3);
        arrivals.now = 1e9;
        let mut times = Vec::new();
        while let Some(arrival) = arrivals.next_due() {
            times.push(arrival);
        }
        assert!((times.len() as f64 - 1e6).abs() < 1e4, "{}", times.len());
        assert!(times.is_sorted());
        // Exponential gaps: as much deviation as mean, a share of 1/e above the mean.
        let gaps: Vec<f64> = times.windows(2).map(|w| w[1] - w[0]).collect();
        let above = gaps.iter().filter(|&&gap| gap > 1000.0).count() as f64 / gaps.len() as f64;
        assert!((above - 0.368).abs() < 0.02, "{above}");
    }

    #[test]
    fn constant_arrivals_are_even_and_bursts_come_together() {
        let times = |pattern| {
            let mut arrivals = Arrivals::new(1000.0, pattern, 0);
            arrivals.now = 1e9;
            std::iter::from_fn(|| arrivals.next_due()).collect::<Vec<f64>>()
        };
        let even = times(Pattern::Constant);
        assert_eq!(even.len(), 1000);
        assert!(even.windows(2).all(|w| (w[1] - w[0] - 1e6).abs() < 1.0));
        let bursts = times(Pattern::Burst(100));
        assert_eq!(bursts.len(), 1000);
        assert!(bursts.chunks(100).all(|burst| burst.iter().all(|at| *at == burst[0])));
    }

    #[test]
    fn what_was_missed_is_due_at_its_own_time() {
        let mut arrivals = Arrivals::new(1000.0, Pattern::Poisson, 0);
        std::thread::sleep(Duration::from_millis(30));
        arrivals.wait(&Stop::default());
        let first = arrivals.next_due().unwrap();
        let first = arrivals.time(first);
        assert!(first.elapsed() > Duration::from_millis(15), "its time is long past");
    }

    #[test]
    fn a_wait_ends_with_the_run() {
        let stop = Stop::default();
        stop.set();
        Arrivals::new(0.01, Pattern::Poisson, 0).wait(&stop);
    }
}
