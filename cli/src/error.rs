//! What can go wrong, and the exit status that it means.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The log's own.
    #[error("{0}")]
    Log(#[from] ringwal::Error),
    /// Damage was found, and has been reported.
    #[error("{0}")]
    Damaged(String),
    /// A file of the user's.
    #[error("cannot {op} {}: {source}", path.display())]
    File { op: &'static str, path: PathBuf, source: io::Error },
    /// A record of an import.
    #[error("{place}: {why}")]
    Input { place: String, why: String },
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// Whoever read the output has seen enough.
    #[error("")]
    Enough,
    /// A signal, and what was done until then. Nothing is said of what goes on until there is one.
    #[error("interrupted{}{_0}", if _0.is_empty() { "" } else { ": " })]
    Interrupted(String),
    /// Arguments that do not go together.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Error::Enough => 0,
            Error::Damaged(_) | Error::Log(ringwal::Error::Corruption { .. }) => 1,
            Error::Usage(_) | Error::Log(ringwal::Error::Options(_)) => 2,
            Error::Log(_) | Error::File { .. } | Error::Input { .. } | Error::Output(_) => 3,
            Error::Interrupted(_) => 130,
        }
    }

    /// What to do about it, where the error does not say.
    pub(crate) fn advice(&self) -> Option<&'static str> {
        match self {
            Error::Log(ringwal::Error::Corruption { .. }) => Some(
                "`ringwal verify` lists all damage, `ringwal export --damaged` saves what is intact, `ringwal repair` \
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

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Error::Enough,
            _ => Error::Output(e),
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, Error>;
