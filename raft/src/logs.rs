//! The one log of many groups: opening it, reading it, and releasing its oldest segments.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringwal::{Lsn, Wal, WalBuilder};

use crate::acks::Acks;
use crate::error::{LogError, Result};
use crate::group::{Found, Group, Known};
use crate::rebuild::rebuild;
use crate::record::{self, Record};

/// The application version of the logs that this crate writes: "RAFT" in ASCII. A log of another
/// kind is refused by it.
pub const APPLICATION_VERSION: u32 = 0x5241_4654;

/// Settings of [`RaftLogs`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogOptions {
    /// Bytes of the newest entries that each group keeps in memory, beside those that are not
    /// durable yet. Default 1 MiB.
    pub cache_bytes: usize,
    /// Bytes of log that the slowest group may keep from being released. The live entries of a
    /// group that lies further behind are appended again. `None`: without a limit. Default 1 GiB.
    pub lag_limit: Option<u64>,
    /// Segments are released once this many bytes can be released. Default 16 MiB.
    pub release_bytes: u64,
    /// Bytes of entries that one read for replication returns at most, and at least one entry.
    /// Default 4 MiB.
    pub read_bytes: usize,
    /// Whether `save_committed` waits until the id is durable. openraft 0.9 saves the id after each
    /// commit, and does not need it: after a crash an older id is enough, and the leader sends the
    /// newest one. `false` saves a commit one wait for the disk. Default `true`.
    pub wait_committed: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            cache_bytes: 1 << 20,
            lag_limit: Some(1 << 30),
            release_bytes: 16 << 20,
            read_bytes: 4 << 20,
            wait_committed: true,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) wal: Wal,
    pub(crate) options: LogOptions,
    pub(crate) acks: Arc<Acks>,
    groups: Mutex<BTreeMap<u64, Arc<Group>>>,
    /// Whether a thread is releasing segments.
    releasing: AtomicBool,
    /// The error of the last release, for the next purge.
    failed: Mutex<Option<LogError>>,
}

/// One write-ahead log that many Raft groups share. Cheap to clone.
///
/// Appends of all groups share group commits. Open it once for each directory and prefix, and take
/// a [`RaftLog`](crate::RaftLog) for each group with [`RaftLogs::group`](crate::RaftLogs::group).
/// Its calls need a runtime of tokio.
#[derive(Debug, Clone)]
pub struct RaftLogs {
    pub(crate) shared: Arc<Shared>,
}

impl RaftLogs {
    /// Opens or creates the log with default [`LogOptions`]. See [`RaftLogs::open_with`].
    ///
    /// # Errors
    ///
    /// As [`RaftLogs::open_with`].
    pub fn open(builder: WalBuilder) -> Result<Self> {
        RaftLogs::open_with(builder, LogOptions::default())
    }

    /// Opens or creates the log, and reads it once to find every group's entries.
    ///
    /// The builder must set no limit of retention: the groups decide what is released. A log that
    /// was opened with such a limit by another program, and lost segments to it, is refused too.
    /// Blocks: call it where blocking is allowed. A large log is read by up to eight threads.
    ///
    /// # Errors
    ///
    /// `RetentionLimit` if the builder sets a limit of retention. Those of [`WalBuilder::open`];
    /// `ApplicationVersion` if the directory holds a log of another kind. `Corruption` if a segment
    /// is missing. `ForeignRecord`, `UnknownRecord`, `MissingEntries` and `LostFront` name what is
    /// wrong with the content. Nothing is deleted.
    pub fn open_with(builder: WalBuilder, options: LogOptions) -> Result<Self> {
        // Before the log is opened: opening removes segments already.
        if let Some(option) = builder.retention_limit() {
            return Err(LogError::RetentionLimit { option });
        }
        let wal = builder.application_version(APPLICATION_VERSION).open()?;
        let groups = rebuild(&wal)?;
        let shared = Shared {
            wal,
            acks: Arc::new(Acks::new(options.cache_bytes)),
            options,
            groups: Mutex::new(groups),
            releasing: AtomicBool::new(false),
            failed: Mutex::new(None),
        };
        Ok(RaftLogs { shared: Arc::new(shared) })
    }

    /// The ids of the groups that have entries or a state, ascending.
    #[must_use]
    pub fn groups(&self) -> Vec<u64> {
        let groups = self.shared.groups();
        let is_there = |group: &&Arc<Group>| {
            let known = group.known();
            !known.is_removed() && (known.state_at.is_some() || !known.range().is_empty())
        };
        groups.values().filter(is_there).map(|group| group.id).collect()
    }

    /// Removes a group with its vote, so that a node which was wiped can be rebuilt. Durable when
    /// it returns. Blocks. No [`RaftLog`](crate::RaftLog) of the group may be in use.
    ///
    /// # Errors
    ///
    /// Those of [`Wal::append_durable`].
    pub fn remove_group(&self, group: u64) -> Result<()> {
        let group = self.shared.group(group);
        let _writing = group.lock();
        self.shared.wal.tagged(group.id).append_durable(&record::removal())?;
        group.known().clear();
        Ok(())
    }

    /// The log itself, for its counters and health. Do not append to it or truncate it.
    #[must_use]
    pub fn wal(&self) -> &Wal {
        &self.shared.wal
    }

    /// Releases the segments that no group needs now. [`RaftLogs`] does it by itself after purges.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// Those of appending, reading and [`Wal::truncate_before`].
    pub fn release(&self) -> Result<()> {
        self.shared.release(0)
    }

    /// Makes everything durable and closes the log. Blocks.
    ///
    /// # Errors
    ///
    /// Those of [`Wal::close`].
    pub fn close(&self) -> Result<()> {
        Ok(self.shared.wal.close()?)
    }
}

impl Shared {
    fn groups(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Group>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn group(&self, id: u64) -> Arc<Group> {
        let new = || Arc::new(Group::new(id, Known::default()));
        Arc::clone(self.groups().entry(id).or_insert_with(new))
    }

    /// The records of entries, in the order of `found`. Reads the disk for those that are not
    /// cached.
    pub(crate) fn read(&self, group: u64, found: &[Found]) -> Result<Vec<Record>> {
        let places: Vec<Lsn> = found
            .iter()
            .filter_map(|found| match found {
                Found::At(lsn) => Some(*lsn),
                Found::Cached(_) => None,
            })
            .collect();
        let mut read = self.read_places(group, &places)?.into_iter();
        let one = |found: &Found| match found {
            Found::Cached(record) => Some(Arc::clone(record)),
            Found::At(_) => read.next(),
        };
        Ok(found.iter().filter_map(one).collect())
    }

    fn read_places(&self, group: u64, places: &[Lsn]) -> Result<Vec<Record>> {
        let (Some(first), Some(last)) = (places.first(), places.last()) else { return Ok(vec![]) };
        let mut records = Vec::with_capacity(places.len());
        // A reader passes everything in between; a read of one record costs a read of the device.
        let span = last.as_u64().saturating_sub(first.as_u64());
        let ascending = places.is_sorted();
        if !ascending || span / places.len() as u64 > NEAR {
            for lsn in places {
                records.push(self.wal.read(*lsn)?.payload().into());
            }
            return Ok(records);
        }
        let mut reader = self.wal.reader(*first).only_tag(group);
        for lsn in places {
            loop {
                let Some(record) = reader.next_ref()? else {
                    return Err(ringwal::Error::NoRecord { lsn: *lsn }.into());
                };
                if record.lsn() == *lsn {
                    records.push(record.payload().into());
                    break;
                }
                if record.lsn() > *lsn {
                    return Err(ringwal::Error::NoRecord { lsn: *lsn }.into());
                }
            }
        }
        Ok(records)
    }

    /// Releases segments on another thread, if it is worth it. Returns the error of the last time.
    pub(crate) fn release_soon(self: &Arc<Self>) -> Result<()> {
        let shared = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            if let Err(e) = shared.release(shared.options.release_bytes) {
                *shared.failed() = Some(e);
            }
        });
        self.failed().take().map_or(Ok(()), Err)
    }

    fn failed(&self) -> MutexGuard<'_, Option<LogError>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases the segments below every live record, if they have at least `least` bytes.
    ///
    /// What must stay below that floor is appended again first: states, and the entries of groups
    /// that lie behind by more than the limit. A record states the floor, so that the next opening
    /// knows what was removed by this. All that is durable before anything is removed.
    fn release(&self, least: u64) -> Result<()> {
        if self.releasing.swap(true, Ordering::Acquire) {
            return Ok(());
        }
        let released = self.release_once(least);
        self.releasing.store(false, Ordering::Release);
        released
    }

    fn release_once(&self, least: u64) -> Result<()> {
        let end = self.wal.durable_end();
        // What is appended from here on lies above the end. What lies below it is known once its
        // group can be locked: a writer holds the lock from the append until it has entered it.
        let groups: Vec<_> = self.groups().values().cloned().collect();
        let entries = groups.iter().filter_map(|group| {
            let _written = group.lock();
            group.known().oldest()[0]
        });
        let mut floor = entries.min().unwrap_or(end).min(end);
        if let Some(limit) = self.options.lag_limit {
            floor = floor.max(Lsn::new(end.as_u64().saturating_sub(limit)));
        }
        if floor.as_u64().saturating_sub(self.wal.oldest_lsn().as_u64()) < least.max(1) {
            return Ok(());
        }
        for group in &groups {
            let oldest = group.known().oldest();
            if oldest.into_iter().flatten().any(|lsn| lsn < floor) {
                self.move_forward(group, floor)?;
            }
        }
        self.wal.append(&record::release(floor))?;
        self.wal.sync()?;
        self.wal.truncate_before(floor)?;
        Ok(())
    }

    fn move_forward(&self, group: &Group, floor: Lsn) -> Result<()> {
        let _writing = group.lock();
        let tagged = self.wal.tagged(group.id);
        let old = group.known().below(floor);
        let mut moved = Vec::with_capacity(old.len());
        for index in old {
            let Some(found) = group.known().find(index) else { continue };
            for record in self.read(group.id, &[found])? {
                moved.push((index, tagged.append(&record::moved(&record))?));
            }
        }
        // An entry that is not cached is read from its position, so that must be durable.
        if let Some((_, last)) = moved.last() {
            self.wal.wait_durable(*last)?;
        }
        for (index, lsn) in moved {
            group.known().moved(index, lsn);
        }
        let stale = {
            let known = group.known();
            known.state_at.is_some_and(|lsn| lsn < floor).then(|| known.state.clone())
        };
        if let Some(state) = stale {
            let lsn = tagged.append(&record::state(&state))?;
            group.known().set_state(state, lsn);
        }
        Ok(())
    }
}

/// Mean distance of entries up to which they are read in one run.
const NEAR: u64 = 64 << 10;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use ringwal::testing::SimulatedDisk;

    use super::*;
    use crate::record::State;

    #[test]
    fn state_that_is_being_appended_is_kept_when_segments_are_released() {
        let disk = SimulatedDisk::new(1);
        let builder = || {
            let builder = Wal::builder("raft").segment_size(256 << 10).ring_capacity(128 << 10);
            builder.max_record_size(16 << 10).on(&disk)
        };
        let logs = RaftLogs::open(builder()).unwrap();
        let wal = logs.wal();
        let vote = |vote: Vec<u8>| State { vote: Some(vote), ..State::default() };
        let group = logs.shared.group(7);
        // A writer is interrupted after its append, and four segments follow.
        let writing = group.lock();
        let state = vote(b"vote".to_vec());
        let lsn = wal.tagged(7).append_durable(&record::state(&state)).unwrap();
        for _ in 0..100 {
            wal.tagged(9).append(&record::state(&vote(vec![9; 10_000]))).unwrap();
        }
        wal.sync().unwrap();

        let (done, is_done) = mpsc::channel();
        let releasing = logs.clone();
        let thread = std::thread::spawn(move || done.send(releasing.release()).unwrap());
        assert!(is_done.recv_timeout(Duration::from_millis(200)).is_err(), "released too much");
        group.known().set_state(state.clone(), lsn);
        drop(writing);
        is_done.recv().unwrap().unwrap();
        thread.join().unwrap();
        assert!(wal.oldest_lsn() > lsn);
        logs.close().unwrap();
        drop(logs);
        let logs = RaftLogs::open(builder()).unwrap();
        assert_eq!(logs.shared.group(7).known().state, state);
    }
}
