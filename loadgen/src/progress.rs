//! One line on a terminal that says how far a run is.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::units::{rate, si};

/// The line; nothing at all if stderr is no terminal or nothing is to be said.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    next: Duration,
    last: (Duration, u64, u64),
}

const EVERY: Duration = Duration::from_millis(250);

impl Progress {
    /// On stderr, unless `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        let shown = !quiet && std::io::stderr().is_terminal();
        Progress { shown, next: EVERY, last: (Duration::ZERO, 0, 0) }
    }

    /// Says how far it is, if it is time.
    pub fn tick(&mut self, passed: Duration, records: u64, bytes: u64) {
        if self.shown && passed >= self.next {
            self.next = passed + EVERY;
            let line = self.line(passed, records, bytes);
            let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
        }
    }

    fn line(&mut self, passed: Duration, records: u64, bytes: u64) -> String {
        let (then, records_then, bytes_then) = self.last;
        let seconds = passed.saturating_sub(then).as_secs_f64().max(1e-6);
        self.last = (passed, records, bytes);
        format!(
            "{:6.1} s  {:>7} records  {:>7} records/s  {:>10} written",
            passed.as_secs_f64(),
            si(records as f64),
            si(records.saturating_sub(records_then) as f64 / seconds),
            rate(bytes.saturating_sub(bytes_then) as f64 / seconds),
        )
    }

    /// Says what is being done after the run.
    pub fn step(&self, what: &str) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K{what} ...");
        }
    }

    /// Removes the line.
    pub fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_since_the_line_before() {
        let mut progress = Progress { shown: false, next: EVERY, last: Default::default() };
        progress.line(Duration::from_secs(1), 1_000, 1_000_000);
        let line = progress.line(Duration::from_secs(2), 3_000, 4_000_000);
        assert!(line.contains("3.00 k records") && line.contains("2.00 k records/s"), "{line}");
        assert!(line.contains("3.00 MB/s written"), "{line}");
    }
}
