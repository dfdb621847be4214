//! Models of the ring: every interleaving of a few threads, up to a bound on preemptions.
//!
//! The I/O side is played by the model's main thread. Numbers refer to the ring's invariants.

use std::sync::atomic::{AtomicUsize, Ordering as Std};

use loom::sync::Arc;
use loom::thread;

use super::{HEADER, Placement, Poll, Ring, Sealed};
use crate::sync::{Fences, set_fences};

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

/// Every interleaving up to a bound, and no more order than acquire and release give.
fn model(f: impl Fn() + Sync + Send + 'static) {
    check(3, Fences::None, std::sync::Arc::new(f));
}

/// The same with one preemption less, for models of many steps.
fn model_of_many(f: impl Fn() + Sync + Send + 'static) {
    check(2, Fences::None, std::sync::Arc::new(f));
}

/// The same for what rests on sequential consistency.
fn model_ordered(f: impl Fn() + Sync + Send + 'static) {
    let f = std::sync::Arc::new(f);
    for fences in [Fences::BehindWrites, Fences::BeforeReads] {
        check(3, fences, std::sync::Arc::clone(&f));
    }
}

fn check(preemptions: usize, fences: Fences, f: std::sync::Arc<impl Fn() + Sync + Send + 'static>) {
    set_fences(fences);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 20_000;
    builder.check(move || f());
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
fn take(ring: &Ring, sequence: u64) -> Sealed {
    loop {
        match ring.poll(sequence) {
            Poll::Complete(sealed) => return sealed,
            Poll::Open => ring.seal(false),
            Poll::Empty | Poll::Filling | Poll::Unopened => thread::yield_now(),
        }
    }
}

/// A sleeper that loom knows.
#[derive(Debug)]
struct Flag(Arc<loom::sync::Notify>);

impl super::Wake for Flag {
    fn wake(&self) {
        self.0.notify();
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

/// 4: no buffer is free when the producer crosses, and one is released at the same time. Whichever
/// is later opens the extent; nobody hangs.
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

/// 4: the same, when a segment is what is missing.
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

/// 8: who waits is granted room in order, a large record before later small ones; and is let go when
/// the ring stops.
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
    model_of_many(|| {
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

/// 2, 3: a seal of an empty extent opens it again, at the same place, and loses no producer that comes
/// before, while or after it is closed.
#[test]
fn loom_a_seal_of_an_empty_extent_opens_it_again() {
    model(|| {
        let ring = started(16, 2, 4 * BLOCK);
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || put_waiting(&ring, 16))
        };
        ring.seal(false);
        assert_eq!(producer.join().unwrap(), BLOCK + HEADER);
        assert_eq!(take(&ring, 0), Sealed { lsn: BLOCK, used: HEADER as u32 + 16, records: 1 });
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

/// The doorbell's 2: the sleeper misses no publication.
#[test]
fn loom_no_publication_is_slept_through() {
    static WOKEN: AtomicUsize = AtomicUsize::new(0);
    model_ordered(|| {
        let ring = started(64, 2, 4 * BLOCK);
        let notify = Arc::new(loom::sync::Notify::new());
        ring.doorbell.connect(Box::new(Flag(Arc::clone(&notify))));
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

/// `reserved_end` against the closing of the log, from the ring's stop to the close of its extent: what
/// is in that extent was appended, and is not to be taken for unused.
#[test]
fn loom_the_reserved_end_covers_what_a_closing_ring_still_holds() {
    model(|| {
        let ring = started(64, 2, 4 * BLOCK);
        let closer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                ring.stop();
                ring.seal(true);
            })
        };
        if let Some(lsn) = put(&ring, 16) {
            assert!(ring.reserved_end() > lsn);
        }
        closer.join().unwrap();
    });
}

/// `reserved_end` never exceeds what the log will reach: a sync that waits for more waits for ever.
#[test]
fn loom_the_reserved_end_is_not_made_of_two_extents() {
    model(|| {
        let ring = started(16, 2, 4 * BLOCK);
        let writer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                for sequence in 0..2 {
                    assert!(put(&ring, 16).is_some());
                    ring.seal(false);
                    assert_eq!(take(&ring, sequence).records, 1);
                    ring.release(sequence);
                }
            })
        };
        // Two groups of one block each, from BLOCK on; the third extent is opened, and empty.
        assert!(ring.reserved_end() <= 3 * BLOCK);
        writer.join().unwrap();
        assert_eq!(ring.reserved_end(), 3 * BLOCK);
    });
}

/// 4: who waits for a segment is refused when there is no space for one, be it known before or after
/// the last extent is crossed; nobody hangs.
#[test]
fn loom_no_space_lets_who_waits_for_a_segment_go() {
    model(|| {
        let ring = started(BLOCK, 4, 4 * BLOCK);
        assert!(put(&ring, BLOCK).is_some());
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.reserve_or_wait(BLOCK).map(fill))
        };
        ring.set_no_space();
        assert_eq!(producer.join().unwrap(), Err(super::Refused::NoSpace));
    });
}

/// 4: the same, with space found in the end: refused before, or granted after, never neither.
#[test]
fn loom_no_space_and_then_space_leaves_nobody() {
    model(|| {
        let ring = started(BLOCK, 4, 4 * BLOCK);
        assert!(put(&ring, BLOCK).is_some());
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.reserve_or_wait(BLOCK).map(fill))
        };
        ring.set_no_space();
        ring.prepared(8 * BLOCK);
        match producer.join().unwrap() {
            Ok(lsn) => assert_eq!(lsn, 5 * BLOCK + HEADER),
            Err(refused) => {
                assert_eq!(refused, super::Refused::NoSpace);
                // It crossed before it was refused, so that the next extent is open by now.
                assert_eq!(put(&ring, BLOCK), Some(5 * BLOCK + HEADER));
            }
        }
    });
}

/// 8: a record that takes a whole extent, and waits first, is granted it first, though a small one
/// would have fitted anywhere.
#[test]
fn loom_a_large_record_does_not_starve() {
    model(|| {
        let ring = started(24, 2, 8 * BLOCK);
        assert!(put(&ring, 16).is_some() && put(&ring, 24).is_some());
        let queue = |len, waiting| {
            let producer = {
                let ring = Arc::clone(&ring);
                thread::spawn(move || fill(ring.reserve_or_wait(len).unwrap()))
            };
            while crate::sync::lock(&ring.opening).queue.len() < waiting {
                thread::yield_now();
            }
            producer
        };
        let large = queue(24, 1);
        let small = queue(8, 2);
        for sequence in 0..4 {
            assert!(take(&ring, sequence).records > 0);
            ring.release(sequence);
        }
        assert!(large.join().unwrap() < small.join().unwrap());
    });
}

/// Request's 1, 2: a task that leaves the queue while it is being granted room either was not in time
/// and owns the room, or leaves nothing behind. The log goes on either way.
#[test]
fn loom_leaving_the_queue_races_with_a_grant() {
    model(|| {
        let ring = started(16, 2, 8 * BLOCK);
        assert!(put(&ring, 16).is_some() && put(&ring, 16).is_some());
        let waker = std::task::Waker::noop();
        let Ok(Err(pending)) = ring.reserve_later(16, waker) else { panic!("the ring is full") };
        let task = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                let room = pending.cancel(&ring);
                room.map(|room| room.publish(0)).is_some()
            })
        };
        assert_eq!(take(&ring, 0).records, 1);
        ring.release(0);
        assert_eq!(take(&ring, 1).records, 1);
        ring.release(1);
        let granted = task.join().unwrap();
        if granted {
            assert_eq!(take(&ring, 2).records, 0);
            ring.release(2);
        } else {
            assert_eq!(ring.poll(2), Poll::Empty);
        }
        assert!(put(&ring, 16).is_some());
    });
}

/// Doorbell's 2, with a sleeper that wants closed extents only: it is woken by who closes the extent,
/// if not by who completes it.
#[test]
fn loom_no_crossing_is_slept_through() {
    model_ordered(|| {
        let ring = started(16, 2, 4 * BLOCK);
        let notify = Arc::new(loom::sync::Notify::new());
        ring.doorbell.connect(Box::new(Flag(Arc::clone(&notify))));
        let filler = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || put(&ring, 16))
        };
        let crosser = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || put(&ring, 16))
        };
        loop {
            ring.doorbell.arm(super::WakeOn::Sealed);
            if matches!(ring.poll(0), Poll::Complete(_)) {
                break;
            }
            notify.wait();
            ring.doorbell.disarm();
        }
        assert!(filler.join().unwrap().is_some() && crosser.join().unwrap().is_some());
    });
}

/// A replaced waker is dropped with no lock held: its drop may drop a task that waits for room too,
/// while room is granted.
#[test]
fn loom_a_replaced_waker_may_leave_the_queue() {
    struct Owner {
        ring: Arc<Ring>,
        pending: std::sync::Mutex<Option<super::PendingReservation>>,
    }
    impl std::task::Wake for Owner {
        fn wake(self: std::sync::Arc<Self>) {}
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            let pending = self.pending.lock().unwrap().take();
            if let Some(room) = pending.and_then(|p| p.cancel(&self.ring)) {
                room.publish(0);
            }
        }
    }
    model(|| {
        let ring = started(16, 2, 8 * BLOCK);
        assert!(put(&ring, 16).is_some() && put(&ring, 16).is_some());
        let noop = std::task::Waker::noop();
        let Ok(Err(pending)) = ring.reserve_later(8, noop) else { panic!("the ring is full") };
        let Ok(Err(owned)) = ring.reserve_later(16, noop) else { panic!("the ring is full") };
        let owner = Owner { ring: Arc::clone(&ring), pending: Some(owned).into() };
        let owner = std::task::Waker::from(std::sync::Arc::new(owner));
        assert!(pending.poll(&ring, &owner).is_none());
        drop(owner);
        let task = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                let polled = pending.poll(&ring, std::task::Waker::noop());
                if let Some(room) = polled.map(Result::unwrap).or_else(|| pending.cancel(&ring)) {
                    room.publish(0);
                }
            })
        };
        for sequence in 0..2 {
            assert_eq!(take(&ring, sequence).records, 1);
            ring.release(sequence);
        }
        task.join().unwrap();
    });
}

/// The same with no buffer free: the crosser opens nothing, so that only the end it fixes is there to
/// be seen.
#[test]
fn loom_no_crossing_of_a_full_ring_is_slept_through() {
    model_ordered(|| {
        let ring = started(16, 2, 4 * BLOCK);
        assert!(put(&ring, 16).is_some() && put(&ring, 16).is_some());
        let notify = Arc::new(loom::sync::Notify::new());
        ring.doorbell.connect(Box::new(Flag(Arc::clone(&notify))));
        let crosser = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || put(&ring, 16))
        };
        loop {
            ring.doorbell.arm(super::WakeOn::Sealed);
            if matches!(ring.poll(1), Poll::Complete(_)) {
                break;
            }
            notify.wait();
            ring.doorbell.disarm();
        }
        assert_eq!(crosser.join().unwrap(), None);
    });
}

/// 4: that there is no space may become known after one producer has queued up and before the crosser
/// has said what is missing: then it is the crosser who refuses the other.
#[test]
fn loom_no_space_lets_all_who_wait_go() {
    model(|| {
        let ring = started(BLOCK, 4, 4 * BLOCK);
        assert!(put(&ring, BLOCK).is_some());
        let producers = [(); 2].map(|()| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.reserve_or_wait(BLOCK).map(fill))
        });
        ring.set_no_space();
        for producer in producers {
            assert_eq!(producer.join().unwrap(), Err(super::Refused::NoSpace));
        }
    });
}

/// `reserved_end` never adds the offset of one extent to the address of another.
#[test]
fn loom_the_reserved_end_never_falls_short() {
    model(|| {
        let ring = started(64, 4, 8 * BLOCK);
        assert!(put(&ring, 16).is_some());
        let last = put(&ring, 16).unwrap();
        let writer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                ring.seal(false);
                assert!(put(&ring, 16).is_some());
            })
        };
        assert!(ring.reserved_end() > last);
        writer.join().unwrap();
    });
}
