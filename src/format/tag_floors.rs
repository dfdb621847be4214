//! The floors of tags: what the log keeps for each.
//!
//! ```text
//!   0 magic 4 | 4 CRC 4 | 8 log id 16 | 24 counter 8 | 32 count 4 | 36 reserved 4
//!  40 `count` times: tag 8, floor 8; tags ascend
//! ```
//!
//! A slot starts on a multiple of [`FLOORS_BLOCK`]. The CRC covers bytes [8, end of the last
//! floor).

use super::{ADDRESS_SPACE, put, u32_at, u64_at};

/// What a slot is aligned to, in bytes.
const FLOORS_BLOCK: usize = 4096;
/// Most floors of one log.
pub(crate) const MAX_TAG_FLOORS: usize = 1 << 20;

const FLOORS_HEADER: usize = 40;
const FLOOR: usize = 16;
const MAGIC: [u8; 4] = *b"RWTf";
/// Counters stay below this. A writer cannot reach it by counting.
const COUNTER_LIMIT: u64 = 1 << 63;

/// The floors of all tags, with the number of times that they were stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredFloors {
    pub(crate) counter: u64,
    /// Tag and floor, ascending by tag.
    pub(crate) floors: Vec<(u64, u64)>,
}

impl StoredFloors {
    /// Bytes of a slot with `count` floors, padded to blocks.
    pub(crate) fn slot_len(count: usize) -> usize {
        (FLOORS_HEADER + count * FLOOR).next_multiple_of(FLOORS_BLOCK)
    }

    /// Encodes into zeroed bytes of [`StoredFloors::slot_len`].
    pub(crate) fn encode(&self, log_id: &[u8; 16], slot: &mut [u8]) {
        put(slot, 0, &MAGIC);
        put(slot, 8, log_id);
        put(slot, 24, &self.counter.to_le_bytes());
        put(slot, 32, &(self.floors.len() as u32).to_le_bytes());
        let mut at = FLOORS_HEADER;
        for (tag, floor) in &self.floors {
            put(slot, at, &tag.to_le_bytes());
            put(slot, at + 8, &floor.to_le_bytes());
            at += FLOOR;
        }
        let crc = crc32fast::hash(&slot[8..at]);
        put(slot, 4, &crc.to_le_bytes());
    }

    /// Decodes the slot at the start of `b`. `None`: it is damaged, or of another log.
    pub(crate) fn decode(b: &[u8], log_id: &[u8; 16]) -> Option<Self> {
        let head = b.get(..FLOORS_HEADER)?;
        let count = u32_at(head, 32) as usize;
        if head[..4] != MAGIC || head[8..24] != *log_id || count > MAX_TAG_FLOORS {
            return None;
        }
        let whole = b.get(..FLOORS_HEADER + count * FLOOR)?;
        let counter = u64_at(head, 24);
        let sound = u32_at(head, 4) == crc32fast::hash(&whole[8..]) && u32_at(head, 36) == 0;
        if !sound || counter >= COUNTER_LIMIT {
            return None;
        }
        let floor = |b: &[u8]| (u64_at(b, 0), u64_at(b, 8));
        let floors: Vec<_> = whole[FLOORS_HEADER..].chunks_exact(FLOOR).map(floor).collect();
        let ascend = floors.is_sorted_by(|a, b| a.0 < b.0);
        let inside = floors.iter().all(|(_, floor)| *floor <= ADDRESS_SPACE);
        (ascend && inside).then_some(StoredFloors { counter, floors })
    }

    /// The slot that was stored last, and where it lies in the file's content.
    pub(crate) fn newest(content: &[u8], log_id: &[u8; 16]) -> Option<(Self, usize)> {
        let starts = (0..content.len()).step_by(FLOORS_BLOCK);
        let slot = |at| Some((StoredFloors::decode(&content[at..], log_id)?, at));
        starts.filter_map(slot).max_by_key(|(stored, _)| stored.counter)
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    const ID: [u8; 16] = [9; 16];

    fn encoded(stored: &StoredFloors) -> Vec<u8> {
        let mut slot = vec![0; StoredFloors::slot_len(stored.floors.len())];
        stored.encode(&ID, &mut slot);
        slot
    }

    #[test]
    fn floors_with_any_flipped_bit_are_rejected() {
        let stored = StoredFloors { counter: 5, floors: vec![(0, 0), (7, 1 << 40), (u64::MAX, 8)] };
        let mut b = encoded(&stored);
        assert_eq!(b.len(), FLOORS_BLOCK);
        assert_eq!(StoredFloors::decode(&b, &ID), Some(stored));
        for bit in 0..(FLOORS_HEADER + 3 * FLOOR) * 8 {
            b[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(StoredFloors::decode(&b, &ID), None, "bit {bit}");
            b[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(StoredFloors::decode(&b, &[8; 16]), None, "another log's");
        assert_eq!(StoredFloors::decode(&b[..80], &ID), None, "too short");
    }

    #[test]
    fn floors_that_no_writer_stores_are_rejected_behind_a_right_checksum() {
        let forged = |counter, floors| {
            StoredFloors::decode(&encoded(&StoredFloors { counter, floors }), &ID)
        };
        assert!(forged(1, vec![]).is_some());
        assert!(forged(1, vec![(1, 0), (1, 0)]).is_none(), "a tag twice");
        assert!(forged(1, vec![(2, 0), (1, 0)]).is_none(), "not ascending");
        assert!(forged(1, vec![(1, ADDRESS_SPACE + 1)]).is_none(), "outside the address space");
        assert!(forged(COUNTER_LIMIT, vec![]).is_none());
        assert!(forged(COUNTER_LIMIT - 1, vec![]).is_some());
        let mut many = encoded(&StoredFloors { counter: 1, floors: vec![(1, 1)] });
        many[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(StoredFloors::decode(&many, &ID), None);
    }

    #[test]
    fn newest_slot_is_found_wherever_it_lies() {
        let many = |counter| StoredFloors { counter, floors: (0..300).map(|n| (n, n)).collect() };
        let one = StoredFloors { counter: 3, floors: vec![(1, 1)] };
        let content = [encoded(&many(2)), encoded(&one), vec![7; 5000]].concat();
        assert_eq!(StoredFloors::newest(&content, &ID), Some((one, 8192)));
        assert_eq!(StoredFloors::newest(&[1; 9000], &ID), None);
    }
}
