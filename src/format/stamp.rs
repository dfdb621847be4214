//! The stamp of a place over which no group was written since its segment was prepared.
//!
//! ```text
//!   0 magic 4 "RWSt" | 4 CRC 4 of [0, 4) then [8, 32) | 8 LSN 8 | 16 log id 16
//! ```
//!
//! Stamps stand at the place of the first group and at multiples of the stride. Groups are written
//! in order. An intact stamp therefore proves that nothing from its place on was ever durable.
//! Stamps save recovery a look at every block after the end; without stamps, recovery reads the
//! blocks.

use super::{SegmentHeader, put, u32_at, u64_at};
use crate::lsn::align_up;

/// Bytes of a stamp.
pub(crate) const STAMP: usize = 32;
const MAGIC: [u8; 4] = *b"RWSt";
/// Stamps per segment, approximately.
const STAMPS: u64 = 16;

fn crc(b: &[u8; STAMP]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&b[..4]);
    hasher.update(&b[8..]);
    hasher.finalize()
}

pub(crate) fn stamp(lsn: u64, log_id: &[u8; 16]) -> [u8; STAMP] {
    let mut b = [0; STAMP];
    put(&mut b, 0, &MAGIC);
    put(&mut b, 8, &lsn.to_le_bytes());
    put(&mut b, 16, log_id);
    let crc = crc(&b);
    put(&mut b, 4, &crc.to_le_bytes());
    b
}

/// Whether these bytes begin with the stamp of this place.
pub(crate) fn is_stamp(b: &[u8], lsn: u64, log_id: &[u8; 16]) -> bool {
    b.first_chunk().is_some_and(|b: &[u8; STAMP]| {
        b[..4] == MAGIC && u64_at(b, 8) == lsn && b[16..] == *log_id && u32_at(b, 4) == crc(b)
    })
}

impl SegmentHeader {
    /// Bytes from one stamp to the next: a multiple of the block.
    pub(crate) fn stamp_stride(&self) -> u64 {
        align_up((self.size / STAMPS).max(1), u64::from(self.block))
    }

    /// The addresses of the stamps, from the last one on.
    pub(crate) fn stamps_from_the_end(&self) -> impl Iterator<Item = u64> {
        let (first, stride) = (self.first_group(), self.stamp_stride());
        let (base, count) = (self.base, (self.size - 1) / stride);
        let later = (1..=count).rev().map(move |n| base + n * stride).filter(move |&at| at > first);
        later.chain([first])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: [u8; 16] = *b"0123456789abcdef";

    fn header(size: u64, block: u32) -> SegmentHeader {
        let base = 3 * size;
        SegmentHeader {
            log_id: LOG,
            block,
            size,
            base,
            max_group: block,
            created_at: 0,
            app_version: 0,
        }
    }

    #[test]
    fn a_stamp_is_of_one_place_in_one_log_and_every_flipped_bit_is_found() {
        let mut b = stamp(4096, &LOG);
        assert!(is_stamp(&b, 4096, &LOG));
        assert!(!is_stamp(&b, 8192, &LOG));
        assert!(!is_stamp(&b, 4096, &[0; 16]));
        assert!(!is_stamp(&b[..STAMP - 1], 4096, &LOG));
        assert!(!is_stamp(&[0; STAMP], 0, &[0; 16]));
        for bit in 0..STAMP * 8 {
            b[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_stamp(&b, 4096, &LOG), "bit {bit}");
            b[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn stamps_stand_on_blocks_inside_the_segment_and_the_first_on_the_first_group() {
        for (size, block) in
            [(8192, 4096), (16 << 10, 4096), (64 << 20, 4096), (1 << 20, 65536), (12 << 12, 4096)]
        {
            let h = header(size, block);
            let at: Vec<u64> = h.stamps_from_the_end().collect();
            assert_eq!(at.last(), Some(&h.first_group()));
            assert!(at.windows(2).all(|w| w[1] < w[0]), "{at:?}");
            let inside = |&lsn: &u64| lsn < h.end() && lsn.is_multiple_of(u64::from(block));
            assert!(at.iter().all(inside) && at.len() <= 17, "{at:?}");
            assert!(h.end() - at[0] <= h.stamp_stride().max(size - u64::from(block)));
        }
    }
}
