//! The one error of loadgen, and the exit status that it means.

use std::io;
use std::path::{Path, PathBuf};

/// What ended a run, or kept it from starting. Each says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument, or two together, that cannot work.
    #[error("{0}")]
    Usage(String),
    /// The input file cannot be used.
    #[error("cannot use --input {}: {why}", path.display())]
    Input {
        /// As given.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file that records are drawn from cannot be used.
    #[error("cannot use --sample {}: {why}", path.display())]
    Sample {
        /// As given.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A line of the input, or a record of --size, does not fit in the log.
    #[error("{what} is larger than the log's largest record, {max} bytes; {hint}")]
    TooLarge {
        /// Which record.
        what: String,
        /// The log's limit.
        max: u64,
        /// How to raise it.
        hint: &'static str,
    },
    /// A file to be written cannot be.
    #[error("cannot write {option} {}: {source}; give a path that can be written", path.display())]
    Output {
        /// Which option named it.
        option: &'static str,
        /// As given.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The directory of the log cannot be used.
    #[error("cannot use the directory {}: {why}", path.display())]
    Directory {
        /// Where the log was to be.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The filesystem has too little room.
    #[error(
        "{} has {free} bytes free, a run needs {needed}; free some, or give another --dir or a smaller --segment-size",
        path.display()
    )]
    NoRoom {
        /// Where the log was to be.
        path: PathBuf,
        /// What is there.
        free: u64,
        /// What is needed.
        needed: u64,
    },
    /// The log refused or failed.
    #[error("{}", of_the_log(.0))]
    Log(ringwal::Error),
    /// An engine that is not this project's.
    #[error("the engine failed: {0}")]
    Engine(crate::engine::Failure),
    /// The log does not hold what it acknowledged.
    #[error("verification failed: {0}")]
    Verify(String),
    /// A file to be compared is no measurement.
    #[error("cannot compare {}: {why}", path.display())]
    Measurement {
        /// As given.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Rows of a comparison.
    #[error(
        "{worse} of the rows are worse, {missing} of the first are missing in the second; --tolerance and --common allow for that"
    )]
    Worse {
        /// Worse beyond noise and tolerance.
        worse: usize,
        /// In the first file only.
        missing: usize,
    },
    /// A signal ended a measurement before it could conclude anything.
    #[error("interrupted: {0}")]
    Interrupted(String),
    /// A measurement came to its end, and has measured nothing.
    #[error("nothing was measured: {0}")]
    Nothing(String),
    /// What --require or --for asks for does not hold.
    #[error("required and not met: {0}")]
    Required(String),
    /// A run that is one of those of `ab` failed.
    #[error("the run of {which} failed: {why}")]
    Run {
        /// Its command line.
        which: String,
        /// What it said.
        why: String,
    },
    /// The raw device could not be measured.
    #[error("the baseline failed: {0}; switch it off with --baseline 0")]
    Baseline(String),
    /// The system refused something that loadgen itself needs.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
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

    /// 2 for arguments and files that were given wrongly, 1 for a log or a machine that failed, 130 for a measurement that
    /// was interrupted, 99 for a requirement that is not met.
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

/// An option of the library, by the name that this command has for it.
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
