//! HdrHistogram's percentile text in microseconds, and its log in nanoseconds, for its plotters.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

use crate::measure::latency::Latencies;
use crate::output::MARK;

const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// Renders the whole file.
///
/// ```
/// let text = loadgen::report::hgrm::render(&loadgen::Latencies::new());
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
    // Twice the largest value that this precision counts in single units, as a power of two.
    let sub_buckets = (2 * 10u64.pow(u32::from(histogram.sigfig()))).next_power_of_two();
    let buckets = histogram.buckets();
    let _ = writeln!(out, "#[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]");
    let _ = writeln!(out, "# {MARK}; values in microseconds");
    out
}

/// Renders a log of intervals, one per line: start and length in seconds, and the latencies.
///
/// # Errors
///
/// Those of the encoder; no cause is known.
pub fn log(
    intervals: impl Iterator<Item = (f64, f64, Latencies)>,
    begun: SystemTime,
) -> Result<String, String> {
    let (mut bytes, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&format!("[Logged with {MARK}; values in nanoseconds]"))
        .with_start_time(begun)
        .with_base_time(begun)
        .begin_log_with(&mut bytes, &mut serializer)
        .map_err(|e| e.to_string())?;
    for (from, length, latencies) in intervals {
        let (from, length) = (Duration::from_secs_f64(from), Duration::from_secs_f64(length));
        writer
            .write_histogram(latencies.histogram(), from, length, None)
            .map_err(|e| format!("{e:?}"))?;
    }
    String::from_utf8(bytes).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn log_is_read_back() {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|us| latencies.record(Duration::from_micros(us)));
        let intervals = [(0.0, 3.0, latencies.clone()), (3.0, 0.25, latencies.clone())];
        let text = log(intervals.into_iter(), SystemTime::now()).unwrap();
        let mut found = 0;
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                assert_eq!(interval.start_timestamp().as_secs(), 3 * found);
                assert_eq!(interval.duration().as_millis(), [3000, 250][found as usize]);
                use base64::Engine;
                let coded = interval.encoded_histogram();
                let bytes = base64::engine::general_purpose::STANDARD.decode(coded).unwrap();
                let read: Histogram<u64> =
                    Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
                assert_eq!((read.len(), read.max()), (1000, latencies.max_ns()));
                found += 1;
            }
        }
        assert_eq!(found, 2);
    }

    #[test]
    fn rows_rise_to_one_and_count_every_latency() {
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
    fn empty_histogram_has_only_the_frame() {
        let text = render(&Latencies::new());
        assert_eq!(text.lines().filter(|l| l.starts_with("#[")).count(), 3);
        assert!(text.contains("Total count    =            0]"), "{text}");
    }
}
