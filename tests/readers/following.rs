//! Followers return every durable record once, in order, as it becomes durable, and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{Temp, backends, read_all, small};
use ringwal::{Durability, Error, Lsn, Wal};

fn payload(n: u32) -> Vec<u8> {
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.extend((0..n * 37 % 3000).map(|i| (i ^ n) as u8));
    bytes
}

fn number(payload: &[u8]) -> u32 {
    u32::from_le_bytes(*payload.first_chunk().unwrap())
}

/// Appends so many records, some of them in batches, and closes the log.
fn write(wal: &Wal, records: u32) {
    let mut n = 0;
    while n < records {
        if n % 50 == 7 {
            wal.append_batch(&[payload(n), payload(n + 1), payload(n + 2)]).unwrap();
            n += 3;
        } else {
            wal.append(&payload(n)).unwrap();
            n += 1;
        }
        if n % 400 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    wal.close().unwrap();
}

fn check(seen: &mut u32, payload_seen: &[u8]) {
    assert_eq!(number(payload_seen), *seen);
    assert_eq!(payload_seen, payload(*seen));
    *seen += 1;
}

#[test]
fn every_kind_of_follower_returns_every_record_across_segments() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        let total = 6000;
        std::thread::scope(|scope| {
            let one = wal.follow(Lsn::ZERO).unwrap();
            scope.spawn(move || {
                let mut seen = 0;
                for record in one {
                    check(&mut seen, &record.unwrap().payload);
                }
                assert!(seen >= total);
            });
            let mut runs = wal.follow(Lsn::ZERO).unwrap();
            scope.spawn(move || {
                let mut seen = 0;
                while let Some(records) = runs.next_records().unwrap() {
                    records.for_each(|r| check(&mut seen, r.payload));
                }
                assert!(seen >= total);
            });
            let mut slow = wal.follow(Lsn::ZERO).unwrap();
            scope.spawn(move || {
                // The follower lags, reads from files, and catches up.
                let mut seen = 0;
                while let Some(record) = slow.next_ref().unwrap() {
                    check(&mut seen, record.payload);
                    if seen % 1500 == 0 {
                        std::thread::sleep(Duration::from_millis(30));
                    }
                }
                assert!(seen >= total);
            });
            let mut task = wal.follow(Lsn::ZERO).unwrap();
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    let mut seen = 0;
                    while let Some(record) = task.next_record().await {
                        check(&mut seen, &record.unwrap().payload);
                    }
                    assert!(seen >= total);
                });
            });
            write(&wal, total);
        });
    }
}

#[test]
fn record_that_is_not_durable_is_not_delivered() {
    for backend in backends() {
        let temp = Temp::new();
        let wal =
            small(&temp.log()).backend(backend).durability(Durability::Manual).open().unwrap();
        let mut follower = wal.follow(wal.durable_end()).unwrap();
        wal.append(b"one").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(follower.try_next().unwrap(), None);
        let soon = Duration::from_millis(10);
        assert!(follower.next_timeout(soon).unwrap().is_none());
        wal.sync().unwrap();
        assert_eq!(follower.next_timeout(soon).unwrap().unwrap().payload, b"one");
        assert_eq!(follower.try_next().unwrap(), None);
    }
}

#[test]
fn follower_starts_at_the_first_record_from_its_position() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let lsns: Vec<Lsn> = (0..2000).map(|n| wal.append(&payload(n)).unwrap()).collect();
    wal.sync().unwrap();
    for n in [0, 1, 700, 1999] {
        let mut follower = wal.follow(lsns[n]).unwrap();
        let first = follower.next_ref().unwrap().unwrap();
        assert_eq!((first.lsn, number(first.payload)), (lsns[n], n as u32));
    }
    // From a position between records, the follower starts at the next record.
    let mut follower = wal.follow(Lsn::new(lsns[5].as_u64() + 1)).unwrap();
    assert_eq!(follower.next_ref().unwrap().unwrap().lsn, lsns[6]);
    // From the end, the follower starts at the next record to be appended.
    let mut follower = wal.follow(wal.durable_end()).unwrap();
    assert!(follower.try_next().unwrap().is_none());
    wal.append_durable(b"next").unwrap();
    assert_eq!(follower.next_ref().unwrap().unwrap().payload, b"next");
    let beyond = Lsn::new(wal.durable_end().as_u64() + (1 << 30));
    assert!(matches!(wal.follow(beyond), Err(Error::NotAppended { .. })));
}

#[test]
fn follower_pins_its_segment_and_is_refused_below_the_oldest() {
    let temp = Temp::new();
    let wal = small(&temp.log()).max_segments(3).open().unwrap();
    let first = wal.append(&payload(0)).unwrap();
    wal.sync().unwrap();
    let mut follower = wal.follow(first).unwrap();
    assert_eq!(number(follower.next_ref().unwrap().unwrap().payload), 0);
    let mut written = 1;
    while written < 400 {
        wal.append_durable(&payload(written)).unwrap();
        written += 1;
    }
    for n in 1..written {
        let record = follower.next_ref().unwrap().unwrap();
        assert_eq!(number(record.payload), n);
    }
    drop(follower);
    while wal.oldest_lsn() <= first {
        wal.append_durable(&payload(written)).unwrap();
        written += 1;
        assert!(written < 100_000, "retention goes on without the follower");
    }
    match wal.follow(first) {
        Err(Error::Pruned { oldest }) => assert!(oldest > first),
        other => panic!("{other:?}"),
    }
}

#[test]
fn close_ends_the_wait_of_a_follower_and_a_task() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        let waiting = wal.follow(wal.durable_end()).unwrap();
        let mut task = wal.follow(wal.durable_end()).unwrap();
        let woken = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(waiting.count(), 0));
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                assert!(runtime.block_on(task.next_record()).is_none());
                woken.store(true, Ordering::SeqCst);
            });
            std::thread::sleep(Duration::from_millis(30));
            assert!(!woken.load(Ordering::SeqCst));
            wal.close().unwrap();
        });
        assert!(woken.load(Ordering::SeqCst));
    }
}

#[test]
fn cancelled_wait_of_a_follower_loses_no_record() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let mut follower = wal.follow(wal.durable_end()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        for n in 0..50 {
            let soon = Duration::from_micros(200);
            assert!(tokio::time::timeout(soon, follower.next_record()).await.is_err());
            wal.append(&payload(n)).unwrap();
            let record = follower.next_record().await.unwrap().unwrap();
            assert_eq!(record.payload, payload(n));
        }
    });
    assert_eq!(read_all(&wal).len(), 50);
}
