//! Reads values: an iterator over records of any origin, the consumer, and the log of another
//! process.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use super::codec::{Codec, Postcard};
use super::{Result, TypedError, decode};
use crate::error::ReplayError;
use crate::lsn::Lsn;
use crate::read::consumer::Consumer;
use crate::read::follow::Follow;
use crate::read::outside::{ReadOnlyFollow, ReadOnlyReader, ReadOnlyWal};
use crate::read::{Reader, Record};

/// Values in order, each with its position, decoded from an iterator over records. See the methods
/// of [`TypedWal`](crate::TypedWal) and [`TypedReadOnlyWal`] that return one.
///
/// A record that does not decode is an error with its position. The iterator continues after it.
pub struct TypedRecords<I, T, C = Postcard> {
    records: I,
    value: PhantomData<fn() -> (T, C)>,
}

/// Values in order, from [`TypedWal::reader`](crate::TypedWal::reader).
pub type TypedReader<T, C = Postcard> = TypedRecords<Reader, T, C>;

/// Values as they become durable, from [`TypedWal::follow`](crate::TypedWal::follow).
pub type TypedFollow<T, C = Postcard> = TypedRecords<Follow, T, C>;

impl<I: fmt::Debug, T, C> fmt::Debug for TypedRecords<I, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedRecords").field(&self.records).finish()
    }
}

impl<I, T, C> TypedRecords<I, T, C> {
    pub(super) fn new(records: I) -> Self {
        TypedRecords { records, value: PhantomData }
    }

    /// The records themselves. A record taken from them is not delivered as a value.
    pub fn records(&mut self) -> &mut I {
        &mut self.records
    }
}

impl<I: Iterator<Item = crate::error::Result<Record>>, T, C: Codec<T>> Iterator
    for TypedRecords<I, T, C>
{
    type Item = Result<(Lsn, T)>;

    /// Returns the next value. Blocks where the records block: a follower waits for the next one.
    fn next(&mut self) -> Option<Self::Item> {
        let record = self.records.next()?;
        Some(record.map_err(TypedError::Log).and_then(|record| decode::<T, C>(&record)))
    }
}

impl<T, C: Codec<T>> TypedRecords<Follow, T, C> {
    /// The next value, as a future: see [`Follow::next_record`].
    ///
    /// # Errors
    ///
    /// `Decode`; `Log` as there.
    pub async fn next_value(&mut self) -> Option<Result<(Lsn, T)>> {
        let record = self.records.next_record().await?;
        Some(record.map_err(TypedError::Log).and_then(|record| decode::<T, C>(&record)))
    }
}

impl<T, C: Codec<T>> TypedRecords<&mut Follow, T, C> {
    /// The next value, as a future: see [`Follow::next_record`].
    ///
    /// # Errors
    ///
    /// `Decode`; `Log` as there.
    pub async fn next_value(&mut self) -> Option<Result<(Lsn, T)>> {
        let record = self.records.next_record().await?;
        Some(record.map_err(TypedError::Log).and_then(|record| decode::<T, C>(&record)))
    }
}

/// A [`Consumer`] whose records are values, from [`TypedWal::consumer`](crate::TypedWal::consumer).
///
/// ```
/// use ringwal::{TypedWal, Wal};
/// # let dir = std::env::temp_dir().join(format!("ringwal-doc-values-{}", std::process::id()));
/// let jobs = TypedWal::<String>::new(Wal::open(&dir)?);
/// jobs.append_durable(&"send the invoice".to_owned())?;
/// let mut mailer = jobs.consumer("mailer")?;
/// let (lsn, job) = mailer.values()?.next().unwrap()?;
/// assert_eq!(job, "send the invoice");
/// mailer.commit(lsn)?;
/// # drop(mailer); jobs.wal().close()?; std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), ringwal::TypedError>(())
/// ```
pub struct TypedConsumer<T, C = Postcard> {
    consumer: Consumer,
    value: PhantomData<fn() -> (T, C)>,
}

impl<T, C> fmt::Debug for TypedConsumer<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedConsumer").field(&self.consumer).finish()
    }
}

impl<T, C: Codec<T>> TypedConsumer<T, C> {
    pub(super) fn new(consumer: Consumer) -> Self {
        TypedConsumer { consumer, value: PhantomData }
    }

    /// The consumer itself, for its name, position and lag.
    #[must_use]
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// The consumer itself, to seek.
    pub fn consumer_mut(&mut self) -> &mut Consumer {
        &mut self.consumer
    }

    /// The values: see [`Consumer::records`]. The iterator waits for the next value when none is
    /// left.
    ///
    /// # Errors
    ///
    /// `Log` as there.
    pub fn values(&mut self) -> Result<TypedRecords<&mut Follow, T, C>> {
        Ok(TypedRecords::new(self.consumer.records()?))
    }

    /// Commits the value at `lsn` and all before it: see [`Consumer::commit`].
    ///
    /// # Errors
    ///
    /// `Log` as there.
    pub fn commit(&mut self, lsn: Lsn) -> Result<()> {
        Ok(self.consumer.commit(lsn)?)
    }
}

/// A [`ReadOnlyWal`] whose records are values: a typed log read beside its writer, or after it.
pub struct TypedReadOnlyWal<T, C = Postcard> {
    log: ReadOnlyWal,
    value: PhantomData<fn() -> (T, C)>,
}

impl<T, C> Clone for TypedReadOnlyWal<T, C> {
    fn clone(&self) -> Self {
        TypedReadOnlyWal { log: self.log.clone(), value: PhantomData }
    }
}

impl<T, C> fmt::Debug for TypedReadOnlyWal<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedReadOnlyWal").field(&self.log).finish()
    }
}

impl<T> TypedReadOnlyWal<T, Postcard>
where
    Postcard: Codec<T>,
{
    /// Opens the log in `dir` for reading, with [`Postcard`]: see [`ReadOnlyWal::open`].
    ///
    /// # Errors
    ///
    /// `Log` as there.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::with_codec(ReadOnlyWal::open(dir)?))
    }
}

impl<T, C: Codec<T>> TypedReadOnlyWal<T, C> {
    /// Reads values through this log.
    #[must_use]
    pub fn with_codec(log: ReadOnlyWal) -> Self {
        TypedReadOnlyWal { log, value: PhantomData }
    }

    /// The log itself.
    #[must_use]
    pub fn log(&self) -> &ReadOnlyWal {
        &self.log
    }

    /// Reads the value at exactly `lsn`: see [`ReadOnlyWal::read`].
    ///
    /// # Errors
    ///
    /// `Decode`; `Log` as there.
    pub fn read(&self, lsn: Lsn) -> Result<T> {
        let record = self.log.read(lsn)?;
        decode::<T, C>(&record).map(|(_, value)| value)
    }

    /// Reads durable values from the first at or after `from`: see [`ReadOnlyWal::reader`].
    ///
    /// # Errors
    ///
    /// `Log` as there.
    pub fn reader(&self, from: Lsn) -> Result<TypedRecords<ReadOnlyReader, T, C>> {
        Ok(TypedRecords::new(self.log.reader(from)?))
    }

    /// Follows the log's end: see [`ReadOnlyWal::follow`].
    ///
    /// # Errors
    ///
    /// `Log` as there.
    pub fn follow(&self, from: Lsn) -> Result<TypedRecords<ReadOnlyFollow, T, C>> {
        Ok(TypedRecords::new(self.log.follow(from)?))
    }

    /// Calls `apply` with every durable value, oldest first, and returns how many there were: see
    /// [`ReadOnlyWal::replay`].
    ///
    /// # Errors
    ///
    /// `Log` if the log cannot be read. `Apply` with the error of `apply`, or with the `Decode` of
    /// a record that does not decode.
    pub fn replay<E: From<TypedError>>(
        &self,
        mut apply: impl FnMut(Lsn, T) -> std::result::Result<(), E>,
    ) -> std::result::Result<u64, ReplayError<E>> {
        self.log.replay(|lsn, bytes| {
            let decoded = C::decode(bytes);
            apply(lsn, decoded.map_err(|source| E::from(TypedError::Decode { lsn, source }))?)
        })
    }
}
