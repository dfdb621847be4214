//! A run over time: the log's counters and the latencies of records, several times per second.
//!
//! 1. Commit latencies are the log's, from the submission of a group until it is durable. Record
//!    latencies are those of the report; in an open loop they start at the scheduled arrival. A
//!    latency belongs to the interval in which it became known.
//! 2. The intervals together hold each record latency once. Beyond the limit of points, neighbours
//!    are merged.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ringwal::Stats;

use crate::logs::Logs;
use crate::measure::latency::{Intervals, Latencies};

/// Shortest time between two points.
const EVERY: Duration = Duration::from_millis(250);
/// Points at most. Beyond this, pairs are merged, and later points come half as often.
const MOST: usize = 2400;

/// The change since the previous point.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Point {
    /// Seconds since the start of the run.
    pub seconds: f64,
    /// Records in submitted groups.
    pub records_per_s: f64,
    /// Bytes written, with headers and padding.
    pub written_per_s: f64,
    /// Mean records per group.
    pub group_records: f64,
    /// Bytes that were appended and not yet durable.
    pub ring_bytes: u64,
    /// Median, 99th and 99.9th percentile of the commit time, in nanoseconds; 0 without commits.
    pub commit: [u64; 3],
    /// Rotations since the start of the run.
    pub rotations: u64,
    /// Median, 99th and 99.9th percentile and maximum latency of records, in nanoseconds; 0 without
    /// any.
    pub latency: [u64; 4],
    /// Record latencies of this interval.
    pub latencies: u64,
}

/// The record latencies of an interval.
#[derive(Debug, Clone, Default)]
struct Interval {
    from: f64,
    until: f64,
    counts: Vec<(u64, u32)>,
}

impl Interval {
    fn latencies(&self) -> Latencies {
        let mut latencies = Latencies::new();
        latencies.add_counts(&self.counts);
        latencies
    }
}

/// The series of a run.
#[derive(Debug, Clone)]
pub struct Series {
    points: VecDeque<Point>,
    /// The latencies of each point, one entry per point.
    intervals: VecDeque<Interval>,
    recorded: Arc<Intervals>,
    /// All latencies until now.
    all: Latencies,
    every: Duration,
    /// Points at most. Beyond this, neighbours are merged.
    most: usize,
    first_rotations: u64,
    /// Time, counters, and commit times with their counts.
    last: (Duration, Stats, Vec<(u64, u64)>),
}

/// The second half of a run compared with the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steadiness {
    /// Median rate of the second half divided by that of the first.
    pub ratio: f64,
    /// True if the ratio is within 10 %.
    pub steady: bool,
}

impl Series {
    /// Starts a series at the current state of the log.
    #[must_use]
    pub fn new(logs: &Logs, recorded: Arc<Intervals>) -> Self {
        let stats = logs.stats();
        Series {
            points: VecDeque::new(),
            intervals: VecDeque::new(),
            recorded,
            all: Latencies::new(),
            every: EVERY,
            most: MOST,
            first_rotations: stats.rotations,
            last: (Duration::ZERO, stats, logs.commit_times()),
        }
    }

    /// Takes a point if the interval is over. `passed` is the time since the start of the run.
    pub fn look(&mut self, passed: Duration, logs: &Logs) -> Option<Point> {
        if passed < self.last.0 + self.every {
            return None;
        }
        Some(self.take(passed, logs))
    }

    /// Takes the last point at the end of the run. A short rest is merged into the point before it.
    pub fn finish(&mut self, passed: Duration, logs: &Logs) {
        let rest = passed.saturating_sub(self.last.0);
        let point = self.take(passed.max(self.last.0 + Duration::from_nanos(1)), logs);
        if rest < self.every / 2 && self.points.len() > 1 {
            self.join_last();
        } else if point.latencies == 0 && point.records_per_s == 0.0 && rest < self.every {
            self.points.pop_back();
            self.intervals.pop_back();
        }
    }

    fn join_last(&mut self) {
        let last = self.points.pop_back().zip(self.intervals.pop_back());
        let before = self.points.pop_back().zip(self.intervals.pop_back());
        if let (Some(last), Some(before)) = (last, before) {
            let (point, interval) = joined(before, last);
            self.points.push_back(point);
            self.intervals.push_back(interval);
        }
    }

    fn take(&mut self, passed: Duration, logs: &Logs) -> Point {
        let (then, before, times) = &self.last;
        let seconds = (passed - *then).as_secs_f64();
        let (now, commits) = (logs.stats(), logs.commit_times());
        let (records, groups) = (now.records - before.records, now.groups - before.groups);
        let between = between(times, &commits);
        let recorded = self.recorded.take();
        self.all.merge(&recorded);
        let interval = Interval {
            from: then.as_secs_f64(),
            until: passed.as_secs_f64(),
            counts: recorded.counts(),
        };
        let point = Point {
            latency: headline(&recorded),
            latencies: recorded.count(),
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
        self.intervals.push_back(interval);
        if self.points.len() > self.most {
            let mut all = self.points.drain(..).zip(self.intervals.drain(..));
            let mut halved = Vec::new();
            while let Some(first) = all.next() {
                halved.push(match all.next() {
                    Some(second) => joined(first, second),
                    None => first,
                });
            }
            drop(all);
            (self.points, self.intervals) = halved.into_iter().unzip();
            self.every *= 2;
        }
        point
    }

    /// Returns all record latencies until the last point.
    #[must_use]
    pub fn so_far(&self) -> &Latencies {
        &self.all
    }

    /// Returns the record latencies of each interval, with its start and length in seconds.
    pub fn intervals(&self) -> impl Iterator<Item = (f64, f64, Latencies)> {
        self.intervals.iter().map(|i| (i.from, i.until - i.from, i.latencies()))
    }

    /// Returns all points in order.
    pub fn points(&self) -> impl DoubleEndedIterator<Item = &Point> + ExactSizeIterator {
        self.points.iter()
    }

    /// True if the rate of the last two seconds equals that of the two before.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        const HALF: usize = 8;
        let rates: Vec<f64> =
            self.points.iter().rev().take(2 * HALF).map(|p| p.records_per_s).collect();
        let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len().max(1) as f64;
        let (late, early) = rates.split_at(rates.len().min(HALF));
        early.len() == HALF && (mean(late) / mean(early).max(1e-9) - 1.0).abs() < 0.05
    }

    /// Compares the rate at the end of the run with that at the start. Needs at least eight points.
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

/// Returns the median, 99th and 99.9th percentile, and the maximum.
fn headline(latencies: &Latencies) -> [u64; 4] {
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| latencies.quantile_ns(share));
    [p50, p99, p999, latencies.max_ns()]
}

/// Merges two consecutive intervals.
fn joined(first: (Point, Interval), second: (Point, Interval)) -> (Point, Interval) {
    let ((a, mut before), (b, after)) = (first, second);
    let (x, y) = (before.until - before.from, after.until - after.from);
    let mean = |of: fn(&Point) -> f64| (of(&a) * x + of(&b) * y) / (x + y).max(1e-9);
    let mut latencies = before.latencies();
    latencies.add_counts(&after.counts);
    let worse = [0, 1, 2].map(|n| a.commit[n].max(b.commit[n]));
    let point = Point {
        records_per_s: mean(|point| point.records_per_s),
        written_per_s: mean(|point| point.written_per_s),
        group_records: mean(|point| point.group_records),
        commit: if y < x / 2.0 {
            worse
        } else {
            [a.commit[0].midpoint(b.commit[0]), worse[1], worse[2]]
        },
        latency: headline(&latencies),
        latencies: latencies.count(),
        ..b
    };
    before.until = after.until;
    before.counts = latencies.counts();
    (point, before)
}

/// Returns the values recorded between two moments with their counts, ascending.
fn between(before: &[(u64, u64)], after: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut old = before.iter().copied().peekable();
    let mut found = Vec::new();
    for (value, count) in after.iter().copied() {
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
    use ringwal::Wal;

    const MOST: usize = 40;

    #[test]
    fn point_holds_the_change_since_the_previous_point() {
        let dir = std::env::temp_dir().join(format!("loadgen-series-{}", std::process::id()));
        let wal = Wal::builder(&dir).segment_size(1 << 20).open().unwrap();
        let logs = Logs::from(wal.clone());
        for _ in 0..100 {
            wal.append_durable(b"before").unwrap();
        }
        let recorded = Arc::new(Intervals::default());
        let mut series = Series { most: MOST, ..Series::new(&logs, Arc::clone(&recorded)) };
        assert_eq!(series.look(Duration::from_millis(100), &logs), None);
        for _ in 0..30 {
            wal.append_durable(&[7; 100]).unwrap();
        }
        recorded.record(0, Duration::from_millis(3));
        let point = series.look(Duration::from_millis(500), &logs).unwrap();
        assert_eq!((point.latencies, point.latency[3] / 100_000), (1, 30));
        assert!((point.records_per_s - 60.0).abs() < 0.01, "{point:?}");
        assert!(point.commit[0] > 0 && point.commit[0] <= point.commit[2]);
        assert!((point.group_records - 1.0).abs() < 0.01);
        let idle = series.look(Duration::from_millis(1000), &logs).unwrap();
        assert_eq!((idle.records_per_s, idle.commit[2].min(1)), (0.0, idle.commit[0].min(1)));
        for n in 0..2 * MOST as u64 {
            recorded.record(n as usize, Duration::from_micros(n + 1));
            series.look(Duration::from_secs(10 + n), &logs);
        }
        assert!(series.points().len() <= MOST);
        assert!(series.points().is_sorted_by(|a, b| a.seconds < b.seconds));
        recorded.record(0, Duration::from_secs(2));
        let over = Duration::from_secs(10 + 2 * MOST as u64) + Duration::from_millis(1);
        series.finish(over, &logs);
        // After merging, the intervals still hold each latency once and cover each moment.
        let all: u64 = series.intervals().map(|(_, _, latencies)| latencies.count()).sum();
        assert_eq!((all, series.so_far().count()), (2 * MOST as u64 + 2, all));
        let mut at = 0.0;
        for (from, length, _) in series.intervals() {
            assert!((from - at).abs() < 1e-6 && length > 0.0, "{from} after {at}");
            at = from + length;
        }
        assert!((at - over.as_secs_f64()).abs() < 1e-6);
        assert_eq!(series.points().next_back().unwrap().latency[3] / 10_000_000, 200);
        wal.close().unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn quantiles_cover_only_the_interval() {
        assert_eq!(quantile(&[], 0.5), 0);
        let values = [(10, 98), (50, 1), (90, 1)];
        assert_eq!([0.5, 0.99, 1.0].map(|share| quantile(&values, share)), [10, 50, 90]);
    }
}
