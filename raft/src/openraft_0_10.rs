//! The storage traits of the pre-release of openraft 0.10. Feature `openraft-0-10`.

use std::fmt::Debug;
use std::io;
use std::ops::{Range, RangeBounds};

use futures_util::{Stream, StreamExt, stream};
use openraft10::entry::RaftEntry;
use openraft10::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft10::type_config::alias::{LogIdOf, VoteOf};
use openraft10::{OptionalSend, RaftTypeConfig};
use ringwal::Codec;

use crate::raft_log::{RaftLog, bounds};

/// What a [`RaftLog`] encodes, and how. Every codec of these types is one.
pub trait Codecs<C: RaftTypeConfig>:
    Codec<C::Entry> + Codec<C::Vote> + Codec<LogIdOf<C>> + 'static
{
}

impl<C, K> Codecs<C> for K
where
    C: RaftTypeConfig,
    K: Codec<C::Entry> + Codec<C::Vote> + Codec<LogIdOf<C>> + 'static,
{
}

fn index_of<C: RaftTypeConfig>(entry: &C::Entry) -> u64 {
    entry.log_id_parts().1
}

impl<C: RaftTypeConfig, K: Codecs<C>> RaftLog<C, K> {
    /// The next entries in `range`, up to the bytes of one read, and the range that is left.
    async fn chunk(&self, range: Range<u64>) -> io::Result<(Vec<C::Entry>, Range<u64>)> {
        let limit = Some(self.log.read_bytes());
        let entries = self.entries(range.clone(), limit, index_of::<C>).await?;
        let next = entries.last().map_or(range.end, |last| index_of::<C>(last) + 1);
        Ok((entries, next..range.end))
    }
}

impl<C: RaftTypeConfig, K: Codecs<C>> RaftLogReader<C> for RaftLog<C, K> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<C::Entry>> {
        Ok(self.entries(bounds(&range), None, index_of::<C>).await?)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<C::Entry>> {
        Ok(self.chunk(start..end).await?.0)
    }

    /// Reads as much as one read for replication at a time: the range may be the whole log.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<C::Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let log = self.clone();
        // Indexes that the first read does not find are purged, or not there yet. Later ones are
        // missing.
        let begin = (log, bounds(&range), false);
        let chunks = stream::try_unfold(begin, |(log, range, began)| async move {
            if range.is_empty() {
                return Ok::<_, io::Error>(None);
            }
            let expected = range.start;
            let (entries, left) = log.chunk(range).await?;
            match entries.first().map(|first| index_of::<C>(first)) {
                Some(first) if began && first != expected => {
                    let why =
                        format!("the entries from {expected} up to {first} were purged meanwhile");
                    Err(io::Error::new(io::ErrorKind::NotFound, why))
                }
                Some(_) => Ok(Some((entries, (log, left, true)))),
                None => Ok(None),
            }
        });
        Box::pin(chunks.flat_map(|chunk| {
            let (entries, error) = match chunk {
                Ok(entries) => (entries, None),
                Err(e) => (Vec::new(), Some(Err(e))),
            };
            stream::iter(entries.into_iter().map(Ok).chain(error))
        }))
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<C>>> {
        Ok(self.decode("a vote", self.log.state().vote.as_deref())?)
    }
}

impl<C: RaftTypeConfig, K: Codecs<C>> RaftLogStorage<C> for RaftLog<C, K> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<C>> {
        let (purged, last): (_, Option<C::Entry>) = self.ends(index_of::<C>).await?;
        let last_log_id = last.map(|entry| entry.log_id()).or_else(|| purged.clone());
        Ok(LogState { last_purged_log_id: purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<C>) -> io::Result<()> {
        // A vote of another codec or kind must not be replaced: it may be for this term.
        self.decode::<VoteOf<C>>("a vote", self.log.state().vote.as_deref())?;
        let vote = self.encode("a vote", vote)?;
        Ok(self.log.save_vote(vote).await?)
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<C>>) -> io::Result<()> {
        let id = committed.map(|id| self.encode("a log id", &id)).transpose()?;
        Ok(self.log.save_committed(id).await?)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<C>>> {
        Ok(self.decode("a log id", self.log.state().committed.as_deref())?)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> io::Result<()>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encoded = entries.into_iter().map(|entry| self.entry(index_of::<C>(&entry), &entry));
        let last = self.log.append(encoded).await?;
        self.log.when_durable(last, |durable| callback.io_completed(durable));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdOf<C>>) -> io::Result<()> {
        let from = last_log_id.map_or(0, |id| id.index().saturating_add(1));
        Ok(self.log.truncate(from).await?)
    }

    async fn purge(&mut self, log_id: LogIdOf<C>) -> io::Result<()> {
        let index = log_id.index();
        let id = self.encode("a log id", &log_id)?;
        Ok(self.log.purge(index, id).await?)
    }
}
