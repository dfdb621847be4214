//! The difference of two measurements, and whether it exceeds chance.
//!
//! 1. All results are ratios, so the code compares logarithms. A difference is that of the means.
//!    Its interval is that of Student's distribution with Welch's degrees of freedom.
//! 2. Consecutive values correlate. The code puts them into blocks that are long enough not to, and
//!    compares blocks. If even a few blocks correlate, their correlation raises the variance.
//! 3. Rows are judged together: the bound holds for the share of comparisons with any row that
//!    differs by chance, not for each row.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Share of comparisons of equals in which any row may be reported as different.
pub const ALPHA: f64 = 0.05;
/// Fewer values decide nothing.
pub const ENOUGH: usize = 4;
/// Blocks of a series: the maximum and the minimum.
const MOST_BLOCKS: usize = 20;
const FEWEST_BLOCKS: usize = 5;

/// The verdict on a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The whole interval lies above the tolerance.
    Better,
    /// The whole interval lies below the tolerance.
    Worse,
    /// The whole interval lies within the tolerance.
    Same,
    /// Anything else, or too few values.
    Undecided,
}

impl Verdict {
    /// Returns the verdict as one word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Same => "same",
            Verdict::Undecided => "undecided",
        }
    }

    /// Judges the interval of a ratio, in which more is better.
    #[must_use]
    pub fn of([low, high]: [f64; 2], tolerance: f64) -> Verdict {
        let least = 1.0 - tolerance;
        let most = if least > 0.0 { 1.0 / least } else { f64::INFINITY };
        if high < least {
            Verdict::Worse
        } else if low > most {
            Verdict::Better
        } else if low >= least && high <= most {
            Verdict::Same
        } else {
            Verdict::Undecided
        }
    }
}

/// An estimate of the logarithm of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Mean of the logarithm.
    pub mean: f64,
    /// Variance of the mean.
    pub variance: f64,
    /// Degrees of freedom of the variance.
    pub freedom: f64,
    /// Number of values or blocks.
    pub values: usize,
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Mean and variance of a sample.
fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0).max(1.0)
}

/// Correlation of neighbours, between -1 and 1.
fn autocorrelation(values: &[f64]) -> f64 {
    let (mean, n) = (mean(values), values.len() as f64);
    let all = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    if all <= 0.0 || n < 3.0 {
        return 0.0;
    }
    let pairs = values.windows(2).map(|w| (w[0] - mean) * (w[1] - mean));
    pairs.sum::<f64>() / all
}

/// Estimates from independent values; `None` for fewer than two.
#[must_use]
pub fn independent(values: &[f64]) -> Option<Estimate> {
    let logs: Vec<f64> = values.iter().filter(|v| **v > 0.0).map(|v| v.ln()).collect();
    (logs.len() >= 2).then(|| Estimate {
        mean: mean(&logs),
        variance: variance(&logs) / logs.len() as f64,
        freedom: logs.len() as f64 - 1.0,
        values: logs.len(),
    })
}

/// Estimates from consecutive values; `None` if they are too few for blocks.
#[must_use]
pub fn series(values: &[f64]) -> Option<Estimate> {
    let logs: Vec<f64> = values.iter().filter(|v| **v > 0.0).map(|v| v.ln()).collect();
    if logs.len() < 2 * FEWEST_BLOCKS {
        return None;
    }
    let mut count = MOST_BLOCKS.min(logs.len() / 2);
    let (mut blocks, mut alike);
    loop {
        let size = logs.len() / count;
        // Omits values at the start that do not fill a block.
        let kept = &logs[logs.len() - size * count..];
        blocks = kept.chunks(size).map(mean).collect::<Vec<f64>>();
        alike = autocorrelation(&blocks);
        // One-sided test at 5 %: anticorrelated neighbours are no reason to raise the variance.
        if alike < 1.645 / (count as f64).sqrt() - 1.0 / count as f64 || count == FEWEST_BLOCKS {
            break;
        }
        count = (count * 3 / 4).max(FEWEST_BLOCKS);
    }
    let n = count as f64;
    // Few values underestimate the correlation by about this much (Marriott and Pope), with an
    // uncertainty of one standard error. The code adds half of that error.
    let alike = ((alike * n + 1.0) / (n - 3.0) + 0.5 / n.sqrt()).clamp(0.0, 0.9);
    let raised = (1.0 + alike) / (1.0 - alike);
    Some(Estimate {
        mean: mean(&logs),
        variance: variance(&blocks) / n * raised,
        freedom: ((n - 1.0) / raised).max(2.0),
        values: count,
    })
}

/// Returns the standard errors on each side of the interval, for one of this many rows.
#[must_use]
pub fn critical(freedom: f64, rows: usize) -> f64 {
    let share = 1.0 - ALPHA / rows.max(1) as f64 / 2.0;
    // Only a freedom that is NaN has no distribution.
    StudentsT::new(0.0, 1.0, freedom.max(1.0)).map_or(f64::INFINITY, |t| t.inverse_cdf(share))
}

/// Returns the ratio of second to first and its interval, as one of this many rows. Above 1 is
/// better.
#[must_use]
pub fn ratio(first: &Estimate, second: &Estimate, less_is_better: bool, rows: usize) -> [f64; 3] {
    let sum = first.variance + second.variance;
    let parts = first.variance.powi(2) / first.freedom + second.variance.powi(2) / second.freedom;
    let freedom = if parts > 0.0 { sum.powi(2) / parts } else { first.freedom + second.freedom };
    around(second.mean - first.mean, sum, freedom, less_is_better, rows)
}

/// Returns the ratio from the differences of logarithms within pairs.
#[must_use]
pub fn paired(differences: &[f64], less_is_better: bool, rows: usize) -> [f64; 3] {
    let n = differences.len() as f64;
    if n < 2.0 {
        return [mean(differences).exp(), 0.0, f64::INFINITY];
    }
    around(mean(differences), variance(differences) / n, n - 1.0, less_is_better, rows)
}

fn around(
    difference: f64,
    variance: f64,
    freedom: f64,
    less_is_better: bool,
    rows: usize,
) -> [f64; 3] {
    let middle = if less_is_better { -difference } else { difference };
    let half = critical(freedom, rows) * variance.sqrt();
    [middle, middle - half, middle + half].map(f64::exp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix;

    struct Normal(SplitMix);

    impl Normal {
        fn next(&mut self) -> f64 {
            let mut uniform = || ((self.0.next() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
            let (a, b) = (uniform(), uniform());
            (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
        }

        /// Generates values whose logarithms have this standard deviation and this correlation.
        fn series(&mut self, count: usize, deviation: f64, alike: f64) -> Vec<f64> {
            let mut at = self.next() * deviation;
            let fresh = deviation * (1.0 - alike * alike).sqrt();
            let mut step = || {
                at = alike * at + fresh * self.next();
                (8.0 + at).exp()
            };
            (0..count).map(|_| step()).collect()
        }
    }

    /// Returns the share of comparisons of equals in which any of five rows is worse or better.
    fn false_alarms(count: usize, deviation: f64, alike: f64) -> f64 {
        const COMPARISONS: usize = 400;
        let mut normal = Normal(SplitMix((count as u64) << 8 ^ (alike * 100.0) as u64));
        let called = (0..COMPARISONS).filter(|_| {
            (0..5).any(|_| {
                let mut run = || series(&normal.series(count, deviation, alike)).unwrap();
                let [_, low, high] = ratio(&run(), &run(), false, 5);
                // Compares without tolerance, which would lower the share.
                matches!(Verdict::of([low, high], 0.0), Verdict::Worse | Verdict::Better)
            })
        });
        called.count() as f64 / COMPARISONS as f64
    }

    #[test]
    fn equal_measurements_differ_in_at_most_one_of_twenty_comparisons() {
        let short = [(20, 0.0), (40, 0.0), (40, 0.5), (40, 0.8)];
        let long = [(240, 0.5), (240, 0.9), (2400, 0.97)];
        let long = if std::env::var_os("RINGWAL_LONG").is_some() { &long[..] } else { &long[..1] };
        for (count, alike) in short.iter().chain(long).copied() {
            let share = false_alarms(count, 0.15, alike);
            // Two standard errors of 400 comparisons: 0.022.
            #[allow(clippy::print_stderr, reason = "the figures that docs/tools.md publishes")]
            {
                eprintln!("{count} values, alike by {alike}: {share}");
            }
            assert!(share <= ALPHA + 0.022, "{count} values, alike by {alike}: {share}");
        }
    }

    #[test]
    fn difference_beyond_the_noise_is_found() {
        let mut normal = Normal(SplitMix(9));
        let mut found = 0;
        for _ in 0..100 {
            let before = series(&normal.series(40, 0.1, 0.3)).unwrap();
            let slower: Vec<f64> =
                normal.series(40, 0.1, 0.3).iter().map(|value| value * 0.7).collect();
            let [_, low, high] = ratio(&before, &series(&slower).unwrap(), false, 5);
            found += u32::from(Verdict::of([low, high], 0.05) == Verdict::Worse);
        }
        assert!(found >= 90, "{found} of 100");
    }

    #[test]
    fn pairs_cancel_the_drift_of_the_machine() {
        let mut normal = Normal(SplitMix(4));
        let (mut called, mut found) = (0, 0);
        for _ in 0..400 {
            // The machine's speed drifts by a factor of two. Both runs of a pair meet nearly the
            // same speed.
            let drift = normal.series(20, 0.35, 0.98);
            let mut pair = |by: f64| -> Vec<f64> {
                let noise = |normal: &mut Normal| (0.03 * normal.next()).exp();
                let one = |pair: &[f64]| {
                    (pair[1] * by * noise(&mut normal) / (pair[0] * noise(&mut normal))).ln()
                };
                let mut turn = false;
                let ordered = |pair: &[f64]| {
                    // The order within pairs alternates.
                    turn = !turn;
                    if turn { [pair[0], pair[1]] } else { [pair[1], pair[0]] }
                };
                let pairs: Vec<[f64; 2]> = drift.chunks(2).map(ordered).collect();
                let mut one = one;
                pairs.iter().map(|pair| one(pair)).collect()
            };
            let verdict = |differences: &[f64]| {
                let [_, low, high] = paired(differences, false, 5);
                Verdict::of([low, high], 0.0)
            };
            called += u32::from(matches!(verdict(&pair(1.0)), Verdict::Worse | Verdict::Better));
            found += u32::from(verdict(&pair(0.7)) == Verdict::Worse);
        }
        assert!(f64::from(called) / 400.0 <= ALPHA / 5.0 + 0.015, "{called} of 400");
        assert!(found >= 380, "{found} of 400");
    }

    #[test]
    fn verdict_depends_on_the_whole_interval() {
        for (interval, verdict) in [
            ([0.5, 0.9], Verdict::Worse),
            ([0.5, 0.96], Verdict::Undecided),
            ([0.96, 1.04], Verdict::Same),
            ([0.9, 1.04], Verdict::Undecided),
            ([0.96, 1.2], Verdict::Undecided),
            ([1.1, 1.2], Verdict::Better),
            ([0.0, f64::INFINITY], Verdict::Undecided),
        ] {
            assert_eq!(Verdict::of(interval, 0.05), verdict, "{interval:?}");
        }
        assert_eq!(Verdict::of([0.1, 50.0], 1.0), Verdict::Same, "anything may be lost");
    }

    #[test]
    fn too_few_values_have_no_estimate() {
        assert_eq!(independent(&[1.0]), None);
        assert_eq!(series(&[1.0; 9]), None);
        let same = series(&[5.0; 40]).unwrap();
        assert!(same.variance < 1e-12 && (same.mean - 5.0_f64.ln()).abs() < 1e-9);
        assert!(ratio(&same, &same, true, 1).iter().all(|v| (v - 1.0).abs() < 1e-6));
        assert!((critical(1e6, 1) - 1.96).abs() < 0.01 && critical(4.0, 5) > 4.0);
        assert_eq!(paired(&[0.0], false, 1)[1..], [0.0, f64::INFINITY]);
    }
}
