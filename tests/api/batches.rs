//! Batches: the position of every record, without blocking, and on any executor.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::support::{Temp, backends, small};
use ringwal::{Error, Lsn, Wal};

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(out) => return out,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Lengths at every distance from a multiple of 8.
fn batch(round: usize) -> Vec<Vec<u8>> {
    (0..1 + round % 40).map(|n| vec![n as u8; (n * 7 + round) % 67]).collect()
}

fn check(wal: &Wal, records: &[Vec<u8>], lsns: ringwal::BatchLsns<'_>) {
    let (first, last) = (lsns.first_lsn(), lsns.last_lsn());
    assert_eq!(lsns.len(), records.len());
    let positions: Vec<Lsn> = lsns.collect();
    assert_eq!((positions[0], positions[records.len() - 1]), (first, last));
    wal.wait_durable(last).unwrap();
    let read: Vec<_> = wal.reader(first).map(Result::unwrap).take(records.len()).collect();
    for (at, record) in records.iter().enumerate() {
        assert_eq!((read[at].lsn, &read[at].payload), (positions[at], record));
        assert_eq!(wal.read(positions[at]).unwrap().payload, *record);
    }
}

#[test]
fn append_batch_lsns_returns_the_position_of_every_record_in_every_form() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        for round in 0..120 {
            let records = batch(round);
            wal.append(&vec![0; round]).unwrap();
            match round % 3 {
                0 => check(&wal, &records, wal.append_batch_lsns(&records).unwrap()),
                1 => {
                    let lsns = loop {
                        match wal.try_append_batch(&records) {
                            Err(Error::RingFull) => {
                                wal.sync().unwrap();
                            }
                            lsns => break lsns.unwrap(),
                        }
                    };
                    check(&wal, &records, lsns);
                }
                _ => check(&wal, &records, block_on(wal.append_batch_async(&records)).unwrap()),
            }
        }
        // What programs of the first form do.
        wal.wait_durable(wal.append_batch(&["a", "b"]).unwrap()).unwrap();
    }
}

#[test]
fn batches_that_cannot_be_are_refused_in_every_form() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let none: [&[u8]; 0] = [];
    let all = |records: &[&[u8]]| {
        [
            wal.append_batch_lsns(records).map(|_| ()),
            wal.try_append_batch(records).map(|_| ()),
            block_on(wal.append_batch_async(records)).map(|_| ()),
        ]
    };
    assert!(all(&none).iter().all(|r| matches!(r, Err(Error::EmptyBatch))));
    let large = vec![0; 1 << 20];
    assert!(all(&[b"a", &large]).iter().all(|r| matches!(r, Err(Error::RecordTooLarge { .. }))));
    wal.append_with(1, |_| {
        let refused = wal.try_append_batch(&["a"]);
        assert!(matches!(refused, Err(Error::Reentrant)), "{refused:?}");
    })
    .unwrap();
    wal.close().unwrap();
    assert!(all(&[b"a"]).iter().all(|r| matches!(r, Err(Error::Closed))));
    assert_eq!(wal.reader(Lsn::ZERO).count(), 1);
}

/// A record whose length changes each time it is asked for.
struct Growing(Cell<usize>, Vec<u8>);

impl AsRef<[u8]> for Growing {
    fn as_ref(&self) -> &[u8] {
        self.0.set(self.0.get() + 1);
        &self.1[..self.0.get() * 8]
    }
}

#[test]
fn as_ref_of_a_record_is_called_once_and_decides_its_position() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let records: Vec<_> = (0..5).map(|n| Growing(Cell::new(0), vec![n; 80])).collect();
    for round in 1..=3 {
        let lsns = match round {
            1 => wal.append_batch_lsns(&records).unwrap(),
            2 => wal.try_append_batch(&records).unwrap(),
            _ => block_on(wal.append_batch_async(&records)).unwrap(),
        };
        wal.wait_durable(lsns.first_lsn()).unwrap();
        for (lsn, record) in lsns.zip(&records) {
            assert_eq!(record.0.get(), round);
            assert_eq!(wal.read(lsn).unwrap().payload, record.1[..round * 8]);
        }
    }
}

#[test]
fn batch_futures_dropped_while_the_ring_is_full_append_nothing_or_all() {
    let temp = Temp::new();
    let builder = Wal::builder(temp.log()).segment_size(1 << 20).ring_capacity(32 << 10);
    let wal = builder.max_record_size(3000).open().unwrap();
    let (mut appended, mut waited) = (0, 0);
    for n in 0..1500_u32 {
        let records = [[n as u8; 1400], [n as u8; 1400]];
        let mut append = Box::pin(wal.append_batch_async(&records));
        match append.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(lsns) => appended += lsns.unwrap().count(),
            Poll::Pending if n % 2 == 0 => drop(append),
            Poll::Pending => {
                waited += 1;
                appended += block_on(append).unwrap().count();
            }
        }
    }
    assert!(waited > 0, "the ring was never full");
    wal.sync().unwrap();
    assert_eq!(wal.reader(Lsn::ZERO).map(Result::unwrap).count(), appended);
}

/// The rule for a cut: at the first record, or not at all.
#[test]
fn cut_inside_a_batch_is_refused_at_every_record_but_the_first() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    wal.append(b"stays").unwrap();
    let records = ["a", "bb", "ccc"];
    let lsns: Vec<_> = wal.append_batch_lsns(&records).unwrap().collect();
    wal.sync().unwrap();
    for lsn in &lsns[1..] {
        let refused = wal.truncate_from(*lsn);
        assert!(matches!(refused, Err(Error::InsideBatch { first, .. }) if first == lsns[0]));
    }
    assert_eq!(wal.reader(Lsn::ZERO).count(), 4);
    wal.truncate_from(lsns[0]).unwrap();
    assert_eq!(wal.reader(Lsn::ZERO).count(), 1);
    for lsn in lsns {
        assert!(matches!(wal.read(lsn), Err(Error::Truncated { .. })));
    }
}
