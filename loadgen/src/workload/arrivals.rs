//! When records arrive in an open loop, which does not wait for the log: at random, as a Poisson process, evenly, or in bursts.
//!
//! 1. The times are fixed by rate, number and the moment of the start; a log that falls behind finds
//!    the arrivals of meanwhile all due, each with its own time.
//! 2. Each producer draws its gaps from a generator of its own, which never repeats within any run. The same seed gives
//!    the same arrivals; the sum of independent Poisson processes is one.
//! 3. A gap costs a few nanoseconds (the ziggurat method): thirty million arrivals a second need no logarithms.

use std::time::{Duration, Instant};

use rand_distr::{Distribution, Exp1};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

use crate::random::SplitMix;
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

/// A thread that sleeps wakes up some time late: the last part of a wait is spent awake.
const LATENESS: Duration = Duration::from_micros(80);

/// What comes after an arrival.
#[derive(Debug)]
enum Gaps {
    /// Independent gaps of an exponential distribution, from a generator of this producer's own.
    Drawn { random: Xoshiro256PlusPlus, mean: f64 },
    /// Bursts, of one record at least: the gap, their size, and how many are still to come.
    Even { gap: f64, burst: usize, left: usize },
}

impl Gaps {
    /// For producer `number`: another sequence than any other number or seed has.
    fn drawn(mean: f64, seed: u64, number: usize) -> Gaps {
        // Two rounds, so that neighbouring seeds and numbers have nothing in common.
        let mixed = SplitMix(seed).next().wrapping_add(number as u64);
        let random = Xoshiro256PlusPlus::seed_from_u64(SplitMix(mixed).next());
        Gaps::Drawn { random, mean }
    }

    #[inline]
    fn next(&mut self) -> f64 {
        match self {
            Gaps::Drawn { random, mean } => {
                let gap: f64 = Exp1.sample(random);
                gap * *mean
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

#[derive(Debug)]
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
    pub(super) fn new(
        rate: f64,
        pattern: Pattern,
        seed: u64,
        number: usize,
        producers: usize,
    ) -> Self {
        let mean = 1e9 * producers as f64 / rate;
        let phase = (number % producers + 1) as f64 / producers as f64;
        let even = |burst: usize| {
            let gap = mean * burst as f64;
            (Gaps::Even { gap, burst, left: burst }, gap * phase)
        };
        let (gaps, next) = match pattern {
            Pattern::Poisson => {
                let mut gaps = Gaps::drawn(mean, seed, number);
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
        let mut arrivals = Arrivals::new(4e6, Pattern::Poisson, 1, 3, 4);
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

    /// Gaps in units of their mean.
    fn gaps(seed: u64, number: usize, count: usize) -> Vec<f64> {
        let mut gaps = Gaps::drawn(1.0, seed, number);
        (0..count).map(|_| gaps.next()).collect()
    }

    const COUNT: usize = 200_000;

    /// The largest distance between the distribution of the gaps and an exponential one.
    fn kolmogorov_smirnov(gaps: &[f64]) -> f64 {
        let mut sorted = gaps.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len() as f64;
        let distance = |(i, gap): (usize, &f64)| {
            let expected = 1.0 - (-gap).exp();
            (expected - i as f64 / n).abs().max(((i + 1) as f64 / n - expected).abs())
        };
        sorted.iter().enumerate().map(distance).fold(0.0, f64::max)
    }

    /// The distances from the mean, in standard deviations.
    fn standardized(gaps: &[f64]) -> Vec<f64> {
        let n = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / n;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n;
        gaps.iter().map(|gap| (gap - mean) / variance.sqrt()).collect()
    }

    fn autocorrelation(standardized: &[f64], lag: usize) -> f64 {
        let pairs = standardized.iter().zip(&standardized[lag..]);
        pairs.map(|(a, b)| a * b).sum::<f64>() / standardized.len() as f64
    }

    #[test]
    fn gaps_are_exponential_in_mean_variance_and_distribution() {
        let n = COUNT as f64;
        let seeds = if std::env::var_os("RINGWAL_LONG").is_some() { 10 } else { 2 };
        for seed in 0..seeds {
            let gaps = gaps(seed, 0, COUNT);
            let mean = gaps.iter().sum::<f64>() / n;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / (n - 1.0);
            // Five standard errors: that of the mean is 1 / sqrt(n), that of the variance sqrt(8 / n).
            assert!((mean - 1.0).abs() < 5.0 / n.sqrt(), "seed {seed}: mean {mean}");
            assert!((variance - 1.0).abs() < 5.0 * (8.0 / n).sqrt(), "{seed}: variance {variance}");
            // One in a thousand exceeds 1.95 / sqrt(n).
            let distance = kolmogorov_smirnov(&gaps);
            assert!(distance < 1.95 / n.sqrt(), "seed {seed}: distance {distance}");
        }
    }

    #[test]
    fn gaps_have_no_memory_and_no_period() {
        let gaps = gaps(7, 0, COUNT);
        let distances = standardized(&gaps);
        let lags = (1..100).chain((7..17).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + 1]));
        for lag in lags {
            let r = autocorrelation(&distances, lag);
            assert!(r.abs() < 5.0 / (COUNT as f64).sqrt(), "lag {lag}: {r}");
        }
        // Four gaps in a row that come again would be a period.
        let mut seen = std::collections::HashSet::new();
        let keys = gaps.windows(4).map(|w| [0, 1, 2, 3].map(|i: usize| w[i].to_bits()));
        assert!(keys.into_iter().all(|key| seen.insert(key)), "the gaps repeat themselves");
    }

    #[test]
    fn producers_and_seeds_have_arrivals_of_their_own_and_a_seed_repeats_its() {
        assert_eq!(gaps(1, 0, 1000), gaps(1, 0, 1000));
        let firsts = |count: usize| -> std::collections::HashSet<u64> {
            let of = |n: usize| gaps(n as u64 % 64, n / 64, 1)[0].to_bits();
            (0..count).map(of).collect()
        };
        assert_eq!(firsts(4096).len(), 4096);
        // The producers of a run together are a Poisson process again.
        let mut times = Vec::new();
        for number in 0..8 {
            let mut at = 0.0;
            for gap in gaps(3, number, COUNT / 8 + 2000) {
                at += gap * 8.0;
                times.push(at);
            }
        }
        times.sort_by(f64::total_cmp);
        // Beyond that, one has no more of them.
        let together: Vec<f64> = times[..COUNT - 2000].windows(2).map(|w| w[1] - w[0]).collect();
        let distance = kolmogorov_smirnov(&together);
        assert!(distance < 1.95 / (together.len() as f64).sqrt(), "{distance}");
        assert!(autocorrelation(&standardized(&together), 1).abs() < 0.012);
    }

    #[test]
    fn the_number_of_arrivals_varies_as_that_of_a_poisson_process() {
        let count = |seed| {
            let mut arrivals = Arrivals::new(300.0, Pattern::Poisson, seed, 0, 1);
            arrivals.now = 1e9;
            std::iter::from_fn(|| arrivals.next_due()).count() as f64
        };
        let counts: Vec<f64> = (0..400).map(count).collect();
        let mean = counts.iter().sum::<f64>() / 400.0;
        let variance = counts.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / 399.0;
        assert!((mean - 300.0).abs() < 5.0, "{mean}");
        assert!((200.0..420.0).contains(&variance), "{variance}: that of a Poisson process is 300");
    }

    #[test]
    fn constant_arrivals_are_even_and_bursts_come_together() {
        let times = |pattern| {
            let mut arrivals = Arrivals::new(1000.0, pattern, 1, 0, 1);
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
                    let mut arrivals = Arrivals::new(1000.0, pattern, 1, number, 4);
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
        let mut arrivals = Arrivals::new(1000.0, Pattern::Poisson, 1, 0, 1);
        std::thread::sleep(Duration::from_millis(30));
        arrivals.wait(&Stop::default());
        let first = arrivals.next_due().unwrap();
        let first = arrivals.time(first);
        assert!(first.elapsed() > Duration::from_millis(15), "its time is long past");
    }

    #[test]
    fn what_has_not_been_appended_is_known() {
        let mut arrivals = Arrivals::new(1e9, Pattern::Constant, 1, 0, 1);
        assert!(Arrivals::new(0.001, Pattern::Poisson, 1, 0, 1).overdue() == 0);
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
        Arrivals::new(0.01, Pattern::Poisson, 1, 0, 1).wait(&stop);
    }
}
