//! The checks of a log whose writers were killed.
//!
//! 1. Records lie in the order of the rounds that wrote them. Each thread's records in a round are
//!    a prefix of those it wrote, without a gap. Batches are whole.
//! 2. The last acknowledged record of each thread is at its acknowledged position, unless retention
//!    was on and the position lies below the oldest kept.
//! 3. Every record found once is found again, before newer ones. Only retention removes records,
//!    from the front.

use std::path::Path;

use ringwal::Lsn;

use super::life::Life;
use super::support::read_all;
use super::writer::{BATCH, BATCHES, Config, THREADS, parse, payload};

/// Round, thread, number.
type Key = (u32, u32, u32);

/// What earlier checks found in a log.
#[derive(Debug)]
pub(crate) struct Log {
    retention: bool,
    lives: Vec<(u32, Life)>,
    known: Vec<(Lsn, Key)>,
    /// The oldest position at the last check, and whether that check used a copy.
    oldest: Lsn,
    copied: bool,
    end: Lsn,
}

impl Log {
    pub(crate) fn new(retention: bool) -> Self {
        Log {
            retention,
            lives: Vec::new(),
            known: Vec::new(),
            oldest: Lsn::ZERO,
            copied: false,
            end: Lsn::ZERO,
        }
    }

    pub(crate) fn lived(&mut self, round: u32, life: Life) {
        self.lives.push((round, life));
    }

    /// Bytes that a check must read at most.
    pub(crate) fn size(&self) -> u64 {
        if self.retention { 0 } else { self.end.as_u64() }
    }

    /// Opens the log, or a copy of it, and checks every record. Returns the recovery report and the
    /// number of records.
    pub(crate) fn check(&mut self, dir: &Path, config: Config, copied: bool) -> (String, u64) {
        let wal = config.open(dir).unwrap();
        let found = read_all(&wal);
        let oldest = wal.oldest_lsn();
        self.end = wal.durable_end();
        let case = format!("{:?}", wal.recovery().case);
        wal.close().unwrap();
        assert!(self.retention || oldest == Lsn::ZERO, "nothing is removed unasked");

        assert!(found.windows(2).all(|w| w[0].0 < w[1].0), "positions rise");
        let keys: Vec<(Lsn, Key)> = found
            .iter()
            .map(|(lsn, bytes)| {
                let key = parse(bytes);
                assert!(*bytes == payload(key.0, key.1, key.2), "content of {key:?} at {lsn}");
                (*lsn, key)
            })
            .collect();
        self.check_order(&keys);
        self.check_acknowledged(&keys, oldest);
        // Retention may have removed segments during the read. The original still has what
        // retention removed from a copy.
        let front = if self.copied { oldest.max(self.oldest) } else { oldest };
        assert!(self.copied || oldest >= self.oldest, "what was removed stays removed");
        let kept = &self.known[self.known.partition_point(|(lsn, _)| *lsn < front)..];
        let again = &keys[keys.partition_point(|(lsn, _)| *lsn < front)..];
        if !again.starts_with(kept) {
            let first = kept.iter().zip(again).find(|(a, b)| a != b);
            panic!(
                "what was found before is not found again, in front: {first:?} of {} before and {} now, from \
                 {front} to {}, {case}, {}",
                kept.len(),
                again.len(),
                self.end,
                dir.display(),
            );
        }
        (self.copied, self.oldest) = (copied, oldest);
        self.known = keys;
        (case, found.len() as u64)
    }

    fn check_order(&self, keys: &[(Lsn, Key)]) {
        let mut round = None;
        let mut next = [0_u32; THREADS as usize];
        for (at, &(lsn, (r, thread, n))) in keys.iter().enumerate() {
            if round != Some(r) {
                assert!(round < Some(r), "{lsn}: round {r} behind {round:?}");
                assert!(next[BATCHES as usize].is_multiple_of(BATCH), "half a batch before {lsn}");
                round = Some(r);
                next = [0; THREADS as usize];
            }
            let expected = &mut next[thread as usize];
            // Retention may have removed the first records of the first remaining round.
            if self.retention && *expected == 0 && r == keys[0].1.0 {
                assert!(thread != BATCHES || n.is_multiple_of(BATCH), "half a batch in front");
                *expected = n;
            }
            assert_eq!(n, *expected, "record {at} at {lsn}: a gap in thread {thread}, round {r}");
            *expected += 1;
        }
        assert!(next[BATCHES as usize].is_multiple_of(BATCH), "half a batch at the end");
    }

    fn check_acknowledged(&self, keys: &[(Lsn, Key)], oldest: Lsn) {
        let mut newest = None;
        for (round, life) in &self.lives {
            for (thread, last) in life.last.iter().enumerate() {
                let Some((n, lsn)) = *last else { continue };
                let key = (*round, thread as u32, n);
                let lsn = Lsn::new(lsn);
                newest = newest.max(Some(lsn));
                if lsn < oldest {
                    assert!(self.retention);
                    continue;
                }
                let at = keys.binary_search_by_key(&lsn, |(lsn, _)| *lsn);
                match at {
                    Ok(at) => assert_eq!(keys[at].1, key, "another record at {lsn}"),
                    Err(at) => panic!(
                        "{key:?}, acknowledged at {lsn}, is lost; there are {:?}; the log ends at {}",
                        &keys[at.saturating_sub(2)..(at + 2).min(keys.len())],
                        self.end,
                    ),
                }
            }
        }
        // The segment with the newest durable group stays, so this check holds with retention too.
        let newest_is_gone = newest.is_some_and(|lsn| lsn < oldest);
        assert!(!newest_is_gone || keys.is_empty(), "retention took more than it may");
    }
}
