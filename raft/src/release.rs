//! Releases the oldest segments, also on a full disk.
//!
//! 1. Below the *floor* lies nothing that opening needs: every live entry, and the newest state of
//!    each group, is durable above it.
//! 2. The floor is durable before segments below it are removed. A record states it, or, if a full
//!    disk has no room for a record, a cell beside the log. Opening takes the higher one.
//! 3. While there is no space for the next segment, no entries are appended. What is left of the
//!    last one is for the records that make room: states, truncations, removals and floors.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use ringwal::{Lsn, Wal};

use crate::error::{LogError, Result};
use crate::group::Group;
use crate::logs::Shared;
use crate::record;

/// The cell with the floor of the last release that could append nothing.
const FLOOR_CELL: &str = "raft-floor";

/// Gives the cell its room, which it may not get on a full disk.
pub(crate) fn reserve_floor(wal: &Wal) {
    let cell = wal.cell(FLOOR_CELL);
    if matches!(cell.load(), Ok(None)) {
        // On a disk that is full already the log works without it.
        cell.store(&[0; 8]).ok();
    }
}

/// The floor in the cell.
pub(crate) fn reserved_floor(wal: &Wal) -> Result<Lsn> {
    let floor = wal.cell(FLOOR_CELL).load()?;
    let floor = floor.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    Ok(Lsn::new(floor))
}

/// Bytes of log after which the disk is looked at again.
const ROOM_STEP: u64 = 16 << 10;

/// How long a release waits for the log to notice the room that it made.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// What releases leave for the next one.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    /// Held by the thread that releases: the floor that the newest record states.
    turn: Mutex<Lsn>,
    error: Mutex<Option<Arc<LogError>>>,
    /// Where the log ended when the disk was looked at.
    looked_at: AtomicU64,
    /// There was no space for the next segment then.
    is_full: AtomicBool,
}

impl Releases {
    pub(crate) fn error(&self) -> Option<Arc<LogError>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_error(&self, error: Option<LogError>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error.map(Arc::new);
    }
}

impl Shared {
    /// Whether entries may be appended: there is space for the next segment, as far as is known.
    pub(crate) fn has_room(&self) -> bool {
        let (releases, end) = (&self.releases, self.wal.end().as_u64());
        let since = end.saturating_sub(releases.looked_at.load(Ordering::Relaxed));
        if since < ROOM_STEP && !releases.is_full.load(Ordering::Relaxed) {
            return true;
        }
        let is_full = self.wal.stats().out_of_space;
        releases.looked_at.store(end, Ordering::Relaxed);
        releases.is_full.store(is_full, Ordering::Relaxed);
        !is_full
    }

    /// Releases what can be released. The caller holds `writing` of no group.
    pub(crate) async fn make_room(self: &Arc<Self>) -> Result<()> {
        let shared = Arc::clone(self);
        let released = tokio::task::spawn_blocking(move || shared.release()).await;
        released.map_err(|e| LogError::Task(e.to_string()))?
    }

    /// Releases segments on another thread, if it is worth it and none is doing so.
    pub(crate) fn release_soon(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let mut stated = match shared.releases.turn.try_lock() {
                Ok(stated) => stated,
                Err(TryLockError::Poisoned(stated)) => stated.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let least = if shared.has_room() { shared.options.release_bytes } else { 0 };
            let released = shared.release_in_turn(&mut stated, least);
            shared.releases.set_error(released.err());
        });
    }

    /// Releases the segments below every live record. Blocks.
    pub(crate) fn release(&self) -> Result<()> {
        let mut stated = self.releases.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.release_in_turn(&mut stated, 0)?;
        self.releases.set_error(None);
        Ok(())
    }

    fn release_in_turn(&self, stated: &mut Lsn, least: u64) -> Result<()> {
        let oldest = self.wal.oldest_lsn();
        let mut released = self.release_with_record(stated, least);
        if released.as_ref().is_err_and(LogError::is_no_space) {
            // What goes without a record makes the room for one.
            self.release_without_record()?;
            if self.wal.oldest_lsn() > oldest {
                self.wait_for_room()?;
                released = self.release_with_record(stated, least);
            }
        }
        released?;
        if self.wal.oldest_lsn() > oldest {
            self.wait_for_room()?;
        }
        Ok(())
    }

    /// Waits until the log has noticed that there is room, if there is.
    fn wait_for_room(&self) -> Result<()> {
        let pause = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        while self.wal.stats().out_of_space && waited < ROOM_WAIT {
            self.wal.sync()?;
            thread::sleep(pause);
            waited += pause;
        }
        Ok(())
    }

    /// The lowest position that `oldest` returns for a group, which is at most the durable end.
    fn lowest(&self, groups: &[Arc<Group>], oldest: impl Fn(&Group) -> Option<Lsn>) -> Lsn {
        let end = self.wal.durable_end();
        // What is appended from here on lies above the end. What lies below it is known once its
        // group can be locked: a writer holds the lock from the append until it has entered it.
        let lowest = groups.iter().filter_map(|group| {
            let _written = group.lock();
            oldest(group)
        });
        lowest.min().unwrap_or(end).min(end)
    }

    /// Releases the segments below every live record, if they have at least `least` bytes.
    ///
    /// What must stay below that floor is appended again first: states, and the entries of groups
    /// that lie behind by more than the limit. A record states the floor. All that is durable
    /// before anything is removed.
    fn release_with_record(&self, stated: &mut Lsn, least: u64) -> Result<()> {
        let groups: Vec<_> = self.groups().values().cloned().collect();
        let mut floor = self.lowest(&groups, |group| group.known().oldest()[0]);
        // On a full disk there is no room to append entries again.
        if let Some(limit) = self.options.lag_limit.filter(|_| self.has_room()) {
            let end = self.wal.durable_end().as_u64();
            floor = floor.max(Lsn::new(end.saturating_sub(limit)));
        }
        if floor.as_u64().saturating_sub(self.wal.oldest_lsn().as_u64()) < least.max(1) {
            return Ok(());
        }
        if floor > *stated {
            for group in &groups {
                let oldest = group.known().oldest();
                if oldest.into_iter().flatten().any(|lsn| lsn < floor) {
                    self.move_forward(group, floor)?;
                }
            }
            self.wal.append(&record::release(floor))?;
            self.wal.sync()?;
            *stated = floor;
        }
        self.wal.truncate_before(floor)?;
        Ok(())
    }

    /// Releases the segments below every live entry and every group's newest state, without a
    /// record.
    fn release_without_record(&self) -> Result<()> {
        let groups: Vec<_> = self.groups().values().cloned().collect();
        let floor =
            self.lowest(&groups, |group| group.known().oldest().into_iter().flatten().min());
        if floor > self.wal.oldest_lsn() {
            // What made the entries below void, as a purge, must not be lost after them.
            self.wal.sync()?;
            self.wal.cell(FLOOR_CELL).store(&floor.as_u64().to_le_bytes())?;
            self.wal.truncate_before(floor)?;
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ringwal::WalBuilder;
    use ringwal::testing::SimulatedDisk;

    use super::*;
    use crate::group_log::GroupLog;
    use crate::logs::RaftLogs;
    use crate::record::State;

    const SEGMENT: u64 = 256 << 10;

    fn builder(disk: &SimulatedDisk) -> WalBuilder {
        let builder = Wal::builder("raft").segment_size(SEGMENT).ring_capacity(64 << 10);
        builder.max_record_size(8 << 10).on(disk)
    }

    fn group(logs: &RaftLogs, id: u64) -> GroupLog {
        GroupLog::new(Arc::clone(&logs.shared), id)
    }

    async fn append(log: &GroupLog, logs: &RaftLogs, index: u64) -> Result<()> {
        let encode = |bytes: &mut Vec<u8>| {
            bytes.resize(4000, 7);
            Ok::<(), LogError>(())
        };
        log.append([record::entry(index, encode).map(|record| (index, record))]).await?;
        logs.wal().sync()?;
        Ok(())
    }

    /// Appends states of a group that nothing else uses until there is no room for one more.
    fn fill_the_last_byte(wal: &Wal) {
        let vote = |len| State { vote: Some(vec![9; len]), ..State::default() };
        for len in [4000, 100, 0] {
            let record = record::state(&vote(len));
            while let Ok(lsn) = wal.tagged(9).append(&record) {
                wal.wait_durable(lsn).unwrap();
            }
        }
        let full = wal.append(&record::release(Lsn::ZERO));
        assert!(matches!(full, Err(ringwal::Error::NoSpace)), "{full:?}");
    }

    /// Group 1 has purged two segments of entries, and the disk has no room for a record.
    async fn purged_before_the_disk_was_full(disk: &SimulatedDisk) -> RaftLogs {
        let logs = RaftLogs::open(builder(disk)).unwrap();
        let log = group(&logs, 1);
        log.save_vote(b"early".to_vec()).await.unwrap();
        for index in 1..=200 {
            append(&log, &logs, index).await.unwrap();
            if index == 100 {
                group(&logs, 2).save_vote(b"idle".to_vec()).await.unwrap();
            }
        }
        log.append_purge(190, b"id").await.unwrap();
        disk.set_capacity(1);
        fill_the_last_byte(logs.wal());
        logs
    }

    fn check(disk: &SimulatedDisk) {
        let logs = RaftLogs::open(builder(disk)).unwrap();
        let idle = logs.shared.group(2).known().state.vote.clone();
        assert_eq!(idle.as_deref(), Some(&b"idle"[..]));
        let known = logs.shared.group(1);
        let known = known.known();
        assert_eq!(known.range(), 191..201);
        assert_eq!(known.state.vote.as_deref(), Some(&b"early"[..]));
        assert_eq!(known.state.purged_index, Some(190));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn release_on_a_full_disk_removes_what_was_purged_before() {
        let disk = SimulatedDisk::new(1);
        let logs = purged_before_the_disk_was_full(&disk).await;
        assert_eq!(logs.wal().oldest_lsn(), Lsn::ZERO);
        // Its record has no room either, as long as the log has not noticed what was removed.
        logs.release().ok();
        assert!(logs.wal().oldest_lsn().as_u64() >= 2 * SEGMENT);
        // The cell alone states what was removed.
        disk.crash();
        drop(logs);
        disk.set_capacity(u64::MAX);
        check(&disk);
        check(&disk);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn power_failure_during_a_release_on_a_full_disk_loses_nothing() {
        for after in 0..12 {
            let disk = SimulatedDisk::new(after);
            let logs = purged_before_the_disk_was_full(&disk).await;
            disk.power_off_after(after);
            logs.release().ok();
            disk.crash();
            drop(logs);
            disk.heal();
            disk.set_capacity(u64::MAX);
            check(&disk);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn purge_and_vote_on_a_full_disk_release_what_was_purged_before() {
        for vote in [false, true] {
            let disk = SimulatedDisk::new(2);
            let logs = purged_before_the_disk_was_full(&disk).await;
            let used = logs.wal().end().as_u64().next_multiple_of(SEGMENT);
            disk.set_capacity(used);
            // A simulated log has no thread that notices the room that a release makes.
            let (wal, disk, done) = (logs.wal().clone(), disk.clone(), AtomicBool::new(false));
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        disk.advance(Duration::from_millis(50));
                        wal.truncate_before(Lsn::ZERO).ok();
                    }
                });
                let log = group(&logs, 1);
                let stored = tokio::runtime::Handle::current();
                let stored = tokio::task::block_in_place(|| {
                    stored.block_on(async {
                        match vote {
                            true => log.save_vote(b"late".to_vec()).await,
                            false => log.purge(195, b"id".to_vec()).await,
                        }
                    })
                });
                done.store(true, Ordering::Relaxed);
                stored.unwrap();
            });
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn entries_that_fill_the_disk_leave_room_to_purge_them() {
        let disk = SimulatedDisk::new(3);
        let logs = RaftLogs::open(builder(&disk)).unwrap();
        let log = group(&logs, 1);
        disk.set_capacity(5 * SEGMENT + (300 << 10));
        let mut last = 0;
        let full = loop {
            match append(&log, &logs, last + 1).await {
                Ok(()) => last += 1,
                Err(e) => break e,
            }
            assert!(last < 2000, "the disk does not fill up");
        };
        assert!(full.is_no_space() && last > 50, "{full} after {last}");
        for _ in 0..3 {
            assert!(append(&log, &logs, last + 1).await.unwrap_err().is_no_space());
        }
        log.save_vote(b"vote".to_vec()).await.unwrap();
        log.purge(last - 1, b"id".to_vec()).await.unwrap();
        logs.release().unwrap();
        append(&log, &logs, last + 1).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn purge_does_not_report_the_failure_of_an_earlier_release() {
        let disk = SimulatedDisk::new(4);
        let logs = RaftLogs::open(builder(&disk)).unwrap();
        let log = group(&logs, 1);
        append(&log, &logs, 1).await.unwrap();
        logs.shared.releases.set_error(Some(ringwal::Error::NoSpace.into()));
        log.purge(1, b"id".to_vec()).await.unwrap();
        let failed = logs.shared.releases.error();
        assert!(failed.is_none_or(|e| e.is_no_space()));
        logs.release().unwrap();
        assert!(logs.release_error().is_none());
    }
}
