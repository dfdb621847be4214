//! The error type of loadgen, and its exit statuses.

use std::io;
use std::path::{Path, PathBuf};

/// The error that ended a run or prevented it. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An invalid argument, or two arguments that exclude each other.
    #[error("{0}")]
    Usage(String),
    /// The input file cannot be used.
    #[error("cannot use --input {}: {why}", path.display())]
    Input {
        /// The path as given.
        path: PathBuf,
        /// The problem.
        why: String,
    },
    /// The file of --sample cannot be used.
    #[error("cannot use --sample {}: {why}", path.display())]
    Sample {
        /// The path as given.
        path: PathBuf,
        /// The problem.
        why: String,
    },
    /// The file of --replay cannot be used.
    #[error("cannot use --replay {}: {why}", path.display())]
    Replay {
        /// The path as given.
        path: PathBuf,
        /// The problem, with the number of the line.
        why: String,
    },
    /// A line of the input, or a record of --size, does not fit in the log.
    #[error("{what} is larger than the log's largest record, {max} bytes; {hint}")]
    TooLarge {
        /// The record.
        what: String,
        /// The log's limit.
        max: u64,
        /// A hint at how to raise the limit.
        hint: &'static str,
    },
    /// An output file cannot be written.
    #[error("cannot write {option} {}: {source}; give a path that can be written", path.display())]
    Output {
        /// The option that names the file.
        option: &'static str,
        /// The path as given.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The directory of the log cannot be used.
    #[error("cannot use the directory {}: {why}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The problem.
        why: String,
    },
    /// The filesystem has too little free space.
    #[error(
        "{} has {free} bytes free, a run needs {needed}; free some, or give another --dir or a smaller --segment-size",
        path.display()
    )]
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// Needed bytes.
        needed: u64,
    },
    /// The log rejected an operation or failed.
    #[error("{}", of_the_log(.0))]
    Log(ringwal::Error),
    /// An engine other than ringwal failed.
    #[error("the engine failed: {0}")]
    Engine(crate::engine::Failure),
    /// The log does not hold every acknowledged record.
    #[error("verification failed: {0}")]
    Verify(String),
    /// A file of `compare` is not a measurement.
    #[error("cannot compare {}: {why}", path.display())]
    Measurement {
        /// The path as given.
        path: PathBuf,
        /// The problem.
        why: String,
    },
    /// The comparison found worse or missing rows.
    #[error(
        "{worse} of the rows are worse, {missing} of the first are missing in the second; --tolerance and --common allow for that"
    )]
    Worse {
        /// Rows worse beyond noise and tolerance.
        worse: usize,
        /// Rows in the first file only.
        missing: usize,
    },
    /// A signal ended a measurement before it had a result.
    #[error("interrupted: {0}")]
    Interrupted(String),
    /// A measurement ended without a measured value.
    #[error("nothing was measured: {0}")]
    Nothing(String),
    /// A requirement of --require or --for is not met.
    #[error("required and not met: {0}")]
    Required(String),
    /// A run of `ab` failed.
    #[error("the run of {which} failed: {why}")]
    Run {
        /// The command line of the run.
        which: String,
        /// The error of the run.
        why: String,
    },
    /// The raw device could not be measured.
    #[error("the baseline failed: {0}; switch it off with --baseline 0")]
    Baseline(String),
    /// The system rejected an operation that loadgen needs.
    #[error("cannot {what}: {source}")]
    System {
        /// The operation.
        what: &'static str,
        /// The error of the system.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn directory(path: &Path, why: impl ToString) -> Self {
        Error::Directory { path: path.into(), why: why.to_string() }
    }

    pub(crate) fn measurement(path: &Path, why: impl ToString) -> Self {
        Error::Measurement { path: path.into(), why: why.to_string() }
    }

    pub(crate) fn sample(path: &Path, why: impl ToString) -> Self {
        Error::Sample { path: path.into(), why: why.to_string() }
    }

    pub(crate) fn input(path: &Path, why: impl ToString) -> Self {
        Error::Input { path: path.into(), why: why.to_string() }
    }

    pub(crate) fn replay(path: &Path, why: impl ToString) -> Self {
        Error::Replay { path: path.into(), why: why.to_string() }
    }

    /// Returns the exit status: 2 for invalid arguments or files, 1 for a log or machine that
    /// failed, 130 for an interrupted measurement, 99 for a requirement that is not met.
    ///
    /// ```
    /// assert_eq!(loadgen::Error::Usage("--threads is 0".into()).exit_status(), 2);
    /// assert_eq!(loadgen::Error::Verify("a record is missing".into()).exit_status(), 1);
    /// ```
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::Usage(_)
            | Error::Input { .. }
            | Error::Sample { .. }
            | Error::Replay { .. }
            | Error::Measurement { .. }
            | Error::TooLarge { .. }
            | Error::Output { .. }
            | Error::Directory { .. } => 2,
            Error::Log(ringwal::Error::Options(_)) => 2,
            Error::Interrupted(_) => 130,
            Error::Required(_) => 99,
            Error::NoRoom { .. }
            | Error::Log(_)
            | Error::Engine(_)
            | Error::Verify(_)
            | Error::Worse { .. }
            | Error::Nothing(_)
            | Error::Run { .. }
            | Error::Baseline(_)
            | Error::System { .. } => 1,
        }
    }
}

/// Names an option of the library as this command spells it.
const OPTIONS: [(&str, &str); 9] = [
    ("ring_capacity", "--ring"),
    ("segment_size", "--segment-size"),
    ("max_total_bytes", "--max-disk"),
    ("max_record_size", "--max-record"),
    ("commit_delay", "--commit-delay"),
    ("commit_method", "--commit-method"),
    ("durability", "--durability"),
    ("backend", "--backend"),
    ("depth", "--depth"),
];

fn of_the_log(e: &ringwal::Error) -> String {
    let mut text = e.to_string();
    if !matches!(e, ringwal::Error::Options(_)) {
        return format!("the log failed: {text}");
    }
    for (of_library, own) in OPTIONS {
        text = text.replace(of_library, own);
    }
    format!("the log cannot be opened like this: {text}")
}

impl From<ringwal::Error> for Error {
    fn from(e: ringwal::Error) -> Self {
        Error::Log(e)
    }
}

impl From<crate::engine::Failure> for Error {
    fn from(e: crate::engine::Failure) -> Self {
        match e.downcast() {
            Ok(e) => Error::Log(*e),
            Err(e) => Error::Engine(e),
        }
    }
}
