//! Positions in the log.
//!
//! 1. An [`Lsn`] is an address in the log's 64-bit address space, not a counter. A subtraction
//!    gives the segment and the offset in it.
//! 2. Later records have greater LSNs. A position is never assigned to a second record, with one
//!    exception: after a crash, positions of unacknowledged records may be assigned again.

use std::fmt;

/// The address of a record in the log.
///
/// LSNs increase strictly in the order of the log. They are not dense: two neighbours differ by the
/// size of the first on disk, and by more at the start of a group or segment.
///
/// How each call takes a position (*at*: a record starts there):
///
/// | call | the record at the position | what else it may be | otherwise |
/// |---|---|---|---|
/// | [`Wal::read`](crate::Wal::read) | is read | | `NoRecord` |
/// | [`Wal::reader`](crate::Wal::reader), [`follow`](crate::Wal::follow) `(from)` | is the first one | anything up to [`Wal::end`](crate::Wal::end); [`Lsn::ZERO`] is the oldest | `NotAppended` above, `Pruned` below the oldest |
/// | [`Wal::reader_back`](crate::Wal::reader_back) `(before)` | is left out | anything | above the durable end: begins at the newest |
/// | [`Wal::wait_durable`](crate::Wal::wait_durable), `when_durable`, `on_durable` | is waited for, with all before | anything below [`Wal::end`](crate::Wal::end) | `NotAppended` |
/// | [`Wal::durable_end`](crate::Wal::durable_end), [`Wal::end`](crate::Wal::end) | is not included: all below it are durable, or appended | | |
/// | [`Wal::truncate_before`](crate::Wal::truncate_before) | stays, with its segment | anything | above the end: counts as the end |
/// | [`Wal::truncate_from`](crate::Wal::truncate_from) | is cut, with all after | a former durable end, the first record of a batch; [`Lsn::ZERO`] is the oldest | `NoRecord`, `InsideBatch` |
/// | [`Consumer::commit`](crate::Consumer::commit) | is committed, with all before | | `NoRecord`, `NotDurable`, `NotAppended` |
/// | [`Consumer::commit_before`](crate::Consumer::commit_before) | is not committed; all before are | [`Lsn::next`], a durable end | `NoRecord` inside a record |
/// | [`Consumer::seek`](crate::Consumer::seek) | is delivered next | [`Lsn::next`], a durable end; [`Lsn::ZERO`] is the oldest | `NoRecord` inside a record |
/// | [`Consumer::position`](crate::Consumer::position) | is delivered next: all below are committed | | |
///
/// ```
/// use ringwal::Lsn;
/// assert!(Lsn::new(4224) > Lsn::ZERO);
/// assert_eq!(Lsn::new(4224).to_string(), "4224");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// The position before every record. A reader from here starts at the oldest record.
    pub const ZERO: Lsn = Lsn(0);

    /// The position with this address, as the caller stored it earlier. Range: all of `u64`.
    #[must_use]
    pub const fn new(address: u64) -> Self {
        Lsn(address)
    }

    /// The address as a number, for the caller to store.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The position from which a reader finds the record after this one. Store it with the applied
    /// state.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-next-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// let first = wal.append(b"applied")?;
    /// wal.append_durable(b"not yet")?;
    /// let second = wal.reader(first.next()).next().unwrap()?;
    /// assert_eq!(second.payload, b"not yet");
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    #[must_use]
    pub const fn next(self) -> Lsn {
        Lsn(self.0.saturating_add(1))
    }
}

impl std::str::FromStr for Lsn {
    type Err = std::num::ParseIntError;

    /// Parses the form that `Display` writes: the address as a decimal number.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Lsn)
    }
}

/// Serializes the address as a number. Feature `serde`.
#[cfg(feature = "serde")]
impl serde::Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

/// Feature `serde`.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Lsn)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lsn({})", self.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<u64> for Lsn {
    fn from(address: u64) -> Self {
        Lsn(address)
    }
}

impl From<Lsn> for u64 {
    fn from(lsn: Lsn) -> u64 {
        lsn.0
    }
}

/// Rounds `n` up to a multiple of `a`, a power of two. Callers bound `n` far below `u64::MAX`.
pub(crate) const fn align_up(n: u64, a: u64) -> u64 {
    (n + a - 1) & !(a - 1)
}
