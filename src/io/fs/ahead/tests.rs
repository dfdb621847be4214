//! The bookkeeping of requests, without a file.

use std::io;

use fastrand::Rng;

use super::window::{Arrival, Sizes, Window};

const SIZES: Sizes = Sizes { begin: 64 << 10, slot: 32 << 10 };
const BLOCK: u64 = 4096;

/// What a window has requested: what a file and a reader would see.
struct Run {
    window: Window,
    rng: Rng,
    requested: Vec<(u64, u64, usize)>,
    limit: u64,
    taken: u64,
    at: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut window = Window::new(SIZES);
        window.took(SIZES.begin);
        window.begin(0, BLOCK as usize);
        let rng = Rng::with_seed(seed);
        Run { window, rng, requested: Vec::new(), limit: 0, taken: SIZES.begin, at: 0 }
    }

    fn request(&mut self) {
        while let Some((offset, len)) = self.window.next(self.limit) {
            assert!(offset + len as u64 <= self.limit, "above the limit");
            assert!(len <= SIZES.slot && (len as u64).is_multiple_of(BLOCK));
            let after = self.requested.last().map_or(self.at, |(_, from, n)| from + *n as u64);
            assert_eq!(offset, after, "a gap, or twice the same");
            let id = self.window.requested(offset, len);
            self.requested.push((id, offset, len));
            assert!(self.requested.len() <= Sizes::SLOTS, "more requests than buffers");
            let ahead: usize = self.requested.iter().map(|(.., len)| len).sum();
            assert!(ahead as u64 <= self.taken, "{ahead} ahead after {}", self.taken);
        }
    }

    /// The reader takes the first request's bytes.
    fn take(&mut self) {
        if self.requested.is_empty() {
            return;
        }
        let (id, offset, len) = self.requested.remove(0);
        assert_eq!(self.window.arrived(id, &Ok(len)), Arrival::Whole(len));
        self.window.took_front();
        self.taken += len as u64;
        self.at = offset + len as u64;
    }
}

#[test]
fn requests_are_contiguous_below_the_limit_and_within_the_bounds() {
    for seed in 0..300 {
        let mut run = Run::new(seed);
        for _ in 0..100 {
            run.limit += run.rng.u64(0..4) * BLOCK * run.rng.u64(0..8);
            run.request();
            if run.rng.bool() {
                run.take();
            }
        }
        assert!(run.at > 0 || run.limit == 0, "{seed}");
    }
}

#[test]
fn window_fills_all_slots_once_the_reader_has_read_enough() {
    let mut run = Run::new(0);
    run.limit = u64::MAX / 2;
    for _ in 0..8 {
        run.request();
        run.take();
    }
    run.request();
    let full: usize = run.requested.iter().map(|(.., len)| len).sum();
    assert_eq!(full, Sizes::SLOTS * SIZES.slot);
}

#[test]
fn failed_request_ends_the_sequence_and_the_ones_before_it_are_delivered() {
    for failing in 0..2 {
        for read in [
            Err(io::Error::from_raw_os_error(crate::sys::os_error::DEVICE_FAILED)),
            Ok(BLOCK as usize + 7),
            Ok(0),
        ] {
            let mut run = Run::new(1);
            run.limit = 1 << 30;
            run.request();
            (0..failing).for_each(|_| run.take());
            let requested = run.requested.clone();
            let (id, offset, len) = requested[0];
            let expected = match &read {
                Ok(n) if *n as u64 > BLOCK => Arrival::Part(BLOCK as usize),
                _ => Arrival::Failed,
            };
            assert_eq!(run.window.arrived(id, &read), expected);
            let failed_below = if read.is_err() { offset + len as u64 } else { 0 };
            assert_eq!(run.window.take_failed_below(), failed_below);
            assert_eq!(run.window.take_failed_below(), 0);
            // What was requested after it is void, and nothing is requested any more.
            for (id, _, len) in &requested[1..] {
                assert_eq!(run.window.arrived(*id, &Ok(*len)), Arrival::Abandoned);
            }
            assert_eq!(run.window.next(u64::MAX), None);
            assert!(!run.window.is_due());
        }
    }
}

#[test]
fn abandoned_requests_deliver_nothing_after_a_new_beginning() {
    let mut run = Run::new(2);
    run.limit = 1 << 30;
    run.request();
    let old = run.requested.clone();
    assert!(!old.is_empty());
    let first_valid = run.window.abandon();
    assert!(old.iter().all(|(id, ..)| *id < first_valid));
    assert_eq!(run.window.next(u64::MAX), None);
    run.window.begin(1 << 20, BLOCK as usize);
    let (offset, len) = run.window.next(1 << 30).unwrap();
    assert_eq!(offset, 1 << 20);
    let id = run.window.requested(offset, len);
    assert!(id >= first_valid);
    for (id, _, len) in old {
        assert_eq!(run.window.arrived(id, &Ok(len)), Arrival::Abandoned);
    }
    assert_eq!(run.window.arrived(id, &Ok(len)), Arrival::Whole(len));
}
