//! A latency histogram for the terminal: logarithmic rows with round bounds, linear bars.

use std::fmt::Write;

use crate::measure::latency::Latencies;
use crate::units::nanos;

/// Row bounds within a decade, from fine to coarse.
const SERIES: [&[u64]; 4] = [
    &[10, 12, 15, 18, 22, 27, 33, 39, 47, 56, 68, 82],
    &[10, 15, 22, 33, 47, 68],
    &[10, 22, 47],
    &[10],
];
const MAX_ROWS: usize = 24;
/// Share of the latencies at each end that shares one wide row.
const OUTERMOST: f64 = 0.0005;
const WIDTH: usize = 40;
const MARKS: [(f64, &str); 5] =
    [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99")];

/// Renders the rows, each with a newline: from, to, bar, share, count, and the percentiles in it.
/// Empty without latencies.
///
/// ```
/// let mut latencies = loadgen::Latencies::new();
/// latencies.record(std::time::Duration::from_micros(110));
/// assert!(loadgen::report::bars::render(&latencies).contains("100.0 %"));
/// ```
#[must_use]
pub fn render(latencies: &Latencies) -> String {
    let total = latencies.count();
    let mut out = String::new();
    if total == 0 {
        return out;
    }
    let rows = rows(latencies);
    let largest = rows.iter().map(|r| r.2).max().unwrap_or(1).max(1);
    for (from, to, count) in rows {
        let share = 100.0 * count as f64 / total as f64;
        let marks: Vec<&str> = MARKS
            .iter()
            .filter(|(q, _)| (from..to).contains(&value_of(latencies, latencies.quantile_ns(*q))))
            .map(|&(_, name)| name)
            .collect();
        let (from, to) = (nanos(from), nanos(to));
        let bar = bar(count, largest);
        let _ = write!(out, "{from:>8} - {to:>8} |{bar:<WIDTH$}| {share:>5.1} % {count:>10}");
        let _ = writeln!(out, "{}{}", if marks.is_empty() { "" } else { "  " }, marks.join(" "));
    }
    out
}

/// Returns from, to (excluded) and count of each row. The rows cover every latency. The few
/// outermost ones share one wide row at each end, which leaves fine rows for the others.
fn rows(latencies: &Latencies) -> Vec<(u64, u64, u64)> {
    let at = |quantile: f64| value_of(latencies, latencies.quantile_ns(quantile));
    let min = value_of(latencies, latencies.min_ns());
    let max = value_of(latencies, latencies.max_ns());
    let mut bounds = Vec::new();
    for series in SERIES {
        bounds = covering(series, at(OUTERMOST).max(min), at(1.0 - OUTERMOST));
        let (first, last) = (bounds[0], bounds[bounds.len() - 1]);
        let outer = covering(series, min, max);
        if outer[0] < first {
            bounds.insert(0, outer[0]);
        }
        if outer[outer.len() - 1] > last {
            bounds.push(outer[outer.len() - 1]);
        }
        if bounds.len() <= MAX_ROWS + 1 {
            break;
        }
    }
    let mut rows: Vec<_> = bounds.windows(2).map(|w| (w[0], w[1], 0)).collect();
    for value in latencies.histogram().iter_recorded() {
        let at = value_of(latencies, value.value_iterated_to());
        let row = rows.partition_point(|&(_, to, _)| to <= at);
        if let Some(row) = rows.get_mut(row) {
            row.2 += value.count_since_last_iteration();
        }
    }
    rows
}

fn value_of(latencies: &Latencies, ns: u64) -> u64 {
    latencies.histogram().lowest_equivalent(ns)
}

/// Returns the bounds from the last that is at most `low` to the first above `high`.
fn covering(series: &[u64], low: u64, high: u64) -> Vec<u64> {
    let mut bounds = vec![0];
    let mut decade = 1;
    loop {
        for step in series {
            let bound = step * decade;
            if bound <= low {
                bounds.clear();
            }
            bounds.push(bound);
            if bound > high {
                return bounds;
            }
        }
        decade *= 10;
    }
}

/// Draws eighths of a character. A value above zero is always visible.
fn bar(count: u64, largest: u64) -> String {
    const PARTS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    if count == 0 {
        return String::new();
    }
    let eighths = (count as f64 / largest as f64 * (WIDTH * 8) as f64).round() as usize;
    let eighths = eighths.clamp(1, WIDTH * 8);
    let mut out = "█".repeat(eighths / 8);
    if let Some(part) = (eighths % 8).checked_sub(1).and_then(|i| PARTS.get(i)) {
        out.push(*part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn of(us: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::new();
        us.into_iter().for_each(|us| latencies.record(Duration::from_micros(us)));
        latencies
    }

    #[test]
    fn every_latency_is_in_a_row() {
        for latencies in [of([7]), of(90..4000), of([1, 1_000_000]), of([0, 1, 100_000_000])] {
            let rows = rows(&latencies);
            assert_eq!(rows.iter().map(|r| r.2).sum::<u64>(), latencies.count());
            assert!(rows.len() <= MAX_ROWS, "{} rows", rows.len());
            assert!(rows.windows(2).all(|w| w[0].1 == w[1].0 && w[0].0 < w[0].1));
            assert!(rows[0].2 > 0 && rows.last().unwrap().2 > 0, "{rows:?}");
        }
        assert_eq!(render(&of([])), "");
    }

    #[test]
    fn longest_bar_is_the_largest_share() {
        let text = render(&of((0..1000).map(|i| if i < 900 { 110 } else { 500 })));
        let first = text.lines().next().unwrap();
        assert!(first.contains("100 us -   120 us"), "{text}");
        assert!(first.contains(&"█".repeat(WIDTH)), "{text}");
        assert!(first.contains("90.0 %") && first.ends_with("p50 p90"), "{text}");
        assert!(text.lines().last().unwrap().ends_with("p99 p99.9 p99.99"), "{text}");
    }

    #[test]
    fn rare_latency_is_still_visible() {
        assert_eq!(bar(1, 1_000_000), "▏");
        assert_eq!(bar(0, 1), "");
        assert_eq!(bar(5, 5).chars().count(), WIDTH);
    }
}
