//! The group header: 128 bytes at the start of a group's first block.
//!
//! ```text
//!   0 magic 4 | 4 CRC 4 | 8 LSN 8 | 16 log id 16 | 32 epoch counter 8 | 40 epoch nonce 8
//!  48 durable end 8 | 56 previous group 8 | 64 previous hash 8 | 72 used length 4 | 76 records 4
//!  80 first ordinal 8 | 88 wall clock 8 | 96 oldest LSN 8 | 104 flags 4 | 108 zero 4
//! 112 last cut 8 | 120 cut from 8
//! ```
//!
//! A header is valid if and only if: magic and CRC; LSN and log id as the place demands; flags
//! known and reserved bytes zero; the used length from 128 to max group and, padded, inside the
//! segment; a control group is empty; durable end and oldest not above the LSN; the previous group
//! below it or both link fields zero; the last cut below the LSN or zero; cut from with CUT below
//! the LSN and not zero, without zero.

use super::{SegmentHeader, put, u32_at, u64_at};
use crate::lsn::align_up;

/// Bytes of a group header.
pub(crate) const GROUP_HEADER: u32 = 128;
const LEN: usize = GROUP_HEADER as usize;
const MAGIC: [u8; 4] = *b"RWGp";

/// The purpose of a control group. A data group has no flag, or CUT: any group may make a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(pub(crate) u32);

impl Flags {
    pub(crate) const NONE: Flags = Flags(0);
    pub(crate) const EPOCH: Flags = Flags(1);
    pub(crate) const IDLE_SEAL: Flags = Flags(2);
    pub(crate) const CLEAN_CLOSE: Flags = Flags(4);
    pub(crate) const RETENTION: Flags = Flags(8);
    pub(crate) const CUT: Flags = Flags(16);
    const KNOWN: u32 = 31;

    pub(crate) fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether a group with these flags holds no records.
    fn is_control(self) -> bool {
        self.0 & !Flags::CUT.0 != 0
    }

    pub(crate) fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }
}

/// One run of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct EpochId {
    pub(crate) counter: u64,
    pub(crate) nonce: u64,
}

impl EpochId {
    /// The part of the epoch that each record carries.
    pub(crate) fn tag(self) -> u16 {
        self.counter as u16
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) lsn: u64,
    pub(crate) log_id: [u8; 16],
    pub(crate) epoch: EpochId,
    pub(crate) durable_end: u64,
    pub(crate) prev: u64,
    pub(crate) prev_hash: u64,
    pub(crate) used: u32,
    pub(crate) records: u32,
    pub(crate) first_ordinal: u64,
    pub(crate) wall: u64,
    pub(crate) oldest: u64,
    pub(crate) flags: Flags,
    /// The LSN of the newest group before this one that made a cut; 0 if there is none.
    pub(crate) last_cut: u64,
    /// With CUT: the first void address. Everything from here to this group is void.
    pub(crate) cut_from: u64,
}

/// Why bytes are not the header of a group at their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupInvalid {
    NoHeader,
    Checksum,
    Misplaced,
    ForeignLog,
    Fields,
}

impl GroupInvalid {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            GroupInvalid::NoHeader => "no group header",
            GroupInvalid::Checksum => "group header checksum",
            GroupInvalid::Misplaced => "a group of another place",
            GroupInvalid::ForeignLog => "a group of another log",
            GroupInvalid::Fields => "group header fields",
        }
    }
}

/// The values that a group must carry to be the successor of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) lsn: u64,
    pub(crate) hash: u64,
    pub(crate) epoch: EpochId,
    pub(crate) next_ordinal: u64,
    /// The LSN of the newest group up to this one that made a cut; 0 if there is none.
    pub(crate) last_cut: u64,
}

impl Link {
    /// The link of the log's first group.
    pub(crate) const START: Link = Link {
        lsn: 0,
        hash: 0,
        epoch: EpochId { counter: 0, nonce: 0 },
        next_ordinal: 0,
        last_cut: 0,
    };
}

impl GroupHeader {
    pub(crate) fn encode(&self, out: &mut [u8; LEN]) {
        out.fill(0);
        put(out, 0, &MAGIC);
        put(out, 8, &self.lsn.to_le_bytes());
        put(out, 16, &self.log_id);
        put(out, 32, &self.epoch.counter.to_le_bytes());
        put(out, 40, &self.epoch.nonce.to_le_bytes());
        put(out, 48, &self.durable_end.to_le_bytes());
        put(out, 56, &self.prev.to_le_bytes());
        put(out, 64, &self.prev_hash.to_le_bytes());
        put(out, 72, &self.used.to_le_bytes());
        put(out, 76, &self.records.to_le_bytes());
        put(out, 80, &self.first_ordinal.to_le_bytes());
        put(out, 88, &self.wall.to_le_bytes());
        put(out, 96, &self.oldest.to_le_bytes());
        put(out, 104, &self.flags.0.to_le_bytes());
        put(out, 112, &self.last_cut.to_le_bytes());
        put(out, 120, &self.cut_from.to_le_bytes());
        let crc = checksum(out);
        put(out, 4, &crc.to_le_bytes());
    }

    /// Decodes the header of the group that must stand at address `lsn` of the segment.
    pub(crate) fn decode(
        b: &[u8],
        lsn: u64,
        segment: &SegmentHeader,
    ) -> Result<Self, GroupInvalid> {
        let b: &[u8; LEN] = b.first_chunk().ok_or(GroupInvalid::NoHeader)?;
        if b[..4] != MAGIC {
            return Err(GroupInvalid::NoHeader);
        }
        if checksum(b) != u32_at(b, 4) {
            return Err(GroupInvalid::Checksum);
        }
        let h = GroupHeader {
            lsn: u64_at(b, 8),
            log_id: *b[16..32].first_chunk().ok_or(GroupInvalid::NoHeader)?,
            epoch: EpochId { counter: u64_at(b, 32), nonce: u64_at(b, 40) },
            durable_end: u64_at(b, 48),
            prev: u64_at(b, 56),
            prev_hash: u64_at(b, 64),
            used: u32_at(b, 72),
            records: u32_at(b, 76),
            first_ordinal: u64_at(b, 80),
            wall: u64_at(b, 88),
            oldest: u64_at(b, 96),
            flags: Flags(u32_at(b, 104)),
            last_cut: u64_at(b, 112),
            cut_from: u64_at(b, 120),
        };
        if h.lsn != lsn {
            return Err(GroupInvalid::Misplaced);
        }
        if h.log_id != segment.log_id {
            return Err(GroupInvalid::ForeignLog);
        }
        let linked = h.prev < h.lsn && (h.prev != 0 || h.prev_hash == 0);
        let control = h.flags.is_control();
        let cut = match h.flags.has(Flags::CUT) {
            true => h.cut_from != 0 && h.cut_from < h.lsn,
            false => h.cut_from == 0,
        };
        let fits = (GROUP_HEADER..=segment.max_group).contains(&h.used)
            && h.padded_end(segment.block) <= segment.end();
        if h.flags.0 & !Flags::KNOWN != 0
            || b[108..112] != [0; 4]
            || !cut
            || (h.last_cut != 0 && h.last_cut >= h.lsn)
            || !linked
            || !fits
            || (control && (h.used != GROUP_HEADER || h.records != 0))
            || h.durable_end > h.lsn
            || h.oldest > h.lsn
            || h.first_ordinal.checked_add(u64::from(h.records)).is_none()
        {
            return Err(GroupInvalid::Fields);
        }
        Ok(h)
    }

    /// An empty group on no chain.
    #[cfg(all(test, not(ringwal_loom)))]
    pub(crate) fn nothing(lsn: u64) -> Self {
        GroupHeader {
            lsn,
            log_id: [0; 16],
            epoch: EpochId::default(),
            durable_end: 0,
            prev: 0,
            prev_hash: 0,
            used: GROUP_HEADER,
            records: 0,
            first_ordinal: 0,
            wall: 0,
            oldest: 0,
            flags: Flags::NONE,
            last_cut: 0,
            cut_from: 0,
        }
    }

    /// The address after the group's last block.
    pub(crate) fn padded_end(&self, block: u32) -> u64 {
        self.lsn + align_up(u64::from(self.used), u64::from(block))
    }

    pub(crate) fn follows(&self, before: &Link) -> bool {
        let epoch_follows = self.epoch == before.epoch
            || (self.flags.has(Flags::EPOCH) && self.epoch.counter > before.epoch.counter);
        self.prev == before.lsn
            && self.prev_hash == before.hash
            && epoch_follows
            && self.first_ordinal == before.next_ordinal
            && self.last_cut == before.last_cut
    }

    /// Whether the group holds no record and makes no cut, so that it holds no user data.
    pub(crate) fn is_mark(&self) -> bool {
        self.flags.is_control() && !self.flags.has(Flags::CUT) && self.used == GROUP_HEADER
    }

    /// The link of a group that replaces this one, which is a mark.
    pub(crate) fn link_before(&self) -> Link {
        Link {
            lsn: self.prev,
            hash: self.prev_hash,
            epoch: self.epoch,
            next_ordinal: self.first_ordinal,
            last_cut: self.last_cut,
        }
    }

    /// The link of this group's successor.
    pub(crate) fn link(&self) -> Link {
        let mut bytes = [0; LEN];
        self.encode(&mut bytes);
        Link {
            lsn: self.lsn,
            hash: hash(&bytes),
            epoch: self.epoch,
            next_ordinal: self.first_ordinal + u64::from(self.records),
            last_cut: if self.flags.has(Flags::CUT) { self.lsn } else { self.last_cut },
        }
    }
}

fn checksum(b: &[u8; LEN]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&b[..4]);
    crc.update(&b[8..]);
    crc.finalize()
}

/// 64 bits that a successor repeats. The hash detects accidents only; it need not resist an
/// attacker.
fn hash(b: &[u8; LEN]) -> u64 {
    let mut h = 0x9E37_79B9_7F4A_7C15_u64;
    for at in (0..LEN).step_by(8) {
        h = (h ^ u64_at(b, at)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        h ^= h >> 32;
    }
    h
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> SegmentHeader {
        SegmentHeader {
            log_id: [7; 16],
            block: 4096,
            size: 1 << 20,
            base: 1 << 20,
            max_group: 1 << 18,
            created_at: 0,
            app_version: 0,
        }
    }

    fn sample() -> GroupHeader {
        GroupHeader {
            lsn: (1 << 20) + 8192,
            log_id: [7; 16],
            epoch: EpochId { counter: 70_000, nonce: 99 },
            durable_end: (1 << 20) + 4096,
            prev: (1 << 20) + 4096,
            prev_hash: 5,
            used: 5000,
            records: 3,
            first_ordinal: 17,
            wall: 1,
            oldest: 0,
            flags: Flags::NONE,
            last_cut: 4096,
            cut_from: 0,
        }
    }

    fn encoded(h: &GroupHeader) -> [u8; LEN] {
        let mut b = [0; LEN];
        h.encode(&mut b);
        b
    }

    #[test]
    fn a_header_survives_encoding_and_every_flipped_bit_is_found() {
        let mut b = encoded(&sample());
        assert_eq!(GroupHeader::decode(&b, sample().lsn, &segment()), Ok(sample()));
        for bit in 0..LEN * 8 {
            b[bit / 8] ^= 1 << (bit % 8);
            assert!(GroupHeader::decode(&b, sample().lsn, &segment()).is_err(), "bit {bit}");
            b[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn fields_out_of_range_are_refused_behind_a_right_checksum() {
        let break_it: [fn(&mut GroupHeader); 16] = [
            |h| h.used = 127,
            |h| h.used = (1 << 18) + 1,
            |h| h.used = u32::MAX,
            |h| h.durable_end = h.lsn + 1,
            |h| h.oldest = h.lsn + 1,
            |h| h.prev = h.lsn,
            |h| h.prev = 0,
            |h| h.flags = Flags(32),
            |h| h.cut_from = 1,
            |h| (h.flags, h.cut_from) = (Flags::CUT, h.lsn),
            |h| h.last_cut = h.lsn,
            |h| h.flags = Flags::CUT.and(Flags::IDLE_SEAL),
            |h| h.flags = Flags::IDLE_SEAL,
            |h| h.log_id = [8; 16],
            |h| h.lsn += 4096,
            |h| h.first_ordinal = u64::MAX,
        ];
        for (i, change) in break_it.iter().enumerate() {
            let mut h = sample();
            change(&mut h);
            let at = sample().lsn;
            assert!(GroupHeader::decode(&encoded(&h), at, &segment()).is_err(), "case {i}");
        }
        assert!(GroupHeader::decode(&[0; LEN], 0, &segment()).is_err());
        assert!(GroupHeader::decode(&[], 0, &segment()).is_err());
    }

    #[test]
    fn a_group_at_the_segments_end_must_fit() {
        let mut h = sample();
        h.lsn = (2 << 20) - 4096;
        h.used = 4097;
        assert!(GroupHeader::decode(&encoded(&h), h.lsn, &segment()).is_err());
        h.used = 4096;
        assert!(GroupHeader::decode(&encoded(&h), h.lsn, &segment()).is_ok());
    }

    #[test]
    fn only_the_true_successor_follows() {
        let first = sample();
        let link = first.link();
        let next = GroupHeader {
            lsn: first.padded_end(4096),
            prev: link.lsn,
            prev_hash: link.hash,
            first_ordinal: 20,
            ..first
        };
        assert!(next.follows(&link));
        let later = EpochId { counter: 70_001, nonce: 1 };
        assert!(!GroupHeader { epoch: later, ..next }.follows(&link));
        assert!(GroupHeader { epoch: later, flags: Flags::EPOCH, ..next }.follows(&link));
        assert!(!GroupHeader { prev_hash: 1, ..next }.follows(&link));
        assert!(!GroupHeader { prev: 4096, ..next }.follows(&link));
        assert!(!GroupHeader { first_ordinal: 21, ..next }.follows(&link));
        assert!(!GroupHeader { last_cut: 0, ..next }.follows(&link));
        let cut = GroupHeader { flags: Flags::CUT, cut_from: 8192, ..first };
        let after = GroupHeader { prev_hash: cut.link().hash, last_cut: cut.lsn, ..next };
        assert!(after.follows(&cut.link()), "a data group that makes a cut");
        // A group that was written again after a crash, with one byte changed, has another hash.
        assert!(!next.follows(&GroupHeader { wall: 2, ..first }.link()));
    }
}
