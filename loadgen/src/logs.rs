//! The logs of a run: one, or several that share a directory and the producers.
//!
//! 1. A position names a log and a place in it: the upper 8 bits are the number of the log, the
//!    others its LSN. With one log, a position is an LSN.
//! 2. Each thread appends to the logs in turn, and each starts at another one. Nothing is shared
//!    between threads to decide that.
//! 3. The figures are those of all logs together. Depths and group sizes are means over all groups.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringwal::{BackendInfo, Lsn, Stats, Wal};

use crate::engine::{self, Engine, Position};

/// Logs of a run at most: a position has 8 bits for the number.
pub const MOST_LOGS: usize = 1 << (u64::BITS - SHIFT);
const SHIFT: u32 = 56;

/// Returns the position of a record of the log with this number.
#[inline]
#[must_use]
pub fn position(number: usize, lsn: Lsn) -> Position {
    (number as u64) << SHIFT | lsn.as_u64()
}

/// Returns the number of the log, and the place in it.
#[inline]
#[must_use]
pub fn place(at: Position) -> (usize, Lsn) {
    ((at >> SHIFT) as usize, Lsn::new(at & ((1 << SHIFT) - 1)))
}

/// Open logs, at least one.
#[derive(Debug, Clone)]
pub struct Logs(Vec<Wal>);

impl From<Wal> for Logs {
    fn from(wal: Wal) -> Self {
        Logs(vec![wal])
    }
}

thread_local! {
    /// The turn of this thread.
    static TURN: Cell<usize> = Cell::new({
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    });
}

impl Logs {
    /// Takes the first log.
    #[must_use]
    pub fn new(first: Wal) -> Logs {
        first.into()
    }

    /// Adds a log.
    pub fn push(&mut self, wal: Wal) {
        self.0.push(wal);
    }

    /// Returns all logs, by their numbers.
    #[must_use]
    pub fn all(&self) -> &[Wal] {
        &self.0
    }

    /// Returns the first log.
    fn first(&self) -> &Wal {
        &self.0[0]
    }

    /// Returns the log for the next record of this thread, and its number.
    #[inline]
    fn turn(&self) -> (usize, &Wal) {
        if self.0.len() == 1 {
            return (0, self.first());
        }
        let turn = TURN.get() % self.0.len();
        TURN.set(turn + 1);
        (turn, &self.0[turn])
    }

    /// Returns the counters of all logs together.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut sum = self.first().stats();
        for stats in self.0[1..].iter().map(Wal::stats) {
            sum.records += stats.records;
            sum.record_bytes += stats.record_bytes;
            sum.groups += stats.groups;
            sum.group_bytes += stats.group_bytes;
            sum.depth_sum += stats.depth_sum;
            sum.syncs += stats.syncs;
            sum.rotations += stats.rotations;
            sum.segments_prepared += stats.segments_prepared;
            sum.segments_recycled += stats.segments_recycled;
            sum.ring_full_waits += stats.ring_full_waits;
            sum.ring_bytes += stats.ring_bytes;
        }
        sum
    }

    /// Returns the commit times of all logs: values with their counts, ascending.
    #[must_use]
    pub fn commit_times(&self) -> Vec<(u64, u64)> {
        let mut counts = BTreeMap::new();
        for wal in &self.0 {
            for (value, count) in wal.histograms().commit_time.buckets() {
                *counts.entry(value).or_insert(0) += count;
            }
        }
        counts.into_iter().collect()
    }

    /// Returns the backend of the first log, which those of the others equal.
    #[must_use]
    pub fn backend(&self) -> BackendInfo {
        self.first().backend()
    }

    /// Returns the bytes of all rings.
    #[must_use]
    pub fn ring_bytes(&self) -> u64 {
        self.0.iter().map(|wal| wal.backend().ring_bytes as u64).sum()
    }

    /// Closes all logs.
    ///
    /// # Errors
    ///
    /// The first error; the other logs are closed all the same.
    pub fn close(&self) -> Result<(), ringwal::Error> {
        self.0.iter().map(Wal::close).fold(Ok(()), Result::and)
    }
}

impl Engine for Logs {
    fn append_durable(&self, payload: &[u8]) -> engine::Result<()> {
        self.append_durable_at(payload).map(|_| ())
    }

    fn append(&self, payload: &[u8]) -> engine::Result<()> {
        self.append_at(payload).map(|_| ())
    }

    fn sync(&self) -> engine::Result<()> {
        if let [only] = &self.0[..] {
            return Engine::sync(only);
        }
        // At once, as the producers of a log do not wait for those of another.
        std::thread::scope(|scope| {
            let syncs: Vec<_> = self.0.iter().map(|wal| scope.spawn(|| wal.sync())).collect();
            let joined = syncs.into_iter().map(|sync| {
                sync.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(|_| ())
            });
            Ok(joined.fold(Ok(()), Result::and)?)
        })
    }

    #[inline]
    fn append_durable_at(&self, payload: &[u8]) -> engine::Result<Option<Position>> {
        let (number, wal) = self.turn();
        Ok(Some(position(number, wal.append_durable(payload)?)))
    }

    #[inline]
    fn append_at(&self, payload: &[u8]) -> engine::Result<Option<Position>> {
        let (number, wal) = self.turn();
        Ok(Some(position(number, wal.append(payload)?)))
    }

    fn is_durable(&self, at: Option<Position>) -> bool {
        at.is_some_and(|at| {
            let (number, lsn) = place(at);
            self.0[number].durable_end() > lsn
        })
    }

    fn wait_durable(&self, at: Option<Position>) -> engine::Result<()> {
        let Some(at) = at else { return Engine::sync(self) };
        let (number, lsn) = place(at);
        Ok(self.0[number].wait_durable(lsn)?)
    }

    fn note(&self) -> Option<String> {
        self.first().note()
    }

    fn wals(&self) -> &[Wal] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_spread_evenly_and_positions_name_their_log() {
        let dir = std::env::temp_dir().join(format!("loadgen-logs-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let open = |n: u32| {
            Wal::builder(&dir).prefix(format!("log{n}")).segment_size(1 << 20).open().unwrap()
        };
        let mut logs = Logs::new(open(0));
        logs.push(open(1));
        logs.push(open(2));
        let mut counts = [0; 3];
        for n in 0..30_u8 {
            let at = logs.append_at(&[n]).unwrap();
            let (number, lsn) = place(at.unwrap());
            counts[number] += 1;
            logs.wait_durable(at).unwrap();
            assert!(logs.is_durable(at) && logs.all()[number].durable_end() > lsn);
            let read = logs.all()[number].read(lsn).unwrap();
            assert_eq!(read.payload, [n]);
        }
        logs.sync().unwrap();
        assert_eq!(counts, [10; 3]);
        let stats = logs.stats();
        assert_eq!((stats.records, stats.groups), (30, 30));
        // Control groups are counted, too.
        assert!(logs.commit_times().iter().map(|(_, count)| count).sum::<u64>() >= 30);
        assert!(logs.commit_times().is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(logs.ring_bytes(), 3 * logs.backend().ring_bytes as u64);
        logs.close().unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn position_keeps_number_and_lsn() {
        for number in [0, 1, MOST_LOGS - 1] {
            for lsn in [0, 1, (1 << SHIFT) - 1] {
                assert_eq!(place(position(number, Lsn::new(lsn))), (number, Lsn::new(lsn)));
            }
        }
        assert_eq!((MOST_LOGS, position(0, Lsn::new(77))), (256, 77));
    }
}
