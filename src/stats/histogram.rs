//! Histograms that one thread writes and any thread reads.
//!
//! 1. A bucket is an eighth of its power of two: a quantile is at most 12.5 % above the true value.
//! 2. One thread records. It adds by a load and a store, so that recording costs two plain
//!    instructions on the bucket. A concurrent reader sees the count before or after.

use crate::sys::sync::{AtomicU64, Ordering};

/// Buckets per power of two.
const FINE: u64 = 8;
const FINE_BITS: u32 = FINE.ilog2();
const BUCKETS: usize = ((64 - FINE_BITS as usize) + 1) * FINE as usize;

/// Returns the bucket of a value. Values below 8 have a bucket each.
fn bucket(value: u64) -> usize {
    if value < FINE {
        return value as usize;
    }
    let power = value.ilog2();
    let fine = value >> (power - FINE_BITS) & (FINE - 1);
    ((u64::from(power - FINE_BITS) + 1) * FINE + fine) as usize
}

/// Returns the largest value of a bucket.
fn highest(bucket: usize) -> u64 {
    let (power, fine) = (bucket as u64 / FINE, bucket as u64 % FINE);
    if power == 0 {
        return fine;
    }
    let shift = power - 1;
    let next = (u128::from(FINE + fine) + 1) << shift;
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

/// A histogram to record into.
#[derive(Debug)]
pub(crate) struct Recorder {
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Recorder {
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// Records a value. Only one thread may call this.
    #[inline]
    pub(crate) fn record(&self, value: u64) {
        let add = |to: &AtomicU64, n: u64| {
            to.store(to.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        };
        add(&self.counts[bucket(value)], 1);
        add(&self.sum, value);
    }

    pub(crate) fn read(&self) -> Histogram {
        Histogram {
            counts: self.counts.iter().map(|n| n.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

/// How often values of each size were recorded. A quantile is at most 12.5 % too high, and never
/// too low.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    sum: u64,
}

impl Histogram {
    /// Number of recorded values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of the recorded values. Wraps around at 2^64.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Mean of the recorded values. 0 if there is no value.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            count => self.sum as f64 / count as f64,
        }
    }

    /// A value that this share of the values does not exceed: `quantile(0.5)` is the median. A
    /// share below 0 counts as 0, above 1 as 1. The result is 0 if there is no value.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, n) in self.counts.iter().enumerate() {
            seen += n;
            if seen >= wanted {
                return highest(at);
            }
        }
        0
    }

    /// The buckets that hold a value, ascending: the highest value of the bucket, and its count.
    /// For exporters.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let filled = self.counts.iter().enumerate().filter(|(_, n)| **n > 0);
        filled.map(|(at, n)| (highest(at), *n))
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_no_bucket_is_wide() {
        let mut before = None;
        for at in 0..BUCKETS {
            let high = highest(at);
            let low = before.map_or(0, |before: u64| before + 1);
            assert!(low <= high, "bucket {at}");
            assert_eq!((bucket(low), bucket(high)), (at, at));
            assert!(high - low <= low / FINE, "{low} to {high}");
            before = Some(high);
        }
        assert_eq!(before, Some(u64::MAX));
    }

    #[test]
    fn quantiles_are_those_of_the_values_or_an_eighth_above() {
        let recorder = Recorder::new();
        assert_eq!(recorder.read().quantile(0.5), 0);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut values: Vec<u64> = (0..10_000).map(|_| rng.u64(..) >> rng.u32(1..64)).collect();
        values.iter().for_each(|&v| recorder.record(v));
        values.sort_unstable();
        let histogram = recorder.read();
        assert_eq!(histogram.count(), 10_000);
        assert_eq!(histogram.buckets().map(|(_, n)| n).sum::<u64>(), 10_000);
        for share in [0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 1.0] {
            let exact = values[((10_000.0 * share) as usize).clamp(1, 10_000) - 1];
            let found = histogram.quantile(share);
            assert!(
                found >= exact && found - exact <= exact / FINE,
                "{share}: {found} for {exact}"
            );
        }
        assert_eq!(histogram.quantile(7.0), histogram.quantile(1.0));
        let sum = values.iter().fold(0_u64, |sum, v| sum.wrapping_add(*v));
        assert_eq!(histogram.sum(), sum);
    }
}
