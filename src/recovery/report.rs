//! The report of an open.

use std::fmt;

use crate::lsn::Lsn;

/// How the log had ended. `docs/recovery.md` explains each case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryCase {
    /// There was no segment: a new log.
    New,
    /// Segments were prepared, but no group ever became durable.
    Unwritten,
    /// The last group states that the log was closed, or fell idle, with everything durable.
    Marked,
    /// The chain ends and no group lies after it: the writer stopped between two groups.
    Whole,
    /// A group that was never acknowledged was torn. Recovery discarded it and everything after it.
    Torn,
}

/// What opening a log found, and where the log continues.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// How the log had ended.
    pub case: RecoveryCase,
    /// The oldest position kept: the base of the oldest segment.
    pub oldest: Lsn,
    /// The end of the recovered log. Every record below it is durable.
    pub durable_end: Lsn,
    /// Number of application records written in the log's whole life, removed ones included.
    pub next_ordinal: u64,
    /// Number of segments that hold groups.
    pub segments: usize,
    /// Whether a clean close wrote the last group. Advice: recovery scanned the tail all the same.
    pub clean: bool,
    /// Whether a torn tail was discarded at `durable_end`.
    pub cut: bool,
    /// Bytes of the groups discarded: never acknowledged, and void from now on.
    pub discarded_bytes: u64,
    /// Number of the epoch that this open started.
    pub epoch: u64,
    /// The application's version of its records' format; 0 if it set none. See
    /// [`WalBuilder::application_version`](crate::WalBuilder::application_version).
    pub application_version: u32,
    /// Number of unfinished temporary files removed.
    pub temporaries_removed: usize,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}: {} records up to LSN {} in {} segments from LSN {}, epoch {}",
            self.case, self.next_ordinal, self.durable_end, self.segments, self.oldest, self.epoch
        )?;
        if self.cut {
            write!(f, ", {} unacknowledged bytes discarded", self.discarded_bytes)?;
        }
        Ok(())
    }
}
