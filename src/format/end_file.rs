//! The end file's content: how far a log is durable, as its writer states it.
//!
//! ```text
//!   0 magic 4 | 4 CRC 4 | 8 log id 16 | 24 boot id 16 | 40 durable end 8
//!  48 newest cut 8 | 56 keeper 8
//! ```

use super::{ADDRESS_SPACE, put, u32_at, u64_at};

/// Bytes of the end file.
pub(crate) const END_FILE: usize = 64;
/// The boot id where the system's cannot be read. No boot has this id.
pub(crate) const UNKNOWN_BOOT: [u8; 16] = [0; 16];
/// The boot id of a closed log, whose statement holds on every boot. No boot has this id.
pub(crate) const EVERY_BOOT: [u8; 16] = [0xff; 16];

const MAGIC: [u8; 4] = *b"RWEn";

/// What the end file states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StatedEnd {
    pub(crate) log_id: [u8; 16],
    /// The boot that the statement was made on, or [`EVERY_BOOT`] or [`UNKNOWN_BOOT`].
    pub(crate) boot: [u8; 16],
    pub(crate) durable_end: u64,
    /// The newest cut group below the durable end; 0 if there is none.
    pub(crate) newest_cut: u64,
    /// Names the file's inode and its directory; 0 if the writer held no locks.
    pub(crate) keeper: u64,
}

impl StatedEnd {
    /// Whether the statement holds on this boot.
    pub(crate) fn holds_on(&self, boot: Option<[u8; 16]>) -> bool {
        self.boot == EVERY_BOOT || Some(self.boot) == boot
    }

    pub(crate) fn encode(&self) -> [u8; END_FILE] {
        let mut b = [0; END_FILE];
        put(&mut b, 0, &MAGIC);
        put(&mut b, 8, &self.log_id);
        put(&mut b, 24, &self.boot);
        put(&mut b, 40, &self.durable_end.to_le_bytes());
        put(&mut b, 48, &self.newest_cut.to_le_bytes());
        put(&mut b, 56, &self.keeper.to_le_bytes());
        let crc = crc32fast::hash(&b[8..]);
        put(&mut b, 4, &crc.to_le_bytes());
        b
    }

    /// `None` for damaged bytes, and for numbers that no writer states.
    pub(crate) fn decode(b: &[u8; END_FILE]) -> Option<Self> {
        if b[..4] != MAGIC || u32_at(b, 4) != crc32fast::hash(&b[8..]) {
            return None;
        }
        let stated = StatedEnd {
            log_id: *b[8..24].first_chunk()?,
            boot: *b[24..40].first_chunk()?,
            durable_end: u64_at(b, 40),
            newest_cut: u64_at(b, 48),
            keeper: u64_at(b, 56),
        };
        let sound = (1..=ADDRESS_SPACE).contains(&stated.durable_end)
            && (stated.newest_cut == 0 || stated.newest_cut < stated.durable_end);
        sound.then_some(stated)
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    const STATED: StatedEnd = StatedEnd {
        log_id: [7; 16],
        boot: [3; 16],
        durable_end: 1 << 40,
        newest_cut: 4096,
        keeper: 9,
    };

    #[test]
    fn end_file_with_any_flipped_bit_is_rejected() {
        let mut b = STATED.encode();
        assert_eq!(StatedEnd::decode(&b), Some(STATED));
        for bit in 0..END_FILE * 8 {
            b[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(StatedEnd::decode(&b), None, "bit {bit}");
            b[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(StatedEnd::decode(&[0; END_FILE]), None);
    }

    #[test]
    fn end_file_with_numbers_out_of_range_is_rejected() {
        let decode = |stated: StatedEnd| StatedEnd::decode(&stated.encode());
        for durable_end in [0, u64::MAX, u64::MAX - 127, 1 << 63, ADDRESS_SPACE + 1] {
            assert_eq!(decode(StatedEnd { durable_end, ..STATED }), None, "{durable_end}");
        }
        for newest_cut in [1 << 40, (1 << 40) + 1, u64::MAX - 127, u64::MAX] {
            assert_eq!(decode(StatedEnd { newest_cut, ..STATED }), None, "{newest_cut}");
        }
    }
}
