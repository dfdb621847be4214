//! When records arrive in an open loop, which does not wait for the log: at random, as a Poisson process, evenly, or in bursts.
//!
//! 1. The times are fixed by rate, number and the moment of the start; a log that falls behind finds
//!    the arrivals of meanwhile all due, each with its own time.
//! 2. Gaps are drawn in advance, so that thirty million arrivals a second cost no logarithms.

use std::sync::OnceLock;
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

impl std::fmt::Display for Pattern {
    /// As `--arrivals` takes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Pattern::Poisson => f.write_str("poisson"),
            Pattern::Constant => f.write_str("constant"),
            Pattern::Burst(n) => write!(f, "burst:{n}"),
        }
    }
}

const GAPS: usize = 1 << 14;
/// A thread that sleeps wakes up some time late: the last part of a wait is spent awake.
const LATENESS: Duration = Duration::from_micros(80);

/// What comes after an arrival.
enum Gaps {
    /// Of a table that all producers share, from a place of its own on.
    Drawn { table: &'static [f64], at: usize, scale: f64 },
    /// Bursts, of one record at least: the gap, their size, and how many are still to come.
    Even { gap: f64, burst: usize, left: usize },
}

impl Gaps {
    fn next(&mut self) -> f64 {
        match self {
            Gaps::Drawn { table, at, scale } => {
                *at = (*at + 1) % table.len();
                table[*at] * *scale
            }
            Gaps::Even { gap, burst, left } => {
                *left -= 1;
                if *left > 0 {
                    return 0.0;
                }
                *left = *burst;
                *gap
            }
        }
    }
}

/// Gaps of a Poisson process whose mean is one.
fn table() -> &'static [f64] {
    static TABLE: OnceLock<Vec<f64>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut random = SplitMix(0x9e37_79b9_7f4a_7c15);
        // In (0, 1]: its logarithm is finite.
        let mut uniform = || ((random.next() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        let mut gaps: Vec<f64> = (0..GAPS).map(|_| -uniform().ln()).collect();
        // Drawn once and used over and over, they must have the right mean.
        let scale = GAPS as f64 / gaps.iter().sum::<f64>();
        gaps.iter_mut().for_each(|gap| *gap *= scale);
        gaps
    })
}

pub(super) struct Arrivals {
    begun: Instant,
    gaps: Gaps,
    /// Nanoseconds from one to the next, on average.
    mean: f64,
    /// Nanoseconds from the start to the next arrival, and to the last look at the clock.
    next: f64,
    now: f64,
}

impl Arrivals {
    /// `rate`: arrivals in a second, of all producers together, of which this is one. What is even is so of all together, too:
    /// each begins at a time of its own.
    pub(super) fn new(rate: f64, pattern: Pattern, number: usize, producers: usize) -> Self {
        let mean = 1e9 * producers as f64 / rate;
        let phase = (number % producers + 1) as f64 / producers as f64;
        let even = |burst: usize| {
            let gap = mean * burst as f64;
            (Gaps::Even { gap, burst, left: burst }, gap * phase)
        };
        let (gaps, next) = match pattern {
            Pattern::Poisson => {
                let at = SplitMix(number as u64).next() as usize % GAPS;
                let mut gaps = Gaps::Drawn { table: table(), at, scale: mean };
                let next = gaps.next();
                (gaps, next)
            }
            Pattern::Constant => even(1),
            Pattern::Burst(n) => even(n.max(1)),
        };
        Arrivals { begun: Instant::now(), gaps, mean, next, now: 0.0 }
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
        self.next += self.gaps.next();
        Some(arrival)
    }

    /// About how many more have arrived by now. Not counted one by one: a log that is far behind has billions.
    pub(super) fn overdue(&self) -> u64 {
        let behind = self.begun.elapsed().as_nanos() as f64 - self.next;
        if behind < 0.0 { 0 } else { (behind / self.mean) as u64 + 1 }
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
        let mut arrivals = Arrivals::new(4e6, Pattern::Poisson, 3, 4);
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
            let mut arrivals = Arrivals::new(1000.0, pattern, 0, 1);
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
    fn producers_are_even_together() {
        let all = |pattern| {
            let mut times: Vec<f64> = (0..4)
                .flat_map(|number| {
                    let mut arrivals = Arrivals::new(1000.0, pattern, number, 4);
                    arrivals.now = 1e9;
                    std::iter::from_fn(move || arrivals.next_due())
                })
                .collect();
            times.sort_by(f64::total_cmp);
            times
        };
        let even = all(Pattern::Constant);
        assert_eq!(even.len(), 1000);
        assert!(even.windows(2).all(|w| (w[1] - w[0] - 1e6).abs() < 1.0));
        // Bursts of ten, not of forty.
        let bursts = all(Pattern::Burst(10));
        assert!(bursts.chunks(10).all(|burst| burst.iter().all(|at| *at == burst[0])));
        assert!(bursts.windows(11).all(|w| w[10] > w[0]));
    }

    #[test]
    fn what_was_missed_is_due_at_its_own_time() {
        let mut arrivals = Arrivals::new(1000.0, Pattern::Poisson, 0, 1);
        std::thread::sleep(Duration::from_millis(30));
        arrivals.wait(&Stop::default());
        let first = arrivals.next_due().unwrap();
        let first = arrivals.time(first);
        assert!(first.elapsed() > Duration::from_millis(15), "its time is long past");
    }

    #[test]
    fn what_has_not_been_appended_is_known() {
        let mut arrivals = Arrivals::new(1e9, Pattern::Constant, 0, 1);
        assert!(Arrivals::new(0.001, Pattern::Poisson, 0, 1).overdue() == 0);
        std::thread::sleep(Duration::from_millis(5));
        assert!(arrivals.overdue() >= 5_000_000);
        arrivals.now = 1e6;
        while arrivals.next_due().is_some() {}
        assert!(arrivals.overdue() >= 4_000_000);
    }

    #[test]
    fn a_wait_ends_with_the_run() {
        let stop = Stop::default();
        stop.set();
        Arrivals::new(0.01, Pattern::Poisson, 0, 1).wait(&stop);
    }
}
