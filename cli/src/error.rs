//! Errors and their exit status.

use std::io;
use std::path::PathBuf;

use ringwal::{Error as Log, OptionsError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An error of the log.
    #[error("{0}")]
    Log(#[from] ringwal::Error),
    /// An error of an archive.
    #[error("{0}")]
    Archive(ringwal_archive::Error),
    /// Damage was found, and has been reported.
    #[error("{0}")]
    Damaged(String),
    /// A file that the user named.
    #[error("cannot {op} {}: {source}", path.display())]
    File { op: &'static str, path: PathBuf, source: io::Error },
    /// A record of an import.
    #[error("{place}: {why}")]
    Input { place: String, why: String },
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// The reader of the output has closed the pipe.
    #[error("")]
    Enough,
    /// A signal, and what was done until then; empty for a command without an end.
    #[error("interrupted{}{_0}", if _0.is_empty() { "" } else { ": " })]
    Interrupted(String),
    /// Arguments that do not go together.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// The system refuses a thread.
    pub(crate) fn no_thread(source: io::Error) -> Self {
        Error::File { op: "start", path: "a thread".into(), source }
    }

    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Error::Enough => 0,
            Error::Damaged(_) | Error::Log(ringwal::Error::Corruption { .. }) => 1,
            Error::Archive(e) => archive_status(e),
            Error::Usage(_) | Error::Log(ringwal::Error::Options(_)) => 2,
            Error::Log(_) | Error::File { .. } | Error::Input { .. } | Error::Output(_) => 3,
            Error::Interrupted(_) => 130,
        }
    }

    /// The error in words that name the command's own options.
    pub(crate) fn message(&self) -> String {
        let Error::Log(e) = self else { return self.to_string() };
        match e {
            Log::Options(OptionsError::Prefix { prefix, why }) => {
                format!("--prefix {prefix:?} {why}; choose another")
            }
            Log::Options(OptionsError::Mode { mode, must, .. }) => {
                format!("--mode is {mode:04o}, but must be {must}")
            }
            Log::NotDurable { lsn, durable_end } => {
                format!(
                    "{lsn} lies beyond the durable end of the log, {durable_end}; choose a lower position"
                )
            }
            Log::Pruned { oldest } => {
                format!("that position was removed by retention; choose one from {oldest} on")
            }
            Log::NoConsumer { name } => {
                format!(
                    "there is no consumer {name}; `ringwal consumers` lists those that there are"
                )
            }
            Log::ConsumerDamaged { file } => format!(
                "the position in {} is damaged, or of another log; restore the file, or let `ringwal remove-consumer` \
                 remove it",
                file.display()
            ),
            Log::CellsDamaged { file } => format!(
                "the cells in {} are damaged, or of another log; restore the file from a backup, or let `ringwal \
                 repair` move it away: every cell is then empty",
                file.display()
            ),
            Log::ApplicationVersion { found, expected } => {
                format!("the log's application version is {found}, and not {expected}")
            }
            // Here nothing waits until there is room, as in a program that appends.
            Log::NoSpace => "the disk is full, or a quota is; make room and repeat".into(),
            Log::RecordTooLarge { len, .. } => {
                format!("a record of {len} bytes is larger than the log's segments take")
            }
            e => e.to_string(),
        }
    }

    /// The remedy, if the message does not name one.
    pub(crate) fn advice(&self) -> Option<&'static str> {
        match self {
            Error::Log(ringwal::Error::Corruption { .. }) => Some(
                "`ringwal verify` lists all damage, `ringwal export --damaged` saves what is intact, `ringwal salvage` copies \
                 it into a new log, `ringwal repair` \
                 says how the log can be made to open again",
            ),
            Error::Log(ringwal::Error::Locked { .. }) => {
                Some("stop the writer first, or use a command that only reads")
            }
            Error::Log(ringwal::Error::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Some("is it the right directory, and the right --prefix?")
            }
            Error::Log(ringwal::Error::Io { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some("run it as the user that writes the log, or as root")
            }
            Error::Log(ringwal::Error::ApplicationVersion { .. }) => {
                Some("a log that is there keeps its version: leave --application-version out")
            }
            _ => None,
        }
    }
}

/// The exit status for an error of an archive.
fn archive_status(e: &ringwal_archive::Error) -> u8 {
    use ringwal_archive::Error as Archive;

    match e {
        Archive::MissingObject { .. }
        | Archive::DamagedObject { .. }
        | Archive::AnotherHistory { .. } => 1,
        Archive::Url { .. }
        | Archive::NotEmpty { .. }
        | Archive::Restoring { .. }
        | Archive::BeyondEnd { .. }
        | Archive::BeforeStart { .. }
        | Archive::Setting(_)
        | Archive::AnotherLog { .. }
        | Archive::Diverged { .. } => 2,
        _ => 3,
    }
}

impl From<ringwal_archive::Error> for Error {
    fn from(e: ringwal_archive::Error) -> Self {
        match e {
            ringwal_archive::Error::Log(e) => Error::Log(e),
            ringwal_archive::Error::Stopped => Error::Interrupted(String::new()),
            e => Error::Archive(e),
        }
    }
}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Error::Enough,
            _ => Error::Output(e),
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, Error>;
