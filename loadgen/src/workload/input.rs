//! A file as the source of records: each line, without its newline, is one record.
//!
//! 1. The reader streams: memory holds at most one buffer and one line, and a line has a limit.
//! 2. Only LF ends a line. An empty line is an empty record. The last line needs no newline. Bytes
//!    need not be UTF-8.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::Error;

const BUFFER: usize = 256 << 10;

/// Reads lines one by one.
#[derive(Debug)]
pub struct Lines<R = BufReader<File>> {
    path: PathBuf,
    reader: R,
    limit: usize,
    /// Lines read.
    lines: u64,
}

impl Lines {
    /// Opens a file of at least one line. Its lines may have at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if it is missing, a directory, unreadable, or empty.
    pub fn open(path: &Path, limit: usize) -> Result<Self, Error> {
        let wrong = |e: io::Error| Error::input(path, format!("{e}; give a file that can be read"));
        // A named pipe is a valid input, so only directories are rejected before the open.
        if std::fs::metadata(path).map_err(wrong)?.is_dir() {
            return Err(Error::input(path, "it is a directory; give a file"));
        }
        let reader = BufReader::with_capacity(BUFFER, File::open(path).map_err(wrong)?);
        let mut lines = Lines { path: path.into(), reader, limit, lines: 0 };
        if lines.reader.fill_buf().map_err(wrong)?.is_empty() {
            return Err(Error::input(path, "it is empty: there are no records in it"));
        }
        Ok(lines)
    }
}

impl<R: BufRead> Lines<R> {
    /// Lines read so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.lines
    }

    /// Puts the next line into `line`. False at the end of the file.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] for a line beyond the limit, [`Error::Input`] if reading fails.
    pub fn next_line(&mut self, line: &mut Vec<u8>) -> Result<bool, Error> {
        line.clear();
        let most = self.limit as u64 + 1;
        let read = self.reader.by_ref().take(most).read_until(b'\n', line);
        read.map_err(|e| Error::input(&self.path, format!("reading failed: {e}")))?;
        if line.is_empty() {
            return Ok(false);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > self.limit {
            return Err(Error::TooLarge {
                what: format!("line {} of {}", self.lines + 1, self.path.display()),
                max: self.limit as u64,
                hint: "raise it with --max-record, or split the line",
            });
        }
        self.lines += 1;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(bytes: &[u8], limit: usize, capacity: usize) -> Result<Vec<Vec<u8>>, Error> {
        let reader = BufReader::with_capacity(capacity, bytes);
        let mut lines = Lines { path: "x".into(), reader, limit, lines: 0 };
        let (mut all, mut line) = (Vec::new(), Vec::new());
        while lines.next_line(&mut line)? {
            all.push(line.clone());
        }
        assert_eq!(lines.count(), all.len() as u64);
        Ok(all)
    }

    #[test]
    fn lines_end_at_lf_only_and_the_last_needs_none() {
        for capacity in [1, 2, 3, 100] {
            let all = split(b"a\r\n\n\xff\xfe\0\nlast", 100, capacity).unwrap();
            let expected: [&[u8]; 4] = [b"a\r", b"", b"\xff\xfe\0", b"last"];
            assert_eq!(all, expected, "capacity {capacity}");
        }
        assert_eq!(split(b"one\n", 100, 2).unwrap(), [b"one"]);
        assert_eq!(split(b"\n\n", 100, 1).unwrap(), [b"", b""]);
        assert!(split(b"", 100, 1).unwrap().is_empty());
    }

    #[test]
    fn a_line_beyond_the_limit_is_an_error_that_names_it() {
        assert!(split(b"1234\n", 4, 2).is_ok());
        let e = split(b"ok\n12345\n", 4, 2).unwrap_err();
        assert!(e.to_string().contains("line 2 of x is larger"), "{e}");
        assert_eq!(e.exit_status(), 2);
    }

    #[test]
    fn files_without_records_are_refused() {
        let e = Lines::open(Path::new("/no/such/file"), 9).unwrap_err();
        assert!(e.to_string().contains("/no/such/file"), "{e}");
        let e = Lines::open(&std::env::temp_dir(), 9).unwrap_err();
        assert!(e.to_string().contains("directory"), "{e}");
        let empty = std::env::temp_dir().join(format!("loadgen-empty-{}", std::process::id()));
        std::fs::write(&empty, b"").unwrap();
        let e = Lines::open(&empty, 9).unwrap_err();
        std::fs::remove_file(&empty).unwrap();
        assert!(e.to_string().contains("no records"), "{e}");
    }
}
