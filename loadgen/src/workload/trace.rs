//! Recorded arrivals: the time and the size of each record, from the file of `--replay`.
//!
//! ```text
//! # seconds  bytes
//! 0.000000   512
//! 0.000180   4k
//! 1.5ms      100
//! ```
//!
//! 1. A line is one record: its time and its size, separated by white space or a comma. The time
//!    is in seconds, with any fraction, or has a unit. The size is in bytes, as `512` or `4k`.
//!    Empty lines and lines that start with `#` are ignored.
//! 2. Times do not decrease. Only their distance from the first one counts, so that they may be
//!    seconds since 1970.
//! 3. The whole file is read and checked before the log is opened. A record takes 16 bytes of
//!    memory.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::error::Error;
use crate::units::{parse_bytes, parse_duration};

/// Bytes of a line at most. No valid line is longer.
const LONGEST_LINE: u64 = 4096;

/// One record: nanoseconds from the first record, and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at: u64,
    pub(crate) bytes: u32,
}

/// The arrivals of a file, at least one.
#[derive(Debug)]
pub struct Trace {
    entries: Vec<Entry>,
}

impl Trace {
    /// Reads a file whose records have at most `largest` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Replay`] if the file cannot be read, has no record, or has an invalid line, with
    /// the number of that line.
    pub fn open(path: &Path, largest: u64) -> Result<Trace, Error> {
        let wrong =
            |e: std::io::Error| Error::replay(path, format!("{e}; give a file that can be read"));
        // A named pipe is a valid file, so only directories are rejected before the open.
        if std::fs::metadata(path).map_err(wrong)?.is_dir() {
            return Err(Error::replay(path, "it is a directory; give a file"));
        }
        let file = BufReader::with_capacity(256 << 10, File::open(path).map_err(wrong)?);
        Trace::read(file, largest).map_err(|why| Error::replay(path, why))
    }

    fn read(mut text: impl BufRead, largest: u64) -> Result<Trace, String> {
        let (mut entries, mut first, mut last) = (Vec::new(), None, 0_u128);
        let (mut bytes, mut number) = (Vec::new(), 0_u64);
        loop {
            bytes.clear();
            number += 1;
            let at = |why: String| format!("line {number}: {why}");
            let read = text.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes);
            if read.map_err(|e| at(e.to_string()))? == 0 {
                break;
            }
            if bytes.len() as u64 == LONGEST_LINE {
                return Err(at("it is too long; write a time and a size".into()));
            }
            let line = std::str::from_utf8(&bytes);
            let line = line.map_err(|_| at("it is not text; write a time and a size".into()))?;
            let Some((time, bytes)) = parse(line).map_err(at)? else { continue };
            if u64::from(bytes) > largest {
                let why = "larger than --max-record; raise that, or split the record";
                return Err(format!("line {number}: {bytes} bytes are {why}"));
            }
            let first = *first.get_or_insert(time);
            if time < last {
                let why = "it is earlier than the line before; sort the file by time";
                return Err(format!("line {number}: {why}"));
            }
            last = time;
            let late = || format!("line {number}: it is more than a year after the first line");
            let distance = u64::try_from(time - first).ok().filter(|n| *n <= YEAR);
            entries.push(Entry { at: distance.ok_or_else(late)?, bytes });
        }
        if entries.is_empty() {
            return Err("there is no record in it; write lines of a time and a size".into());
        }
        Ok(Trace { entries })
    }

    /// Returns the number of records, at least one.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Returns the bytes of the largest record.
    #[must_use]
    pub fn largest(&self) -> usize {
        self.entries.iter().map(|entry| entry.bytes as usize).max().unwrap_or(0)
    }

    /// Returns the mean number of records per second. Records that all arrive at once count as
    /// those of a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let seconds = self.entries.last().map_or(0.0, |entry| entry.at as f64 / 1e9);
        let records = self.entries.len() as f64;
        if seconds > 0.0 { (records - 1.0).max(1.0) / seconds } else { records }
    }

    /// Creates a trace of nanoseconds and bytes.
    #[cfg(test)]
    pub(crate) fn of(entries: &[(u64, u32)]) -> Trace {
        let entries = entries.iter().map(|&(at, bytes)| Entry { at, bytes }).collect();
        Trace { entries }
    }

    pub(crate) fn entry(&self, number: usize) -> Option<Entry> {
        self.entries.get(number).copied()
    }
}

const YEAR: u64 = 31_557_600_000_000_000;

/// Returns the time in nanoseconds and the bytes of a line; `None` for a comment.
fn parse(line: &str) -> Result<Option<(u128, u32)>, String> {
    const SHAPE: &str = "write a time and a size: 0.25 4k";
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty());
    let (Some(time), Some(size), None) = (words.next(), words.next(), words.next()) else {
        return Err(format!("{line:?} is not one record; {SHAPE}"));
    };
    let bytes = parse_bytes(size)?;
    let large = || format!("{size:?} is more than any log takes");
    Ok(Some((nanoseconds(time)?, u32::try_from(bytes).map_err(|_| large())?)))
}

/// Parses seconds exactly, as a file may have them since 1970, or a time with a unit.
fn nanoseconds(text: &str) -> Result<u128, String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if text.len() < 64 && !whole.is_empty() && digits(whole) && digits(fraction) {
        let nine: String = fraction.chars().chain("000000000".chars()).take(9).collect();
        if let (Ok(seconds), Ok(rest)) = (whole.parse::<u64>(), nine.parse::<u64>()) {
            return Ok(u128::from(seconds) * 1_000_000_000 + u128::from(rest));
        }
    }
    parse_duration(text).map(|time| time.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Result<Vec<(u64, u32)>, String> {
        let trace = Trace::read(text.as_bytes(), u64::MAX)?;
        Ok(trace.entries.iter().map(|entry| (entry.at, entry.bytes)).collect())
    }

    #[test]
    fn times_count_from_the_first_record_and_keep_nanoseconds() {
        let text = "# a comment\n\n 0 100\r\n0.000000001\t0\n.5ms, 4KiB\n0.0005,7\n1s 1k";
        let expected = vec![(0, 100), (1, 0), (500_000, 4096), (500_000, 7), (1_000_000_000, 1024)];
        assert_eq!(entries(text), Ok(expected));
        let since_1970 = "1798761599.123456789 10\n1798761599.1234567895 20\n1798761601 30\n";
        assert_eq!(entries(since_1970), Ok(vec![(0, 10), (0, 20), (1_876_543_211, 30)]));
        let trace = Trace::read("5 1\n6 9\n7 2".as_bytes(), u64::MAX).unwrap();
        assert_eq!((trace.records(), trace.largest(), trace.rate()), (3, 9, 1.0));
        assert_eq!(Trace::read("5 1\n5 1".as_bytes(), u64::MAX).unwrap().rate(), 2.0);
        assert_eq!(Trace::read("5 1".as_bytes(), u64::MAX).unwrap().rate(), 1.0);
    }

    #[test]
    fn bad_line_is_an_error_with_its_number() {
        for (bad, why) in [
            ("x 1", "not a duration"),
            ("1", "one record"),
            ("1 2 3", "one record"),
            ("-1 2", "not a duration"),
            ("1e3 2", "not a duration"),
            (". 2", "not a duration"),
            ("1 2z", "not a size"),
            ("1 -2", "not a size"),
            ("1 5g", "any log"),
            ("0.1 1", "earlier"),
            ("40000000 1", "a year"),
            ("18446744073709551616 1", "too long a duration"),
            ("99999999999999999999999999999 1", "too long a duration"),
        ] {
            let found = entries(&format!("# head\n0.2 1\n{bad}\n9 9\n")).unwrap_err();
            assert!(found.starts_with("line 3: ") && found.contains(why), "{bad}: {found}");
        }
        assert!(entries("\n# only this\n").unwrap_err().contains("no record"));
        let large = Trace::read("0 4096\n1 4097".as_bytes(), 4096).unwrap_err();
        assert!(large.starts_with("line 2: 4097 bytes") && large.contains("--max-record"));
        let long = format!("0 1\n{}\n", "1".repeat(5000));
        assert!(entries(&long).unwrap_err().starts_with("line 2: it is too long"));
        let binary = Trace::read(&b"0 1\n\xff\xfe 1\n"[..], u64::MAX).unwrap_err();
        assert!(binary.starts_with("line 2: it is not text"), "{binary}");
    }
}
