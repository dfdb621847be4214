//! The percentile text of HdrHistogram, which its plotters read. Values in microseconds.

use std::fmt::Write;

use crate::latency::Latencies;

const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// Renders the whole file.
///
/// ```
/// let text = loadgen::hgrm::render(&loadgen::Latencies::new());
/// assert!(text.starts_with("       Value     Percentile TotalCount 1/(1-Percentile)\n\n"));
/// ```
#[must_use]
pub fn render(latencies: &Latencies) -> String {
    let histogram = latencies.histogram();
    let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut total = 0;
    for value in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        total += value.count_since_last_iteration();
        let us = value.value_iterated_to() as f64 / 1000.0;
        let quantile = value.quantile_iterated_to();
        let _ = write!(out, "{us:12.3} {quantile:2.12} {total:10}");
        if quantile < 1.0 {
            let _ = write!(out, " {:14.2}", 1.0 / (1.0 - quantile));
        }
        out.push('\n');
    }
    let (mean, stdev) = (histogram.mean() / 1000.0, histogram.stdev() / 1000.0);
    let max = histogram.max() as f64 / 1000.0;
    let _ = writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {stdev:12.3}]");
    let _ = writeln!(out, "#[Max     = {max:12.3}, Total count    = {:12}]", histogram.len());
    // Twice the largest value of which each unit counts at this precision, as a power of two.
    let sub_buckets = (2 * 10u64.pow(u32::from(histogram.sigfig()))).next_power_of_two();
    let buckets = histogram.buckets();
    let _ = writeln!(out, "#[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rows_rise_to_one_and_count_everything() {
        let mut latencies = Latencies::new();
        (1..=10_000).for_each(|us| latencies.record(Duration::from_micros(us)));
        let text = render(&latencies);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|n| n.parse().unwrap()).collect())
            .collect();
        assert!(rows.len() > 20, "{text}");
        assert!(rows.windows(2).all(|w| w[0][0] <= w[1][0] && w[0][1] <= w[1][1]), "{text}");
        assert!(rows.windows(2).all(|w| w[0][2] <= w[1][2]), "{text}");
        let last = rows.last().unwrap();
        assert_eq!((last.len(), last[1], last[2]), (3, 1.0, 10_000.0));
        assert!(rows[..rows.len() - 1].iter().filter(|r| r[1] < 1.0).all(|r| r.len() == 4));
        let half = rows.iter().find(|r| r[1] >= 0.5).unwrap();
        assert!((half[0] - 5000.0).abs() < 20.0, "{half:?}");
        assert!(text.contains("Total count    =        10000]"), "{text}");
    }

    #[test]
    fn an_empty_one_has_only_the_frame() {
        let text = render(&Latencies::new());
        assert_eq!(text.lines().filter(|l| l.starts_with("#[")).count(), 3);
        assert!(text.contains("Total count    =            0]"), "{text}");
    }
}
