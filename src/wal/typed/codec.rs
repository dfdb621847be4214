//! How values become bytes and bytes values: the trait, its two implementations, and the check that
//! a value comes back.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The error of a codec that cannot encode or decode. Its text names the cause.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// Turns values of `T` into the bytes of a record and back, for a [`TypedWal`](crate::TypedWal).
///
/// A log keeps its records for a long time and is read by later versions of the program. A codec
/// must therefore reject bytes that it does not understand as a whole: bytes left after the value
/// are an error.
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
    /// If the value has no encoding. The content of `record` is dropped then.
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
/// A change of the type changes the format, so give the log an
/// [`application_version`](crate::WalBuilder::application_version). Attributes of serde that need a
/// self-describing format produce an encoding that cannot be decoded: `#[serde(tag = "..")]`,
/// `#[serde(untagged)]`, `#[serde(flatten)]`, `#[serde(skip_serializing_if = "..")]`, and
/// `serde_json::Value`. Use `Json` (feature `json`) for them.
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

/// [JSON](https://docs.rs/serde_json): self-describing, readable with `ringwal dump`, larger and
/// slower than [`Postcard`]. Feature `json`.
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
/// If the encoding does not decode to an equal value, the append is rejected. The check costs a
/// decoding and a second encoding of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoundTrip {
    /// Every value. The default of builds with debug assertions.
    Every,
    /// The first value of each handle, which detects a type that the codec cannot decode. The
    /// default of other builds.
    First,
    /// No value.
    Never,
}

impl Default for RoundTrip {
    fn default() -> Self {
        if cfg!(debug_assertions) { RoundTrip::Every } else { RoundTrip::First }
    }
}

/// Decodes `record`, encodes the value again and compares. The encodings must have the same bytes,
/// in any order: two equal hash maps differ in their order.
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
    Err("the value's encoding decodes to another value".into())
}
