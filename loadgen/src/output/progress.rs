//! Progress lines on a terminal.
//!
//! Without a terminal, or on one that cannot move its cursor, nothing is written. The terminal
//! truncates long lines instead of wrapping them, because later lines are drawn over them in place.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::measure::series::Point;
use crate::stop::lock;
use crate::units::{bytes, nanos, rate, si};

/// Points of the sparkline: a minute at four per second, four per column.
const SHOWN: usize = 240;
const COLUMN: usize = 4;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Characters of a progress bar.
const WIDTH: usize = 24;
const REDRAW: Duration = Duration::from_millis(250);

/// The lines. Empty if stderr is not a terminal or the run is quiet.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    /// Lines on the screen above the line of the cursor.
    above: usize,
    rates: VecDeque<f64>,
    ticker: Option<Ticker>,
}

/// The completed part, for a bar.
#[derive(Debug, Clone)]
pub enum Part {
    /// Unknown: only the elapsed time is shown.
    Unknown,
    /// Takes this long.
    Of(Duration),
    /// A share from 0 to 1.
    Share(f64),
    /// Thousandths, which another thread counts.
    Counted(Arc<AtomicU32>),
}

impl Part {
    fn share(&self, since: Duration) -> Option<f64> {
        match self {
            Part::Unknown => None,
            Part::Of(whole) => Some(since.as_secs_f64() / whole.as_secs_f64().max(1e-9)),
            Part::Share(share) => Some(*share),
            Part::Counted(thousandths) => {
                Some(f64::from(thousandths.load(Ordering::Relaxed)) / 1000.0)
            }
        }
    }
}

impl Progress {
    /// Progress on stderr, unless `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let shown = !quiet && !dumb && std::io::stderr().is_terminal();
        Progress { shown, above: 0, rates: VecDeque::new(), ticker: None }
    }

    /// Shows a point of the run. `ring` is the size of the ring in bytes; the run ends after
    /// `limit`, if known.
    pub fn tick(&mut self, point: &Point, ring: u64, limit: Option<Duration>) {
        self.rates.push_back(point.records_per_s);
        if self.rates.len() > SHOWN {
            self.rates.pop_front();
        }
        if self.shown {
            let text = self.lines(point, ring, limit);
            self.clear();
            self.above = text.matches('\n').count();
            draw(&text);
        }
    }

    fn lines(&self, point: &Point, ring: u64, limit: Option<Duration>) -> String {
        let [p50, p99, p999] = point.commit.map(nanos);
        // Bytes that are not durable count up to the appended end and may exceed the ring.
        let full = (100.0 * point.ring_bytes as f64 / ring.max(1) as f64).min(100.0);
        let mut text = match limit.map(|limit| limit.as_secs_f64()) {
            Some(limit) => {
                format!("{} {:.0} of {limit:.0} s\n", meter(point.seconds / limit), point.seconds)
            }
            None => format!("{:.0} s\n", point.seconds),
        };
        let _ = writeln!(
            text,
            "  {} records/s, {} written, {} records a group",
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
        let _ = writeln!(text, "  {} - {} records/s in the last minute:", si(least), si(most));
        let rates: Vec<f64> = self.rates.iter().copied().collect();
        let _ = write!(text, "  {}", sparkline(&rates));
        text
    }

    /// Shows a step before or after the run, and its completed part.
    pub fn step(&mut self, what: &str, part: Part) {
        self.ticker = None;
        if self.shown {
            self.clear();
            self.ticker = Ticker::start(what.to_owned(), part);
        }
    }

    /// Removes the lines.
    pub fn clear(&mut self) {
        self.ticker = None;
        if self.shown {
            let up = "\x1b[1A\x1b[2K".repeat(self.above);
            let _ = write!(std::io::stderr(), "\r\x1b[2K{up}");
            self.above = 0;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // The lines are removed before an error message, too.
        self.clear();
    }
}

/// Draws with line wrapping disabled, and enables it again.
fn draw(text: &str) {
    let _ = write!(std::io::stderr(), "\x1b[?7l{text}\x1b[?7h");
}

/// Formats `what [####    ] 40 %, 3 s`
fn step_line(what: &str, part: &Part, since: Duration) -> String {
    let mut text = match part.share(since) {
        Some(share) => format!("{} {what}", meter(share)),
        None => format!("{what} ..."),
    };
    if since >= Duration::from_secs(1) {
        let _ = write!(text, ", {} s", since.as_secs());
    }
    text
}

fn meter(share: f64) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let filled = (share * WIDTH as f64) as usize;
    format!("[{}{}]{:4.0} %", "█".repeat(filled), " ".repeat(WIDTH - filled), share * 100.0)
}

/// Redraws a step until it is dropped.
#[derive(Debug)]
struct Ticker {
    over: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(what: String, part: Part) -> Option<Ticker> {
        let begun = Instant::now();
        draw(&step_line(&what, &part, Duration::ZERO));
        let over = Arc::new((Mutex::new(false), Condvar::new()));
        let seen = Arc::clone(&over);
        let body = move || {
            let mut ended = lock(&seen.0);
            while !*ended {
                let waited = seen.1.wait_timeout(ended, REDRAW);
                ended = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
                if !*ended {
                    draw(&format!("\r\x1b[2K{}", step_line(&what, &part, begun.elapsed())));
                }
            }
        };
        let spawned = std::thread::Builder::new().name("progress".into()).spawn(body);
        Some(Ticker { over, thread: Some(spawned.ok()?) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *lock(&self.over.0) = true;
        self.over.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns columns from zero to the maximum.
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
    fn lines_show_the_figures_of_the_point() {
        let mut progress = Progress::new(true);
        let point = Point {
            seconds: 2.0,
            records_per_s: 2_000.0,
            written_per_s: 3_000_000.0,
            group_records: 12.0,
            ring_bytes: 2 << 20,
            commit: [100_000, 200_000, 3_000_000],
            rotations: 1,
            ..Point::default()
        };
        let limit = Some(Duration::from_secs(8));
        progress.tick(&point, 8 << 20, limit);
        let text = progress.lines(&point, 8 << 20, limit);
        assert_eq!(text.lines().count(), 5);
        for part in
            ["2 of 8 s", "  25 %", "2.00 k records/s", "3.00 MB/s written", "p50 100 us", "█"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        // A minute of rates fits into eighty columns.
        progress.rates.extend([1e7; SHOWN]);
        assert!(progress.lines(&point, 8 << 20, limit).lines().all(|l| l.chars().count() < 80));
        assert!(progress.lines(&point, 8 << 20, None).starts_with("2 s\n"));
    }

    #[test]
    fn step_with_a_known_end_has_a_bar() {
        let two = Duration::from_secs(2);
        assert_eq!(step_line("verifying", &Part::Unknown, Duration::ZERO), "verifying ...");
        let text = step_line("warming up", &Part::Of(Duration::from_secs(4)), two);
        assert!(text.contains("█ ") || text.contains("]  50 % warming up, 2 s"), "{text}");
        assert_eq!(text.matches('█').count(), WIDTH / 2);
        let counted = Arc::new(AtomicU32::new(2000));
        assert!(step_line("x", &Part::Counted(counted), two).contains("] 100 % x"));
        assert!(meter(f64::NAN).contains("   0 %"));
    }

    #[test]
    fn sparkline_scales_to_its_maximum() {
        assert_eq!(sparkline(&[]), "");
        assert_eq!(sparkline(&[0.0; 4]), "▁");
        let rising: Vec<f64> = (0..8).flat_map(|n| [f64::from(n); 4]).collect();
        assert_eq!(sparkline(&rising), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[7.0; 5]).chars().count(), 2);
    }
}
