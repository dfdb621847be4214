//! Stable numbers of the errors, for callers in other languages.

use super::Error;

/// The filesystem is full: ENOSPC, or ERROR_DISK_FULL.
const NO_SPACE: i32 = if cfg!(windows) { 112 } else { 28 };

impl Error {
    /// The number of the kind of error. A number keeps its meaning in every later version.
    ///
    /// 0 is no error. A new kind of error gets the next free number. Numbers from 1000 on belong to
    /// bindings, for errors of their own.
    ///
    /// | number | error |
    /// |---|---|
    /// | 1 | `RingFull` |
    /// | 2 | `RecordTooLarge` |
    /// | 3 | `EmptyBatch` |
    /// | 4 | `Poisoned` |
    /// | 5 | `Closed` |
    /// | 6 | `NoSpace` |
    /// | 7 | `Obstructed` |
    /// | 8 | `Locked` |
    /// | 9 | `Corruption` |
    /// | 10 | `Pruned` |
    /// | 11 | `NotAppended` |
    /// | 12 | `NotDurable` |
    /// | 13 | `NoRecord` |
    /// | 14 | `NoOrdinal` |
    /// | 15 | `Truncated` |
    /// | 16 | `InsideBatch` |
    /// | 17 | `ConsumerName` |
    /// | 18 | `ConsumerNameTooLong` |
    /// | 19 | `NameTaken` |
    /// | 20 | `ConsumerInUse` |
    /// | 21 | `NoConsumer` |
    /// | 22 | `ConsumerBackwards` |
    /// | 23 | `ConsumerDamaged` |
    /// | 24 | `Consumed` |
    /// | 25 | `Unsupported` |
    /// | 26 | `ForeignSegment` |
    /// | 27 | `ApplicationVersion` |
    /// | 28 | `NoLog` |
    /// | 29 | `LogExists` |
    /// | 30 | `OtherLog` |
    /// | 31 | `Options` |
    /// | 32 | `BackendUnavailable` |
    /// | 33 | `Io` |
    /// | 34 | `WouldDeadlock` |
    /// | 35 | `Reentrant` |
    /// | 36 | `Forked` |
    /// | 37 | `CellName` |
    /// | 38 | `CellTooLarge` |
    /// | 39 | `CellsFull` |
    /// | 40 | `CellsDamaged` |
    /// | 41 | `CellsFailed` |
    /// | 42 | `LeaseExpired` |
    /// | 43 | `NoTagFloor` |
    /// | 44 | `TooManyTagFloors` |
    /// | 45 | `TagFloorsDamaged` |
    ///
    /// ```
    /// assert_eq!(ringwal::Error::RingFull.code(), 1);
    /// ```
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Error::RingFull => 1,
            Error::RecordTooLarge { .. } => 2,
            Error::EmptyBatch => 3,
            Error::Poisoned { .. } => 4,
            Error::Closed => 5,
            Error::NoSpace => 6,
            Error::Obstructed { .. } => 7,
            Error::Locked { .. } => 8,
            Error::Corruption { .. } => 9,
            Error::Pruned { .. } => 10,
            Error::NotAppended { .. } => 11,
            Error::NotDurable { .. } => 12,
            Error::NoRecord { .. } => 13,
            Error::NoOrdinal { .. } => 14,
            Error::Truncated { .. } => 15,
            Error::InsideBatch { .. } => 16,
            Error::ConsumerName { .. } => 17,
            Error::ConsumerNameTooLong { .. } => 18,
            Error::NameTaken { .. } => 19,
            Error::ConsumerInUse { .. } => 20,
            Error::NoConsumer { .. } => 21,
            Error::ConsumerBackwards { .. } => 22,
            Error::ConsumerDamaged { .. } => 23,
            Error::Consumed { .. } => 24,
            Error::Unsupported { .. } => 25,
            Error::ForeignSegment { .. } => 26,
            Error::ApplicationVersion { .. } => 27,
            Error::NoLog { .. } => 28,
            Error::LogExists { .. } => 29,
            Error::OtherLog { .. } => 30,
            Error::Options(_) => 31,
            Error::BackendUnavailable { .. } => 32,
            Error::Io { .. } => 33,
            Error::WouldDeadlock => 34,
            Error::Reentrant => 35,
            Error::Forked => 36,
            Error::CellName { .. } => 37,
            Error::CellTooLarge { .. } => 38,
            Error::CellsFull { .. } => 39,
            Error::CellsDamaged { .. } => 40,
            Error::CellsFailed { .. } => 41,
            Error::LeaseExpired { .. } => 42,
            Error::NoTagFloor { .. } => 43,
            Error::TooManyTagFloors { .. } => 44,
            Error::TagFloorsDamaged { .. } => 45,
        }
    }

    /// The error number of the system (`errno`), if a system call is the cause. `NoSpace` has that
    /// of a full filesystem, also where a quota is used up.
    ///
    /// ```
    /// assert_eq!(ringwal::Error::Closed.os_error(), None);
    /// ```
    #[must_use]
    pub fn os_error(&self) -> Option<i32> {
        match self {
            Error::Io { source, .. }
            | Error::Obstructed { source, .. }
            | Error::CellsFailed { source, .. } => source.raw_os_error(),
            Error::Poisoned { cause } => cause.os_error,
            Error::NoSpace => Some(NO_SPACE),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::Error;
    use crate::error::{Failure, OptionsError};
    use crate::lsn::Lsn;

    /// One value of every kind, with the name and the number that it has for ever.
    fn pinned() -> Vec<(i32, &'static str, Error)> {
        let (lsn, path, name) = (Lsn::new(8), PathBuf::from("p"), String::from("n"));
        let source = || Arc::new(io::Error::from_raw_os_error(5));
        let failure = Failure::from_io("write", &io::Error::from_raw_os_error(5));
        let option = OptionsError::Conflict { first: "a", second: "b" };
        let (segment, what, prefix) = (name.clone(), name.clone(), name.clone());
        let place = |path: &PathBuf| path.clone();
        let (word, file) = (name.clone(), path.clone());
        vec![
            (1, "RingFull", Error::RingFull),
            (2, "RecordTooLarge", Error::RecordTooLarge { len: 2, max: 1 }),
            (3, "EmptyBatch", Error::EmptyBatch),
            (4, "Poisoned", Error::Poisoned { cause: Arc::new(failure) }),
            (5, "Closed", Error::Closed),
            (6, "NoSpace", Error::NoSpace),
            (7, "Obstructed", Error::Obstructed { path: place(&path), source: source() }),
            (8, "Locked", Error::Locked { path: place(&path), pid: None }),
            (9, "Corruption", Error::corruption("s", 0, 8, "r")),
            (10, "Pruned", Error::Pruned { oldest: lsn }),
            (11, "NotAppended", Error::NotAppended { lsn, end: lsn }),
            (12, "NotDurable", Error::NotDurable { lsn, durable_end: lsn }),
            (13, "NoRecord", Error::NoRecord { lsn }),
            (14, "NoOrdinal", Error::NoOrdinal { ordinal: 1 }),
            (15, "Truncated", Error::Truncated { from: lsn, to: lsn }),
            (16, "InsideBatch", Error::InsideBatch { lsn, first: lsn }),
            (17, "ConsumerName", Error::ConsumerName { name: name.clone() }),
            (
                18,
                "ConsumerNameTooLong",
                Error::ConsumerNameTooLong { name: name.clone(), longest: 1 },
            ),
            (19, "NameTaken", Error::NameTaken { path: place(&path) }),
            (20, "ConsumerInUse", Error::ConsumerInUse { name: name.clone() }),
            (21, "NoConsumer", Error::NoConsumer { name: name.clone() }),
            (22, "ConsumerBackwards", Error::ConsumerBackwards { lsn, position: lsn }),
            (23, "ConsumerDamaged", Error::ConsumerDamaged { file: place(&path) }),
            (24, "Consumed", Error::Consumed { name, position: lsn }),
            (25, "Unsupported", Error::Unsupported { segment: segment.clone(), what }),
            (26, "ForeignSegment", Error::ForeignSegment { segment }),
            (27, "ApplicationVersion", Error::ApplicationVersion { found: 1, expected: 2 }),
            (28, "NoLog", Error::NoLog { path: place(&path), prefix: prefix.clone() }),
            (29, "LogExists", Error::LogExists { path: place(&path), prefix }),
            (
                30,
                "OtherLog",
                Error::OtherLog { path: place(&path), found: [0; 16], expected: [1; 16] },
            ),
            (31, "Options", Error::Options(option)),
            (
                32,
                "BackendUnavailable",
                Error::BackendUnavailable { backend: "b", reason: "r".into() },
            ),
            (33, "Io", Error::io("open", path, io::Error::from_raw_os_error(5))),
            (34, "WouldDeadlock", Error::WouldDeadlock),
            (35, "Reentrant", Error::Reentrant),
            (36, "Forked", Error::Forked),
            (37, "CellName", Error::CellName { name: word.clone() }),
            (38, "CellTooLarge", Error::CellTooLarge { name: word, len: 2, max: 1 }),
            (39, "CellsFull", Error::CellsFull { len: 2, max: 1 }),
            (40, "CellsDamaged", Error::CellsDamaged { file: file.clone() }),
            (41, "CellsFailed", Error::CellsFailed { file: file.clone(), source: source() }),
            (42, "LeaseExpired", Error::LeaseExpired { lsn }),
            (43, "NoTagFloor", Error::NoTagFloor { tag: 7 }),
            (44, "TooManyTagFloors", Error::TooManyTagFloors { max: 1 }),
            (45, "TagFloorsDamaged", Error::TagFloorsDamaged { file }),
        ]
    }

    #[test]
    fn code_of_each_error_keeps_its_number_and_its_row_in_the_documentation() {
        let source = include_str!("code.rs");
        let pinned = pinned();
        for (number, name, error) in &pinned {
            assert_eq!(error.code(), *number, "{name}");
            assert!(format!("{error:?}").starts_with(name), "{number} is {error:?}");
            let row = format!("/// | {number} | `{name}` |\n");
            assert!(source.contains(&row), "no row: {row}");
        }
        // The match has no wildcard, so that each kind has an arm, and each arm a number here.
        let arms = source.split("fn code(").nth(1).unwrap().split("\n    }\n").next().unwrap();
        assert_eq!(arms.matches("Error::").count(), pinned.len());
        let mut numbers: Vec<i32> = pinned.iter().map(|(number, ..)| *number).collect();
        numbers.dedup();
        assert_eq!(numbers, (1..=pinned.len() as i32).collect::<Vec<_>>());
    }

    #[test]
    fn transient_errors_are_those_after_which_the_log_goes_on_by_itself() {
        let transient: Vec<i32> =
            pinned().iter().filter(|(.., e)| e.is_transient()).map(|(n, ..)| *n).collect();
        assert_eq!(transient, [1, 6, 7, 12]);
    }

    #[test]
    fn os_error_is_the_number_of_the_failed_call() {
        let full = io::Error::from_raw_os_error(super::NO_SPACE);
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        let with_number = [4, 7, 33, 41];
        for (number, name, error) in pinned() {
            let expected = with_number.contains(&number).then_some(5);
            let expected = if name == "NoSpace" { Some(super::NO_SPACE) } else { expected };
            assert_eq!(error.os_error(), expected, "{name}");
        }
    }
}
