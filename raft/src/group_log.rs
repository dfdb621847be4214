//! The log of one group, in bytes: what the layers for openraft's versions have in common.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use ringwal::Lsn;

use crate::error::{LogError, Result};
use crate::group::{Found, Group};
use crate::logs::Shared;
use crate::record::{self, Record, State};

/// The log of one group. A clone is the same log.
#[derive(Debug, Clone)]
pub(crate) struct GroupLog {
    shared: Arc<Shared>,
    group: Arc<Group>,
}

impl GroupLog {
    pub(crate) fn new(shared: Arc<Shared>, id: u64) -> Self {
        let group = shared.group(id);
        GroupLog { shared, group }
    }

    pub(crate) fn id(&self) -> u64 {
        self.group.id
    }

    /// Bytes of entries that one read for replication returns at most.
    pub(crate) fn read_bytes(&self) -> usize {
        self.shared.options.read_bytes
    }

    /// The newest state.
    pub(crate) fn state(&self) -> State {
        self.group.known().state.clone()
    }

    /// The purged id, and the indexes of the live entries.
    pub(crate) fn purged_and_range(&self) -> (Option<Vec<u8>>, Range<u64>) {
        let known = self.group.known();
        (known.state.purged.clone(), known.range())
    }

    /// Stores a vote. Durable when it returns.
    pub(crate) async fn save_vote(&self, vote: Vec<u8>) -> Result<()> {
        let lsn = self.append_state(|state| state.vote = Some(vote.clone())).await?;
        Ok(self.shared.wal.when_durable(lsn).await?)
    }

    /// Stores a committed id. Durable when it returns, if the options say so.
    pub(crate) async fn save_committed(&self, committed: Option<Vec<u8>>) -> Result<()> {
        let lsn = self.append_state(|state| state.committed = committed.clone()).await?;
        if self.shared.options.wait_committed {
            self.shared.wal.when_durable(lsn).await?;
        }
        Ok(())
    }

    /// Purges the entries up to `index`, whose id is `id`. Durable when it returns. Changes nothing
    /// if they are purged already.
    pub(crate) async fn purge(&self, index: u64, id: Vec<u8>) -> Result<()> {
        if index == u64::MAX {
            return Err(LogError::IndexLimit { group: self.group.id });
        }
        let lsn = match self.append_purge(index, &id).await {
            Err(e) if e.is_no_space() => {
                // What earlier purges released may be what holds the room.
                self.shared.make_room().await?;
                self.append_purge(index, &id).await?
            }
            purged => purged?,
        };
        self.shared.wal.when_durable(lsn).await?;
        self.shared.release_soon();
        Ok(())
    }

    /// Appends a purge, or finds the one that purged the entries up to `index` already.
    pub(crate) async fn append_purge(&self, index: u64, id: &[u8]) -> Result<Lsn> {
        let _writing = self.group.writing.lock().await;
        let purged_at = self.group.known().purged_at(index);
        if let Some(lsn) = purged_at {
            return Ok(lsn);
        }
        let change = |state: &mut State| {
            state.purged = Some(id.to_vec());
            state.purged_index = Some(index);
        };
        self.append_state_in_order(change).await
    }

    /// Makes the entries from `from` on void. Durable when it returns.
    pub(crate) async fn truncate(&self, from: u64) -> Result<()> {
        let lsn = match self.append_truncation(from).await {
            Err(e) if e.is_no_space() => {
                self.shared.make_room().await?;
                self.append_truncation(from).await?
            }
            truncated => truncated?,
        };
        Ok(self.shared.wal.when_durable(lsn).await?)
    }

    async fn append_truncation(&self, from: u64) -> Result<Lsn> {
        let _writing = self.group.writing.lock().await;
        self.truncate_in_order(from).await
    }

    /// The caller holds `writing`.
    async fn truncate_in_order(&self, from: u64) -> Result<Lsn> {
        let record = record::truncation(from);
        let lsn = self.shared.wal.tagged(self.group.id).append_async(&record).await?;
        self.group.known().truncate(from);
        Ok(lsn)
    }

    /// Appends a state that `change` makes of the newest one.
    async fn append_state(&self, change: impl Fn(&mut State)) -> Result<Lsn> {
        match self.try_append_state(&change).await {
            Err(e) if e.is_no_space() => {
                self.shared.make_room().await?;
                self.try_append_state(&change).await
            }
            appended => appended,
        }
    }

    async fn try_append_state(&self, change: impl Fn(&mut State)) -> Result<Lsn> {
        let _writing = self.group.writing.lock().await;
        self.append_state_in_order(change).await
    }

    /// The caller holds `writing`.
    async fn append_state_in_order(&self, change: impl FnOnce(&mut State)) -> Result<Lsn> {
        let mut state = self.state();
        change(&mut state);
        let record = record::state(&state);
        let lsn = self.shared.wal.tagged(self.group.id).append_async(&record).await?;
        // Without another await, so that a dropped future leaves memory and log alike.
        self.group.known().set_state(state, lsn);
        Ok(lsn)
    }

    /// Appends records of entries with their indexes. They can be read when it returns. Returns the
    /// position of the last one. Appends nothing if one of them cannot be encoded or has an index
    /// that cannot come.
    pub(crate) async fn append(
        &self,
        entries: impl IntoIterator<Item = Result<(u64, Record)>>,
    ) -> Result<Option<Lsn>> {
        let entries = entries.into_iter().collect::<Result<Vec<_>>>()?;
        if !self.shared.has_room() {
            self.shared.make_room().await?;
        }
        let _writing = self.group.writing.lock().await;
        let group = self.group.id;
        {
            let known = self.group.known();
            let indexes = || entries.iter().map(|(index, _)| *index);
            if known.is_beyond(indexes()) {
                return Ok(None);
            }
            known.check(group, indexes())?;
        }
        let mut last = None;
        for (index, record) in entries {
            // The rest of the last segment is for the records that make room.
            if !self.shared.has_room() {
                return Err(ringwal::Error::NoSpace.into());
            }
            if self.group.known().begins_at(index) {
                self.begin_at(index).await?;
            }
            // An entry with the index of another one replaces it, and those after it.
            let lsn = self.shared.wal.tagged(group).append_async(&record).await?;
            self.group.known().push(group, index, lsn, Some(record))?;
            last = Some(lsn);
        }
        let durable_end = self.shared.wal.durable_end();
        self.group.known().evict(self.shared.options.cache_bytes, durable_end);
        Ok(last)
    }

    /// Records that the group begins at `index`: the next opening must not miss entries before. The
    /// caller holds `writing`.
    async fn begin_at(&self, index: u64) -> Result<()> {
        // Entries above would lack those before them, if a crash kept only the state.
        if !self.group.known().range().is_empty() {
            self.truncate_in_order(index).await?;
        }
        let before = index.checked_sub(1).filter(|before| *before > 0);
        self.append_state_in_order(|state| state.purged_index = before).await?;
        Ok(())
    }

    /// Calls `done` when the records up to the one at `last` are durable; at once if there is none.
    pub(crate) fn when_durable(
        &self,
        last: Option<Lsn>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        let Some(last) = last else { return done(Ok(())) };
        self.shared.acks.add(&self.shared.wal, last, &self.group, Box::new(done));
    }

    /// Where the entries in `range` are that exist: those from its start on that are worth reading
    /// for `limit` bytes, and at least one.
    fn find(&self, range: &Range<u64>, limit: usize) -> Vec<Found> {
        let known = self.group.known();
        let live = known.range();
        let range = range.start.max(live.start)..range.end.min(live.end);
        let (mut cached, mut first_place) = (0, None);
        let mut found = Vec::new();
        for one in range.map_while(|index| known.find(index)) {
            let enough = match &one {
                Found::Cached(record) => {
                    cached += record.len();
                    cached > limit
                }
                Found::At(lsn) => {
                    let first = *first_place.get_or_insert(*lsn);
                    let span = lsn.as_u64().abs_diff(first.as_u64());
                    span / SPARSE > limit as u64
                }
            };
            if enough && !found.is_empty() {
                break;
            }
            found.push(one);
        }
        found
    }

    async fn read(&self, found: &[Found]) -> Result<Vec<Record>> {
        if found.iter().all(|found| matches!(found, Found::Cached(_))) {
            return self.shared.read(self.group.id, found);
        }
        let (shared, group, found) = (Arc::clone(&self.shared), self.group.id, found.to_vec());
        let read = tokio::task::spawn_blocking(move || shared.read(group, &found));
        read.await.map_err(|e| LogError::Task(e.to_string()))?
    }

    /// The records of the entries in `range` that exist: those from its start on, up to about
    /// `limit` bytes, and at least one.
    pub(crate) async fn records(&self, range: &Range<u64>, limit: usize) -> Result<Vec<Record>> {
        let mut found = self.find(range, limit);
        loop {
            match self.read(&found).await {
                // The entries were appended again meanwhile, and their first places released.
                Err(LogError::Wal(ringwal::Error::Pruned { .. })) => {
                    let now = self.find(range, limit);
                    if now == found {
                        return self.read(&found).await;
                    }
                    found = now;
                }
                records => return records,
            }
        }
    }
}

/// Bytes of log that a read passes for each byte of a group's entries, before it stops.
const SPARSE: u64 = 16;
