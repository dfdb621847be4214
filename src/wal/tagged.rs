//! Records with a tag: many streams in one log, with one sync.

use crate::engine::batch::{BatchLsns, BatchRecords};
use crate::error::Result;
use crate::lsn::Lsn;
use crate::read::follow::Follow;
use crate::read::{BackwardReader, Reader};
use crate::wal::Wal;
use crate::wal::futures::{AppendBatchFuture, AppendFuture, AppendOwnedFuture};

/// Appends to a log under one tag, and reads what has it. From [`Wal::tagged`].
///
/// A tag is any number of 64 bits: that of a Raft group, a table or a tenant. Nothing is
/// registered: the log keeps no state for a tag, except a floor that [`Wal::hold_tag`] sets. Each
/// record takes 12 bytes more than without a tag, which count for
/// [`WalBuilder::max_record_size`](crate::WalBuilder::max_record_size). Order, durability and
/// atomicity are those of the log: a sync makes the records of every tag durable.
///
/// ```
/// use ringwal::{Lsn, Wal};
/// # let dir = std::env::temp_dir().join(format!("ringwal-doc-tagged-{}", std::process::id()));
/// let wal = Wal::open(&dir)?;
/// let (orders, users) = (wal.tagged(1), wal.tagged(2));
/// orders.append(b"order 17")?;
/// users.append_durable(b"user 4")?; // and order 17, which came before
/// let records: Vec<_> = orders.reader(Lsn::ZERO).collect::<Result<_, _>>()?;
/// assert_eq!(records.len(), 1);
/// assert_eq!((records[0].tag(), records[0].payload()), (Some(1), &b"order 17"[..]));
/// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), ringwal::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Tagged<'a> {
    wal: &'a Wal,
    tag: u64,
}

impl<'a> Tagged<'a> {
    /// Its tag.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// Appends a record with the tag, as [`Wal::append`] does.
    ///
    /// # Errors
    ///
    /// As [`Wal::append`].
    pub fn append(&self, payload: &[u8]) -> Result<Lsn> {
        self.wal.append_tagged(self.tag, payload)
    }

    /// Appends a record with the tag, but never blocks: see [`Wal::try_append`].
    ///
    /// # Errors
    ///
    /// As [`Wal::try_append`].
    pub fn try_append(&self, payload: &[u8]) -> Result<Lsn> {
        self.wal.appender().try_append_tagged(self.tag, payload)
    }

    /// Appends a record with the tag, as a future that waits while the ring is full: see
    /// [`Wal::append_async`].
    ///
    /// # Errors
    ///
    /// As [`Wal::append`].
    pub fn append_async<'b>(&self, payload: &'b [u8]) -> AppendFuture<'b>
    where
        'a: 'b,
    {
        AppendFuture::new(self.wal.appender(), Some(self.tag), payload)
    }

    /// Appends a record with the tag, as a future that owns what it needs: see
    /// [`Wal::append_async_owned`].
    ///
    /// # Errors
    ///
    /// As [`Wal::append`].
    pub fn append_async_owned(&self, payload: impl Into<Vec<u8>>) -> AppendOwnedFuture {
        AppendOwnedFuture::new(self.wal.appender().clone(), Some(self.tag), payload.into())
    }

    /// Appends a record with the tag and waits until it is durable: see [`Wal::append_durable`].
    ///
    /// # Errors
    ///
    /// As [`Wal::append_durable`].
    pub fn append_durable(&self, payload: &[u8]) -> Result<Lsn> {
        self.wal.appender().append_durable(Some(self.tag), payload)
    }

    /// Appends a record with the tag and waits until it is durable, as a future: see
    /// [`Wal::append_durable_async`].
    ///
    /// # Errors
    ///
    /// As [`Wal::append_durable_async`].
    pub async fn append_durable_async(&self, payload: &[u8]) -> Result<Lsn> {
        let lsn = self.append_async(payload).await?;
        self.wal.when_durable(lsn).await?;
        Ok(lsn)
    }

    /// Appends a record of `len` bytes with the tag, which `fill` writes in place: see
    /// [`Wal::append_with`].
    ///
    /// # Errors
    ///
    /// As [`Wal::append`].
    ///
    /// # Panics
    ///
    /// As [`Wal::append_with`].
    pub fn append_with(&self, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Lsn> {
        self.wal.appender().append_with(Some(self.tag), len, fill)
    }

    /// Appends a batch whose records all have the tag, and returns the LSN of the first: see
    /// [`Wal::append_batch`]. [`Wal::append_batch_tagged`] appends a batch with several tags.
    ///
    /// # Errors
    ///
    /// As [`Wal::append_batch`], with 12 bytes more for each record.
    pub fn append_batch<T: AsRef<[u8]>>(&self, records: &[T]) -> Result<Lsn> {
        Ok(self.append_batch_lsns(records)?.first_lsn())
    }

    /// Appends a batch as [`Tagged::append_batch`] does, and returns the LSN of every record.
    ///
    /// # Errors
    ///
    /// As [`Tagged::append_batch`].
    pub fn append_batch_lsns<'b, T: AsRef<[u8]>>(&self, records: &'b [T]) -> Result<BatchLsns<'b>> {
        self.wal.appender().append_batch(BatchRecords::new(Some(self.tag), records))
    }

    /// Appends a batch as [`Tagged::append_batch_lsns`] does, but never blocks.
    ///
    /// # Errors
    ///
    /// `RingFull` where [`Tagged::append_batch`] would wait; otherwise as there.
    pub fn try_append_batch<'b, T: AsRef<[u8]>>(&self, records: &'b [T]) -> Result<BatchLsns<'b>> {
        self.wal.appender().try_append_batch(BatchRecords::new(Some(self.tag), records))
    }

    /// Appends a batch as [`Tagged::append_batch_lsns`] does, as a future that waits while the ring
    /// is full.
    ///
    /// # Errors
    ///
    /// As [`Tagged::append_batch`].
    pub fn append_batch_async<'b, T: AsRef<[u8]>>(&self, records: &'b [T]) -> AppendBatchFuture<'b>
    where
        'a: 'b,
    {
        let records = BatchRecords::new(Some(self.tag), records);
        AppendBatchFuture::new(self.wal.appender(), records)
    }

    /// Reads durable records with the tag: see [`Wal::reader`] and [`Reader::only_tag`].
    #[must_use]
    pub fn reader(&self, from: Lsn) -> Reader {
        self.wal.reader(from).only_tag(self.tag)
    }

    /// Reads durable records with the tag backwards: see [`Wal::reader_back`].
    #[must_use]
    pub fn reader_back(&self, before: Lsn) -> BackwardReader {
        self.wal.reader_back(before).only_tag(self.tag)
    }

    /// Reads durable records with the tag, then waits for more: see [`Wal::follow`].
    ///
    /// # Errors
    ///
    /// As [`Wal::follow`].
    pub fn follow(&self, from: Lsn) -> Result<Follow> {
        Ok(self.wal.follow(from)?.only_tag(self.tag))
    }
}

impl Wal {
    /// A handle that appends and reads records with this tag.
    #[must_use]
    pub fn tagged(&self, tag: u64) -> Tagged<'_> {
        Tagged { wal: self, tag }
    }

    /// Appends a record with a tag, as [`Wal::append`] does. [`Wal::tagged`] has the other forms.
    ///
    /// The record takes 12 bytes more than without a tag, which count for `max_record_size`.
    /// [`RecordRef::tag`](crate::RecordRef::tag) returns the tag, and readers, followers and
    /// consumers can skip the records of other tags: see [`Reader::only_tags`].
    ///
    /// # Errors
    ///
    /// As [`Wal::append`].
    pub fn append_tagged(&self, tag: u64, payload: &[u8]) -> Result<Lsn> {
        self.appender().append_tagged(tag, payload)
    }

    /// Appends a batch whose records have a tag each, and returns the LSN of every record: see
    /// [`Wal::append_batch`]. One atomic append spans several streams.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-btag-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// let lsns = wal.append_batch_tagged(&[(1, "stock of 7: 3"), (2, "order 17: 1 of 7")])?;
    /// wal.wait_durable(lsns.last_lsn())?;
    /// let order = wal.tagged(2).reader(ringwal::Lsn::ZERO).next().unwrap()?;
    /// assert_eq!(order.lsn(), lsns.last_lsn());
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Wal::append_batch`], with 12 bytes more for each record.
    pub fn append_batch_tagged<'a, T: AsRef<[u8]>>(
        &self,
        records: &'a [(u64, T)],
    ) -> Result<BatchLsns<'a>> {
        self.appender().append_batch(BatchRecords::tagged(records))
    }

    /// Appends a batch as [`Wal::append_batch_tagged`] does, but never blocks.
    ///
    /// # Errors
    ///
    /// `RingFull` where [`Wal::append_batch_tagged`] would wait; otherwise as there.
    pub fn try_append_batch_tagged<'a, T: AsRef<[u8]>>(
        &self,
        records: &'a [(u64, T)],
    ) -> Result<BatchLsns<'a>> {
        self.appender().try_append_batch(BatchRecords::tagged(records))
    }

    /// Appends a batch as [`Wal::append_batch_tagged`] does, as a future that waits while the ring
    /// is full.
    ///
    /// # Errors
    ///
    /// As [`Wal::append_batch_tagged`].
    pub fn append_batch_tagged_async<'a, T: AsRef<[u8]>>(
        &'a self,
        records: &'a [(u64, T)],
    ) -> AppendBatchFuture<'a> {
        AppendBatchFuture::new(self.appender(), BatchRecords::tagged(records))
    }
}
