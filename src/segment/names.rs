//! File names: `<prefix>.<20-digit base LSN>.wal`, `<prefix>.lock`, `<prefix>.commit`,
//! `<prefix>.end`, `<prefix>.consumer.<name>`, `<prefix>.cells`, `<prefix>.<base>.tmp`.

use crate::error::Error;
use crate::format::{MAX_PLAIN_NAME, is_plain_name};

const DIGITS: usize = 20;

/// The names of one log's files. The prefix has been validated with the options.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: String,
}

/// What a name in the directory means to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentName {
    Segment(u64),
    /// A file whose preparation was interrupted, or that waits to be recycled.
    Temporary,
    /// No segment of this log.
    Foreign,
}

/// Bytes of the longest name of a consumer.
const LONGEST_CONSUMER: usize = MAX_PLAIN_NAME;

/// Bytes of the longest file name that common filesystems take.
const LONGEST_NAME: usize = 255;

/// Whether a consumer may have this name.
pub(crate) fn is_consumer_name(name: &str) -> bool {
    is_plain_name(name.as_bytes())
}

/// The end of the name of the file that holds the floors of tags.
const STREAMS: &str = ".streams";

/// Whether a file that holds positions holds the floors of tags.
pub(crate) fn is_streams(name: &str) -> bool {
    name.ends_with(STREAMS)
}

/// Whether a filesystem that ignores case may take these names for the same.
pub(crate) fn equal_but_for_case(a: &str, b: &str) -> bool {
    let folded = |name: &str| name.chars().flat_map(char::to_lowercase).collect::<String>();
    a == b || folded(a) == folded(b)
}

/// The prefix of a segment of any log, and the rest of the segment's name. `None` for other files.
fn split_segment(name: &str) -> Option<(&str, &str)> {
    let (prefix, rest) = name.split_at_checked(name.len().checked_sub(DIGITS + 5)?)?;
    let digits = rest.strip_prefix('.')?.strip_suffix(".wal")?;
    digits.bytes().all(|b| b.is_ascii_digit()).then_some((prefix, rest))
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        Names { prefix: prefix.into() }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn segment(&self, base: u64) -> String {
        format!("{}.{base:020}.wal", self.prefix)
    }

    /// Damage at `lsn` in the segment that starts at `base`.
    pub(crate) fn corruption(&self, base: u64, lsn: u64, reason: &'static str) -> Error {
        Error::corruption(self.segment(base), lsn.saturating_sub(base), lsn, reason)
    }

    pub(crate) fn temporary(&self, base: u64) -> String {
        format!("{}.{base:020}.tmp", self.prefix)
    }

    pub(crate) fn lock(&self) -> String {
        format!("{}.lock", self.prefix)
    }

    /// The end file, which states the durable end.
    pub(crate) fn end(&self) -> String {
        format!("{}.end", self.prefix)
    }

    /// The end file until it is written.
    pub(crate) fn end_temporary(&self) -> String {
        self.temporary(u64::MAX - 2)
    }

    /// The position of the hook on sealed segments.
    pub(crate) fn sealed(&self) -> String {
        format!("{}.sealed", self.prefix)
    }

    /// That file until it is whole.
    pub(crate) fn sealed_temporary(&self) -> String {
        format!("{}.sealed.new", self.prefix)
    }

    /// The cells.
    pub(crate) fn cells(&self) -> String {
        format!("{}.cells", self.prefix)
    }

    /// That file until it is whole.
    pub(crate) fn cells_temporary(&self) -> String {
        format!("{}.cells.new", self.prefix)
    }

    /// The floors of all tags.
    pub(crate) fn streams(&self) -> String {
        format!("{}{STREAMS}", self.prefix)
    }

    /// That file until it is whole.
    pub(crate) fn streams_temporary(&self) -> String {
        format!("{}{STREAMS}.new", self.prefix)
    }

    /// Whether the file holds positions: of a consumer, of the hook on sealed segments, or the
    /// floors of tags.
    pub(crate) fn is_of_positions(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.prefix);
        matches!(rest, Some(".sealed" | STREAMS)) || self.parse_consumer(name).is_some()
    }

    /// The position of a consumer.
    pub(crate) fn consumer(&self, name: &str) -> String {
        format!("{}.consumer.{name}", self.prefix)
    }

    /// That file until it is whole. No consumer's name has a dot.
    pub(crate) fn consumer_temporary(&self, name: &str) -> String {
        format!("{}.consumer.{name}.new", self.prefix)
    }

    /// Bytes of the longest consumer's name whose file names fit, with this prefix.
    pub(crate) fn longest_consumer(&self) -> usize {
        LONGEST_CONSUMER.min(LONGEST_NAME.saturating_sub(self.consumer_temporary("").len()))
    }

    /// The consumer whose position the file holds.
    pub(crate) fn parse_consumer<'a>(&self, file: &'a str) -> Option<&'a str> {
        let name = file.strip_prefix(&self.prefix)?.strip_prefix(".consumer.")?;
        is_consumer_name(name).then_some(name)
    }

    /// A file for probing the backends.
    pub(crate) fn probe(&self) -> String {
        self.temporary(u64::MAX)
    }

    /// A file for timing the commit methods.
    #[cfg(any(test, linux_calls))]
    pub(crate) fn scratch(&self) -> String {
        self.temporary(u64::MAX - 1)
    }

    /// The file that remembers the faster commit method.
    #[cfg(any(test, linux_calls))]
    pub(crate) fn commit(&self) -> String {
        format!("{}.commit", self.prefix)
    }

    /// The name in this log of a segment of a log with another prefix. `None` for other files.
    pub(crate) fn as_if_ours(&self, name: &str) -> Option<String> {
        let (prefix, rest) = split_segment(name)?;
        (prefix != self.prefix).then(|| format!("{}{rest}", self.prefix))
    }

    /// Whether the file proves a log whose prefix differs from this one's in case alone: it is one
    /// of that log's segments, or its lock file.
    pub(crate) fn differ_in_case(&self, name: &str) -> bool {
        let segment = split_segment(name).map(|(prefix, _)| prefix);
        let prefix = segment.or_else(|| name.strip_suffix(".lock"));
        prefix.is_some_and(|other| other != self.prefix && equal_but_for_case(other, &self.prefix))
    }

    /// Whether the file belongs to this log.
    pub(crate) fn are_of(&self, name: &str) -> bool {
        let others = ["lock", "commit", "end", "sealed", "cells", "streams"];
        let unfinished = ["sealed.new", "cells.new", "streams.new"];
        let rest = name.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('.'));
        self.parse(name) != SegmentName::Foreign
            || self.parse_consumer(name.strip_suffix(".new").unwrap_or(name)).is_some()
            || rest.is_some_and(|rest| others.contains(&rest) || unfinished.contains(&rest))
    }

    pub(crate) fn parse(&self, name: &str) -> SegmentName {
        let digits = |ending: &str| {
            let rest = name.strip_prefix(&self.prefix)?.strip_prefix('.')?.strip_suffix(ending)?;
            let plain = rest.len() == DIGITS && rest.bytes().all(|b| b.is_ascii_digit());
            if plain { rest.parse::<u64>().ok() } else { None }
        };
        if let Some(base) = digits(".wal") {
            SegmentName::Segment(base)
        } else if digits(".tmp").is_some() {
            SegmentName::Temporary
        } else {
            SegmentName::Foreign
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_with_any_number_of_dots_finds_its_segments() {
        for prefix in ["wal", "a.b.c", "with space", "x.00000000000000000001.wal"] {
            let names = Names::new(prefix);
            for base in [0, 1, 67_108_864, u64::MAX] {
                assert_eq!(names.parse(&names.segment(base)), SegmentName::Segment(base));
                assert_eq!(names.parse(&names.temporary(base)), SegmentName::Temporary);
            }
            assert_eq!(names.parse(&names.lock()), SegmentName::Foreign);
            assert_eq!(names.parse(&names.commit()), SegmentName::Foreign);
            assert_eq!(names.parse(&names.probe()), SegmentName::Temporary);
            assert_eq!(names.parse(&names.scratch()), SegmentName::Temporary);
            assert_ne!(names.scratch(), names.probe());
            let (sealed, consumer) = (names.sealed_temporary(), names.consumer_temporary("c"));
            let cells = [names.cells(), names.cells_temporary()];
            let streams = [names.streams(), names.streams_temporary()];
            assert!(is_streams(&streams[0]) && names.is_of_positions(&streams[0]));
            let all = [names.segment(7), names.lock(), names.end(), names.commit(), names.sealed()];
            let positions = [&names.consumer("c"), &sealed, &consumer];
            for name in all.iter().chain(positions).chain(&cells).chain(&streams) {
                assert!(names.are_of(name), "{name}");
                assert!(!Names::new("other").are_of(name), "{name}");
            }
        }
    }

    #[test]
    fn names_of_the_longest_prefix_and_consumer_fit_a_filesystem() {
        for len in [1, 176, 177, 178, 199, 200] {
            let names = Names::new(&"x".repeat(len));
            let longest = names.longest_consumer();
            assert!((41..=LONGEST_CONSUMER).contains(&longest));
            assert_eq!(longest == LONGEST_CONSUMER, len <= 177, "{len}");
            let consumer = "c".repeat(longest);
            for name in [names.consumer_temporary(&consumer), names.segment(0), names.sealed()] {
                assert!(name.len() <= LONGEST_NAME, "{len}: {name}");
            }
        }
    }

    #[test]
    fn segment_of_another_prefix_has_a_name_in_this_log() {
        let names = Names::new("WAL");
        let other = "wal.00000000000000000064.wal";
        assert_eq!(names.as_if_ours(other).as_deref(), Some("WAL.00000000000000000064.wal"));
        for name in ["WAL.00000000000000000064.wal", "wal.lock", "", "\u{e9}.wal", "wal.64.wal"] {
            assert_eq!(names.as_if_ours(name), None, "{name}");
        }
    }

    #[test]
    fn log_whose_prefix_differs_in_case_alone_is_known_by_its_segments_and_its_lock() {
        for (ours, theirs) in [("wal", "WAL"), ("\u{e4}.b", "\u{c4}.B"), ("wal", "waL")] {
            let (ours, theirs) = (Names::new(ours), Names::new(theirs));
            for (one, other) in [(&ours, &theirs), (&theirs, &ours)] {
                assert!(one.differ_in_case(&other.lock()) && one.differ_in_case(&other.segment(7)));
                assert!(!one.differ_in_case(&one.lock()) && !one.differ_in_case(&one.segment(7)));
            }
        }
        let names = Names::new("wal");
        for name in ["", "WAL", "WAL.lock.old", "WAL2.lock", "WAL.7.wal", "xWAL.lock", "wal.lock"] {
            assert!(!names.differ_in_case(name), "{name}");
        }
    }

    #[test]
    fn names_of_other_files_are_foreign() {
        let names = Names::new("wal");
        assert_eq!(names.parse_consumer("wal.consumer.a-B_9"), Some("a-B_9"));
        let long = format!("wal.consumer.{}", "x".repeat(65));
        for name in ["", "a.new", "a b", "\u{e9}", "a~"].map(|n| format!("wal.consumer.{n}")) {
            assert_eq!(names.parse_consumer(&name), None, "{name}");
        }
        assert_eq!(names.parse_consumer(&long), None);
        for name in [
            "",
            "wal",
            "wal.wal",
            "wal.1.wal",
            "wal.0000000000000000000a.wal",
            "wal.000000000000000000001.wal",
            "wal.+0000000000000000001.wal",
            "wal.99999999999999999999.wal",
            "other.00000000000000000001.wal",
            "wal.00000000000000000001.wal.bak",
            "wal2.00000000000000000001.wal",
        ] {
            assert_eq!(names.parse(name), SegmentName::Foreign, "{name}");
        }
    }
}
