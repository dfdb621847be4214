//! The log of one group with the application's types. The layers implement openraft's traits for
//! it.

use std::fmt::{self, Debug};
use std::marker::PhantomData;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use ringwal::{Codec, Postcard};

use crate::error::{LogError, Result};
use crate::group_log::GroupLog;
use crate::logs::RaftLogs;
use crate::record::{self, Record};

/// The log of one Raft group: the log storage and the log reader of each version of openraft whose
/// feature is on. From [`RaftLogs::group`]. Cheap to clone; a clone is the same log.
///
/// `C` is the application's type configuration, of any of those versions. `K` encodes entries,
/// votes and log ids. The default is compact; with `ringwal::Json` the application's data may need
/// a self-describing format.
pub struct RaftLog<C, K = Postcard> {
    pub(crate) log: GroupLog,
    types: PhantomData<fn() -> (C, K)>,
}

impl<C, K> Clone for RaftLog<C, K> {
    fn clone(&self) -> Self {
        RaftLog { log: self.log.clone(), types: PhantomData }
    }
}

impl<C, K> Debug for RaftLog<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftLog").field("group", &self.log.id()).finish_non_exhaustive()
    }
}

impl RaftLogs {
    /// The log of the group with this id. A group that is not there yet begins with its first
    /// append or vote.
    #[must_use]
    pub fn group<C>(&self, id: u64) -> RaftLog<C> {
        self.group_with(id)
    }

    /// As [`RaftLogs::group`], with another codec.
    #[must_use]
    pub fn group_with<C, K>(&self, id: u64) -> RaftLog<C, K> {
        RaftLog { log: GroupLog::new(Arc::clone(&self.shared), id), types: PhantomData }
    }
}

impl<C, K> RaftLog<C, K> {
    fn failed<'a>(
        &'a self,
        what: &'static str,
    ) -> impl FnOnce(ringwal::CodecError) -> LogError + 'a {
        move |source| LogError::Codec { group: self.log.id(), what, source }
    }

    /// The record of an entry.
    pub(crate) fn entry<E>(&self, index: u64, entry: &E) -> Result<(u64, Record)>
    where
        K: Codec<E>,
    {
        let encode = |bytes: &mut Vec<u8>| K::encode(entry, bytes);
        let record = record::entry(index, encode).map_err(self.failed("an entry"))?;
        Ok((index, record))
    }

    pub(crate) fn encode<T>(&self, what: &'static str, value: &T) -> Result<Vec<u8>>
    where
        K: Codec<T>,
    {
        let mut bytes = Vec::new();
        K::encode(value, &mut bytes).map_err(self.failed(what))?;
        Ok(bytes)
    }

    pub(crate) fn decode<T>(&self, what: &'static str, bytes: Option<&[u8]>) -> Result<Option<T>>
    where
        K: Codec<T>,
    {
        bytes.map(|bytes| K::decode(bytes).map_err(self.failed(what))).transpose()
    }

    /// The entries in `range` that exist. With a limit: up to so many bytes, and at least one.
    pub(crate) async fn entries<E>(
        &self,
        range: Range<u64>,
        limit: Option<usize>,
        index_of: impl Fn(&E) -> u64,
    ) -> Result<Vec<E>>
    where
        K: Codec<E>,
    {
        let limit = limit.unwrap_or(usize::MAX);
        let records = self.log.records(&range, limit).await?;
        let mut bytes = 0usize;
        let mut entries = Vec::with_capacity(records.len());
        for record in records {
            bytes = bytes.saturating_add(record.len());
            if bytes > limit && !entries.is_empty() {
                break;
            }
            let (index, encoded) = record::parts(&record);
            let entry = K::decode(encoded).map_err(self.failed("an entry"))?;
            let found = index_of(&entry);
            if found != index {
                let why = format!("the entry's index is {found}, its record's {index}");
                return Err(self.failed("an entry")(why.into()));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The purged id, and the last entry if there is one.
    pub(crate) async fn ends<I, E>(
        &self,
        index_of: impl Fn(&E) -> u64,
    ) -> Result<(Option<I>, Option<E>)>
    where
        K: Codec<I> + Codec<E>,
    {
        let (purged, range) = self.log.purged_and_range();
        let purged = self.decode("a log id", purged.as_deref())?;
        let last = range.end.saturating_sub(1).max(range.start)..range.end;
        let last = self.entries(last, None, index_of).await?;
        Ok((purged, last.into_iter().next_back()))
    }
}

/// The bounds of a range as its first index, and the one after its last.
pub(crate) fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
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
