//! The one log of many groups: opening it, reading it, and releasing its oldest segments.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringwal::{Lsn, Wal, WalBuilder};

use crate::acks::Acks;
use crate::error::{LogError, Result};
use crate::group::{Found, Group, Known};
use crate::rebuild::rebuild;
use crate::record::{self, Record};
use crate::release::{self, Releases};

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
    /// Segments are released once this many bytes can be released, or with every purge on a full
    /// disk. Default 16 MiB.
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
    pub(crate) releases: Releases,
    groups: Mutex<BTreeMap<u64, Arc<Group>>>,
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
        release::reserve_floor(&wal);
        let shared = Shared {
            wal,
            acks: Arc::new(Acks::new(options.cache_bytes)),
            options,
            releases: Releases::default(),
            groups: Mutex::new(groups),
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
        let remove = || -> Result<()> {
            let _writing = group.lock();
            self.shared.wal.tagged(group.id).append_durable(&record::removal())?;
            group.known().clear();
            Ok(())
        };
        match remove() {
            Err(e) if e.is_no_space() => {
                self.shared.release()?;
                remove()
            }
            removed => removed,
        }
    }

    /// The log itself, for its counters and health. Do not append to it or truncate it.
    #[must_use]
    pub fn wal(&self) -> &Wal {
        &self.shared.wal
    }

    /// Releases the segments that no group needs now. [`RaftLogs`] does it by itself after purges,
    /// and when the disk is full. Blocks, also while another release is under way.
    ///
    /// On a full disk it removes first what no group needs by the records that are durable already,
    /// and appends nothing for that.
    ///
    /// # Errors
    ///
    /// Those of appending, reading and [`Wal::truncate_before`], and of storing a cell. `NoSpace`
    /// if the disk is full, and the oldest segment has a live entry or the only state of a group.
    pub fn release(&self) -> Result<()> {
        self.shared.release()
    }

    /// Why the last release failed that the log did by itself; `None` once a release has succeeded.
    /// The next purge releases again. No call of a group fails because of it: the disk only fills
    /// up. So watch it as you watch [`Wal::health`].
    #[must_use]
    pub fn release_error(&self) -> Option<Arc<LogError>> {
        self.shared.releases.error()
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
    pub(crate) fn groups(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Group>>> {
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
