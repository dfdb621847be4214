//! Counts what a run did, for the ledger and the published figures.

use std::fmt;
use std::ops::AddAssign;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) lives: u64,
    /// Number of power failures and process deaths.
    pub(super) crashes: u64,
    /// Number of crash images opened and read. The next life uses one of each crash.
    pub(super) images: u64,
    /// Number of recoveries that crashed at least five times in a row.
    pub(super) chains: u64,
    /// Number of operations and reads that failed.
    pub(super) faults: u64,
    pub(super) records: u64,
    /// Number of calls of `truncate_from`.
    pub(super) cuts: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.lives += other.lives;
        self.crashes += other.crashes;
        self.images += other.images;
        self.chains += other.chains;
        self.faults += other.faults;
        self.records += other.records;
        self.cuts += other.cuts;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { lives, crashes, images, chains, faults, records, cuts } = self;
        write!(
            f,
            "{lives} lives, {crashes} crashes, {images} images, {chains} chains of crashed \
             recoveries, {faults} faults, {records} records, {cuts} cuts"
        )
    }
}
