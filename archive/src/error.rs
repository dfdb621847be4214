//! What can go wrong, and what to do about it.

use std::path::{Path, PathBuf};

use ringwal::Lsn;

/// The result of a call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. No error has removed anything from the store or from a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store refused a request, or did not answer in time.
    #[error("cannot {op} {object} in the store: {source}")]
    Store {
        /// What was asked for.
        op: &'static str,
        /// The object or folder.
        object: String,
        /// The reason.
        source: object_store::Error,
    },
    /// The store did not answer in time.
    #[error("the store did not {op} {object} within {seconds} s")]
    Timeout {
        /// What was asked for.
        op: &'static str,
        /// The object or folder.
        object: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The log cannot be read.
    #[error("{0}")]
    Log(#[from] ringwal::Error),
    /// A system call failed.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was asked for.
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The place in the store belongs to another log.
    #[error(
        "{place} holds the archive of another log, {found}, and not of {expected}; give each log a place of its own"
    )]
    AnotherLog {
        /// The place.
        place: String,
        /// The id of the log that is archived.
        expected: String,
        /// The id of the log whose archive it is.
        found: String,
    },
    /// The archive has a segment of this position with another content. The log was restored or
    /// repaired, and has continued in another way since.
    #[error(
        "{object} is of another history of this log: the log was restored or repaired, and continued differently in \
         segment {base} or before it; archive it to a new place"
    )]
    Diverged {
        /// The manifest in the store.
        object: String,
        /// The first position of the segment.
        base: Lsn,
    },
    /// Two archived segments that follow each other are of two histories of the log.
    #[error(
        "{object} does not continue the segment before it, which is of another history of the log; restore up to {base} or \
         from {base} on"
    )]
    AnotherHistory {
        /// The manifest of the second segment.
        object: String,
        /// Its first position.
        base: Lsn,
    },
    /// There is no archive.
    #[error("{place} holds no archive; check the URL and its prefix")]
    NoArchive {
        /// The place.
        place: String,
    },
    /// The archive has no segment.
    #[error(
        "{place} has no segment of the log yet; the log's newest segment is archived when the log has left it"
    )]
    NoSegment {
        /// The place.
        place: String,
    },
    /// An object of the archive is missing.
    #[error(
        "{object} is missing: the archive has no records from {from} to {to}; put the object back, or restore up to {from} \
         or from {to} on"
    )]
    MissingObject {
        /// The object.
        object: String,
        /// The first position that is missing.
        from: Lsn,
        /// The first position after the gap, or the end of the missing segment.
        to: Lsn,
    },
    /// An object of the archive is damaged.
    #[error(
        "{object} is damaged at byte {offset}: {found}; put back a sound copy of it, or restore up to {before}"
    )]
    DamagedObject {
        /// The object.
        object: String,
        /// Where, in bytes from its beginning.
        offset: u64,
        /// What is wrong there.
        found: String,
        /// The first position of its segment: what lies before is not affected.
        before: Lsn,
    },
    /// A newer version of this crate wrote the object.
    #[error("{object} has format {version}, which this version does not know; use a newer version")]
    Unsupported {
        /// The object.
        object: String,
        /// The format that it states.
        version: u32,
    },
    /// The directory for a restored log is not empty.
    #[error(
        "{} is not empty: it has {found}; a log is restored into an empty directory or a new one", path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// The name of an entry.
        found: String,
    },
    /// Another restore is writing to the directory.
    #[error("another restore writes to {}; wait for it, or restore into another directory", path.display())]
    Restoring {
        /// The directory.
        path: PathBuf,
    },
    /// The archive ends before the asked position.
    #[error(
        "the archive ends at {end} and has nothing from {asked} on; choose a lower position, or archive more"
    )]
    BeyondEnd {
        /// The asked position.
        asked: Lsn,
        /// Where the archive ends.
        end: Lsn,
    },
    /// The archive has nothing before the asked position or time, or begins after it.
    #[error("the archive begins at {first}, which is not before what was asked for")]
    BeforeStart {
        /// Where the archive begins.
        first: Lsn,
    },
    /// Retention removed a segment before it was archived.
    #[error(
        "the log removed the segment at {base} before it was archived; let the program that writes the log archive it, so \
         that retention waits, or keep more segments"
    )]
    Overtaken {
        /// The first position of the segment.
        base: Lsn,
    },
    /// The text names no store that this build can use.
    #[error("{url:?} names no store: {reason}")]
    Url {
        /// The text.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting is out of range.
    #[error("{0}")]
    Setting(&'static str),
    /// The archiver was stopped, or the caller ended the call.
    #[error("stopped; what was archived before is complete")]
    Stopped,
}

/// Says of a failed system call what it was for.
pub(crate) fn io<'a>(op: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> Error + 'a {
    move |source| Error::Io { op, path: path.into(), source }
}

impl Error {
    /// Whether an archiver tries again by itself: the store, the disk or the network failed. After
    /// any other error a person must do something first.
    #[must_use]
    pub fn is_retried(&self) -> bool {
        match self {
            Error::Log(e) => matches!(e, ringwal::Error::Io { .. }),
            Error::AnotherLog { .. }
            | Error::Diverged { .. }
            | Error::AnotherHistory { .. }
            | Error::Unsupported { .. }
            | Error::Overtaken { .. }
            | Error::Url { .. }
            | Error::Setting(_)
            | Error::Stopped => false,
            _ => true,
        }
    }
}
