//! The segment header: the first block of a segment file, immutable.
//!
//! ```text
//!   0 magic 8 | 8 version 2 | 10 checksum kind 1 | 11 zero 1 | 12 CRC 4
//!  16 incompatible 4 | 20 read-only-compatible 4 | 24 compatible 4 | 28 block size 4
//!  32 log id 16 | 48 segment size 8 | 56 base LSN 8 | 64 max group 4 | 68 header length 4
//!  72 created at 8 | 80 application version 4 | 84 zero 44
//! ```
//!
//! Valid if and only if: magic, CRC over the 128 bytes with the CRC field as zero, version 1,
//! checksum kind 1, zero bytes zero, no unknown incompatible feature; block size a power of two in
//! range; segment size, base and max group multiples of it and in range; header length equal to the
//! block size. The caller compares the base with the file's name and the size with its length.

use super::{
    ADDRESS_SPACE, MAX_BLOCK, MAX_GROUP, MAX_SEGMENT, MIN_BLOCK, put, u16_at, u32_at, u64_at,
};

/// Bytes of the header that carry a value. The rest of its block is zero.
pub(crate) const SEGMENT_HEADER: usize = 128;

const MAGIC: [u8; 8] = *b"ringwal\x1a";
const VERSION: u16 = 1;
const CHECKSUM_CRC32: u8 = 1;
const KNOWN_INCOMPATIBLE: u32 = 0;
const KNOWN_READ_ONLY_COMPATIBLE: u32 = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: [u8; 16],
    pub(crate) block: u32,
    pub(crate) size: u64,
    pub(crate) base: u64,
    pub(crate) max_group: u32,
    pub(crate) created_at: u64,
    /// The application's version of its records; 0: none.
    pub(crate) app_version: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderInvalid {
    /// The bytes are no segment header, or a damaged one.
    Damaged(&'static str),
    Version(u16),
    Features(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self, out: &mut [u8; SEGMENT_HEADER]) {
        out.fill(0);
        put(out, 0, &MAGIC);
        put(out, 8, &VERSION.to_le_bytes());
        out[10] = CHECKSUM_CRC32;
        put(out, 28, &self.block.to_le_bytes());
        put(out, 32, &self.log_id);
        put(out, 48, &self.size.to_le_bytes());
        put(out, 56, &self.base.to_le_bytes());
        put(out, 64, &self.max_group.to_le_bytes());
        put(out, 68, &self.block.to_le_bytes());
        put(out, 72, &self.created_at.to_le_bytes());
        put(out, 80, &self.app_version.to_le_bytes());
        let crc = crc32fast::hash(out);
        put(out, 12, &crc.to_le_bytes());
    }

    pub(crate) fn decode(b: &[u8]) -> Result<Self, HeaderInvalid> {
        use HeaderInvalid::Damaged;
        let b: &[u8; SEGMENT_HEADER] =
            b.first_chunk().ok_or(Damaged("the file is shorter than a segment header"))?;
        if b[..8] != MAGIC {
            return Err(Damaged("no segment header"));
        }
        let mut plain = *b;
        plain[12..16].fill(0);
        if crc32fast::hash(&plain) != u32_at(b, 12) {
            return Err(Damaged("segment header checksum"));
        }
        // With a correct checksum, an unknown value is a newer version and not damage.
        let version = u16_at(b, 8);
        if version != VERSION {
            return Err(HeaderInvalid::Version(version));
        }
        let unknown =
            u32_at(b, 16) & !KNOWN_INCOMPATIBLE | u32_at(b, 20) & !KNOWN_READ_ONLY_COMPATIBLE;
        if unknown != 0 {
            return Err(HeaderInvalid::Features(unknown));
        }
        let header = SegmentHeader {
            log_id: *b[32..48].first_chunk().ok_or(Damaged("log id"))?,
            block: u32_at(b, 28),
            size: u64_at(b, 48),
            base: u64_at(b, 56),
            max_group: u32_at(b, 64),
            created_at: u64_at(b, 72),
            app_version: u32_at(b, 80),
        };
        if b[10] != CHECKSUM_CRC32 || b[11] != 0 || b[84..].iter().any(|&x| x != 0) {
            return Err(Damaged("segment header fields"));
        }
        let block = header.block;
        if !block.is_power_of_two() || !(MIN_BLOCK..=MAX_BLOCK).contains(&block) {
            return Err(Damaged("block size"));
        }
        let block = u64::from(block);
        let aligned = header.size.is_multiple_of(block)
            && header.base.is_multiple_of(block)
            && u64::from(header.max_group).is_multiple_of(block);
        if !aligned
            || !(2 * block..=MAX_SEGMENT).contains(&header.size)
            || header.base.checked_add(header.size).is_none_or(|end| end > ADDRESS_SPACE)
            || header.max_group == 0
            || header.max_group > MAX_GROUP
            || u64::from(u32_at(b, 68)) != block
        {
            return Err(Damaged("segment header sizes"));
        }
        Ok(header)
    }

    /// The address after the segment: the base of its successor.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.size
    }

    /// The address of the first group.
    pub(crate) fn first_group(&self) -> u64 {
        self.base + u64::from(self.block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SegmentHeader {
        SegmentHeader {
            log_id: *b"0123456789abcdef",
            block: 4096,
            size: 1 << 20,
            base: 3 << 20,
            max_group: 1 << 18,
            created_at: 42,
            app_version: 7,
        }
    }

    #[test]
    fn a_header_survives_encoding() {
        let mut b = [0; SEGMENT_HEADER];
        sample().encode(&mut b);
        assert_eq!(SegmentHeader::decode(&b), Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut b = [0; SEGMENT_HEADER];
        sample().encode(&mut b);
        for bit in 0..SEGMENT_HEADER * 8 {
            b[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&b).is_err(), "bit {bit}");
            b[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn zeros_and_short_files_are_not_headers() {
        assert!(SegmentHeader::decode(&[0; SEGMENT_HEADER]).is_err());
        assert!(SegmentHeader::decode(&[]).is_err());
    }

    #[test]
    fn newer_versions_and_features_are_told_from_damage() {
        for (at, expect_version) in [(8, true), (16, false), (20, false)] {
            let mut b = [0; SEGMENT_HEADER];
            sample().encode(&mut b);
            b[at] ^= 2;
            b[12..16].fill(0);
            let crc = crc32fast::hash(&b);
            put(&mut b, 12, &crc.to_le_bytes());
            match SegmentHeader::decode(&b) {
                Err(HeaderInvalid::Version(3)) => assert!(expect_version),
                Err(HeaderInvalid::Features(2)) => assert!(!expect_version),
                other => panic!("{other:?}"),
            }
        }
    }
}
