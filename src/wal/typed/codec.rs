//! How values become bytes and bytes values: the trait, its two implementations, and the check that a value comes back.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a codec answers when it cannot encode or decode. Its text names the cause.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// Turns values of `T` into the bytes of a record and back, for a [`TypedWal`](crate::TypedWal).
///
/// A log keeps its records for a long time and is read by later versions of the program. A codec must therefore
/// reject bytes that it does not understand as a whole: a remainder behind the value is an error.
///
/// ```
/// use ringwal::{Codec, CodecError, TypedWal, Wal};
///
/// /// Text as UTF-8.
/// #[derive(Debug)]
/// enum Utf8 {}
///
/// impl Codec<String> for Utf8 {
///     fn encode(value: &String, record: &mut Vec<u8>) -> Result<(), CodecError> {
///         record.extend_from_slice(value.as_bytes());
///         Ok(())
///     }
///     fn decode(record: &[u8]) -> Result<String, CodecError> {
///         Ok(std::str::from_utf8(record)?.to_owned())
///     }
/// }
/// # let dir = std::env::temp_dir().join(format!("ringwal-doc-codec-{}", std::process::id()));
/// let lines = TypedWal::<String, Utf8>::with_codec(Wal::open(&dir)?);
/// let lsn = lines.append_durable(&"plain text".to_owned())?;
/// assert_eq!(lines.wal().read(lsn)?.payload, b"plain text");
/// # lines.wal().close()?; std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), ringwal::TypedError>(())
/// ```
pub trait Codec<T> {
    /// Appends the encoding of `value` to `record`, which is empty.
    ///
    /// # Errors
    ///
    /// If the value has no encoding. What `record` holds then is dropped.
    fn encode(value: &T, record: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Decodes a whole record.
    ///
    /// # Errors
    ///
    /// If the bytes are not the encoding of a value, or if bytes are left over.
    fn decode(record: &[u8]) -> Result<T, CodecError>;
}

/// [postcard](https://docs.rs/postcard): compact, and not self-describing. The default codec.
///
/// A change of the type is a change of the format, so give the log an
/// [`application_version`](crate::WalBuilder::application_version). Attributes of serde that need a self-describing
/// format have no encoding that can be read: `#[serde(tag = "..")]`, `#[serde(untagged)]`, `#[serde(flatten)]`,
/// `#[serde(skip_serializing_if = "..")]`, and `serde_json::Value`. Use `Json` (feature `json`) for them.
#[derive(Debug)]
pub enum Postcard {}

impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    fn encode(value: &T, record: &mut Vec<u8>) -> Result<(), CodecError> {
        *record = postcard::to_extend(value, std::mem::take(record))?;
        Ok(())
    }

    fn decode(record: &[u8]) -> Result<T, CodecError> {
        match postcard::take_from_bytes(record)? {
            (value, []) => Ok(value),
            (_, rest) => Err(format!(
                "{} of {} bytes are left over: the record is of another type, or of a later version of it",
                rest.len(),
                record.len()
            )
            .into()),
        }
    }
}

/// [JSON](https://docs.rs/serde_json): self-describing, readable with `ringwal dump`, larger and slower than
/// [`Postcard`]. Feature `json`.
///
/// Serde ignores fields that a type does not have, unless it says `#[serde(deny_unknown_fields)]`.
#[cfg(feature = "json")]
#[derive(Debug)]
pub enum Json {}

#[cfg(feature = "json")]
impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(value: &T, record: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(serde_json::to_writer(record, value)?)
    }

    fn decode(record: &[u8]) -> Result<T, CodecError> {
        Ok(serde_json::from_slice(record)?)
    }
}

/// Which values a [`TypedWal`](crate::TypedWal) decodes again before it appends them.
///
/// A value that does not come back as it was is refused, and nothing is appended. The check costs a decoding and
/// a second encoding of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoundTrip {
    /// Every value. The default of builds with debug assertions.
    Every,
    /// The first value of each handle: it shows a type that its codec cannot decode. The default of other builds.
    First,
    /// No value.
    Never,
}

impl Default for RoundTrip {
    fn default() -> Self {
        if cfg!(debug_assertions) { RoundTrip::Every } else { RoundTrip::First }
    }
}

/// Decodes `record` and encodes the value again. The two encodings must be equal but for the order of their
/// bytes: the order of a hash map differs from one map to the next.
pub(super) fn check_round_trip<T, C: Codec<T>>(record: &[u8]) -> Result<(), CodecError> {
    let value = C::decode(record)?;
    let mut again = Vec::with_capacity(record.len());
    C::encode(&value, &mut again)?;
    if again == record {
        return Ok(());
    }
    let sorted = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes.sort_unstable();
        bytes
    };
    if sorted(&again) == sorted(record) {
        return Ok(());
    }
    Err("what is decoded from the value's encoding is another value".into())
}
