//! What opening found.

use std::fmt;

use crate::lsn::Lsn;

/// How the log had ended. `docs/recovery.md` has a paragraph for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryCase {
    /// There was no segment: a new log.
    New,
    /// Segments were prepared, but no group ever became durable.
    Unwritten,
    /// The last group says that the log was closed, or fell idle, with everything durable.
    Marked,
    /// The chain ends and nothing lies behind it: the writer stopped between two groups.
    Whole,
    /// A group that was never acknowledged was torn; it and what followed it were cut.
    Torn,
}

/// What opening a log found, and where it goes on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// How the log had ended.
    pub case: RecoveryCase,
    /// The oldest position that is kept: the base of the oldest segment.
    pub oldest: Lsn,
    /// The first position behind what was recovered. All below it is durable.
    pub durable_end: Lsn,
    /// Application records written in the log's whole life, removed ones included.
    pub next_ordinal: u64,
    /// Segments that hold groups.
    pub segments: usize,
    /// The last group was written by a clean close. Advice: the tail was scanned all the same.
    pub clean: bool,
    /// Whether a torn tail was cut at `durable_end`.
    pub cut: bool,
    /// Bytes of groups behind the cut: never acknowledged, and void from now on.
    pub discarded_bytes: u64,
    /// Number of the epoch that this open began.
    pub epoch: u64,
    /// What the application called the form of its records; 0 if it did not say. See
    /// [`WalBuilder::application_version`](crate::WalBuilder::application_version).
    pub application_version: u32,
    /// Unfinished temporary files that were removed.
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
            write!(f, ", {} unacknowledged bytes cut", self.discarded_bytes)?;
        }
        Ok(())
    }
}
