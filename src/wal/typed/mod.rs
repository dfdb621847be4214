//! A log of values instead of bytes.
//!
//! 1. A record is the codec's encoding of a value, and nothing else: a typed log is a log like any
//!    other, and can be read as bytes.
//! 2. A value that cannot be encoded, or whose encoding fails the check, is rejected before any
//!    room is reserved.
//! 3. A record that does not decode to exactly one value is an error with the record's position. It
//!    does not end a reader.

mod codec;
mod records;

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "json")]
pub use self::codec::Json;
use self::codec::check_round_trip;
pub use self::codec::{Codec, CodecError, Postcard, RoundTrip};
pub use self::records::{TypedConsumer, TypedFollow, TypedReadOnlyWal, TypedReader, TypedRecords};
use crate::error::{Error, ReplayError};
use crate::lsn::Lsn;
use crate::read::Record;
use crate::wal::Wal;

/// Bytes of the largest buffer that a thread keeps. A larger one is freed after use.
const KEPT: usize = 1 << 20;

type Result<T, E = TypedError> = std::result::Result<T, E>;

/// Why an operation on a typed log failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedError {
    /// The log's own error.
    #[error(transparent)]
    Log(#[from] Error),
    /// The value cannot be encoded. Nothing was appended.
    #[error("the value cannot be encoded: {0}")]
    Encode(CodecError),
    /// The value's encoding does not decode to the same value. Nothing was appended.
    #[error(
        "the value would not come back from the log: {0}; the codec does not support the type, for instance an \
         attribute of serde that needs a self-describing codec"
    )]
    RoundTrip(CodecError),
    /// The record does not decode to a value of this type.
    #[error("the record at {lsn} cannot be decoded: {source}")]
    Decode {
        /// The record's position.
        lsn: Lsn,
        /// The codec's error.
        source: CodecError,
    },
}

/// A [`Wal`] whose records are values of type `T`. Feature `serde`.
///
/// The codec is [`Postcard`], or another [`Codec`] with [`TypedWal::with_codec`]. A change of `T`
/// changes the format. Give the log a version with
/// [`WalBuilder::application_version`](crate::WalBuilder::application_version), and change the
/// version with `T`. A value of a later version with one more field is an error for a program that
/// reads it with the former type.
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
pub struct TypedWal<T, C = Postcard> {
    wal: Wal,
    round_trip: RoundTrip,
    /// With `RoundTrip::First`: whether a value has passed the check.
    first_came_back: AtomicBool,
    value: PhantomData<fn() -> (T, C)>,
}

impl<T, C> Clone for TypedWal<T, C> {
    fn clone(&self) -> Self {
        TypedWal {
            wal: self.wal.clone(),
            round_trip: self.round_trip,
            first_came_back: AtomicBool::new(self.first_came_back.load(Ordering::Relaxed)),
            value: PhantomData,
        }
    }
}

impl<T, C> fmt::Debug for TypedWal<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedWal").field(&self.wal).finish()
    }
}

impl<T> TypedWal<T, Postcard>
where
    Postcard: Codec<T>,
{
    /// Reads and appends values through this log, with [`Postcard`].
    #[must_use]
    pub fn new(wal: Wal) -> Self {
        Self::with_codec(wal)
    }
}

impl<T, C: Codec<T>> TypedWal<T, C> {
    /// Reads and appends values through this log, with the codec `C`.
    ///
    /// ```
    /// # #[cfg(feature = "json")] {
    /// use ringwal::{Json, TypedWal, Wal};
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-json-{}", std::process::id()));
    /// let log = TypedWal::<serde_json::Value, Json>::with_codec(Wal::open(&dir)?);
    /// log.append_durable(&serde_json::json!({ "paid": 1250 }))?;
    /// # log.wal().close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # }
    /// # Ok::<(), ringwal::TypedError>(())
    /// ```
    #[must_use]
    pub fn with_codec(wal: Wal) -> Self {
        TypedWal {
            wal,
            round_trip: RoundTrip::default(),
            first_came_back: AtomicBool::new(false),
            value: PhantomData,
        }
    }

    /// Sets which values are checked before they are appended. Default: see [`RoundTrip`].
    #[must_use]
    pub fn round_trip(self, values: RoundTrip) -> Self {
        TypedWal { round_trip: values, ..self }
    }

    /// The log itself, to wait, sync, truncate and close.
    #[must_use]
    pub fn wal(&self) -> &Wal {
        &self.wal
    }

    /// Appends a value as [`Wal::append`] appends bytes. Encodes into a buffer that the thread
    /// keeps.
    ///
    /// # Errors
    ///
    /// `Encode`, `RoundTrip`; `Log` as [`Wal::append`].
    pub fn append(&self, value: &T) -> Result<Lsn> {
        self.encoded(value, |bytes| self.wal.append(bytes))
    }

    /// Appends a value and never blocks: see [`Wal::try_append`].
    ///
    /// # Errors
    ///
    /// `Encode`, `RoundTrip`; `Log` as [`Wal::try_append`].
    pub fn try_append(&self, value: &T) -> Result<Lsn> {
        self.encoded(value, |bytes| self.wal.try_append(bytes))
    }

    /// Appends a value, as a future that waits while the ring is full: see [`Wal::append_async`].
    /// The call encodes the value into a buffer of its own before it returns the future.
    ///
    /// # Errors
    ///
    /// `Encode`, `RoundTrip`; `Log` as [`Wal::append_async`].
    pub fn append_async<'a>(
        &'a self,
        value: &T,
    ) -> impl Future<Output = Result<Lsn>> + Send + use<'a, T, C> {
        let encoded = self.to_vec(value);
        let wal = &self.wal;
        async move { Ok(wal.append_async(&encoded?).await?) }
    }

    /// Appends a value and waits until it is durable: see [`Wal::append_durable`].
    ///
    /// # Errors
    ///
    /// `Encode`, `RoundTrip`; `Log` as [`Wal::append_durable`].
    pub fn append_durable(&self, value: &T) -> Result<Lsn> {
        self.encoded(value, |bytes| self.wal.append_durable(bytes))
    }

    /// Appends values that survive a crash all together or not at all: see [`Wal::append_batch`].
    /// Allocates once for each value.
    ///
    /// # Errors
    ///
    /// `Encode`, `RoundTrip`; `Log` as [`Wal::append_batch`].
    pub fn append_batch(&self, values: &[T]) -> Result<Lsn> {
        let records: Result<Vec<_>> = values.iter().map(|value| self.to_vec(value)).collect();
        Ok(self.wal.append_batch(&records?)?)
    }

    /// Reads the value at exactly `lsn`: see [`Wal::read`].
    ///
    /// # Errors
    ///
    /// `Decode`; `Log` as [`Wal::read`].
    pub fn read(&self, lsn: Lsn) -> Result<T> {
        let record = self.wal.read(lsn)?;
        decode::<T, C>(&record).map(|(_, value)| value)
    }

    /// Reads durable values from the first at or after `from`: see [`Wal::reader`].
    #[must_use]
    pub fn reader(&self, from: Lsn) -> TypedReader<T, C> {
        TypedRecords::new(self.wal.reader(from))
    }

    /// Follows the log's end: see [`Wal::follow`].
    ///
    /// # Errors
    ///
    /// `Log` as [`Wal::follow`].
    pub fn follow(&self, from: Lsn) -> Result<TypedFollow<T, C>> {
        Ok(TypedRecords::new(self.wal.follow(from)?))
    }

    /// Attaches a named reader whose position survives: see [`Wal::consumer`].
    ///
    /// # Errors
    ///
    /// `Log` as [`Wal::consumer`].
    pub fn consumer(&self, name: &str) -> Result<TypedConsumer<T, C>> {
        Ok(TypedConsumer::new(self.wal.consumer(name)?))
    }

    /// Calls `apply` with every value, oldest first, and returns how many there were: see
    /// [`Wal::replay`].
    ///
    /// # Errors
    ///
    /// `Log` if the log cannot be read. `Apply` with the error of `apply`, or with the `Decode` of
    /// a record that does not decode.
    pub fn replay<E: From<TypedError>>(
        &self,
        mut apply: impl FnMut(Lsn, T) -> Result<(), E>,
    ) -> Result<u64, ReplayError<E>> {
        self.wal.replay(|lsn, bytes| {
            let decoded = C::decode(bytes);
            apply(lsn, decoded.map_err(|source| E::from(TypedError::Decode { lsn, source }))?)
        })
    }

    /// Encodes into `record`, and checks the encoding if the setting says so.
    fn encode(&self, value: &T, record: &mut Vec<u8>) -> Result<()> {
        C::encode(value, record).map_err(TypedError::Encode)?;
        let due = match self.round_trip {
            RoundTrip::Every => true,
            RoundTrip::First => !self.first_came_back.load(Ordering::Relaxed),
            RoundTrip::Never => false,
        };
        if due {
            check_round_trip::<T, C>(record).map_err(TypedError::RoundTrip)?;
            self.first_came_back.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn to_vec(&self, value: &T) -> Result<Vec<u8>> {
        let mut record = Vec::new();
        self.encode(value, &mut record)?;
        Ok(record)
    }

    /// Encodes into the thread's buffer and appends it. If `encode` itself appends a typed value,
    /// that one gets an empty buffer.
    fn encoded(&self, value: &T, append: impl FnOnce(&[u8]) -> Result<Lsn, Error>) -> Result<Lsn> {
        thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
        let mut buffer = BUFFER.try_with(RefCell::take).unwrap_or_default();
        buffer.clear();
        self.encode(value, &mut buffer)?;
        let appended = append(&buffer);
        if buffer.capacity() <= KEPT {
            let _ = BUFFER.try_with(|kept| kept.replace(buffer));
        }
        Ok(appended?)
    }
}

fn decode<T, C: Codec<T>>(record: &Record) -> Result<(Lsn, T)> {
    let lsn = record.lsn;
    let value = C::decode(&record.payload);
    value.map(|value| (lsn, value)).map_err(|source| TypedError::Decode { lsn, source })
}
