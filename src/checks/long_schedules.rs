//! Ring, doorbell and waiters together, under random schedules too long for loom. Several producers
//! append many records through few small extents, while segments are prepared. Each producer waits
//! until its records are durable.

use crate::durable::{Durable, Ready};
use crate::format::GROUP_HEADER;
use crate::ring::{Placement, Poll, Ring, Wake, WakeOn};
use crate::sys::sync::loom;

use loom::sync::{Arc, Notify};
use loom::thread;

const BLOCK: u64 = 4096;
const SEGMENT: u64 = 4 * BLOCK;
const PRODUCERS: u64 = 4;
const RECORDS: u64 = 12;
/// Bytes of an extent for records.
const ROOM: u64 = 64;
const HEADER: u64 = GROUP_HEADER as u64;

#[derive(Debug)]
struct Bell(Arc<Notify>);

impl Wake for Bell {
    fn wake(&self) {
        self.0.notify();
    }
}

/// Appends records and waits for every third. Returns their positions.
fn produce(ring: &Ring, durable: &Durable, producer: u64) -> Vec<u64> {
    let mut lsns = Vec::new();
    for n in 0..RECORDS {
        let len = 8 * (1 + (producer + n) % 8);
        let mut room = ring.try_reserve(len).or_else(|_| ring.reserve_or_wait(len)).unwrap();
        let lsn = room.lsn();
        room.bytes();
        room.publish(1);
        if n % 3 == producer % 3 || n + 1 == RECORDS {
            durable.wait(lsn).unwrap();
            assert!(durable.end() > lsn);
        }
        lsns.push(lsn);
    }
    lsns
}

/// The I/O side: takes each extent in turn and makes it durable. Sleeps while there is none.
fn serve(ring: &Ring, durable: &Durable, bell: &Notify) {
    let (mut next, mut records, mut end) = (0, 0, BLOCK);
    while records < PRODUCERS * RECORDS {
        match ring.poll(next) {
            Poll::Complete(sealed) => {
                assert!(sealed.lsn >= end, "extents do not overlap");
                let to = sealed.lsn + u64::from(sealed.used).next_multiple_of(BLOCK);
                records += u64::from(sealed.records);
                ring.release(next);
                next += 1;
                durable.advance(to);
                durable.wake(end, to, &mut Ready::default());
                end = to;
                continue;
            }
            Poll::Open => {
                ring.seal(false);
                continue;
            }
            Poll::Empty | Poll::Filling | Poll::Unopened => {}
        }
        ring.doorbell.arm(WakeOn::Any);
        if matches!(ring.poll(next), Poll::Empty | Poll::Filling | Poll::Unopened) {
            // The last publication in an extent rings the bell only if the extent is closed.
            if matches!(ring.poll(next), Poll::Filling) {
                ring.doorbell.arm(WakeOn::Sealed);
                if matches!(ring.poll(next), Poll::Filling) {
                    bell.wait();
                }
            } else {
                bell.wait();
            }
        }
        ring.doorbell.disarm();
    }
}

#[test]
fn loom_long_schedules_lose_no_record_and_end() {
    let builder = loom::model::Builder { preemption_bound: Some(12), max_branches: 0 };
    builder.check(|| {
        let placement = Placement {
            next: BLOCK,
            segment_end: SEGMENT,
            prepared_end: SEGMENT,
            segment_size: SEGMENT,
            block: BLOCK,
        };
        let ring = Arc::new(Ring::new((HEADER + ROOM) as u32, 2, placement));
        ring.start();
        let durable = Arc::new(Durable::new(BLOCK, false));
        let bell = Arc::new(Notify::new());
        ring.doorbell.connect(Box::new(Bell(Arc::clone(&bell))));
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let (ring, durable) = (Arc::clone(&ring), Arc::clone(&durable));
                thread::spawn(move || produce(&ring, &durable, producer))
            })
            .collect();
        let keeper = {
            let ring = Arc::clone(&ring);
            // The worst case is one record in each extent.
            let segments = PRODUCERS * RECORDS / 3 + 2;
            thread::spawn(move || (2..=segments).for_each(|n| ring.prepared(n * SEGMENT)))
        };
        serve(&ring, &durable, &bell);
        keeper.join().unwrap();
        let mut lsns: Vec<_> = producers.into_iter().flat_map(|p| p.join().unwrap()).collect();
        lsns.sort_unstable();
        lsns.dedup();
        assert_eq!(lsns.len() as u64, PRODUCERS * RECORDS, "every record has a place of its own");
    });
}
