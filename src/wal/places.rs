//! Reading from an ordinal or a time.

use std::sync::Arc;
use std::time::SystemTime;

use crate::error::Result;
use crate::read::places::{position_at, read_ordinal};
use crate::read::{Reader, Record};
use crate::wal::Wal;

impl Wal {
    /// Reads the record with this ordinal: the first record ever appended has 0. See
    /// [`RecordRef::ordinal`](crate::RecordRef::ordinal).
    ///
    /// Costs a read of one group header for each step of a bisection over the segments, the
    /// headers of the groups of one segment, and the groups of that segment up to the record. Where
    /// the LSN is known, [`Wal::read`] is faster.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-ord-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// let lsns: Vec<_> = wal.append_batch_lsns(&["zero", "one", "two"])?.collect();
    /// wal.sync()?;
    /// let record = wal.read_ordinal(2)?;
    /// assert_eq!((record.lsn(), record.payload()), (lsns[2], &b"two"[..]));
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `NoOrdinal` if no durable record has it, `Pruned` below the oldest record, `Truncated` if
    /// the record was cut, `Corruption`, `Io`, `Forked`.
    pub fn read_ordinal(&self, ordinal: u64) -> Result<Record> {
        let state = &self.appender().state;
        read_ordinal(&state.view, state.durable.end(), ordinal)
    }

    /// Reads durable records from the first group that was written at `time` or later, by the wall
    /// clock of its writer. See [`RecordRef::written_at`](crate::RecordRef::written_at).
    ///
    /// If every group is older, the reader is empty. If the clock was set back, several groups
    /// may follow an older one: the reader starts at one of them. Costs what
    /// [`Wal::read_ordinal`] costs, without reading a group.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-time-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// wal.append_durable(b"some time ago")?;
    /// let minute = std::time::Duration::from_secs(60);
    /// let mut last_minute = wal.reader_from_time(std::time::SystemTime::now() - minute)?;
    /// let record = last_minute.next_ref()?.expect("it was written just now");
    /// assert!(record.written_at() <= std::time::SystemTime::now());
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Corruption`, `Io`, `Forked`.
    pub fn reader_from_time(&self, time: SystemTime) -> Result<Reader> {
        let state = &self.appender().state;
        let end = state.durable.end();
        let from = position_at(&state.view, end, time)?;
        Ok(Reader::new(Arc::clone(&state.view), from, end))
    }
}
