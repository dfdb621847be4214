//! openraft's storage traits for one group of the log.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    AnyError, LogId, LogState, OptionalSend, RaftLogId, RaftLogReader, RaftTypeConfig,
    StorageError, StorageIOError, Vote,
};
use ringwal::{Codec, Postcard};

use crate::error::{LogError, Result};
use crate::group::{Found, Group, Record};
use crate::logs::{RaftLogs, Shared};
use crate::record::{self, ENTRY_HEADER, State};

/// The log of one Raft group: openraft's [`RaftLogStorage`] and [`RaftLogReader`]. From
/// [`RaftLogs::group`]. Cheap to clone; a clone is the same log.
///
/// `K` encodes entries, votes and log ids. The default is compact; with `ringwal::Json` the
/// application's data may need a self-describing format.
pub struct RaftLog<C, K = Postcard> {
    shared: Arc<Shared>,
    group: Arc<Group>,
    types: PhantomData<fn() -> (C, K)>,
}

impl<C, K> Clone for RaftLog<C, K> {
    fn clone(&self) -> Self {
        RaftLog {
            shared: Arc::clone(&self.shared),
            group: Arc::clone(&self.group),
            types: PhantomData,
        }
    }
}

impl<C, K> Debug for RaftLog<C, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftLog").field("group", &self.group.id).finish_non_exhaustive()
    }
}

impl RaftLogs {
    /// The log of the group with this id. A group that is not there yet begins with its first
    /// append or vote.
    #[must_use]
    pub fn group<C: RaftTypeConfig>(&self, id: u64) -> RaftLog<C> {
        self.group_with(id)
    }

    /// As [`RaftLogs::group`], with another codec.
    #[must_use]
    pub fn group_with<C: RaftTypeConfig, K>(&self, id: u64) -> RaftLog<C, K> {
        let group = self.shared.group(id);
        RaftLog { shared: Arc::clone(&self.shared), group, types: PhantomData }
    }
}

/// What a [`RaftLog`] encodes, and how.
pub trait Codecs<C: RaftTypeConfig>:
    Codec<C::Entry> + Codec<Vote<C::NodeId>> + Codec<LogId<C::NodeId>> + 'static
{
}

impl<C, K> Codecs<C> for K
where
    C: RaftTypeConfig,
    K: Codec<C::Entry> + Codec<Vote<C::NodeId>> + Codec<LogId<C::NodeId>> + 'static,
{
}

type Failure<C> = StorageError<<C as RaftTypeConfig>::NodeId>;

impl<C: RaftTypeConfig, K: Codecs<C>> RaftLog<C, K> {
    fn encode<T>(&self, what: &'static str, value: &T) -> Result<Vec<u8>>
    where
        K: Codec<T>,
    {
        let mut bytes = Vec::new();
        let group = self.group.id;
        K::encode(value, &mut bytes).map_err(|source| LogError::Codec { group, what, source })?;
        Ok(bytes)
    }

    fn decode<T>(&self, what: &'static str, bytes: &[u8]) -> Result<T>
    where
        K: Codec<T>,
    {
        let group = self.group.id;
        K::decode(bytes).map_err(|source| LogError::Codec { group, what, source })
    }

    /// The id that a part of the state has.
    fn log_id(&self, bytes: Option<&[u8]>) -> Result<Option<LogId<C::NodeId>>> {
        bytes.map(|bytes| self.decode("a log id", bytes)).transpose()
    }

    /// Appends a state that `change` makes of the newest one, and waits until it is durable.
    async fn store(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        let lsn = self.append_state(change).await?;
        Ok(self.shared.wal.when_durable(lsn).await?)
    }

    /// Appends a state that `change` makes of the newest one.
    async fn append_state(&self, change: impl FnOnce(&mut State)) -> Result<ringwal::Lsn> {
        let _writing = self.group.writing.lock().await;
        let mut state = self.group.known().state.clone();
        change(&mut state);
        let record = record::state(&state);
        let lsn = self.shared.wal.tagged(self.group.id).append_async(&record).await?;
        // Without another await, so that a dropped future leaves memory and log alike.
        self.group.known().set_state(state, lsn);
        Ok(lsn)
    }

    async fn append_entries(
        &self,
        entries: impl IntoIterator<Item = C::Entry>,
    ) -> Result<Option<ringwal::Lsn>> {
        let _writing = self.group.writing.lock().await;
        let group = self.group.id;
        let mut last = None;
        for entry in entries {
            let index = entry.get_log_id().index;
            // An entry with the index of another one replaces it, and those after it.
            let next = self.group.known().next();
            if next.is_some_and(|next| index > next) {
                return Err(LogError::Gap {
                    group,
                    index,
                    last: next.and_then(|n| n.checked_sub(1)),
                });
            }
            let record: Record = record::entry(index, &self.encode("an entry", &entry)?).into();
            let lsn = self.shared.wal.tagged(group).append_async(&record).await?;
            let mut known = self.group.known();
            known.push(group, index, lsn, Some(record))?;
            known.evict(self.shared.options.cache_bytes, self.shared.wal.durable_end());
            last = Some(lsn);
        }
        Ok(last)
    }

    /// Where the entries in `range` are that exist.
    fn find(&self, range: &std::ops::Range<u64>) -> Vec<Found> {
        let known = self.group.known();
        let live = known.range();
        let range = range.start.max(live.start)..range.end.min(live.end);
        range.map_while(|index| known.find(index)).collect()
    }

    async fn read(&self, found: &[Found]) -> Result<Vec<Record>> {
        if found.iter().all(|found| matches!(found, Found::Cached(_))) {
            return self.shared.read(self.group.id, found);
        }
        let (shared, group, found) = (Arc::clone(&self.shared), self.group.id, found.to_vec());
        let read = tokio::task::spawn_blocking(move || shared.read(group, &found));
        read.await.map_err(|e| LogError::Task(e.to_string()))?
    }

    /// The entries in `range` that exist, up to `limit` bytes, and at least one.
    async fn entries(&self, range: std::ops::Range<u64>, limit: usize) -> Result<Vec<C::Entry>> {
        let mut found = self.find(&range);
        let records = loop {
            match self.read(&found).await {
                // The entries were appended again meanwhile, and their first places released.
                Err(LogError::Wal(ringwal::Error::Pruned { .. })) => {
                    let now = self.find(&range);
                    if now == found {
                        break self.read(&found).await?;
                    }
                    found = now;
                }
                records => break records?,
            }
        };
        let mut bytes = 0;
        let mut entries = Vec::with_capacity(records.len());
        for record in records {
            bytes += record.len();
            if bytes > limit && !entries.is_empty() {
                break;
            }
            let encoded = record.get(ENTRY_HEADER..).unwrap_or_default();
            entries.push(self.decode("an entry", encoded)?);
        }
        Ok(entries)
    }
}

/// The bounds of a range as its first index, and the one after its last.
fn bounds(range: &impl RangeBounds<u64>) -> std::ops::Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&index) => index,
        Bound::Excluded(&index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&index) => index.saturating_add(1),
        Bound::Excluded(&index) => index,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl<C: RaftTypeConfig, K: Codecs<C>> RaftLogReader<C> for RaftLog<C, K> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<C::Entry>, Failure<C>> {
        let entries = self.entries(bounds(&range), usize::MAX).await;
        entries.map_err(|e| StorageIOError::read_logs(AnyError::new(&e)).into())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<C::Entry>, Failure<C>> {
        let entries = self.entries(start..end, self.shared.options.read_bytes).await;
        entries.map_err(|e| StorageIOError::read_logs(AnyError::new(&e)).into())
    }
}

impl<C: RaftTypeConfig, K: Codecs<C>> RaftLogStorage<C> for RaftLog<C, K> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<C>, Failure<C>> {
        let state = async {
            let (purged, range) = {
                let known = self.group.known();
                (known.state.purged.clone(), known.range())
            };
            let last_purged_log_id = self.log_id(purged.as_deref())?;
            let last = self.entries(range.end.saturating_sub(1)..range.end, usize::MAX).await?;
            let last_log_id = last.last().map(|entry| entry.get_log_id().clone());
            let last_log_id = last_log_id.or_else(|| last_purged_log_id.clone());
            Ok(LogState { last_purged_log_id, last_log_id })
        };
        state.await.map_err(|e: LogError| StorageIOError::read_logs(AnyError::new(&e)).into())
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<C::NodeId>) -> Result<(), Failure<C>> {
        let saved = async {
            let vote = self.encode("a vote", vote)?;
            self.store(|state| state.vote = Some(vote)).await
        };
        saved.await.map_err(|e| StorageIOError::write_vote(AnyError::new(&e)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<C::NodeId>>, Failure<C>> {
        let vote = self.group.known().state.vote.clone();
        let vote = vote.map(|bytes| self.decode("a vote", &bytes)).transpose();
        vote.map_err(|e| StorageIOError::read_vote(AnyError::new(&e)).into())
    }

    async fn save_committed(
        &mut self,
        committed: Option<LogId<C::NodeId>>,
    ) -> Result<(), Failure<C>> {
        let saved = async {
            let id = committed.map(|id| self.encode("a log id", &id)).transpose()?;
            let lsn = self.append_state(|state| state.committed = id).await?;
            if self.shared.options.wait_committed {
                self.shared.wal.when_durable(lsn).await?;
            }
            Ok(())
        };
        saved.await.map_err(|e: LogError| StorageIOError::write(AnyError::new(&e)).into())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<C::NodeId>>, Failure<C>> {
        let committed = self.group.known().state.committed.clone();
        let id = self.log_id(committed.as_deref());
        id.map_err(|e| StorageIOError::read(AnyError::new(&e)).into())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<C>) -> Result<(), Failure<C>>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let last = self.append_entries(entries).await;
        let last = last.map_err(|e| StorageIOError::write_logs(AnyError::new(&e)))?;
        let Some(last) = last else {
            callback.log_io_completed(Ok(()));
            return Ok(());
        };
        let (shared, group) = (Arc::clone(&self.shared), Arc::clone(&self.group));
        self.shared.wal.on_durable(last, move |durable| {
            group.known().evict(shared.options.cache_bytes, shared.wal.durable_end());
            callback.log_io_completed(durable.map_err(std::io::Error::from));
        });
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<C::NodeId>) -> Result<(), Failure<C>> {
        let truncated = async {
            let _writing = self.group.writing.lock().await;
            let record = record::truncation(log_id.index);
            let lsn = self.shared.wal.tagged(self.group.id).append_async(&record).await?;
            self.group.known().truncate(log_id.index);
            Ok(self.shared.wal.when_durable(lsn).await?)
        };
        truncated.await.map_err(|e: LogError| StorageIOError::write_logs(AnyError::new(&e)).into())
    }

    async fn purge(&mut self, log_id: LogId<C::NodeId>) -> Result<(), Failure<C>> {
        let purged = async {
            let index = log_id.index;
            let id = self.encode("a log id", &log_id)?;
            self.store(|state| {
                state.purged = Some(id);
                state.purged_index = Some(index);
            })
            .await?;
            self.shared.release_soon()
        };
        purged.await.map_err(|e| StorageIOError::write_logs(AnyError::new(&e)).into())
    }
}
