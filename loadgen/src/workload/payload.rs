//! Payloads that cost almost nothing to create, and their hash.
//!
//! 1. All producers share one pool of pseudo-random bytes; a payload is a slice of it. So a run
//!    measures the log and not the generator.
//! 2. Sizes are drawn from weighted ranges. Or records are lines of a file, drawn at random, with
//!    the sizes and content of the file.
//! 3. Producers read the pool forwards from different offsets, so that the processor can prefetch.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use crate::error::Error;
use crate::random::SplitMix;
use crate::units::{SizeRange, Sizes};
use crate::workload::trace::Trace;

/// Bytes of the pool in addition to the largest payload.
const POOL: usize = 1 << 20;

/// Bytes that are read of a file at most. Lines are drawn from these.
const SAMPLE: u64 = 64 << 20;

/// The bytes of records, shared by all producers.
#[derive(Debug)]
pub struct Pool {
    bytes: Vec<u8>,
    draw: Draw,
    /// Seed, which each producer combines with its number.
    seed: u64,
}

#[derive(Debug)]
enum Draw {
    /// One range.
    Range(SizeRange),
    /// Several ranges, each with the sum of all weights up to it.
    Mixed(Vec<(u64, SizeRange)>),
    /// The start and end of each line.
    Lines(Vec<(u32, u32)>),
    /// Those of recorded arrivals.
    Recorded(Arc<Trace>),
}

impl Pool {
    /// Creates a pool of pseudo-random bytes for payloads of these sizes.
    #[must_use]
    pub fn new(sizes: impl Into<Sizes>, seed: u64) -> Self {
        let sizes = sizes.into();
        let bytes = filled(sizes.range().max, seed);
        let draw = match sizes.parts() {
            [(range, _)] => Draw::Range(*range),
            parts => {
                let mut sum = 0;
                let add = |&(range, weight): &(SizeRange, u32)| {
                    sum += u64::from(weight);
                    (sum, range)
                };
                Draw::Mixed(parts.iter().map(add).collect())
            }
        };
        Pool { bytes, draw, seed }
    }

    /// Creates a pool of pseudo-random bytes for recorded arrivals. Payloads that no arrival
    /// belongs to, as those of a warm-up, have sizes drawn from the recorded ones.
    #[must_use]
    pub fn of_trace(trace: &Arc<Trace>, seed: u64) -> Self {
        let bytes = filled(trace.largest(), seed);
        Pool { bytes, draw: Draw::Recorded(Arc::clone(trace)), seed }
    }

    /// Creates a pool of the lines of a file, without their newlines, of at most 64 MiB.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if the file cannot be read, or has no line.
    pub fn of_lines(path: &Path, seed: u64) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path).and_then(|f| f.take(SAMPLE).read_to_end(&mut bytes));
        let whole =
            read.map_err(|e| Error::sample(path, format!("{e}; give a file that can be read")))?;
        let (mut lines, mut start) = (Vec::new(), 0);
        for line in bytes.split_inclusive(|&b| b == b'\n') {
            let cut = line.last() != Some(&b'\n');
            // Ignores a line that the limit truncated.
            if !cut || (whole as u64) < SAMPLE {
                let end = start + line.len() - usize::from(!cut);
                lines.push((start as u32, end as u32));
            }
            start += line.len();
        }
        if lines.is_empty() {
            return Err(Error::sample(path, "there is no line in it, or none of less than 64 MiB"));
        }
        Ok(Pool { bytes, draw: Draw::Lines(lines), seed })
    }

    /// Returns the size of the largest payload.
    #[must_use]
    pub fn largest(&self) -> usize {
        match &self.draw {
            Draw::Range(range) => range.max,
            Draw::Mixed(parts) => parts.iter().map(|(_, range)| range.max).max().unwrap_or(0),
            Draw::Lines(lines) => {
                lines.iter().map(|(start, end)| (end - start) as usize).max().unwrap_or(0)
            }
            Draw::Recorded(trace) => trace.largest(),
        }
    }
}

/// Returns pseudo-random bytes for payloads of up to `largest` bytes.
fn filled(largest: usize, seed: u64) -> Vec<u8> {
    let mut random = SplitMix(seed);
    let len = (POOL + largest).next_multiple_of(8);
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes
}

/// The endless sequence of payloads of one producer.
#[derive(Debug)]
pub struct Generator {
    pool: Arc<Pool>,
    random: SplitMix,
    at: usize,
}

impl Generator {
    /// Returns the payloads of producer `number`. The same pool and number give the same payloads.
    #[must_use]
    pub fn new(pool: Arc<Pool>, number: usize) -> Self {
        let seed = SplitMix(pool.seed).next();
        let mut random = SplitMix(number as u64 ^ seed);
        let at = (random.next() % POOL as u64) as usize & !63;
        Generator { pool, random, at }
    }

    /// Returns the next payload.
    #[inline]
    pub fn next_payload(&mut self) -> &[u8] {
        let SizeRange { min, max } = match &self.pool.draw {
            Draw::Range(range) => *range,
            Draw::Mixed(parts) => {
                let all = parts.last().map_or(1, |(sum, _)| *sum);
                let drawn = below(&mut self.random, all);
                let at = parts.partition_point(|(sum, _)| *sum <= drawn);
                parts[at].1
            }
            Draw::Lines(lines) => {
                let (start, end) = lines[below(&mut self.random, lines.len() as u64) as usize];
                return &self.pool.bytes[start as usize..end as usize];
            }
            Draw::Recorded(trace) => {
                let drawn = below(&mut self.random, trace.records()) as usize;
                return self.payload(trace.entry(drawn).map_or(0, |entry| entry.bytes as usize));
            }
        };
        let len = if min == max {
            max
        } else {
            min + below(&mut self.random, (max - min + 1) as u64) as usize
        };
        self.payload(len)
    }

    /// Returns the next payload of this many bytes, at most the largest of the pool.
    #[inline]
    pub(super) fn payload(&mut self, len: usize) -> &[u8] {
        let start = self.at;
        // An odd step makes neighbours and laps differ, even for records of one byte or none.
        self.at = (start + len + 1) % POOL;
        &self.pool.bytes[start..start + len]
    }
}

/// Draws a number below `end`.
#[inline]
fn below(random: &mut SplitMix, end: u64) -> u64 {
    ((u128::from(random.next()) * u128::from(end)) >> 64) as u64
}

/// Computes a 64-bit hash of `bytes` and a number. It detects faults of disks and code, not an
/// adversary.
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
    // The additions keep a zero factor from cancelling the other one.
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
    fn sizes_stay_in_range_and_reach_both_ends() {
        assert!(sizes(100, 100).iter().all(|&n| n == 100));
        let drawn = sizes(0, 9);
        for n in 0..=9 {
            let count = drawn.iter().filter(|&&d| d == n).count();
            assert!((1_600..2_400).contains(&count), "{n}: {count}");
        }
        assert!(sizes((3 << 20) - 1, 3 << 20).iter().all(|&n| n >= (3 << 20) - 1));
    }

    #[test]
    fn weights_are_kept() {
        let mixed = crate::units::parse_sizes("10:6,100-109:3,4k:1").unwrap();
        let pool = Arc::new(Pool::new(mixed, 1));
        assert_eq!(pool.largest(), 4096);
        let mut generator = Generator::new(pool, 0);
        let mut counts = [0; 3];
        for _ in 0..100_000 {
            match generator.next_payload().len() {
                10 => counts[0] += 1,
                100..=109 => counts[1] += 1,
                4096 => counts[2] += 1,
                other => panic!("{other}"),
            }
        }
        let near = |n: i32, expected: i32| (n - expected).abs() < 1000;
        assert!(near(counts[0], 60_000) && near(counts[1], 30_000) && near(counts[2], 10_000));
    }

    #[test]
    fn lines_of_a_file_are_drawn() {
        let path = std::env::temp_dir().join(format!("loadgen-lines-{}", std::process::id()));
        std::fs::write(&path, b"one\n\n\xff\xfe\nthe last, longer one").unwrap();
        let pool = Arc::new(Pool::of_lines(&path, 1).unwrap());
        assert_eq!(pool.largest(), 20);
        let mut generator = Generator::new(pool, 0);
        let mut seen = std::collections::BTreeMap::<Vec<u8>, u32>::new();
        for _ in 0..4000 {
            *seen.entry(generator.next_payload().to_vec()).or_default() += 1;
        }
        let lines: Vec<_> = seen.keys().map(Vec::as_slice).collect();
        assert_eq!(lines, [&b""[..], b"one", b"the last, longer one", b"\xff\xfe"]);
        assert!(seen.values().all(|&n| (800..1200).contains(&n)), "{seen:?}");
        std::fs::write(&path, b"").unwrap();
        let e = Pool::of_lines(&path, 1).unwrap_err();
        assert!(e.to_string().contains("--sample"), "{e}");
        std::fs::remove_file(&path).unwrap();
        assert!(Pool::of_lines(Path::new("/"), 1).is_err());
    }

    #[test]
    fn producer_repeats_its_own_payloads_only() {
        let pool = Arc::new(Pool::new(SizeRange { min: 16, max: 64 }, 1));
        let take = |number| {
            let mut generator = Generator::new(Arc::clone(&pool), number);
            (0..100).map(|_| generator.next_payload().to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(take(3), take(3));
        assert_ne!(take(3), take(4));
    }

    #[test]
    fn hash_depends_on_length_order_number_and_every_bit() {
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
