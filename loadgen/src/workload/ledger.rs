//! A digest of all appended records, a few bytes per segment, to verify a replay.
//!
//! 1. A record is entered as a 64-bit hash over its LSN and payload. The ledger adds the hashes up,
//!    so the order of entry does not matter.
//! 2. Replay yields records by rising LSN. So equal sums and counts mean the same records in the
//!    same order. A missing, altered, doubled or exchanged record changes the sum, except with
//!    probability 2^-64.
//! 3. Each producer checks that its own LSNs rise: the log keeps the order of its calls.
//! 4. The ledger keeps one sum per stretch of the log, each one segment. So a check can omit the
//!    segments that retention removed.

use std::collections::BTreeMap;

use ringwal::Lsn;

use crate::workload::payload::hash;

/// The division of a log's positions into stretches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretches {
    /// First position of the run. Records below are not the run's.
    pub from: u64,
    /// A segment boundary at or below `from`.
    pub origin: u64,
    /// Positions in one stretch.
    pub len: u64,
    /// Stretches that retention can keep at most. The ledger merges older ones into one sum.
    pub kept: usize,
}

/// Count and sum of the records in one stretch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    /// Records.
    pub records: u64,
    /// The sum of their hashes.
    pub sum: u64,
}

impl Digest {
    #[inline]
    fn enter(&mut self, lsn: u64, payload: &[u8]) {
        self.records += 1;
        self.sum = self.sum.wrapping_add(hash(lsn, payload));
    }

    fn merge(&mut self, other: Digest) {
        self.records += other.records;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// The records of one thread or, merged, of a run.
#[derive(Debug, Clone)]
pub struct Ledger {
    stretches: Stretches,
    /// The stretch of the last entry, which is nearly always that of the next.
    current: (u64, Digest),
    others: BTreeMap<u64, Digest>,
    /// Records of stretches that retention removed earlier.
    forgotten: u64,
}

impl Ledger {
    /// Creates an empty ledger.
    #[must_use]
    pub fn new(stretches: Stretches) -> Self {
        let stretches = Stretches { len: stretches.len.max(1), ..stretches };
        Ledger { stretches, current: (0, Digest::default()), others: BTreeMap::new(), forgotten: 0 }
    }

    fn stretch(&self, lsn: u64) -> u64 {
        lsn.saturating_sub(self.stretches.origin) / self.stretches.len
    }

    /// Enters a record.
    #[inline]
    pub fn enter(&mut self, lsn: Lsn, payload: &[u8]) {
        let lsn = lsn.as_u64();
        let stretch = self.stretch(lsn);
        if stretch != self.current.0 {
            self.turn_to(stretch);
        }
        self.current.1.enter(lsn, payload);
    }

    fn turn_to(&mut self, stretch: u64) {
        let (old, digest) = self.current;
        if digest.records > 0 {
            self.others.insert(old, digest);
        }
        self.current = (stretch, self.others.remove(&stretch).unwrap_or_default());
        while self.others.len() > self.stretches.kept
            && let Some(oldest) = self.others.first_entry()
        {
            self.forgotten += oldest.remove().records;
        }
    }

    /// Adds the records of another thread.
    pub fn merge(&mut self, other: &Ledger) {
        for (&stretch, &digest) in other.others.iter().chain([(&other.current.0, &other.current.1)])
        {
            if digest.records > 0 {
                self.others.entry(stretch).or_default().merge(digest);
            }
        }
        self.forgotten += other.forgotten;
    }

    /// Returns the sum of all entries.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.forgotten
            + self.current.1.records
            + self.others.values().map(|d| d.records).sum::<u64>()
    }

    /// Starts a check of a replay against these records.
    #[must_use]
    pub fn check(mut self) -> Check {
        self.turn_to(u64::MAX);
        let found = Ledger::new(Stretches { kept: usize::MAX, ..self.stretches });
        Check { expected: self, found, first: None, last: None }
    }
}

/// A check of a replay against a [`Ledger`].
#[derive(Debug)]
pub struct Check {
    expected: Ledger,
    found: Ledger,
    first: Option<Lsn>,
    last: Option<Lsn>,
}

/// The result of a replay that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Records compared.
    pub records: u64,
    /// Records of the run that retention removed.
    pub removed: u64,
    /// Records in a partly removed stretch: counted and in order, but not compared.
    pub uncompared: u64,
}

impl Check {
    /// Checks the next record of the replay.
    ///
    /// # Errors
    ///
    /// A description, if the record does not follow its predecessor.
    #[inline]
    pub fn see(&mut self, lsn: Lsn, payload: &[u8]) -> Result<(), String> {
        if let Some(last) = self.last
            && lsn <= last
        {
            return Err(format!("the record at {lsn} is replayed after that at {last}"));
        }
        self.first = self.first.or(Some(lsn));
        self.last = Some(lsn);
        self.found.enter(lsn, payload);
        Ok(())
    }

    /// Returns the verdict for a log whose oldest kept position is `oldest`.
    ///
    /// # Errors
    ///
    /// A description of the difference.
    pub fn finish(mut self, oldest: Lsn) -> Result<Verified, String> {
        let Stretches { from, origin, len, .. } = self.expected.stretches;
        self.found.turn_to(u64::MAX);
        let oldest = oldest.as_u64();
        let pruned = oldest > from;
        // Only a stretch that is kept as a whole can be compared.
        let whole = if pruned { oldest.saturating_sub(origin).div_ceil(len) } else { 0 };
        let mut verified = Verified { records: 0, removed: self.expected.forgotten, uncompared: 0 };
        if self.expected.forgotten > 0 && !pruned {
            return Err("records were forgotten that the log still keeps".into());
        }
        for (&stretch, expected) in &self.expected.others {
            let found = self.found.others.remove(&stretch).unwrap_or_default();
            let name = || {
                let start = origin + stretch * len;
                format!("between LSN {} and {}", start.max(from), start.saturating_add(len))
            };
            if stretch < whole {
                if found.records > expected.records {
                    return Err(differ(&name(), *expected, found));
                }
                verified.removed += expected.records - found.records;
                verified.uncompared += found.records;
            } else if found == *expected {
                verified.records += found.records;
            } else {
                return Err(differ(&name(), *expected, found));
            }
        }
        if let Some((_, extra)) = self.found.others.pop_first() {
            let first = self.first.unwrap_or_default();
            return Err(format!(
                "{} records were replayed where none was appended (the replay began at {first})",
                extra.records
            ));
        }
        if verified.records + verified.uncompared == 0 && self.expected.records() > 0 {
            return Err("none of the records is in the log any more".into());
        }
        Ok(verified)
    }
}

fn differ(place: &str, expected: Digest, found: Digest) -> String {
    if expected.records == found.records {
        format!("{place}, {} records were replayed, but not the ones appended", found.records)
    } else {
        let (found, expected) = (found.records, expected.records);
        format!("{place}, {found} records were replayed, but {expected} were appended")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: u64 = 1000;
    const ONE: Stretches = Stretches { from: FROM, origin: 0, len: u64::MAX, kept: usize::MAX };
    const SEGMENTS: Stretches = Stretches { len: 64, ..ONE };

    type Log = Vec<(u64, Vec<u8>)>;

    fn log() -> Log {
        let payload = |i: u64| vec![i as u8; (i % 5) as usize];
        (0..100).map(|i| (FROM + i * 16, payload(i))).collect()
    }

    fn replay(stretches: Stretches, log: &Log, oldest: u64) -> Result<Verified, String> {
        // Three producers, which finish in a different order.
        let mut producers = vec![Ledger::new(stretches); 3];
        for (i, (lsn, payload)) in self::log().iter().enumerate() {
            producers[i * 7 % 3].enter(Lsn::new(*lsn), payload);
        }
        let mut ledger = Ledger::new(stretches);
        producers.iter().rev().for_each(|p| ledger.merge(p));
        assert_eq!(ledger.records(), 100);
        let mut check = ledger.check();
        for (lsn, payload) in log {
            check.see(Lsn::new(*lsn), payload)?;
        }
        check.finish(Lsn::new(oldest))
    }

    fn all(change: impl Fn(&mut Log)) {
        for stretches in [ONE, SEGMENTS] {
            let mut changed = log();
            change(&mut changed);
            let verdict = replay(stretches, &changed, 0);
            assert!(verdict.is_err(), "{verdict:?}");
        }
    }

    #[test]
    fn replay_of_every_record_is_verified() {
        let verified = Verified { records: 100, removed: 0, uncompared: 0 };
        assert_eq!(replay(ONE, &log(), 0), Ok(verified));
        assert_eq!(replay(SEGMENTS, &log(), 0), Ok(verified));
        assert_eq!(replay(SEGMENTS, &log(), FROM), Ok(verified));
    }

    #[test]
    fn missing_record_is_found() {
        (0..100).for_each(|i| all(|log| drop(log.remove(i))));
        all(|log| log.clear());
        all(|log| log.truncate(50));
    }

    #[test]
    fn altered_record_is_found() {
        for i in (0..100).filter(|i| i % 5 > 0) {
            all(|log| log[i].1[0] ^= 0x10);
        }
        // Longer, shorter, and at another position.
        all(|log| log[7].1.push(0));
        all(|log| log[7].1.truncate(1));
        all(|log| log[7].0 += 8);
    }

    #[test]
    fn duplicate_record_is_found() {
        all(|log| log.insert(8, log[7].clone()));
        all(|log| log.insert(8, (log[7].0 + 8, log[7].1.clone())));
        all(|log| log.push((FROM + 100 * 16, vec![99; 4])));
    }

    #[test]
    fn exchanged_records_are_found() {
        // Exchanges records in the order of the replay, and payloads between rising LSNs.
        all(|log| log.swap(6, 7));
        all(|log| {
            let payload = log[6].1.clone();
            log[6].1 = std::mem::replace(&mut log[7].1, payload);
        });
    }

    #[test]
    fn removed_prefix_is_omitted_and_the_rest_compared() {
        // Segments of 64 positions: 17 of them end at 1088, before the seventh record.
        let oldest = 17 * 64;
        let kept = |log: &Log| log.iter().filter(|r| r.0 >= oldest).cloned().collect::<Log>();
        let verified = replay(SEGMENTS, &kept(&log()), oldest).unwrap();
        assert_eq!(verified, Verified { records: 94, removed: 6, uncompared: 0 });
        let mut damaged = kept(&log());
        damaged[50].1.push(1);
        assert!(replay(SEGMENTS, &damaged, oldest).is_err());
        damaged = kept(&log());
        damaged.remove(0);
        assert!(replay(SEGMENTS, &damaged, oldest).is_err());
        assert!(replay(SEGMENTS, &Vec::new(), 1 << 40).is_err(), "everything removed");
        // A boundary inside a stretch: the rest of the stretch is counted, not compared.
        let inside = 17 * 64 + 16;
        let kept: Log = log().into_iter().filter(|r| r.0 >= inside).collect();
        let verified = replay(SEGMENTS, &kept, inside).unwrap();
        assert_eq!(verified.records + verified.uncompared, kept.len() as u64);
        assert_eq!(verified.records + verified.uncompared + verified.removed, 100);
    }

    #[test]
    fn ledger_keeps_at_most_the_stretches_of_retention() {
        let mut ledger = Ledger::new(Stretches { kept: 3, ..SEGMENTS });
        for (lsn, payload) in &log() {
            ledger.enter(Lsn::new(*lsn), payload);
        }
        assert_eq!(ledger.records(), 100);
        assert!(ledger.others.len() <= 3);
        let mut check = ledger.clone().check();
        let oldest = 2560;
        for (lsn, payload) in log().iter().filter(|r| r.0 >= oldest) {
            check.see(Lsn::new(*lsn), payload).unwrap();
        }
        let verified = check.finish(Lsn::new(oldest)).unwrap();
        assert_eq!((verified.records, verified.removed), (2, 98));
        assert!(ledger.check().finish(Lsn::ZERO).is_err(), "the log claims to keep all");
    }
}
