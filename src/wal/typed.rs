//! A log of values instead of bytes, in the encoding of the crate `postcard`.
//!
//! 1. What is appended is what the codec makes of a value, and nothing else: a typed log is a log like
//!    any other, and can be read as bytes.
//! 2. A value that cannot be encoded is refused before anything is reserved.
//! 3. A record that is no value of the type is an error that names it. It does not end a reader.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ReplayError};
use crate::lsn::Lsn;
use crate::read::follow::Follow;
use crate::read::{Reader, Record};
use crate::wal::Wal;

/// A buffer that is larger is given back after use.
const KEPT: usize = 1 << 20;

/// Why an operation on a typed log failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedError {
    /// The log's own error.
    #[error(transparent)]
    Log(#[from] Error),
    /// The value cannot be encoded. Nothing was appended.
    #[error("the value cannot be encoded: {0}")]
    Encode(postcard::Error),
    /// The record is no value of this type.
    #[error("the record at {lsn} cannot be decoded: {source}")]
    Decode {
        /// The record.
        lsn: Lsn,
        /// The codec's answer.
        source: postcard::Error,
    },
}

/// A [`Wal`] whose records are values of type `T`. Feature `serde`.
///
/// The codec is [postcard](https://docs.rs/postcard): compact, and not self-describing, so that a change of
/// `T` is a change of the format. Give the log a version with
/// [`WalBuilder::application_version`](crate::WalBuilder::application_version), and change it with `T`.
///
/// ```
/// use ringwal::{TypedWal, Wal};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// enum Event {
///     Opened { account: u64 },
///     Paid { account: u64, cents: i64 },
/// }
/// # let dir = std::env::temp_dir().join(format!("ringwal-doc-typed-{}", std::process::id()));
/// let events = TypedWal::<Event>::new(Wal::builder(&dir).application_version(1).open()?);
/// events.append(&Event::Opened { account: 7 })?;
/// events.append_durable(&Event::Paid { account: 7, cents: 1250 })?;
/// let (_, first) = events.reader(ringwal::Lsn::ZERO).next().unwrap()?;
/// assert_eq!(first, Event::Opened { account: 7 });
/// # events.wal().close()?; std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), ringwal::TypedError>(())
/// ```
pub struct TypedWal<T> {
    wal: Wal,
    value: PhantomData<fn(&T) -> T>,
}

impl<T> Clone for TypedWal<T> {
    fn clone(&self) -> Self {
        TypedWal { wal: self.wal.clone(), value: PhantomData }
    }
}

impl<T> fmt::Debug for TypedWal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedWal").field(&self.wal).finish()
    }
}

impl<T: Serialize + DeserializeOwned> TypedWal<T> {
    /// Reads and appends values through this log.
    #[must_use]
    pub fn new(wal: Wal) -> Self {
        TypedWal { wal, value: PhantomData }
    }

    /// The log itself, to wait, sync, truncate and close.
    #[must_use]
    pub fn wal(&self) -> &Wal {
        &self.wal
    }

    /// Appends a value as [`Wal::append`] appends bytes. Encodes into a buffer that the thread keeps.
    ///
    /// # Errors
    ///
    /// `Encode`; `Log` as [`Wal::append`].
    pub fn append(&self, value: &T) -> Result<Lsn, TypedError> {
        encoded(value, |bytes| self.wal.append(bytes))
    }

    /// The same, but never blocks: see [`Wal::try_append`].
    ///
    /// # Errors
    ///
    /// `Encode`; `Log` as [`Wal::try_append`].
    pub fn try_append(&self, value: &T) -> Result<Lsn, TypedError> {
        encoded(value, |bytes| self.wal.try_append(bytes))
    }

    /// The same as a future that waits while the ring is full: see [`Wal::append_async`]. The value is encoded at once,
    /// into memory of its own.
    ///
    /// # Errors
    ///
    /// `Encode`; `Log` as [`Wal::append_async`].
    pub fn append_async<'a>(
        &'a self,
        value: &T,
    ) -> impl Future<Output = Result<Lsn, TypedError>> + Send + use<'a, T> {
        let encoded = postcard::to_stdvec(value).map_err(TypedError::Encode);
        let wal = &self.wal;
        async move { Ok(wal.append_async(&encoded?).await?) }
    }

    /// Appends a value and waits until it is durable: see [`Wal::append_durable`].
    ///
    /// # Errors
    ///
    /// `Encode`; `Log` as [`Wal::append_durable`].
    pub fn append_durable(&self, value: &T) -> Result<Lsn, TypedError> {
        encoded(value, |bytes| self.wal.append_durable(bytes))
    }

    /// Appends values that survive a crash all together or not at all: see [`Wal::append_batch`].
    /// Allocates for each.
    ///
    /// # Errors
    ///
    /// `Encode`; `Log` as [`Wal::append_batch`].
    pub fn append_batch(&self, values: &[T]) -> Result<Lsn, TypedError> {
        let records: Result<Vec<_>, _> = values.iter().map(postcard::to_stdvec).collect();
        Ok(self.wal.append_batch(&records.map_err(TypedError::Encode)?)?)
    }

    /// Reads the value at exactly `lsn`: see [`Wal::read`].
    ///
    /// # Errors
    ///
    /// `Decode`; `Log` as [`Wal::read`].
    pub fn read(&self, lsn: Lsn) -> Result<T, TypedError> {
        let record = self.wal.read(lsn)?;
        decode(&record).map(|(_, value)| value)
    }

    /// Reads durable values from the first at or after `from`: see [`Wal::reader`].
    #[must_use]
    pub fn reader(&self, from: Lsn) -> TypedReader<T> {
        TypedReader { reader: self.wal.reader(from), value: PhantomData }
    }

    /// Follows the log's end: see [`Wal::follow`].
    ///
    /// # Errors
    ///
    /// `Log` as [`Wal::follow`].
    pub fn follow(&self, from: Lsn) -> Result<TypedFollow<T>, TypedError> {
        Ok(TypedFollow { follow: self.wal.follow(from)?, value: PhantomData })
    }

    /// Calls `apply` with every value, oldest first, and returns how many there were: see
    /// [`Wal::replay`].
    ///
    /// # Errors
    ///
    /// `Log` if the log cannot be read, `Apply` with what `apply` returned, or with the `Decode` of a
    /// record that is no value.
    pub fn replay<E: From<TypedError>>(
        &self,
        mut apply: impl FnMut(Lsn, T) -> Result<(), E>,
    ) -> Result<u64, ReplayError<E>> {
        self.wal.replay(|lsn, bytes| {
            let decoded = postcard::from_bytes(bytes);
            let value = decoded.map_err(|source| E::from(TypedError::Decode { lsn, source }))?;
            apply(lsn, value)
        })
    }
}

/// Values in order, from [`TypedWal::reader`].
#[derive(Debug)]
pub struct TypedReader<T> {
    reader: Reader,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Iterator for TypedReader<T> {
    type Item = Result<(Lsn, T), TypedError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.reader.next()?.map_err(TypedError::Log).and_then(|record| decode(&record)))
    }
}

/// Values as they become durable, from [`TypedWal::follow`].
#[derive(Debug)]
pub struct TypedFollow<T> {
    follow: Follow,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> TypedFollow<T> {
    /// The next value, as a future: see [`Follow::next_record`].
    ///
    /// # Errors
    ///
    /// `Decode`; `Log` as there.
    pub async fn next_value(&mut self) -> Option<Result<(Lsn, T), TypedError>> {
        let record = self.follow.next_record().await?;
        Some(record.map_err(TypedError::Log).and_then(|record| decode(&record)))
    }
}

impl<T: DeserializeOwned> Iterator for TypedFollow<T> {
    type Item = Result<(Lsn, T), TypedError>;

    /// Waits for the next value.
    fn next(&mut self) -> Option<Self::Item> {
        Some(self.follow.next()?.map_err(TypedError::Log).and_then(|record| decode(&record)))
    }
}

fn decode<T: DeserializeOwned>(record: &Record) -> Result<(Lsn, T), TypedError> {
    let lsn = record.lsn;
    let value = postcard::from_bytes(&record.payload);
    value.map(|value| (lsn, value)).map_err(|source| TypedError::Decode { lsn, source })
}

/// Encodes into the thread's buffer, which is empty for a value whose own encoding appends.
fn encoded<T: Serialize>(
    value: &T,
    append: impl FnOnce(&[u8]) -> Result<Lsn, Error>,
) -> Result<Lsn, TypedError> {
    thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    let mut buffer = BUFFER.try_with(RefCell::take).unwrap_or_default();
    buffer.clear();
    let buffer = postcard::to_extend(value, buffer).map_err(TypedError::Encode)?;
    let appended = append(&buffer);
    if buffer.capacity() <= KEPT {
        let _ = BUFFER.try_with(|kept| kept.replace(buffer));
    }
    Ok(appended?)
}
