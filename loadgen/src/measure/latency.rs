//! Latency histograms: one per recording thread, merged at the end.

use std::sync::Mutex;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::stop::lock;

/// A histogram in nanoseconds, from 64 ns to 100 s, with a precision of 0.1 %. It has 80 KiB, of
/// which the used pages are touched.
#[derive(Debug, Clone)]
pub struct Latencies {
    histogram: Histogram<u32>,
}

const LOWEST_NS: u64 = 64;
const HIGHEST_NS: u64 = 100_000_000_000;
const DIGITS: u8 = 3;

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// Creates an empty histogram.
    #[must_use]
    #[allow(clippy::missing_panics_doc, reason = "the bounds are constants that are in range")]
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS);
        Latencies { histogram: histogram.expect("constant bounds in range") }
    }

    /// Counts one latency.
    #[inline]
    pub fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(ns);
    }

    /// Counts the latencies of records that a producer did not send during a stall of `took`: one
    /// for each `every` of that time.
    pub(crate) fn missed(&mut self, latency: Duration, held: Duration, every: Duration) {
        /// Limits the count, so that a long stall does not take equally long to count.
        const MOST: u128 = 1_000_000;
        let missed = held.as_nanos() / every.as_nanos().max(1);
        for n in 1..=missed.min(MOST) as u32 {
            self.record(latency + every * n);
        }
    }

    /// Returns the latencies of a closed loop that had begun a record each `every`. A latency of
    /// ten times `every` adds nine shorter ones.
    #[must_use]
    pub fn corrected(&self, every: Duration) -> Latencies {
        let every = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX);
        if every == 0 || self.count() == 0 {
            return self.clone();
        }
        // An interval below the resolution adds nothing and would take long.
        Latencies { histogram: self.histogram.clone_correct(every.max(LOWEST_NS)) }
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Latencies) {
        // Both histograms have the same bounds, so the addition cannot fail.
        let added = self.histogram.add(&other.histogram);
        debug_assert!(added.is_ok());
    }

    /// Returns the values in nanoseconds with their counts, ascending.
    #[must_use]
    pub fn counts(&self) -> Vec<(u64, u32)> {
        let values = self.histogram.iter_recorded();
        values.map(|v| (v.value_iterated_to(), v.count_at_value())).collect()
    }

    /// Adds the result of [`Latencies::counts`].
    pub fn add_counts(&mut self, counts: &[(u64, u32)]) {
        for &(ns, count) in counts {
            self.histogram.saturating_record_n(ns, count);
        }
    }

    /// Returns the number of latencies above the value.
    #[must_use]
    pub fn above(&self, bound: Duration) -> u64 {
        let ns = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX).min(HIGHEST_NS);
        self.count() - self.histogram.count_between(0, ns)
    }

    /// Returns the number of latencies.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Returns the latency in nanoseconds at a quantile from 0 to 1. 0 when empty.
    #[must_use]
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        if self.histogram.is_empty() { 0 } else { self.histogram.value_at_quantile(quantile) }
    }

    /// Returns the minimum in nanoseconds.
    #[must_use]
    pub fn min_ns(&self) -> u64 {
        if self.histogram.is_empty() { 0 } else { self.histogram.min() }
    }

    /// Returns the maximum in nanoseconds.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        self.histogram.max()
    }

    /// Returns the mean in nanoseconds.
    #[must_use]
    pub fn mean_ns(&self) -> f64 {
        self.histogram.mean()
    }

    /// Returns the histogram in nanoseconds.
    #[must_use]
    pub fn histogram(&self) -> &Histogram<u32> {
        &self.histogram
    }
}

/// Latencies since the last reading, recorded by many threads.
///
/// A few histograms share the threads, so that locks are rarely contended.
#[derive(Debug)]
pub struct Intervals {
    shards: Vec<Mutex<Latencies>>,
}

const SHARDS: usize = 8;

impl Default for Intervals {
    fn default() -> Self {
        Intervals { shards: (0..SHARDS).map(|_| Mutex::new(Latencies::new())).collect() }
    }
}

impl Intervals {
    /// Counts a latency of producer `number`.
    #[inline]
    pub fn record(&self, number: usize, latency: Duration) {
        lock(&self.shards[number % SHARDS]).record(latency);
    }

    /// Returns the latencies since the last call.
    #[must_use]
    pub fn take(&self) -> Latencies {
        let mut all = Latencies::new();
        for shard in &self.shards {
            let mut shard = lock(shard);
            if shard.count() > 0 {
                all.merge(&shard);
                shard.histogram.reset();
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_each_latency_once() {
        let intervals = Intervals::default();
        (0..100).for_each(|n| intervals.record(n, Duration::from_micros(n as u64 + 1)));
        let first = intervals.take();
        assert_eq!((first.count(), intervals.take().count()), (100, 0));
        assert_eq!(first.above(Duration::from_micros(90)), 10);
        assert_eq!(first.above(Duration::from_secs(3600)), 0);
        let mut again = Latencies::new();
        again.add_counts(&first.counts());
        assert_eq!((again.count(), again.max_ns()), (100, first.max_ns()));
        assert_eq!(again.quantile_ns(0.5), first.quantile_ns(0.5));
    }

    #[test]
    fn merged_histogram_has_the_quantiles_of_both() {
        let (mut a, mut b) = (Latencies::new(), Latencies::new());
        for i in 1..=1000 {
            a.record(Duration::from_micros(i));
            b.record(Duration::from_micros(1000 + i));
        }
        a.merge(&b);
        assert_eq!(a.count(), 2000);
        let near = |quantile, us: f64| {
            let ns = a.quantile_ns(quantile) as f64;
            assert!((ns / 1000.0 - us).abs() < us / 500.0, "{quantile}: {ns}");
        };
        near(0.5, 1000.0);
        near(0.99, 1980.0);
        near(1.0, 2000.0);
        assert!(a.max_ns() >= a.quantile_ns(0.9999));
    }

    #[test]
    fn corrected_stall_counts_every_unsent_record() {
        let ms = Duration::from_millis;
        let mut closed = Latencies::new();
        (0..900).for_each(|_| closed.record(ms(1)));
        closed.record(ms(100));
        assert!(closed.quantile_ns(0.99) < 1_100_000, "one of 901");
        let corrected = closed.corrected(ms(1));
        assert_eq!(corrected.count(), 1000);
        assert!(corrected.quantile_ns(0.95) > 45_000_000, "{}", corrected.quantile_ns(0.95));
        let mut held = Latencies::new();
        held.missed(ms(1), ms(99), ms(1));
        assert_eq!(held.count(), 99);
        assert!((95_000_000..105_000_000).contains(&held.max_ns()));
        held.missed(ms(1), Duration::ZERO, Duration::ZERO);
        assert_eq!(held.count(), 99);
        assert_eq!(Latencies::new().corrected(ms(1)).count(), 0);
    }

    #[test]
    fn out_of_range_latency_is_clamped_and_empty_is_zero() {
        let mut a = Latencies::new();
        assert_eq!((a.quantile_ns(0.5), a.max_ns(), a.min_ns()), (0, 0, 0));
        a.record(Duration::ZERO);
        a.record(Duration::from_secs(3600));
        assert_eq!(a.count(), 2);
        assert!(a.max_ns() >= 100_000_000_000);
    }
}
