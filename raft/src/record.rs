//! The records that the adapter appends. The tag of a record is its group's id. A release has no
//! tag: it concerns all groups.
//!
//! | first byte | record | then |
//! |---|---|---|
//! | 1 | entry | index (8 bytes), the encoded entry |
//! | 2 | moved entry: an entry that was appended before, again | as an entry |
//! | 3 | state | 1 and the purged index (8 bytes) or 9 zeros; vote, committed and purged id: each its length (4 bytes; all ones: none) and its bytes |
//! | 4 | truncation: the entries from an index on are void | index (8 bytes) |
//! | 5 | removal of the group with everything before | |
//! | 6 | release: no group needs what lies below a position | position (8 bytes) |
//!
//! All integers are little endian.

use std::cell::Cell;
use std::sync::Arc;

use ringwal::Lsn;

use crate::error::LogError;

/// The record of an entry, shared by the cache and its readers.
pub(crate) type Record = Arc<[u8]>;

const ENTRY: u8 = 1;
const MOVED: u8 = 2;
const STATE: u8 = 3;
const TRUNCATION: u8 = 4;
const REMOVAL: u8 = 5;
const RELEASE: u8 = 6;

/// Bytes before the encoded entry.
pub(crate) const ENTRY_HEADER: usize = 9;

const NONE: u32 = u32::MAX;

/// What a group keeps beside its entries. Each part is as its codec encoded it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) vote: Option<Vec<u8>>,
    pub(crate) committed: Option<Vec<u8>>,
    pub(crate) purged: Option<Vec<u8>>,
    /// The index before the first entry that the group may have. Without `purged` if its first
    /// entry had another index than 0 or 1, and nothing was purged yet.
    pub(crate) purged_index: Option<u64>,
}

/// A record, decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Entry { index: u64 },
    Moved { index: u64 },
    State(State),
    Truncation { from: u64 },
    Removal,
}

thread_local! {
    /// Memory for the next entry that this thread encodes.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Bytes of [`SCRATCH`] that a thread keeps.
const KEPT: usize = 64 << 10;

/// The record of an entry, which `encode` appends to a vector that is empty.
pub(crate) fn entry<E>(
    index: u64,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<Record, E> {
    let mut bytes = SCRATCH.take();
    bytes.clear();
    let encoded = encode(&mut bytes);
    let len = bytes.len();
    bytes.resize(len + ENTRY_HEADER, 0);
    bytes.copy_within(..len, ENTRY_HEADER);
    bytes[0] = ENTRY;
    bytes[1..ENTRY_HEADER].copy_from_slice(&index.to_le_bytes());
    let record = Record::from(&bytes[..]);
    if bytes.capacity() <= KEPT {
        SCRATCH.set(bytes);
    }
    encoded.map(|()| record)
}

/// The index in the record of an entry, and the encoded entry.
pub(crate) fn parts(record: &[u8]) -> (u64, &[u8]) {
    let (header, encoded) = record.split_at_checked(ENTRY_HEADER).unwrap_or((&[], record));
    let index = header.last_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    (index, encoded)
}

/// The same entry as `record`, which is an entry or a moved entry, as a moved one.
pub(crate) fn moved(record: &[u8]) -> Vec<u8> {
    let mut again = record.to_vec();
    if let Some(kind) = again.first_mut() {
        *kind = MOVED;
    }
    again
}

pub(crate) fn truncation(from: u64) -> Vec<u8> {
    with_index(TRUNCATION, from, &[])
}

pub(crate) fn removal() -> Vec<u8> {
    vec![REMOVAL]
}

/// The record that comes before the removal of segments below `floor`.
pub(crate) fn release(floor: Lsn) -> Vec<u8> {
    with_index(RELEASE, floor.as_u64(), &[])
}

/// The floor in the record of a release at `lsn`, which has no tag.
pub(crate) fn released(lsn: Lsn, record: &[u8]) -> Result<Lsn, LogError> {
    let floor = match record.split_first() {
        Some((&RELEASE, rest)) => {
            rest.try_into().ok().map(|bytes| Lsn::new(u64::from_le_bytes(bytes)))
        }
        _ => None,
    };
    floor.filter(|floor| *floor <= lsn).ok_or(LogError::ForeignRecord { lsn })
}

fn with_index(kind: u8, index: u64, rest: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(ENTRY_HEADER + rest.len());
    record.push(kind);
    record.extend_from_slice(&index.to_le_bytes());
    record.extend_from_slice(rest);
    record
}

pub(crate) fn state(state: &State) -> Vec<u8> {
    let mut record = vec![STATE];
    record.push(u8::from(state.purged_index.is_some()));
    record.extend_from_slice(&state.purged_index.unwrap_or(0).to_le_bytes());
    for part in [&state.vote, &state.committed, &state.purged] {
        let len = part.as_ref().map_or(NONE, |bytes| bytes.len() as u32);
        record.extend_from_slice(&len.to_le_bytes());
        record.extend_from_slice(part.as_deref().unwrap_or_default());
    }
    record
}

/// Decodes a record of the log.
pub(crate) fn decode(lsn: Lsn, record: &[u8]) -> Result<Item, LogError> {
    let unknown = || LogError::UnknownRecord { lsn };
    let (&kind, rest) = record.split_first().ok_or_else(unknown)?;
    let index = || rest.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).ok_or_else(unknown);
    match kind {
        ENTRY => Ok(Item::Entry { index: index()? }),
        MOVED => Ok(Item::Moved { index: index()? }),
        STATE => parse_state(rest).map(Item::State).ok_or_else(unknown),
        TRUNCATION if rest.len() == 8 => Ok(Item::Truncation { from: index()? }),
        REMOVAL if rest.is_empty() => Ok(Item::Removal),
        _ => Err(unknown()),
    }
}

fn parse_state(rest: &[u8]) -> Option<State> {
    let (&has_purged, rest) = rest.split_first()?;
    let (index, mut rest) = rest.split_first_chunk()?;
    let mut part = || {
        let (len, after) = rest.split_first_chunk()?;
        let len = u32::from_le_bytes(*len);
        if len == NONE {
            rest = after;
            return Some(None);
        }
        let (bytes, after) = after.split_at_checked(len as usize)?;
        rest = after;
        Some(Some(bytes.to_vec()))
    };
    let (vote, committed, purged) = (part()?, part()?, part()?);
    let purged_index = (has_purged == 1).then(|| u64::from_le_bytes(*index));
    let whole = rest.is_empty() && has_purged <= 1 && (purged.is_none() || purged_index.is_some());
    whole.then_some(State { vote, committed, purged, purged_index })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn records_decode_to_what_was_encoded() {
        let of = |record: &[u8]| decode(Lsn::ZERO, record).unwrap();
        let x = entry(7, |bytes| {
            bytes.push(b'x');
            Ok::<(), ()>(())
        });
        let x = x.unwrap();
        assert_eq!(parts(&x), (7, &b"x"[..]));
        assert_eq!(of(&x), Item::Entry { index: 7 });
        assert_eq!(of(&moved(&x)), Item::Moved { index: 7 });
        assert_eq!(of(&truncation(u64::MAX)), Item::Truncation { from: u64::MAX });
        assert_eq!(of(&removal()), Item::Removal);
        let all = State {
            vote: Some(vec![]),
            committed: None,
            purged: Some(b"id".to_vec()),
            purged_index: Some(9),
        };
        let begins_at_7 = State { purged_index: Some(6), ..State::default() };
        for each in [State::default(), all, begins_at_7] {
            assert_eq!(of(&state(&each)), Item::State(each));
        }
    }

    #[test]
    fn an_entry_that_cannot_be_encoded_leaves_nothing_in_the_next_one() {
        let failed = entry(1, |bytes| {
            bytes.extend_from_slice(b"half");
            Err("cannot")
        });
        assert_eq!(failed.unwrap_err(), "cannot");
        let within = entry(2, |bytes| {
            assert!(bytes.is_empty());
            // An encoder may itself append an entry.
            bytes.extend_from_slice(&entry(3, |_| Ok::<(), ()>(()))?);
            Ok::<(), ()>(())
        });
        assert_eq!(parts(parts(&within.unwrap()).1), (3, &b""[..]));
    }

    #[test]
    fn a_release_states_a_floor_below_itself_and_belongs_to_no_group() {
        let (floor, lsn) = (Lsn::new(4096), Lsn::new(9000));
        let record = release(floor);
        assert_eq!(released(lsn, &record).unwrap(), floor);
        assert_eq!(released(floor, &record).unwrap(), floor);
        assert!(released(Lsn::new(4095), &record).is_err(), "a floor that comes later");
        assert!(decode(lsn, &record).is_err(), "a release with the tag of a group");
        for foreign in [&[][..], &record[..8], &[&record[..], &[0]].concat(), &truncation(1)] {
            assert!(matches!(released(lsn, foreign), Err(LogError::ForeignRecord { .. })));
        }
    }

    #[test]
    fn bytes_that_are_no_record_are_refused_at_every_length() {
        let whole =
            state(&State { purged: Some(vec![1, 2]), purged_index: Some(3), ..State::default() });
        for len in 0..whole.len() {
            assert!(decode(Lsn::ZERO, &whole[..len]).is_err(), "{len}");
        }
        let longer = [&whole[..], &[0]].concat();
        for bytes in
            [&longer[..], &[0, 1, 2], &[6; 9], &[ENTRY; 8], &[TRUNCATION; 10], &[REMOVAL, 0]]
        {
            assert!(decode(Lsn::ZERO, bytes).is_err(), "{bytes:?}");
        }
    }
}
