//! Models of the ring: every interleaving of a few threads, up to a bound on preemptions.
//!
//! The I/O side is played by the model's main thread. Numbers refer to the ring's invariants.

use std::sync::atomic::{AtomicUsize, Ordering as Std};
use std::task::Waker;

use crate::sys::sync::loom;
use loom::sync::Arc;
use loom::thread;

use super::{HEADER, Placement, Poll, Ring, SealedExtent, Turn};

const BLOCK: u64 = 4096;

/// A ring whose extents hold `room` bytes of records, started, with extent 0 open.
fn started(room: u64, buffers: usize, prepared: u64) -> Arc<Ring> {
    let placement = Placement {
        next: BLOCK,
        segment_end: 4 * BLOCK,
        prepared_end: prepared,
        segment_size: 4 * BLOCK,
        block: BLOCK,
    };
    let ring = Ring::new((HEADER + room) as u32, buffers, placement);
    ring.start();
    Arc::new(ring)
}

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.max_branches = 20_000;
    builder.check(f);
}

/// Reserves, fills and publishes one record; returns its address.
fn put(ring: &Ring, len: u64) -> Option<u64> {
    ring.try_reserve(len).ok().map(fill)
}

/// The same, asleep until there is room.
fn put_waiting(ring: &Ring, len: u64) -> u64 {
    fill(ring.try_reserve(len).or_else(|_| ring.reserve_or_wait(len)).unwrap())
}

fn fill(mut room: super::Reservation<'_>) -> u64 {
    let lsn = room.lsn();
    room.bytes();
    room.publish(1);
    lsn
}

/// Takes the next extent when it is complete, sealing it if it is open.
fn take(ring: &Ring, sequence: u64) -> SealedExtent {
    loop {
        match ring.poll(sequence) {
            Poll::Complete(sealed) => return sealed,
            Poll::Open => {
                ring.seal(false);
            }
            Poll::Empty | Poll::Filling | Poll::Unopened => thread::yield_now(),
        }
    }
}

/// 2, 3, 6: valid reservations are disjoint, and the extent is taken only when all are published.
#[test]
fn loom_producers_fill_one_extent_while_it_is_sealed() {
    model(|| {
        let ring = started(64, 2, 4 * BLOCK);
        let producers: Vec<_> = (0..2)
            .map(|_| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || put_waiting(&ring, 16))
            })
            .collect();
        let mut records = 0;
        let mut next = 0;
        while records < 2 {
            let sealed = take(&ring, next);
            assert_eq!(u64::from(sealed.used), HEADER + 16 * u64::from(sealed.records));
            ring.release(next);
            records += sealed.records;
            next += 1;
        }
        let mut lsns: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
        lsns.dedup();
        assert_eq!(lsns.len(), 2, "two places");
    });
}

/// 2, 3, 4: of two producers and room for one, one crosses, and opens the next extent.
#[test]
fn loom_a_crossing_producer_opens_the_next_extent_once() {
    model(|| {
        let ring = started(16, 4, 4 * BLOCK);
        let producers: Vec<_> = (0..2)
            .map(|_| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || {
                    loop {
                        if let Some(lsn) = put(&ring, 16) {
                            return lsn;
                        }
                        thread::yield_now();
                    }
                })
            })
            .collect();
        let mut lsns: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
        lsns.sort_unstable();
        assert_eq!(lsns, [BLOCK + HEADER, 2 * BLOCK + HEADER]);
        assert_eq!(take(&ring, 0).records, 1);
    });
}

/// 4: no buffer is free when the producer crosses, and one is released at the same time. The later
/// of the two opens the extent; no thread hangs.
#[test]
fn loom_the_hand_over_of_a_full_ring_loses_nobody() {
    model(|| {
        let ring = started(16, 2, 4 * BLOCK);
        assert!(put(&ring, 16).is_some());
        assert!(put(&ring, 16).is_some());
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                put_waiting(&ring, 16);
            })
        };
        assert_eq!(take(&ring, 0).records, 1);
        ring.release(0);
        producer.join().unwrap();
        assert_eq!(take(&ring, 1).records, 1);
        ring.release(1);
        assert_eq!(take(&ring, 2).records, 1);
    });
}

/// 4: no segment is prepared when the producer crosses, and one is prepared at the same time.
#[test]
fn loom_a_prepared_segment_opens_what_waits_for_it() {
    model(|| {
        // One block of the segment is the header, so that two extents fit and a third does not.
        let ring = started(BLOCK, 4, 4 * BLOCK);
        assert!(put(&ring, BLOCK).is_some());
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || put_waiting(&ring, BLOCK))
        };
        ring.prepared(8 * BLOCK);
        let lsn = producer.join().unwrap();
        assert_eq!(lsn, 5 * BLOCK + HEADER, "in the next segment, behind its header");
    });
}

/// 8: waiting producers are granted room in order, a large record before later small ones. The stop
/// of the ring releases them.
#[test]
fn loom_a_stopped_ring_lets_its_waiters_go() {
    model(|| {
        let ring = started(16, 2, 4 * BLOCK);
        assert!(put(&ring, 16).is_some());
        assert!(put(&ring, 16).is_some());
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.reserve_or_wait(16).is_err())
        };
        ring.stop();
        assert!(producer.join().unwrap());
    });
}

/// 8: two wait, of which one needs a whole extent; both get theirs from the I/O side's releases.
#[test]
fn loom_blocked_producers_are_all_served() {
    model(|| {
        let ring = started(16, 2, 8 * BLOCK);
        assert!(put(&ring, 16).is_some());
        assert!(put(&ring, 16).is_some());
        let producers: Vec<_> = [16, 8]
            .map(|len| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || {
                    put_waiting(&ring, len);
                })
            })
            .into();
        let (mut next, mut records) = (0, 0);
        while records < 4 {
            records += take(&ring, next).records;
            ring.release(next);
            next += 1;
        }
        for p in producers {
            p.join().unwrap();
        }
    });
}

/// 3: a seal that finds the extent empty, because a producer has crossed meanwhile, opens it again.
#[test]
fn loom_a_seal_that_lands_on_the_next_extent_leaves_it_usable() {
    model(|| {
        let ring = started(16, 4, 4 * BLOCK);
        assert!(put(&ring, 16).is_some());
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                put_waiting(&ring, 16);
            })
        };
        ring.seal(false);
        assert_eq!(take(&ring, 0).records, 1);
        ring.release(0);
        assert_eq!(take(&ring, 1).records, 1);
        ring.release(1);
        producer.join().unwrap();
    });
}

/// What was appended lies below `reserved_end`, whatever happens at the same time.
#[test]
fn loom_the_reserved_end_covers_what_was_published() {
    model(|| {
        let ring = started(16, 4, 4 * BLOCK);
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                let lsn = put_waiting(&ring, 16);
                assert!(ring.reserved_end() > lsn);
            })
        };
        ring.seal(false);
        let _ = ring.reserved_end();
        producer.join().unwrap();
    });
}

/// The same, while the log is closed: the crosser may come after the stop.
#[test]
fn loom_the_reserved_end_covers_what_was_published_before_a_stop() {
    model(|| {
        let ring = started(64, 2, 4 * BLOCK);
        let lsn = put(&ring, 16).unwrap();
        let closer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                ring.stop();
                ring.seal(true);
            })
        };
        assert!(ring.reserved_end() > lsn);
        closer.join().unwrap();
        assert!(ring.reserved_end() > lsn);
    });
}

/// 10: a task comes for its room while it is taken back: one of the two fills it.
#[test]
fn loom_a_task_takes_its_room_or_misses_it() {
    model(|| {
        let ring = started(16, 2, 4 * BLOCK);
        assert!(put(&ring, 16).is_some());
        assert!(put(&ring, 16).is_some());
        let Ok(Err(pending)) = ring.reserve_later(16, Waker::noop()) else { panic!("no room") };
        for next in 0..2 {
            assert_eq!(take(&ring, next).records, 1);
            ring.release(next);
        }
        let task = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || match pending.poll(&ring, Waker::noop()) {
                Some(Turn::Granted(room)) => fill(room),
                Some(Turn::Missed) => 0,
                Some(Turn::Refused(_)) | None => panic!("it was granted room"),
            })
        };
        for mut room in ring.take_back(2) {
            room.bytes();
            room.publish(0);
        }
        let sealed = take(&ring, 2);
        assert_eq!(u64::from(sealed.used), HEADER + 16);
        assert_eq!(sealed.records == 1, task.join().unwrap() != 0);
    });
}

/// 8: a task leaves the queue while room is given out. Either it has left and the next one is
/// served, or the room is its own and it gives it up.
#[test]
fn loom_whoever_leaves_the_queue_holds_up_nobody() {
    static LEFT: AtomicUsize = AtomicUsize::new(0);
    static SERVED: AtomicUsize = AtomicUsize::new(0);
    model(|| {
        let ring = started(16, 2, 8 * BLOCK);
        assert!(put(&ring, 16).is_some());
        assert!(put(&ring, 16).is_some());
        let later = || ring.reserve_later(16, Waker::noop());
        let Ok(Err(leaving)) = later() else { panic!("no room") };
        // Two, so that the place that is left empty stays for a while.
        let staying = [later(), later()].map(|queued| queued.unwrap().unwrap_err());
        let task = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || match leaving.cancel(&ring) {
                Some(mut room) => {
                    room.bytes();
                    room.publish(0);
                    SERVED.fetch_add(1, Std::Relaxed);
                    true
                }
                None => {
                    LEFT.fetch_add(1, Std::Relaxed);
                    false
                }
            })
        };
        for next in 0..2 {
            assert_eq!(take(&ring, next).records, 1);
            ring.release(next);
        }
        let mut next = 2;
        if task.join().unwrap() {
            assert_eq!(take(&ring, next).records, 0);
            ring.release(next);
            next += 1;
        }
        for pending in staying {
            let Some(Turn::Granted(room)) = pending.poll(&ring, Waker::noop()) else {
                panic!("it is this one's turn")
            };
            fill(room);
            assert_eq!(take(&ring, next).records, 1);
            ring.release(next);
            next += 1;
        }
        assert!(!ring.has_queue());
    });
    assert!(LEFT.load(Std::Relaxed) > 0 && SERVED.load(Std::Relaxed) > 0);
}

/// The doorbell's 2: the sleeper misses no publication.
#[test]
fn loom_no_publication_is_slept_through() {
    #[derive(Debug)]
    struct Notify(Arc<loom::sync::Notify>);
    impl super::Wake for Notify {
        fn wake(&self) {
            self.0.notify();
        }
    }
    static WOKEN: AtomicUsize = AtomicUsize::new(0);
    model(|| {
        let ring = started(64, 2, 4 * BLOCK);
        let notify = Arc::new(loom::sync::Notify::new());
        ring.doorbell.connect(Box::new(Notify(Arc::clone(&notify))));
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || put(&ring, 16).unwrap())
        };
        loop {
            ring.doorbell.arm(super::WakeOn::Any);
            match ring.poll(0) {
                Poll::Empty => {
                    notify.wait();
                    WOKEN.fetch_add(1, Std::Relaxed);
                    ring.doorbell.disarm();
                }
                Poll::Open => {
                    ring.seal(false);
                    break;
                }
                _ => break,
            }
        }
        // The straggler, if the producer has reserved and not published.
        loop {
            ring.doorbell.arm(super::WakeOn::Sealed);
            if matches!(ring.poll(0), Poll::Complete(_)) {
                break;
            }
            notify.wait();
            ring.doorbell.disarm();
        }
        producer.join().unwrap();
    });
    assert!(WOKEN.load(Std::Relaxed) > 0, "some interleaving sleeps");
}

/// 8, and the doorbell's 2: an extent that the segment keeper opens for a waiting producer is not
/// slept through, although the I/O side was asleep when it could not be opened.
#[test]
fn loom_a_granted_record_is_not_slept_through() {
    #[derive(Debug)]
    struct Notify(Arc<loom::sync::Notify>);
    impl super::Wake for Notify {
        fn wake(&self) {
            self.0.notify();
        }
    }
    model(|| {
        let ring = started(BLOCK, 4, 4 * BLOCK);
        let notify = Arc::new(loom::sync::Notify::new());
        ring.doorbell.connect(Box::new(Notify(Arc::clone(&notify))));
        assert!(put(&ring, BLOCK).is_some());
        // The next extent waits for a segment.
        assert!(put(&ring, BLOCK).is_none());
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || put_waiting(&ring, BLOCK))
        };
        let keeper = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.prepared(8 * BLOCK))
        };
        assert_eq!(take(&ring, 0).records, 1);
        loop {
            ring.doorbell.arm(super::WakeOn::Any);
            match ring.poll(1) {
                Poll::Unopened | Poll::Empty | Poll::Filling => {
                    notify.wait();
                    ring.doorbell.disarm();
                }
                Poll::Open => {
                    ring.seal(false);
                }
                Poll::Complete(sealed) => break assert_eq!(sealed.records, 1),
            }
        }
        producer.join().unwrap();
        keeper.join().unwrap();
    });
}
