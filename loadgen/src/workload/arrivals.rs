//! The arrivals of an open loop, which does not wait for the log: at random (a Poisson process),
//! evenly, or in bursts.
//!
//! 1. Rate, producer number and start time fix all arrival times. After a stall, every missed
//!    arrival is due, each with its own time.
//! 2. Each producer draws its gaps from its own generator, which does not repeat within a run. The
//!    same seed gives the same arrivals. The sum of independent Poisson processes is one again.
//! 3. Recorded arrivals have the times and sizes of their file. Producer n of N has record n, and
//!    every Nth one after it.
//! 4. A gap costs a few nanoseconds (the ziggurat method). Thirty million arrivals per second need
//!    no logarithms.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_distr::{Distribution, Exp1};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

use crate::random::SplitMix;
use crate::stop::Stop;
use crate::workload::Plan;
use crate::workload::trace::{Entry, Trace};

/// The distribution of arrivals in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Each arrival is independent of the others.
    Poisson,
    /// Evenly spaced.
    Constant,
    /// This many at one moment, then a pause.
    Burst(usize),
}

impl std::fmt::Display for Pattern {
    /// Writes the pattern as `--arrivals` accepts it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Pattern::Poisson => f.write_str("poisson"),
            Pattern::Constant => f.write_str("constant"),
            Pattern::Burst(n) => write!(f, "burst:{n}"),
        }
    }
}

/// A sleeping thread wakes up late, so the last part of a wait stays awake.
const LATENESS: Duration = Duration::from_micros(80);

/// The source of the next gap.
#[derive(Debug)]
enum Gaps {
    /// Independent gaps of an exponential distribution, from this producer's own generator.
    Drawn { random: Xoshiro256PlusPlus, mean: f64 },
    /// Bursts of at least one record: the gap, the size, and the records left in this burst.
    Even { gap: f64, burst: usize, left: usize },
    /// Recorded arrivals: the number of the next record, and the step to the one after it.
    Recorded { trace: Arc<Trace>, next: usize, step: usize },
}

impl Gaps {
    /// A generator for producer `number`. Every pair of seed and number has its own sequence.
    fn drawn(mean: f64, seed: u64, number: usize) -> Gaps {
        // Mixes twice, so that neighbouring seeds and numbers have unrelated sequences.
        let mixed = SplitMix(seed).next().wrapping_add(number as u64);
        let random = Xoshiro256PlusPlus::seed_from_u64(SplitMix(mixed).next());
        Gaps::Drawn { random, mean }
    }

    /// Returns the time of the arrival after the one at `from`.
    #[inline]
    fn after(&mut self, from: f64) -> f64 {
        match self {
            Gaps::Drawn { random, mean } => {
                let gap: f64 = Exp1.sample(random);
                from + gap * *mean
            }
            Gaps::Even { gap, burst, left } => {
                *left -= 1;
                if *left > 0 {
                    return from;
                }
                *left = *burst;
                from + *gap
            }
            Gaps::Recorded { trace, next, step } => {
                *next += *step;
                // After the last record, nothing arrives.
                trace.entry(*next).map_or(f64::INFINITY, |entry| entry.at as f64)
            }
        }
    }

    /// Returns the bytes of the next record, if they are recorded.
    #[inline]
    fn bytes(&self) -> Option<u32> {
        let Gaps::Recorded { trace, next, .. } = self else { return None };
        trace.entry(*next).map(|entry| entry.bytes)
    }
}

/// A record that arrives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Arrival {
    /// Nanoseconds from the start of the arrivals.
    pub(super) at: f64,
    /// Bytes of the record, if a replay fixes them.
    pub(super) bytes: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Arrivals {
    begun: Instant,
    gaps: Gaps,
    /// Mean nanoseconds from one arrival to the next.
    mean: f64,
    /// Nanoseconds from the start to the next arrival, and to the last reading of the clock.
    next: f64,
    now: f64,
}

impl Arrivals {
    /// The arrivals of one of several producers of a plan.
    pub(super) fn of(plan: &Plan, rate: f64, number: usize, producers: usize) -> Self {
        let Some(trace) = &plan.replay else {
            return Self::new(rate, plan.arrivals, plan.seed, number, producers);
        };
        let next = trace.entry(number).map_or(f64::INFINITY, |Entry { at, .. }| at as f64);
        let gaps = Gaps::Recorded { trace: Arc::clone(trace), next: number, step: producers };
        let mean = 1e9 * producers as f64 / rate;
        Arrivals { begun: Instant::now(), gaps, mean, next, now: 0.0 }
    }

    /// `rate`: arrivals per second of all producers together, of which this is one. Even arrivals
    /// stay even together, because each producer starts at a different offset.
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
                let next = gaps.after(0.0);
                (gaps, next)
            }
            Pattern::Constant => even(1),
            Pattern::Burst(n) => even(n.max(1)),
        };
        Arrivals { begun: Instant::now(), gaps, mean, next, now: 0.0 }
    }

    /// Waits until the next arrival is due, or the run ends.
    pub(super) fn wait(&mut self, stop: &Stop) {
        loop {
            self.now = self.begun.elapsed().as_nanos() as f64;
            if self.now >= self.next || stop.is_set() {
                return;
            }
            // An infinite time becomes the longest one.
            let left = Duration::from_nanos((self.next - self.now) as u64);
            if left > LATENESS {
                // Bounds the sleep, so that a stop is noticed in time.
                std::thread::sleep((left - LATENESS).min(Duration::from_millis(20)));
            } else {
                // Yields instead of spinning: other threads, including the log's own, get the
                // processor.
                std::thread::yield_now();
            }
        }
    }

    /// Returns the arrival time of the next record in nanoseconds, if it was due at the last
    /// reading of the clock.
    #[inline]
    pub(super) fn next_due(&mut self) -> Option<Arrival> {
        if self.next > self.now {
            return None;
        }
        let arrival = Arrival { at: self.next, bytes: self.gaps.bytes() };
        self.next = self.gaps.after(self.next);
        Some(arrival)
    }

    /// Estimates how many more records have arrived. It does not count one by one: a slow log may
    /// be billions behind.
    pub(super) fn overdue(&self) -> u64 {
        if let Gaps::Recorded { trace, next, step } = &self.gaps {
            let now = self.begun.elapsed().as_nanos();
            let due = |at: &usize| trace.entry(*at).is_some_and(|e| u128::from(e.at) <= now);
            return (*next..).step_by(*step).take_while(due).count() as u64;
        }
        let behind = self.begun.elapsed().as_nanos() as f64 - self.next;
        if behind < 0.0 { 0 } else { (behind / self.mean) as u64 + 1 }
    }

    /// Converts an arrival to a point in time.
    pub(super) fn time(&self, arrival: Arrival) -> Instant {
        self.begun + Duration::from_nanos(arrival.at as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisson_arrivals_have_the_rate_and_are_not_even() {
        let mut arrivals = Arrivals::new(4e6, Pattern::Poisson, 1, 3, 4);
        arrivals.now = 1e9;
        let mut times = Vec::new();
        while let Some(arrival) = arrivals.next_due() {
            times.push(arrival.at);
        }
        assert!((times.len() as f64 - 1e6).abs() < 1e4, "{}", times.len());
        assert!(times.is_sorted());
        // Exponential gaps: the deviation equals the mean, and a share of 1/e lies above the mean.
        let gaps: Vec<f64> = times.windows(2).map(|w| w[1] - w[0]).collect();
        let above = gaps.iter().filter(|&&gap| gap > 1000.0).count() as f64 / gaps.len() as f64;
        assert!((above - 0.368).abs() < 0.02, "{above}");
    }

    /// Returns gaps in units of their mean.
    fn gaps(seed: u64, number: usize, count: usize) -> Vec<f64> {
        let mut gaps = Gaps::drawn(1.0, seed, number);
        (0..count).map(|_| gaps.after(0.0)).collect()
    }

    const COUNT: usize = 200_000;

    /// Returns the largest distance between the distribution of the gaps and an exponential one.
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

    /// Returns the distances from the mean, in standard deviations.
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
            // Five standard errors: 1 / sqrt(n) for the mean, sqrt(8 / n) for the variance.
            assert!((mean - 1.0).abs() < 5.0 / n.sqrt(), "seed {seed}: mean {mean}");
            assert!((variance - 1.0).abs() < 5.0 * (8.0 / n).sqrt(), "{seed}: variance {variance}");
            // One sample in a thousand exceeds 1.95 / sqrt(n).
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
        // Four gaps in a row that occur again would be a period.
        let mut seen = std::collections::HashSet::new();
        let keys = gaps.windows(4).map(|w| [0, 1, 2, 3].map(|i: usize| w[i].to_bits()));
        assert!(keys.into_iter().all(|key| seen.insert(key)), "the gaps repeat themselves");
    }

    #[test]
    fn same_seed_repeats_arrivals_and_others_differ() {
        assert_eq!(gaps(1, 0, 1000), gaps(1, 0, 1000));
        let firsts = |count: usize| -> std::collections::HashSet<u64> {
            let of = |n: usize| gaps(n as u64 % 64, n / 64, 1)[0].to_bits();
            (0..count).map(of).collect()
        };
        assert_eq!(firsts(4096).len(), 4096);
        // The producers of a run together are one Poisson process.
        let mut times = Vec::new();
        for number in 0..8 {
            let mut at = 0.0;
            for gap in gaps(3, number, COUNT / 8 + 2000) {
                at += gap * 8.0;
                times.push(at);
            }
        }
        times.sort_by(f64::total_cmp);
        // Beyond that number, a producer has no more of them.
        let together: Vec<f64> = times[..COUNT - 2000].windows(2).map(|w| w[1] - w[0]).collect();
        let distance = kolmogorov_smirnov(&together);
        assert!(distance < 1.95 / (together.len() as f64).sqrt(), "{distance}");
        assert!(autocorrelation(&standardized(&together), 1).abs() < 0.012);
    }

    #[test]
    fn number_of_arrivals_varies_as_a_poisson_process() {
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
    fn constant_arrivals_are_even_and_bursts_coincide() {
        let times = |pattern| {
            let mut arrivals = Arrivals::new(1000.0, pattern, 1, 0, 1);
            arrivals.now = 1e9;
            std::iter::from_fn(|| Some(arrivals.next_due()?.at)).collect::<Vec<f64>>()
        };
        let even = times(Pattern::Constant);
        assert_eq!(even.len(), 1000);
        assert!(even.windows(2).all(|w| (w[1] - w[0] - 1e6).abs() < 1.0));
        let bursts = times(Pattern::Burst(100));
        assert_eq!(bursts.len(), 1000);
        assert!(bursts.chunks(100).all(|burst| burst.iter().all(|at| *at == burst[0])));
    }

    #[test]
    fn constant_arrivals_of_all_producers_are_even() {
        let all = |pattern| {
            let mut times: Vec<f64> = (0..4)
                .flat_map(|number| {
                    let mut arrivals = Arrivals::new(1000.0, pattern, 1, number, 4);
                    arrivals.now = 1e9;
                    std::iter::from_fn(move || Some(arrivals.next_due()?.at))
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
    fn recorded_arrivals_are_divided_among_producers_in_turn() {
        let trace = Trace::of(&[(0, 10), (5, 11), (5, 12), (1_000_000_000_000, 13)]);
        let replay = Some(Arc::new(trace));
        let plan = Plan { replay, ..Plan::blocking(1, 1) };
        let of = |number: usize, producers: usize| {
            let mut arrivals = Arrivals::of(&plan, 1.0, number, producers);
            arrivals.now = 6.0;
            let due = std::iter::from_fn(|| arrivals.next_due());
            let due: Vec<(f64, Option<u32>)> = due.map(|a| (a.at, a.bytes)).collect();
            (due, arrivals.overdue())
        };
        assert_eq!(of(0, 1), (vec![(0.0, Some(10)), (5.0, Some(11)), (5.0, Some(12))], 0));
        assert_eq!(of(0, 3), (vec![(0.0, Some(10))], 0));
        assert_eq!(of(1, 3), (vec![(5.0, Some(11))], 0));
        assert_eq!(of(2, 3), (vec![(5.0, Some(12))], 0));
        assert_eq!(of(4, 5), (vec![], 0), "more producers than records");
        let late = Arrivals::of(&plan, 1.0, 0, 1);
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(late.overdue(), 3);
    }

    #[test]
    fn missed_arrival_is_due_at_its_own_time() {
        let mut arrivals = Arrivals::new(1000.0, Pattern::Poisson, 1, 0, 1);
        std::thread::sleep(Duration::from_millis(30));
        arrivals.wait(&Stop::default());
        let first = arrivals.next_due().unwrap();
        let first = arrivals.time(first);
        assert!(first.elapsed() > Duration::from_millis(15), "its time is long past");
    }

    #[test]
    fn overdue_arrivals_are_counted() {
        let mut arrivals = Arrivals::new(1e9, Pattern::Constant, 1, 0, 1);
        assert!(Arrivals::new(0.001, Pattern::Poisson, 1, 0, 1).overdue() == 0);
        std::thread::sleep(Duration::from_millis(5));
        assert!(arrivals.overdue() >= 5_000_000);
        arrivals.now = 1e6;
        while arrivals.next_due().is_some() {}
        assert!(arrivals.overdue() >= 4_000_000);
    }

    #[test]
    fn wait_ends_with_the_run() {
        let stop = Stop::default();
        stop.set();
        Arrivals::new(0.01, Pattern::Poisson, 1, 0, 1).wait(&stop);
    }
}
