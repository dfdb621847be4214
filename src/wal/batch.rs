//! Appending several records that are there together or not at all.

use crate::engine::batch::{BatchLsns, BatchRecords};
use crate::error::Result;
use crate::lsn::Lsn;
use crate::wal::Wal;
use crate::wal::futures::AppendBatchFuture;

impl Wal {
    /// Appends several records that survive a crash all together or not at all. Returns the LSN of
    /// the first. The others follow it directly, each with its own LSN. Blocks as [`Wal::append`].
    /// Calls `as_ref` once for each record. Allocates once, for references to the records.
    ///
    /// [`Wal::truncate_from`] cuts a batch as a whole: at its first record. At a later record of
    /// the batch it fails with `InsideBatch`. Readers, consumers and [`Wal::read`] take each record
    /// by itself.
    ///
    /// # Errors
    ///
    /// `EmptyBatch`; `RecordTooLarge` if the batch exceeds `max_record_size`: 4 bytes for the
    /// number of records, and each record with 8 bytes and padding to 8. Otherwise as
    /// [`Wal::append`].
    pub fn append_batch<T: AsRef<[u8]>>(&self, records: &[T]) -> Result<Lsn> {
        Ok(self.append_batch_lsns(records)?.first_lsn())
    }

    /// Appends a batch as [`Wal::append_batch`] does, and returns the LSN of every record.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-lsns-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// let transfer = ["debit 7", "credit 9"];
    /// let lsns = wal.append_batch_lsns(&transfer)?;
    /// wal.wait_durable(lsns.last_lsn())?;
    /// for (lsn, record) in lsns.zip(transfer) {
    ///     assert_eq!(wal.read(lsn)?.payload, record.as_bytes());
    /// }
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Wal::append_batch`].
    pub fn append_batch_lsns<'a, T: AsRef<[u8]>>(&self, records: &'a [T]) -> Result<BatchLsns<'a>> {
        self.appender().append_batch(BatchRecords::new(None, records))
    }

    /// Appends a batch as [`Wal::append_batch_lsns`] does, but never blocks.
    ///
    /// # Errors
    ///
    /// `RingFull` where [`Wal::append_batch`] would wait; otherwise as [`Wal::append_batch`].
    pub fn try_append_batch<'a, T: AsRef<[u8]>>(&self, records: &'a [T]) -> Result<BatchLsns<'a>> {
        self.appender().try_append_batch(BatchRecords::new(None, records))
    }

    /// Appends a batch as [`Wal::append_batch_lsns`] does, as a future that waits while the ring is
    /// full. Calls `as_ref` once for each record, before it returns the future.
    ///
    /// The future may be dropped and polled late as that of [`Wal::append_async`].
    ///
    /// # Errors
    ///
    /// As [`Wal::append_batch`].
    pub fn append_batch_async<'a, T: AsRef<[u8]>>(
        &'a self,
        records: &'a [T],
    ) -> AppendBatchFuture<'a> {
        AppendBatchFuture::new(self.appender(), BatchRecords::new(None, records))
    }
}
