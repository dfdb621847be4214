//! A few lines on a terminal that say how a run goes.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

use crate::series::Point;
use crate::units::{bytes, nanos, rate, si};

/// Points of the sparkline: a minute of four in a second, four in a column.
const SHOWN: usize = 240;
const COLUMN: usize = 4;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The lines; nothing at all if stderr is no terminal or nothing is to be said.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    /// Lines on the screen, above the one that the cursor is in.
    above: usize,
    rates: VecDeque<f64>,
}

impl Progress {
    /// On stderr, unless `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        let shown = !quiet && std::io::stderr().is_terminal();
        Progress { shown, above: 0, rates: VecDeque::new() }
    }

    /// Shows a point of the run, of whose ring so many bytes are the most.
    pub fn tick(&mut self, point: &Point, ring: u64) {
        self.rates.push_back(point.records_per_s);
        if self.rates.len() > SHOWN {
            self.rates.pop_front();
        }
        if self.shown {
            let text = self.lines(point, ring);
            self.clear();
            self.above = text.matches('\n').count();
            let _ = write!(std::io::stderr(), "{text}");
        }
    }

    fn lines(&self, point: &Point, ring: u64) -> String {
        let [p50, p99, p999] = point.commit.map(nanos);
        let full = 100.0 * point.ring_bytes as f64 / ring.max(1) as f64;
        let mut text = format!(
            "{:6.1} s  {:>8} records/s  {:>10} written  {:>8} records a group\n",
            point.seconds,
            si(point.records_per_s),
            rate(point.written_per_s),
            si(point.group_records),
        );
        let _ = writeln!(
            text,
            "  commits: p50 {p50}, p99 {p99}, p99.9 {p999}; ring: {}, {full:.0} %",
            bytes(point.ring_bytes as f64)
        );
        let (least, most) = self
            .rates
            .iter()
            .fold((f64::MAX, 0_f64), |(least, most), &rate| (least.min(rate), most.max(rate)));
        let _ = write!(
            text,
            "  {} {} - {}/s in the last minute",
            sparkline(&self.rates.iter().copied().collect::<Vec<_>>()),
            si(least),
            si(most)
        );
        text
    }

    /// Says what is being done before or after the run.
    pub fn step(&mut self, what: &str) {
        if self.shown {
            self.clear();
            let _ = write!(std::io::stderr(), "{what} ...");
        }
    }

    /// Removes the lines.
    pub fn clear(&mut self) {
        if self.shown {
            let up = "\x1b[1A\x1b[2K".repeat(self.above);
            let _ = write!(std::io::stderr(), "\r\x1b[2K{up}");
            self.above = 0;
        }
    }
}

/// Columns from nothing to the most.
fn sparkline(rates: &[f64]) -> String {
    let columns: Vec<f64> =
        rates.rchunks(COLUMN).rev().map(|c| c.iter().sum::<f64>() / c.len() as f64).collect();
    let most = columns.iter().copied().fold(0.0, f64::max);
    let bar = |rate: &f64| {
        let height = if most > 0.0 { rate / most * (BARS.len() - 1) as f64 } else { 0.0 };
        BARS[(height.round() as usize).min(BARS.len() - 1)]
    };
    columns.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_say_what_the_point_says() {
        let mut progress = Progress::new(true);
        let point = Point {
            seconds: 2.0,
            records_per_s: 2_000.0,
            written_per_s: 3_000_000.0,
            group_records: 12.0,
            ring_bytes: 2 << 20,
            commit: [100_000, 200_000, 3_000_000],
            rotations: 1,
        };
        progress.tick(&point, 8 << 20);
        let text = progress.lines(&point, 8 << 20);
        assert_eq!(text.lines().count(), 3);
        for part in ["2.00 k records/s", "3.00 MB/s written", "p50 100 us", "25 %", "█"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn sparklines_are_as_high_as_the_most() {
        assert_eq!(sparkline(&[]), "");
        assert_eq!(sparkline(&[0.0; 4]), "▁");
        let rising: Vec<f64> = (0..8).flat_map(|n| [f64::from(n); 4]).collect();
        assert_eq!(sparkline(&rising), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[7.0; 5]).chars().count(), 2);
    }
}
