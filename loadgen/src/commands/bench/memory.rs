//! The speed of a processor that copies and sums records without logging them.

use std::hint::black_box;
use std::time::{Duration, Instant};

const BUFFER: usize = 1 << 20;
const POOL: usize = 1 << 20;

/// Returns the records per second of all threads together. Each copies `size` bytes from a pool of
/// 1 MiB into a buffer of 1 MiB and sums them.
pub(super) fn copy_and_sum(size: usize, threads: usize, time: Duration) -> f64 {
    let time = time.max(Duration::from_millis(50));
    std::thread::scope(|scope| {
        let work = || scope.spawn(|| one_thread(size, time));
        let handles: Vec<_> = (0..threads).map(|_| work()).collect();
        handles.into_iter().map(|h| h.join().unwrap_or(0.0)).sum()
    })
}

fn one_thread(size: usize, time: Duration) -> f64 {
    let pool: Vec<u8> = (0..POOL + size).map(|i| (i * 31) as u8).collect();
    let mut buffer = vec![0_u8; BUFFER + size];
    let begun = Instant::now();
    let (mut at, mut records) = (0, 0_u64);
    while begun.elapsed() < time {
        for _ in 0..1024 {
            let payload = black_box(&pool[at..at + size]);
            black_box(crc32fast::hash(payload));
            buffer[at..at + size].copy_from_slice(payload);
            at = (at + size) % POOL;
            records += 1;
        }
        black_box(&mut buffer);
    }
    records as f64 / begun.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_counted() {
        assert!(copy_and_sum(64, 2, Duration::from_millis(1)) > 1000.0);
    }
}
