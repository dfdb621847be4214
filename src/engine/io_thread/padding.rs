//! The zeros after a group in its buffer, up to the end of the block.
//!
//! A buffer is used again with what the last groups left in it. Zeroing the rest of the block for
//! each group would write up to 4 KiB to memory for a record of a few bytes, in lines that have
//! left the cache since.
//!
//! 1. All bytes of the buffer in `zeros` are zero. Producers write inside `[0, used)` of a group
//!    only: a void reservation touches nothing.
//! 2. Before a group is submitted, `[used, len)` is zero.

use std::ops::Range;

use crate::ring::Ring;

/// What is known to be zero in one buffer.
#[derive(Debug, Clone)]
pub(super) struct Padding {
    zeros: Range<usize>,
}

impl Padding {
    /// Of all buffers of a ring to which nothing was written.
    pub(super) fn of_fresh(ring: &Ring) -> Box<[Padding]> {
        let size = ring.capacity() / ring.buffers();
        (0..ring.buffers()).map(|_| Padding::fresh(size)).collect()
    }

    /// Of a buffer of this size to which nothing was written.
    fn fresh(size: usize) -> Self {
        Padding { zeros: 0..size }
    }

    /// For a group of `used` bytes that is written with `len`: the two ranges that the caller must
    /// zero, which may be empty. They count as zero from then on.
    pub(super) fn dirty(&mut self, used: usize, len: usize) -> [Range<usize>; 2] {
        // Content has replaced the zeros below `used`.
        let Range { start, end } = self.zeros.start.max(used)..self.zeros.end;
        if start >= end || start > len {
            // Bytes of an earlier group lie between the padding and those zeros.
            self.zeros = used..len;
            return [used..len, len..len];
        }
        self.zeros = used..end.max(len);
        [used..start, end.min(len)..len]
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    const SIZE: usize = 64;
    const BLOCK: usize = 8;

    /// A buffer as groups use it one after another.
    struct Buffer {
        bytes: [u8; SIZE],
        padding: Padding,
    }

    impl Buffer {
        /// Writes a group of `used` bytes. Returns how many bytes were zeroed.
        fn group(&mut self, used: usize) -> usize {
            let len = used.next_multiple_of(BLOCK);
            self.bytes[..used].fill(7);
            let ranges = self.padding.dirty(used, len);
            let zeroed = ranges.iter().map(ExactSizeIterator::len).sum();
            for range in ranges {
                self.bytes[range].fill(0);
            }
            assert!(self.bytes[used..len].iter().all(|&x| x == 0), "old bytes after {used}");
            let zeros = &self.bytes[self.padding.zeros.clone()];
            assert!(zeros.iter().all(|&x| x == 0), "wrongly known as zero after {used}");
            zeroed
        }
    }

    fn fresh() -> Buffer {
        Buffer { bytes: [0; SIZE], padding: Padding::fresh(SIZE) }
    }

    #[test]
    fn recycled_buffer_never_leaks_old_bytes_into_the_padding() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..500 {
            let mut buffer = fresh();
            for _ in 0..20 {
                buffer.group(random.usize(1..=SIZE));
            }
        }
    }

    #[test]
    fn groups_of_one_size_zero_nothing_again() {
        let mut buffer = fresh();
        assert_eq!(buffer.group(3), 0, "the buffer is fresh");
        assert_eq!(buffer.group(60), 0);
        assert_eq!(buffer.group(3), 5, "the large group left its bytes");
        assert_eq!((buffer.group(3), buffer.group(5)), (0, 0));
        assert_eq!(buffer.group(2), 3, "what the last group had more");
        assert_eq!(buffer.group(12), 4);
    }
}
