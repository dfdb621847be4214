//! What a run has done, for what is published of it.

use std::fmt;
use std::ops::AddAssign;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) lives: u64,
    /// Times that the machine went off, or the process died.
    pub(super) crashes: u64,
    /// Crash images that were opened and read; one in each crash is then lived in.
    pub(super) images: u64,
    /// Recoveries that were crashed five times in a row or more.
    pub(super) chains: u64,
    /// Operations and reads that failed.
    pub(super) faults: u64,
    pub(super) records: u64,
    /// Calls of `truncate_from`.
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
