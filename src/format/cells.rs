//! A slot of the file of cells: every cell of a log, with name and value.
//!
//! ```text
//!   0 magic 4 | 4 CRC 4 | 8 log id 16 | 24 counter 8 | 32 used length 4 | 36 number of cells 4
//!  40 the cells, in ascending order of their names:
//!     name length 2 | value length 2 | name | value
//! ```

use super::{put, u16_at, u32_at, u64_at};

/// Bytes of a slot. The file has two.
pub(crate) const CELLS_SLOT: usize = 64 << 10;

/// Bytes before the first cell.
pub(crate) const CELLS_HEADER: usize = 40;

/// Bytes before a cell's name.
const CELL_HEADER: usize = 4;

/// Bytes of a value at most.
pub(crate) const MAX_CELL_VALUE: usize = 4096;

/// Bytes of a plain name at most.
pub(crate) const MAX_PLAIN_NAME: usize = 64;

const MAGIC: [u8; 4] = *b"RWCl";
/// Counters stay below this. A writer cannot reach it by counting.
const COUNTER_LIMIT: u64 = 1 << 63;

const _: () = assert!(MAX_CELL_VALUE <= u16::MAX as usize, "lengths have two bytes");

/// Whether a consumer or a cell may have this name.
pub(crate) fn is_plain_name(name: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_';
    (1..=MAX_PLAIN_NAME).contains(&name.len()) && name.iter().all(plain)
}

/// Bytes that a cell takes in a slot.
pub(crate) fn cell_size(name: &str, value: &[u8]) -> usize {
    CELL_HEADER + name.len() + value.len()
}

/// Encodes cells, given in ascending order of their names, into a slot of zeros. Returns the used
/// length. `None`: they do not fit.
pub(crate) fn encode_cells<'a>(
    slot: &mut [u8],
    log_id: &[u8; 16],
    counter: u64,
    cells: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Option<usize> {
    let (mut at, mut count) = (CELLS_HEADER, 0_u32);
    for (name, value) in cells {
        let end = at.checked_add(cell_size(name, value)).filter(|end| *end <= slot.len())?;
        put(slot, at, &u16::try_from(name.len()).ok()?.to_le_bytes());
        put(slot, at + 2, &u16::try_from(value.len()).ok()?.to_le_bytes());
        put(slot, at + CELL_HEADER, name.as_bytes());
        put(slot, at + CELL_HEADER + name.len(), value);
        (at, count) = (end, count + 1);
    }
    put(slot, 0, &MAGIC);
    put(slot, 8, log_id);
    put(slot, 24, &counter.to_le_bytes());
    put(slot, 32, &u32::try_from(at).ok()?.to_le_bytes());
    put(slot, 36, &count.to_le_bytes());
    let crc = crc32fast::hash(&slot[8..at]);
    put(slot, 4, &crc.to_le_bytes());
    Some(at)
}

/// A sound slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CellsSlot<'a> {
    /// The number of times that the cells were stored. The slot with the higher one is newer.
    pub(crate) counter: u64,
    cells: &'a [u8],
}

impl<'a> CellsSlot<'a> {
    /// Decodes the slot at `index` of the file. `None`: it is damaged, or belongs to another log.
    pub(crate) fn decode(slot: &'a [u8], index: u64, log_id: &[u8; 16]) -> Option<Self> {
        let header: &[u8; CELLS_HEADER] = slot.first_chunk()?;
        let used = u32_at(header, 32) as usize;
        if header[..4] != MAGIC || header[8..24] != *log_id || used < CELLS_HEADER {
            return None;
        }
        let body = slot.get(8..used)?;
        let (crc, counter) = (u32_at(header, 4), u64_at(header, 24));
        if crc != crc32fast::hash(body) || counter >= COUNTER_LIMIT || counter % 2 != index {
            return None;
        }
        let found = CellsSlot { counter, cells: &slot[CELLS_HEADER..used] };
        found.tiles(u32_at(header, 36)).then_some(found)
    }

    /// Whether `count` cells with proper names, in ascending order, fill the slot exactly.
    fn tiles(&self, count: u32) -> bool {
        let (mut rest, mut before, mut found) = (self.cells, &[][..], 0_u32);
        while !rest.is_empty() {
            let Some((name, value, after)) = split(rest) else { return false };
            if !is_plain_name(name) || value.len() > MAX_CELL_VALUE || name <= before {
                return false;
            }
            (rest, before, found) = (after, name, found + 1);
        }
        found == count
    }

    /// The cells in ascending order of their names.
    pub(crate) fn iter(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let mut rest = self.cells;
        std::iter::from_fn(move || {
            let (name, value, after) = split(rest)?;
            rest = after;
            Some((std::str::from_utf8(name).ok()?, value))
        })
    }
}

/// The first cell of `bytes`: its name, its value, and the bytes after it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (header, rest) = bytes.split_at_checked(CELL_HEADER)?;
    let (name, rest) = rest.split_at_checked(usize::from(u16_at(header, 0)))?;
    let (value, rest) = rest.split_at_checked(usize::from(u16_at(header, 2)))?;
    Some((name, value, rest))
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    const ID: [u8; 16] = [9; 16];

    fn encoded(counter: u64, cells: &[(&str, &[u8])]) -> Vec<u8> {
        let mut slot = vec![0; CELLS_SLOT];
        let used = encode_cells(&mut slot, &ID, counter, cells.iter().copied()).unwrap();
        slot.truncate(used);
        slot
    }

    #[test]
    fn slot_with_any_flipped_bit_is_rejected() {
        let cells: [(&str, &[u8]); 3] = [("a", b""), ("vote", b"term 7"), ("z-9_Z", &[0; 40])];
        let mut slot = encoded(6, &cells);
        let found = CellsSlot::decode(&slot, 0, &ID).unwrap();
        assert_eq!((found.counter, found.iter().collect::<Vec<_>>()), (6, cells.to_vec()));
        for bit in 0..slot.len() * 8 {
            slot[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(CellsSlot::decode(&slot, 0, &ID), None, "bit {bit}");
            slot[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..slot.len() {
            assert_eq!(CellsSlot::decode(&slot[..len], 0, &ID), None, "{len} bytes");
        }
        assert_eq!(CellsSlot::decode(&slot, 0, &[8; 16]), None, "another log's");
        assert_eq!(CellsSlot::decode(&slot, 1, &ID), None, "in the place of the other slot");
        assert_eq!(CellsSlot::decode(&[0; CELLS_SLOT], 0, &ID), None, "zeros");
    }

    /// The sum of these slots is right, and a rule does not hold.
    #[test]
    fn slot_that_breaks_one_rule_is_rejected() {
        let long = [1; MAX_CELL_VALUE + 1];
        for (name, value) in [("", &b"x"[..]), ("a b", b"x"), ("a", &long)] {
            assert_eq!(CellsSlot::decode(&encoded(0, &[(name, value)]), 0, &ID), None, "{name:?}");
        }
        for cells in [[("b", &b""[..]), ("a", b"")], [("a", b""), ("a", b"")]] {
            assert_eq!(CellsSlot::decode(&encoded(0, &cells), 0, &ID), None, "{cells:?}");
        }
        for counter in [COUNTER_LIMIT, u64::MAX - 1] {
            assert_eq!(CellsSlot::decode(&encoded(counter, &[]), 0, &ID), None, "{counter}");
        }
        let mut slot = encoded(0, &[("a", b"x")]);
        put(&mut slot, 36, &2_u32.to_le_bytes());
        let crc = crc32fast::hash(&slot[8..]);
        put(&mut slot, 4, &crc.to_le_bytes());
        assert_eq!(CellsSlot::decode(&slot, 0, &ID), None, "one cell, not two");
        assert!(CellsSlot::decode(&encoded(1, &[("a", b"x")]), 1, &ID).is_some());
    }

    #[test]
    fn cells_that_do_not_fit_are_not_encoded() {
        let value = [7; MAX_CELL_VALUE];
        let names: Vec<String> = (10..26).map(|n| n.to_string()).collect();
        let cells = |n: usize| names[..n].iter().map(|name| (name.as_str(), &value[..]));
        let mut slot = vec![0; CELLS_SLOT];
        assert_eq!(encode_cells(&mut slot, &ID, 0, cells(15)), Some(40 + 15 * 4102));
        assert_eq!(CellsSlot::decode(&slot, 0, &ID).unwrap().iter().count(), 15);
        assert_eq!(encode_cells(&mut slot, &ID, 0, cells(16)), None);
    }

    #[test]
    fn slot_of_any_bytes_is_decoded_without_a_panic() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let mut slot = encoded(2, &[("first", b"one"), ("second", b"two")]);
            for _ in 0..rng.usize(0..4) {
                let at = rng.usize(8..slot.len());
                slot[at] = rng.u8(..);
            }
            let crc = crc32fast::hash(&slot[8..]);
            put(&mut slot, 4, &crc.to_le_bytes());
            if let Some(found) = CellsSlot::decode(&slot, 0, &ID) {
                assert!(found.iter().all(|(name, _)| is_plain_name(name.as_bytes())));
            }
        }
    }
}
