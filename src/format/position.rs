//! A stored position: that of a consumer, or of the hook on sealed segments.
//!
//! ```text
//!   0 magic 4 | 4 CRC 4 | 8 log id 16 | 24 counter 8 | 32 position 8
//!  40 zero, to the end of the block
//! ```

use super::{put, u32_at, u64_at};

/// Bytes of an encoded position. Zeroes fill the rest of its block.
pub(crate) const STORED_POSITION: usize = 40;

const MAGIC: [u8; 4] = *b"RWCp";
/// Counters stay below this. A writer cannot reach it by counting.
const COUNTER_LIMIT: u64 = 1 << 63;

/// A position with the number of times that one was stored. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StoredPosition {
    pub(crate) counter: u64,
    pub(crate) position: u64,
}

impl StoredPosition {
    pub(crate) fn encode(self, log_id: &[u8; 16]) -> [u8; STORED_POSITION] {
        let mut b = [0; STORED_POSITION];
        put(&mut b, 0, &MAGIC);
        put(&mut b, 8, log_id);
        put(&mut b, 24, &self.counter.to_le_bytes());
        put(&mut b, 32, &self.position.to_le_bytes());
        let crc = crc32fast::hash(&b[8..]);
        put(&mut b, 4, &crc.to_le_bytes());
        b
    }

    /// `None` for a block that is damaged or belongs to another log.
    pub(crate) fn decode(block: &[u8], log_id: &[u8; 16]) -> Option<Self> {
        let b: &[u8; STORED_POSITION] = block.first_chunk()?;
        let (magic, crc) = (b[..4] == MAGIC, u32_at(b, 4) == crc32fast::hash(&b[8..]));
        let sound = magic && crc && b[8..24] == *log_id;
        let (counter, position) = (u64_at(b, 24), u64_at(b, 32));
        (sound && counter < COUNTER_LIMIT).then_some(StoredPosition { counter, position })
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    const STORED: StoredPosition = StoredPosition { counter: 5, position: 1 << 40 };

    #[test]
    fn position_with_any_flipped_bit_is_rejected() {
        let mut b = STORED.encode(&[9; 16]);
        assert_eq!(StoredPosition::decode(&b, &[9; 16]), Some(STORED));
        for bit in 0..STORED_POSITION * 8 {
            b[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(StoredPosition::decode(&b, &[9; 16]), None, "bit {bit}");
            b[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(StoredPosition::decode(&b, &[8; 16]), None, "another log's");
        assert_eq!(StoredPosition::decode(&b[..39], &[9; 16]), None, "too short");
    }

    #[test]
    fn position_with_its_counter_at_the_limit_is_rejected() {
        for counter in [COUNTER_LIMIT, u64::MAX] {
            let encoded = StoredPosition { counter, position: 7 }.encode(&[9; 16]);
            assert_eq!(StoredPosition::decode(&encoded, &[9; 16]), None, "{counter}");
        }
        let last = StoredPosition { counter: COUNTER_LIMIT - 1, position: 7 };
        assert_eq!(StoredPosition::decode(&last.encode(&[9; 16]), &[9; 16]), Some(last));
    }
}
