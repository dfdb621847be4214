//! The storage traits of openraft 0.9. Feature `openraft-0-9`, which is on by default.

use std::fmt::Debug;
use std::ops::RangeBounds;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    AnyError, LogId, LogState, OptionalSend, RaftLogId, RaftLogReader, RaftTypeConfig,
    StorageError, StorageIOError, Vote,
};
use ringwal::Codec;

use crate::error::LogError;
use crate::raft_log::{RaftLog, bounds};

/// What a [`RaftLog`] encodes, and how. Every codec of these types is one.
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

type Stored<C, T> = Result<T, StorageError<<C as RaftTypeConfig>::NodeId>>;

fn index_of<C: RaftTypeConfig>(entry: &C::Entry) -> u64 {
    entry.get_log_id().index
}

fn read_logs<C: RaftTypeConfig>(e: LogError) -> StorageError<C::NodeId> {
    StorageIOError::read_logs(AnyError::new(&e)).into()
}

fn write_logs<C: RaftTypeConfig>(e: LogError) -> StorageError<C::NodeId> {
    StorageIOError::write_logs(AnyError::new(&e)).into()
}

impl<C: RaftTypeConfig, K: Codecs<C>> RaftLogReader<C> for RaftLog<C, K> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Stored<C, Vec<C::Entry>> {
        self.entries(bounds(&range), None, index_of::<C>).await.map_err(read_logs::<C>)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Stored<C, Vec<C::Entry>> {
        let limit = Some(self.log.read_bytes());
        self.entries(start..end, limit, index_of::<C>).await.map_err(read_logs::<C>)
    }
}

impl<C: RaftTypeConfig, K: Codecs<C>> RaftLogStorage<C> for RaftLog<C, K> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Stored<C, LogState<C>> {
        let (purged, last) = self.ends(index_of::<C>).await.map_err(read_logs::<C>)?;
        let last: Option<C::Entry> = last;
        let last_log_id = last.map(|entry| entry.get_log_id().clone()).or_else(|| purged.clone());
        Ok(LogState { last_purged_log_id: purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<C::NodeId>) -> Stored<C, ()> {
        let failed = |e: LogError| StorageIOError::write_vote(AnyError::new(&e));
        // A vote of another codec or kind must not be replaced: it may be for this term.
        self.decode::<Vote<C::NodeId>>("a vote", self.log.state().vote.as_deref())
            .map_err(failed)?;
        let vote = self.encode("a vote", vote).map_err(failed)?;
        Ok(self.log.save_vote(vote).await.map_err(failed)?)
    }

    async fn read_vote(&mut self) -> Stored<C, Option<Vote<C::NodeId>>> {
        let vote = self.decode("a vote", self.log.state().vote.as_deref());
        Ok(vote.map_err(|e| StorageIOError::read_vote(AnyError::new(&e)))?)
    }

    async fn save_committed(&mut self, committed: Option<LogId<C::NodeId>>) -> Stored<C, ()> {
        let failed = |e: LogError| StorageIOError::write(AnyError::new(&e));
        let id = committed.map(|id| self.encode("a log id", &id)).transpose().map_err(failed)?;
        Ok(self.log.save_committed(id).await.map_err(failed)?)
    }

    async fn read_committed(&mut self) -> Stored<C, Option<LogId<C::NodeId>>> {
        let id = self.decode("a log id", self.log.state().committed.as_deref());
        Ok(id.map_err(|e| StorageIOError::read(AnyError::new(&e)))?)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<C>) -> Stored<C, ()>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encoded = entries.into_iter().map(|entry| self.entry(index_of::<C>(&entry), &entry));
        let last = self.log.append(encoded).await.map_err(write_logs::<C>)?;
        self.log.when_durable(last, |durable| callback.log_io_completed(durable));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<C::NodeId>) -> Stored<C, ()> {
        self.log.truncate(log_id.index).await.map_err(write_logs::<C>)
    }

    async fn purge(&mut self, log_id: LogId<C::NodeId>) -> Stored<C, ()> {
        let id = self.encode("a log id", &log_id).map_err(write_logs::<C>)?;
        self.log.purge(log_id.index, id).await.map_err(write_logs::<C>)
    }
}
