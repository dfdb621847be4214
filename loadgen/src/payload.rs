//! Payloads that cost next to nothing to make, and their hash.
//!
//! 1. A pool of pseudo-random bytes is made once and shared; a payload is a slice of it. So the log
//!    is measured, and not the generator.
//! 2. Producers walk the pool from different places, forwards, so that the processor can prefetch.

use std::sync::Arc;

use crate::units::SizeRange;

/// Bytes of the pool beside the largest payload.
const POOL: usize = 1 << 20;

/// Pseudo-random bytes, shared by all producers.
#[derive(Debug)]
pub struct Pool {
    bytes: Vec<u8>,
    size: SizeRange,
}

impl Pool {
    /// A pool for payloads of these sizes.
    #[must_use]
    pub fn new(size: SizeRange, seed: u64) -> Self {
        let mut random = SplitMix(seed);
        let len = (POOL + size.max).next_multiple_of(8);
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            bytes.extend_from_slice(&random.next().to_le_bytes());
        }
        Pool { bytes, size }
    }
}

/// The payloads of one producer, one after another, without end.
#[derive(Debug)]
pub struct Generator {
    pool: Arc<Pool>,
    random: SplitMix,
    at: usize,
}

impl Generator {
    /// Producer `number`'s payloads: the same ones for the same pool and number.
    #[must_use]
    pub fn new(pool: Arc<Pool>, number: usize) -> Self {
        let mut random = SplitMix(number as u64 ^ 0x5bd1_e995_9d1b_54d5);
        let at = (random.next() % POOL as u64) as usize & !63;
        Generator { pool, random, at }
    }

    /// The next payload.
    #[inline]
    pub fn next_payload(&mut self) -> &[u8] {
        let SizeRange { min, max } = self.pool.size;
        let len = if min == max {
            max
        } else {
            let span = (max - min + 1) as u64;
            min + ((u128::from(self.random.next()) * u128::from(span)) >> 64) as usize
        };
        let start = self.at;
        // An odd step keeps neighbours and laps different, even for records of one byte or none.
        self.at = (start + len + 1) % POOL;
        &self.pool.bytes[start..start + len]
    }
}

/// A generator of Steele, Lea and Flood: one addition and a mix for each number.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A 64-bit hash of `bytes` and of a number. Not against an adversary: against disks and bugs.
#[inline]
#[must_use]
pub fn hash(number: u64, bytes: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = fold(number ^ K, (bytes.len() as u64) ^ 0xe703_7ed1_a0b4_28db);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
        state = fold(state ^ word, K);
    }
    let mut last = [0; 8];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    fold(state ^ u64::from_le_bytes(last), 0x8ebc_6af0_9c88_c6e3)
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    // The additions keep a zero factor from swallowing the other.
    ((wide as u64) ^ (wide >> 64) as u64).wrapping_add(a.rotate_left(32)).wrapping_add(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(min: usize, max: usize) -> Vec<usize> {
        let pool = Arc::new(Pool::new(SizeRange { min, max }, 1));
        let mut generator = Generator::new(pool, 0);
        (0..20_000).map(|_| generator.next_payload().len()).collect()
    }

    #[test]
    fn sizes_stay_in_their_range_and_reach_both_ends() {
        assert!(sizes(100, 100).iter().all(|&n| n == 100));
        let drawn = sizes(0, 9);
        for n in 0..=9 {
            let count = drawn.iter().filter(|&&d| d == n).count();
            assert!((1_600..2_400).contains(&count), "{n}: {count}");
        }
        assert!(sizes((3 << 20) - 1, 3 << 20).iter().all(|&n| n >= (3 << 20) - 1));
    }

    #[test]
    fn a_producer_repeats_itself_and_no_other() {
        let pool = Arc::new(Pool::new(SizeRange { min: 16, max: 64 }, 1));
        let take = |number| {
            let mut generator = Generator::new(Arc::clone(&pool), number);
            (0..100).map(|_| generator.next_payload().to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(take(3), take(3));
        assert_ne!(take(3), take(4));
    }

    #[test]
    fn the_hash_tells_length_order_number_and_every_bit_apart() {
        let mut seen = std::collections::HashSet::new();
        for len in 0..40 {
            assert!(seen.insert(hash(0, &vec![0; len])), "{len} zero bytes");
        }
        for bit in 0..40 * 8 {
            let mut bytes = vec![0u8; 40];
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(seen.insert(hash(0, &bytes)), "bit {bit}");
        }
        for number in 1..1000 {
            assert!(seen.insert(hash(number, b"")), "number {number}");
        }
        assert_ne!(hash(0, b"aaaaaaaabbbbbbbb"), hash(0, b"bbbbbbbbaaaaaaaa"));
    }
}
