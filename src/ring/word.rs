//! The ring's one shared word: which extent is open, and how far it is reserved.
//!
//! `{ sequence: 24 bits | offset: 40 bits }`
//!
//! 1. An extent is open while the offset is at most the limit (a buffer's size, at most 2^28), and
//!    closed from the moment the offset passes it until the next extent is published.
//! 2. A closed word is added to only by producers that looked before it closed: each adds once, at
//!    most the limit. With fewer than 2^10 such producers in one instant per 2^38, neither they nor
//!    the one seal carry into the sequence.
//! 3. Sequences 2^24 apart are never alive together: the number of buffers divides 2^24.

const OFFSET_BITS: u32 = 40;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
const SEQUENCE_MASK: u64 = (1 << (64 - OFFSET_BITS)) - 1;

/// What a seal adds: past every limit, far below a carry.
pub(super) const SEAL: u64 = 1 << 38;

const _: () = assert!(SEAL > crate::format::MAX_GROUP as u64);
const _: () = assert!(SEAL * 2 + crate::format::MAX_GROUP as u64 * 1024 < 1 << OFFSET_BITS);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail(pub(super) u64);

impl Tail {
    pub(super) fn new(sequence: u64, offset: u64) -> Self {
        Tail((sequence & SEQUENCE_MASK) << OFFSET_BITS | offset)
    }

    /// A word that is closed and belongs to the extent before `sequence`.
    pub(super) fn closed_before(sequence: u64) -> Self {
        Tail::new(sequence.wrapping_sub(1), SEAL)
    }

    pub(super) fn offset(self) -> u64 {
        self.0 & OFFSET_MASK
    }

    /// The buffer of the extent, out of `buffers`, a power of two.
    pub(super) fn index(self, buffers: usize) -> usize {
        (self.0 >> OFFSET_BITS) as usize & (buffers - 1)
    }

    pub(super) fn is_extent(self, sequence: u64) -> bool {
        self.0 >> OFFSET_BITS == sequence & SEQUENCE_MASK
    }

    pub(super) fn same_extent(self, other: Tail) -> bool {
        self.0 >> OFFSET_BITS == other.0 >> OFFSET_BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_wraps_and_the_index_goes_on() {
        let t = Tail::new(1 << 24, 128);
        assert!(t.is_extent(0) && t.is_extent(1 << 24) && !t.is_extent(1));
        assert_eq!(Tail::new((1 << 24) + 5, 0).index(4), 1);
        assert!(Tail::closed_before(0).offset() > 1 << 28);
        assert!(!Tail::closed_before(0).is_extent(0));
    }

    #[test]
    fn a_thousand_overshoots_and_a_seal_do_not_carry() {
        let limit = u64::from(crate::format::MAX_GROUP);
        let t = Tail(Tail::new(7, limit).0 + SEAL + 1024 * limit);
        assert!(t.is_extent(7) && t.offset() > limit);
    }
}
