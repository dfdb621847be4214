//! A run as time passes: what the log itself counted and timed, a few times in a second.
//!
//! Latencies here are the log's: from the submission of a group to the moment at which it is durable. Those of records, with
//! their wait in the ring and the wake-up of who waits, are in the report's histogram.

use std::collections::VecDeque;
use std::time::Duration;

use ringwal::{Histogram, Stats, Wal};

/// The shortest time between two points.
const EVERY: Duration = Duration::from_millis(250);
/// Points at most: then every other is dropped, and from there on half as many are taken.
const MOST: usize = 2400;

/// What happened since the point before.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Point {
    /// Seconds since the run began.
    pub seconds: f64,
    /// Records in submitted groups.
    pub records_per_s: f64,
    /// Bytes written, with headers and padding.
    pub written_per_s: f64,
    /// Records in a group, on average.
    pub group_records: f64,
    /// Bytes that were appended and not durable at this moment.
    pub ring_bytes: u64,
    /// Median, 99th and 99.9th percentile of the commit time, in nanoseconds; 0 without commits.
    pub commit: [u64; 3],
    /// Rotations since the run began.
    pub rotations: u64,
}

/// The points of a run.
#[derive(Debug, Clone)]
pub struct Series {
    points: VecDeque<Point>,
    every: Duration,
    first_rotations: u64,
    last: (Duration, Stats, Histogram),
}

/// How the second half of a run compares with the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steadiness {
    /// Median rate of the second half by that of the first.
    pub ratio: f64,
    /// Within 10 %.
    pub steady: bool,
}

impl Series {
    /// Begins with the log as it is now.
    #[must_use]
    pub fn new(wal: &Wal) -> Self {
        let stats = wal.stats();
        Series {
            points: VecDeque::new(),
            every: EVERY,
            first_rotations: stats.rotations,
            last: (Duration::ZERO, stats, wal.histograms().commit_time),
        }
    }

    /// Takes a point if it is time; `passed` since the run began.
    pub fn look(&mut self, passed: Duration, wal: &Wal) -> Option<Point> {
        let (then, before, times) = &self.last;
        if passed < *then + self.every {
            return None;
        }
        let seconds = (passed - *then).as_secs_f64();
        let (now, commits) = (wal.stats(), wal.histograms().commit_time);
        let (records, groups) = (now.records - before.records, now.groups - before.groups);
        let between = between(times, &commits);
        let point = Point {
            seconds: passed.as_secs_f64(),
            records_per_s: records as f64 / seconds,
            written_per_s: (now.group_bytes - before.group_bytes) as f64 / seconds,
            group_records: if groups == 0 { 0.0 } else { records as f64 / groups as f64 },
            ring_bytes: now.ring_bytes,
            commit: [0.5, 0.99, 0.999].map(|share| quantile(&between, share)),
            rotations: now.rotations - self.first_rotations,
        };
        self.last = (passed, now, commits);
        self.points.push_back(point);
        if self.points.len() > MOST {
            let mut odd = false;
            self.points.retain(|_| {
                odd = !odd;
                odd
            });
            self.every *= 2;
        }
        Some(point)
    }

    /// All points, in order.
    pub fn points(&self) -> impl DoubleEndedIterator<Item = &Point> + ExactSizeIterator {
        self.points.iter()
    }

    /// Whether the log was as fast in the end as in the beginning; of at least eight points.
    #[must_use]
    pub fn steadiness(&self) -> Option<Steadiness> {
        let rates: Vec<f64> = self.points.iter().map(|point| point.records_per_s).collect();
        if rates.len() < 8 {
            return None;
        }
        let (first, second) = rates.split_at(rates.len() / 2);
        let median = |rates: &[f64]| {
            let mut rates = rates.to_vec();
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        };
        let (first, second) = (median(first), median(second));
        let ratio = if first > 0.0 { second / first } else { 1.0 };
        Some(Steadiness { ratio, steady: (0.9..=1.0 / 0.9).contains(&ratio) })
    }
}

/// What was recorded between two moments: values and how often each, ascending.
fn between(before: &Histogram, after: &Histogram) -> Vec<(u64, u64)> {
    let mut old = before.buckets().peekable();
    let mut found = Vec::new();
    for (value, count) in after.buckets() {
        while old.peek().is_some_and(|(was, _)| *was < value) {
            old.next();
        }
        let had = old.peek().filter(|(was, _)| *was == value).map_or(0, |(_, count)| *count);
        if count > had {
            found.push((value, count - had));
        }
    }
    found
}

fn quantile(values: &[(u64, u64)], share: f64) -> u64 {
    let all: u64 = values.iter().map(|(_, count)| count).sum();
    let wanted = (all as f64 * share).ceil().max(1.0) as u64;
    let mut seen = 0;
    let at = values.iter().find(|(_, count)| {
        seen += count;
        seen >= wanted
    });
    at.map_or(0, |(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_what_happened_since_the_one_before() {
        let dir = std::env::temp_dir().join(format!("loadgen-series-{}", std::process::id()));
        let wal = Wal::builder(&dir).segment_size(1 << 20).open().unwrap();
        for _ in 0..100 {
            wal.append_durable(b"before").unwrap();
        }
        let mut series = Series::new(&wal);
        assert_eq!(series.look(Duration::from_millis(100), &wal), None);
        for _ in 0..30 {
            wal.append_durable(&[7; 100]).unwrap();
        }
        let point = series.look(Duration::from_millis(500), &wal).unwrap();
        assert!((point.records_per_s - 60.0).abs() < 0.01, "{point:?}");
        assert!(point.commit[0] > 0 && point.commit[0] <= point.commit[2]);
        assert!((point.group_records - 1.0).abs() < 0.01);
        let idle = series.look(Duration::from_millis(1000), &wal).unwrap();
        assert_eq!((idle.records_per_s, idle.commit[2].min(1)), (0.0, idle.commit[0].min(1)));
        for n in 0..2 * MOST as u64 {
            series.look(Duration::from_secs(10 + n), &wal);
        }
        assert!(series.points().len() <= MOST);
        assert!(series.points().is_sorted_by(|a, b| a.seconds < b.seconds));
        wal.close().unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn quantiles_are_of_the_difference() {
        assert_eq!(quantile(&[], 0.5), 0);
        let values = [(10, 98), (50, 1), (90, 1)];
        assert_eq!([0.5, 0.99, 1.0].map(|share| quantile(&values, share)), [10, 50, 90]);
    }
}
