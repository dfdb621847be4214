//! Finds every group's entries and state in the log.
//!
//! 1. The log is read in parts, each by a thread of its own: most of the time is spent on sums of
//!    records. What a part says of a group is in the order of the log.
//! 2. The parts are put together in the order of the log.
//! 3. Before the adapter removes segments, a record states below which position no group needs
//!    anything, or, on a full disk, a cell. The newest one is always kept. So a log that begins
//!    above it lost more than that.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::{io, panic, thread};

use ringwal::{Lsn, Wal};

use crate::error::{LogError, Result};
use crate::group::{Group, Known};
use crate::record::{self, Item};
use crate::release::reserved_floor;

/// The groups of a log, by their ids.
pub(crate) type Groups = BTreeMap<u64, Arc<Group>>;

/// What a log holds.
pub(crate) struct Content {
    pub(crate) groups: Groups,
    /// The position below which no group needs anything, by the records that are left.
    released: Lsn,
}

/// Bytes of log that are worth a thread.
const PART: u64 = 64 << 20;

/// Threads that read at the same time, at most.
const THREADS: usize = 8;

/// Reads the log once.
///
/// # Errors
///
/// Besides those of reading and of records: `MissingEntries` and `LostFront` if segments were
/// removed that a group needs, or may need.
pub(crate) fn rebuild(wal: &Wal) -> Result<Groups> {
    let threads = thread::available_parallelism().map_or(1, |n| n.get().min(THREADS));
    let oldest = wal.oldest_lsn();
    let Content { groups, mut released } = rebuild_in(wal, PART, threads)?;
    if oldest > released {
        released = released.max(reserved_floor(wal)?);
    }
    if oldest > released {
        return Err(LogError::LostFront { oldest, released });
    }
    Ok(groups)
}

fn rebuild_in(wal: &Wal, part: u64, threads: usize) -> Result<Content> {
    let (start, end) = (wal.oldest_lsn(), wal.durable_end());
    let bounds = bounds(start.as_u64(), end.as_u64(), part, threads);
    let parts: Vec<Result<Part>> = thread::scope(|scope| {
        // This thread reads the last part.
        let read = |at: usize| {
            let (from, to) = (Lsn::new(bounds[at]), bounds.get(at + 1).map(|to| Lsn::new(*to)));
            Part::read(wal, from, to)
        };
        let last = bounds.len() - 1;
        let start = |at| thread::Builder::new().spawn_scoped(scope, move || read(at));
        let others: Vec<_> = (0..last).map(start).collect();
        let last = read(last);
        let join = |(at, thread): (usize, io::Result<thread::ScopedJoinHandle<'_, _>>)| match thread
        {
            Ok(thread) => thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)),
            // The system refuses more threads.
            Err(_) => read(at),
        };
        others.into_iter().enumerate().map(join).chain([last]).collect()
    });
    let mut groups: BTreeMap<u64, Rebuilt> = BTreeMap::new();
    let mut released = Lsn::ZERO;
    for part in parts {
        let part = part?;
        released = released.max(part.released);
        for (id, said) in part.groups {
            let group = groups.entry(id).or_default();
            for said in said {
                group.take(id, said)?;
            }
        }
    }
    let whole = |(id, group): (u64, Rebuilt)| Ok((id, Arc::new(Group::new(id, group.finish(id)?))));
    let groups = groups.into_iter().map(whole).collect::<Result<_>>()?;
    Ok(Content { groups, released })
}

/// Where the parts begin, ascending: the first one at `start`.
fn bounds(start: u64, end: u64, part: u64, threads: usize) -> Vec<u64> {
    let len = end.saturating_sub(start);
    let parts = (len / part).clamp(1, threads as u64);
    // Whole multiples of `part`, where segments of the default size begin.
    let each = (len / parts).next_multiple_of(part);
    let begins = (0..parts).map(|n| start.saturating_add(n.saturating_mul(each)));
    begins.filter(|at| *at == start || *at < end).collect()
}

/// What records say of a group.
enum Said {
    /// Entries without a gap: the first index, and their positions.
    Run(u64, Vec<Lsn>),
    Other(Lsn, Item),
}

/// What a part of the log says.
#[derive(Default)]
struct Part {
    /// Of each group.
    groups: Vec<(u64, Vec<Said>)>,
    /// The highest floor of a release.
    released: Lsn,
}

impl Part {
    /// Reads the records from `from` on, up to `to`.
    fn read(wal: &Wal, from: Lsn, to: Option<Lsn>) -> Result<Part> {
        let mut part = Part::default();
        let mut numbers: HashMap<u64, usize> = HashMap::new();
        let mut last = None;
        let mut reader = wal.reader(from);
        while let Some(records) = reader.next_records()? {
            for record in records {
                let lsn = record.lsn();
                if to.is_some_and(|to| lsn >= to) {
                    return Ok(part);
                }
                let Some(id) = record.tag() else {
                    part.released = part.released.max(record::released(lsn, record.payload())?);
                    continue;
                };
                let item = record::decode(lsn, record.payload())?;
                if matches!(item, Item::Entry { index: u64::MAX } | Item::Moved { index: u64::MAX })
                {
                    return Err(LogError::IndexLimit { group: id });
                }
                // Records of one group often follow each other.
                if last.is_none_or(|(last, _)| last != id) {
                    let number = *numbers.entry(id).or_insert_with(|| {
                        part.groups.push((id, Vec::new()));
                        part.groups.len() - 1
                    });
                    last = Some((id, number));
                }
                if let Some((_, said)) = last.and_then(|(_, number)| part.groups.get_mut(number)) {
                    add(said, lsn, item);
                }
            }
        }
        Ok(part)
    }
}

/// Adds what a record says to what was said before.
fn add(said: &mut Vec<Said>, lsn: Lsn, item: Item) {
    match (item, said.last_mut()) {
        (Item::Entry { index }, Some(Said::Run(first, run)))
            if first.checked_add(run.len() as u64) == Some(index) =>
        {
            run.push(lsn);
        }
        (Item::Entry { index }, _) => said.push(Said::Run(index, vec![lsn])),
        (item, _) => said.push(Said::Other(lsn, item)),
    }
}

#[derive(Default)]
struct Rebuilt {
    known: Known,
    /// Entries that were moved, and whose first record is gone: they come before `known`.
    moved: BTreeMap<u64, Lsn>,
}

impl Rebuilt {
    fn take(&mut self, group: u64, said: Said) -> Result<()> {
        let (lsn, item) = match said {
            Said::Run(first, run) => {
                self.moved.split_off(&first);
                let next = self.known.range().end;
                let pushed = self.known.push_run(group, first, &run);
                return pushed.map_err(|_| LogError::MissingEntries {
                    group,
                    first_missing: next,
                    next: first,
                });
            }
            Said::Other(lsn, item) => (lsn, item),
        };
        match item {
            Item::Entry { index } => return self.take(group, Said::Run(index, vec![lsn])),
            Item::Moved { index } => {
                if self.known.range().contains(&index) {
                    self.known.moved(index, lsn);
                } else {
                    self.moved.insert(index, lsn);
                }
            }
            Item::Truncation { from } => {
                self.moved.split_off(&from);
                self.known.truncate(from);
            }
            Item::State(state) => {
                if let Some(index) = state.purged_index {
                    self.moved = self.moved.split_off(&index.saturating_add(1));
                }
                self.known.set_state(state, lsn);
            }
            Item::Removal => {
                self.moved.clear();
                self.known.clear();
            }
        }
        Ok(())
    }

    fn finish(mut self, group: u64) -> Result<Known> {
        for (index, lsn) in self.moved.into_iter().rev() {
            let range = self.known.range();
            if !range.is_empty() && index.checked_add(1) != Some(range.start) {
                let (first_missing, next) = (index.saturating_add(1), range.start);
                return Err(LogError::MissingEntries { group, first_missing, next });
            }
            self.known.prepend(index, lsn);
        }
        // An earlier version appended entries whose index was purged.
        if let Some(index) = self.known.state.purged_index {
            self.known.purge(index);
        }
        let range = self.known.range();
        let first = self.known.state.purged_index.map_or(0, |index| index.saturating_add(1));
        // A group may begin at 1: a log id with the index 0 is openraft's own.
        if !range.is_empty() && range.start > first.max(1) {
            return Err(LogError::MissingEntries {
                group,
                first_missing: first,
                next: range.start,
            });
        }
        Ok(self.known)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ringwal::testing::SimulatedDisk;

    use super::*;
    use crate::record::State;

    fn purged(index: u64) -> Vec<u8> {
        let purged = Some(index.to_le_bytes().to_vec());
        record::state(&State { purged, purged_index: Some(index), ..State::default() })
    }

    /// Records of some groups, with truncations, purges, moved entries and removals.
    fn fill(wal: &Wal, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        // The entries that each group has.
        let mut groups = vec![0..0; 7];
        let entry = |index: u64, len: usize| {
            let encode = |bytes: &mut Vec<u8>| {
                bytes.resize(len, 7);
                Ok::<(), ()>(())
            };
            record::entry(index, encode).unwrap()
        };
        for n in 0..6000 {
            let group = rng.usize(0..groups.len());
            let range = &mut groups[group];
            let appended = match rng.u8(0..40) {
                0 if range.start < range.end => {
                    let from = rng.u64(range.clone());
                    range.end = from;
                    record::truncation(from)
                }
                1 if range.start < range.end => {
                    let index = rng.u64(range.clone());
                    range.start = index + 1;
                    purged(index)
                }
                2 if range.start < range.end => record::moved(&entry(rng.u64(range.clone()), 9)),
                3 if rng.u8(0..9) == 0 => {
                    *range = 0..0;
                    record::removal()
                }
                _ => {
                    range.end += 1;
                    entry(range.end - 1, rng.usize(0..900)).to_vec()
                }
            };
            let lsn = wal.tagged(group as u64).append(&appended).unwrap();
            if n % 1000 == 500 {
                wal.append(&record::release(lsn)).unwrap();
            }
        }
        wal.sync().unwrap();
    }

    #[test]
    fn a_log_that_is_read_in_parts_has_the_same_groups() {
        for seed in 0..3 {
            let disk = SimulatedDisk::new(seed);
            let builder = Wal::builder("raft").segment_size(256 << 10).ring_capacity(128 << 10);
            let wal = builder.max_record_size(16 << 10).on(&disk).open().unwrap();
            fill(&wal, seed);
            let whole = rebuild_in(&wal, 1 << 40, 1).unwrap();
            assert!(whole.groups.len() > 3 && whole.released > Lsn::ZERO);
            for (part, threads) in [(256 << 10, 2), (64 << 10, 5), (5000, 8)] {
                let parts = rebuild_in(&wal, part, threads).unwrap();
                assert_eq!(format!("{:?}", parts.groups), format!("{:?}", whole.groups));
                assert_eq!(parts.released, whole.released);
            }
        }
    }

    #[test]
    fn parts_begin_where_whole_segments_begin_and_cover_the_log() {
        assert_eq!(bounds(0, 0, 10, 4), [0]);
        assert_eq!(bounds(30, 49, 10, 4), [30]);
        assert_eq!(bounds(30, 51, 10, 4), [30, 40]);
        assert_eq!(bounds(0, 100, 10, 3), [0, 40, 80]);
        assert_eq!(bounds(0, 41, 10, 4), [0, 10, 20, 30]);
        assert_eq!(bounds(0, 61, 10, 4), [0, 20, 40, 60]);
        assert_eq!(bounds(u64::MAX - 5, u64::MAX, 1, 2), [u64::MAX - 5, u64::MAX - 3]);
    }
}
